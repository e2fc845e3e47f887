//! What the store asks of a database: a writing half that only the writer thread has, and a reading half that any thread
//! may use. All of it blocks. Engines share no SQL.

use std::time::Duration;

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    plan::{Candidate, Change, ObjectState},
};

use crate::{
    RedeliverError, StoreError,
    queries::{AttemptRow, DeliveryQuery, DeliveryRow, EventQuery, EventRow, Page},
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
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Data(detail) => Self::Invalid(detail),
            EngineError::Down(detail) => Self::Down(detail),
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

/// What is known once the append lock is held.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The last event.
    pub seq: Seq,
    /// The last delivery.
    pub delivery: i64,
    /// Events that other writers appended after the tail that was given.
    pub others: Vec<Remembered>,
}

/// An object as the database has it.
#[derive(Clone, Debug)]
pub(crate) struct ObjectRow {
    pub id: i64,
    pub state: ObjectState,
}

#[derive(Debug)]
pub(crate) struct NewEvent<'a> {
    pub seq: Seq,
    pub object: i64,
    pub candidate: &'a Candidate,
    pub change: Option<Change>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDelivery {
    pub id: i64,
    pub lane: LaneId,
    pub event: Seq,
    pub object: i64,
    pub route: i64,
    pub dest: DestId,
}

/// What a batch of events adds.
#[derive(Debug, Default)]
pub(crate) struct Appends<'a> {
    pub events: Vec<NewEvent<'a>>,
    pub deliveries: Vec<NewDelivery>,
    /// New states of objects; the last one of an object counts.
    pub states: Vec<(i64, ObjectState)>,
    /// Events that were repeated.
    pub repeats: Vec<Seq>,
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

/// The writing half. Between `begin` and `commit` or `rollback` it holds the append lock, and whatever of a lane is
/// decided is decided while that lane can't change.
pub(crate) trait Writer: Send {
    fn begin(&mut self, tail: Seq) -> Result<Begun>;
    /// The objects, which are made known if they weren't.
    fn objects(&mut self, keys: &[&ObjectKey]) -> Result<Vec<ObjectRow>>;
    /// The numbers of configuration objects, which are made known if they weren't.
    fn configs(&mut self, keys: &[&ConfigKey]) -> Result<Vec<i64>>;
    /// Adds events and deliveries; says which destinations got work that is due and not in flight.
    fn append(&mut self, appends: &Appends<'_>, now: Time) -> Result<Vec<DestId>>;
    /// Writes outcomes down; a finished lane is free again once this is committed.
    fn settle(&mut self, settlement: &Settlement, now: Time) -> Result<Settled>;
    /// The lane is free again, untouched, once this is committed. Says whose it is, if it was in flight.
    fn release(&mut self, lane: LaneId) -> Result<Option<DestId>>;
    /// All waiting lanes of the destination are due; one in flight is due when it is finished.
    fn wake(&mut self, dest: DestId, now: Time) -> Result<()>;
    /// Puts a settled delivery in line again, under a new number.
    fn redeliver(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<Redelivered, RedeliverError>>;
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
    fn commit(&mut self) -> Result<()>;
    fn rollback(&mut self);
    /// Gives free space back, outside of a transaction, a little at a time.
    fn vacuum(&mut self) -> Result<()>;
    /// Finds out by a write whether the database takes writes.
    fn probe(&mut self) -> Result<()>;
    /// Leaves everything tidy.
    fn close(&mut self);
}

/// The reading half.
pub(crate) trait Reader: Send + Sync {
    /// Takes lanes that are due. One claim at a time.
    fn claim(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims>;
    /// Destinations with work, and when the earliest is due.
    fn dests(&self) -> Result<Vec<(DestId, ConfigKey, Option<Time>)>>;
    /// The latest events after this one, oldest first, at most so many.
    fn recent(&self, after: Seq, limit: usize) -> Result<Vec<Remembered>>;
    fn last(&self) -> Result<Seq>;
    fn pending(&self) -> Result<Vec<PendingRow>>;
    fn saved_config(&self) -> Result<Vec<(ConfigKey, String)>>;
    fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<DeliveryRow>>;
    fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>>;
    fn events(&self, query: &EventQuery) -> Result<Page<EventRow>>;
    fn event(&self, seq: Seq) -> Result<Option<EventRow>>;
    /// Waiting deliveries, oldest first, whose lane is not in flight; and whether there are any at all in flight.
    fn victims(&self, scope: &Scope, limit: u64) -> Result<(Vec<i64>, bool)>;
    /// Configuration objects with a body that have been absent for this long.
    fn gone(&self, before: Time) -> Result<Vec<Gone>>;
    /// Events after `after` and before `before` that may be pruned, oldest first, each with the bytes of its body.
    fn prunable(&self, after: Seq, before: Seq, which: Prunable, limit: u32) -> Result<Vec<(Seq, u64)>>;
    /// Lanes after this one that nothing waits in and no event used since `before`.
    fn idle_lanes(&self, after: LaneId, before: Time, limit: u32) -> Result<Vec<LaneId>>;
    fn size(&self) -> Result<Size>;
    /// Bytes on disk; cheap.
    fn bytes(&self) -> u64;
    /// Does what keeps reading and writing fast; called often, off the writer's path.
    fn tend(&self) -> Result<()>;
    /// How often `tend` wants to be called.
    fn tend_every(&self) -> Duration;
}
