//! What is handed to the store and what it hands out, but for the rows of queries.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time, limits,
    plan::{Change, Origin, SAME_BODY},
    rollout::Hints,
};
use bytes::Bytes;

use crate::{queries::RolloutRow, rev};

/// Where the store takes the time from.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// What can be set about a store.
#[derive(Clone)]
pub struct Options {
    /// How long a repeat of an event is held back.
    pub repeat_interval: Duration,
    /// Events older than this are pruned, unless one of their deliveries is still to be made.
    pub retention_age: Duration,
    /// Bytes that the log may take up before its oldest events are pruned, dead letters last.
    pub retention_bytes: u64,
    /// Undelivered deliveries of one provider before the oldest become dead letters.
    pub provider_backlog: u64,
    /// Undelivered deliveries of all providers in one namespace before the oldest become dead letters.
    pub namespace_backlog: u64,
    /// The clock; tests bring their own.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            repeat_interval: Duration::from_secs(300),
            retention_age: Duration::from_secs(30 * 24 * 3600),
            retention_bytes: 2 << 30,
            provider_backlog: limits::PROVIDER_BACKLOG,
            namespace_backlog: limits::NAMESPACE_BACKLOG,
            clock: Arc::new(system_time),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("repeat_interval", &self.repeat_interval)
            .field("retention_age", &self.retention_age)
            .field("retention_bytes", &self.retention_bytes)
            .field("provider_backlog", &self.provider_backlog)
            .field("namespace_backlog", &self.namespace_backlog)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// How long an event can matter to the ones that follow it.
    pub(crate) fn window(&self) -> Duration {
        self.repeat_interval.max(SAME_BODY)
    }
}

fn system_time() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log, with its deliveries.
    Stored {
        /// Its place in the log.
        seq: Seq,
        /// What it changed about its object.
        change: Option<Change>,
        /// How many deliveries it caused.
        deliveries: u32,
    },
    /// It was counted on the event that it repeats.
    Repeat {
        /// That event.
        of: Seq,
    },
}

/// A destination: the number that the store gave to a Provider. It stays the same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestId(pub i64);

/// A lane: the unit of order. In an event lane the deliveries for one destination about one object are made in their
/// order; in a state lane only the newest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub i64);

impl LaneId {
    /// The lane of an object at a destination. The numbers are kept on disk: this function must never change. Lanes that
    /// come into being together lie side by side: a commit then writes few pages.
    pub(crate) fn of(dest: DestId, object: i64) -> Self {
        if (0..1 << 22).contains(&dest.0) && (0..1 << 40).contains(&object) {
            return Self((dest.0 << 40) | object);
        }
        Self::from_hash(mix(mix(dest.0.cast_unsigned()) ^ object.cast_unsigned()))
    }

    /// The lane of what a destination holds for a route about an object (of all objects, for an aggregate) and a commit or
    /// revision. The numbers are kept on disk: this function must never change.
    pub(crate) fn of_state(dest: DestId, route: i64, object: Option<i64>, subject: &str) -> Self {
        let object = object.map_or(u64::MAX, i64::cast_unsigned);
        let parts = [route.cast_unsigned(), object, rev::fnv(subject)];
        Self::from_hash(parts.into_iter().fold(mix(dest.0.cast_unsigned()), |hash, part| mix(hash ^ part)))
    }

    /// The lane of a delivery that stepped aside.
    pub(crate) fn aside(delivery: i64) -> Self {
        // One round more than for an object, so that equal numbers don't meet.
        Self::from_hash(mix(mix(mix(delivery.cast_unsigned()))))
    }

    /// Never one that isn't made of a hash.
    fn from_hash(hash: u64) -> Self {
        Self(((hash >> 1) | (1 << 62)).cast_signed())
    }
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How much of one destination is to be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Lanes at most; none asks only when the next one is due.
    pub lanes: u32,
    /// Takes the lanes that are due earliest even when that is in the future.
    pub probe: bool,
}

/// What was claimed.
#[derive(Debug, Default)]
pub struct Claims {
    /// The lanes, which are in flight from now on.
    pub lanes: Vec<Claim>,
    /// For each destination that was asked for: when the earliest of its lanes that is not in flight is due, if any has
    /// work.
    pub next_due: Vec<(DestId, Option<Time>)>,
}

