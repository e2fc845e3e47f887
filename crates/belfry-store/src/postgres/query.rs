//! Reading: what people ask about.

use std::time::Duration;

use belfry_core::{
    Seq, Time,
    plan::{Change, Origin},
    rollout::Hints,
};
use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    append::{origin_code, origin_from},
    filter::{Where, configs, objects, page_size, text},
    link::Link,
    names::Known,
    read::PgReader,
};
use crate::{
    engine::Result,
    queries::{AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, EventQuery, EventRow, Page},
    rev,
    types::{AttemptOutcome, LaneId},
};

/// Bytes of bodies after which a page of events ends.
const PAGE_BYTES: i64 = 4 << 20;
/// The same of a tail of the log.
const TAIL_BYTES: i64 = 256 << 10;

const DELIVERY: &str = "SELECT d.id, d.state, d.lane, d.dest, d.route, d.object, d.event, COALESCE(e.severity, ''),
    COALESCE(e.reason, h.event, ''), COALESCE(r.revision, e.revision), d.attempts, l.due, d.answer, d.settled, d.kind, d.rollout";
const EVENT: &str = "SELECT seq, object, origin, severity, reason, revision, change, repeats, body, hints FROM event";

impl PgReader {
    pub(super) fn find_deliveries(&self, link: &mut Link, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        let mut filter = Where::default();
        filter.is("d.id", query.id);
        filter.is("d.event", query.event.map(|event| event.0));
        filter.is("d.rollout", query.rollout.map(|rollout| rollout.0));
        filter.since_until("d.id", query.since, query.until, query.cursor);
        let of = configs(link, "Provider", query.provider_namespace.as_ref(), query.provider.as_ref())?;
        filter.among("d.dest", of.as_deref());
        let of = configs(link, "Alert", query.alert_namespace.as_ref(), query.alert.as_ref())?;
        filter.among("d.route", of.as_deref());
        let of = objects(link, &query.object)?;
        filter.among("d.object", of.as_deref());
        if let Some(ids) = of.filter(|_| query.object.name.is_some()) {
            // One object's events are few: by their index rather than through everything.
            let events =
                "d.event = ANY(ARRAY(SELECT seq FROM event WHERE object = ANY(?) UNION ALL SELECT seq FROM hook))";
            filter.push(events, [Box::new(ids)]);
        }
        if let Some(kind) = query.kind {
            filter.push(&format!("d.kind = {}", kind.code()), []);
        }
        if !query.states.is_empty() {
            // As literals, which is how an index knows that it has these.
            let codes: Vec<String> = query.states.iter().map(|state| state.code().to_string()).collect();
            filter.push(&format!("d.state IN ({})", codes.join(", ")), []);
        }
        let limit = page_size(query.limit);
        // Which ones first, then what they say: most of what is looked at isn't shown.
        let sql = format!(
            "{DELIVERY} FROM (SELECT * FROM delivery d{} ORDER BY d.id DESC LIMIT {}) d
             LEFT JOIN event e ON e.seq = d.event LEFT JOIN hook h ON h.seq = d.event
             LEFT JOIN rollout r ON r.id = d.rollout LEFT JOIN lane l ON l.id = d.lane AND d.state = 0 ORDER BY d.id DESC",
            filter.sql(),
            limit + 1
        );
        let mut rows = link.query_once(&sql, &filter.params())?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let configs = rows.iter().flat_map(|row| [row.get(3), row.get(4)]);
        let known = self.names.look_up(link, configs, rows.iter().map(|row| row.get(5)))?;
        let items: Vec<DeliveryRow> = rows.iter().map(|row| delivery_row(row, &known)).collect::<Result<_>>()?;
        Ok(Page { next: items.last().filter(|_| more).map(|row| row.id), items })
    }

    pub(super) fn find_attempts(link: &mut Link, delivery: i64) -> Result<Vec<AttemptRow>> {
        let sql = "SELECT n, at, took, status, outcome, error FROM attempt WHERE delivery = $1 ORDER BY n";
        let rows = link.query(sql, &[&delivery])?;
        let attempt = |row: &Row| AttemptRow {
            n: row.get::<_, i64>(0).try_into().unwrap_or(u32::MAX),
            at: Time(row.get(1)),
            took: Some(Duration::from_micros(row.get::<_, i64>(2).unsigned_abs())),
            status: row.get::<_, Option<i32>>(3).and_then(|status| status.try_into().ok()),
            outcome: AttemptOutcome::from_code(row.get::<_, i16>(4).into()).unwrap_or(AttemptOutcome::Rejected),
            error: row.get(5),
        };
        let mut attempts: Vec<AttemptRow> = rows.iter().map(attempt).collect();
        if attempts.is_empty() {
            let sql = "SELECT settled FROM delivery WHERE id = $1 AND state = 1 AND attempts = 1";
            attempts.extend(link.query(sql, &[&delivery])?.first().map(|row| AttemptRow {
                n: 1,
                at: Time(row.get(0)),
                took: None,
                status: None,
                outcome: AttemptOutcome::Delivered,
                error: String::new(),
            }));
        }
        Ok(attempts)
    }

