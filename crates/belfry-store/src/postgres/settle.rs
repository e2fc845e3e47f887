//! Writing: outcomes, and deliveries made again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use belfry_core::{Seq, Time};

use super::{
    append::{Written, add_deliveries, column, small},
    flight::Owner,
    lanes::is_state,
    link::step,
    names::config_key,
    transaction::PgWriter,
};
use crate::{
    RedeliverError,
    engine::{Added, NewDelivery, Result, Settled},
    queries::{DeliveryKind, DeliveryState},
    types::{AttemptRecord, DestId, Finish, LaneId, Redelivered, RowResult, RowState, Settlement},
};

/// State lanes first, then by id: the order in which appending waits for lanes.
const LOCK: &str = "SELECT id, owner, kind, tail, woken FROM lane WHERE id = ANY($1) AND owner IS NOT NULL
    ORDER BY kind = 0, id FOR UPDATE";
/// Only what is pending changes, and only of that attempts are kept.
const RESULTS: &str = "WITH closed AS (
        UPDATE delivery d SET state = r.state, attempts = greatest(d.attempts, r.attempts), settled = r.settled,
            answer = CASE WHEN r.state = 0 THEN COALESCE(r.answer, d.answer) ELSE r.answer END
        FROM unnest($1::INT8[], $2::INT2[], $3::INT8[], $4::INT8[], $5::TEXT[]) r(id, state, attempts, settled, answer)
        WHERE d.id = r.id AND d.state = 0 RETURNING d.id),
    kept AS (
        INSERT INTO attempt SELECT a.* FROM unnest($6::INT8[], $7::INT8[], $8::INT8[], $9::INT8[], $10::INT4[], $11::INT2[], $12::TEXT[])
            a(delivery, n, at, took, status, outcome, error) JOIN closed ON closed.id = a.delivery
        ON CONFLICT(delivery, n) DO UPDATE SET at = excluded.at, took = excluded.took, status = excluded.status,
            outcome = excluded.outcome, error = excluded.error)
    SELECT id FROM closed";
/// In a finished state lane what is older than the newest is superseded.
const SETTLE_DOWN: &str = "UPDATE delivery d SET state = 2, settled = $3, answer = 'superseded by delivery ' || l.tail
    FROM unnest($1::INT8[], $2::INT8[]) l(id, tail) WHERE d.lane = l.id AND d.state = 0 AND d.id < l.tail RETURNING d.lane";
const FINISH: &str =
    "UPDATE lane SET owner = NULL, first = NULL, woken = FALSE, doubt = lane.doubt AND NOT f.attempted,
        memo = COALESCE(f.memo, lane.memo),
        due = CASE WHEN EXISTS(SELECT 1 FROM delivery d WHERE d.lane = lane.id AND d.state = 0) THEN f.due END
    FROM unnest($1::INT8[], $2::BOOL[], $3::INT8[], $4::BYTEA[]) f(id, attempted, due, memo)
    WHERE lane.id = f.id RETURNING lane.id, lane.due IS NOT NULL";
/// An attempt came to its end, and the next may be under way.
const KNOWN: &str = "UPDATE lane SET doubt = FALSE WHERE id = ANY($1) AND doubt";
const STEP_ASIDE: [&str; 2] = [
    "UPDATE delivery SET lane = $2 WHERE id = $1 AND state = 0 AND lane = $3 RETURNING id",
    "INSERT INTO lane(id, dest, kind, due, tail) VALUES($1, $2, 0, $3, $4) ON CONFLICT(id) DO UPDATE SET due = excluded.due",
];

/// A lane as it is when it is settled.
#[derive(Clone, Copy)]
struct Settling {
    kind: i16,
    tail: i64,
    woken: bool,
}

/// What came of a delivery, of all that was said about it.
struct Closing<'a> {
    state: DeliveryState,
    attempts: i64,
    answer: Option<&'a str>,
}

#[derive(Default)]
struct Finishing {
    lanes: Vec<i64>,
    attempted: Vec<bool>,
    dues: Vec<i64>,
    memos: Vec<Option<Vec<u8>>>,
}

