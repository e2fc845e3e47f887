//! Reading: claims. Taking lanes is one short transaction, reading what is in them comes after: nobody else touches them then.

use std::collections::{HashMap, HashSet};

use belfry_core::{Seq, Time, limits, plan::Change, rollout::Hints};
use bytes::Bytes;
use tokio_postgres::Row as Found;

use super::{
    append::{origin_from, small},
    flight::Owner,
    link::{Link, step},
    names::Known,
    read::PgReader,
    rollouts::{COLUMNS, OBJECT, rollout_row},
};
use crate::{
    engine::{EngineError, Result, via},
    queries::DeliveryKind,
    types::{Claim, Claims, DestId, LaneId, Room, Row, What},
};

/// Bytes of bodies after which no more of a lane is claimed.
const LANE_BYTES: i64 = 1 << 20;
/// Bytes of bodies after which no more lanes are claimed.
const CLAIM_BYTES: i64 = 32 << 20;

/// What is in flight here, under whatever name, is left out until that is known to have ended.
const TAKE: &str = "WITH found AS MATERIALIZED (
        SELECT x.id FROM unnest($1::INT8[], $2::INT8[], $3::INT8[]) p(dest, room, horizon) CROSS JOIN LATERAL (
            SELECT id FROM lane WHERE lane.dest = p.dest AND due <= p.horizon AND owner IS NULL AND NOT id = ANY($5)
            ORDER BY due LIMIT p.room FOR UPDATE SKIP LOCKED) x)
    UPDATE lane l SET owner = $4, woken = FALSE, first = CASE WHEN kind <> 0 THEN tail END FROM found
    WHERE l.id = found.id AND EXISTS(SELECT 1 FROM replica WHERE replica.id = $4 AND until > clock_timestamp())
    RETURNING l.id, l.dest, l.kind, l.due, l.tail, l.first, l.memo, l.doubt";
/// What nobody knows to be claimed by this replica.
const ORPHANS: &str = "UPDATE lane SET owner = NULL, first = NULL, woken = FALSE
    WHERE due IS NOT NULL AND owner = $1 AND NOT id = ANY($2)";
const NEXT: &str = "SELECT p.dest, (SELECT due FROM lane WHERE lane.dest = p.dest AND due IS NOT NULL AND owner IS NULL
    AND NOT id = ANY($2) ORDER BY due LIMIT 1) FROM unnest($1::INT8[]) WITH ORDINALITY p(dest, n) ORDER BY p.n";
/// The first deliveries of each lane, as far as there is room for their bodies; the tail as it is when they are read.
const EVENTS: &str =
    "SELECT d.lane, d.id, d.event, d.attempts, d.route, d.object, e.origin, e.change, e.body, d.tail, e.hints,
        e.via FROM (
        SELECT x.*, sum(x.size) OVER (PARTITION BY x.lane ORDER BY x.id) - x.size AS of_lane,
            sum(x.size) OVER (ORDER BY l.n, x.id) - x.size AS of_all
        FROM unnest($1::INT8[]) WITH ORDINALITY l(lane, n) CROSS JOIN LATERAL (
            SELECT w.*, octet_length(o.body) AS size FROM (
                SELECT d.id, d.lane, d.event, d.attempts, d.route, d.object, lane.tail FROM lane
                JOIN delivery d ON d.lane = lane.id AND d.state = 0 WHERE lane.id = l.lane ORDER BY d.id LIMIT $2) w
            JOIN event o ON o.seq = w.event) x) d
    JOIN event e ON e.seq = d.event WHERE d.of_lane < $3 AND d.of_all < $4 ORDER BY d.lane, d.id";
/// What a destination is to hold now: the newest that was in the lane when it was claimed.
const NEWEST: &str = "SELECT DISTINCT ON (d.lane) d.lane, d.id, d.event, d.attempts, d.route, d.object";
const OF_LANES: &str = "unnest($1::INT8[], $2::INT8[]) l(lane, first)
    JOIN delivery d ON d.lane = l.lane AND d.state = 0 AND d.id <= l.first";

struct Taken {
    lane: LaneId,
    dest: DestId,
    kind: i16,
    due: i64,
    tail: i64,
    first: Option<i64>,
    memo: Vec<u8>,
    doubt: bool,
}

