//! What Receivers say of themselves: webhook path and conditions, in the peer's words, written when they change.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_api::{Condition, ReceiverStatus};
use belfry_core::{ConfigKey, announcement::Announcement};
use http::Method;
use jiff::Timestamp;
use kube::core::ApiResource;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    Cluster, Error, call,
    error::chain,
    follow::{Change, follow},
    kinds::RECEIVER,
    outage::Outage,
    seen::{Keep, Seen},
};

const MERGE_PATCH: &str = "application/merge-patch+json";
/// When to try again what failed.
const AGAIN: Duration = Duration::from_secs(10);
const WHAT: &str = "writing the status of Receivers";
/// The conditions that are ours to write.
const OWNED: [&str; 3] = ["Ready", "Reconciling", "Stalled"];

/// What is to be said of a Receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverReport {
    /// The Receiver.
    pub key: ConfigKey,
    /// Its UID.
    pub uid: Arc<str>,
    /// The generation that was looked at.
    pub generation: i64,
    /// `spec.interval`.
    pub interval: String,
    /// Its annotation `reconcile.fluxcd.io/requestedAt`.
    pub requested_at: Option<String>,
    /// How it is.
    pub state: ReceiverState,
}

/// How a Receiver is. The path doesn't print: for some types it is the credential.
#[derive(Clone, PartialEq, Eq)]
pub enum ReceiverState {
    /// It takes webhooks on this path.
    Ready {
        /// The path.
        path: String,
    },
    /// It is suspended: the conditions stay as they are.
    Suspended,
    /// It has to be changed.
    Stalled {
        /// One word.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
    /// Its Secret is missing or lacks something.
    NoToken {
        /// One word.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl fmt::Debug for ReceiverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { .. } => f.write_str("Ready"),
            Self::Suspended => f.write_str("Suspended"),
            Self::Stalled { reason, message } => write!(f, "Stalled({reason}: {message})"),
            Self::NoToken { reason, message } => write!(f, "NoToken({reason}: {message})"),
        }
    }
}

impl Cluster {
    /// Writes what `reports` says into the Receivers' statuses, and an Event for each change. It ends when the handle is
    /// aborted.
    pub fn keep_receiver_statuses(&self, reports: watch::Receiver<Arc<Vec<ReceiverReport>>>) -> JoinHandle<()> {
        tokio::spawn(keep(self.clone(), reports))
    }
}

/// A Receiver as the API server has it.
#[derive(Clone, Debug, PartialEq)]
struct Current {
    path: String,
    uid: String,
    generation: i64,
    status: ReceiverStatus,
    /// The status can't be read, or isn't there.
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

type Place = (String, String);

async fn keep(cluster: Cluster, mut reports: watch::Receiver<Arc<Vec<ReceiverReport>>>) {
    let known: Mutex<HashMap<Place, Current>> = Mutex::default();
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
        let mut outage = Outage::default();
        loop {
            let mut failed = false;
            let wanted = reports.borrow_and_update().clone();
            for report in wanted.iter() {
                let place = (report.key.namespace.to_string(), report.key.name.to_string());
                let seen = lock().get(&place).cloned();
                let Some(seen) = seen.filter(|seen| seen.uid == *report.uid && seen.generation == report.generation)
                else {
                    continue;
                };
                let Some(status) = next(report, &seen, Timestamp::now()) else { continue };
                match write(&cluster, &seen.path, &status).await {
                    Ok(()) => {
                        outage.over(WHAT);
                        let mut known = lock();
                        if let Some(still) = known.get_mut(&place).filter(|still| **still == seen) {
                            still.status = status.clone();
                        }
                        drop(known);
                        announce(&cluster, report, &seen.status, &status);
                    }
                    // Gone or changed meanwhile: the watch tells of it.
                    Err(Error::Refused { code: 404 | 409, .. }) => {}
                    Err(error) => {
                        outage.failed(chain(&error));
                        failed = true;
                    }
                }
            }
            tokio::select! {
                () = changed.notified() => {}
                Ok(()) = reports.changed() => {}
                () = tokio::time::sleep(AGAIN), if failed => {}
            }
        }
    };
    tokio::join!(follow(&cluster.inner.client, &cluster.watched, &RECEIVER, tell), work);
}

