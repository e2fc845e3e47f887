//! Reading: what people ask about.

use std::time::Duration;

use belfry_core::{Seq, Time};
use tokio_postgres::Row;

use super::{
    filter::{Where, configs, objects, page_size},
    link::Link,
    names::Known,
    read::PgReader,
    walk::{FEW, Search, Span, Way},
};
use crate::{
    engine::Result,
    queries::{AttemptRow, DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, Page},
    types::{AttemptOutcome, LaneId},
};

/// What is said of deliveries. Each is looked up: the planner would rather read a whole log than look five hundred up.
const DELIVERY: &str = "SELECT d.id, d.state, d.lane, d.dest, d.route, d.object, d.event, COALESCE(e.severity, ''),
    COALESCE(e.reason, h.event, ''), COALESCE(r.revision, e.revision), d.attempts, l.due, d.answer, d.settled, d.kind, d.rollout
    FROM unnest($1::INT8[]) WITH ORDINALITY s(id, n) CROSS JOIN LATERAL (SELECT * FROM delivery WHERE delivery.id = s.id LIMIT 1) d
    LEFT JOIN LATERAL (SELECT severity, reason, revision FROM event WHERE seq = d.event LIMIT 1) e ON TRUE
    LEFT JOIN LATERAL (SELECT event FROM hook WHERE seq = d.event LIMIT 1) h ON TRUE
    LEFT JOIN LATERAL (SELECT revision FROM rollout WHERE rollout.id = d.rollout LIMIT 1) r ON TRUE
    LEFT JOIN LATERAL (SELECT due FROM lane WHERE lane.id = d.lane AND d.state = 0 LIMIT 1) l ON TRUE ORDER BY n";

impl PgReader {
    pub(super) fn find_deliveries(&self, link: &mut Link, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        let search = search(link, query)?;
        let newest =
            link.query("SELECT delivery FROM head", &[])?.first().map_or(i64::MAX, |row| row.get::<_, i64>(0) + 1);
        let since = query.since.map_or(i64::MIN, |since| since.0.saturating_sub(1));
        let until = query.until.map_or(newest, |until| until.0.min(newest));
        let before = query.cursor.map_or(until, |cursor| cursor.min(until));
        let limit = page_size(query.limit);
        let found = search.first(link, Span { after: since, before, ascending: false }, limit + 1)?;
        let more = found.numbers.len() > limit;
        let numbers = &found.numbers[..found.numbers.len().min(limit)];
        let rows = link.query(DELIVERY, &[&numbers])?;
        let configs = rows.iter().flat_map(|row| [row.get(3), row.get(4)]);
        let known = self.names.look_up(link, configs, rows.iter().map(|row| row.get(5)))?;
        let items: Vec<DeliveryRow> = rows.iter().map(|row| delivery_row(row, &known)).collect::<Result<_>>()?;
        let next = if more { numbers.last().copied() } else { found.at };
        Ok(Page { next, items })
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
}

/// What is asked, and the way to it.
fn search(link: &mut Link, query: &DeliveryQuery) -> Result<Search> {
    let dests = configs(link, "Provider", query.provider_namespace.as_ref(), query.provider.as_ref())?;
    let routes = configs(link, "Alert", query.alert_namespace.as_ref(), query.alert.as_ref())?;
    let ids = objects(link, &query.object)?;
    let mut filter = Where::default();
    filter.is("id", query.id);
    filter.is("event", query.event.map(|event| event.0));
    filter.is("rollout", query.rollout.map(|rollout| rollout.0));
    let one = query.id.or(query.event.map(|event| event.0)).or(query.rollout.map(|rollout| rollout.0));
    // Before anything else is asked, this is only that.
    let one = one.map(|_| filter.sql().replacen(" WHERE ", "", 1));
    let by_dest = dests.map(|dests| filter.bind_among("dest", &dests));
    let few = ids.as_ref().filter(|ids| one.is_none() && ids.len() <= FEW).map(|ids| {
        // One object's events are few: by their index rather than through everything.
        let events = "event = ANY(ARRAY(SELECT seq FROM event WHERE object = ANY(?) UNION ALL SELECT seq FROM hook))";
        filter.bind(events, [Box::new(ids.clone())])
    });
    if let Some(dests) = &by_dest {
        filter.push(&dests.rows(), []);
    }
    filter.among("route", routes.as_deref());
    filter.among("object", ids.as_deref());
    if let Some(kind) = query.kind {
        filter.push(&format!("kind = {}", kind.code()), []);
    }
    // As literals, which is how an index knows that it has these.
    let codes: Vec<String> = query.states.iter().map(|state| state.code().to_string()).collect();
    if !codes.is_empty() {
        filter.push(&format!("state IN ({})", codes.join(", ")), []);
    }
    let way = match (one, few, by_dest, &query.states[..]) {
        (Some(one), ..) => Way::Few(one),
        (_, Some(few), ..) => Way::Few(few),
        (.., Some(dests), [DeliveryState::Dead]) => Way::Keys(format!("state = 3 AND {}", dests.keys())),
        (.., Some(dests), _) => Way::Keys(dests.keys()),
        (.., [DeliveryState::Dead]) => Way::Keys("state = 3".to_owned()),
        (.., [DeliveryState::Pending]) => Way::Few("state = 0".to_owned()),
        _ => Way::Log(i64::MAX),
    };
    let columns = "event, rollout, dest, route, object, kind, state";
    Ok(Search { table: "delivery", number: "id", columns, filter, ways: vec![way] })
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
