//! Secrets, read one at a time by name, and remembered for half a minute.
//!
//! Listing and watching Secrets would need rights over all of them; a Secret that no Provider names is never read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_core::{limits::SECRET_AGE, secret::SecretData};
use k8s_openapi::ByteString;
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{Cluster, Error, call};

/// Secrets that are remembered; the ones that were used longest ago go first.
const REMEMBERED: usize = 512;

impl Cluster {
    /// The Secret of that name; `None` when there is none.
    ///
    /// It may come from memory when it was read within [`SECRET_AGE`], unless `fresh` asks to read it anew, as after an
    /// answer that refused it. Who asks for the same Secret at the same time shares one request. When the API server
    /// gives no answer, what was read of it earlier is given, however old; but not to who asks for it `fresh`.
    ///
    /// # Errors
    /// When the API server gives no answer and the Secret was never read, or refuses.
    pub async fn secret(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<SecretData>>, Error> {
        self.0.secrets.get(namespace, name, fresh).await
    }
}

pub(crate) struct Secrets {
    client: Client,
    remembered: Mutex<HashMap<(String, String), Remembered>>,
}

struct Remembered {
    used: Instant,
    slot: Arc<Slot>,
}

/// Held while the Secret is read, so that others wait for the same answer.
type Slot = tokio::sync::Mutex<Option<Reading>>;

struct Reading {
    /// When it was asked for.
    asked: Instant,
    found: Option<Arc<SecretData>>,
}

impl Secrets {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, remembered: Mutex::default() }
    }

    async fn get(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<SecretData>>, Error> {
        if !call::is_name(namespace) || !call::is_name(name) {
            // No object can have that name, and no path shall.
            return Ok(None);
        }
        let wanted = Instant::now();
        let slot = self.slot(namespace, name, wanted);
        let mut reading = slot.lock().await;
        if let Some(known) = &*reading {
            let young = if fresh { known.asked >= wanted } else { known.asked.elapsed() < SECRET_AGE };
            if young {
                return Ok(known.found.clone());
            }
        }
        let asked = Instant::now();
        match self.read(namespace, name).await {
            Ok(found) => {
                *reading = Some(Reading { asked, found: found.clone() });
                Ok(found)
            }
            Err(error) => match &*reading {
                Some(Reading { found: Some(known), .. }) if error.is_unavailable() && !fresh => Ok(Some(known.clone())),
                _ => Err(error),
            },
        }
    }

    fn slot(&self, namespace: &str, name: &str, now: Instant) -> Arc<Slot> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), name.to_owned());
        if remembered.len() >= REMEMBERED && !remembered.contains_key(&key) {
            let oldest = remembered.iter().min_by_key(|(_, known)| known.used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| remembered.remove(&oldest));
        }
        let known = remembered.entry(key).or_insert_with(|| Remembered { used: now, slot: Arc::default() });
        known.used = now;
        known.slot.clone()
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<Arc<SecretData>>, Error> {
        let what = format!("reading the Secret {namespace}/{name}");
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        match call::get(&self.client, &what, &path).await {
            Ok(mut secret) => Ok(Some(Arc::new(data(&what, secret["data"].take())?))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn data(what: &str, data: Value) -> Result<SecretData, Error> {
    let data: Option<HashMap<String, ByteString>> = Option::deserialize(data).map_err(|_| {
        // Without the library's message, which quotes what it read.
        Error::Refused { what: what.to_owned(), code: 0, message: "the answer is no Secret".to_owned() }
    })?;
    Ok(data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect())
}
