//! What a notifier is given, and what it answers.

use std::{sync::Arc, time::Duration};

use belfry_api::Event;
use bytes::Bytes;

use crate::{ConfigKey, ObjectKey, Seq, Time, index::Source, passed::Passed, plan::Change};

/// One event on its way to one Provider, with the metadata already combined (see [`crate::event::combine`]).
#[derive(Clone, Debug)]
pub struct Notification {
    /// The event; its metadata is what the Alert, the object and the controller say together, without prefixes.
    pub event: Event,
    /// The object that it is about.
    pub object: ObjectKey,
    /// When it arrived, which also identifies it.
    pub seq: Seq,
    /// Identifies the delivery; the same over all attempts.
    pub delivery: i64,
    /// Where the object gets its revisions from, as the object index knows it at this attempt.
    pub source: Option<Source>,
    /// What it changed about its object.
    pub change: Option<Change>,
    /// What the lane remembers of the deliveries before this one; empty when nothing.
    pub memo: Vec<u8>,
    /// The Alert that selected it.
    pub alert: ConfigKey,
    /// UID of that Alert; empty outside a cluster.
    pub alert_uid: Arc<str>,
    /// UID of the Provider; empty outside a cluster.
    pub provider_uid: Arc<str>,
    /// What the Provider's `commitStatusExpr` gave for this event: the id of its commit status.
    pub commit_status_id: Option<String>,
    /// The event as it was recorded.
    pub recorded: Recorded,
}

/// An event as it was recorded, for who passes it on.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// What tells it from all events of all stores: the same over all attempts, whatever happened in between.
    pub id: String,
    /// Its body as it came.
    pub body: Bytes,
    /// What is said with it.
    pub passed: Passed,
    /// When this attempt is made.
    pub at: Time,
}

/// How an attempt at a delivery ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took it.
    Delivered,
    /// There is nothing to send to this destination for this event; counts as settled. Says why.
    Skipped(&'static str),
    /// The destination is unreachable, overloaded or broken: try again.
    Retry(Failure),
    /// Something in the configuration or its Secrets must be mended first: try again slowly, and at once when it
    /// changes.
    Misconfigured(Failure),
    /// The destination will never take this message: a dead letter.
    Rejected(Failure),
}

/// What is known of an attempt that failed. All of it is masked: fit for logs, pages and Kubernetes Events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status of the answer, if there was one.
    pub status: Option<u16>,
    /// What went wrong, for the person who reads it; the first 256 bytes of the answer included.
    pub error: String,
    /// How long the destination asks to be left alone (`Retry-After`).
    pub retry_after: Option<Duration>,
    /// It isn't known whether the destination acted on the request (a timeout, a connection lost after sending).
    pub unknown: bool,
}

impl Failure {
    /// A failure without an answer.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }
}
