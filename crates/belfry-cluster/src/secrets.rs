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
        self.inner.secrets.get(namespace, name, fresh).await
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

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU16, AtomicUsize, Ordering},
        time::Duration,
    };

    use http::{Request, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;

    /// An API server that counts what it is asked, and answers with one Secret or with an error.
    #[derive(Default)]
    struct Server {
        asked: AtomicUsize,
        error: AtomicU16,
    }

    fn secrets(server: &Arc<Server>) -> Secrets {
        let server = server.clone();
        let service = service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                if request.uri().path() == "/readyz" {
                    return Ok(Response::new(Body::from(b"ok".to_vec())));
                }
                let n = server.asked.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
                let code = server.error.load(Ordering::SeqCst);
                let body = match code {
                    0 => {
                        let token = serde_json::to_value(ByteString(n.to_string().into_bytes())).unwrap();
                        serde_json::json!({ "kind": "Secret", "data": { "token": token } })
                    }
                    _ => serde_json::json!({ "kind": "Status", "code": code, "message": "no" }),
                };
                let status = if code == 0 { 200 } else { code };
                let answer = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.unwrap())
            }
        });
        Secrets::new(Client::new(service, "default"))
    }

    async fn token(secrets: &Secrets, name: &str, fresh: bool) -> Result<Option<String>, Error> {
        let secret = secrets.get("apps", name, fresh).await?;
        Ok(secret.map(|secret| secret.text("token").unwrap().unwrap().to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_read_again_when_it_is_too_old_or_asked_for_anew() {
        let server = Arc::<Server>::default();
        let secrets = secrets(&server);
        let read = async |fresh| token(&secrets, "chat", fresh).await.unwrap().unwrap();
        assert_eq!(read(false).await, "1");
        tokio::time::advance(SECRET_AGE - Duration::from_secs(1)).await;
        assert_eq!(read(false).await, "1");
        assert_eq!(read(true).await, "2");
        assert_eq!(read(false).await, "2");
        tokio::time::advance(SECRET_AGE).await;
        assert_eq!(read(false).await, "3");
    }

    #[tokio::test(start_paused = true)]
    async fn readers_at_the_same_time_share_one_request() {
        let server = Arc::<Server>::default();
        let secrets = secrets(&server);
        for (fresh, so_far) in [(false, 1), (true, 2)] {
            let all = futures::future::join_all((0..20).map(|_| token(&secrets, "chat", fresh))).await;
            assert!(all.iter().all(|token| token.as_ref().unwrap().as_deref() == Some(so_far.to_string().as_str())));
            assert_eq!(server.asked.load(Ordering::SeqCst), so_far);
        }
        token(&secrets, "other", false).await.unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_used_in_an_outage_but_not_after_a_refusal() {
        let server = Arc::<Server>::default();
        let secrets = secrets(&server);
        token(&secrets, "chat", false).await.unwrap();
        server.error.store(503, Ordering::SeqCst);
        tokio::time::advance(SECRET_AGE * 100).await;
        assert_eq!(token(&secrets, "chat", false).await.unwrap().as_deref(), Some("1"));
        assert!(token(&secrets, "chat", true).await.unwrap_err().is_unavailable());
        assert!(token(&secrets, "other", false).await.unwrap_err().is_unavailable());
        server.error.store(403, Ordering::SeqCst);
        let refused = token(&secrets, "chat", false).await.unwrap_err();
        assert_eq!(refused.to_string(), "reading the Secret apps/chat: the API server forbids it: no");
        server.error.store(404, Ordering::SeqCst);
        assert_eq!(token(&secrets, "chat", false).await.unwrap(), None);
        // What is known to be gone is not remembered as having been there.
        server.error.store(503, Ordering::SeqCst);
        assert!(token(&secrets, "chat", true).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let server = Arc::<Server>::default();
        let secrets = secrets(&server);
        for n in 0..=REMEMBERED {
            token(&secrets, &format!("s{n}"), false).await.unwrap();
        }
        assert_eq!(secrets.remembered.lock().unwrap().len(), REMEMBERED);
        token(&secrets, "s1", false).await.unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), REMEMBERED + 1);
        token(&secrets, "s0", false).await.unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), REMEMBERED + 2);
    }

    #[test]
    fn what_is_no_secret_is_not_quoted() {
        let error = data("reading", serde_json::json!({ "token": "hunter22 is not base64" })).unwrap_err();
        assert_eq!(error.explain(), "reading: the answer is no Secret");
    }
}
