//! Reading: what people ask about.

use belfry_core::{Seq, Time, limits};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter, types::Value};
use std::{collections::HashSet, time::Duration};

use super::{
    read::{SqliteReader, all},
    walk::{self, FEW, MANY, Pager, Span, Way},
};
use crate::{
    engine::Result,
    queries::{AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, ObjectFilter, Page},
    types::{AttemptOutcome, LaneId},
};

const DELIVERY: &str = "SELECT d.id, d.state, d.lane, d.dest, d.route, d.object, d.event, COALESCE(e.severity, ''),
    COALESCE(e.reason, h.event, ''), COALESCE(r.revision, e.revision), d.attempts, l.due, d.answer, d.settled, d.kind,
    d.rollout FROM delivery d LEFT JOIN event e ON e.seq = d.event LEFT JOIN hook h ON h.seq = d.event
    LEFT JOIN rollout r ON r.id = d.rollout LEFT JOIN lane l ON l.id = d.lane AND d.state = 0 WHERE d.id = ?1";

/// Ways to deliveries: statements for a merge, and two for all that there are.
const BY_EVENT: &str = "SELECT id FROM delivery INDEXED BY delivery_event
    WHERE event = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
const BY_ROLLOUT: &str = "SELECT id FROM delivery INDEXED BY delivery_rollout
    WHERE rollout = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
const BY_DEST: &str = "SELECT id FROM delivery INDEXED BY delivery_dest
    WHERE dest = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
const BY_DEST_DEAD: &str = "SELECT id FROM delivery INDEXED BY delivery_dead
    WHERE state = 3 AND dest = ?1 AND id > ?2 AND id < ?3 ORDER BY id {} LIMIT ?4";
/// One object's events are few, and so is what waits: all of it, rather than through everything.
const OF_OBJECTS: &str = "SELECT id FROM delivery WHERE id < ?2 AND event IN (
        SELECT seq FROM event_object WHERE object IN (SELECT value FROM json_each(?1))
        UNION ALL SELECT seq FROM event INDEXED BY event_recent
            WHERE seq > (SELECT upto FROM indexed) AND object IN (SELECT value FROM json_each(?1))
        UNION ALL SELECT seq FROM hook)
    ORDER BY id DESC LIMIT ?3";
