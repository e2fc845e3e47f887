//! The dispatcher: claims lanes that are due, as many as their providers have room for, and drains them side by side.
//! It decides nothing about retries (`belfry_core::decide` does) and renders nothing (`belfry-notify` does).

mod circuits;
mod confirm;
mod lane;
mod notifiers;
mod pace;
mod status;
mod trigger;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, SystemTime},
};

use belfry_core::{ConfigKey, Seq, Time, announcement::Announcement, decide::Turn, limits, notification::Outcome};
use belfry_store::{Claim, DestId, LaneId, Probe, Room, Row, Store};
use futures::future::join_all;
use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::MissedTickBehavior,
};

pub use self::{circuits::Destination, notifiers::Notifiers};

use crate::{
    configuration::Configuration, dispatcher::pace::Pace, environment::Environment, intake::Crowd, metrics::Metrics,
    server::stopped, status_board::StatusBoard,
};

/// How often a Provider that must be mended is looked at for a change that nothing announces, such as of a Secret in a
/// cluster.
const RECHECK: Duration = Duration::from_secs(5);

/// What the dispatcher and its lanes work with.
pub struct Shared {
    store: Store,
    configuration: Arc<Configuration>,
    environment: Arc<dyn Environment>,
    metrics: Arc<Metrics>,
    notifiers: Notifiers,
    public_url: Option<String>,
    board: Arc<StatusBoard>,
    crowd: Arc<Crowd>,
    pace: Pace,
    stop: watch::Receiver<bool>,
    destinations: RwLock<HashMap<DestId, Arc<Destination>>>,
}

/// What [`Shared`] is made of.
pub struct Parts {
    /// Where deliveries wait.
    pub store: Store,
    /// What is in force.
    pub configuration: Arc<Configuration>,
    /// Secrets, and remarks about configuration.
    pub environment: Arc<dyn Environment>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What speaks the providers' protocols.
    pub notifiers: Notifiers,
    /// `--public-url`.
    pub public_url: Option<String>,
    /// What is told of the CommitStatuses.
    pub board: Arc<StatusBoard>,
    /// Who waits to be taken in.
    pub crowd: Arc<Crowd>,
}

/// The Alert or CommitStatus that caused a delivery: what goes wrong with it is said there.
#[derive(Clone, Copy)]
struct Cause<'a> {
    key: &'a ConfigKey,
    uid: &'a Arc<str>,
}

impl Shared {
    /// What a dispatcher works with; the API reads circuits from it.
    pub fn new(parts: Parts, stop: watch::Receiver<bool>) -> Arc<Self> {
        let Parts { store, configuration, environment, metrics, notifiers, public_url, board, crowd } = parts;
        Arc::new(Self {
            store,
            configuration,
            environment,
            metrics,
            notifiers,
            public_url,
            board,
            crowd,
            pace: Pace::new(),
            stop,
            destinations: RwLock::default(),
        })
    }