    pub(super) fn find_events(&self, link: &mut Link, query: &EventQuery) -> Result<Page<EventRow>> {
        let mut filter = Where::default();
        filter.since_until("seq", query.since, query.until, query.cursor);
        filter.among("object", objects(link, &query.object)?.as_deref());
        if let Some(severity) = &query.severity {
            filter.push("severity = ?", [text(severity)]);
        }
        if let Some(reason) = &query.reason {
            filter.push("reason = ?", [text(reason)]);
        }
        if let Some(revision) = &query.revision {
            let range = rev::range(revision);
            let (first, last) = (*range.start(), *range.end());
            // Those of an artifact that names its origin go by that: its digest leads there by its rollouts.
            filter.push(
                "seq = ANY(ARRAY(SELECT seq FROM event WHERE rev BETWEEN ? AND ? UNION ALL
                     SELECT e.seq FROM rollout r JOIN event e ON e.rev = r.rev WHERE r.digest BETWEEN ? AND ?))",
                [Box::new(first), Box::new(last), Box::new(first), Box::new(last)],
            );
            if rev::without_digest(revision) != revision {
                filter.push("revision = ?", [text(revision)]);
            }
        }
        if !query.observations {
            filter.push(&format!("origin <> {}", origin_code(Origin::Observed)), []);
        }
        let (order, most_bytes) = match query.after {
            Some(after) => {
                filter.push("seq > ?", [Box::new(after.0)]);
                ("ASC", TAIL_BYTES)
            }
            None => ("DESC", PAGE_BYTES),
        };
        let limit = page_size(query.limit);
        // Bodies only of as many as make a page; one more row says that there are more.
        let sql = format!(
            "SELECT seq, object, origin, severity, reason, revision, change, repeats,
                 CASE WHEN n <= {limit} AND before < {most_bytes} THEN body END, hints
             FROM (SELECT *, row_number() OVER first AS n, sum(octet_length(body)) OVER first - octet_length(body) AS before
                 FROM ({EVENT}{} ORDER BY seq {order} LIMIT {}) found WINDOW first AS (ORDER BY seq {order} ROWS UNBOUNDED PRECEDING)) page
             ORDER BY seq {order}",
            filter.sql(),
            limit + 1
        );
        let mut rows = link.query_once(&sql, &filter.params())?;
        let shown = rows.iter().take_while(|row| row.get::<_, Option<&[u8]>>(8).is_some()).count();
        let more = rows.len() > shown;
        rows.truncate(shown);
        let items = self.event_rows(link, &rows)?;
        Ok(Page { next: items.last().filter(|_| more).map(|row| row.seq.0), items })
    }

    pub(super) fn find_event(&self, link: &mut Link, seq: Seq) -> Result<Option<EventRow>> {
        let rows = link.query(&format!("{EVENT} WHERE seq = $1"), &[&seq.0])?;
        Ok(self.event_rows(link, &rows)?.pop())
    }

    fn event_rows(&self, link: &mut Link, rows: &[Row]) -> Result<Vec<EventRow>> {
        let known = self.names.look_up(link, [], rows.iter().map(|row| row.get(1)))?;
        let event = |row: &Row| {
            Ok(EventRow {
                seq: Seq(row.get(0)),
                object: known.object(row.get(1))?,
                origin: origin_from(row.get(2)),
                severity: row.get(3),
                reason: row.get(4),
                revision: row.get(5),
                change: row.get::<_, Option<i16>>(6).and_then(|code| Change::from_code(code.into())),
                repeats: row.get::<_, i64>(7).unsigned_abs(),
                body: Bytes::from(row.get::<_, Vec<u8>>(8)),
                hints: Hints::from_code(row.get::<_, Option<i16>>(9).map(i64::from)),
            })
        };
        rows.iter().map(event).collect()
    }
}

fn delivery_row(row: &Row, known: &Known) -> Result<DeliveryRow> {
    let id = row.get(0);
    Ok(DeliveryRow {
        id,
        created: Time(id),
        state: DeliveryState::from_code(row.get::<_, i16>(1).into()).unwrap_or(DeliveryState::Dead),
        lane: LaneId(row.get(2)),
        provider: known.config(row.get(3))?,
        route: known.config(row.get(4))?,
        kind: DeliveryKind::from_code(row.get::<_, i16>(14).into()).unwrap_or(DeliveryKind::Event),
        rollout: row.get::<_, Option<i64>>(15).map(Seq),
        object: known.object(row.get(5))?,
        event: Seq(row.get(6)),
        severity: row.get(7),
        reason: row.get(8),
        revision: row.get(9),
        attempts: row.get::<_, i64>(10).try_into().unwrap_or(u32::MAX),
        next_attempt: row.get::<_, Option<i64>>(11).map(Time),
        answer: row.get(12),
        settled: row.get::<_, Option<i64>>(13).map(Time),
    })
}
