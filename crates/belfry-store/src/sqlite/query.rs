//! Reading: what people ask about.

use belfry_core::{
    Seq, Time, limits,
    plan::{Change, Origin},
    rollout::Hints,
};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};
use std::time::Duration;

use super::{
    append::{origin_code, origin_from},
    read::SqliteReader,
};
use crate::{
    engine::Result,
    queries::{
        AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, EventQuery, EventRow, ObjectFilter, Page,
    },
    rev,
    types::{AttemptOutcome, LaneId},
};

/// Bytes of bodies after which a page of events ends.
const PAGE_BYTES: usize = 4 << 20;
/// The same for those who read on in the order of arrival: each of them keeps a page until its reader has taken it.
const TAIL_BYTES: usize = 256 << 10;

const DELIVERY: &str = "SELECT d.id, d.state, d.lane, d.dest, d.route, d.object, d.event, COALESCE(e.severity, ''),
    COALESCE(e.reason, h.event, ''), COALESCE(r.revision, e.revision), d.attempts, l.due, d.answer, d.settled, d.kind,
    d.rollout FROM delivery d";
const EVENT: &str = "SELECT seq, object, origin, severity, reason, revision, change, repeats, body, hints FROM event";

/// Conditions and their parameters, in order.
#[derive(Default)]
pub(super) struct Where {
    terms: Vec<String>,
    pub values: Vec<Value>,
}

impl Where {
    pub fn push(&mut self, term: impl Into<String>, values: impl IntoIterator<Item = Value>) {
        self.terms.push(term.into());
        self.values.extend(values);
    }

    fn since_until(&mut self, column: &str, since: Option<Time>, until: Option<Time>, cursor: Option<i64>) {
        if let Some(since) = since {
            self.push(format!("{column} >= ?"), [since.0.into()]);
        }
        if let Some(until) = until {
            self.push(format!("{column} < ?"), [until.0.into()]);
        }
        if let Some(cursor) = cursor {
            self.push(format!("{column} < ?"), [cursor.into()]);
        }
    }

    fn config(&mut self, column: &str, kind: &str, namespace: Option<&String>, name: Option<&String>) {
        let named = [("namespace", namespace), ("name", name)];
        self.select(column, "config", &[("kind", Some(&kind.to_owned()))], &named);
    }

    pub fn objects(&mut self, column: &str, filter: &ObjectFilter) {
        self.select(column, "object", &[], &object_fields(filter));
    }

    /// Of the table of objects itself.
    pub fn object_fields(&mut self, filter: &ObjectFilter) {
        for (field, value) in object_fields(filter) {
            if let Some(value) = value {
                self.push(format!("{field} = ?"), [value.clone().into()]);
            }
        }
    }

    /// `column IN (SELECT id FROM table WHERE …)`, if any of `named` is given.
    fn select(
        &mut self,
        column: &str,
        table: &str,
        fixed: &[(&str, Option<&String>)],
        named: &[(&str, Option<&String>)],
    ) {
        if named.iter().all(|(_, value)| value.is_none()) {
            return;
        }
        let given = fixed.iter().chain(named).filter_map(|(field, value)| value.map(|value| (field, value.clone())));
        let (terms, values): (Vec<_>, Vec<_>) =
            given.map(|(field, value)| (format!("{field} = ?"), Value::from(value))).unzip();
        self.push(format!("{column} IN (SELECT id FROM {table} WHERE {})", terms.join(" AND ")), values);
    }

    pub fn sql(&self) -> String {
        if self.terms.is_empty() { String::new() } else { format!(" WHERE {}", self.terms.join(" AND ")) }
    }
}

