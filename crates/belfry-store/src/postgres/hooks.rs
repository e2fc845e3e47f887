//! Webhooks: writing them down, and reading what is kept.

use std::collections::BTreeMap;

use belfry_core::{ConfigKey, Seq, Time, limits};

use super::{
    append::{column, small},
    filter::page_size,
    link::{Link, Staged},
    read::PgReader,
    transaction::PgWriter,
};
use crate::{
    engine::{NewHook, RememberedHook, Result},
    hooks::{HookRow, HookVerdict},
};

const ADD: &str = "INSERT INTO hook(seq, receiver, refused, at, delivery_id, verdict, reason, event, bytes, resources, merged)
    SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::BOOL[], $4::INT8[], $5::TEXT[], $6::INT2[], $7::TEXT[], $8::TEXT[], $9::INT8[],
        $10::INT8[], $11::INT8[])";
/// Keeps the latest of a Receiver. Those that it refused are counted by themselves, so that a stranger can't push out the
/// others; and those whose delivery id is still to be remembered stay.
const REMOVE_OLD: &str =
    "WITH old AS (SELECT h.seq FROM unnest($1::INT8[], $2::BOOL[], $3::INT8[]) t(receiver, refused, before) JOIN hook h
            ON h.receiver = t.receiver AND h.refused = t.refused AND h.seq < t.before
        WHERE h.seq < (SELECT seq FROM hook k WHERE k.receiver = t.receiver AND k.refused = t.refused
            ORDER BY seq DESC LIMIT 1 OFFSET $4)
        AND NOT EXISTS(SELECT 1 FROM delivery d WHERE d.event = h.seq AND d.state = 0)),
    gone AS (DELETE FROM delivery WHERE event = ANY(ARRAY(SELECT seq FROM old)) RETURNING id),
    tried AS (DELETE FROM attempt WHERE delivery IN (SELECT id FROM gone))
    DELETE FROM hook WHERE seq = ANY(ARRAY(SELECT seq FROM old))";
const REMOVE: &str = "WITH gone AS (DELETE FROM delivery WHERE event = ANY($1) RETURNING id),
    tried AS (DELETE FROM attempt WHERE delivery IN (SELECT id FROM gone))
    DELETE FROM hook WHERE seq = ANY($1)";

impl PgWriter {
    pub(super) fn add_hooks(&mut self, hooks: &[NewHook<'_>]) {
        if hooks.is_empty() {
            return;
        }
        let is_refused = |new: &NewHook<'_>| new.verdict == HookVerdict::Refused;
        let added = Staged::new(ADD)
            .with(column(hooks, |new| new.seq.0))
            .with(column(hooks, |new| new.receiver))
            .with(column(hooks, is_refused))
            .with(column(hooks, |new| new.hook.at.0))
            .with(column(hooks, |new| new.hook.delivery_id.clone()))
            .with(column(hooks, |new| small(new.verdict.code())))
            .with(column(hooks, |new| new.reason.clone().into_owned()))
            .with(column(hooks, |new| new.hook.event.clone()))
            .with(column(hooks, |new| i64::try_from(new.hook.bytes).unwrap_or(i64::MAX)))
            .with(column(hooks, |new| new.hook.triggers.len() as i64))
            .with(column(hooks, |new| i64::from(new.merged)));
        self.stage(added);
        let mut touched = BTreeMap::new();
        for new in hooks {
            let forgotten = new.seq.time().before(limits::HOOK_REPEAT).0;
            touched.insert((new.receiver, is_refused(new)), if is_refused(new) { new.seq.0 } else { forgotten });
            self.head.seq = self.head.seq.max(new.seq.0);
        }
        let touched: Vec<_> = touched.into_iter().collect();
        let removed = Staged::new(REMOVE_OLD)
            .with(column(&touched, |of| of.0.0))
            .with(column(&touched, |of| of.0.1))
            .with(column(&touched, |of| of.1))
            .with(i64::from(limits::HOOKS_KEPT) - 1);
        self.stage(removed);
    }

    pub(super) fn remove_hooks(&mut self, before: Seq) -> Result<u64> {
        let sql = "SELECT seq FROM hook WHERE seq < $1
             AND NOT EXISTS(SELECT 1 FROM delivery d WHERE d.event = hook.seq AND d.state = 0)";
        let old: Vec<i64> = self.query(sql, &[&before.0])?.iter().map(|row| row.get(0)).collect();
        if !old.is_empty() {
            self.query(REMOVE, &[&old])?;
        }
        Ok(old.len() as u64)
    }
}

impl PgReader {
    pub(super) fn find_recent_hooks(link: &mut Link, after: Seq, limit: usize) -> Result<Vec<RememberedHook>> {
        let sql = "SELECT seq, receiver, delivery_id FROM hook
             WHERE seq > $1 AND delivery_id IS NOT NULL AND verdict IN (1, 2) ORDER BY seq DESC LIMIT $2";
        let rows = link.query(sql, &[&after.0, &i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let remembered = rows.iter().rev().map(|row| RememberedHook {
            seq: Seq(row.get(0)),
            receiver: row.get(1),
            delivery_id: row.get(2),
        });
        Ok(remembered.collect())
    }

    pub(super) fn find_hooks(&self, link: &mut Link, receiver: Option<&ConfigKey>, limit: u32) -> Result<Vec<HookRow>> {
        let columns =
            "SELECT seq, receiver, at, delivery_id, verdict, reason, event, bytes, resources, merged FROM hook";
        let limit = page_size(limit) as i64;
        let rows = match receiver {
            Some(key) => {
                let of_one = "receiver = (SELECT id FROM config WHERE kind = $2 AND namespace = $3 AND name = $4)";
                let sql = format!("{columns} WHERE {of_one} ORDER BY seq DESC LIMIT $1");
                link.query(&sql, &[&limit, &key.kind.as_str(), &&*key.namespace, &&*key.name])?
            }
            None => link.query(&format!("{columns} ORDER BY seq DESC LIMIT $1"), &[&limit])?,
        };
        let known = self.names.look_up(link, rows.iter().map(|row| row.get(1)), [])?;
        let number = |row: &tokio_postgres::Row, column| row.get::<_, i64>(column).unsigned_abs();
        let hook = |row: &tokio_postgres::Row| {
            Ok(HookRow {
                seq: Seq(row.get(0)),
                receiver: known.config(row.get(1))?,
                at: Time(row.get(2)),
                delivery_id: row.get(3),
                verdict: HookVerdict::from_code(row.get::<_, i16>(4).into()).unwrap_or(HookVerdict::Refused),
                reason: row.get(5),
                event: row.get(6),
                bytes: number(row, 7),
                resources: number(row, 8).try_into().unwrap_or(u32::MAX),
                merged: number(row, 9).try_into().unwrap_or(u32::MAX),
            })
        };
        rows.iter().map(hook).collect()
    }
}
