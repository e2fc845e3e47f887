//! Ways to destinations, and the clients that are kept for them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use belfry_core::limits;
use reqwest::{Certificate, Identity, Url, redirect};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{Client, Environment, USER_AGENT, egress, environment::resolving_there};

/// Clients that are kept; beyond it the one that was used longest ago goes, when its last user does.
const KEPT: usize = 64;
/// Idle connections to one host that are kept for reuse: more than are ever in use at once. A connection is idle for a
/// moment between two requests, and what is closed then must be opened anew.
const IDLE_PER_HOST: usize = 2 * limits::PROVIDER_CONCURRENCY as usize;
/// How long an idle connection is kept: shorter than what common servers and load balancers allow (60 s and more).
const IDLE: Duration = Duration::from_secs(50);

/// How a destination is reached, besides its address.
#[derive(Clone, Copy, Default)]
pub struct Route<'a> {
    /// Proxy; without one the environment's is used.
    pub proxy: Option<Proxy<'a>>,
    /// Certificates, in PEM, that replace the system's roots.
    pub ca: Option<&'a [u8]>,
    /// Client certificate (with what chains it to its root) and its key, in PEM.
    pub identity: Option<(&'a [u8], &'a [u8])>,
}

/// A proxy.
#[derive(Clone, Copy)]
pub struct Proxy<'a> {
    /// `http`, `https` or `socks5`, a host, perhaps credentials.
    pub url: &'a str,
    /// Credentials, in place of those in the URL.
    pub credentials: Option<(&'a str, &'a str)>,
}

/// A [`Route`] that leads nowhere. Says what is wrong and never shows a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadRoute {
    /// The proxy's address.
    #[error("the proxy's address {0}")]
    Proxy(&'static str),
    /// The certificate authority.
    #[error("the CA holds no certificate in PEM")]
    Ca,
    /// The client certificate.
    #[error("the client certificate and its key are not a matching pair in PEM")]
    Identity,
}

/// All clients of the process, one for every way to a destination. Share it: connections are reused within one.
pub struct Clients {
    environment: Environment,
    kept: Mutex<VecDeque<([u8; 32], Client)>>,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new()
    }
}

impl Clients {
    /// None yet, with the environment's proxies.
    pub fn new() -> Self {
        Self::with_environment(Environment::read())
    }

    /// None yet, with these proxies for routes that name none.
    pub fn with_environment(environment: Environment) -> Self {
        // Does nothing when the binary has installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { environment, kept: Mutex::default() }
    }

    /// The client for a route.
    ///
    /// # Errors
    /// When proxy, CA or client certificate can't be used.
    pub fn client(&self, route: &Route<'_>) -> Result<Client, BadRoute> {
        let key = key(route);
        if let Some(client) = self.take(&key) {
            return Ok(self.keep(key, client));
        }
        let client = Client::new(self.build(route)?);
        Ok(self.keep(key, client))
    }

    fn take(&self, key: &[u8; 32]) -> Option<Client> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(k, _)| k == key)?;
        kept.remove(at).map(|(_, client)| client)
    }

    /// Puts a client at the end of the queue; the one that is there already, if another thread was faster.
    fn keep(&self, key: [u8; 32], client: Client) -> Client {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, there)) = kept.iter().find(|(k, _)| *k == key) {
            return there.clone();
        }
        kept.push_back((key, client.clone()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        client
    }

    fn build(&self, route: &Route<'_>) -> Result<reqwest::Client, BadRoute> {
        let proxies = match &route.proxy {
            Some(proxy) => vec![proxy.open()?],
            None => self.environment.proxies(),
        };
        let ca = route.ca.map(certificates).transpose()?;
        let identity = route.identity.map(identity).transpose()?;
        let start = || {
            let builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::none())
                .referer(false)
                .dns_resolver(egress::Resolver)
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .pool_idle_timeout(IDLE)
                .no_proxy();
            let builder = proxies.iter().cloned().fold(builder, reqwest::ClientBuilder::proxy);
            match &identity {
                Some(identity) => builder.identity(identity.clone()),
                None => builder,
            }
        };
        match ca {
            Some(ca) => start().tls_certs_only(ca).build().map_err(|_| BadRoute::Identity),
            None => start().build().or_else(|_| {
                // No roots on this system: plain HTTP still works, and HTTPS says itself that it trusts nobody.
                tracing::warn!("the system has no CA certificates: no https address will be trusted");
                start().tls_certs_only([]).build().map_err(|_| BadRoute::Identity)
            }),
        }
    }
}