const WAITING: &str =
    "SELECT id FROM delivery INDEXED BY delivery_pending WHERE state = 0 AND id < ?1 ORDER BY id DESC LIMIT ?2";

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

    /// Of the table of objects itself.
    pub fn object_fields(&mut self, filter: &ObjectFilter) {
        for (field, value) in object_fields(filter) {
            if let Some(value) = value {
                self.push(format!("{field} = ?"), [value.clone().into()]);
            }
        }
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

/// The numbers of objects, if something is asked of them.
pub(super) fn object_ids(connection: &Connection, filter: &ObjectFilter) -> Result<Option<Vec<i64>>> {
    if filter.is_empty() {
        return Ok(None);
    }
    let mut fields = Where::default();
    fields.object_fields(filter);
    let mut statement = connection.prepare_cached(&format!("SELECT id FROM object{}", fields.sql()))?;
    let ids = statement.query_map(params_from_iter(fields.values), |row| row.get(0))?;
    Ok(Some(ids.collect::<rusqlite::Result<_>>()?))
}

/// The numbers of configuration objects of a kind, if something is asked of them.
fn config_ids(
    connection: &Connection,
    kind: &str,
    namespace: Option<&String>,
    name: Option<&String>,
) -> Result<Option<Vec<i64>>> {
    if namespace.is_none() && name.is_none() {
        return Ok(None);
    }
    let sql = "SELECT id FROM config WHERE kind = ?1 AND (?2 IS NULL OR namespace = ?2) AND (?3 IS NULL OR name = ?3)";
    all(connection, sql, (kind, namespace, name), |row| row.get(0)).map(Some)
}

/// The ways to what a query asks for.
fn ways(
    connection: &Connection,
    query: &DeliveryQuery,
    dests: Option<&[i64]>,
    objects: Option<&[i64]>,
    span: Span,
) -> Result<Vec<Way>> {
    let most = walk::LOOKS as i64 + 1;
    let dead = query.states == [DeliveryState::Dead];
    Ok(vec![match (query.id, query.event, query.rollout, objects, dests) {
        (Some(id), ..) => Way::Numbers(vec![id]),
        (_, Some(event), ..) => Way::keys(BY_EVENT, &[event.0]),
        (_, _, Some(rollout), ..) => Way::keys(BY_ROLLOUT, &[rollout.0]),
        (.., Some(objects), _) if objects.len() <= FEW => {
            let of = (serde_json::json!(objects).to_string(), span.before, most);
            Way::Numbers(all(connection, OF_OBJECTS, of, |row| row.get(0))?)
        }
        (.., Some(dests)) if dests.len() <= MANY => Way::keys(if dead { BY_DEST_DEAD } else { BY_DEST }, dests),
        _ if dead => {
            let sql = "SELECT id FROM config WHERE kind IN ('Provider', 'Cluster')";
            let dests: Vec<i64> = all(connection, sql, [], |row| row.get(0))?;
            Way::keys(BY_DEST_DEAD, &dests)
        }
        _ if query.states == [DeliveryState::Pending] => {
            Way::Numbers(all(connection, WAITING, [span.before, most], |row| row.get(0))?)
        }
        _ => Way::Log(usize::MAX),
    }])
}

pub(super) fn page_size(limit: u32) -> usize {
    (if limit == 0 { limits::PAGE } else { limit.min(limits::PAGE) }) as usize
}

impl SqliteReader {
    pub(super) fn find_deliveries(&self, connection: &Connection, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        let since = query.since.map_or(i64::MIN, |since| since.0.saturating_sub(1));
        let until = query.until.map_or(i64::MAX, |until| until.0);
        let span = Span { after: since, before: until.min(query.cursor.unwrap_or(i64::MAX)), ascending: false };
        let configs = |kind, namespace, name| config_ids(connection, kind, namespace, name);
        let dests = configs("Provider", query.provider_namespace.as_ref(), query.provider.as_ref())?;
        let routes = configs("Alert", query.alert_namespace.as_ref(), query.alert.as_ref())?;
        let objects = object_ids(connection, &query.object)?;
        let ways = ways(connection, query, dests.as_deref(), objects.as_deref(), span)?;
        let set = |ids: Option<Vec<i64>>| ids.map(HashSet::<i64>::from_iter);
        let (dests, routes, objects) = (set(dests), set(routes), set(objects));
        let states: Vec<i64> = query.states.iter().map(|state| state.code()).collect();
        let wanted = |row: &Row<'_>| -> rusqlite::Result<bool> {
            let among = |column: usize, of: &Option<HashSet<i64>>| match of {
                None => Ok(true),
                Some(of) => row.get(column).map(|id| of.contains(&id)),
            };
            let is = |column: usize, wanted: Option<i64>| match wanted {
                None => Ok(true),
                wanted => row.get::<_, Option<i64>>(column).map(|is| is == wanted),
            };
            Ok((states.is_empty() || states.contains(&row.get(1)?))
                && among(2, &dests)?
                && among(3, &routes)?
                && among(4, &objects)?
                && is(5, query.kind.map(DeliveryKind::code))?
                && is(6, query.event.map(|event| event.0))?
                && is(7, query.rollout.map(|rollout| rollout.0))?)
        };
        let page = Pager::new(page_size(query.limit), usize::MAX);
        let select = "SELECT id, state, dest, route, object, kind, event, rollout FROM delivery";
        let mut whole = connection.prepare_cached(DELIVERY)?;
        walk::fill(connection, (select, "id"), ways, span, page, |row| {
            if !wanted(row)? {
                return Ok(None);
            }
            let mut rows = whole.query([row.get::<_, i64>(0)?])?;
            rows.next()?.map(|row| Ok((self.delivery_row(connection, row)?, 0))).transpose()
        })
    }

    fn delivery_row(&self, connection: &Connection, row: &Row<'_>) -> Result<DeliveryRow> {
        let id = row.get(0)?;
        Ok(DeliveryRow {
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
        })
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
}
