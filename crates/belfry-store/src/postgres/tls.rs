//! TLS to the server, as libpq's `sslmode` has it, by rustls.

use std::{
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

/// Stands for the authorities that the system trusts.
const SYSTEM: &str = "system";

/// What is asked of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Check {
    /// No TLS.
    Disable,
    /// TLS if it has that.
    #[default]
    Prefer,
    /// TLS, whoever it is; where authorities are given, as `Authority`.
    Require,
    /// A certificate of a known authority.
    Authority,
    /// One with its name.
    Full,
}

impl Check {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::Authority,
            "verify-full" => Self::Full,
            _ => return None,
        })
    }
}

/// What a URL says of TLS. Files are read for each connection, so that certificates can be rotated.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub check: Check,
    pub roots: Option<String>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Whether it makes sense.
    pub fn validate(&self) -> Result<(), String> {
        if matches!(self.check, Check::Authority | Check::Full) && self.roots.is_none() {
            return Err("to verify the server takes sslrootcert: a file of certificates, or `system`".into());
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("sslcert and sslkey go together".into());
        }
        Ok(())
    }

    /// Connects so.
    pub fn connector(&self) -> Result<Connector, String> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(self.verifier(&provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
            }
            _ => builder.with_no_client_auth(),
        };
        // What servers of version 17 ask for; older ones don't look at it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Connector(Arc::new(config)))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Verifier, String> {
        let algorithms = provider.signature_verification_algorithms;
        let Some(roots) = self.roots.as_deref().filter(|_| self.check != Check::Prefer) else {
            return Ok(Verifier { algorithms, trust: Trust::Anyone });
        };
        let mut store = RootCertStore::empty();
        let found = if roots == SYSTEM {
            rustls_native_certs::load_native_certs().certs
        } else {
            certificates(Path::new(roots))?
        };
        store.add_parsable_certificates(found);
        if store.is_empty() {
            return Err(format!("sslrootcert: no certificate in {roots}"));
        }
        let store = Arc::new(store);
        // As with libpq, the system's authorities vouch for everyone: then the name decides.
        let trust = if self.check == Check::Full || roots == SYSTEM {
            let verifier = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(provider));
            Trust::Named(verifier.build().map_err(|error| error.to_string())?)
        } else {
            Trust::Signed(store)
        };
        Ok(Verifier { algorithms, trust })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let found = found.map_err(failed)?;
    if found.is_empty() { Err(format!("{}: no certificate in it", path.display())) } else { Ok(found) }
}

/// Whom to believe.
#[derive(Debug)]
enum Trust {
    Anyone,
    Signed(Arc<RootCertStore>),
    Named(Arc<WebPkiServerVerifier>),
}

#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Trust,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Signed(roots) => {
                let parsed = ParsedCertificate::try_from(certificate)?;
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, self.algorithms.all)?;
            }
            Trust::Named(verifier) => return verifier.verify_server_cert(certificate, intermediates, name, ocsp, now),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Makes TLS of connections.
#[derive(Clone)]
pub(super) struct Connector(Arc<ClientConfig>);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// The same, to one server.
pub(super) struct Named {
    connector: TlsConnector,
    /// None for a Unix socket, whose path is asked about all the same.
    name: Option<ServerName<'static>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Connector {
    type Stream = Stream<S>;
    type TlsConnect = Named;
    type Error = Infallible;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Named, Self::Error> {
        let name = ServerName::try_from(domain.to_owned()).ok();
        Ok(Named { connector: TlsConnector::from(Arc::clone(&self.0)), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Named {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let name =
                self.name.ok_or_else(|| io::Error::other("the server's name is none that a certificate could have"))?;
            self.connector.connect(name, stream).await.map(|stream| Stream(Box::new(stream)))
        })
    }
}

/// A connection under TLS.
pub(super) struct Stream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
