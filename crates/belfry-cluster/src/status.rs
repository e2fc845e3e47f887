//! Writing what objects' statuses say: when it changes, for the generation that it is about, and never in a hurry. What
//! fails is tried again, and disturbs nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_api::Condition;
use belfry_core::ConfigKey;
use http::Method;
use jiff::Timestamp;
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    Cluster, Error, Leadership,
    backoff::Backoff,
    call,
    error::chain,
    follow::{Change, follow},
    kinds::Kind,
    outage::Outage,
    seen::{Keep, Seen},
};

const MERGE_PATCH: &str = "application/merge-patch+json";
/// When to try again what was refused, or what the API server took and did not keep.
const AGAIN: Duration = Duration::from_secs(10);

/// What is to be said of one object.
pub trait Report: Clone + Send + Sync + 'static {
    /// The status of its kind.
    type Status: Clone + Default + PartialEq + DeserializeOwned + Send + Sync;
    /// What is done, for the log.
    const WHAT: &'static str;
    /// How long changes are gathered: an object is written at most once in this time.
    const GATHER: Duration;

    /// Its kind.
    fn kind() -> &'static Kind;
    /// The object.
    fn key(&self) -> &ConfigKey;
    /// Its UID.
    fn uid(&self) -> &str;
    /// The generation that was looked at.
    fn generation(&self) -> i64;
    /// The status that the object should have, given the one that it has.
    fn next(&self, seen: &Self::Status, now: Timestamp) -> Self::Status;
    /// A status in a merge patch, which says by null that a field is empty.
    fn fields(status: &Self::Status) -> Value;
    /// It was written.
    fn written(&self, _cluster: &Cluster, _before: &Self::Status, _after: &Self::Status) {}
}

/// An object as the API server has it.
#[derive(Clone, Debug, PartialEq)]
struct Current<S> {
    path: String,
    uid: String,
    generation: i64,
    status: S,
    /// The status can't be read.
    strange: bool,
}

/// What a watch keeps of it.
#[derive(Clone, Debug)]
struct Kept {
    uid: String,
    generation: i64,
    status: Value,
}

impl Keep for Kept {
    const METADATA_ONLY: bool = false;

    fn keep(mut object: Value) -> Self {
        Self {
            uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
            status: object["status"].take(),
        }
    }
}

/// Namespace and name.
type Place = (String, String);

impl Cluster {
    /// Writes what `reports` says into the statuses of the objects that it is about, while this process leads: whoever
    /// comes to lead writes what is not written yet. It ends when it is dropped, or when no more can come.
    pub fn keep_statuses<R: Report>(
        &self,
        mut reports: watch::Receiver<Arc<Vec<R>>>,
        mut leadership: Leadership,
    ) -> impl Future<Output = ()> + Send + use<R> {
        let cluster = self.clone();
        async move {
            while leadership.becomes(true).await {
                let leads = leadership.clone();
                tokio::select! {
                    () = keep(&cluster, &mut reports, &leads) => return,
                    // What is being written then is left to whoever leads next.
                    true = leadership.becomes(false) => {}
                }
            }
        }
    }
}

/// Writes what the newest reports say. Ends only if there will be none.
async fn keep<R: Report>(cluster: &Cluster, reports: &mut watch::Receiver<Arc<Vec<R>>>, leads: &Leadership) {
    // Without objects nothing is to be seen, not even a CRD.
    if reports.wait_for(|reports| !reports.is_empty()).await.is_err() {
        return;
    }
    let known: Mutex<HashMap<Place, Current<R::Status>>> = Mutex::default();
    let changed = Notify::new();
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let tell = |resource: &ApiResource, change: Change<Kept>| {
        match change {
            Change::Listed(objects) => *lock() = objects.into_iter().map(|object| current(resource, object)).collect(),
            Change::Applied(object) => {
                let (place, current) = current(resource, object);
                lock().insert(place, current);
            }
            Change::Removed(object) => {
                lock().remove(&(object.namespace().to_owned(), object.name().to_owned()));
            }
            Change::Missing => lock().clear(),
        }
        changed.notify_one();
    };
    let work = async {
        let mut writer = Writer { cluster, outage: Outage::default(), last: HashMap::new() };
        let mut backoff = Backoff::new();
        loop {
            let (mut again, mut down) = (false, false);
            let wanted = reports.borrow_and_update().clone();
            writer.last.retain(|_, (at, _)| at.elapsed() < AGAIN);
            for report in wanted.iter() {
                let place = (report.key().namespace.to_string(), report.key().name.to_string());
                let seen = lock().get(&place).cloned();
                // What was found of another generation is about to be said of this one.
                let Some(seen) = seen.filter(|seen| seen.uid == report.uid() && seen.generation == report.generation())
                else {
                    continue;
                };
                // By the clock: nobody may have been let run to say that it is over.
                if !leads.holds() {
                    down = true;
                    break;
                }
                match writer.write(report, &place, &seen).await {
                    Written::Done(status) => {
                        if let Some(still) = lock().get_mut(&place).filter(|still| **still == seen) {
                            still.status = status;
                        }
                    }
                    Written::Nothing => {}
                    Written::Later => again = true,
                    Written::Down => {
                        down = true;
                        break;
                    }
                }
            }
            if down {
                backoff.wait().await;
                continue;
            }
            backoff.reset();
            tokio::select! {
                () = changed.notified() => {}
                Ok(()) = reports.changed() => {}
                () = tokio::time::sleep(AGAIN), if again => {}
            }
            tokio::time::sleep(R::GATHER).await;
        }
    };
    tokio::join!(follow(&cluster.inner.client, &cluster.watched, R::kind(), tell), work);
}

