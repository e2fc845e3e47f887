//! Writing: transactions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use belfry_core::{ConfigKey, ObjectKey, Seq, Time, limits, plan::ObjectState};

use tokio_postgres::Row;

use super::{
    APPEND_LOCK, CHANNEL,
    append::read_state,
    flight::Flight,
    link::{Link, Param, Staged, Step, step},
    place::Database,
    voice::Voice,
};
use crate::{
    RedeliverError,
    engine::{
        Added, Appends, Begun, EngineError, ObjectRow, Prunable, Remembered, RememberedHook, Result, Settled, Writer,
    },
    types::{DestId, LaneId, Redelivered, Settlement},
};

/// After so long without a turn there may be much to catch up with: that is done before the lock is taken.
const BEHIND: Duration = Duration::from_secs(1);
/// Written to make sure that all before it is on disk; leaves nothing behind but itself in the log.
const FLUSH: &str = "SELECT pg_logical_emit_message(true, 'belfry', '')";
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

/// The writing half.
pub(crate) struct PgWriter {
    database: Arc<Database>,
    link: Option<Link>,
    pub(super) flight: Arc<Flight>,
    voice: Arc<Voice>,
    /// What the row of `head` says, and what it is to say.
    pub(super) head: Head,
    before: Head,
    /// Webhooks up to here are known.
    hook_tail: i64,
    hooks: Vec<RememberedHook>,
    /// Objects that others brought events of.
    touched: Vec<i64>,
    turn: Instant,
    /// Objects whose states are to be read along with the next beginning, and which of them are stale.
    asked: (Vec<i64>, Vec<bool>),
    /// States that were read in this transaction.
    states: HashMap<i64, Arc<ObjectState>>,
    /// What is written with whatever is asked next, or with the commit.
    staged: Vec<Staged>,
    /// What appending did.
    pub(super) added: Added,
    /// Lanes that are free once this is committed.
    pub(super) freed: Vec<LaneId>,
    /// Destinations that others may look at once this is committed.
    pub(super) news: BTreeSet<DestId>,
    /// Something was written.
    pub(super) wrote: bool,
    /// A transaction was begun.
    open: bool,
}

/// The last numbers, and what the log takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub seq: i64,
    pub event: i64,
    pub delivery: i64,
    pub bytes: i64,
}

impl PgWriter {
    pub(super) fn new(database: Arc<Database>, link: Link, flight: Arc<Flight>, voice: Arc<Voice>, seq: i64) -> Self {
        Self {
            database,
            link: Some(link),
            flight,
            voice,
            head: Head::default(),
            before: Head::default(),
            hook_tail: seq,
            hooks: Vec::new(),
            touched: Vec::new(),
            turn: Instant::now(),
            asked: Default::default(),
            states: HashMap::new(),
            staged: Vec::new(),
            added: Added::default(),
            freed: Vec::new(),
            news: BTreeSet::new(),
            wrote: false,
            open: false,
        }
    }

    fn link(&mut self) -> Result<&mut Link> {
        self.link.as_mut().ok_or_else(|| EngineError::Down("not connected to PostgreSQL".into()))
    }

    /// Has something written whose answer nobody waits for. Nothing but `ADD` has one.
    pub(super) fn stage(&mut self, staged: Staged) {
        self.staged.push(staged);
    }

