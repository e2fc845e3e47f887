//! Writing: new rows, a statement for all of a kind.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    plan::{Change, ObjectState, Origin},
};
use tokio_postgres::Row;

use super::{
    ahead::Basis,
    link::{Staged, step},
    transaction::PgWriter,
};
use crate::{
    engine::{Added, Appends, EngineError, NewDelivery, NewEvent, ObjectRow, Result},
    queries::DeliveryKind,
    types::{DestId, LaneId},
};

/// What an event takes up beside its body: its row, its deliveries, their places in indexes.
pub(super) const ROW: i64 = 512;

/// All that most batches add, in one statement, since each takes its time under the append lock. Lanes come in the order of their ids, as
/// they do with everyone who waits for their locks. Says whether the gate was open, without which nothing is written, and which destinations got
/// work that is due and not in flight.
macro_rules! add {
    ($condition:literal) => {
        concat!("WITH gate AS (
        UPDATE head SET seq = greatest(seq, $33), event = greatest(event, $34), delivery = greatest(delivery, $35), bytes = bytes + $36
        ", $condition, " RETURNING TRUE AS open),
    events AS (
        INSERT INTO event(seq, object, origin, dedupe, body_hash, severity, reason, revision, rev, change, hints, ident, via, body)
        SELECT unnest($1::INT8[]), unnest($2::INT8[]), unnest($3::INT2[]), unnest($4::INT8[]), unnest($5::INT8[]),
            unnest($6::TEXT[]), unnest($7::TEXT[]), unnest($8::TEXT[]), unnest($9::INT8[]), unnest($10::INT2[]),
            unnest($11::INT2[]), unnest($12::INT8[]), unnest($13::TEXT[]), unnest($14::BYTEA[]) WHERE (SELECT open FROM gate)),
    states AS (
        UPDATE object SET state = new.state FROM unnest($15::INT8[], $16::TEXT[]) new(id, state)
        WHERE object.id = new.id AND (SELECT open FROM gate)),
    lanes AS (
        INSERT INTO lane(id, dest, kind, due, tail)
        SELECT id, dest, 0, due, tail FROM unnest($17::INT8[], $18::INT8[], $19::INT8[], $20::INT8[]) new(id, dest, due, tail)
        WHERE (SELECT open FROM gate)
        ON CONFLICT(id) DO UPDATE SET tail = excluded.tail, due = COALESCE(lane.due, excluded.due)
        RETURNING dest, due, owner),
    deliveries AS (
        INSERT INTO delivery(id, lane, event, object, route, dest, kind, rollout, state, settled, answer)
        SELECT unnest($22::INT8[]), unnest($23::INT8[]), unnest($24::INT8[]), unnest($25::INT8[]), unnest($26::INT8[]),
            unnest($27::INT8[]), unnest($28::INT2[]), unnest($29::INT8[]), unnest($30::INT2[]), unnest($31::INT8[]),
            unnest($32::TEXT[]) WHERE (SELECT open FROM gate))
    SELECT COALESCE((SELECT open FROM gate), set_config('belfry.gate', 'shut', TRUE) IS NULL),
        (SELECT array_agg(dest) FROM lanes WHERE due <= $21 AND owner IS NULL)")
    };
}
const ADD: &str = add!("");
/// What was decided ahead of the append lock (see `ahead.rs`) shuts the gate, unless numbers go on where they left off, and of its objects
/// nothing came after the last event that was known, of all that came.
const ADD_AHEAD: &str = add!(
    "WHERE seq < $37 AND delivery < $38
        AND (SELECT head.event = COALESCE(max(e.seq), $39) AND NOT COALESCE(bool_or(e.object = ANY($40)), FALSE)
            FROM event e WHERE e.seq > $39)"
);
/// Not when the gate is shut: this comes after it.
macro_rules! unless_shut {
    () => {
        "current_setting('belfry.gate', TRUE) IS DISTINCT FROM 'shut'"
    };
}
pub(super) use unless_shut;
const ADD_REPEATS: &str = concat!(
    "UPDATE event SET repeats = repeats + more.count
    FROM (SELECT seq, count(*) AS count FROM unnest($1::INT8[]) seq GROUP BY seq) more
    WHERE event.seq = more.seq AND ",
    unless_shut!()
);
const ADD_DELIVERIES: &str = "INSERT INTO delivery(id, lane, event, object, route, dest, kind, rollout, state, settled, answer)
    SELECT * FROM unnest($1::INT8[], $2::INT8[], $3::INT8[], $4::INT8[], $5::INT8[], $6::INT8[], $7::INT2[], $8::INT8[], $9::INT2[],
        $10::INT8[], $11::TEXT[])";
