//! Trust: private roots, client certificates, and what happens without them.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use belfry_http::{BadRoute, Client, Clients, Environment, Error, ErrorKind, Request, Response, Route};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// Answers over TLS, to clients with a certificate of `clients` if that is given.
async fn serve(authority: &Authority, clients: Option<&Authority>) -> SocketAddr {
    let (certificate, key) = authority.issue("localhost");
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let config = match clients {
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut socket) = acceptor.accept(socket).await else { return };
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = socket.shutdown().await;
            });
        }
    });
    at
}

fn clients() -> Clients {
    Clients::with_environment(Environment::default())
}

async fn ask(client: &Client, at: SocketAddr, host: &str) -> Result<Response, Error> {
    let url = format!("https://{host}:{}/secret-path", at.port());
    client.send(&Request::post(url.parse().unwrap(), "text/plain", "x"), Duration::from_secs(10)).await
}

#[tokio::test]
async fn private_roots_replace_the_systems() {
    let clients = clients();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let at = serve(&ours, None).await;
    let with = |pem: &str| clients.client(&Route { ca: Some(pem.as_bytes()), ..Route::default() }).unwrap();

    assert_eq!(ask(&with(&ours.pem()), at, "localhost").await.unwrap().status, 200);
    // What else is in a bundle doesn't matter.
    let bundle = format!("# comment\n{}\n{}", theirs.pem(), ours.pem());
    assert_eq!(ask(&with(&bundle), at, "localhost").await.unwrap().status, 200);

    let system = clients.client(&Route::default()).unwrap();
    for client in [&system, &with(&theirs.pem())] {
        let error = ask(client, at, "localhost").await.unwrap_err();
        assert_eq!((error.kind, error.unknown()), (ErrorKind::Tls, false));
        let text = error.to_string();
        assert!(text.contains("invalid peer certificate") && !text.contains("secret-path"), "{text}");
    }
    // A certificate for another name.
    assert_eq!(ask(&with(&ours.pem()), at, "127.0.0.1").await.unwrap_err().kind, ErrorKind::Tls);
}

#[tokio::test]
async fn client_certificates_are_shown() {
    let clients = clients();
    let (servers, users) = (Authority::new(), Authority::new());
    let at = serve(&servers, Some(&users)).await;
    let (certificate, key) = users.issue("belfry");
    let (certificate, key, ca) = (certificate.pem(), key.serialize_pem(), servers.pem());
    let identity = Some((certificate.as_bytes(), key.as_bytes()));

    let with = clients.client(&Route { ca: Some(ca.as_bytes()), identity, proxy: None }).unwrap();
    assert_eq!(ask(&with, at, "localhost").await.unwrap().status, 200);
    let without = clients.client(&Route { ca: Some(ca.as_bytes()), ..Route::default() }).unwrap();
    let error = ask(&without, at, "localhost").await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Tls, false), "{error}");

    // A key that belongs to another certificate.
    let (_, other) = users.issue("other");
    let other = other.serialize_pem();
    let mixed = Route { identity: Some((certificate.as_bytes(), other.as_bytes())), ..Route::default() };
    assert_eq!(clients.client(&mixed).map(|_| ()), Err(BadRoute::Identity));
}
