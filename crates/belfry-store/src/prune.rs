//! What keeps the store small: retention, backlog bounds, and the end of deliveries whose Provider or route was deleted.
//! Everything is found by reading, and written in small steps between other writes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use belfry_core::{ConfigKind, Seq, Time};

use crate::{
    Store, StoreError,
    engine::{Gone, Prunable, Scope},
    queue::{Answer, Task},
    stats::Pending,
    types::{DestId, LaneId},
};

/// Events removed in one step.
const STEP: u32 = 50;
/// Bytes of bodies after which a step ends.
const STEP_BYTES: u64 = 4 << 20;
/// Deliveries given up, or lanes removed, in one step.
const WIDE_STEP: u32 = 500;
/// How long a configuration object must have been absent to count as deleted.
const ABSENT: Duration = Duration::from_secs(60);
/// Free space that isn't worth giving back.
const FREE: u64 = 4 << 20;

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events removed, with their deliveries.
    pub events: u64,
    /// Rollouts removed.
    pub rollouts: u64,
    /// Webhooks removed, with their triggers.
    pub hooks: u64,
    /// Deliveries given up because too many waited.
    pub backlog: u64,
    /// Deliveries given up because their Provider or Alert was deleted.
    pub deleted: u64,
}

impl Store {
    /// One pass of upkeep; call it about every minute. Of several replicas one does it. Events go when they are too old, or too many for
    /// the space allowed, but never while one of their deliveries is still to be made; for space, those with dead letters
    /// go last. Rollouts go after what last changed them, but for the newest of each object.
    pub async fn prune(&self) -> Result<Pruned, StoreError> {
        if !self.leads().await? {
            return Ok(Pruned::default());
        }
        if self.read(|reader| Ok(reader.follows())).await? {
            // What the others brought and settled counts too.
            let turns = self.shared().backlog.turns();
            self.shared().backlog.settle(self.read(|reader| reader.pending()).await?, turns);
        }
        let now = (self.options().clock)();
        let deleted = self.end_deleted(now).await?;
        let backlog = self.bound_backlogs().await?;
        let old = self.prune_old(now).await?;
        let (large, last) = self.prune_large().await?;
        let horizon = now.before(self.options().retention_age);
        let rollouts = self.prune_rollouts(Seq(horizon.0.max(last.0.saturating_add(1)))).await?;
        let hooks = self.count(Task::PruneHooks { before: Seq(horizon.0) }).await?;
        let pruned = Pruned { deleted, backlog, events: old + large, rollouts, hooks };
        self.prune_lanes(now).await?;
        self.vacuum().await?;
        Ok(pruned)
    }

    /// Whether upkeep is this replica's. A pass takes its time, and asks before each step: whoever was taken for dead has been
    /// followed by another.
    async fn leads(&self) -> Result<bool, StoreError> {
        self.read(|reader| reader.leads()).await
    }

    async fn count(&self, task: Task) -> Result<u64, StoreError> {
        Ok(if let Answer::Count(count) = self.task(task).await? { count } else { 0 })
    }

    async fn kill(&self, deliveries: &[i64], reason: &str) -> Result<u64, StoreError> {
        let mut killed = 0;
        for step in deliveries.chunks(WIDE_STEP as usize) {
            if !self.leads().await? {
                break;
            }
            killed += self.count(Task::Kill { deliveries: step.to_vec(), reason: reason.to_owned() }).await?;
        }
        Ok(killed)
    }

    async fn end_deleted(&self, now: Time) -> Result<u64, StoreError> {
        let mut killed = 0;
        for Gone { id, key } in self.read(move |reader| reader.gone(now.before(ABSENT))).await? {
            let scope = match key.kind {
                ConfigKind::Provider => Scope::Dests(vec![DestId(id)]),
                ConfigKind::Alert | ConfigKind::CommitStatus | ConfigKind::Receiver => Scope::Route(id),
                ConfigKind::Cluster => continue,
            };
            let (victims, in_flight) = self.read(move |reader| reader.victims(&scope, u64::MAX)).await?;
            let ended = self.kill(&victims, &format!("deleted: {key} was deleted")).await?;
            killed += ended;
            // What is in flight, or was claimed in the meantime, is for the next pass.
            if !in_flight && ended == victims.len() as u64 {
                self.task(Task::Forget(id)).await?;
            }
        }
        Ok(killed)
    }