impl Proxy<'_> {
    fn open(&self) -> Result<reqwest::Proxy, BadRoute> {
        if self.url.contains(char::is_control) {
            return Err(BadRoute::Proxy("holds control characters"));
        }
        let mut url: Url =
            resolving_there(self.url.trim()).parse().map_err(|_| BadRoute::Proxy("is not a valid URL"))?;
        if !matches!(url.scheme(), "http" | "https" | "socks5h") {
            return Err(BadRoute::Proxy("has a scheme other than http, https, socks5"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(BadRoute::Proxy("has no host"));
        }
        if egress::refused_literal(&url) {
            return Err(BadRoute::Proxy("is a link-local address, which is refused"));
        }
        if let Some((username, password)) = self.credentials {
            let set = url.set_username(username).and_then(|()| url.set_password(Some(password)));
            set.map_err(|()| BadRoute::Proxy("takes no credentials"))?;
        }
        reqwest::Proxy::all(url).map_err(|_| BadRoute::Proxy("is not a valid URL"))
    }
}

/// Those certificates of a bundle that can be used as roots; like the peer, what else is in it is passed over.
fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, BadRoute> {
    let usable: Vec<Certificate> = CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .filter(|der| RootCertStore::empty().add(der.clone()).is_ok())
        .filter_map(|der| Certificate::from_der(&der).ok())
        .collect();
    if usable.is_empty() { Err(BadRoute::Ca) } else { Ok(usable) }
}

fn identity((certificate, key): (&[u8], &[u8])) -> Result<Identity, BadRoute> {
    Identity::from_pem(&[certificate, b"\n", key].concat()).map_err(|_| BadRoute::Identity)
}

/// Tells routes apart without keeping their secrets.
fn key(route: &Route<'_>) -> [u8; 32] {
    let credentials = route.proxy.and_then(|proxy| proxy.credentials);
    let parts = [
        route.proxy.map(|proxy| proxy.url.as_bytes()),
        credentials.map(|(username, _)| username.as_bytes()),
        credentials.map(|(_, password)| password.as_bytes()),
        route.ca,
        route.identity.map(|(certificate, _)| certificate),
        route.identity.map(|(_, key)| key),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_proxy(url: &str) -> Result<Client, BadRoute> {
        Clients::default().client(&Route { proxy: Some(Proxy { url, credentials: None }), ..Route::default() })
    }

    #[test]
    fn one_client_a_route_and_the_oldest_goes() {
        let clients = Clients::with_environment(Environment::default());
        for n in 0..KEPT + 3 {
            let url = format!("http://proxy-{n}.example");
            clients.client(&Route { proxy: Some(Proxy { url: &url, credentials: None }), ..Route::default() }).unwrap();
            clients.client(&Route::default()).unwrap();
        }
        let kept = clients.kept.lock().unwrap();
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.back().unwrap().0, key(&Route::default()));
    }

    #[test]
    fn routes_differ_in_credentials_too() {
        let proxy =
            |credentials| key(&Route { proxy: Some(Proxy { url: "http://p", credentials }), ..Route::default() });
        assert_ne!(proxy(None), proxy(Some(("", ""))));
        assert_ne!(proxy(Some(("a", "bc"))), proxy(Some(("ab", "c"))));
    }

    #[test]
    fn bad_routes_are_told_apart() {
        let no = |url| with_proxy(url).map(|_| ()).unwrap_err();
        assert_eq!(no("https://exampleproxy.com|"), BadRoute::Proxy("is not a valid URL"));
        assert_eq!(no("ftp://p.example"), BadRoute::Proxy("has a scheme other than http, https, socks5"));
        assert_eq!(no("wrong\nURL"), BadRoute::Proxy("holds control characters"));
        assert_eq!(no("http://169.254.169.254:3128"), BadRoute::Proxy("is a link-local address, which is refused"));
        assert!(with_proxy("socks5://user:secret@p.example:1080").is_ok());
        assert!(with_proxy("http://p.example:3128/").is_ok());

        let clients = Clients::with_environment(Environment::default());
        let tls = |ca, identity| clients.client(&Route { ca, identity, proxy: None }).map(|_| ());
        assert_eq!(tls(Some(b"aaaaa"), None), Err(BadRoute::Ca));
        assert_eq!(tls(None, Some((b"x", b"y"))), Err(BadRoute::Identity));
    }
}