    /// The Providers that were sent to since the start.
    pub fn destinations(&self) -> Vec<Arc<Destination>> {
        self.destinations.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn destination(&self, id: DestId, key: &Arc<ConfigKey>) -> Arc<Destination> {
        if let Some(known) = self.destinations.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return known.clone();
        }
        let mut all = self.destinations.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Destination::new(id, key, self.store.outage(id).as_ref()));
        all.entry(id).or_insert_with(new).clone()
    }

    /// Where a rollout can be looked at, if `--public-url` says where this process is reached.
    fn link(&self, rollout: Seq) -> Option<String> {
        let base = self.public_url.as_deref()?.trim_end_matches('/');
        Some(format!("{base}/api/v1/rollouts/{}", rollout.0))
    }

    fn now(&self) -> Time {
        now()
    }

    fn suspended(&self, provider: &ConfigKey) -> bool {
        self.configuration.snapshot().provider(provider).is_some_and(|rule| rule.spec.suspend)
    }

    fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits while many events wait to be taken in, for their senders wait too, and no destination does: but not for
    /// ever, and not once so much waits that the backlog's bound is in sight.
    async fn give_way(&self, dest: DestId) {
        if self.crowd.is_there() && self.store.waiting(dest) < limits::PROVIDER_BACKLOG / 2 {
            self.pace.turn().await;
        }
    }

    /// Lets the circuit know, and everyone whom a turn of it concerns.
    async fn record(&self, dest: &Destination, cause: Cause<'_>, row: &Row, outcome: &Outcome, now: Time) {
        let credentials = |status| matches!(status, Some(401 | 403));
        if let Outcome::Misconfigured(failure) = outcome {
            dest.refresh.store(credentials(failure.status), Ordering::Relaxed);
        }
        dest.misconfigured.store(matches!(outcome, Outcome::Misconfigured(_)), Ordering::Relaxed);
        match self.learn(dest, outcome, now).await {
            Turn::None | Turn::PutOff => {}
            Turn::Opened => {
                let error = dest.circuit().error().to_owned();
                tracing::warn!(provider = %dest.key, error, "provider is down; its deliveries wait, and probes go on");
                self.announce_failure(cause, row, &error);
            }
            Turn::Closed => tracing::info!(provider = %dest.key, "provider is back; its backlog is due"),
        }
    }

    /// The peer's Warning about a delivery that did not go out: once per outage and once per dead letter.
    fn announce_failure(&self, cause: Cause<'_>, row: &Row, error: &str) {
        self.environment.announce(Announcement {
            object: cause.key.clone(),
            uid: cause.uid.clone(),
            warning: true,
            reason: "NotificationDispatchFailed",
            message: format!("failed to send notification for {}: {error}", row.object),
            annotations: Default::default(),
        });
    }
}

/// The loop that claims.
pub struct Dispatcher {
    shared: Arc<Shared>,
    queues: HashMap<DestId, Queue>,
    tasks: JoinSet<()>,
    /// What each task drains.
    lanes: HashMap<task::Id, (DestId, LaneId)>,
}

/// What waits for one destination.
#[derive(Default)]
struct Queue {
    /// When its earliest lane is due; `None` when nothing waits.
    due: Option<Time>,
    /// Lanes that are being drained.
    in_flight: u32,
    /// Lanes that were claimed together with them, and are drained as those end: one claim for many.
    ready: VecDeque<Claim>,
    /// Known once something was claimed for it.
    destination: Option<Arc<Destination>>,
    /// The probe that is due is another replica's until then.
    probe_at: Option<Time>,
}

impl Queue {
    /// How much may be claimed now.
    fn room(&self, shared: &Shared, now: Time) -> Option<Room> {
        let due = self.due?;
        let Some(destination) = &self.destination else {
            return (due <= now).then_some(Room { lanes: 1, probe: false });
        };
        if shared.suspended(&destination.key) {
            return None;
        }
        if let Some(probe_at) = self.probe_at(destination) {
            return (self.in_flight == 0 && probe_at <= now).then_some(Room { lanes: 1, probe: true });
        }
        let lanes = self.lacks(shared.width());
        (due <= now && lanes > 0).then_some(Room { lanes, probe: false })
    }

    /// When this replica may make a probe, while nothing else may be made.
    fn probe_at(&self, destination: &Destination) -> Option<Time> {
        destination.circuit().probe_at().map(|at| self.probe_at.map_or(at, |free| at.max(free)))
    }

    /// Lanes that may be claimed, where `width` can be drained at once: as many again are claimed for one claim to serve
    /// many deliveries, and none until a good part of those is drained.
    fn lacks(&self, width: u32) -> u32 {
        let claimed = self.in_flight + self.ready.len() as u32;
        if claimed < width + width.div_ceil(4) { (2 * width).saturating_sub(claimed) } else { 0 }
    }

