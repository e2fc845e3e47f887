//! What the store asks of a database: a writing half that only the writer thread has, and a reading half that any thread
//! may use. All of it blocks. Engines share no SQL.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    decide::Outage,
    passed::Sent,
    plan::{Change, ObjectState, Origin},
    rollout::{Hints, Rollout},
};

use crate::{
    RedeliverError, StoreError,
    circuits::{Probe, Told},
    hooks::{Hook, HookRow, HookVerdict},
    queries::{
        self, AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, EventQuery, EventRow, ObjectQuery, Page,
        RolloutQuery, RolloutRow,
    },
    stats::Shared,
    types::{Claims, DestId, LaneId, Redelivered, Room, Settlement},
};

/// Why a database refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// Because of what was to be written: it will refuse it again.
    #[error("{0}")]
    Data(String),
    /// For reasons of its own.
    #[error("{0}")]
    Down(String),
    /// Others appended meanwhile what this depends on: it is to be decided anew.
    #[error("other replicas were faster")]
    Overtaken,
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Data(detail) => Self::Invalid(detail),
            EngineError::Down(_) | EngineError::Overtaken => Self::Down(error.to_string()),
        }
    }
}

pub(crate) type Result<T> = std::result::Result<T, EngineError>;

/// What the window for repeats keeps of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub seq: Seq,
    pub dedupe: u64,
    pub body_hash: u64,
}

/// What is in a batch, as far as it matters to how it is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Events that depend on nothing but their objects, and put nothing into state lanes.
    Events,
    /// Outcomes: settlements and releases.
    Outcomes,
    /// Whatever there is.
    Any,
}

/// What is known once a batch is begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The append lock is held.
    pub locked: bool,
    /// The last event, webhook or rollout.
    pub seq: Seq,
    /// The last delivery.
    pub delivery: i64,
    /// Events that other writers appended after the tail that was given.
    pub others: Vec<Remembered>,
    /// The objects that these are about; `None` when some of them can't be told any more.
    pub touched: Option<Vec<i64>>,
}

/// An object as the database has it.
#[derive(Clone, Debug)]
pub(crate) struct ObjectRow {
    pub id: i64,
    pub state: Arc<ObjectState>,
}

/// The stores that an event was in, as they are written beside it.
pub(crate) fn via(written: Option<String>) -> Vec<String> {
    written.map(|names| names.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
}

/// A new row of the log: an event, or an observation.
#[derive(Debug)]
pub(crate) struct NewEvent<'a> {
    pub seq: Seq,
    pub object: i64,
    pub origin: Origin,
    pub dedupe: u64,
    pub body_hash: u64,
    pub severity: &'a str,
    pub reason: &'a str,
    pub revision: Option<&'a str>,
    /// The number of the commit or revision that it names.
    pub rev: Option<i64>,
    pub change: Option<Change>,
    pub hints: Hints,
    pub sent: Option<&'a Sent>,
    pub body: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDelivery {
    pub id: i64,
    pub lane: LaneId,
    pub kind: DeliveryKind,
    /// The event, observation or webhook.
    pub cause: Seq,
    pub rollout: Option<Seq>,
    pub object: i64,
    pub route: i64,
    pub dest: DestId,
    /// When its lane is due, unless it is due already or what waits in it was tried before.
    pub due: Time,
}

#[derive(Debug)]
pub(crate) struct NewHook<'a> {
    pub seq: Seq,
    pub receiver: i64,
    pub verdict: HookVerdict,
    pub reason: Cow<'a, str>,
    pub merged: u32,
    pub hook: &'a Hook,
}

/// What a batch of inputs adds.
#[derive(Debug, Default)]
pub(crate) struct Appends<'a> {
    pub events: Vec<NewEvent<'a>>,
    pub hooks: Vec<NewHook<'a>>,
    pub deliveries: Vec<NewDelivery>,
    /// New states of objects.
    pub states: BTreeMap<i64, Arc<ObjectState>>,
    /// Rollouts that are new or differ, each with its object.
    pub rollouts: BTreeMap<Seq, (i64, Rollout)>,
    /// Events that were repeated.
    pub repeats: Vec<Seq>,
    /// The objects whose states all of this was decided from.
    pub objects: Vec<i64>,
}

