//! Writing: what keeps the database small, and which configuration objects there are.

use belfry_core::{ConfigKey, Seq, Time};

use super::{
    append::{ROW, column},
    link::step,
    transaction::PgWriter,
};
use crate::engine::{Prunable, Result};

const PRESENT: &str = "INSERT INTO config(kind, namespace, name, body)
    SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[])
    ON CONFLICT(kind, namespace, name) DO UPDATE SET body = excluded.body, absent = NULL
    WHERE config.body IS DISTINCT FROM excluded.body OR config.absent IS NOT NULL";
const ABSENT: &str = "UPDATE config SET absent = $4 WHERE body IS NOT NULL AND absent IS NULL
    AND (kind, namespace, name) NOT IN (SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]))";
const NEEDED: &str =
    "EXISTS(SELECT 1 FROM delivery d WHERE d.event = old.seq AND (d.state = 0 OR (d.state = 3 AND $2)))";

impl PgWriter {
    pub(super) fn write_config(&mut self, present: &[(ConfigKey, String)], now: Time) -> Result<()> {
        // No two may be the same in one statement.
        let present: std::collections::BTreeMap<(&str, &str, &str), &str> = present
            .iter()
            .map(|(key, body)| ((key.kind.as_str(), &*key.namespace, &*key.name), body.as_str()))
            .collect();
        let present: Vec<_> = present.into_iter().collect();
        let kinds = column(&present, |row| row.0.0);
        let (namespaces, names) = (column(&present, |row| row.0.1), column(&present, |row| row.0.2));
        let bodies = column(&present, |row| row.1);
        let steps = [
            step(PRESENT, [&kinds, &namespaces, &names, &bodies]),
            step(ABSENT, [&kinds, &namespaces, &names, &now.0]),
        ];
        self.pipeline(&steps).map(drop)
    }

    pub(super) fn remove_events(&mut self, events: &[Seq], which: Prunable) -> Result<u64> {
        let seqs = column(events, |seq| seq.0);
        let well = which == Prunable::SettledWell;
        let sql = format!("SELECT old.seq FROM unnest($1::INT8[]) old(seq) WHERE NOT {NEEDED}");
        let unneeded: Vec<i64> = self.query(&sql, &[&seqs, &well])?.iter().map(|row| row.get(0)).collect();
        let deliveries = "WITH gone AS (DELETE FROM delivery WHERE event = ANY($1) RETURNING id)
             DELETE FROM attempt WHERE delivery IN (SELECT id FROM gone)";
        let events = "DELETE FROM event WHERE seq = ANY($1) RETURNING octet_length(body)::INT8";
        let rows = self.pipeline(&[step(deliveries, [&unneeded]), step(events, [&unneeded])])?;
        let bytes: i64 = rows[1].iter().map(|row| ROW + row.get::<_, i64>(0)).sum();
        self.head.bytes = (self.head.bytes - bytes).max(0);
        Ok(rows[1].len() as u64)
    }
}
