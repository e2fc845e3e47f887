//! Who may use the API. Whoever shows a credential is who that says, or nobody; what the credential reaches, a
//! [`Caller`] knows. Without one this machine itself is trusted, where that was asked for.
//!
//! Credentials are the token of `--api-token-file`, those of `--api-access`, and in a cluster whatever tokens its API
//! server vouches for.

mod file;
mod grant;
mod person;
pub mod rights;
mod rules;
mod sender;
mod signature;
mod strangers;
mod tokens;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use arc_swap::ArcSwap;
use axum::{
    extract::ConnectInfo,
    response::{IntoResponse, Response},
};
use belfry_cluster::Cluster;
use belfry_http::Clients;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};

pub use grant::Holder;
pub use person::Person;
pub use sender::Sender;

use self::{rules::Rules, strangers::Strangers};
use crate::{
    api::{Caller, Problem},
    manifests,
    receivers::KeyRings,
    server::{WholeRequest, stopped},
};

/// How often the file is looked at for changes. Polling, since the mount of a Secret changes by swapping links.
const POLL: Duration = Duration::from_secs(2);
/// Signatures that are checked at a time: a body may be large, and the keys may be many.
const VERIFIERS: usize = 2;

type Hash = [u8; 32];

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// What [`Access`] is made of.
pub struct Parts {
    /// `--api-token-file`.
    pub token: Option<SecretString>,
    /// `--api-access`.
    pub file: Option<PathBuf>,
    /// Who vouches for tokens, in a cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// `--cluster-name`.
    pub local: String,
    /// This machine itself needs no credential.
    pub trust_loopback: bool,
    /// The way to the public keys of issuers.
    pub clients: Arc<Clients>,
}

/// Who may use the API.
pub struct Access {
    token: Option<Hash>,
    rules: ArcSwap<Rules>,
    file: Option<PathBuf>,
    cluster: Option<Arc<Cluster>>,
    local: Arc<str>,
    trust_loopback: bool,
    keys: KeyRings,
    strangers: Strangers,
    verifiers: Semaphore,
}

/// Why a request isn't answered.
#[derive(Debug)]
pub enum Denied {
    /// It has no credential, or a wrong one.
    Unauthorized(String),
    /// Its credential is good, and not for this; or it isn't what it seems.
    Forbidden(String),
    /// Too many wrong credentials came from its address.
    TooMany(Duration),
    /// Who could tell doesn't answer.
    Unavailable(String),
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthorized(why) => Self::new(StatusCode::UNAUTHORIZED, why),
            Denied::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, why),
            Denied::TooMany(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too many wrong credentials came from this address")
            }
            Denied::Unavailable(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, why),
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let named = match &self {
            Self::Unauthorized(_) => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::TooMany(wait) => Some((header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1))),
            Self::Unavailable(_) => Some((header::RETRY_AFTER, HeaderValue::from_static("5"))),
            Self::Forbidden(_) => None,
        };
        let mut response = Problem::from(self).into_response();
        response.headers_mut().extend(named);
        response
    }
}

impl Access {
    /// The rules at the start.
    ///
    /// # Errors
    /// When the file of `--api-access` can't be used; the message names what is wrong with which field.
    pub async fn new(parts: Parts) -> anyhow::Result<Arc<Self>> {
        let rules = match parts.file.clone() {
            None => Rules::default(),
            Some(path) => match load(path.clone(), parts.local.clone().into()).await.rules {
                Ok(rules) => rules,
                Err(why) => bail!("--api-access: {}: {why}", path.display()),
            },
        };
        Ok(Arc::new(Self {
            token: parts.token.map(|token| hash(token.expose_secret().as_bytes())),
            rules: ArcSwap::from_pointee(rules),
            file: parts.file,
            cluster: parts.cluster,
            local: parts.local.into(),
            trust_loopback: parts.trust_loopback,
            keys: KeyRings::new(parts.clients),
            strangers: Strangers::new(),
            verifiers: Semaphore::new(VERIFIERS),
        }))
    }

