//! Reading events: which index leads to those that are wanted, and what their rows say.

use std::collections::{BTreeSet, HashSet};

use belfry_core::{
    Seq,
    plan::{Change, Origin},
    rollout::Hints,
};
use bytes::Bytes;
use rusqlite::{Connection, Row};

use super::{
    append::{origin_code, origin_from},
    query::{object_ids, page_size},
    read::{SqliteReader, all},
    walk::{self, FEW, MANY, Pager, Span, TRIAL, Way},
};
use crate::{
    engine::Result,
    queries::{EventQuery, EventRow, Page},
    rev,
};

/// Bytes of bodies after which a page of events ends.
const PAGE_BYTES: usize = 4 << 20;
/// The same for those who read on in the order of arrival: each of them keeps a page until its reader has taken it.
const TAIL_BYTES: usize = 256 << 10;
/// Numbers of revisions that one question stands for at most: more only by malice.
const REVISIONS: usize = 1_000;

const EVENT: &str =
    "SELECT seq, object, origin, severity, reason, revision, change, repeats, body, hints, rev FROM event";

/// Ways to events: statements for a merge. The first two lead to what is indexed only.
const BY_OBJECT: &str = "SELECT seq FROM event_object
    WHERE object = ?1 AND seq > ?2 AND seq < min(?3, (SELECT upto + 1 FROM indexed)) ORDER BY seq {} LIMIT ?4";
const BY_REVISION: &str = "SELECT seq FROM event_rev
    WHERE rev = ?1 AND seq > ?2 AND seq < min(?3, (SELECT upto + 1 FROM indexed)) ORDER BY seq {} LIMIT ?4";
const BY_OBJECT_FAILURES: &str = "SELECT seq FROM event INDEXED BY event_object_error
    WHERE severity = 'error' AND object = ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq {} LIMIT ?4";
const BY_FAILURE: &str = "SELECT seq FROM event INDEXED BY event_error
    WHERE severity = 'error' AND ?1 AND seq > ?2 AND seq < ?3 ORDER BY seq {} LIMIT ?4";
const BY_REASON: &str = "SELECT seq FROM event INDEXED BY event_reason
    WHERE reason NOT IN ('Progressing', 'ReconciliationSucceeded') AND reason = ?1 AND seq > ?2 AND seq < ?3
    ORDER BY seq {} LIMIT ?4";
/// The end of the log, which isn't indexed yet.
const END: &str = "SELECT seq, object, rev FROM event INDEXED BY event_recent
    WHERE seq > max(?1, (SELECT upto FROM indexed)) AND seq < ?2 ORDER BY seq";

/// What is wanted of an event.
struct Wanted<'q> {
    query: &'q EventQuery,
    objects: Option<HashSet<i64>>,
    /// Numbers of the revision.
    revs: Option<HashSet<i64>>,
    /// The revision, if its number isn't all that is asked for.
    revision: Option<&'q str>,
}

impl SqliteReader {
    pub(super) fn find_events(&self, connection: &Connection, query: &EventQuery) -> Result<Page<EventRow>> {
        let objects = object_ids(connection, &query.object)?;
        let revs = query.revision.as_deref().map(|revision| revs(connection, revision)).transpose()?;
        let nothing = |ids: &Option<Vec<i64>>| ids.as_ref().is_some_and(Vec::is_empty);
        if nothing(&objects) || nothing(&revs) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        let span = span(query);
        let ways = ways(connection, query, span, objects.as_deref(), revs.as_deref())?;
        let exact = query.revision.as_deref().filter(|revision| rev::without_digest(revision) != *revision);
        let wanted = Wanted {
            query,
            objects: objects.map(HashSet::from_iter),
            revs: revs.map(HashSet::from_iter),
            revision: exact,
        };
        let most_bytes = if query.after.is_some() { TAIL_BYTES } else { PAGE_BYTES };
        let page = Pager::new(page_size(query.limit), most_bytes);
        walk::fill(connection, (EVENT, "seq"), ways, span, page, |row| {
            if !wanted.takes(row)? {
                return Ok(None);
            }
            let event = self.event_row(connection, row)?;
            let bytes = event.body.len();
            Ok(Some((event, bytes)))
        })
    }

    pub(super) fn find_event(&self, connection: &Connection, seq: Seq) -> Result<Option<EventRow>> {
        let mut statement = connection.prepare_cached(&format!("{EVENT} WHERE seq = ?1"))?;
        let mut rows = statement.query([seq.0])?;
        rows.next()?.map(|row| self.event_row(connection, row)).transpose()
    }