impl PgWriter {
    pub(super) fn write_settlements(&mut self, all: &[&Settlement], now: Time) -> Result<Vec<Settled>> {
        let lanes = self.lock_own(all.iter().map(|settlement| settlement.lane))?;
        self.freed.extend(all.iter().filter(|of| of.finish.is_some()).map(|of| of.lane));
        // What is no longer ours, others have settled or will.
        let valid: Vec<&Settlement> = all.iter().copied().filter(|of| lanes.contains_key(&of.lane)).collect();
        let closed = self.write_results(&valid, now)?;
        let mut settled = self.finish_lanes(&valid, &lanes, now)?;
        let mut answers = Vec::with_capacity(all.len());
        for of in all {
            let mut answer = Settled::default();
            if lanes.contains_key(&of.lane) {
                answer.closed = of.results.iter().filter(|result| closed.contains(&result.delivery)).count() as u64;
                if of.finish.is_some()
                    && let Some(finished) = settled.remove(&of.lane)
                {
                    answer.closed += finished.closed;
                    answer.left = finished.left;
                }
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Those of these lanes that are claimed, under the name that they were claimed under here.
    fn lock_own(&mut self, lanes: impl Iterator<Item = LaneId>) -> Result<HashMap<LaneId, Settling>> {
        let held: HashMap<LaneId, Owner> = lanes.filter_map(|lane| Some((lane, self.flight.holder(lane)?.0))).collect();
        let ids: Vec<i64> = held.keys().map(|lane| lane.0).collect();
        let rows = self.query(LOCK, &[&ids])?;
        let own = rows.iter().filter(|row| held.get(&LaneId(row.get(0))) == Some(&row.get(1)));
        Ok(own
            .map(|row| (LaneId(row.get(0)), Settling { kind: row.get(2), tail: row.get(3), woken: row.get(4) }))
            .collect())
    }

    /// Says which deliveries wait no longer.
    fn write_results(&mut self, settlements: &[&Settlement], now: Time) -> Result<HashSet<i64>> {
        let mut closings: BTreeMap<i64, Closing<'_>> = BTreeMap::new();
        let mut attempts: BTreeMap<(i64, u32), &AttemptRecord> = BTreeMap::new();
        for result in settlements.iter().flat_map(|settlement| &settlement.results) {
            let closing = closings.entry(result.delivery).or_insert(Closing {
                state: DeliveryState::Pending,
                attempts: 0,
                answer: None,
            });
            if closing.state != DeliveryState::Pending {
                continue;
            }
            closing.take(result);
            if let Some(attempt) = &result.attempt
                && !(attempt.n == 1 && result.state == RowState::Delivered)
            {
                attempts.insert((result.delivery, attempt.n), attempt);
            }
        }
        if closings.is_empty() {
            return Ok(HashSet::new());
        }
        let rows: Vec<(i64, Closing<'_>)> = closings.into_iter().collect();
        let tried: Vec<(i64, &AttemptRecord)> = attempts.into_iter().map(|((id, _), attempt)| (id, attempt)).collect();
        let waits = |row: &(i64, Closing<'_>)| row.1.state == DeliveryState::Pending;
        let (ids, states) = (column(&rows, |row| row.0), column(&rows, |row| small(row.1.state.code())));
        let counts = column(&rows, |row| row.1.attempts);
        let settled = column(&rows, |row| (!waits(row)).then_some(now.0));
        let answers = column(&rows, |row| row.1.answer);
        let (of, numbers) = (column(&tried, |row| row.0), column(&tried, |row| i64::from(row.1.n)));
        let at = column(&tried, |row| row.1.at.0);
        let took = column(&tried, |row| i64::try_from(row.1.took.as_micros()).unwrap_or(i64::MAX));
        let statuses = column(&tried, |row| row.1.status.map(i32::from));
        let outcomes = column(&tried, |row| small(row.1.outcome.code()));
        let errors = column(&tried, |row| &*row.1.error);
        let changed = self.query(
            RESULTS,
            &[&ids, &states, &counts, &settled, &answers, &of, &numbers, &at, &took, &statuses, &outcomes, &errors],
        )?;
        let waiting: HashSet<i64> = rows.iter().filter(|row| waits(row)).map(|row| row.0).collect();
        Ok(changed.iter().map(|row| row.get(0)).filter(|id| !waiting.contains(id)).collect())
    }

    fn finish_lanes(
        &mut self,
        settlements: &[&Settlement],
        lanes: &HashMap<LaneId, Settling>,
        now: Time,
    ) -> Result<HashMap<LaneId, Settled>> {
        let mut finishing = Finishing::default();
        let mut aside = HashSet::new();
        let tried: HashSet<LaneId> = settlements.iter().filter(|of| !of.results.is_empty()).map(|of| of.lane).collect();
        for of in settlements {
            let (Some(finish), Some(lane)) = (&of.finish, lanes.get(&of.lane)) else { continue };
            let due = finish.due.filter(|due| !lane.woken || *due < now).unwrap_or(now);
            let stepped = !is_state(lane.kind) && self.step_aside(finish, of.lane, of.dest, due)?;
            if stepped {
                aside.insert(of.lane);
            }
            finishing.lanes.push(of.lane.0);
            finishing.attempted.push(tried.contains(&of.lane));
            finishing.dues.push(if stepped { now.0 } else { due.0 });
            finishing.memos.push(finish.memo.clone());
        }
        let states: Vec<(i64, i64)> = finishing
            .lanes
            .iter()
            .filter_map(|id| lanes.get(&LaneId(*id)).filter(|lane| is_state(lane.kind)).map(|lane| (*id, lane.tail)))
            .collect();
        let (ids, tails): (Vec<i64>, Vec<i64>) = states.into_iter().unzip();
        let going_on: Vec<i64> =
            tried.iter().map(|lane| lane.0).filter(|lane| !finishing.lanes.contains(lane)).collect();
        let mut steps = vec![step(FINISH, [&finishing.lanes, &finishing.attempted, &finishing.dues, &finishing.memos])];
        if !ids.is_empty() {
            steps.insert(0, step(SETTLE_DOWN, [&ids, &tails, &now.0]));
        }
        if !going_on.is_empty() {
            steps.push(step(KNOWN, [&going_on]));
        }
        let rows = self.pipeline(&steps)?;
        let (down, finished) = if ids.is_empty() { (None, rows.first()) } else { (rows.first(), rows.get(1)) };
        let mut settled: HashMap<LaneId, Settled> = HashMap::new();
        for row in finished.into_iter().flatten() {
            let lane = LaneId(row.get(0));
            settled.insert(lane, Settled { closed: 0, left: row.get::<_, bool>(1) || aside.contains(&lane) });
        }
        for row in down.into_iter().flatten() {
            settled.entry(LaneId(row.get(0))).or_default().closed += 1;
        }
        Ok(settled)
    }

    /// Rare, so it may take a round trip of its own.
    fn step_aside(&mut self, finish: &Finish, lane: LaneId, dest: DestId, due: Time) -> Result<bool> {
        let Some(delivery) = finish.step_aside else { return Ok(false) };
        let aside = LaneId::aside(delivery);
        if aside == lane || self.query(STEP_ASIDE[0], &[&delivery, &aside.0, &lane.0])?.is_empty() {
            return Ok(false);
        }
        self.query(STEP_ASIDE[1], &[&aside.0, &dest.0, &due.0, &delivery])?;
        Ok(true)
    }

    /// Lanes of which nothing was attempted are free again as they were.
    pub(super) fn give_back(&mut self, lanes: &[LaneId]) -> Result<Vec<DestId>> {
        let own: Vec<i64> = self.lock_own(lanes.iter().copied())?.into_keys().map(|lane| lane.0).collect();
        let dests: Vec<DestId> = lanes.iter().filter_map(|lane| Some(self.flight.holder(*lane)?.1)).collect();
        self.query("UPDATE lane SET owner = NULL, first = NULL, woken = FALSE WHERE id = ANY($1)", &[&own])?;
        self.freed.extend(lanes);
        self.news.extend(&dests);
        Ok(dests)
    }

    pub(super) fn write_again(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<(Redelivered, u64), RedeliverError>> {
        let sql =
            "SELECT d.state, d.event, d.object, d.route, d.dest, d.kind, d.rollout, d.lane, c.kind, c.namespace, c.name
             FROM delivery d JOIN config c ON c.id = d.dest WHERE d.id = $1";
        let rows = self.query(sql, &[&delivery])?;
        let Some(row) = rows.first() else { return Ok(Err(RedeliverError::Unknown(delivery))) };
        if row.get::<_, i16>(0) == small(DeliveryState::Pending.code()) {
            return Ok(Err(RedeliverError::Pending(delivery)));
        }
        let kind = DeliveryKind::from_code(row.get::<_, i16>(5).into()).unwrap_or(DeliveryKind::Event);
        let mut new = NewDelivery {
            id,
            lane: LaneId(row.get(7)),
            kind,
            cause: Seq(row.get(1)),
            rollout: row.get::<_, Option<i64>>(6).map(Seq),
            object: row.get(2),
            route: row.get(3),
            dest: DestId(row.get(4)),
            due: now,
        };
        let provider = Arc::new(config_key(row, 8)?);
        let mut added = Added::default();
        if kind == DeliveryKind::Event {
            // It may have stepped aside.
            new.lane = LaneId::of(new.dest, new.object);
            // The tail stays where the newest event left it: what waits there is still the newest.
            let sql = "INSERT INTO lane(id, dest, kind, due, tail) VALUES($1, $2, 0, $3, $4)
                 ON CONFLICT(id) DO UPDATE SET due = COALESCE(lane.due, excluded.due)";
            self.query(sql, &[&new.lane.0, &new.dest.0, &now.0, &id])?;
        } else {
            self.make_room(&[&new], now, &mut added)?;
        }
        self.stage(add_deliveries(&[Written { new: &new, by: None }], now));
        self.head.delivery = id;
        self.news.insert(new.dest);
        let superseded = added.closed.iter().map(|(_, count)| count).sum();
        Ok(Ok((Redelivered { delivery: id, dest: new.dest, provider }, superseded)))
    }
}

impl<'a> Closing<'a> {
    /// Takes in the next thing that is said about it.
    fn take(&mut self, result: &'a RowResult) {
        let (state, answer) = match &result.state {
            RowState::Delivered => (DeliveryState::Delivered, None),
            RowState::Skipped(why) => (DeliveryState::Delivered, Some(why)),
            RowState::Superseded(why) => (DeliveryState::Superseded, Some(why)),
            RowState::Dead(why) => (DeliveryState::Dead, Some(why)),
            RowState::Retry => (DeliveryState::Pending, result.attempt.as_ref().map(|attempt| &attempt.error)),
        };
        self.state = state;
        self.attempts = self.attempts.max(result.attempt.as_ref().map_or(0, |attempt| attempt.n.into()));
        self.answer = match state {
            DeliveryState::Pending => answer.map(String::as_str).or(self.answer),
            _ => answer.map(String::as_str),
        };
    }
}