    async fn bound_backlogs(&self) -> Result<u64, StoreError> {
        let (by_provider, by_namespace) = (self.options().provider_backlog, self.options().namespace_backlog);
        let mut killed = 0;
        for (dest, pending) in self.shared().backlog.get() {
            killed += self.bound(vec![dest], pending.count, by_provider).await?;
        }
        let mut namespaces: HashMap<_, (Vec<DestId>, u64)> = HashMap::new();
        for (dest, Pending { key, count, .. }) in self.shared().backlog.get() {
            let (dests, total) = namespaces.entry(key.namespace.clone()).or_default();
            dests.push(dest);
            *total += count;
        }
        for (dests, total) in namespaces.into_values() {
            killed += self.bound(dests, total, by_namespace).await?;
        }
        Ok(killed)
    }

    async fn bound(&self, dests: Vec<DestId>, count: u64, bound: u64) -> Result<u64, StoreError> {
        let excess = count.saturating_sub(bound);
        if excess == 0 {
            return Ok(0);
        }
        let scope = Scope::Dests(dests);
        let (victims, _) = self.read(move |reader| reader.victims(&scope, excess)).await?;
        self.kill(&victims, "backlog full").await
    }

    async fn prune_old(&self, now: Time) -> Result<u64, StoreError> {
        let before = Seq(now.before(self.options().retention_age).0);
        let mut after = Seq(i64::MIN);
        let mut pruned = self.read(move |reader| reader.prune_whole(before)).await?;
        while let Some((last, count)) = self.prune_step(after, before, Prunable::Settled, STEP_BYTES).await? {
            after = last;
            pruned += count;
        }
        Ok(pruned)
    }

    /// Says how many went, and which was the last.
    async fn prune_large(&self) -> Result<(u64, Seq), StoreError> {
        let (mut after, mut pruned, mut which) = (Seq(i64::MIN), 0, Prunable::SettledWell);
        let mut furthest = after;
        loop {
            let excess = self.read(|reader| reader.size()).await?.used.saturating_sub(self.options().retention_bytes);
            if excess == 0 {
                return Ok((pruned, furthest));
            }
            match (self.prune_step(after, Seq(i64::MAX), which, excess.min(STEP_BYTES)).await?, which) {
                (Some((last, count)), _) => {
                    after = last;
                    furthest = furthest.max(last);
                    pruned += count;
                }
                (None, Prunable::SettledWell) => (after, which) = (Seq(i64::MIN), Prunable::Settled),
                (None, Prunable::Settled) => return Ok((pruned, furthest)),
            }
        }
    }

    /// Removes some events, at least one, until their bodies come to so many bytes. Says which was the last and how many
    /// went.
    async fn prune_step(
        &self,
        after: Seq,
        before: Seq,
        which: Prunable,
        bytes: u64,
    ) -> Result<Option<(Seq, u64)>, StoreError> {
        if !self.leads().await? {
            return Ok(None);
        }
        let found = self.read(move |reader| reader.prunable(after, before, which, STEP)).await?;
        let mut sum = 0;
        let enough = |(_, size): &&(Seq, u64)| {
            let more = sum < bytes;
            sum += size;
            more
        };
        let events: Vec<Seq> = found.iter().take_while(enough).map(|(seq, _)| *seq).collect();
        let Some(last) = events.last().copied() else { return Ok(None) };
        let started = Instant::now();
        let count = self.count(Task::Prune { events, which }).await?;
        // Half of the time is left to others, however much there is to remove.
        tokio::time::sleep(started.elapsed()).await;
        Ok(Some((last, count)))
    }

    async fn prune_rollouts(&self, before: Seq) -> Result<u64, StoreError> {
        let (mut after, mut pruned) = (Seq(i64::MIN), 0);
        loop {
            if !self.leads().await? {
                return Ok(pruned);
            }
            let unneeded = self.read(move |reader| reader.prunable_rollouts(after, before, WIDE_STEP)).await?;
            let Some(last) = unneeded.last() else { return Ok(pruned) };
            after = *last;
            pruned += self.count(Task::PruneRollouts(unneeded)).await?;
        }
    }

    async fn prune_lanes(&self, now: Time) -> Result<(), StoreError> {
        let before = now.before(self.options().retention_age);
        let mut after = LaneId(i64::MIN);
        while self.leads().await? {
            let lanes = self.read(move |reader| reader.idle_lanes(after, before, WIDE_STEP)).await?;
            let Some(last) = lanes.last() else { break };
            after = *last;
            self.task(Task::PruneLanes { lanes, before }).await?;
        }
        Ok(())
    }

    /// Gives space back, but keeps a tenth: a log that is pruned all the time needs it again.
    async fn vacuum(&self) -> Result<(), StoreError> {
        let mut free = u64::MAX;
        loop {
            let size = self.read(|reader| reader.size()).await?;
            if size.free >= free || size.free <= FREE.max(size.used / 10) {
                return Ok(());
            }
            free = size.free;
            self.task(Task::Vacuum).await?;
        }
    }
}
