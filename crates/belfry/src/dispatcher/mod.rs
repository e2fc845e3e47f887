//! The dispatcher: claims lanes that are due, as many as their providers have room for, and drains them side by side.
//! It decides nothing about retries (`belfry_core::decide` does) and renders nothing (`belfry-notify` does).

mod confirm;
mod lane;
mod notifiers;
mod pace;
mod status;
mod trigger;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use belfry_core::{
    ConfigKey, Seq, Time,
    announcement::Announcement,
    decide::{Circuit, Turn},
    limits,
    notification::Outcome,
};
use belfry_store::{Claim, DestId, LaneId, Room, Row, Store};
use tokio::{
    sync::watch,
    task::{self, JoinError, JoinSet},
    time::MissedTickBehavior,
};

pub use notifiers::Notifiers;

use crate::{
    configuration::Configuration, dispatcher::pace::Pace, environment::Environment, intake::Crowd, metrics::Metrics,
    server::stopped, status_board::StatusBoard,
};

/// How often a Provider that must be mended is looked at for a change that nothing announces, such as of a Secret in a
/// cluster.
const RECHECK: Duration = Duration::from_secs(5);

/// Lanes of a destination that are claimed beyond those that can be drained at once.
const READY: u32 = limits::PROVIDER_CONCURRENCY;

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

/// A Provider as the dispatcher knows it.
pub struct Destination {
    /// Its number in the store.
    pub id: DestId,
    /// Its name.
    pub key: Arc<ConfigKey>,
    circuit: Mutex<Circuit>,
    /// Its last failure was one that only a change of the configuration mends.
    misconfigured: AtomicBool,
    /// Its Secrets are to be read anew: the last answer said that the credentials are wrong.
    refresh: AtomicBool,
    /// Deliveries of it wait for a suspended or missing Alert.
    holds: AtomicBool,
}

impl Destination {
    /// Its circuit.
    pub fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }

    fn take_refresh(&self) -> bool {
        self.refresh.swap(false, Ordering::Relaxed)
    }
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
        let new = || {
            Arc::new(Destination {
                id,
                key: key.clone(),
                circuit: Mutex::default(),
                misconfigured: AtomicBool::new(false),
                refresh: AtomicBool::new(false),
                holds: AtomicBool::new(false),
            })
        };
        let mut all = self.destinations.write().unwrap_or_else(PoisonError::into_inner);
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
        let turn = dest.circuit().record(outcome, now, fastrand::f64());
        match turn {
            Turn::None => {}
            Turn::Opened => {
                let error = dest.circuit().error().to_owned();
                tracing::warn!(provider = %dest.key, error, "provider is down; its deliveries wait, and probes go on");
                self.announce_failure(cause, row, &error);
            }
            Turn::Closed => {
                tracing::info!(provider = %dest.key, "provider is back; its backlog is due");
                self.store.wake(dest.id).await;
            }
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
        if let Some(probe_at) = destination.circuit().probe_at() {
            return (self.in_flight == 0 && probe_at <= now).then_some(Room { lanes: 1, probe: true });
        }
        let lanes = self.lacks();
        (due <= now && lanes > 0).then_some(Room { lanes, probe: false })
    }

    /// Lanes that may be claimed: none until a good part of those that were claimed last is drained.
    fn lacks(&self) -> u32 {
        let claimed = self.in_flight + self.ready.len() as u32;
        let full = limits::PROVIDER_CONCURRENCY + READY;
        if claimed < limits::PROVIDER_CONCURRENCY + READY / 4 { full - claimed } else { 0 }
    }

    /// When to look again, if nothing happens before.
    fn look_at(&self, shared: &Shared) -> Option<Time> {
        let due = self.due?;
        match &self.destination {
            Some(destination) if shared.suspended(&destination.key) => None,
            Some(destination) => match destination.circuit().probe_at() {
                Some(probe_at) => (self.in_flight == 0).then_some(probe_at),
                None => (self.lacks() > 0).then_some(due),
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
        any
    }

    /// Drains what was claimed, as far as there is room for it; gives it back where it can't be delivered now.
    fn start(&mut self, dest: DestId) {
        let Some(queue) = self.queues.get_mut(&dest) else { return };
        let Some(destination) = &queue.destination else { return };
        let down = destination.circuit().is_open();
        let most = if down { 1 } else { limits::PROVIDER_CONCURRENCY };
        while queue.in_flight < most
            && let Some(claim) = queue.ready.pop_front()
        {
            queue.in_flight += 1;
            let lane = claim.lane;
            let task = self.tasks.spawn(lane::drain(self.shared.clone(), destination.clone(), claim));
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
            let look = destination.misconfigured.load(Ordering::Relaxed) || (all && failing);
            let changed = failing
                && look
                && self.shared.notifiers.changed(&destination.key, snapshot.provider(&destination.key)).await;
            let held = all && destination.holds.swap(false, Ordering::Relaxed);
            if changed {
                tracing::info!(provider = %destination.key, "the Provider or a Secret of it changed: trying again");
                destination.circuit().reset();
                destination.refresh.store(true, Ordering::Relaxed);
            }
            if changed || held {
                self.shared.store.wake(destination.id).await;
            }
        }
    }
}

/// The time of day.
pub fn now() -> Time {
    let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Time(i64::try_from(micros).unwrap_or(i64::MAX))
}
