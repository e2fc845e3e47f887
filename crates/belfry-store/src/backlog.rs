//! How much waits for each destination, kept in memory so that nobody counts rows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
};

use belfry_core::{ConfigKey, Time};

use crate::{engine::PendingRow, stats::Pending, types::DestId};

/// Counts that were not taken over because others came in between, before they are taken over all the same.
const PASSED: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    map: Mutex<HashMap<DestId, Pending>>,
    /// Odd while the writer is at a batch.
    turns: AtomicU64,
    passed: AtomicU32,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, HashMap<DestId, Pending>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins with a batch, or is done with it: until then what it changes is not counted here.
    pub fn turn(&self) {
        self.turns.fetch_add(1, SeqCst);
    }

    /// To be asked before the database is.
    pub fn turns(&self) -> u64 {
        self.turns.load(SeqCst)
    }

    /// Takes over what the database counts, where others write to it too. What the writer was at meanwhile would be counted
    /// twice, or not at all: then it is left for the next time. While it always is, it is as good as it can be.
    pub fn settle(&self, rows: Vec<PendingRow>, turns: u64) {
        let quiet = turns.is_multiple_of(2) && turns == self.turns();
        if quiet || self.passed.fetch_add(1, SeqCst) >= PASSED {
            self.passed.store(0, SeqCst);
            self.load(rows);
        }
    }

    /// Starts with what the database counts.
    pub fn load(&self, rows: Vec<PendingRow>) {
        let pending = |row: PendingRow| {
            (row.dest, Pending { key: Arc::new(row.key), count: row.count, oldest: Time(row.oldest) })
        };
        *self.lock() = rows.into_iter().map(pending).collect();
    }

    /// Deliveries that came.
    pub fn add<'a>(&self, new: impl IntoIterator<Item = (DestId, &'a Arc<ConfigKey>, i64)>) {
        let mut map = self.lock();
        for (dest, key, id) in new {
            let pending =
                map.entry(dest).or_insert_with(|| Pending { key: Arc::clone(key), count: 0, oldest: Time(id) });
            pending.count += 1;
        }
    }

    /// Deliveries that wait no longer.
    pub fn sub(&self, dest: DestId, count: u64) {
        let mut map = self.lock();
        if let Some(pending) = map.get_mut(&dest) {
            pending.count = pending.count.saturating_sub(count);
            if pending.count == 0 {
                map.remove(&dest);
            }
        }
    }

    /// Takes over when the oldest of each came, which can't be told from counting.
    pub fn refresh(&self, rows: &[PendingRow]) {
        let mut map = self.lock();
        for row in rows {
            if let Some(pending) = map.get_mut(&row.dest) {
                pending.oldest = Time(row.oldest);
            }
        }
    }

    pub fn count(&self, dest: DestId) -> u64 {
        self.lock().get(&dest).map_or(0, |pending| pending.count)
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub fn get(&self) -> HashMap<DestId, Pending> {
        self.lock().clone()
    }
}
