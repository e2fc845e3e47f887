//! What the store tells of itself.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_core::{ConfigKey, Seq, Time};
use tokio::sync::{Notify, broadcast, watch};

use crate::{backlog::Backlog, circuits::Known, types::DestId};

/// Upper ends of the buckets of [`CommitTimes`], in seconds; one more bucket has no end.
pub const COMMIT_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Words of other replicas that wait for a listener who is busy.
const WORDS: usize = 1024;

/// Figures since the store was opened, and how it is now.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Events stored.
    pub appended: u64,
    /// Events counted as repeats.
    pub repeats: u64,
    /// Observations that told something new.
    pub observations: u64,
    /// Webhooks recorded.
    pub hooks: u64,
    /// Events, observations and webhooks refused, for whatever reason.
    pub refused: u64,
    /// Deliveries that events, observations and webhooks caused.
    pub deliveries: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failed_commits: u64,
    /// How long commits took.
    pub commit_times: CommitTimes,
    /// Events that wait for the writer.
    pub queued: usize,
    /// Bytes of their bodies.
    pub queued_bytes: usize,
    /// Bytes on disk.
    pub db_bytes: u64,
    /// Undelivered deliveries by destination; one that isn't named has none.
    pub pending: HashMap<DestId, Pending>,
    /// It takes writes.
    pub healthy: bool,
    /// The last thing that went wrong, be it over or not.
    pub last_error: Option<String>,
}

/// A histogram of how long commits took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitTimes {
    /// How many took at most as long as the bucket says ([`COMMIT_BUCKETS`]) and longer than the one before.
    pub buckets: [u64; COMMIT_BUCKETS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

/// What waits for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The Provider that it is.
    pub key: Arc<ConfigKey>,
    /// How many deliveries.
    pub count: u64,
    /// When the oldest came, as it was some seconds ago.
    pub oldest: Time,
}

/// What the writer shares with everyone else.
#[derive(Debug)]
pub(crate) struct Shared {
    pub appended: AtomicU64,
    pub repeats: AtomicU64,
    pub observations: AtomicU64,
    pub hooks: AtomicU64,
    pub refused: AtomicU64,
    pub deliveries: AtomicU64,
    pub commits: AtomicU64,
    pub failed_commits: AtomicU64,
    buckets: [AtomicU64; COMMIT_BUCKETS.len() + 1],
    sum_micros: AtomicU64,
    pub backlog: Backlog,
    health: Mutex<Health>,
    pub head: watch::Sender<Seq>,
    woken: Mutex<HashSet<DestId>>,
    wakes: Notify,
    /// What was told of circuits.
    circuits: Mutex<Known>,
    /// What the other replicas say.
    pub words: broadcast::Sender<Arc<str>>,
    /// How many replicas there are, as far as is known.
    pub replicas: AtomicU32,
}

#[derive(Clone, Debug, Default)]
struct Health {
    down: Option<String>,
    last_error: Option<String>,
}

impl Shared {
    pub fn new(head: Seq) -> Self {
        Self {
            appended: AtomicU64::default(),
            repeats: AtomicU64::default(),
            observations: AtomicU64::default(),
            hooks: AtomicU64::default(),
            refused: AtomicU64::default(),
            deliveries: AtomicU64::default(),
            commits: AtomicU64::default(),
            failed_commits: AtomicU64::default(),
            buckets: Default::default(),
            sum_micros: AtomicU64::default(),
            backlog: Backlog::default(),
            health: Mutex::default(),
            head: watch::Sender::new(head),
            woken: Mutex::default(),
            wakes: Notify::new(),
            circuits: Mutex::default(),
            words: broadcast::Sender::new(WORDS),
            replicas: AtomicU32::new(1),
        }
    }

    pub fn committed(&self, took: Duration) {
        self.commits.fetch_add(1, Relaxed);
        let bucket = COMMIT_BUCKETS.iter().take_while(|end| took.as_secs_f64() > **end).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn went_down(&self, error: &str) {
        self.failed_commits.fetch_add(1, Relaxed);
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.down = Some(error.to_owned());
        health.last_error = Some(error.to_owned());
    }

    pub fn came_up(&self) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).down = None;
    }

    pub fn health(&self) -> Result<(), String> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).down.clone().map_or(Ok(()), Err)
    }

    /// The log goes on to here; never back, whoever learned of it first.
    pub fn moved(&self, head: Seq) {
        self.head.send_if_modified(|known| {
            let further = head > *known;
            *known = head.max(*known);
            further
        });
    }

    /// Tells the dispatcher of work.
    pub fn wake(&self, dests: impl IntoIterator<Item = DestId>) {
        let mut dests = dests.into_iter().peekable();
        if dests.peek().is_some() {
            self.woken.lock().unwrap_or_else(PoisonError::into_inner).extend(dests);
            self.wakes.notify_one();
        }
    }

    pub fn circuits(&self) -> MutexGuard<'_, Known> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn woken(&self) -> HashSet<DestId> {
        loop {
            let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
            if !woken.is_empty() {
                return woken;
            }
            self.wakes.notified().await;
        }
    }

    pub fn stats(&self, (queued, queued_bytes): (usize, usize), db_bytes: u64) -> Stats {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Stats {
            appended: self.appended.load(Relaxed),
            repeats: self.repeats.load(Relaxed),
            observations: self.observations.load(Relaxed),
            hooks: self.hooks.load(Relaxed),
            refused: self.refused.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            commits: self.commits.load(Relaxed),
            failed_commits: self.failed_commits.load(Relaxed),
            commit_times: CommitTimes {
                buckets: std::array::from_fn(|i| self.buckets[i].load(Relaxed)),
                sum: Duration::from_micros(self.sum_micros.load(Relaxed)),
            },
            queued,
            queued_bytes,
            db_bytes,
            pending: self.backlog.get(),
            healthy: health.down.is_none(),
            last_error: health.last_error,
        }
    }
}
