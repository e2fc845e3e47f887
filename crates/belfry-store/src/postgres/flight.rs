//! What this replica has claimed, and under which name. The database decides whose a lane is; this is what was learned there.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::types::{DestId, LaneId};

/// A name of this replica: it gets another one when the others took it for dead, so that what it claimed before isn't its own.
pub(super) type Owner = i64;

#[derive(Debug)]
pub(super) struct Flight {
    state: Mutex<State>,
    lease: Duration,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<Owner>,
    /// The name is good until then, by a clock that was read before it was asked for.
    until: Option<Instant>,
    lanes: HashMap<LaneId, Held>,
    /// A claim may have been made that nobody learned of.
    doubt: bool,
    /// The store is closed: no more names.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    dest: DestId,
    owner: Owner,
}

impl Flight {
    pub fn new(lease: Duration) -> Self {
        Self { state: Mutex::default(), lease }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This name, for a while from `asked` on.
    pub fn lease(&self, owner: Owner, asked: Instant) {
        let mut state = self.lock();
        state.owner = Some(owner);
        state.until = asked.checked_add(self.lease);
    }

    /// The name is gone, and all that it claimed.
    pub fn buried(&self) {
        let mut state = self.lock();
        (state.owner, state.until) = (None, None);
    }

    pub fn owner(&self) -> Option<Owner> {
        self.lock().owner
    }

    /// The name, if the lease lasts long enough for something to be begun.
    pub fn leased(&self) -> Option<Owner> {
        let state = self.lock();
        let least = self.lease.mul_f64(2.0 / 3.0);
        let left = state.until?.saturating_duration_since(Instant::now());
        state.owner.filter(|_| left >= least && !state.closed)
    }

    pub fn close(&self) -> Option<Owner> {
        let mut state = self.lock();
        state.closed = true;
        state.owner
    }

    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub fn claim(&self, owner: Owner, lanes: impl IntoIterator<Item = (LaneId, DestId)>) {
        let mut state = self.lock();
        state.lanes.extend(lanes.into_iter().map(|(lane, dest)| (lane, Held { dest, owner })));
    }

    /// The name under which a lane is claimed, and its destination.
    pub fn holder(&self, lane: LaneId) -> Option<(Owner, DestId)> {
        self.lock().lanes.get(&lane).map(|held| (held.owner, held.dest))
    }

    pub fn free(&self, lanes: impl IntoIterator<Item = LaneId>) {
        let mut state = self.lock();
        for lane in lanes {
            state.lanes.remove(&lane);
        }
    }

    /// All that is claimed.
    pub fn lanes(&self) -> Vec<i64> {
        self.lock().lanes.keys().map(|lane| lane.0).collect()
    }

    /// A claim failed, and may have been made all the same.
    pub fn doubt(&self) {
        self.lock().doubt = true;
    }

    pub fn take_doubt(&self) -> bool {
        std::mem::take(&mut self.lock().doubt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_good_for_a_third_of_the_lease_without_word_from_the_database() {
        let flight = Flight::new(Duration::from_secs(30));
        assert_eq!(flight.leased(), None);
        flight.lease(7, Instant::now());
        assert_eq!(flight.leased(), Some(7));
        flight.lease(7, Instant::now() - Duration::from_secs(11));
        assert_eq!((flight.leased(), flight.owner()), (None, Some(7)));
        flight.lease(7, Instant::now());
        flight.close();
        assert_eq!(flight.leased(), None);
    }

    #[test]
    fn what_was_claimed_stays_so_under_the_name_it_was_claimed_under() {
        let flight = Flight::new(Duration::from_secs(30));
        flight.lease(1, Instant::now());
        flight.claim(1, [(LaneId(5), DestId(2))]);
        flight.buried();
        flight.lease(2, Instant::now());
        assert_eq!((flight.lanes(), flight.holder(LaneId(5))), (vec![5], Some((1, DestId(2)))));
        flight.free([LaneId(5)]);
        assert!(flight.lanes().is_empty());
    }
}