/// In an order, as everyone does who waits for who adds the same.
const KNOW_OBJECTS: [&str; 2] = [
    "INSERT INTO object(name, namespace, kind, api_group, cluster)
     SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[]) k(name, namespace, kind, api_group, cluster)
     WHERE NOT EXISTS(SELECT 1 FROM object o WHERE o.name = k.name AND o.namespace = k.namespace AND o.kind = k.kind
         AND o.api_group = k.api_group AND o.cluster = k.cluster)
     ORDER BY name, namespace, kind, api_group, cluster ON CONFLICT DO NOTHING",
    "SELECT o.id, o.state FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[]) WITH ORDINALITY
         k(name, namespace, kind, api_group, cluster, n)
     JOIN object o ON o.name = k.name AND o.namespace = k.namespace AND o.kind = k.kind AND o.api_group = k.api_group
         AND o.cluster = k.cluster ORDER BY k.n",
];
const STATES: &str =
    "SELECT o.id, o.state FROM unnest($1::INT8[]) WITH ORDINALITY k(id, n) JOIN object o USING(id) ORDER BY k.n";
const KNOW_CONFIGS: [&str; 2] = [
    "INSERT INTO config(kind, namespace, name)
     SELECT * FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) k(kind, namespace, name)
     WHERE NOT EXISTS(SELECT 1 FROM config c WHERE c.kind = k.kind AND c.namespace = k.namespace AND c.name = k.name)
     ORDER BY kind, namespace, name ON CONFLICT DO NOTHING",
    "SELECT c.id FROM unnest($1::TEXT[], $2::TEXT[], $3::TEXT[]) WITH ORDINALITY k(kind, namespace, name, n)
     JOIN config c ON c.kind = k.kind AND c.namespace = k.namespace AND c.name = k.name ORDER BY k.n",
];
const SENT: &str = "SELECT (SELECT max(e.seq) FROM event e JOIN object o ON o.id = e.object
         WHERE e.ident = k.ident AND o.cluster = k.cluster)
     FROM unnest($1::INT8[], $2::TEXT[]) WITH ORDINALITY k(ident, cluster, n) ORDER BY k.n";
/// What is older than the one in flight gives way to it.
const WAITING: &str = "SELECT id FROM lane WHERE id = ANY($1) AND EXISTS(SELECT 1 FROM delivery d
    WHERE d.lane = lane.id AND d.state = 0 AND (lane.owner IS NULL OR d.id > COALESCE(lane.first, d.id)))";

pub(super) fn origin_code(origin: Origin) -> i16 {
    match origin {
        Origin::Recorder => 0,
        Origin::Forwarded => 1,
        Origin::Observed => 2,
    }
}

pub(super) fn origin_from(code: i16) -> Origin {
    match code {
        1 => Origin::Forwarded,
        2 => Origin::Observed,
        _ => Origin::Recorder,
    }
}

/// A code for a narrow column. All of them fit.
pub(super) fn small(code: i64) -> i16 {
    i16::try_from(code).unwrap_or(i16::MAX)
}

pub(super) fn read_state(object: i64, state: Option<String>) -> ObjectState {
    let Some(state) = state else { return ObjectState::default() };
    serde_json::from_str(&state).unwrap_or_else(|error| {
        tracing::error!(object, %error, "the state of an object can't be read: starting anew");
        ObjectState::default()
    })
}

/// One column of what is written.
pub(super) fn column<'a, S, T>(rows: &'a [S], of: impl Fn(&'a S) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// The same of one that often says nothing: then it is empty, and `unnest` fills it up.
pub(super) fn sparse<'a, S, T>(rows: &'a [S], of: impl Fn(&'a S) -> Option<T>) -> Vec<Option<T>> {
    let column = column(rows, of);
    if column.iter().all(Option::is_none) { Vec::new() } else { column }
}

/// A delivery as it is written: one that is superseded within its own batch says by which.
pub(super) struct Written<'a> {
    pub new: &'a NewDelivery,
    pub by: Option<i64>,
}