/// A lane that is in flight, with the deliveries that are to be made now, in their order. It stays in flight until a
/// settlement that finishes it, or its release, is committed.
#[derive(Debug)]
pub struct Claim {
    /// The lane.
    pub lane: LaneId,
    /// Its destination.
    pub dest: DestId,
    /// The Provider that the destination is.
    pub dest_key: Arc<ConfigKey>,
    /// What the last finish left there; empty when none did.
    pub memo: Vec<u8>,
    /// The process may have died while an attempt at the first delivery was under way.
    pub recovered: bool,
    /// The newest delivery that was put into the lane; redelivered ones may be newer in an event lane.
    pub tail: i64,
    /// The oldest deliveries that wait in an event lane; the newest one of a state lane.
    pub rows: Vec<Row>,
}

/// A delivery that is to be made.
#[derive(Clone, Debug)]
pub struct Row {
    /// The delivery.
    pub id: i64,
    /// The event, observation or webhook that caused it.
    pub cause: Seq,
    /// When it came into being.
    pub created: Time,
    /// Attempts made so far.
    pub attempts: u32,
    /// The Alert, CommitStatus or Receiver that caused it.
    pub route: Arc<ConfigKey>,
    /// The object that it is about.
    pub object: Arc<ObjectKey>,
    /// Nothing newer was put into its lane but by redelivery.
    pub newest: bool,
    /// What is to be told.
    pub what: What,
}

/// What a delivery tells.
#[derive(Clone, Debug)]
pub enum What {
    /// An event.
    Event {
        /// How it came.
        origin: Origin,
        /// What it changed about its object.
        change: Option<Change>,
        /// What was known of its object when it came.
        hints: Hints,
        /// The stores that it was in before.
        via: Vec<String>,
        /// The event as it came.
        body: Bytes,
    },
    /// Where a rollout stands: the state that the destination is to show.
    Rollout {
        /// The rollout as it is at the time of the claim.
        rollout: Box<RolloutRow>,
        /// How the input came that caused this.
        origin: Origin,
        /// That input as it came: an event, or an observation.
        body: Bytes,
    },
    /// An object is to be reconciled.
    Trigger {
        /// When that was asked for.
        asked: Time,
    },
}

impl What {
    /// Bytes of the body that comes with it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Event { body, .. } | Self::Rollout { body, .. } => body.len(),
            Self::Trigger { .. } => 0,
        }
    }
}

/// What came of deliveries of a lane that is in flight.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane.
    pub lane: LaneId,
    /// Its destination.
    pub dest: DestId,
    /// The outcomes.
    pub results: Vec<RowResult>,
    /// Ends the claim.
    pub finish: Option<Finish>,
}

/// What came of one delivery.
#[derive(Clone, Debug)]
pub struct RowResult {
    /// The delivery.
    pub delivery: i64,
    /// The attempt that was made, if one was.
    pub attempt: Option<AttemptRecord>,
    /// What the delivery is now.
    pub state: RowState,
}

/// What a delivery is after an attempt, or instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowState {
    /// The destination has it.
    Delivered,
    /// There was nothing to send; counts as delivered. Says why.
    Skipped(String),
    /// A newer one took its place. Says which or why.
    Superseded(String),
    /// It was given up. Says why.
    Dead(String),
    /// It is to be tried again.
    Retry,
}

/// One attempt, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Which it was, counted from 1.
    pub n: u32,
    /// When it began.
    pub at: Time,
    /// How long it took.
    pub took: Duration,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// What went wrong, masked.
    pub error: String,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The destination took the message.
    Delivered,
    /// There was nothing to send.
    Skipped,
    /// To be tried again.
    Retry,
    /// To be tried again once the configuration is mended.
    Misconfigured,
    /// The destination refuses the message.
    Rejected,
}

impl AttemptOutcome {
    const ALL: [Self; 5] = [Self::Delivered, Self::Skipped, Self::Retry, Self::Misconfigured, Self::Rejected];

    /// The outcome in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::Retry => "retry",
            Self::Misconfigured => "misconfigured",
            Self::Rejected => "rejected",
        }
    }

    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Delivered => 1,
            Self::Skipped => 2,
            Self::Retry => 3,
            Self::Misconfigured => 4,
            Self::Rejected => 5,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

/// The end of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// When the lane is due again if something waits in it; at once when nothing is said.
    pub due: Option<Time>,
    /// What the destination is now known to hold; unchanged when nothing is said.
    pub memo: Option<Vec<u8>>,
    /// This delivery goes on in a lane of its own, which is due when `due` says; what was behind it is due at once.
    pub step_aside: Option<i64>,
}

/// A delivery that was put in line again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redelivered {
    /// The new delivery.
    pub delivery: i64,
    /// Its destination.
    pub dest: DestId,
    /// The Provider that the destination is.
    pub provider: Arc<ConfigKey>,
}