    /// Asks, after all that was staged, in one round trip: the others wait for the append lock meanwhile.
    pub(super) fn pipeline(&mut self, steps: &[Step<'_>]) -> Result<Vec<Vec<Row>>> {
        let staged = std::mem::take(&mut self.staged);
        let steps: Vec<Step<'_>> = staged.iter().map(Staged::step).chain(steps.iter().cloned()).collect();
        let mut rows = self.link()?.pipeline(&steps)?;
        let asked = rows.split_off(staged.len());
        self.added.woken.extend(rows.iter().flatten().map(|row| DestId(row.get(0))));
        Ok(asked)
    }

    pub(super) fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        let mut answers = self.pipeline(&[Step::new(sql, params)])?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// Catches up with what others brought.
    fn learn(&mut self, first: Option<Step<'_>>, tail: i64, others: &mut Vec<Remembered>) -> Result<()> {
        let limits = [limits::REPEAT_WINDOW, limits::HOOK_WINDOW].map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let (hook_tail, (asked, stale)) = (self.hook_tail, std::mem::take(&mut self.asked));
        let since = step(SINCE, [&tail, &limits[0], &hook_tail, &limits[1], &asked, &stale]);
        let steps: Vec<Step<'_>> = first.into_iter().chain([since]).collect();
        let rows = self.link()?.pipeline(&steps)?;
        let (events, hooks) = (others.len(), self.hooks.len());
        let rows = rows.last().filter(|rows| rows.iter().any(|row| row.get::<_, i32>(0) == 0));
        for row in rows.ok_or_else(|| EngineError::Down("the table `head` is empty".into()))? {
            let seq = Seq(row.get(1));
            match row.get::<_, i32>(0) {
                0 => self.head = Head { seq: seq.0, event: row.get(2), delivery: row.get(3), bytes: row.get(4) },
                1 => {
                    let (dedupe, body_hash) =
                        (row.get::<_, i64>(2).cast_unsigned(), row.get::<_, i64>(3).cast_unsigned());
                    others.push(Remembered { seq, dedupe, body_hash });
                    self.touched.push(row.get(4));
                }
                2 => self.hooks.push(RememberedHook { seq, receiver: row.get(2), delivery_id: row.get(5) }),
                _ => drop(self.states.insert(seq.0, Arc::new(read_state(seq.0, row.get(5))))),
            }
        }
        others[events..].sort_unstable_by_key(|event| event.seq);
        self.hooks[hooks..].sort_unstable_by_key(|hook| hook.seq);
        self.hook_tail = self.hooks.last().map_or(self.hook_tail, |hook| hook.seq.0.max(self.hook_tail));
        Ok(())
    }

    fn forget(&mut self) {
        self.staged.clear();
        self.added = Added::default();
        self.states.clear();
        self.freed.clear();
        self.news.clear();
        self.wrote = false;
    }
}

impl Writer for PgWriter {
    fn foresee(&mut self, objects: Vec<(i64, bool)>) {
        self.asked = objects.into_iter().unzip();
    }

    fn begin(&mut self, tail: Seq) -> Result<Begun> {
        self.forget();
        let mut others = Vec::new();
        let behind = self.turn.elapsed() > BEHIND;
        if behind {
            self.asked = Default::default();
            self.learn(None, tail.0, &mut others)?;
        }
        let tail = others.last().map_or(tail.0, |event: &Remembered| event.seq.0);
        let begin = format!("BEGIN; SET LOCAL synchronous_commit = off; {APPEND_LOCK}");
        self.open = true;
        // A statement of its own: it sees what was there when the lock was taken.
        self.learn(Some(Step::script(&begin)), tail, &mut others)?;
        self.before = self.head;
        let known = others.last().map_or(tail, |event| event.seq.0);
        // Of what came in a longer while something may be pruned already, and has changed its object all the same.
        let mut touched = Some(std::mem::take(&mut self.touched)).filter(|_| !behind);
        if known < self.head.event {
            touched = None;
            // It was pruned already, and still may have changed its object; nothing repeats it.
            let (seq, hash) = (Seq(self.head.event), fastrand::u64(..));
            others.push(Remembered { seq, dedupe: hash, body_hash: hash });
        }
        self.turn = Instant::now();
        Ok(Begun { seq: Seq(self.head.seq), delivery: self.head.delivery, others, touched })
    }

    fn other_hooks(&mut self) -> Vec<RememberedHook> {
        std::mem::take(&mut self.hooks)
    }

    fn objects(&mut self, keys: &[&ObjectKey]) -> Result<Vec<ObjectRow>> {
        self.know_objects(keys)
    }

    fn states(&mut self, objects: &[i64]) -> Result<Vec<Arc<ObjectState>>> {
        let missing: Vec<i64> = objects.iter().copied().filter(|object| !self.states.contains_key(object)).collect();
        if !missing.is_empty() {
            let found = self.find_states(&missing)?;
            self.states.extend(missing.into_iter().zip(found));
        }
        Ok(objects.iter().filter_map(|object| self.states.get(object).cloned()).collect())
    }

    fn configs(&mut self, keys: &[&ConfigKey]) -> Result<Vec<i64>> {
        self.know_configs(keys)
    }

    fn sent(&mut self, ids: &[(u64, &str)]) -> Result<Vec<Option<Seq>>> {
        self.find_sent(ids)
    }

    fn waiting(&mut self, lanes: &[LaneId]) -> Result<std::collections::HashSet<LaneId>> {
        self.find_waiting(lanes)
    }

    fn append(&mut self, appends: &Appends<'_>, now: Time) -> Result<Added> {
        self.wrote = true;
        self.add(appends, now)?;
        Ok(Added::default())
    }

    fn settle(&mut self, settlement: &Settlement, now: Time) -> Result<Settled> {
        Ok(self.settle_all(&[settlement], now)?.pop().unwrap_or_default())
    }

    fn settle_all(&mut self, settlements: &[&Settlement], now: Time) -> Result<Vec<Settled>> {
        self.wrote = true;
        self.write_settlements(settlements, now)
    }

    fn release(&mut self, lane: LaneId) -> Result<Option<DestId>> {
        Ok(self.release_all(&[lane])?.pop())
    }