impl PgWriter {
    pub(super) fn know_objects(&mut self, keys: &[&ObjectKey]) -> Result<Vec<ObjectRow>> {
        let names = column(keys, |key| &*key.name);
        let namespaces = column(keys, |key| &*key.namespace);
        let (kinds, groups) = (column(keys, |key| &*key.kind), column(keys, |key| &*key.group));
        let clusters = column(keys, |key| &*key.cluster);
        self.wrote = true;
        let rows =
            self.pipeline(&KNOW_OBJECTS.map(|sql| step(sql, [&names, &namespaces, &kinds, &groups, &clusters])))?;
        let object = |row: &Row| {
            let id = row.get(0);
            ObjectRow { id, state: Arc::new(read_state(id, row.get(1))) }
        };
        complete(rows[1].iter().map(object).collect(), keys.len())
    }

    pub(super) fn find_states(&mut self, objects: &[i64]) -> Result<Vec<Arc<ObjectState>>> {
        let rows = self.query(STATES, &[&objects])?;
        let state = |row: &Row| Arc::new(read_state(row.get(0), row.get(1)));
        complete(rows.iter().map(state).collect(), objects.len())
    }

    pub(super) fn know_configs(&mut self, keys: &[&ConfigKey]) -> Result<Vec<i64>> {
        let kinds = column(keys, |key| key.kind.as_str());
        let (namespaces, names) = (column(keys, |key| &*key.namespace), column(keys, |key| &*key.name));
        self.wrote = true;
        let rows = self.pipeline(&KNOW_CONFIGS.map(|sql| step(sql, [&kinds, &namespaces, &names])))?;
        complete(rows[1].iter().map(|row| row.get(0)).collect(), keys.len())
    }

    pub(super) fn find_sent(&mut self, ids: &[(u64, &str)]) -> Result<Vec<Option<Seq>>> {
        let (idents, clusters) = (column(ids, |id| id.0.cast_signed()), column(ids, |id| id.1));
        let rows = self.query(SENT, &[&idents, &clusters])?;
        complete(rows.iter().map(|row| row.get::<_, Option<i64>>(0).map(Seq)).collect(), ids.len())
    }

    pub(super) fn find_waiting(&mut self, lanes: &[LaneId]) -> Result<HashSet<LaneId>> {
        let lanes = column(lanes, |lane| lane.0);
        let rows = self.query(WAITING, &[&lanes])?;
        Ok(rows.iter().map(|row| LaneId(row.get(0))).collect())
    }

    /// Sent with whatever is asked next, or with the commit.
    pub(super) fn add(&mut self, appends: &Appends<'_>, now: Time) -> Result<()> {
        let (events, states): (Vec<&NewDelivery>, Vec<&NewDelivery>) =
            appends.deliveries.iter().partition(|new| new.kind == DeliveryKind::Event);
        let mut written: Vec<Written<'_>> = events.iter().map(|new| Written { new, by: None }).collect();
        if !states.is_empty() {
            let mut added = Added::default();
            written.extend(self.make_room(&states, now, &mut added)?);
            self.added.woken.extend(added.woken);
            self.added.closed.extend(added.closed);
        }
        self.count(appends);
        let basis = self.basis(appends);
        if basis.is_some() || !appends.events.is_empty() || !written.is_empty() {
            let added = Staged::new(if basis.is_some() { ADD_AHEAD } else { ADD });
            let added = with_states(with_events(added, &appends.events), &appends.states)?;
            let added = self.with_numbers(with_deliveries(with_lanes(added, &events, now), &written, now));
            self.stage(basis.into_iter().fold(added, with_basis));
        }
        self.write_rollouts(&appends.rollouts);
        if !appends.repeats.is_empty() {
            self.stage(Staged::new(ADD_REPEATS).with(column(&appends.repeats, |seq| seq.0)));
        }
        self.add_hooks(&appends.hooks);
        Ok(())
    }

