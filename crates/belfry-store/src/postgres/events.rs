//! Reading events: which index leads to those that are wanted, and what their rows say.

use belfry_core::{
    Seq,
    plan::{Change, Origin},
    rollout::Hints,
};
use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    append::{origin_code, origin_from},
    filter::{Where, objects, page_size, text},
    link::Link,
    partition::DAY,
    read::PgReader,
    walk::{FEW, MANY, Search, Span, TRIAL, Way},
};
use crate::{
    engine::Result,
    queries::{EventQuery, EventRow, Page},
    rev,
};

/// Bytes of bodies after which a page of events ends.
const PAGE_BYTES: i64 = 4 << 20;
/// The same of a tail of the log.
const TAIL_BYTES: i64 = 256 << 10;

/// Microseconds.
const WEEK: i64 = 7 * DAY;

const EVENT: &str = "SELECT seq, object, origin, severity, reason, revision, change, repeats, body, hints FROM event";

impl PgReader {
    pub(super) fn find_events(&self, link: &mut Link, query: &EventQuery) -> Result<Page<EventRow>> {
        let ids = objects(link, &query.object)?;
        if ids.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let search = search(link, query, ids.as_deref())?;
        let span = span(link, query)?;
        let limit = page_size(query.limit);
        let found = search.first(link, span, limit + 1)?;
        let most_bytes = if query.after.is_some() { TAIL_BYTES } else { PAGE_BYTES };
        // Bodies only of as many as make a page; one more row says that there are more.
        let sql = format!(
            "SELECT seq, object, origin, severity, reason, revision, change, repeats,
                 CASE WHEN n <= {limit} AND before < {most_bytes} THEN body END, hints
             FROM (SELECT e.*, s.n, sum(octet_length(body)) OVER (ORDER BY s.n) - octet_length(body) AS before
                 FROM unnest($1::INT8[]) WITH ORDINALITY s(seq, n)
                 CROSS JOIN LATERAL ({EVENT} WHERE event.seq = s.seq AND event.seq BETWEEN $2 AND $3 LIMIT 1) e) page ORDER BY n"
        );
        // Between these, so that no other partition is opened.
        let (first, last) = (found.numbers.iter().min(), found.numbers.iter().max());
        let mut rows = link.query(&sql, &[&found.numbers, &first, &last])?;
        let shown = rows.iter().take_while(|row| row.get::<_, Option<&[u8]>>(8).is_some()).count();
        let more = rows.len() > shown;
        rows.truncate(shown);
        let items = self.event_rows(link, &rows)?;
        let next = if more { items.last().map(|row| row.seq.0) } else { found.at };
        Ok(Page { next, items })
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

/// What is asked, and the ways to it.
fn search(link: &mut Link, query: &EventQuery, ids: Option<&[i64]>) -> Result<Search> {
    let mut filter = Where::default();
    let by_object = ids.map(|ids| filter.bind_among("object", ids));
    let by_revision = query.revision.as_deref().map(|revision| of_revision(link, revision, &mut filter)).transpose()?;
    let reason = query.reason.as_deref().map(|reason| filter.bind("reason = ?", [text(reason)]));
    let fails = query.severity.as_deref() == Some("error");
    let rare =
        query.reason.as_deref().is_some_and(|reason| !matches!(reason, "Progressing" | "ReconciliationSucceeded"));
    let failing = |keys: &str| if fails { format!("severity = 'error' AND {keys}") } else { keys.to_owned() };
    let among = ids.map_or(0, <[i64]>::len);
    let ways = match (&by_object, &by_revision, &reason) {
        (Some(objects), ..) if among <= FEW => vec![Way::Keys(failing(&objects.keys()))],
        (_, Some(revision), _) => vec![Way::Keys(revision.clone())],
        (.., Some(reason)) if rare => {
            let known = "reason NOT IN ('Progressing', 'ReconciliationSucceeded')";
            vec![Way::Keys(format!("{known} AND {reason}"))]
        }
        (Some(objects), ..) if among <= MANY && fails => vec![Way::Keys(failing(&objects.keys()))],
        (Some(objects), ..) if among <= MANY => vec![Way::Log(TRIAL), Way::Keys(objects.keys())],
        _ if fails => vec![Way::Keys("severity = 'error'".to_owned())],
        _ => vec![Way::Log(i64::MAX)],
    };
    for term in [by_object.map(|objects| objects.rows()), by_revision, reason].into_iter().flatten() {
        filter.push(&term, []);
    }
    if let Some(severity) = &query.severity {
        filter.push("severity = ?", [text(severity)]);
    }
    if let Some(revision) = query.revision.as_deref().filter(|revision| rev::without_digest(revision) != *revision) {
        filter.push("revision = ?", [text(revision)]);
    }
    if !query.observations {
        filter.push(&format!("origin <> {}", origin_code(Origin::Observed)), []);
    }
    let columns = "object, origin, severity, reason, revision, rev";
    Ok(Search { table: "event", number: "seq", columns, filter, ways })
}

/// A condition for all revisions that a question may mean. Events of an artifact that names its origin go by that: its digest
/// leads there by its rollouts.
fn of_revision(link: &mut Link, revision: &str, filter: &mut Where) -> Result<String> {
    let range = rev::range(revision);
    let (first, last) = (*range.start(), *range.end());
    let sql = "SELECT DISTINCT rev FROM rollout WHERE digest BETWEEN $1 AND $2 LIMIT 1000";
    let mut others: Vec<i64> = link.query(sql, &[&first, &last])?.iter().map(|row| row.get(0)).collect();
    Ok(match (first == last, others.is_empty()) {
        (true, _) => {
            others.push(first);
            filter.bind_among("rev", &others).keys()
        }
        (false, true) => filter.bind("rev BETWEEN ? AND ?", [Box::new(first), Box::new(last)]),
        (false, false) => {
            let (first, last, others) = (Box::new(first), Box::new(last), Box::new(others));
            filter.bind("(rev BETWEEN ? AND ? OR rev = ANY(?))", [first, last, others])
        }
    })
}

fn span(link: &mut Link, query: &EventQuery) -> Result<Span> {
    let since = query.since.map_or(i64::MIN, |since| since.0.saturating_sub(1));
    let mut after = query.after.map_or(since, |after| after.0.max(since));
    let until = query.until.map_or(i64::MAX, |until| until.0);
    let mut before = until.min(query.cursor.unwrap_or(i64::MAX));
    let ascending = query.after.is_some();
    // Where there is something: or days would be looked through in which there is nothing. Who follows what comes is there.
    if !ascending {
        let rows = link.query("SELECT event FROM head", &[])?;
        before = rows.first().map_or(before, |row| before.min(row.get::<_, i64>(0) + 1));
    } else if before.saturating_sub(after) > WEEK {
        let rows = link.query("SELECT min(seq) FROM event", &[])?;
        after = rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).map_or(after, |first| after.max(first - 1));
    }
    Ok(Span { after, before, ascending })
}