enum Written<S> {
    Done(S),
    Nothing,
    /// Not this one, for now.
    Later,
    /// None at all.
    Down,
}

struct Writer<'a, S> {
    cluster: &'a Cluster,
    outage: Outage,
    /// What was sent last, and when.
    last: HashMap<Place, (Instant, S)>,
}

impl<S: Clone + PartialEq> Writer<'_, S> {
    async fn write<R: Report<Status = S>>(&mut self, report: &R, place: &Place, seen: &Current<S>) -> Written<S> {
        let status = report.next(&seen.status, Timestamp::now());
        if !seen.strange && status == seen.status {
            return Written::Nothing;
        }
        // It was refused; or an API server with another CRD keeps not all of it.
        if self.last.get(place).is_some_and(|(_, last)| *last == status) {
            return Written::Later;
        }
        // The UID makes it a conflict when another object has the name by now.
        let patch = json!({ "metadata": { "uid": seen.uid }, "status": R::fields(&status) });
        let client = &self.cluster.inner.client;
        let sent = call::send(client, R::WHAT, Method::PATCH, &seen.path, Some((MERGE_PATCH, &patch))).await;
        match sent {
            Ok(_) => {
                self.outage.over(R::WHAT);
                self.last.insert(place.clone(), (Instant::now(), status.clone()));
                report.written(self.cluster, &seen.status, &status);
                Written::Done(status)
            }
            // Gone or changed meanwhile: the watch tells of it.
            Err(Error::Refused { code: 404 | 409, .. }) => Written::Nothing,
            Err(error) => {
                self.outage.failed(chain(&error));
                if error.is_unavailable() {
                    return Written::Down;
                }
                self.last.insert(place.clone(), (Instant::now(), status));
                Written::Later
            }
        }
    }
}

fn current<S: Default + DeserializeOwned>(resource: &ApiResource, object: Seen<Kept>) -> (Place, Current<S>) {
    let place = (object.namespace().to_owned(), object.name().to_owned());
    let (version, plural) = (&resource.api_version, &resource.plural);
    let path = format!("/apis/{version}/namespaces/{}/{plural}/{}/status", place.0, place.1);
    let Kept { uid, generation, status } = object.kept;
    let read = S::deserialize(if status.is_null() { json!({}) } else { status });
    let strange = read.is_err();
    (place, Current { path, uid, generation, status: read.unwrap_or_default(), strange })
}

/// Bytes of a message: people read it, and an API server takes but eight times as much.
const MESSAGE: usize = 4096;

/// A condition about a generation; [`set`] gives it its time.
pub(crate) fn condition(generation: i64, type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: String::new(),
        reason: reason.to_owned(),
        message: message[..message.floor_char_boundary(MESSAGE)].to_owned(),
    }
}

/// Puts a condition in the place of the one of its type. Its time is when its status changed.
pub(crate) fn set(conditions: &mut Vec<Condition>, mut condition: Condition, now: Timestamp) {
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        Some(known) if known.status == condition.status => {
            condition.last_transition_time = std::mem::take(&mut known.last_transition_time);
            *known = condition;
        }
        Some(known) => {
            condition.last_transition_time = format!("{now:.0}");
            *known = condition;
        }
        None => {
            condition.last_transition_time = format!("{now:.0}");
            conditions.push(condition);
        }
    }
}
