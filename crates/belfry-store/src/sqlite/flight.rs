//! Which lanes are in flight. With one process there is no need to write that down.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::types::{DestId, LaneId};

/// The lanes in flight, shared by the one that claims and the one that writes.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    state: Mutex<State>,
    /// The last delivery when the database was opened: older ones may have been under way when the process ended.
    boot: i64,
}

#[derive(Debug, Default)]
struct State {
    lanes: HashMap<LaneId, InFlight>,
    /// Lanes whose outcome from before the start is known by now.
    known: HashSet<LaneId>,
    /// State lanes whose delivery from before the start was superseded with its outcome unknown.
    doubted: HashSet<LaneId>,
    /// Counts how often deliveries were given up outside of a claim.
    kills: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    dest: DestId,
    /// The first delivery that it was claimed with.
    first: Option<i64>,
    /// It was woken since it was claimed.
    woken: bool,
    attempted: bool,
    recovered: bool,
    /// It isn't claimed, but held while its deliveries are given up.
    held: bool,
}

/// What was in flight at one time.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub lanes: HashMap<LaneId, DestId>,
    kills: u64,
}

impl Flight {
    pub fn new(boot: i64) -> Self {
        Self { state: Mutex::default(), boot }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before the database is read: a lane that is freed in between counts as in flight, and whoever freed it
    /// tells the dispatcher afterwards.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        Snapshot { lanes: state.lanes.iter().map(|(lane, entry)| (*lane, entry.dest)).collect(), kills: state.kills }
    }

    /// Puts lanes in flight that were read after the snapshot, each with its first delivery; says of each whether it is
    /// recovered. `None`: deliveries were given up in between, and what was read may be stale.
    pub fn claim(&self, snapshot: &Snapshot, lanes: &[(LaneId, DestId, Option<i64>)]) -> Option<Vec<bool>> {
        let mut state = self.lock();
        if state.kills != snapshot.kills {
            return None;
        }
        let claim = |(lane, dest, first): &(LaneId, DestId, Option<i64>)| {
            let old = first.is_some_and(|first| first <= self.boot) || state.doubted.contains(lane);
            let recovered = old && state.known.insert(*lane);
            let entry = InFlight { dest: *dest, first: *first, woken: false, attempted: false, recovered, held: false };
            state.lanes.insert(*lane, entry);
            recovered
        };
        Some(lanes.iter().map(claim).collect())
    }

    pub fn dest(&self, lane: LaneId) -> Option<DestId> {
        self.lock().lanes.get(&lane).map(|entry| entry.dest)
    }

    pub fn attempted(&self, lane: LaneId) {
        if let Some(entry) = self.lock().lanes.get_mut(&lane) {
            entry.attempted = true;
        }
    }

    pub fn wake(&self, dest: DestId) {
        for entry in self.lock().lanes.values_mut().filter(|entry| entry.dest == dest) {
            entry.woken = true;
        }
    }

    pub fn is_woken(&self, lane: LaneId) -> bool {
        self.lock().lanes.get(&lane).is_some_and(|entry| entry.woken)
    }

    /// Keeps a lane from being claimed. If it is claimed: the first delivery that it was claimed with.
    pub fn hold(&self, lane: LaneId, dest: DestId) -> Result<(), Option<i64>> {
        let mut state = self.lock();
        state.kills += 1;
        match state.lanes.get(&lane) {
            Some(entry) if entry.held => Ok(()),
            Some(entry) => Err(entry.first),
            None => {
                let entry =
                    InFlight { dest, first: None, woken: false, attempted: false, recovered: false, held: true };
                state.lanes.insert(lane, entry);
                Ok(())
            }
        }
    }

    /// The first delivery of a lane that is claimed.
    pub fn first(&self, lane: LaneId) -> Option<i64> {
        self.lock().lanes.get(&lane).and_then(|entry| entry.first)
    }

    /// Whether it is claimed, not only held.
    pub fn is_claimed(&self, lane: LaneId) -> bool {
        self.lock().lanes.get(&lane).is_some_and(|entry| !entry.held)
    }

    /// This delivery of a state lane won't be made any more; whether it was, an earlier process may have known.
    pub fn superseded(&self, lane: LaneId, delivery: i64) {
        if delivery <= self.boot {
            self.lock().doubted.insert(lane);
        }
    }

    /// Ends holds and claims, once what was written about them is committed.
    pub fn free(&self, lanes: impl IntoIterator<Item = LaneId>) {
        let mut state = self.lock();
        for lane in lanes {
            if let Some(entry) = state.lanes.remove(&lane)
                && entry.recovered
                && !entry.attempted
            {
                state.known.remove(&lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(1);
    const DEST: DestId = DestId(2);

    #[test]
    fn what_is_given_up_while_it_is_read_is_read_again() {
        let flight = Flight::new(0);
        let stale = flight.snapshot();
        assert_eq!(flight.hold(LANE, DEST), Ok(()));
        assert_eq!(flight.claim(&stale, &[(LANE, DEST, Some(5))]), None);
        // Held until that is committed or not.
        assert!(flight.snapshot().lanes.contains_key(&LANE));
        flight.free([LANE]);
        let fresh = flight.snapshot();
        assert!(fresh.lanes.is_empty());
        assert_eq!(flight.claim(&fresh, &[(LANE, DEST, Some(5))]), Some(vec![false]));
        assert_eq!(flight.hold(LANE, DEST), Err(Some(5)));
    }

    #[test]
    fn recovered_until_something_was_attempted() {
        let flight = Flight::new(9);
        let claim = |first| flight.claim(&flight.snapshot(), &[(LANE, DEST, Some(first))]);
        assert_eq!(claim(9), Some(vec![true]));
        flight.free([LANE]);
        assert_eq!(claim(9), Some(vec![true]));
        flight.attempted(LANE);
        flight.free([LANE]);
        assert_eq!(claim(9), Some(vec![false]));
        flight.free([LANE]);
        assert_eq!(claim(10), Some(vec![false]));
    }

    #[test]
    fn a_state_that_replaces_one_of_unknown_outcome_is_recovered() {
        let flight = Flight::new(9);
        flight.superseded(LANE, 9);
        let claim = |first| flight.claim(&flight.snapshot(), &[(LANE, DEST, Some(first))]);
        assert_eq!(claim(10), Some(vec![true]));
        flight.attempted(LANE);
        flight.free([LANE]);
        assert_eq!(claim(11), Some(vec![false]));
    }
}
