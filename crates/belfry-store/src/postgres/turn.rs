//! Writing: how a transaction begins, what is sent in it, and how it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use belfry_core::{Seq, limits};
use tokio_postgres::Row;

use super::{
    ahead::Basis,
    append::read_state,
    link::{Link, Param, Staged, Step, step},
    transaction::{Head, PgWriter, Stage},
};
use crate::{
    engine::{Added, Appends, Begun, EngineError, Remembered, RememberedHook, Result},
    types::DestId,
};

/// After so long without a turn there may be much to catch up with: that is done before the lock is taken.
const BEHIND: Duration = Duration::from_secs(1);
/// Durable by what comes after the commit.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off";
/// The same, and alone in appending.
const BEGIN_LOCKED: &str = "BEGIN; SET LOCAL synchronous_commit = off; EXECUTE append_lock";
/// The lock is let go before the flush.
const COMMIT: &str = "COMMIT; EXECUTE flush";
/// Where appending left off.
const HEAD: &str = "UPDATE head SET seq = $1, event = $2, delivery = $3, bytes = greatest(0, bytes + $4)";
/// What others brought, and the states of objects that are asked for: of those that are stale, or that they changed. One statement,
/// since each takes its time under the append lock; the kind of a row comes first.
const SINCE: &str = "WITH others AS MATERIALIZED (
        SELECT seq, dedupe, body_hash, object FROM event WHERE seq > $1 ORDER BY seq DESC LIMIT $2)
    SELECT 0, seq, event, delivery, bytes, NULL FROM head
    UNION ALL SELECT 1, seq, dedupe, body_hash, object, NULL FROM others
    UNION ALL SELECT 2, seq, receiver, NULL, NULL, delivery_id FROM (
        SELECT seq, receiver, delivery_id FROM hook
        WHERE seq > $3 AND delivery_id IS NOT NULL AND verdict IN (1, 2) ORDER BY seq DESC LIMIT $4) hooks
    UNION ALL SELECT 3, id, NULL, NULL, NULL, state FROM unnest($5::INT8[], $6::BOOL[]) asked(id, stale) JOIN object USING(id)
        WHERE stale OR id IN (SELECT object FROM others)";

impl PgWriter {
    pub(super) fn link(&mut self) -> Result<&mut Link> {
        self.link.as_mut().ok_or_else(|| EngineError::Down("not connected to PostgreSQL".into()))
    }

    /// Has something written whose answer nobody waits for. Nothing but `ADD` has one.
    pub(super) fn stage(&mut self, staged: Staged) {
        self.staged.push(staged);
    }

    /// What the gate is to be shut for, if this is decided ahead of the append lock.
    pub(super) fn basis(&mut self, appends: &Appends<'_>) -> Option<Basis> {
        let Stage::Ahead(events) = &mut self.stage else { return None };
        events.extend(appends.events.iter().map(|new| new.seq.0));
        Some(Basis {
            seq: appends.events.first().map_or(i64::MAX, |new| new.seq.0),
            delivery: appends.deliveries.first().map_or(i64::MAX, |new| new.id),
            event: self.tail,
            objects: appends.objects.clone(),
        })
    }

    /// With where this leaves off.
    pub(super) fn with_numbers(&mut self, staged: Staged) -> Staged {
        let (head, bytes) = (self.head, self.head.bytes - self.written.bytes);
        self.written = head;
        staged.with(head.seq).with(head.event).with(head.delivery).with(bytes)
    }