fn current(resource: &ApiResource, object: Seen<Kept>) -> (Place, Current) {
    let place = (object.namespace().to_owned(), object.name().to_owned());
    let (version, plural) = (&resource.api_version, &resource.plural);
    let path = format!("/apis/{version}/namespaces/{}/{plural}/{}/status", place.0, place.1);
    let Kept { uid, generation, status } = object.kept;
    let read = ReceiverStatus::deserialize(&status);
    let strange = read.is_err();
    (place, Current { path, uid, generation, status: read.unwrap_or_default(), strange })
}

async fn write(cluster: &Cluster, path: &str, status: &ReceiverStatus) -> Result<(), Error> {
    // A field that is empty has to go away, which a merge patch says by null.
    let patch = json!({ "status": {
        "conditions": status.conditions,
        "webhookPath": status.webhook_path,
        "observedGeneration": status.observed_generation,
        "lastHandledReconcileAt": status.last_handled_reconcile_at,
    }});
    call::send(&cluster.inner.client, WHAT, Method::PATCH, path, Some((MERGE_PATCH, &patch))).await.map(drop)
}

/// The status that a Receiver should have, if it is another one.
fn next(report: &ReceiverReport, seen: &Current, now: Timestamp) -> Option<ReceiverStatus> {
    let mut status = seen.status.clone();
    status.last_handled_reconcile_at.clone_from(&report.requested_at);
    let set = |status: &mut ReceiverStatus, type_: &str, word: &str, reason: &str, message: &str| {
        set(status, condition(report.generation, type_, word, reason, message), now);
    };
    match &report.state {
        ReceiverState::Suspended => {}
        ReceiverState::Ready { path } => {
            let message = format!("Receiver initialized for path: {path}");
            set(&mut status, "Ready", "True", "Succeeded", &message);
            status.conditions.retain(|condition| !matches!(condition.type_.as_str(), "Reconciling" | "Stalled"));
            status.webhook_path = Some(path.clone());
            status.observed_generation = Some(report.generation);
        }
        ReceiverState::Stalled { reason, message } => {
            let message = format!("Reconciliation failed terminally due to configuration error: {message}");
            set(&mut status, "Ready", "False", reason, &message);
            set(&mut status, "Stalled", "True", reason, &message);
            status.conditions.retain(|condition| condition.type_ != "Reconciling");
            status.observed_generation = Some(report.generation);
        }
        ReceiverState::NoToken { reason, message } => {
            set(&mut status, "Ready", "False", reason, message);
            set(&mut status, "Reconciling", "True", "ProgressingWithRetry", "Reconciliation in progress");
            status.conditions.retain(|condition| condition.type_ != "Stalled");
            status.webhook_path = None;
        }
    }
    // The peer's order, after what others may have put there.
    status.conditions.sort_by_key(|condition| OWNED.iter().position(|owned| *owned == condition.type_));
    (seen.strange || status != seen.status).then_some(status)
}

fn condition(generation: i64, type_: &str, status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: String::new(),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// Puts a condition in the place of the one of its type. Its time is when its status changed.
fn set(status: &mut ReceiverStatus, mut condition: Condition, now: Timestamp) {
    match status.conditions.iter_mut().find(|known| known.type_ == condition.type_) {
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
            status.conditions.push(condition);
        }
    }
}

/// The peer's Event about what became of a Receiver.
fn announce(cluster: &Cluster, report: &ReceiverReport, before: &ReceiverStatus, after: &ReceiverStatus) {
    let words = |status: &ReceiverStatus| {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        ready.map(|ready| (ready.status.clone(), ready.reason.clone(), ready.message.clone()))
    };
    if words(before) == words(after) && before.observed_generation == after.observed_generation {
        return;
    }
    let (warning, reason, message) = match &report.state {
        ReceiverState::Suspended => return,
        ReceiverState::Ready { .. } => {
            (false, "Succeeded", format!("Reconciliation finished, next run in {}", report.interval))
        }
        ReceiverState::Stalled { reason, .. } => {
            (true, *reason, words(after).map(|(.., message)| message).unwrap_or_default())
        }
        ReceiverState::NoToken { message, .. } => (true, "Failed", message.clone()),
    };
    cluster.announce(Announcement {
        object: report.key.clone(),
        uid: report.uid.clone(),
        warning,
        reason,
        message,
        annotations: Default::default(),
    });
}
