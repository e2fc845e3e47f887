//! Writing: transactions.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use belfry_core::{ConfigKey, ObjectKey, Seq, Time, plan::ObjectState};

use super::{
    CHANNEL,
    ahead::Ahead,
    flight::Flight,
    link::{Link, Staged, step},
    place::Database,
    voice::Voice,
};
use crate::{
    RedeliverError,
    engine::{Added, Appends, Begun, Load, ObjectRow, Prunable, Remembered, RememberedHook, Result, Settled, Writer},
    types::{DestId, LaneId, Redelivered, Settlement},
};

/// The writing half.
pub(crate) struct PgWriter {
    pub(super) database: Arc<Database>,
    pub(super) link: Option<Link>,
    pub(super) flight: Arc<Flight>,
    pub(super) voice: Arc<Voice>,
    /// What the row of `head` says, and what it is to say.
    pub(super) head: Head,
    /// What of it is written.
    pub(super) written: Head,
    /// The last event when this was begun.
    pub(super) tail: i64,
    /// Webhooks up to here are known.
    pub(super) hook_tail: i64,
    pub(super) hooks: Vec<RememberedHook>,
    /// Events that others brought, and their objects.
    pub(super) others: Vec<Remembered>,
    pub(super) touched: Vec<i64>,
    pub(super) turn: Instant,
    /// Objects whose states are to be read along with the next beginning, and which of them are stale.
    pub(super) asked: (Vec<i64>, Vec<bool>),
    /// States that were read in this transaction.
    pub(super) states: HashMap<i64, Arc<ObjectState>>,
    /// What is written with whatever is asked next, or with the commit.
    pub(super) staged: Vec<Staged>,
    /// What appending did.
    pub(super) added: Added,
    /// Lanes that are free once this is committed.
    pub(super) freed: Vec<LaneId>,
    /// Destinations that others may look at once this is committed.
    pub(super) news: BTreeSet<DestId>,
    /// Something was written.
    pub(super) wrote: bool,
    /// Where the transaction stands.
    pub(super) stage: Stage,
    pub(super) ahead: Ahead,
}

/// What a transaction has come to.
#[derive(Debug, Default)]
pub(super) enum Stage {
    #[default]
    None,
    /// It is begun, and perhaps holds the append lock.
    Begun { locked: bool },
    /// It is to be begun by what is sent first, without the append lock.
    Outcomes,
    /// What is to be written is decided ahead of the append lock: these events, among it.
    Ahead(Vec<i64>),
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
            written: Head::default(),
            tail: 0,
            hook_tail: seq,
            hooks: Vec::new(),
            others: Vec::new(),
            touched: Vec::new(),
            turn: Instant::now(),
            asked: Default::default(),
            states: HashMap::new(),
            staged: Vec::new(),
            added: Added::default(),
            freed: Vec::new(),
            news: BTreeSet::new(),
            wrote: false,
            stage: Stage::None,
            ahead: Ahead::default(),
        }
    }
}

impl Writer for PgWriter {
    fn foresee(&mut self, objects: Vec<(i64, bool)>) {
        self.asked = objects.into_iter().unzip();
    }

    fn begin(&mut self, tail: Seq, load: Load) -> Result<Begun> {
        PgWriter::forget(self);
        match load {
            Load::Outcomes if self.ahead.is_contended() => Ok(self.begin_outcomes()),
            Load::Events if self.ahead.pays() && self.has_beside() => self.begin_ahead(tail),
            _ => self.begin_locked(tail),
        }
    }

    fn is_contended(&self) -> bool {
        self.ahead.is_contended()
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
            "WITH found AS MATERIALIZED (
                 SELECT id FROM lane WHERE dest = $1 AND due IS NOT NULL AND (due > $2 OR owner IS NOT NULL)
                 ORDER BY kind = 0, id FOR UPDATE)
             UPDATE lane SET due = least(due, $2), woken = owner IS NOT NULL FROM found WHERE lane.id = found.id",
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

    fn commit(&mut self) -> Result<()> {
        match &mut self.stage {
            Stage::Ahead(events) => {
                let events = std::mem::take(events);
                self.commit_ahead()?;
                self.ahead.appended(events);
            }
            Stage::Begun { locked: true } => {
                self.commit_begun()?;
                self.ahead.learned(self.head.event);
                self.hook_tail = self.head.seq;
            }
            Stage::Begun { locked: false } | Stage::Outcomes | Stage::None => self.commit_begun()?,
        }
        self.ahead.arrived();
        let head = self.head;
        self.flight.free(self.freed.drain(..));
        self.news.extend(&self.added.woken);
        if !self.news.is_empty() || head.event != self.tail {
            self.voice.say(head.event, std::mem::take(&mut self.news));
        }
        Ok(())
    }

    fn added(&mut self) -> Added {
        std::mem::take(&mut self.added)
    }

    fn rollback(&mut self) {
        PgWriter::forget(self);
        let begun = matches!(std::mem::take(&mut self.stage), Stage::Begun { .. } | Stage::Ahead(_));
        if let Some(link) = &mut self.link
            && (link.is_broken() || (begun && link.batch("ROLLBACK").is_err()))
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
            self.link = Some(Link::open_writing(&self.database)?);
        }
        self.link()?.batch("EXECUTE flush")
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
