//! Writing: what keeps the database small, and which configuration objects there are.

use std::collections::{HashMap, HashSet};

use belfry_core::{ConfigKey, Seq, Time};
use rusqlite::{OptionalExtension, params};

use super::SqliteWriter;
use crate::{
    engine::{Prunable, Result},
    types::{DestId, LaneId},
};

impl SqliteWriter {
    pub(super) fn write_config(&mut self, present: &[(ConfigKey, String)], now: Time) -> Result<()> {
        let mut put = self.connection.prepare_cached(
            "INSERT INTO config(kind, namespace, name, body) VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT(kind, namespace, name) DO UPDATE SET body = excluded.body, absent = NULL
             WHERE body IS NOT excluded.body OR absent IS NOT NULL",
        )?;
        for (key, body) in present {
            put.execute(params![key.kind.as_str(), &*key.namespace, &*key.name, body])?;
        }
        let present: HashSet<(&str, &str, &str)> =
            present.iter().map(|(key, _)| (key.kind.as_str(), &*key.namespace, &*key.name)).collect();
        let mut known = self
            .connection
            .prepare_cached("SELECT id, kind, namespace, name FROM config WHERE body IS NOT NULL AND absent IS NULL")?;
        let mut rows = known.query([])?;
        let mut absent = Vec::new();
        while let Some(row) = rows.next()? {
            let key = (row.get_ref(1)?.as_str(), row.get_ref(2)?.as_str(), row.get_ref(3)?.as_str());
            if let (Ok(kind), Ok(namespace), Ok(name)) = key
                && !present.contains(&(kind, namespace, name))
            {
                absent.push(row.get::<_, i64>(0)?);
            }
        }
        let mut mark = self.connection.prepare_cached("UPDATE config SET absent = ?2 WHERE id = ?1")?;
        for id in absent {
            mark.execute([id, now.0])?;
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, deliveries: &[i64], reason: &str, now: Time) -> Result<Vec<(DestId, u64)>> {
        let mut find = self.connection.prepare_cached("SELECT lane, dest FROM delivery WHERE id = ?1 AND state = 0")?;
        let mut end = self
            .connection
            .prepare_cached("UPDATE delivery SET state = 3, settled = ?2, answer = ?3 WHERE id = ?1 AND state = 0")?;
        let mut killed: HashMap<DestId, u64> = HashMap::new();
        let mut lanes = HashSet::new();
        for delivery in deliveries {
            let place = find.query_row([delivery], |row| Ok((LaneId(row.get(0)?), DestId(row.get(1)?)))).optional()?;
            let Some((lane, dest)) = place else { continue };
            if self.flight.hold(lane, dest).is_err() {
                continue;
            }
            if lanes.insert(lane) {
                self.held.push(lane);
            }
            end.execute(params![delivery, now.0, reason])?;
            *killed.entry(dest).or_default() += 1;
        }
        let mut idle = self.connection.prepare_cached("UPDATE lane SET due = NULL WHERE id = ?1")?;
        for lane in lanes {
            if !self.is_pending(lane)? {
                idle.execute([lane.0])?;
            }
        }
        Ok(killed.into_iter().collect())
    }

    pub(super) fn remove_events(&mut self, events: &[Seq], which: Prunable) -> Result<u64> {
        let mut needed = self.connection.prepare_cached(
            "SELECT EXISTS(SELECT 1 FROM delivery WHERE event = ?1 AND (state = 0 OR (state = 3 AND ?2)))",
        )?;
        let mut attempts = self
            .connection
            .prepare_cached("DELETE FROM attempt WHERE delivery IN (SELECT id FROM delivery WHERE event = ?1)")?;
        let mut deliveries = self.connection.prepare_cached("DELETE FROM delivery WHERE event = ?1")?;
        let mut event = self.connection.prepare_cached("DELETE FROM event WHERE seq = ?1")?;
        let mut removed = Vec::with_capacity(events.len());
        for seq in events {
            if needed.query_row(params![seq.0, which == Prunable::SettledWell], |row| row.get(0))? {
                continue;
            }
            attempts.execute([seq.0])?;
            deliveries.execute([seq.0])?;
            if event.execute([seq.0])? > 0 {
                removed.push(*seq);
            }
        }
        if let Some(deferred) = &mut self.deferred {
            deferred.forget(&removed);
        }
        Ok(removed.len() as u64)
    }
}