    /// Asks, after all that was staged, in one round trip: the others wait for the append lock meanwhile. Ahead of it what was staged
    /// waits for the commit, and is asked beside.
    pub(super) fn pipeline(&mut self, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>> {
        if matches!(self.stage, Stage::Ahead(_)) {
            return self.link()?.pipeline_beside(steps);
        }
        let staged = std::mem::take(&mut self.staged);
        let begin = matches!(self.stage, Stage::Outcomes).then(|| Step::script(BEGIN));
        if begin.is_some() {
            self.stage = Stage::Begun { locked: false };
        }
        let before = usize::from(begin.is_some());
        let staged_steps = staged.iter().map(Staged::step);
        let steps: Vec<Step<'_>> = begin.into_iter().chain(staged_steps).chain(steps.iter().cloned()).collect();
        let mut rows = self.link()?.pipeline(&steps)?;
        let asked = rows.split_off(before + staged.len());
        self.take_added(&rows);
        Ok(asked)
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let mut answers = self.pipeline(&[Step::new(sql, params)])?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Catches up with what others brought.
    fn learn(&mut self, first: Option<Step<'_>>, tail: Seq) -> Result<()> {
        let tail = self.ahead.known(tail.0);
        let limits = [limits::REPEAT_WINDOW, limits::HOOK_WINDOW].map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let (hook_tail, (asked, stale)) = (self.hook_tail, std::mem::take(&mut self.asked));
        let since = step(SINCE, [&tail, &limits[0], &hook_tail, &limits[1], &asked, &stale]);
        let steps: Vec<Step<'_>> = first.into_iter().chain([since]).collect();
        let rows = self.pipeline(&steps)?;
        let (events, hooks) = (self.others.len(), self.hooks.len());
        let mut last = tail;
        let rows = rows.last().filter(|rows| rows.iter().any(|row| row.get::<_, i32>(0) == 0));
        for row in rows.ok_or_else(|| EngineError::Down("the table `head` is empty".into()))? {
            let seq = Seq(row.get(1));
            match row.get::<_, i32>(0) {
                0 => self.head = Head { seq: seq.0, event: row.get(2), delivery: row.get(3), bytes: row.get(4) },
                1 => {
                    last = last.max(seq.0);
                    if self.ahead.is_own(seq.0) {
                        continue;
                    }
                    let (dedupe, body_hash) =
                        (row.get::<_, i64>(2).cast_unsigned(), row.get::<_, i64>(3).cast_unsigned());
                    self.others.push(Remembered { seq, dedupe, body_hash });
                    self.touched.push(row.get(4));
                }
                2 => self.hooks.push(RememberedHook { seq, receiver: row.get(2), delivery_id: row.get(5) }),
                _ => drop(self.states.insert(seq.0, Arc::new(read_state(seq.0, row.get(5))))),
            }
        }
        self.ahead.learned(last);
        self.others[events..].sort_unstable_by_key(|event| event.seq);
        self.hooks[hooks..].sort_unstable_by_key(|hook| hook.seq);
        self.hook_tail = self.hooks.last().map_or(self.hook_tail, |hook| hook.seq.0.max(self.hook_tail));
        Ok(())
    }

    pub(super) fn forget(&mut self) {
        self.staged.clear();
        self.added = Added::default();
        self.states.clear();
        self.freed.clear();
        self.news.clear();
        self.wrote = false;
    }

    /// Alone in changing events, states and deliveries, until the commit.
    pub(super) fn begin_locked(&mut self, tail: Seq) -> Result<Begun> {
        // After a longer while something may be pruned already, and has changed its object all the same.
        let behind = self.turn.elapsed() > BEHIND;
        if behind {
            self.asked = Default::default();
            self.learn(None, tail)?;
        }
        self.stage = Stage::Begun { locked: true };
        // A statement of its own: it sees what was there when the lock was taken.
        self.learn(Some(Step::script(BEGIN_LOCKED)), tail)?;
        let begun = self.begun(true);
        Ok(Begun { touched: begun.touched.filter(|_| !behind), ..begun })
    }

    /// Decides ahead of the append lock.
    pub(super) fn begin_ahead(&mut self, tail: Seq) -> Result<Begun> {
        self.stage = Stage::Ahead(Vec::new());
        // In line for the lock first: numbers are to come in the order of that line.
        self.link()?.send(BEGIN_LOCKED)?;
        self.learn(None, tail)?;
        Ok(self.begun(false))
    }

    /// Without the append lock, and without a look at what others brought: the rows of lanes have locks.
    pub(super) fn begin_outcomes(&mut self) -> Begun {
        self.stage = Stage::Outcomes;
        (self.written, self.tail) = (self.head, self.head.event);
        let (seq, delivery) = (Seq(self.head.seq), self.head.delivery);
        Begun { locked: false, seq, delivery, others: Vec::new(), touched: Some(Vec::new()) }
    }

    /// What is known now, of others too.
    fn begun(&mut self, locked: bool) -> Begun {
        let mut others = std::mem::take(&mut self.others);
        let mut touched = Some(std::mem::take(&mut self.touched));
        if !others.is_empty() {
            self.ahead.met_rivals();
        }
        if self.ahead.known(self.head.event) < self.head.event {
            touched = None;
            // It was pruned already, and still may have changed its object; nothing repeats it.
            let (seq, hash) = (Seq(self.head.event), fastrand::u64(..));
            others.push(Remembered { seq, dedupe: hash, body_hash: hash });
            self.ahead.learned(self.head.event);
        }
        (self.written, self.tail) = (self.head, self.head.event);
        self.turn = Instant::now();
        Begun { locked, seq: Seq(self.head.seq), delivery: self.head.delivery, others, touched }
    }

    /// Whether there is a second connection: it can do without.
    pub(super) fn has_beside(&mut self) -> bool {
        let database = Arc::clone(&self.database);
        let opened = self.link().and_then(|link| link.open_beside(&database));
        if let Err(error) = &opened {
            tracing::warn!(%error, "no second connection for writing: replicas append one after the other for a while");
            self.ahead.pause();
        }
        opened.is_ok()
    }

    /// Takes in what adding said. Whether it was let through.
    fn take_added(&mut self, answers: &[Vec<Row>]) -> bool {
        let rows = || answers.iter().flatten();
        let woken = rows().filter_map(|row| row.get::<_, Option<Vec<i64>>>(1)).flatten().map(DestId);
        self.added.woken.extend(woken);
        rows().all(|row| row.get(0))
    }

    /// Sends all of it, and lets it count unless it was overtaken.
    pub(super) fn commit_ahead(&mut self) -> Result<()> {
        let staged = std::mem::take(&mut self.staged);
        let steps: Vec<Step<'_>> = staged.iter().map(Staged::step).chain([Step::script(COMMIT)]).collect();
        self.stage = Stage::Begun { locked: true };
        let rows = self.link()?.pipeline(&steps)?;
        self.stage = Stage::None;
        if self.take_added(&rows) {
            return Ok(());
        }
        self.ahead.was_overtaken();
        Err(EngineError::Overtaken)
    }

    /// Nobody is answered before the flush.
    pub(super) fn commit_begun(&mut self) -> Result<()> {
        let (head, bytes) = (self.head, self.head.bytes - self.written.bytes);
        let mut steps = Vec::new();
        if head != self.written {
            steps.push(step(HEAD, [&head.seq, &head.event, &head.delivery, &bytes]));
        }
        steps.push(Step::script(if self.wrote { COMMIT } else { "COMMIT" }));
        self.pipeline(&steps)?;
        self.stage = Stage::None;
        Ok(())
    }
}
