//! The public keys of tokens' issuers: fetched over https, once for all who wait for them, and kept. An issuer that
//! doesn't answer is not asked again for a while.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_http::{Clients, HeaderMap, Method, Request, Route, Url};
use belfry_receive::{Algorithm, Discovery, KeySource, Keys, Reason, Refused};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

/// How long keys are used without asking again.
const YOUNG: Duration = Duration::from_secs(3600);
/// How long they are used while their issuer can't be asked.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// How long an issuer that didn't answer is left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// How often an unknown key makes us ask: anybody can name one.
const RENEWED: Duration = Duration::from_secs(60);
/// Time for one document.
const PATIENCE: Duration = Duration::from_secs(5);
/// Issuers whose keys are kept.
const ISSUERS: usize = 256;

/// The keys of all issuers.
pub(crate) struct KeyRings {
    clients: Arc<Clients>,
    rings: Mutex<HashMap<KeySource, Arc<AsyncMutex<Ring>>>>,
}

#[derive(Default)]
struct Ring {
    keys: Option<Arc<Keys>>,
    fetched: Option<Instant>,
    failed: Option<(Instant, String)>,
}

impl Ring {
    fn keys_within(&self, age: Duration) -> Option<&Arc<Keys>> {
        self.keys.as_ref().filter(|_| self.fetched.is_some_and(|at| at.elapsed() < age))
    }
}

impl KeyRings {
    pub(crate) fn new(clients: Arc<Clients>) -> Self {
        Self { clients, rings: Mutex::default() }
    }

    /// The keys of an issuer.
    ///
    /// # Errors
    /// When there are none now, or never will be.
    pub(crate) async fn get(&self, source: &KeySource) -> Result<Arc<Keys>, Refused> {
        let ring = self.ring(source);
        let mut ring = ring.lock().await;
        if let Some(keys) = ring.keys_within(YOUNG) {
            return Ok(keys.clone());
        }
        self.fetch(source, &mut ring).await
    }

    /// Newer keys than these, for a token whose key isn't among them; `None` when there are none yet.
    pub(crate) async fn newer(&self, source: &KeySource, known: &Arc<Keys>) -> Option<Arc<Keys>> {
        let ring = self.ring(source);
        let mut ring = ring.lock().await;
        if let Some(keys) = ring.keys_within(RENEWED) {
            return (!Arc::ptr_eq(keys, known)).then(|| keys.clone());
        }
        self.fetch(source, &mut ring).await.ok().filter(|keys| !Arc::ptr_eq(keys, known))
    }

    fn ring(&self, source: &KeySource) -> Arc<AsyncMutex<Ring>> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        if rings.len() >= ISSUERS && !rings.contains_key(source) {
            // Issuers come from configuration only: so many mean that most are gone.
            rings.retain(|_, ring| Arc::strong_count(ring) > 1);
        }
        rings.entry(source.clone()).or_default().clone()
    }

    async fn fetch(&self, source: &KeySource, ring: &mut Ring) -> Result<Arc<Keys>, Refused> {
        let paused = ring.failed.as_ref().filter(|(at, _)| at.elapsed() < PAUSE).map(|(_, why)| why.clone());
        let fetched = match paused {
            Some(why) => Err(why),
            None => {
                let fetched = self.read(source).await;
                ring.failed = fetched.as_ref().err().map(|why| {
                    tracing::warn!(?source, "can't fetch the keys of tokens: {why}");
                    (Instant::now(), why.clone())
                });
                fetched
            }
        };
        match fetched {
            Ok(keys) => {
                let keys = Arc::new(keys);
                (ring.keys, ring.fetched) = (Some(keys.clone()), Some(Instant::now()));
                Ok(keys)
            }
            Err(why) => match ring.keys_within(OLD) {
                Some(keys) => Ok(keys.clone()),
                None => {
                    Err(Refused { reason: Reason::KeysMissing, why: format!("no keys to verify tokens with: {why}") })
                }
            },
        }
    }

    async fn read(&self, source: &KeySource) -> Result<Keys, String> {
        let first = self.document(&source.url()).await?;
        let parsed = match source {
            KeySource::Jwks(_) => Keys::parse(source, KeySource::ALGORITHMS, &first),
            KeySource::Issuer(issuer) => {
                let discovery = Discovery::parse(issuer, &first).map_err(|error| error.to_string())?;
                let algorithms: &[Algorithm] = &discovery.algorithms;
                Keys::parse(source, algorithms, &self.document(&discovery.jwks_uri).await?)
            }
        };
        let keys = parsed.map_err(|error| error.to_string())?;
        if keys.is_empty() {
            return Err("none of its keys can be used".to_owned());
        }
        Ok(keys)
    }

    async fn document(&self, address: &str) -> Result<bytes::Bytes, String> {
        let url: Url = address.parse().map_err(|_| "its address is not a URL".to_owned())?;
        if url.scheme() != "https" {
            return Err("keys are fetched over https only".to_owned());
        }
        let client = self.clients.client(&Route::default()).map_err(|error| error.to_string())?;
        let request = Request { method: Method::GET, url, headers: HeaderMap::new(), body: bytes::Bytes::new() };
        let response = client.send(&request, PATIENCE).await.map_err(|error| error.to_string())?;
        match (response.status.is_success(), response.complete) {
            (true, true) => Ok(response.body),
            (true, false) => Err("its answer was cut off, or is too large".to_owned()),
            (false, _) => Err(format!("it answered {}", response.status)),
        }
    }
}
