//! Webhooks: writing them down, and reading what is kept.

use belfry_core::{ConfigKey, Seq, Time, limits};
use rusqlite::{Connection, params, params_from_iter};

use super::{
    SqliteWriter,
    query::page_size,
    read::{SqliteReader, all},
};
use crate::{
    engine::{NewHook, RememberedHook, Result},
    hooks::{HookRow, HookVerdict},
};

/// No trigger of this webhook waits.
const IDLE: &str = "NOT EXISTS(SELECT 1 FROM delivery d WHERE d.event = hook.seq AND d.state = 0)";

impl SqliteWriter {
    pub(super) fn add_hooks(&mut self, hooks: &[NewHook<'_>]) -> Result<()> {
        let mut add = self.connection.prepare_cached(
            "INSERT INTO hook(seq, receiver, refused, at, delivery_id, verdict, reason, event, bytes, resources, merged)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let mut touched = std::collections::BTreeMap::new();
        for new in hooks {
            let refused = new.verdict == HookVerdict::Refused;
            add.execute(params![
                new.seq.0,
                new.receiver,
                refused,
                new.hook.at.0,
                new.hook.delivery_id,
                new.verdict.code(),
                new.reason,
                new.hook.event,
                i64::try_from(new.hook.bytes).unwrap_or(i64::MAX),
                new.hook.triggers.len() as i64,
                new.merged,
            ])?;
            touched.insert((new.receiver, refused), new.seq);
            self.next.seq = self.next.seq.max(new.seq);
        }
        for ((receiver, refused), newest) in touched {
            self.trim_hooks(receiver, refused, newest)?;
        }
        Ok(())
    }

    /// Keeps the latest of a Receiver. Those that it refused are counted by themselves, so that a stranger can't push out the
    /// others; and those whose delivery id is still to be remembered stay.
    fn trim_hooks(&self, receiver: i64, refused: bool, newest: Seq) -> Result<()> {
        let before = if refused { newest.0 } else { newest.time().before(limits::HOOK_REPEAT).0 };
        let mut old = self.connection.prepare_cached(&format!(
            "SELECT seq FROM hook WHERE receiver = ?1 AND refused = ?2 AND seq < ?3 AND {IDLE} AND seq <
                 (SELECT seq FROM hook WHERE receiver = ?1 AND refused = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?4)"
        ))?;
        let last = limits::HOOKS_KEPT - 1;
        let old: Vec<i64> = old
            .query_map(params![receiver, refused, before, last], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        self.remove(&old).map(drop)
    }

    pub(super) fn remove_hooks(&mut self, before: Seq) -> Result<u64> {
        let mut old = self.connection.prepare_cached(&format!("SELECT seq FROM hook WHERE seq < ?1 AND {IDLE}"))?;
        let old: Vec<i64> = old.query_map([before.0], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        self.remove(&old)
    }

    fn remove(&self, hooks: &[i64]) -> Result<u64> {
        let mut attempts = self
            .connection
            .prepare_cached("DELETE FROM attempt WHERE delivery IN (SELECT id FROM delivery WHERE event = ?1)")?;
        let mut deliveries = self.connection.prepare_cached("DELETE FROM delivery WHERE event = ?1")?;
        let mut hook = self.connection.prepare_cached("DELETE FROM hook WHERE seq = ?1")?;
        for seq in hooks {
            attempts.execute([seq])?;
            deliveries.execute([seq])?;
            hook.execute([seq])?;
        }
        Ok(hooks.len() as u64)
    }
}

impl SqliteReader {
    pub(super) fn find_recent_hooks(connection: &Connection, after: Seq, limit: usize) -> Result<Vec<RememberedHook>> {
        let genuine = [HookVerdict::Accepted.code(), HookVerdict::Ignored.code()];
        let sql = "SELECT seq, receiver, delivery_id FROM hook
             WHERE seq > ?1 AND delivery_id IS NOT NULL AND verdict IN (?2, ?3) ORDER BY seq DESC LIMIT ?4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut hooks = all(connection, sql, [after.0, genuine[0], genuine[1], limit], |row| {
            Ok(RememberedHook { seq: Seq(row.get(0)?), receiver: row.get(1)?, delivery_id: row.get(2)? })
        })?;
        hooks.reverse();
        Ok(hooks)
    }

    pub(super) fn find_hooks(
        &self,
        connection: &Connection,
        receiver: Option<&ConfigKey>,
        limit: u32,
    ) -> Result<Vec<HookRow>> {
        let of_one = "WHERE receiver IN (SELECT id FROM config WHERE kind = ? AND namespace = ? AND name = ?)";
        let (filter, values) = match receiver {
            Some(key) => (of_one, vec![key.kind.as_str(), &*key.namespace, &*key.name]),
            None => ("", Vec::new()),
        };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT seq, receiver, at, delivery_id, verdict, reason, event, bytes, resources, merged
             FROM hook {filter} ORDER BY seq DESC LIMIT {}",
            page_size(limit)
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut hooks = Vec::new();
        while let Some(row) = rows.next()? {
            hooks.push(HookRow {
                seq: Seq(row.get(0)?),
                receiver: self.config(connection, row.get(1)?)?,
                at: Time(row.get(2)?),
                delivery_id: row.get(3)?,
                verdict: HookVerdict::from_code(row.get(4)?).unwrap_or(HookVerdict::Refused),
                reason: row.get(5)?,
                event: row.get(6)?,
                bytes: row.get::<_, i64>(7)?.unsigned_abs(),
                resources: row.get(8)?,
                merged: row.get(9)?,
            });
        }
        Ok(hooks)
    }
}
