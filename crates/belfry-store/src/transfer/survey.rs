//! What is in a store.

use belfry_core::{ConfigKey, Seq, Time};

use crate::queries::DeliveryState;

/// What is in a store, at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The engine: `sqlite` or `postgres`.
    pub engine: &'static str,
    /// The number of its schema.
    pub schema: i64,
    /// Bytes that hold data.
    pub used: u64,
    /// Bytes that are free for more without the database growing, as far as it tells.
    pub free: Option<u64>,
    /// Events and observations.
    pub events: u64,
    /// The first and the last of them.
    pub span: Option<(Seq, Seq)>,
    /// Objects that something was heard of.
    pub objects: u64,
    /// Rollouts.
    pub rollouts: u64,
    /// Those that are pending or progressing.
    pub open_rollouts: u64,
    /// Deliveries by what became of them.
    pub deliveries: Vec<(DeliveryState, u64)>,
    /// Attempts at them.
    pub attempts: u64,
    /// What waits, by destination, most first.
    pub waiting: Vec<Waiting>,
    /// Webhooks.
    pub hooks: u64,
    /// Replicas that were heard of lately; none of SQLite, whose one server can't be seen here.
    pub replicas: Option<u64>,
}

impl Survey {
    /// How many deliveries are in a state.
    pub fn in_state(&self, state: DeliveryState) -> u64 {
        self.deliveries.iter().filter(|(of, _)| *of == state).map(|(_, count)| count).sum()
    }
}

/// What waits for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The Provider, or the cluster.
    pub dest: ConfigKey,
    /// How many deliveries.
    pub count: u64,
    /// When the oldest of them came.
    pub oldest: Time,
}
