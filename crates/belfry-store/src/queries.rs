//! What can be asked about the log and the deliveries, and the rows of the answers.

use std::{sync::Arc, time::Duration};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    plan::{Change, ObjectState, Origin},
    rollout::{Hints, Phase, Successor},
};
use bytes::Bytes;

use crate::types::{AttemptOutcome, LaneId};

/// What a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It waits to be made.
    Pending,
    /// The destination has it, or there was nothing to send.
    Delivered,
    /// A newer one took its place.
    Superseded,
    /// It was given up.
    Dead,
}

impl DeliveryState {
    const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Superseded, Self::Dead];

    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Superseded => "superseded",
            Self::Dead => "dead",
        }
    }

    /// The state that is spelled so.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Superseded => 2,
            Self::Dead => 3,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

/// What a delivery tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryKind {
    /// An event, for an Alert.
    Event,
    /// A rollout, for a CommitStatus.
    Rollout,
    /// An object that is to be reconciled, for a Receiver.
    Trigger,
}

impl DeliveryKind {
    const ALL: [Self; 3] = [Self::Event, Self::Rollout, Self::Trigger];

    /// The kind in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Rollout => "rollout",
            Self::Trigger => "trigger",
        }
    }

    /// The kind that is spelled so.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Event => 0,
            Self::Rollout => 1,
            Self::Trigger => 2,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Selects objects; what isn't given doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFilter {
    /// Cluster.
    pub cluster: Option<String>,
    /// API group.
    pub group: Option<String>,
    /// Kind.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

impl ObjectFilter {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Selects deliveries, newest first; what isn't given doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// In any of these states; in any at all when none is named.
    pub states: Vec<DeliveryState>,
    /// Namespace of the Provider.
    pub provider_namespace: Option<String>,
    /// Name of the Provider.
    pub provider: Option<String>,
    /// Namespace of the Alert.
    pub alert_namespace: Option<String>,
    /// Name of the Alert.
    pub alert: Option<String>,
    /// Of this kind.
    pub kind: Option<DeliveryKind>,
    /// About these objects.
    pub object: ObjectFilter,
    /// Caused by this event, observation or webhook.
    pub event: Option<Seq>,
    /// Of this rollout.
    pub rollout: Option<Seq>,
    /// This delivery alone.
    pub id: Option<i64>,
    /// Created at this time or later.
    pub since: Option<Time>,
    /// Created before this time.
    pub until: Option<Time>,
    /// Goes on after this cursor, which the page before gave.
    pub cursor: Option<i64>,
    /// How many; bounded by [`belfry_core::limits::PAGE`], which zero stands for too.
    pub limit: u32,
}

/// Selects events, newest first unless they are asked for in the order of their arrival; what isn't given doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// About these objects.
    pub object: ObjectFilter,
    /// Of this severity.
    pub severity: Option<String>,
    /// With this reason.
    pub reason: Option<String>,
    /// Of this revision or commit: as written, or its hash, of which the first 7 digits suffice. For the digest of an
    /// artifact there may be others among them that were made from the same commit.
    pub revision: Option<String>,
    /// Also what watches saw, not only events. Their bodies aren't events.
    pub observations: bool,
    /// Arrived at this time or later.
    pub since: Option<Time>,
    /// Arrived before this time.
    pub until: Option<Time>,
    /// Goes on after this cursor, which the page before gave.
    pub cursor: Option<i64>,
    /// Those that arrived after this one, oldest first: how a tail of the log reads on. The page's cursor is the next
    /// value for this, if there is more.
    pub after: Option<Seq>,
    /// How many; bounded by [`belfry_core::limits::PAGE`], which zero stands for too. A page ends early when the bodies
    /// on it grow large.
    pub limit: u32,
}

/// Selects rollouts, newest first; what isn't given doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutQuery {
    /// Of these objects.
    pub object: ObjectFilter,
    /// Of this revision or commit: as written, or its hash, of which the first 7 digits suffice.
    pub revision: Option<String>,
    /// In any of these states; in any at all when none is named.
    pub states: Vec<Phase>,
    /// Goes on after this cursor, which the page before gave.
    pub cursor: Option<i64>,
    /// How many; bounded by [`belfry_core::limits::PAGE`], which zero stands for too.
    pub limit: u32,
}

