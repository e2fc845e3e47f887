//! How much waits for each destination, kept in memory so that nobody counts rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use belfry_core::{ConfigKey, Time};

use crate::{engine::PendingRow, stats::Pending, types::DestId};

#[derive(Debug, Default)]
pub(crate) struct Backlog(Mutex<HashMap<DestId, Pending>>);

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, HashMap<DestId, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