    fn event_row(&self, connection: &Connection, row: &Row<'_>) -> Result<EventRow> {
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

impl Wanted<'_> {
    /// Reads as little of the row as it takes.
    fn takes(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let text = |column: usize, wanted: Option<&str>| {
            wanted.map_or(Ok(true), |wanted| row.get_ref(column).map(|is| is.as_str().is_ok_and(|is| is == wanted)))
        };
        let among = |column: usize, wanted: &Option<HashSet<i64>>| match wanted {
            None => Ok(true),
            Some(wanted) => row.get::<_, Option<i64>>(column).map(|is| is.is_some_and(|is| wanted.contains(&is))),
        };
        Ok((self.query.observations || row.get::<_, i64>(2)? != origin_code(Origin::Observed))
            && among(1, &self.objects)?
            && text(3, self.query.severity.as_deref())?
            && text(4, self.query.reason.as_deref())?
            && text(5, self.revision)?
            && among(10, &self.revs)?)
    }
}

/// The ways to what a query asks for, of which the last leads to the end.
fn ways(
    connection: &Connection,
    query: &EventQuery,
    span: Span,
    objects: Option<&[i64]>,
    revs: Option<&[i64]>,
) -> Result<Vec<Way>> {
    let fails = query.severity.as_deref() == Some("error");
    let few = objects.filter(|ids| ids.len() <= FEW);
    let rare = query.reason.as_deref().filter(|reason| !matches!(*reason, "Progressing" | "ReconciliationSucceeded"));
    Ok(match (few, revs, rare, objects) {
        (Some(few), ..) if fails => vec![Way::keys(BY_OBJECT_FAILURES, few)],
        (Some(few), ..) => {
            let end = end(connection, span, |object, _| few.contains(&object))?;
            both(span, Way::keys(BY_OBJECT, few), end).into()
        }
        (_, Some(revs), ..) => {
            let end = end(connection, span, |_, rev| rev.is_some_and(|rev| revs.binary_search(&rev).is_ok()))?;
            both(span, Way::keys(BY_REVISION, revs), end).into()
        }
        (_, _, Some(reason), _) => vec![Way::Keys(BY_REASON, vec![reason.to_owned().into()])],
        (.., Some(objects)) if objects.len() <= MANY && fails => {
            vec![Way::Log(TRIAL), Way::keys(BY_OBJECT_FAILURES, objects)]
        }
        (.., Some(objects)) if objects.len() <= MANY => {
            let among: HashSet<i64> = objects.iter().copied().collect();
            let [first, then] =
                both(span, Way::keys(BY_OBJECT, objects), end(connection, span, |object, _| among.contains(&object))?);
            vec![Way::Log(TRIAL), first, then]
        }
        _ if fails => vec![Way::keys(BY_FAILURE, &[1])],
        _ => vec![Way::Log(usize::MAX)],
    })
}

/// What an index leads to, and what at the end of the log it doesn't lead to yet.
fn both(span: Span, indexed: Way, end: Way) -> [Way; 2] {
    if span.ascending { [indexed, end] } else { [end, indexed] }
}

/// Events at the end of the log, by their objects and revisions.
fn end(connection: &Connection, span: Span, wanted: impl Fn(i64, Option<i64>) -> bool) -> Result<Way> {
    let mut statement = connection.prepare_cached(&format!("{END} {}", span.order()))?;
    let mut rows = statement.query([span.after, span.before])?;
    let mut numbers = Vec::new();
    while let Some(row) = rows.next()? {
        if wanted(row.get(1)?, row.get(2)?) {
            numbers.push(row.get(0)?);
        }
    }
    Ok(Way::Numbers(numbers))
}

fn span(query: &EventQuery) -> Span {
    let since = query.since.map_or(i64::MIN, |since| since.0.saturating_sub(1));
    let after = query.after.map_or(i64::MIN, |after| after.0);
    let until = query.until.map_or(i64::MAX, |until| until.0);
    let cursor = query.cursor.unwrap_or(i64::MAX);
    Span { after: since.max(after), before: until.min(cursor), ascending: query.after.is_some() }
}

/// The numbers in the log of all revisions that a question may mean. Events of an artifact that names its origin go by that:
/// its digest leads there by its rollouts.
fn revs(connection: &Connection, revision: &str) -> Result<Vec<i64>> {
    let range = rev::range(revision);
    let (first, last) = (*range.start(), *range.end());
    let sql = "SELECT DISTINCT rev FROM rollout WHERE digest BETWEEN ?1 AND ?2 LIMIT ?3";
    let of = [first, last, REVISIONS as i64];
    let mut found: BTreeSet<i64> = all(connection, sql, of, |row| row.get(0))?.into_iter().collect();
    let end = "SELECT DISTINCT rev FROM event INDEXED BY event_recent
         WHERE seq > (SELECT upto FROM indexed) AND rev BETWEEN ?1 AND ?2 LIMIT ?3";
    found.extend(all(connection, end, of, |row| row.get::<_, i64>(0))?);
    let mut next = connection.prepare_cached("SELECT min(rev) FROM event_rev WHERE rev BETWEEN ?1 AND ?2")?;
    let mut from = first;
    while found.len() < REVISIONS {
        let Some(rev) = next.query_row([from, last], |row| row.get::<_, Option<i64>>(0))? else { break };
        found.insert(rev);
        from = rev.saturating_add(1);
    }
    Ok(found.into_iter().collect())
}
