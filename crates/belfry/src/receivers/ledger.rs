//! What is remembered of a Receiver apart from the store: how much of it was asked lately, and whom it turned away.
//! Strangers can send as much as they like; so of what was refused for its credential only the last few are kept, and
//! only some are logged.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_core::{ConfigKey, Time, limits};

use super::limiter::Limiter;

/// Refusals that are kept of one Receiver.
const KEPT: usize = 10;
/// How often refusals of one Receiver are logged.
const LOGGED: Duration = Duration::from_secs(10);

/// A request that was turned away before it was known to be genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// When the last one came.
    pub(super) at: Time,
    /// Why.
    pub(super) why: String,
    /// How many were turned away for the same reason, one after the other.
    pub(super) count: u64,
}

/// What is remembered of one Receiver.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its genuine webhooks.
    pub(super) rate: Limiter,
    log: Limiter,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    refusals: VecDeque<Refusal>,
    unsaid: u64,
}

impl Entry {
    fn new() -> Self {
        let rate = Limiter::new(limits::HOOK_RATE, limits::HOOK_BURST);
        Self { rate, log: Limiter::every(LOGGED, 5), inner: Mutex::default() }
    }

    /// Notes a refusal. When it is to be logged: how many before it weren't.
    pub(super) fn refused(&self, now: Time, why: &str) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.refusals.back_mut().filter(|last| last.why == why) {
            Some(last) => {
                last.at = now;
                last.count += 1;
            }
            None => {
                if inner.refusals.len() == KEPT {
                    inner.refusals.pop_front();
                }
                inner.refusals.push_back(Refusal { at: now, why: why.to_owned(), count: 1 });
            }
        }
        match self.log.take(now) {
            Ok(()) => Some(std::mem::take(&mut inner.unsaid)),
            Err(_) => {
                inner.unsaid += 1;
                None
            }
        }
    }

    /// The last refusals, oldest first.
    pub(super) fn refusals(&self) -> Vec<Refusal> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).refusals.iter().cloned().collect()
    }
}

/// The entries of all Receivers.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<HashMap<ConfigKey, Arc<Entry>>>);

impl Ledger {
    /// The entry of a Receiver.
    pub(super) fn of(&self, key: &ConfigKey) -> Arc<Entry> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(key) {
            return entry.clone();
        }
        entries.entry(key.clone()).or_insert_with(|| Arc::new(Entry::new())).clone()
    }

    /// Forgets Receivers that are gone.
    pub(super) fn retain(&self, exists: impl Fn(&ConfigKey) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| exists(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_hardly_logged() {
        let entry = Entry::new();
        let logged = (0..1_000_000).step_by(1000).filter_map(|at| entry.refused(Time(at), "wrong token")).count();
        assert_eq!(logged, 5);
        assert_eq!(entry.refused(Time(60_000_000), "no token"), Some(995));
        let refusals = entry.refusals();
        assert_eq!(refusals.len(), 2);
        assert_eq!((refusals[0].count, refusals[1].count), (1000, 1));
        for n in 0..100 {
            entry.refused(Time(60_000_000), &n.to_string());
        }
        assert_eq!(entry.refusals().len(), KEPT);
    }
}
