//! Writing: outcomes, and deliveries made again.

use std::sync::Arc;

use belfry_core::{ConfigKey, Time};
use rusqlite::{OptionalExtension, params};

use super::SqliteWriter;
use crate::{
    RedeliverError,
    engine::{Result, Settled},
    queries::DeliveryState,
    types::{AttemptRecord, DestId, Finish, LaneId, Redelivered, RowResult, RowState, Settlement},
};

impl SqliteWriter {
    pub(super) fn write_settlement(&mut self, settlement: &Settlement, now: Time) -> Result<Settled> {
        let mut settled = Settled::default();
        for result in &settlement.results {
            settled.closed += self.write_result(result, now)?;
        }
        if !settlement.results.is_empty() {
            self.flight.attempted(settlement.lane);
        }
        if let Some(finish) = &settlement.finish {
            settled.left = self.finish(settlement.lane, settlement.dest, finish, now)?;
            self.freed.push(settlement.lane);
        }
        Ok(settled)
    }

    /// Only what is pending changes; says how many deliveries wait no longer.
    fn write_result(&self, result: &RowResult, now: Time) -> Result<u64> {
        let (state, answer) = match &result.state {
            RowState::Delivered => (DeliveryState::Delivered, None),
            RowState::Skipped(why) => (DeliveryState::Delivered, Some(why)),
            RowState::Superseded(why) => (DeliveryState::Superseded, Some(why)),
            RowState::Dead(why) => (DeliveryState::Dead, Some(why)),
            RowState::Retry => (DeliveryState::Pending, result.attempt.as_ref().map(|attempt| &attempt.error)),
        };
        let closes = state != DeliveryState::Pending;
        let attempts = result.attempt.as_ref().map_or(0, |attempt| attempt.n);
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE delivery SET state = ?2, attempts = max(attempts, ?3), settled = ?4,
                 answer = CASE WHEN ?2 = 0 THEN COALESCE(?5, answer) ELSE ?5 END WHERE id = ?1 AND state = 0",
            )?
            .execute(params![result.delivery, state.code(), attempts, closes.then_some(now.0), answer])?;
        if changed == 0 {
            return Ok(0);
        }
        if let Some(attempt) = &result.attempt
            && !(attempt.n == 1 && result.state == RowState::Delivered)
        {
            self.write_attempt(result.delivery, attempt)?;
        }
        Ok(u64::from(closes))
    }

    fn write_attempt(&self, delivery: i64, attempt: &AttemptRecord) -> Result<()> {
        let took = i64::try_from(attempt.took.as_micros()).unwrap_or(i64::MAX);
        self.connection.prepare_cached("INSERT OR REPLACE INTO attempt VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
            params![delivery, attempt.n, attempt.at.0, took, attempt.status, attempt.outcome.code(), attempt.error],
        )?;
        Ok(())
    }

    /// Ends a claim; says whether anything is left to do. There is only one writer, so what is pending now decides.
    fn finish(&self, lane: LaneId, dest: DestId, finish: &Finish, now: Time) -> Result<bool> {
        let woken = self.flight.is_woken(lane);
        let due = finish.due.filter(|due| !woken || *due < now).unwrap_or(now);
        let mut own_due = due;
        let mut aside = false;
        if let Some(delivery) = finish.step_aside
            && LaneId::aside(delivery) != lane
        {
            aside = self.step_aside(delivery, lane, dest, due)?;
            own_due = if aside { now } else { due };
        }
        let left = self.is_pending(lane)?;
        self.connection
            .prepare_cached("UPDATE lane SET due = ?2, memo = COALESCE(?3, memo) WHERE id = ?1")?
            .execute(params![lane.0, left.then_some(own_due.0), finish.memo])?;
        Ok(left || aside)
    }

    fn step_aside(&self, delivery: i64, lane: LaneId, dest: DestId, due: Time) -> Result<bool> {
        let aside = LaneId::aside(delivery);
        let moved = self
            .connection
            .prepare_cached("UPDATE delivery SET lane = ?2 WHERE id = ?1 AND state = 0 AND lane = ?3")?
            .execute([delivery, aside.0, lane.0])?;
        if moved > 0 {
            self.connection
                .prepare_cached(
                    "INSERT INTO lane(id, dest, due, tail) VALUES(?1, ?2, ?3, ?4)
                     ON CONFLICT(id) DO UPDATE SET due = excluded.due",
                )?
                .execute([aside.0, dest.0, due.0, delivery])?;
        }
        Ok(moved > 0)
    }

    pub(super) fn is_pending(&self, lane: LaneId) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT EXISTS(SELECT 1 FROM delivery WHERE lane = ?1 AND state = 0)")?;
        Ok(statement.query_row([lane.0], |row| row.get(0))?)
    }

    pub(super) fn write_again(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<Redelivered, RedeliverError>> {
        type Known = (i64, i64, i64, i64, i64, String, String);
        let known: Option<Known> = self
            .connection
            .prepare_cached(
                "SELECT d.state, d.event, d.object, d.route, d.dest, c.namespace, c.name
                 FROM delivery d JOIN config c ON c.id = d.dest WHERE d.id = ?1",
            )?
            .query_row([delivery], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
            })
            .optional()?;
        let Some((state, event, object, route, dest, namespace, name)) = known else {
            return Ok(Err(RedeliverError::Unknown(delivery)));
        };
        if state == DeliveryState::Pending.code() {
            return Ok(Err(RedeliverError::Pending(delivery)));
        }
        let lane = LaneId::of(DestId(dest), object);
        // The tail stays where the newest event left it: what waits there is still the newest.
        self.connection
            .prepare_cached(
                "INSERT INTO lane(id, dest, due, tail) VALUES(?1, ?2, ?3, ?4)
                 ON CONFLICT(id) DO UPDATE SET due = COALESCE(due, excluded.due)",
            )?
            .execute([lane.0, dest, now.0, id])?;
        self.connection
            .prepare_cached(
                "INSERT INTO delivery(id, lane, event, object, route, dest) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute([id, lane.0, event, object, route, dest])?;
        self.next.delivery = id;
        let provider = Arc::new(ConfigKey::provider(&namespace, &name));
        Ok(Ok(Redelivered { delivery: id, dest: DestId(dest), provider }))
    }
}