impl PgReader {
    pub(super) fn take_lanes(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims> {
        let owner = self.flight.leased();
        let owner = owner.ok_or_else(|| EngineError::Down("not heard of by the other replicas lately".into()))?;
        self.on_claims(|link| {
            let claims = self.claim_on(link, owner, rooms, now);
            if claims.is_err() {
                self.flight.doubt();
            }
            claims
        })
    }

    fn claim_on(&self, link: &mut Link, owner: Owner, rooms: &[(DestId, Room)], now: Time) -> Result<Claims> {
        if self.flight.take_doubt() {
            self.flight.doubt();
            link.query(ORPHANS, &[&owner, &self.flight.lanes()])?;
            self.flight.take_doubt();
        }
        let dests: Vec<i64> = rooms.iter().map(|(dest, _)| dest.0).collect();
        let counts: Vec<i64> = rooms.iter().map(|(_, room)| room.lanes.into()).collect();
        let horizons: Vec<i64> = rooms.iter().map(|(_, room)| if room.probe { i64::MAX } else { now.0 }).collect();
        // Also what is freed there, and not known to be: its end may still be written a second time.
        let here = self.flight.lanes();
        let next = step(NEXT, [&dests, &here]);
        if counts.iter().all(|count| *count == 0) {
            return Ok(Claims { lanes: Vec::new(), next_due: next_due(&link.pipeline(&[next])?[0]) });
        }
        let rows = link.pipeline(&[
            step("BEGIN", []),
            step("SET LOCAL synchronous_commit = off", []),
            step(TAKE, [&dests, &counts, &horizons, &owner, &here]),
            step("COMMIT", []),
        ])?;
        let mut taken: Vec<Taken> = rows[2].iter().map(taken).collect();
        if taken.is_empty() {
            return Ok(Claims { lanes: Vec::new(), next_due: next_due(&link.pipeline(&[next])?[0]) });
        }
        let place: HashMap<i64, usize> = dests.iter().enumerate().map(|(n, dest)| (*dest, n)).collect();
        taken.sort_by_key(|lane| (place.get(&lane.dest.0).copied(), lane.due, lane.lane));
        let claims = self.read_lanes(link, &taken, &dests, &here)?;
        // Only now: a claim that fails half-way is no claim.
        self.flight.claim(owner, claims.lanes.iter().map(|claim| (claim.lane, claim.dest)));
        if claims.lanes.len() < taken.len() {
            link.query(ORPHANS, &[&owner, &self.flight.lanes()])?;
        }
        Ok(claims)
    }

    fn read_lanes(&self, link: &mut Link, taken: &[Taken], dests: &[i64], here: &[i64]) -> Result<Claims> {
        let of_kind = |kind: DeliveryKind| {
            let lanes = taken.iter().filter(move |lane| lane.kind == small(kind.code()));
            lanes.map(|lane| (lane.lane.0, lane.first.unwrap_or(lane.tail))).unzip::<i64, i64, Vec<i64>, Vec<i64>>()
        };
        let (events, _) = of_kind(DeliveryKind::Event);
        let (states, newest) = of_kind(DeliveryKind::Rollout);
        let (triggers, asked) = of_kind(DeliveryKind::Trigger);
        let most = i64::from(limits::LANE_CLAIM);
        let rollouts = format!(
            "{NEWEST}, e.origin, e.body, {COLUMNS} FROM {OF_LANES} JOIN event e ON e.seq = d.event
             JOIN rollout r ON r.id = d.rollout ORDER BY d.lane, d.id DESC"
        );
        let hooks = format!("{NEWEST}, h.at FROM {OF_LANES} JOIN hook h ON h.seq = d.event ORDER BY d.lane, d.id DESC");
        let mut steps = vec![
            step(NEXT, [&dests, &here]),
            // The claim must outlive a crash of the server: nobody else may go on with these.
            step("SELECT pg_logical_emit_message(true, 'belfry', '')", []),
        ];
        let kinds = [!events.is_empty(), !states.is_empty(), !triggers.is_empty()];
        if kinds[0] {
            steps.push(step(EVENTS, [&events, &most, &LANE_BYTES, &CLAIM_BYTES]));
        }
        if kinds[1] {
            steps.push(step(&rollouts, [&states, &newest]));
        }
        if kinds[2] {
            steps.push(step(&hooks, [&triggers, &asked]));
        }
        let mut rows = link.pipeline(&steps)?.into_iter();
        let next_due = rows.next().map(|rows| next_due(&rows)).unwrap_or_default();
        rows.next();
        let mut of = |given: bool| if given { rows.next().unwrap_or_default() } else { Vec::new() };
        let (events, states, triggers) = (of(kinds[0]), of(kinds[1]), of(kinds[2]));
        let found = || events.iter().chain(&states).chain(&triggers);
        let routes = found().map(|row| row.get::<_, i64>(4));
        let objects = found().map(|row| row.get(5)).chain(states.iter().map(|row| row.get(8 + OBJECT)));
        let known = self.names.look_up(link, routes.chain(taken.iter().map(|lane| lane.dest.0)), objects)?;
        let mut lanes: HashMap<i64, (i64, Vec<Row>)> = HashMap::new();
        for row in &events {
            let lane = lanes.entry(row.get(0)).or_insert((row.get(9), Vec::new()));
            let what = What::Event {
                origin: origin_from(row.get(6)),
                change: row.get::<_, Option<i16>>(7).and_then(|code| Change::from_code(code.into())),
                hints: Hints::from_code(row.get::<_, Option<i16>>(10).map(i64::from)),
                via: via(row.get(11)),
                body: Bytes::from(row.get::<_, Vec<u8>>(8)),
            };
            lane.1.push(Row { newest: row.get::<_, i64>(1) >= lane.0, ..delivery(row, what, &known)? });
        }
        for row in &states {
            let what = What::Rollout {
                rollout: Box::new(rollout_row(row, 8, &known)?),
                origin: origin_from(row.get(6)),
                body: Bytes::from(row.get::<_, Vec<u8>>(7)),
            };
            lanes.insert(row.get(0), (row.get(1), vec![delivery(row, what, &known)?]));
        }
        for row in &triggers {
            let what = What::Trigger { asked: Time(row.get(6)) };
            lanes.insert(row.get(0), (row.get(1), vec![delivery(row, what, &known)?]));
        }
        claims(taken, lanes, next_due, &known)
    }
}

fn taken(row: &Found) -> Taken {
    Taken {
        lane: LaneId(row.get(0)),
        dest: DestId(row.get(1)),
        kind: row.get(2),
        due: row.get(3),
        tail: row.get(4),
        first: row.get(5),
        memo: row.get(6),
        doubt: row.get(7),
    }
}

fn next_due(rows: &[Found]) -> Vec<(DestId, Option<Time>)> {
    rows.iter().map(|row| (DestId(row.get(0)), row.get::<_, Option<i64>>(1).map(Time))).collect()
}

fn delivery(row: &Found, what: What, known: &Known) -> Result<Row> {
    let id = row.get(1);
    Ok(Row {
        id,
        cause: Seq(row.get(2)),
        created: Time(id),
        attempts: row.get::<_, i64>(3).try_into().unwrap_or(u32::MAX),
        route: known.config(row.get(4))?,
        object: known.object(row.get(5))?,
        newest: true,
        what,
    })
}

/// Lanes that there was no room for any more are left out; one that is empty stays, to be settled.
fn claims(
    taken: &[Taken],
    mut lanes: HashMap<i64, (i64, Vec<Row>)>,
    mut next_due: Vec<(DestId, Option<Time>)>,
    known: &Known,
) -> Result<Claims> {
    let bytes: usize = lanes.values().flat_map(|(_, rows)| rows).map(|row| row.what.bytes()).sum();
    let full = i64::try_from(bytes).is_ok_and(|bytes| bytes >= CLAIM_BYTES);
    let mut claims = Claims::default();
    let mut left = HashSet::new();
    for lane in taken {
        let (tail, rows) = lanes.remove(&lane.lane.0).unwrap_or((lane.tail, Vec::new()));
        if full && rows.is_empty() {
            if left.insert(lane.dest)
                && let Some(next) = next_due.iter_mut().find(|(dest, _)| *dest == lane.dest)
            {
                next.1 = Some(next.1.map_or(Time(lane.due), |due| due.min(Time(lane.due))));
            }
            continue;
        }
        claims.lanes.push(Claim {
            lane: lane.lane,
            dest: lane.dest,
            dest_key: known.config(lane.dest.0)?,
            memo: lane.memo.clone(),
            recovered: lane.doubt,
            tail: if lane.kind == 0 { tail } else { lane.tail },
            rows,
        });
    }
    claims.next_due = next_due;
    Ok(claims)
}