impl Appends<'_> {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.hooks.is_empty() && self.repeats.is_empty()
    }
}

/// What adding did.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// Destinations that got work that is due and not in flight, or whose next work is due at another time.
    pub woken: Vec<DestId>,
    /// Deliveries that newer ones superseded.
    pub closed: Vec<(DestId, u64)>,
}

/// What the window for webhooks keeps of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RememberedHook {
    pub seq: Seq,
    pub receiver: i64,
    pub delivery_id: String,
}

/// What a settlement did.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Deliveries that wait no longer.
    pub closed: u64,
    /// A lane of the destination is left with work, or got some: it is worth another look.
    pub left: bool,
}

/// Which waiting deliveries are to be given up.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// Those of any of these destinations, oldest first.
    Dests(Vec<DestId>),
    /// Those that this Alert caused.
    Route(i64),
}

/// A configuration object that was there and is gone.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub id: i64,
    pub key: ConfigKey,
}

/// Undelivered deliveries of a destination.
#[derive(Clone, Debug)]
pub(crate) struct PendingRow {
    pub dest: DestId,
    pub key: ConfigKey,
    pub count: u64,
    pub oldest: i64,
}

/// Which events may be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prunable {
    /// Those without undelivered deliveries.
    Settled,
    /// Those without undelivered deliveries and without dead letters.
    SettledWell,
}

/// Bytes of the database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    /// Bytes that hold data.
    pub used: u64,
    /// Bytes in the file that hold nothing.
    pub free: u64,
}