    /// When to look again, if nothing happens before.
    fn look_at(&self, shared: &Shared) -> Option<Time> {
        let due = self.due?;
        match &self.destination {
            Some(destination) if shared.suspended(&destination.key) => None,
            Some(destination) => match self.probe_at(destination) {
                Some(probe_at) => (self.in_flight == 0).then_some(probe_at),
                None => (self.lacks(shared.width()) > 0).then_some(due),
            },
            None => Some(due),
        }
    }
}

impl Dispatcher {
    /// A dispatcher that knows nothing yet of what waits.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, queues: HashMap::new(), tasks: JoinSet::new(), lanes: HashMap::new() }
    }

    /// Dispatches until it is told to stop, then gives what is in flight [`limits::DRAIN`] to end.
    pub async fn run(mut self) {
        let shared = self.shared.clone();
        let mut stop = shared.stop.clone();
        let mut version = shared.configuration.version();
        let mut recheck = tokio::time::interval(RECHECK);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.resume().await;
        while !shared.stopping() {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.ended(ended);
            }
            if self.claim().await {
                continue;
            }
            let pause = self.pause();
            tokio::select! {
                woken = shared.store.woken() => self.woken(woken),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
                Ok(()) = version.changed() => self.mended(true).await,
                _ = recheck.tick() => self.mended(false).await,
                () = stopped(&mut stop) => {}
            }
        }
        let drain = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limits::DRAIN, drain).await.is_err() {
            tracing::warn!("attempts were still under way at the end of the grace period; they are made again");
        }
    }

    /// Takes up what an earlier process left.
    async fn resume(&mut self) {
        loop {
            match self.shared.store.dests().await {
                Ok(dests) => {
                    for (id, key, due) in dests {
                        let destination = self.shared.destination(id, &Arc::new(key));
                        self.queues.insert(id, Queue { due, destination: Some(destination), ..Queue::default() });
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "can't read what waits for delivery; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn woken(&mut self, woken: impl IntoIterator<Item = DestId>) {
        let now = self.shared.now();
        for id in woken {
            self.queues.entry(id).or_default().due = Some(now);
        }
        for id in self.shared.hear() {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.probe_at = None;
            }
            // What is claimed here and can't be delivered now is given back.
            self.start(id);
        }
    }

    /// Claims what there is room for, and starts to drain it. Whether there was anything.
    async fn claim(&mut self) -> bool {
        let now = self.shared.now();
        let ready: usize = self.queues.values().map(|queue| queue.ready.len()).sum();
        let mut left = limits::DISPATCH_CONCURRENCY.saturating_sub((self.lanes.len() + ready) as u32);
        let mut rooms = Vec::new();
        for (id, queue) in &self.queues {
            if let Some(mut room) = queue.room(&self.shared, now)
                && left > 0
            {
                room.lanes = room.lanes.min(left);
                left -= room.lanes;
                rooms.push((*id, room));
            }
        }
        let probes = self.take_probes(&mut rooms).await;
        if rooms.is_empty() {
            return false;
        }
        let claims = match self.shared.store.claim(rooms).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::error!(%error, "can't claim deliveries; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                return false;
            }
        };
        for (id, due) in claims.next_due {
            self.queues.entry(id).or_default().due = due;
        }
        let any = !claims.lanes.is_empty();
        for claim in claims.lanes {
            let destination = self.shared.destination(claim.dest, &claim.dest_key);
            let queue = self.queues.entry(claim.dest).or_default();
            queue.destination.get_or_insert_with(|| destination.clone());
            queue.ready.push_back(claim);
        }
        let dests: Vec<DestId> = self.queues.iter().filter(|(_, q)| !q.ready.is_empty()).map(|(id, _)| *id).collect();
        dests.into_iter().for_each(|dest| self.start(dest));
        for dest in probes {
            let idle = self.queues.get(&dest).filter(|queue| queue.in_flight == 0);
            if let Some(destination) = idle.and_then(|queue| queue.destination.as_ref()) {
                self.shared.end_probe(destination).await;
            }
        }
        any
    }

    /// Leaves out the probes that are for other replicas to make; says which are for this one.
    async fn take_probes(&mut self, rooms: &mut Vec<(DestId, Room)>) -> Vec<DestId> {
        let due = rooms.iter().filter(|(_, room)| room.probe);
        let due = due.filter_map(|(id, _)| Some((*id, self.queues.get(id)?.destination.clone()?)));
        let shared = &self.shared;
        let asked = due.map(|(id, destination)| async move { (id, shared.begin_probe(&destination).await) });
        let mut ours = Vec::new();
        for (id, probe) in join_all(asked).await {
            match probe {
                Probe::Ours => ours.push(id),
                Probe::NotBefore(at) => self.queues.entry(id).or_default().probe_at = Some(at),
            }
        }
        rooms.retain(|(id, room)| !room.probe || ours.contains(id));
        ours
    }

    /// Drains what was claimed, as far as there is room for it; gives it back where it can't be delivered now.
    fn start(&mut self, dest: DestId) {
        let Some(queue) = self.queues.get_mut(&dest) else { return };
        let Some(destination) = &queue.destination else { return };
        let down = destination.circuit().is_open();
        let most = if down { u32::from(destination.is_probing()) } else { self.shared.width() };
        while queue.in_flight < most
            && let Some(claim) = queue.ready.pop_front()
        {
            queue.in_flight += 1;
            let lane = claim.lane;
            let task = self.tasks.spawn(drain(self.shared.clone(), destination.clone(), claim));
            self.lanes.insert(task.id(), (dest, lane));
        }
        if down {
            queue.ready.drain(..).for_each(|claim| self.shared.store.release(claim.lane));
        }
    }

    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some((dest, lane)) = self.lanes.remove(&id) else { return };
        if let Some(queue) = self.queues.get_mut(&dest) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
        if let Err(error) = ended {
            tracing::error!(%error, "a lane ended unexpectedly; its deliveries are made again");
            self.shared.store.release(lane);
        }
        self.start(dest);
    }

    fn pause(&self) -> Duration {
        let now = self.shared.now();
        let next = self.queues.values().filter_map(|queue| queue.look_at(&self.shared)).min();
        next.map_or(Duration::from_secs(60), |at| at.since(now).max(Duration::from_millis(1)))
    }

    /// Gives another chance, at once, to what did not work and has changed. `all`: the configuration itself did.
    async fn mended(&mut self, all: bool) {
        let snapshot = self.shared.configuration.snapshot();
        if all {
            self.shared.notifiers.retain(|key| snapshot.provider(key).is_some());
        }
        for destination in self.shared.destinations() {
            let failing = destination.circuit().down_since().is_some();
            let misconfigured = destination.misconfigured.load(Ordering::Relaxed);
            let rule = snapshot.provider(&destination.key);
            // What another replica found to be down is compared with what it is now.
            let met = failing && !misconfigured && self.shared.notifiers.meet(rule).await;
            let look = misconfigured || (all && failing && !met);
            let changed = failing && look && self.shared.notifiers.changed(&destination.key, rule).await;
            let held = all && destination.holds.swap(false, Ordering::Relaxed);
            if changed {
                tracing::info!(provider = %destination.key, "the Provider or a Secret of it changed: trying again");
                destination.circuit().reset();
                self.shared.share(&destination, false).await;
                destination.refresh.store(true, Ordering::Relaxed);
            }
            if changed || held {
                self.shared.store.wake(destination.id).await;
            }
        }
    }
}

async fn drain(shared: Arc<Shared>, destination: Arc<Destination>, claim: Claim) {
    lane::drain(shared.clone(), destination.clone(), claim).await;
    shared.end_probe(&destination).await;
}

/// The time of day.
pub fn now() -> Time {
    let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Time(i64::try_from(micros).unwrap_or(i64::MAX))
}
