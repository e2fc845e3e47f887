//! Writing: transactions and new rows.

use std::{collections::HashSet, sync::Arc};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    plan::{Change, ObjectState, Origin},
};
use rusqlite::{OptionalExtension, params};

use super::{Last, SqliteWriter, deferred::Deferred, state};
use crate::{
    RedeliverError,
    engine::{Added, Appends, Begun, EngineError, Flusher, Load, ObjectRow, Prunable, Result, Settled, Writer},
    queries::DeliveryKind,
    types::{DestId, LaneId, Redelivered, Settlement},
};

pub(super) fn origin_code(origin: Origin) -> i64 {
    match origin {
        Origin::Recorder => 0,
        Origin::Forwarded => 1,
        Origin::Observed => 2,
    }
}

pub(super) fn origin_from(code: i64) -> Origin {
    match code {
        1 => Origin::Forwarded,
        2 => Origin::Observed,
        _ => Origin::Recorder,
    }
}

impl Writer for SqliteWriter {
    fn begin(&mut self, _tail: Seq, _load: Load) -> Result<Begun> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.next = self.last;
        if self.deferred.is_none() {
            self.deferred = Some(Deferred::load(&self.connection)?);
        }
        let Last { seq, delivery } = self.last;
        Ok(Begun { locked: true, seq, delivery, others: Vec::new(), touched: Some(Vec::new()) })
    }

    fn objects(&mut self, keys: &[&ObjectKey]) -> Result<Vec<ObjectRow>> {
        let mut find = self.connection.prepare_cached(
            "SELECT id, state FROM object WHERE name = ?1 AND namespace = ?2 AND kind = ?3 AND api_group = ?4 AND cluster = ?5",
        )?;
        let mut add = self.connection.prepare_cached(
            "INSERT INTO object(name, namespace, kind, api_group, cluster) VALUES(?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let params = params![key.name, key.namespace, key.kind, key.group, key.cluster];
            let known = find.query_row(params, |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?))).optional()?;
            rows.push(match known {
                Some((id, state)) => ObjectRow { id, state: Arc::new(read_state(id, state)) },
                None => ObjectRow { id: add.insert(params)?, state: Arc::default() },
            });
        }
        Ok(rows)
    }

    fn states(&mut self, objects: &[i64]) -> Result<Vec<Arc<ObjectState>>> {
        let mut find = self.connection.prepare_cached("SELECT state FROM object WHERE id = ?1")?;
        let state = |id: &i64| Ok(Arc::new(read_state(*id, find.query_row([id], |row| row.get(0))?)));
        objects.iter().map(state).collect()
    }

    fn configs(&mut self, keys: &[&ConfigKey]) -> Result<Vec<i64>> {
        let mut find =
            self.connection.prepare_cached("SELECT id FROM config WHERE kind = ?1 AND namespace = ?2 AND name = ?3")?;
        let mut add = self.connection.prepare_cached("INSERT INTO config(kind, namespace, name) VALUES(?1, ?2, ?3)")?;
        let mut ids = Vec::with_capacity(keys.len());
        for key in keys {
            let params = params![key.kind.as_str(), &*key.namespace, &*key.name];
            ids.push(match find.query_row(params, |row| row.get(0)).optional()? {
                Some(id) => id,
                None => add.insert(params)?,
            });
        }
        Ok(ids)
    }

    fn sent(&mut self, ids: &[(u64, &str)]) -> Result<Vec<Option<Seq>>> {
        let mut find = self.connection.prepare_cached(
            "SELECT max(e.seq) FROM event e INDEXED BY event_ident JOIN object o ON o.id = e.object
             WHERE e.ident = ?1 AND o.cluster = ?2",
        )?;
        let mut find = |(id, cluster): &(u64, &str)| {
            find.query_row(params![id.cast_signed(), cluster], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Seq)))
        };
        Ok(ids.iter().map(&mut find).collect::<rusqlite::Result<_>>()?)
    }

    fn waiting(&mut self, lanes: &[LaneId]) -> Result<HashSet<LaneId>> {
        let mut waits = self
            .connection
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM delivery WHERE lane = ?1 AND state = 0 AND id > ?2)")?;
        let mut waiting = HashSet::new();
        for lane in lanes {
            // What is older than the one in flight gives way to it.
            let first = self.flight.first(*lane).unwrap_or(i64::MIN);
            if waits.query_row([lane.0, first], |row| row.get(0))? {
                waiting.insert(*lane);
            }
        }
        Ok(waiting)
    }

    fn append(&mut self, appends: &Appends<'_>, now: Time) -> Result<Added> {
        self.add_events(appends)?;
        self.write_rollouts(&appends.rollouts)?;
        let mut added = Added::default();
        self.add_deliveries(appends, now, &mut added)?;
        self.add_hooks(&appends.hooks)?;
        if let Some(deferred) = &mut self.deferred {
            deferred.gather_events(&appends.events);
        }
        Ok(added)
    }

    fn settle(&mut self, settlement: &Settlement, now: Time) -> Result<Settled> {
        self.write_settlement(settlement, now)
    }

    fn release(&mut self, lane: LaneId) -> Result<Option<DestId>> {
        self.freed.push(lane);
        Ok(self.flight.dest(lane))
    }

    fn wake(&mut self, dest: DestId, now: Time) -> Result<()> {
        self.flight.wake(dest);
        self.connection
            .prepare_cached("UPDATE lane SET due = ?2 WHERE dest = ?1 AND due > ?2")?
            .execute([dest.0, now.0])?;
        Ok(())
    }

    fn redeliver(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<(Redelivered, u64), RedeliverError>> {
        self.write_again(delivery, id, now)
    }

    fn config(&mut self, present: &[(ConfigKey, String)], now: Time) -> Result<()> {
        self.write_config(present, now)
    }

    fn forget(&mut self, config: i64) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE config SET body = NULL WHERE id = ?1 AND absent IS NOT NULL")?
            .execute([config])?;
        Ok(())
    }

    fn kill(&mut self, deliveries: &[i64], reason: &str, now: Time) -> Result<Vec<(DestId, u64)>> {
        self.give_up(deliveries, reason, now)
    }

    fn prune(&mut self, events: &[Seq], which: Prunable) -> Result<u64> {
        self.remove_events(events, which)
    }

    fn prune_lanes(&mut self, lanes: &[LaneId], before: Time) -> Result<u64> {
        let mut remove =
            self.connection.prepare_cached("DELETE FROM lane WHERE id = ?1 AND due IS NULL AND tail < ?2")?;
        let mut count = 0;
        for lane in lanes {
            count += remove.execute([lane.0, before.0])?;
        }
        Ok(count as u64)
    }

    fn prune_rollouts(&mut self, rollouts: &[Seq]) -> Result<u64> {
        self.remove_rollouts(rollouts)
    }

    fn prune_hooks(&mut self, before: Seq) -> Result<u64> {
        self.remove_hooks(before)
    }

    fn commit(&mut self) -> Result<()> {
        if let Some(deferred) = &mut self.deferred {
            deferred.advance(&self.connection)?;
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.last = self.next;
        if let Some(deferred) = &mut self.deferred {
            deferred.committed(self.last.seq);
        }
        self.checkpoints.committed();
        self.flight.free(self.freed.drain(..).chain(self.held.drain(..)));
        if let Err(error) = self.checkpoints.finish(&self.connection) {
            // It is committed all the same.
            tracing::warn!(%error, "the write-ahead log can't be copied into the database");
        }
        Ok(())
    }

    fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction can't be rolled back");
        }
        self.deferred = None;
        self.freed.clear();
        self.flight.free(self.held.drain(..));
    }

    fn vacuum(&mut self) -> Result<()> {
        let mut statement = self.connection.prepare_cached("PRAGMA incremental_vacuum(256)")?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        self.checkpoints.committed();
        Ok(())
    }

    fn flusher(&mut self) -> Result<Option<Box<dyn Flusher>>> {
        Ok(Some(Box::new(self.open_flusher()?)))
    }

    fn probe(&mut self) -> Result<()> {
        self.rollback();
        self.end_doubt()?;
        // As large as a batch of some events, lest it fits where they don't.
        self.connection.execute_batch(
            "BEGIN IMMEDIATE; INSERT OR REPLACE INTO meta VALUES('probe', zeroblob(65536)); COMMIT;
             DELETE FROM meta WHERE name = 'probe'",
        )?;
        Ok(())
    }

    fn close(&mut self) {
        self.rollback();
        let checkpointed = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = checkpointed {
            tracing::warn!(%error, "the write-ahead log stays until the next start");
        }
    }
}

