//! Writing: state lanes, in which only the newest delivery counts.

use belfry_core::Time;
use rusqlite::{Connection, params};

use super::flight::Flight;
use crate::{
    engine::{NewDelivery, Result},
    types::LaneId,
};

/// Makes a delivery the newest of its state lane: those that wait there and aren't in flight are superseded. Says how
/// many that are. The lane keeps its time if what waits in it was tried before, so that a new state is no way around a
/// back-off; else it is due when the earliest of them would have been.
pub(super) fn make_room(
    connection: &Connection,
    flight: &Flight,
    held: &mut Vec<LaneId>,
    new: &NewDelivery,
    now: Time,
) -> Result<u64> {
    let mut find = connection.prepare_cached("SELECT id, attempts FROM delivery WHERE lane = ?1 AND state = 0")?;
    let waiting: Vec<(i64, u32)> =
        find.query_map([new.lane.0], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut tried = false;
    let mut closed = 0;
    if !waiting.is_empty() {
        let claimed = match flight.hold(new.lane, new.dest) {
            Ok(()) => {
                held.push(new.lane);
                None
            }
            Err(first) => first,
        };
        for (id, attempts) in waiting.into_iter().filter(|(id, _)| Some(*id) != claimed) {
            closed += supersede(connection, id, new.id, now)?;
            flight.superseded(new.lane, id);
            tried |= attempts > 0;
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO lane(id, dest, due, tail, kind, rollout) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(id) DO UPDATE SET tail = excluded.tail, kind = excluded.kind, rollout = excluded.rollout,
             due = CASE WHEN due IS NULL OR (due > excluded.due AND NOT ?7) THEN excluded.due ELSE due END",
        )?
        .execute(params![
            new.lane.0,
            new.dest.0,
            new.due.0,
            new.id,
            new.kind.code(),
            new.rollout.map(|rollout| rollout.0),
            tried,
        ])?;
    Ok(closed)
}

/// Says how many changed: one, if it was still waiting.
fn supersede(connection: &Connection, id: i64, by: i64, now: Time) -> Result<u64> {
    let changed = connection
        .prepare_cached("UPDATE delivery SET state = 2, settled = ?2, answer = ?3 WHERE id = ?1 AND state = 0")?
        .execute(params![id, now.0, format!("superseded by delivery {by}")])?;
    Ok(changed as u64)
}

/// Supersedes what waits in a finished state lane and isn't its newest. Says how many that are.
pub(super) fn settle_down(connection: &Connection, lane: LaneId, newest: i64, now: Time) -> Result<u64> {
    let mut find = connection.prepare_cached("SELECT id FROM delivery WHERE lane = ?1 AND state = 0 AND id < ?2")?;
    let older: Vec<i64> = find.query_map([lane.0, newest], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    older.into_iter().try_fold(0, |closed, id| Ok(closed + supersede(connection, id, newest, now)?))
}
