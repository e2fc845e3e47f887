//! Writing: outcomes, and deliveries made again.

use std::sync::Arc;

use belfry_core::{Seq, Time};
use rusqlite::{OptionalExtension, params};

use super::{SqliteWriter, read::config_key, state};
use crate::{
    RedeliverError,
    engine::{NewDelivery, Result, Settled},
    queries::{DeliveryKind, DeliveryState},
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
            let (lane, dest) = (settlement.lane, settlement.dest);
            let (kind, tail) = self.kind_and_tail(lane)?;
            if kind != DeliveryKind::Event {
                settled.closed += state::settle_down(&self.connection, lane, tail, now)?;
            }
            settled.left = self.finish(lane, dest, kind, finish, now)?;
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

    fn kind_and_tail(&self, lane: LaneId) -> Result<(DeliveryKind, i64)> {
        let known = self
            .connection
            .prepare_cached("SELECT kind, tail FROM lane WHERE id = ?1")?
            .query_row([lane.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (kind, tail) = known.unwrap_or_default();
        Ok((DeliveryKind::from_code(kind).unwrap_or(DeliveryKind::Event), tail))
    }

    /// Ends a claim; says whether anything is left to do. There is only one writer, so what is pending now decides.
    fn finish(&self, lane: LaneId, dest: DestId, kind: DeliveryKind, finish: &Finish, now: Time) -> Result<bool> {
        let woken = self.flight.is_woken(lane);
        let due = finish.due.filter(|due| !woken || *due < now).unwrap_or(now);
        let mut own_due = due;
        let mut aside = false;
        if let Some(delivery) = finish.step_aside
            && LaneId::aside(delivery) != lane
            && kind == DeliveryKind::Event
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
    ) -> Result<std::result::Result<(Redelivered, u64), RedeliverError>> {
        let known = self
            .connection
            .prepare_cached(
                "SELECT d.state, d.event, d.object, d.route, d.dest, d.kind, d.rollout, d.lane, c.kind, c.namespace, c.name
                 FROM delivery d JOIN config c ON c.id = d.dest WHERE d.id = ?1",
            )?
            .query_row([delivery], |row| {
                let kind = DeliveryKind::from_code(row.get(5)?).unwrap_or(DeliveryKind::Event);
                let new = NewDelivery {
                    id,
                    lane: LaneId(row.get(7)?),
                    kind,
                    cause: Seq(row.get(1)?),
                    rollout: row.get::<_, Option<i64>>(6)?.map(Seq),
                    object: row.get(2)?,
                    route: row.get(3)?,
                    dest: DestId(row.get(4)?),
                    due: now,
                };
                Ok((row.get::<_, i64>(0)?, new, Arc::new(config_key(row, 8)?)))
            })
            .optional()?;
        let Some((state, mut new, provider)) = known else {
            return Ok(Err(RedeliverError::Unknown(delivery)));
        };
        if state == DeliveryState::Pending.code() {
            return Ok(Err(RedeliverError::Pending(delivery)));
        }
        let superseded = if new.kind == DeliveryKind::Event {
            // It may have stepped aside.
            new.lane = LaneId::of(new.dest, new.object);
            // The tail stays where the newest event left it: what waits there is still the newest.
            self.connection
                .prepare_cached(
                    "INSERT INTO lane(id, dest, due, tail) VALUES(?1, ?2, ?3, ?4)
                     ON CONFLICT(id) DO UPDATE SET due = COALESCE(due, excluded.due)",
                )?
                .execute([new.lane.0, new.dest.0, now.0, id])?;
            0
        } else {
            state::make_room(&self.connection, &self.flight, &mut self.held, &new, now)?
        };
        let (place, rollout) = ((new.lane.0, new.cause.0, new.object, new.route), new.rollout.map(|seq| seq.0));
        self.connection
            .prepare_cached(
                "INSERT INTO delivery(id, lane, event, object, route, dest, kind, rollout)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![id, place.0, place.1, place.2, place.3, new.dest.0, new.kind.code(), rollout])?;
        self.next.delivery = id;
        Ok(Ok((Redelivered { delivery: id, dest: new.dest, provider }, superseded)))
    }
}