impl SqliteWriter {
    fn add_events(&mut self, appends: &Appends<'_>) -> Result<()> {
        let mut event = self.connection.prepare_cached(
            "INSERT INTO event(seq, object, origin, dedupe, body_hash, severity, reason, revision, change, body, rev, hints,
                 ident, via)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?;
        for new in &appends.events {
            event.execute(params![
                new.seq.0,
                new.object,
                origin_code(new.origin),
                new.dedupe.cast_signed(),
                new.body_hash.cast_signed(),
                new.severity,
                new.reason,
                new.revision,
                new.change.map(Change::code),
                new.body,
                new.rev,
                new.hints.code(),
                new.sent.map(|sent| sent.identity.cast_signed()),
                new.sent.map(|sent| sent.via.join(" ")),
            ])?;
            self.next.seq = self.next.seq.max(new.seq);
        }
        let mut state = self.connection.prepare_cached("UPDATE object SET state = ?2 WHERE id = ?1")?;
        for (object, new) in &appends.states {
            let text = serde_json::to_string(&**new).map_err(|error| EngineError::Data(error.to_string()))?;
            state.execute(params![object, text])?;
        }
        let mut repeat = self.connection.prepare_cached("UPDATE event SET repeats = repeats + 1 WHERE seq = ?1")?;
        for seq in &appends.repeats {
            repeat.execute([seq.0])?;
        }
        Ok(())
    }

