//! What Receivers say of themselves: webhook path and conditions, in the peer's words, written when they change.

use std::{fmt, sync::Arc, time::Duration};

use belfry_api::ReceiverStatus;
use belfry_core::{ConfigKey, announcement::Announcement};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Cluster,
    kinds::{Kind, RECEIVER},
    status::{Report, condition, set},
};

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

impl Report for ReceiverReport {
    type Status = ReceiverStatus;
    const WHAT: &'static str = "writing the status of Receivers";
    // What changes is rare, and whoever made a Receiver waits for its path.
    const GATHER: Duration = Duration::ZERO;

    fn kind() -> &'static Kind {
        &RECEIVER
    }

    fn key(&self) -> &ConfigKey {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn generation(&self) -> i64 {
        self.generation
    }

    fn next(&self, seen: &ReceiverStatus, now: Timestamp) -> ReceiverStatus {
        let mut status = seen.clone();
        status.last_handled_reconcile_at.clone_from(&self.requested_at);
        let set = |status: &mut ReceiverStatus, type_: &str, word: &str, reason: &str, message: &str| {
            set(&mut status.conditions, condition(self.generation, type_, word, reason, message), now);
        };
        match &self.state {
            ReceiverState::Suspended => {}
            ReceiverState::Ready { path } => {
                let message = format!("Receiver initialized for path: {path}");
                set(&mut status, "Ready", "True", "Succeeded", &message);
                status.conditions.retain(|condition| !matches!(condition.type_.as_str(), "Reconciling" | "Stalled"));
                status.webhook_path = Some(path.clone());
                status.observed_generation = Some(self.generation);
            }
            ReceiverState::Stalled { reason, message } => {
                let message = format!("Reconciliation failed terminally due to configuration error: {message}");
                set(&mut status, "Ready", "False", reason, &message);
                set(&mut status, "Stalled", "True", reason, &message);
                status.conditions.retain(|condition| condition.type_ != "Reconciling");
                status.observed_generation = Some(self.generation);
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
        status
    }

    fn fields(status: &ReceiverStatus) -> Value {
        json!({
            "conditions": status.conditions,
            "webhookPath": status.webhook_path,
            "observedGeneration": status.observed_generation,
            "lastHandledReconcileAt": status.last_handled_reconcile_at,
        })
    }

    fn written(&self, cluster: &Cluster, before: &ReceiverStatus, after: &ReceiverStatus) {
        announce(cluster, self, before, after);
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