    fn release_all(&mut self, lanes: &[LaneId]) -> Result<Vec<DestId>> {
        self.wrote = true;
        self.give_back(lanes)
    }

    fn wake(&mut self, dest: DestId, now: Time) -> Result<()> {
        self.wrote = true;
        self.news.insert(dest);
        self.query(
            "UPDATE lane SET due = least(due, $2), woken = owner IS NOT NULL
             WHERE dest = $1 AND due IS NOT NULL AND (due > $2 OR owner IS NOT NULL)",
            &[&dest.0, &now.0],
        )?;
        Ok(())
    }

    fn redeliver(
        &mut self,
        delivery: i64,
        id: i64,
        now: Time,
    ) -> Result<std::result::Result<(Redelivered, u64), RedeliverError>> {
        self.wrote = true;
        self.write_again(delivery, id, now)
    }

    fn config(&mut self, present: &[(ConfigKey, String)], now: Time) -> Result<()> {
        self.wrote = true;
        self.write_config(present, now)
    }

    fn forget(&mut self, config: i64) -> Result<()> {
        self.wrote = true;
        self.query("UPDATE config SET body = NULL WHERE id = $1 AND absent IS NOT NULL", &[&config])?;
        Ok(())
    }

    fn kill(&mut self, deliveries: &[i64], reason: &str, now: Time) -> Result<Vec<(DestId, u64)>> {
        self.wrote = true;
        self.give_up(deliveries, reason, now)
    }

    fn prune(&mut self, events: &[Seq], which: Prunable) -> Result<u64> {
        self.wrote = true;
        self.remove_events(events, which)
    }

    fn prune_lanes(&mut self, lanes: &[LaneId], before: Time) -> Result<u64> {
        self.wrote = true;
        let ids: Vec<i64> = lanes.iter().map(|lane| lane.0).collect();
        let sql = "DELETE FROM lane WHERE id = ANY($1) AND due IS NULL AND owner IS NULL AND tail < $2 RETURNING 1";
        Ok(self.query(sql, &[&ids, &before.0])?.len() as u64)
    }

    fn prune_rollouts(&mut self, rollouts: &[Seq]) -> Result<u64> {
        self.wrote = true;
        self.remove_rollouts(rollouts)
    }

    fn prune_hooks(&mut self, before: Seq) -> Result<u64> {
        self.wrote = true;
        self.remove_hooks(before)
    }

    /// The lock is let go before the flush, and nobody is answered before it.
    fn commit(&mut self) -> Result<()> {
        let head = self.head;
        let mut steps = Vec::new();
        if head != self.before {
            let sql = "UPDATE head SET seq = $1, event = $2, delivery = $3, bytes = $4";
            steps.push(step(sql, [&head.seq, &head.event, &head.delivery, &head.bytes]));
        }
        let commit = format!("COMMIT; {}", if self.wrote { FLUSH } else { "" });
        steps.push(Step::script(&commit));
        self.pipeline(&steps)?;
        self.open = false;
        self.hook_tail = self.head.seq;
        self.flight.free(self.freed.drain(..));
        self.news.extend(&self.added.woken);
        if !self.news.is_empty() || head.event != self.before.event {
            self.voice.say(head.event, std::mem::take(&mut self.news));
        }
        Ok(())
    }

    fn added(&mut self) -> Added {
        std::mem::take(&mut self.added)
    }

    fn rollback(&mut self) {
        PgWriter::forget(self);
        let open = std::mem::take(&mut self.open);
        if let Some(link) = &mut self.link
            && (link.is_broken() || (open && link.batch("ROLLBACK").is_err()))
        {
            self.link = None;
        }
    }

    fn vacuum(&mut self) -> Result<()> {
        Ok(())
    }

    fn probe(&mut self) -> Result<()> {
        self.rollback();
        if self.link.is_none() {
            self.link = Some(Link::open(&self.database)?);
        }
        self.link()?.query(FLUSH, &[]).map(drop)
    }

    /// What is in flight is given back: whoever takes it next knows that an attempt may have been under way.
    fn close(&mut self) {
        self.rollback();
        let Some(owner) = self.flight.close() else { return };
        let lanes = "UPDATE lane SET owner = NULL, first = NULL, woken = FALSE, doubt = TRUE
             WHERE due IS NOT NULL AND owner = $1";
        let notice = format!("{}::*", self.voice.name());
        let steps = [
            step("DELETE FROM replica WHERE id = $1", [&owner]),
            step(lanes, [&owner]),
            step("SELECT pg_notify($1, $2)", [&CHANNEL, &notice]),
        ];
        if let Err(error) = self.link().and_then(|link| link.pipeline(&steps)) {
            tracing::warn!(%error, "what is in flight could not be given back: others take it over in a while");
        }
        self.link = None;
    }
}
