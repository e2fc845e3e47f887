//! Who a token belongs to, and what its owner may do: the API server is asked, and what it says is believed for some
//! seconds. Nothing is believed longer because it can't be asked.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::Instant};

use crate::{Cluster, Error, call};

/// The audience that tokens for Belfry name, so that one made for it is good for nothing else.
pub const AUDIENCE: &str = "belfry";

/// For how long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(15);
/// For how long a refused token is remembered: it may be of an account that is just being made.
const REFUSED: Duration = Duration::from_secs(5);
/// Users that are remembered, and as many refused tokens.
const USERS: usize = 1024;
/// Answers on what a user may do that are remembered.
const ACCESSES: usize = 16 * 1024;
/// Reviews that are asked for at a time. The requests to the API server go one after the other through their limit, and
/// those that reconcile and report must not stand in line behind all that anybody asks.
const AT_A_TIME: usize = 16;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a token.
const TOKEN: usize = 16 * 1024;
const JSON: &str = "application/json";

/// Who asks, as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct User {
    /// Such as `jane@example.com`, or `system:serviceaccount:apps:ci`.
    #[serde(rename = "username", default)]
    pub name: String,
    /// Tells two of the same name apart, over time.
    #[serde(default)]
    pub uid: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What else authenticators and authorizers tell each other.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A ServiceAccount, as its tokens make it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            ..Self::default()
        }
    }
}

/// What somebody would like to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// Such as `get`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Such as `kustomizations`.
    pub resource: &'a str,
    /// Empty: all namespaces, or what is in none.
    pub namespace: &'a str,
    /// Empty: whatever its name is.
    pub name: &'a str,
}

impl Cluster {
    /// Whose token this is; `None` when it is nobody's, or was not made for Belfry.
    ///
    /// # Errors
    /// When the API server gives no answer, or doesn't let Belfry ask.
    pub async fn review_token(&self, token: &str) -> Result<Option<User>, Error> {
        self.inner.reviews.token(token).await
    }

    /// Whether a user may do something.
    ///
    /// # Errors
    /// When the API server gives no answer, or doesn't let Belfry ask.
    pub async fn allows(&self, user: &User, access: Access<'_>) -> Result<bool, Error> {
        self.inner.reviews.access(user, access).await
    }
}

pub(crate) struct Reviews {
    client: Client,
    turns: Semaphore,
    /// By the hash of their token: no token is kept.
    users: Memory<User>,
    refused: Memory<()>,
    accesses: Memory<bool>,
}

impl Reviews {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            turns: Semaphore::new(AT_A_TIME),
            users: Memory::new(USERS, BELIEVED),
            // Apart from the users, whom strangers with many tokens would push out.
            refused: Memory::new(USERS, REFUSED),
            accesses: Memory::new(ACCESSES, BELIEVED),
        }
    }

    async fn token(&self, token: &str) -> Result<Option<User>, Error> {
        if token.is_empty() || token.len() > TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(None);
        }
        let key = digest([token]);
        let known = || match self.users.get(&key) {
            Some(user) => Some(Some(user)),
            None => self.refused.get(&key).map(|()| None),
        };
        let review = async || {
            let body = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": { "token": token, "audiences": [AUDIENCE] },
            });
            let what = "asking whose token it is";
            let asked = Instant::now();
            let answer = self.ask(what, "/apis/authentication.k8s.io/v1/tokenreviews", &body).await?;
            let user = user(what, answer)?;
            match &user {
                Some(user) => self.users.put(key, asked, user.clone()),
                None => self.refused.put(key, asked, ()),
            }
            Ok(user)
        };
        self.in_turn("asking whose token it is", known, review).await
    }

    async fn access(&self, user: &User, access: Access<'_>) -> Result<bool, Error> {
        let Access { verb, group, resource, namespace, name } = access;
        let key = key(user, access);
        let review = async || {
            let body = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
                    "resourceAttributes": {
                        "verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name,
                    },
                },
            });
            let asked = Instant::now();
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = self.ask("asking what a user may do", path, &body).await?;
            let allowed = answer["status"]["allowed"] == true && answer["status"]["denied"] != true;
            self.accesses.put(key, asked, allowed);
            Ok(allowed)
        };
        self.in_turn("asking what a user may do", || self.accesses.get(&key), review).await
    }

    /// What is known, or what a review says; who waited for a turn may find that another asked the same.
    async fn in_turn<T>(
        &self,
        what: &str,
        known: impl Fn() -> Option<T>,
        review: impl AsyncFnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if let Some(known) = known() {
            return Ok(known);
        }
        let turn = tokio::time::timeout(PATIENCE, self.turns.acquire()).await;
        let _turn = turn.map_err(|late| Error::Unavailable { what: what.to_owned(), source: late.into() })?;
        match known() {
            Some(known) => Ok(known),
            None => review().await,
        }
    }

    async fn ask(&self, what: &str, path: &str, body: &Value) -> Result<Value, Error> {
        call::send(&self.client, what, Method::POST, path, Some((JSON, body))).await
    }
}

/// Whom a TokenReview names, if its answer is for our audience: an API server whose authenticator knows no audiences
/// names none, and then the token is one for the API server itself.
fn user(what: &str, mut answer: Value) -> Result<Option<User>, Error> {
    let status = answer["status"].take();
    let ours = status["audiences"].as_array().is_some_and(|all| all.iter().any(|audience| audience == AUDIENCE));
    if status["authenticated"] != true || !ours {
        return Ok(None);
    }
    let unreadable =
        || Error::Refused { what: what.to_owned(), code: 0, message: "the answer names nobody".to_owned() };
    let user = User::deserialize(&status["user"]).map_err(|_| unreadable())?;
    if user.name.is_empty() { Err(unreadable()) } else { Ok(Some(user)) }
}

type Key = [u8; 32];

/// Every part of a user counts: an authorizer may look at any of them.
fn key(user: &User, access: Access<'_>) -> Key {
    let Access { verb, group, resource, namespace, name } = access;
    let groups = user.groups.len().to_string();
    let mut parts = vec![verb, group, resource, namespace, name, &user.name, &user.uid, &groups];
    parts.extend(user.groups.iter().map(String::as_str));
    let counts: Vec<String> = user.extra.values().map(|values| values.len().to_string()).collect();
    for ((name, values), count) in user.extra.iter().zip(&counts) {
        parts.extend([name.as_str(), count]);
        parts.extend(values.iter().map(String::as_str));
    }
    digest(parts)
}

fn digest<'p>(parts: impl IntoIterator<Item = &'p str>) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// Answers, each for a while; the oldest make room.
struct Memory<V> {
    room: usize,
    age: Duration,
    held: Mutex<HashMap<Key, (Instant, V)>>,
}

impl<V: Clone> Memory<V> {
    fn new(room: usize, age: Duration) -> Self {
        Self { room, age, held: Mutex::default() }
    }

    fn get(&self, key: &Key) -> Option<V> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|(asked, _)| asked.elapsed() < self.age).map(|(_, value)| value.clone())
    }

    fn put(&self, key: Key, asked: Instant, value: V) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= self.room {
            held.retain(|_, (asked, _)| asked.elapsed() < self.age);
        }
        if held.len() >= self.room
            && let Some(oldest) = held.iter().min_by_key(|(_, (asked, _))| *asked).map(|(key, _)| *key)
        {
            held.remove(&oldest);
        }
        held.insert(key, (asked, value));
    }
}

#[cfg(test)]
mod tests;
