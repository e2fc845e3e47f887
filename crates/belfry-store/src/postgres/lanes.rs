//! Writing: state lanes, in which only the newest delivery counts, and what is given up in lanes of both kinds.

use std::collections::{BTreeMap, HashMap};

use belfry_core::Time;

use super::{
    append::{Written, column, small},
    link::{Staged, step},
    transaction::PgWriter,
};
use crate::{
    engine::{Added, NewDelivery, Result},
    queries::DeliveryKind,
    types::{DestId, LaneId},
};

const LOCK: &str = "SELECT id, due, CASE WHEN owner IS NOT NULL THEN first END, owner IS NOT NULL FROM lane
    WHERE id = ANY($1) ORDER BY id FOR UPDATE";
const WAITING: &str = "SELECT lane, id, attempts FROM delivery WHERE lane = ANY($1) AND state = 0 ORDER BY id";
const SUPERSEDE: &str = "UPDATE delivery SET state = 2, settled = $3, answer = 'superseded by delivery ' || old.by
    FROM unnest($1::INT8[], $2::INT8[]) old(id, by)
    WHERE delivery.id = old.id AND delivery.state = 0";
const PUT: &str = "INSERT INTO lane(id, dest, due, tail, kind, rollout)
    SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::INT2[], $6::INT8[])
    ON CONFLICT(id) DO UPDATE SET tail = excluded.tail, kind = excluded.kind, rollout = excluded.rollout, due = excluded.due";

/// A state lane while deliveries are put into it.
#[derive(Default)]
struct Room {
    due: Option<i64>,
    claimed: bool,
    /// The delivery in flight.
    first: Option<i64>,
    /// What waits, and how often it was tried.
    waiting: Vec<(i64, i64)>,
    newest: Option<NewDelivery>,
}

impl Room {
    /// Makes a delivery the newest. Those that wait and aren't in flight are superseded: says which. The lane keeps its time if
    /// what waits in it was tried before, so that a new state is no way around a back-off; else it is due when the earliest of
    /// them would have been.
    fn put(&mut self, new: &NewDelivery) -> Vec<i64> {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(id, _)| Some(*id) != self.first);
        let tried = gone.iter().any(|(_, attempts)| *attempts > 0);
        self.waiting = kept;
        self.waiting.push((new.id, 0));
        self.due = match self.due {
            Some(due) if tried || due <= new.due.0 => Some(due),
            _ => Some(new.due.0),
        };
        self.newest = Some(*new);
        gone.into_iter().map(|(id, _)| id).collect()
    }
}