    /// Reads the file again whenever it, or one that it names, changes. A bad one leaves what is in force as it is.
    pub async fn watch(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let Some(path) = self.file.clone() else { return };
        let (mut files, mut known) = (vec![path.clone()], None);
        loop {
            if fingerprint(&files).await != known {
                files = load(path.clone(), self.local.clone()).await.files;
                // Taken before they are read, so that no change goes unseen.
                known = fingerprint(&files).await;
                let loaded = load(path.clone(), self.local.clone()).await;
                self.put_in_force(&path, loaded.rules);
                if loaded.files != files {
                    known = None;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    fn put_in_force(&self, path: &Path, rules: Result<Rules, String>) {
        match rules {
            Ok(mut rules) => {
                rules.replace(&self.rules.load());
                tracing::info!(
                    tokens = rules.tokens.len(),
                    issuers = rules.issuers.len(),
                    clusters = rules.senders.len(),
                    "--api-access: in force"
                );
                self.rules.store(Arc::new(rules));
            }
            Err(why) => tracing::error!("--api-access: {}: {why}; what was in force stays so", path.display()),
        }
    }

    /// Who sent a request to read, or to change something.
    ///
    /// # Errors
    /// When that is nobody who may use the API.
    pub async fn caller(&self, request: &WholeRequest) -> Result<Caller, Denied> {
        let peer = peer(request);
        match bearer(request.headers()) {
            Some(token) if self.knows_tokens() => self.by_token(token, peer).await,
            _ => self.unnamed(request, peer),
        }
    }

    /// Someone without a credential: this machine itself, where that is enough.
    fn unnamed(&self, request: &WholeRequest, peer: IpAddr) -> Result<Caller, Denied> {
        if self.trust_loopback && peer.is_loopback() {
            return from_this_machine(request.headers()).map(|()| Caller::Everything);
        }
        let why = match (self.knows_tokens(), self.trust_loopback) {
            (true, _) => "a bearer token is needed",
            (_, true) => {
                "only this machine itself is answered; start with --api-access or --api-token-file to answer others"
            }
            _ => "nobody is answered; start with --api-access, --api-token-file or --api-trust-loopback",
        };
        Err(Denied::Unauthorized(why.to_owned()))
    }

    fn knows_tokens(&self) -> bool {
        self.token.is_some() || self.cluster.is_some() || !self.rules.load().is_empty()
    }

    /// Whether this is the token of `--api-token-file`.
    fn is_own(&self, token: &Hash) -> bool {
        self.token.is_some_and(|own| own.ct_eq(token).into())
    }

    /// Counts a failure, and says no.
    fn refuse(&self, peer: IpAddr, why: &str, log: &str) -> Denied {
        match self.strangers.failed(peer, log) {
            Ok(()) => Denied::Unauthorized(why.to_owned()),
            Err(wait) => Denied::TooMany(wait),
        }
    }
}

async fn fingerprint(files: &[PathBuf]) -> Option<u64> {
    let files = files.to_vec();
    tokio::task::spawn_blocking(move || manifests::fingerprint(&files)).await.ok()
}

/// Reads a file of `--api-access`, and those that it names, as a server would.
///
/// # Errors
/// What is wrong with it, behind the field that it is wrong with.
pub fn check(file: &Path) -> Result<(), String> {
    Rules::load(file, "", &mut Vec::new()).map(drop)
}

struct Loaded {
    rules: Result<Rules, String>,
    files: Vec<PathBuf>,
}

async fn load(path: PathBuf, local: Arc<str>) -> Loaded {
    let first = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        let rules = Rules::load(&path, &local, &mut files);
        Loaded { rules, files }
    });
    read.await.unwrap_or_else(|error| Loaded { rules: Err(error.to_string()), files: vec![first] })
}

/// Where a request comes from. An IPv4 peer of a socket for both comes as an IPv6 address.
fn peer(request: &WholeRequest) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// The token behind `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A page in a browser on this machine can send requests here too: what it can't do is claim our name.
fn from_this_machine(headers: &HeaderMap) -> Result<(), Denied> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local(host) {
        return Err(Denied::Forbidden("the Host header doesn't name this machine".to_owned()));
    }
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let foreign = origin.is_some_and(|origin| {
        !origin.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|origin| origin.as_str() == host))
    });
    if foreign {
        return Err(Denied::Forbidden("the Origin header names another site".to_owned()));
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "localhost:9393", "127.0.0.1:9393", "[::1]:9393", "127.8.8.8"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["", "example.com", "localhost.example.com", "10.0.0.1:9393", "[::2]"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_token_stands_behind_its_scheme() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Basic abc", None),
            ("BearerX abc", None),
        ] {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(bearer(&headers), token, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