    fn add_deliveries(&mut self, appends: &Appends<'_>, now: Time, added: &mut Added) -> Result<()> {
        // Not one statement: its RETURNING would have SQLite open a table of its own for each row.
        let mut lane = self.connection.prepare_cached("SELECT due FROM lane WHERE id = ?1")?;
        let mut add_lane =
            self.connection.prepare_cached("INSERT INTO lane(id, dest, due, tail) VALUES(?1, ?2, ?3, ?4)")?;
        let mut move_lane =
            self.connection.prepare_cached("UPDATE lane SET tail = ?2, due = COALESCE(due, ?3) WHERE id = ?1")?;
        let mut delivery = self.connection.prepare_cached(
            "INSERT INTO delivery(id, lane, event, object, route, dest, kind, rollout)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for new in &appends.deliveries {
            let due = match new.kind {
                // Due now, though it was decided on a little later than the batch began.
                DeliveryKind::Event => {
                    let due = new.due.0.min(now.0);
                    let known = lane.query_row([new.lane.0], |row| row.get::<_, Option<i64>>(0)).optional()?;
                    match known {
                        None => add_lane.execute([new.lane.0, new.dest.0, due, new.id])?,
                        Some(_) => move_lane.execute([new.lane.0, new.id, due])?,
                    };
                    known.flatten().unwrap_or(due)
                }
                DeliveryKind::Rollout | DeliveryKind::Trigger => {
                    let closed = state::make_room(&self.connection, &self.flight, &mut self.held, new, now)?;
                    added.closed.push((new.dest, closed));
                    // Whoever waits for its next work must be told that this may come sooner.
                    now.0
                }
            };
            let place = (new.id, new.lane.0, new.cause.0, new.object, new.route, new.dest.0);
            let (id, lane, cause, object, route, dest) = place;
            let rollout = new.rollout.map(|rollout| rollout.0);
            delivery.execute(params![id, lane, cause, object, route, dest, new.kind.code(), rollout])?;
            self.next.delivery = new.id;
            // What was decided later than this batch was begun is due all the same.
            if due <= now.max(new.due).0 && !self.flight.is_claimed(new.lane) {
                added.woken.push(new.dest);
            }
        }
        Ok(())
    }
}

pub(super) fn read_state(object: i64, state: Option<String>) -> ObjectState {
    let Some(state) = state else { return ObjectState::default() };
    serde_json::from_str(&state).unwrap_or_else(|error| {
        tracing::error!(object, %error, "the state of an object can't be read: starting anew");
        ObjectState::default()
    })
}