    /// Goes on with the numbers of what is added.
    fn count(&mut self, appends: &Appends<'_>) {
        let head = &mut self.head;
        for new in &appends.events {
            head.event = head.event.max(new.seq.0);
            head.bytes += ROW + i64::try_from(new.body.len()).unwrap_or(0);
        }
        let newest = appends.rollouts.keys().next_back().map_or(0, |id| id.0);
        head.seq = head.seq.max(head.event).max(newest);
        head.delivery = appends.deliveries.iter().map(|new| new.id).fold(head.delivery, i64::max);
    }
}

fn with_basis(added: Staged, basis: Basis) -> Staged {
    added.with(basis.seq).with(basis.delivery).with(basis.event).with(basis.objects)
}

fn with_events(added: Staged, events: &[NewEvent<'_>]) -> Staged {
    added
        .with(column(events, |new| new.seq.0))
        .with(column(events, |new| new.object))
        .with(column(events, |new| origin_code(new.origin)))
        .with(column(events, |new| new.dedupe.cast_signed()))
        .with(column(events, |new| new.body_hash.cast_signed()))
        .with(column(events, |new| new.severity.to_owned()))
        .with(column(events, |new| new.reason.to_owned()))
        .with(sparse(events, |new| new.revision.map(str::to_owned)))
        .with(sparse(events, |new| new.rev))
        .with(sparse(events, |new| new.change.map(Change::code).map(small)))
        .with(sparse(events, |new| new.hints.code().map(small)))
        .with(sparse(events, |new| new.sent.map(|sent| sent.identity.cast_signed())))
        .with(sparse(events, |new| new.sent.map(|sent| sent.via.join(" "))))
        .with(column(events, |new| new.body.to_vec()))
}

fn with_states(added: Staged, states: &BTreeMap<i64, Arc<ObjectState>>) -> Result<Staged> {
    let written: std::result::Result<Vec<String>, _> =
        states.values().map(|state| serde_json::to_string(&**state)).collect();
    let written = written.map_err(|error| EngineError::Data(error.to_string()))?;
    Ok(added.with(states.keys().copied().collect::<Vec<i64>>()).with(written))
}

fn with_lanes(added: Staged, deliveries: &[&NewDelivery], now: Time) -> Staged {
    // In the order in which their rows are locked. What a lane is due at is what the first that comes into it says.
    let mut lanes: BTreeMap<LaneId, (DestId, i64, i64)> = BTreeMap::new();
    for new in deliveries {
        // Due now, though it was decided on a little later than the batch began.
        lanes.entry(new.lane).or_insert((new.dest, new.due.0.min(now.0), new.id)).2 = new.id;
    }
    let lanes: Vec<_> = lanes.into_iter().collect();
    added
        .with(column(&lanes, |lane| lane.0.0))
        .with(column(&lanes, |lane| lane.1.0.0))
        .with(column(&lanes, |lane| lane.1.1))
        .with(column(&lanes, |lane| lane.1.2))
        .with(now.0)
}

pub(super) fn add_deliveries(written: &[Written<'_>], now: Time) -> Staged {
    with_deliveries(Staged::new(ADD_DELIVERIES), written, now)
}

fn with_deliveries(added: Staged, written: &[Written<'_>], now: Time) -> Staged {
    added
        .with(column(written, |row| row.new.id))
        .with(column(written, |row| row.new.lane.0))
        .with(column(written, |row| row.new.cause.0))
        .with(column(written, |row| row.new.object))
        .with(column(written, |row| row.new.route))
        .with(column(written, |row| row.new.dest.0))
        .with(column(written, |row| small(row.new.kind.code())))
        .with(sparse(written, |row| row.new.rollout.map(|rollout| rollout.0)))
        .with(column(written, |row| if row.by.is_some() { 2_i16 } else { 0 }))
        .with(sparse(written, |row| row.by.map(|_| now.0)))
        .with(sparse(written, |row| row.by.map(superseded_by)))
}

pub(super) fn superseded_by(delivery: i64) -> String {
    format!("superseded by delivery {delivery}")
}

fn complete<T>(rows: Vec<T>, expected: usize) -> Result<Vec<T>> {
    if rows.len() == expected {
        Ok(rows)
    } else {
        Err(EngineError::Down("names are missing after they were added".into()))
    }
}