fn object_fields(filter: &ObjectFilter) -> [(&'static str, Option<&String>); 5] {
    [
        ("name", filter.name.as_ref()),
        ("namespace", filter.namespace.as_ref()),
        ("kind", filter.kind.as_ref()),
        ("cluster", filter.cluster.as_ref()),
        ("api_group", filter.group.as_ref()),
    ]
}

pub(super) fn page_size(limit: u32) -> usize {
    (if limit == 0 { limits::PAGE } else { limit.min(limits::PAGE) }) as usize
}

impl SqliteReader {
    pub(super) fn find_deliveries(&self, connection: &Connection, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        let mut filter = Where::default();
        if let Some(id) = query.id {
            filter.push("d.id = ?", [id.into()]);
        }
        if let Some(event) = query.event {
            filter.push("d.event = ?", [event.0.into()]);
        }
        if let Some(rollout) = query.rollout {
            filter.push("d.rollout = ?", [rollout.0.into()]);
        }
        if let Some(kind) = query.kind {
            filter.push("d.kind = ?", [kind.code().into()]);
        }
        filter.since_until("d.id", query.since, query.until, query.cursor);
        filter.config("d.dest", "Provider", query.provider_namespace.as_ref(), query.provider.as_ref());
        filter.config("d.route", "Alert", query.alert_namespace.as_ref(), query.alert.as_ref());
        filter.objects("d.object", &query.object);
        if query.object.name.is_some() {
            // One object's events are few: by their index rather than through everything.
            let mut events = Where::default();
            events.objects("object", &query.object);
            let sql = format!("d.event IN (SELECT seq FROM event{} UNION ALL SELECT seq FROM hook)", events.sql());
            filter.push(sql, events.values);
        }
        let selective =
            query.id.is_some() || query.event.is_some() || query.rollout.is_some() || query.object.name.is_some();
        let index = match query.states[..] {
            [DeliveryState::Pending] if !selective => " INDEXED BY delivery_pending",
            [DeliveryState::Dead] if !selective => " INDEXED BY delivery_dead",
            _ => "",
        };
        match query.states[..] {
            [] => {}
            // As a literal, which is how an index knows that it has these.
            [state] => filter.push(format!("d.state = {}", state.code()), []),
            _ => {
                let codes: Vec<String> = query.states.iter().map(|state| state.code().to_string()).collect();
                filter.push(format!("d.state IN ({})", codes.join(", ")), []);
            }
        }
        let limit = page_size(query.limit);
        // Which ones first, then what they say: most of what is looked at isn't shown.
        let sql = format!(
            "{DELIVERY} LEFT JOIN event e ON e.seq = d.event LEFT JOIN hook h ON h.seq = d.event
             LEFT JOIN rollout r ON r.id = d.rollout LEFT JOIN lane l ON l.id = d.lane AND d.state = 0
             WHERE d.id IN (SELECT d.id FROM delivery d{index}{} ORDER BY d.id DESC LIMIT {}) ORDER BY d.id DESC",
            filter.sql(),
            limit + 1
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(filter.values))?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            items.push(DeliveryRow {
                id,
                created: Time(id),
                state: DeliveryState::from_code(row.get(1)?).unwrap_or(DeliveryState::Dead),
                lane: LaneId(row.get(2)?),
                provider: self.config(connection, row.get(3)?)?,
                route: self.config(connection, row.get(4)?)?,
                kind: DeliveryKind::from_code(row.get(14)?).unwrap_or(DeliveryKind::Event),
                rollout: row.get::<_, Option<i64>>(15)?.map(Seq),
                object: self.object(connection, row.get(5)?)?,
                event: Seq(row.get(6)?),
                severity: row.get(7)?,
                reason: row.get(8)?,
                revision: row.get(9)?,
                attempts: row.get(10)?,
                next_attempt: row.get::<_, Option<i64>>(11)?.map(Time),
                answer: row.get(12)?,
                settled: row.get::<_, Option<i64>>(13)?.map(Time),
            });
        }
        let more = items.len() > limit;
        items.truncate(limit);
        Ok(Page { next: items.last().filter(|_| more).map(|row| row.id), items })
    }

    pub(super) fn find_attempts(connection: &Connection, delivery: i64) -> Result<Vec<AttemptRow>> {
        let mut statement = connection
            .prepare_cached("SELECT n, at, took, status, outcome, error FROM attempt WHERE delivery = ?1 ORDER BY n")?;
        let mut rows = statement.query([delivery])?;
        let mut attempts = Vec::new();
        while let Some(row) = rows.next()? {
            attempts.push(AttemptRow {
                n: row.get(0)?,
                at: Time(row.get(1)?),
                took: Some(Duration::from_micros(row.get::<_, i64>(2)?.unsigned_abs())),
                status: row.get(3)?,
                outcome: AttemptOutcome::from_code(row.get(4)?).unwrap_or(AttemptOutcome::Rejected),
                error: row.get(5)?,
            });
        }
        if attempts.is_empty() {
            let first: Option<i64> = connection
                .prepare_cached("SELECT settled FROM delivery WHERE id = ?1 AND state = 1 AND attempts = 1")?
                .query_row([delivery], |row| row.get(0))
                .optional()?;
            attempts.extend(first.map(|settled| AttemptRow {
                n: 1,
                at: Time(settled),
                took: None,
                status: None,
                outcome: AttemptOutcome::Delivered,
                error: String::new(),
            }));
        }
        Ok(attempts)
    }

    pub(super) fn find_events(&self, connection: &Connection, query: &EventQuery) -> Result<Page<EventRow>> {
        let mut filter = Where::default();
        filter.since_until("seq", query.since, query.until, query.cursor);
        if !query.object.is_empty() {
            filter.objects("object", &query.object);
        }
        if let Some(severity) = &query.severity {
            filter.push("severity = ?", [severity.clone().into()]);
        }
        if let Some(reason) = &query.reason {
            filter.push("reason = ?", [reason.clone().into()]);
        }
        if let Some(revision) = &query.revision {
            let range = rev::range(revision);
            let (first, last) = (*range.start(), *range.end());
            // Those of an artifact that names its origin go by that: its digest leads there by its rollouts. Which ones
            // first, from the index alone, then what they say: a page must not read the bodies of all.
            filter.push(
                "seq IN (SELECT seq FROM event WHERE rev BETWEEN ? AND ? UNION ALL
                     SELECT e.seq FROM rollout r JOIN event e ON e.rev = r.rev WHERE r.digest BETWEEN ? AND ?)",
                [first, last, first, last].map(Into::into),
            );
            if rev::without_digest(revision) != revision {
                filter.push("revision = ?", [revision.clone().into()]);
            }
        }
        if !query.observations {
            filter.push(format!("origin <> {}", origin_code(Origin::Observed)), []);
        }
        let (order, most_bytes) = match query.after {
            Some(after) => {
                filter.push("seq > ?", [after.0.into()]);
                ("ASC", TAIL_BYTES)
            }
            None => ("DESC", PAGE_BYTES),
        };
        let limit = page_size(query.limit);
        let sql = format!("{EVENT}{} ORDER BY seq {order} LIMIT {}", filter.sql(), limit + 1);
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(filter.values))?;
        let (mut items, mut bytes, mut more) = (Vec::new(), 0, false);
        while let Some(row) = rows.next()? {
            more = items.len() == limit || bytes >= most_bytes;
            if more {
                break;
            }
            let event = self.event_row(connection, row)?;
            bytes += event.body.len();
            items.push(event);
        }
        Ok(Page { next: items.last().filter(|_| more).map(|row: &EventRow| row.seq.0), items })
    }

    pub(super) fn find_event(&self, connection: &Connection, seq: Seq) -> Result<Option<EventRow>> {
        let mut statement = connection.prepare_cached(&format!("{EVENT} WHERE seq = ?1"))?;
        let mut rows = statement.query([seq.0])?;
        Ok(match rows.next()? {
            Some(row) => Some(self.event_row(connection, row)?),
            None => None,
        })
    }

    fn event_row(&self, connection: &Connection, row: &rusqlite::Row<'_>) -> Result<EventRow> {
        Ok(EventRow {
            seq: Seq(row.get(0)?),
            object: self.object(connection, row.get(1)?)?,
            origin: origin_from(row.get(2)?),
            severity: row.get(3)?,
            reason: row.get(4)?,
            revision: row.get(5)?,
            change: row.get::<_, Option<i64>>(6)?.and_then(Change::from_code),
            repeats: row.get::<_, i64>(7)?.unsigned_abs(),
            body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
            hints: Hints::from_code(row.get(9)?),
        })
    }
}