/// The writing half. Between `begin` and `commit` or `rollback` it holds the append lock, or makes sure by the commit that
/// nobody else appended what matters; whatever of a lane is decided is decided while that lane can't change.
pub(crate) trait Writer: Send {
    /// Without the append lock, perhaps, if the load allows for it: the commit may turn out to be overtaken then.
    fn begin(&mut self, tail: Seq, load: Load) -> Result<Begun>;
    /// Whether outcomes had better be written apart from what needs the append lock.
    fn is_contended(&self) -> bool {
        false
    }
    /// Before `begin`: objects whose states may be asked for after it, if others changed them since or, as it says, before.
    fn foresee(&mut self, _objects: Vec<(i64, bool)>) {}
    /// Webhooks that other writers recorded before what `begin` began, since this was asked last.
    fn other_hooks(&mut self) -> Vec<RememberedHook> {
        Vec::new()
    }
    /// The objects, which are made known if they weren't.
    fn objects(&mut self, keys: &[&ObjectKey]) -> Result<Vec<ObjectRow>>;
    /// The states of known objects, in this order.
    fn states(&mut self, objects: &[i64]) -> Result<Vec<Arc<ObjectState>>>;
    /// The numbers of configuration objects, which are made known if they weren't.
    fn configs(&mut self, keys: &[&ConfigKey]) -> Result<Vec<i64>>;
    /// The event that has each of these ids in its cluster, if it is kept.
    fn sent(&mut self, ids: &[(u64, &str)]) -> Result<Vec<Option<Seq>>>;
    /// Which of these lanes have a delivery that waits and isn't in flight.
    fn waiting(&mut self, lanes: &[LaneId]) -> Result<HashSet<LaneId>>;
    /// Adds what a batch brings. A delivery that is put into a state lane supersedes those that wait in it and aren't in
    /// flight. An engine to which each answer is a round trip may say later what that did.
    fn append(&mut self, appends: &Appends<'_>, now: Time) -> Result<Added>;
    /// Writes outcomes down; in a finished state lane what is older than its newest is superseded, and a finished lane is free again once this is committed.
    fn settle(&mut self, settlement: &Settlement, now: Time) -> Result<Settled>;
    /// The same for several, in their order; for engines to which each statement is a round trip.
    fn settle_all(&mut self, settlements: &[&Settlement], now: Time) -> Result<Vec<Settled>> {
        settlements.iter().map(|settlement| self.settle(settlement, now)).collect()
    }
    /// The lane is free again, untouched, once this is committed. Says whose it is, if it was in flight.
    fn release(&mut self, lane: LaneId) -> Result<Option<DestId>>;
    /// The same for several.
    fn release_all(&mut self, lanes: &[LaneId]) -> Result<Vec<DestId>> {
        let dests: Result<Vec<_>> = lanes.iter().map(|lane| self.release(*lane)).collect();
        Ok(dests?.into_iter().flatten().collect())
    }
    /// All waiting lanes of the destination are due; one in flight is due when it is finished.
    fn wake(&mut self, dest: DestId, now: Time) -> Result<()>;
    /// Puts a settled delivery in line again, under a new number; says also how many it superseded.
    fn redeliver(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<(Redelivered, u64), RedeliverError>>;
    /// Keeps these bodies; what has one and isn't among these is absent from now on.
    fn config(&mut self, present: &[(ConfigKey, String)], now: Time) -> Result<()>;
    /// Forgets the body of a configuration object that is gone.
    fn forget(&mut self, config: i64) -> Result<()>;
    /// Gives waiting deliveries up, unless their lane is in flight; says how many, by destination.
    fn kill(&mut self, deliveries: &[i64], reason: &str, now: Time) -> Result<Vec<(DestId, u64)>>;
    /// Removes these events with their deliveries, unless they have become undelivered again; says how many events.
    fn prune(&mut self, events: &[Seq], which: Prunable) -> Result<u64>;
    /// Removes these lanes if nothing waits in them and no event used them since.
    fn prune_lanes(&mut self, lanes: &[LaneId], before: Time) -> Result<u64>;
    /// Removes these rollouts, unless they are needed after all.
    fn prune_rollouts(&mut self, rollouts: &[Seq]) -> Result<u64>;
    /// Removes webhooks that are this old, with their triggers, unless one waits.
    fn prune_hooks(&mut self, before: Seq) -> Result<u64>;
    /// Durable when this returns, unless there is a flusher.
    fn commit(&mut self) -> Result<()>;
    /// What appending did, as far as only the commit told.
    fn added(&mut self) -> Added {
        Added::default()
    }
    fn rollback(&mut self);
    /// Gives free space back, outside of a transaction, a little at a time.
    fn vacuum(&mut self) -> Result<()>;
    /// What makes commits durable, where they aren't by themselves. To be asked for once.
    fn flusher(&mut self) -> Result<Option<Box<dyn Flusher>>> {
        Ok(None)
    }
    /// Finds out by a write whether the database takes writes; after a flush that failed, makes all that was committed durable.
    fn probe(&mut self) -> Result<()>;
    /// Leaves everything tidy.
    fn close(&mut self);
}

/// Makes durable what the writing half committed, while that goes on.
pub(crate) trait Flusher: Send {
    /// All that was committed before this is asked for is on disk when it returns.
    fn flush(&mut self) -> Result<()>;
}

/// The reading half.
pub(crate) trait Reader: Send + Sync {
    /// Takes lanes that are due. One claim at a time.
    fn claim(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims>;
    /// The name that the database has had since it was made.
    fn name(&self) -> Result<String>;
    /// Destinations with work, and when the earliest is due.
    fn dests(&self) -> Result<Vec<(DestId, ConfigKey, Option<Time>)>>;
    /// The latest events after this one, oldest first, at most so many.
    fn recent(&self, after: Seq, limit: usize) -> Result<Vec<Remembered>>;
    /// The last event.
    fn last(&self) -> Result<Seq>;
    /// The genuine webhooks with a delivery id after this one, oldest first, at most so many of the latest.
    fn recent_hooks(&self, after: Seq, limit: usize) -> Result<Vec<RememberedHook>>;
    fn pending(&self) -> Result<Vec<PendingRow>>;
    fn saved_config(&self) -> Result<Vec<(ConfigKey, String)>>;
    fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<DeliveryRow>>;
    fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>>;
    fn events(&self, query: &EventQuery) -> Result<Page<EventRow>>;
    fn event(&self, seq: Seq) -> Result<Option<EventRow>>;
    fn rollouts(&self, query: &RolloutQuery) -> Result<Page<RolloutRow>>;
    fn rollout(&self, id: Seq) -> Result<Option<RolloutRow>>;
    /// What is known of these objects, in their order; `None` for what nothing was ever heard of.
    fn object_states(&self, objects: &[ObjectKey]) -> Result<Vec<Option<ObjectState>>>;
    /// In byte order of name, namespace, kind, group, cluster.
    fn find_objects(&self, query: &ObjectQuery) -> Result<Vec<queries::ObjectRow>>;
    fn hooks(&self, receiver: Option<&ConfigKey>, limit: u32) -> Result<Vec<HookRow>>;
    /// Waiting deliveries, oldest first, whose lane is not in flight; and whether there are any at all in flight.
    fn victims(&self, scope: &Scope, limit: u64) -> Result<(Vec<i64>, bool)>;
    /// Configuration objects with a body that have been absent for this long.
    fn gone(&self, before: Time) -> Result<Vec<Gone>>;
    /// Events after `after` and before `before` that may be pruned, oldest first, each with the bytes of its body.
    fn prunable(&self, after: Seq, before: Seq, which: Prunable, limit: u32) -> Result<Vec<(Seq, u64)>>;
    /// Removes what is wholly older and can go as a whole, at once; says how many events that were.
    fn prune_whole(&self, _before: Seq) -> Result<u64> {
        Ok(0)
    }
    /// Lanes after this one that nothing waits in and no event used since `before`.
    fn idle_lanes(&self, after: LaneId, before: Time, limit: u32) -> Result<Vec<LaneId>>;
    /// Rollouts after `after` and before `before` that are no longer needed: what last changed them was pruned, nothing is
    /// left that tells of them, and their object has a newer one.
    fn prunable_rollouts(&self, after: Seq, before: Seq, limit: u32) -> Result<Vec<Seq>>;
    fn size(&self) -> Result<Size>;
    /// Bytes on disk; cheap.
    fn bytes(&self) -> u64;
    /// Does what keeps reading and writing fast; called often, off the writer's path.
    fn tend(&self) -> Result<()>;
    /// How often `tend` wants to be called.
    fn tend_every(&self) -> Duration;
    /// How many reads may go on at a time.
    fn parallel(&self) -> usize {
        4
    }
    /// Whether others use the same database, so that what they do must be followed.
    fn follows(&self) -> bool {
        false
    }
    /// Follows what others do, until `stop`; says `doubted` when the database seems to be away.
    fn follow(&self, _shared: &Shared, _doubted: &dyn Fn()) {}
    /// Ends `follow`.
    fn stop(&self) {}
    /// Tells who follows that a destination is down, or takes messages again. What all know now; `None` where nobody follows.
    fn share_circuit(&self, _dest: DestId, _outage: Option<&Outage>, _probed: bool) -> Result<Option<Told>> {
        Ok(None)
    }
    /// Whether the probe that is due at a destination is for this one.
    fn take_probe(&self, _dest: DestId) -> Result<Probe> {
        Ok(Probe::Ours)
    }
    /// Says something to who follows.
    fn tell(&self, _words: &str) -> Result<()> {
        Ok(())
    }
    /// Whether what is to be done once, by whomever, is for this one.
    fn leads(&self) -> Result<bool> {
        Ok(true)
    }
    /// Whether what is claimed is sure to stay so for as long as an attempt may take.
    fn leased(&self) -> bool {
        true
    }
}