impl PgWriter {
    /// Puts deliveries into their state lanes, in order; gives them back as they are to be written.
    pub(super) fn make_room<'a>(
        &mut self,
        new: &[&'a NewDelivery],
        now: Time,
        added: &mut Added,
    ) -> Result<Vec<Written<'a>>> {
        let mut rooms: BTreeMap<LaneId, Room> = new.iter().map(|new| (new.lane, Room::default())).collect();
        let ids: Vec<i64> = rooms.keys().map(|lane| lane.0).collect();
        let rows = self.pipeline(&[step(LOCK, [&ids]), step(WAITING, [&ids])])?;
        for row in &rows[0] {
            if let Some(room) = rooms.get_mut(&LaneId(row.get(0))) {
                (room.due, room.first, room.claimed) = (row.get(1), row.get(2), row.get(3));
            }
        }
        for row in &rows[1] {
            if let Some(room) = rooms.get_mut(&LaneId(row.get(0))) {
                room.waiting.push((row.get(1), row.get(2)));
            }
        }
        let mut gone: BTreeMap<i64, i64> = BTreeMap::new();
        for new in new {
            let Some(room) = rooms.get_mut(&new.lane) else { continue };
            let superseded = room.put(new);
            added.closed.push((new.dest, superseded.len() as u64));
            gone.extend(superseded.into_iter().map(|old| (old, new.id)));
            if !room.claimed {
                // Whoever waits for its next work must be told that this may come sooner.
                added.woken.push(new.dest);
            }
        }
        self.write_rooms(&rooms, &gone, now);
        Ok(new.iter().map(|new| Written { new, by: gone.get(&new.id).copied() }).collect())
    }

    fn write_rooms(&mut self, rooms: &BTreeMap<LaneId, Room>, gone: &BTreeMap<i64, i64>, now: Time) {
        let put: Vec<(&NewDelivery, Option<i64>)> =
            rooms.values().filter_map(|room| Some((room.newest.as_ref()?, room.due))).collect();
        if !gone.is_empty() {
            let (old, by): (Vec<i64>, Vec<i64>) = gone.iter().unzip();
            self.stage(Staged::new(SUPERSEDE).with(old).with(by).with(now.0));
        }
        let put = Staged::new(PUT)
            .with(column(&put, |put| put.0.lane.0))
            .with(column(&put, |put| put.0.dest.0))
            .with(column(&put, |put| put.1))
            .with(column(&put, |put| put.0.id))
            .with(column(&put, |put| small(put.0.kind.code())))
            .with(column(&put, |put| put.0.rollout.map(|rollout| rollout.0)));
        self.stage(put);
    }

    pub(super) fn give_up(&mut self, deliveries: &[i64], reason: &str, now: Time) -> Result<Vec<(DestId, u64)>> {
        // What is in flight is left alone: nobody claims the others while they are locked.
        let lock = "SELECT id FROM lane WHERE owner IS NULL
             AND id IN (SELECT lane FROM delivery WHERE id = ANY($1) AND state = 0) ORDER BY kind = 0, id FOR UPDATE";
        let ids: Vec<i64> = self.query(lock, &[&deliveries])?.iter().map(|row| row.get(0)).collect();
        let kill = "UPDATE delivery SET state = 3, settled = $3, answer = $4
             WHERE id = ANY($1) AND state = 0 AND lane = ANY($2) RETURNING dest";
        let idle = "UPDATE lane SET due = NULL WHERE id = ANY($1)
             AND NOT EXISTS(SELECT 1 FROM delivery d WHERE d.lane = lane.id AND d.state = 0)";
        let rows = self.pipeline(&[step(kill, [&deliveries, &ids, &now.0, &reason]), step(idle, [&ids])])?;
        let mut killed: HashMap<DestId, u64> = HashMap::new();
        for row in &rows[0] {
            *killed.entry(DestId(row.get(0))).or_default() += 1;
        }
        Ok(killed.into_iter().collect())
    }
}

/// Kinds of lanes in which the newest wins.
pub(super) fn is_state(kind: i16) -> bool {
    kind != small(DeliveryKind::Event.code())
}

#[cfg(test)]
mod tests {
    use belfry_core::Seq;

    use super::*;

    fn new(id: i64, due: i64) -> NewDelivery {
        NewDelivery {
            id,
            lane: LaneId(1),
            kind: DeliveryKind::Rollout,
            cause: Seq(id),
            rollout: None,
            object: 1,
            route: 1,
            dest: DestId(1),
            due: Time(due),
        }
    }

    #[test]
    fn the_newest_wins_and_a_back_off_stays() {
        let mut room = Room::default();
        assert_eq!((room.put(&new(1, 50)), room.due), (vec![], Some(50)));
        assert_eq!((room.put(&new(2, 40)), room.due), (vec![1], Some(40)));
        assert_eq!((room.put(&new(3, 60)), room.due), (vec![2], Some(40)));
        let mut tried = Room { due: Some(90), waiting: vec![(1, 2)], ..Room::default() };
        assert_eq!((tried.put(&new(2, 10)), tried.due), (vec![1], Some(90)));
        // That was the back-off of what is superseded; what came since was never tried, and still doesn't hurry.
        let mut flying = Room { due: Some(5), claimed: true, first: Some(1), waiting: vec![(1, 2)], newest: None };
        assert_eq!((flying.put(&new(2, 10)), flying.due), (vec![], Some(5)));
        assert_eq!((flying.put(&new(3, 10)), flying.due), (vec![2], Some(5)));
    }
}