/// A rollout as it is kept. Times but for the ids are by the events' own clock, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRow {
    /// Arrival of what opened it.
    pub id: Seq,
    /// The object.
    pub object: Arc<ObjectKey>,
    /// The revision that it went to.
    pub revision: String,
    /// The revision that an artifact was made from.
    pub origin_revision: Option<String>,
    /// Hash of the commit.
    pub commit: Option<String>,
    /// Digest of a HelmRelease's values.
    pub token: Option<String>,
    /// Digest of the artifact that a HelmRelease's chart came in.
    pub oci_digest: Option<String>,
    /// Where it stands.
    pub state: Phase,
    /// When it began.
    pub started: Time,
    /// When it came to the state that ended it.
    pub finished: Option<Time>,
    /// When it succeeded for the first time.
    pub first_success: Option<Time>,
    /// Attempts made, as far as they were reported.
    pub attempts: u32,
    /// The last reason that says something of its state.
    pub reason: String,
    /// The beginning of the message that came with it.
    pub message: String,
    /// What superseded it.
    pub superseded_by: Option<Successor>,
    /// The last input that changed it.
    pub last_event: Seq,
}

/// Selects objects that something was heard of, in the order of their name, namespace, kind, group and cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectQuery {
    /// Which.
    pub object: ObjectFilter,
    /// Those after this one.
    pub after: Option<ObjectKey>,
    /// How many; bounded by [`belfry_core::limits::PAGE`], which zero stands for too.
    pub limit: u32,
}

/// An object that something was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRow {
    /// Which.
    pub key: ObjectKey,
    /// What is known of it.
    pub state: ObjectState,
}

/// Part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows, newest first if nothing else was asked for.
    pub items: Vec<T>,
    /// The cursor of the next page, if there is more.
    pub next: Option<i64>,
}

/// A delivery as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRow {
    /// Its number.
    pub id: i64,
    /// When it came into being.
    pub created: Time,
    /// What it is.
    pub state: DeliveryState,
    /// Its lane.
    pub lane: LaneId,
    /// Where it goes.
    pub provider: Arc<ConfigKey>,
    /// The Alert, CommitStatus or Receiver that caused it.
    pub route: Arc<ConfigKey>,
    /// What it tells of.
    pub kind: DeliveryKind,
    /// The object that it is about.
    pub object: Arc<ObjectKey>,
    /// The event, observation or webhook that caused it.
    pub event: Seq,
    /// The rollout that it tells of.
    pub rollout: Option<Seq>,
    /// Severity of the event; empty for a webhook.
    pub severity: String,
    /// Reason of the event; what a webhook told of.
    pub reason: String,
    /// Revision that the event names.
    pub revision: Option<String>,
    /// Attempts made so far.
    pub attempts: u32,
    /// When its lane is due, while it is pending.
    pub next_attempt: Option<Time>,
    /// The last error, or why it was settled as it was.
    pub answer: Option<String>,
    /// When it was settled.
    pub settled: Option<Time>,
}

/// An attempt as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Which it was, counted from 1.
    pub n: u32,
    /// When it began; for a first try that succeeded, when it was settled.
    pub at: Time,
    /// How long it took; not kept of a first try that succeeded.
    pub took: Option<Duration>,
    /// HTTP status of the answer; not kept of a first try that succeeded.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// What went wrong, masked.
    pub error: String,
}

/// An event as it is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its place in the log, which is when it arrived.
    pub seq: Seq,
    /// What it is about.
    pub object: Arc<ObjectKey>,
    /// How it came.
    pub origin: Origin,
    /// Its severity.
    pub severity: String,
    /// Its reason.
    pub reason: String,
    /// The revision that it names.
    pub revision: Option<String>,
    /// What it changed about its object.
    pub change: Option<Change>,
    /// What was known of its object when it came, and counted for its rollouts.
    pub hints: Hints,
    /// How often it was repeated.
    pub repeats: u64,
    /// The body as it came.
    pub body: Bytes,
}
