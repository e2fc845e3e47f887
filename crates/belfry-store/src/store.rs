//! The one type that the rest of Belfry sees.

use std::{
    collections::HashSet,
    fmt,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time, limits,
    plan::{Candidate, ObjectState, RouteRef},
    rollout::Sighting,
};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::{
    OpenError, RedeliverError, Refused, StoreError,
    clean::{clean, clean_settlement, clean_sighting},
    engine::{self, Reader, Writer},
    flush::FlushThread,
    fold::Memory,
    postgres::{self, Database},
    queries::{
        AttemptRow, DeliveryQuery, DeliveryRow, EventQuery, EventRow, ObjectQuery, ObjectRow, Page, RolloutQuery,
        RolloutRow,
    },
    queue::{Answer, Job, Mode, Queue, Task, Watched},
    sqlite,
    stats::{Shared, Stats},
    types::{Appended, Claims, DestId, Finish, LaneId, Options, Redelivered, Room, Settlement},
    writer::WriterThread,
};

/// How often the age of the oldest waiting deliveries is looked up.
const REFRESH: Duration = Duration::from_secs(5);

/// The durable log, object states, lanes and deliveries. Cheap to clone. What is dropped rather than
/// [closed](Store::close) stops as in a crash: what is committed stays, what isn't was never answered.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    pub(crate) reader: Arc<dyn Reader>,
    reads: Semaphore,
    name: String,
    options: Options,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tending: Arc<Tending>,
}

#[derive(Default)]
struct Tending {
    over: Mutex<bool>,
    ended: Condvar,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("head", &*self.0.shared.head.borrow()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.end(Mode::Stopped);
        self.join();
    }
}

impl Inner {
    fn join(&self) {
        *self.tending.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.tending.ended.notify_all();
        self.reader.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has died");
            }
        }
    }
}

impl Store {
    /// Opens the database `belfry.db` in this folder, and makes folder and database if there are none. No two processes
    /// can have it open.
    pub fn open_sqlite(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let (writer, reader) = sqlite::open(folder, &options)?;
        Self::start(Box::new(writer), Arc::new(reader), options)
    }

    /// Opens a PostgreSQL database, which any number of stores may use together, and brings it to the schema of this version.
    pub fn open_postgres(database: &Database, options: Options) -> Result<Self, OpenError> {
        let open = || {
            let (writer, reader) = postgres::open(database, &options)?;
            Self::start(Box::new(writer), Arc::new(reader), options.clone())
        };
        // On a thread of its own: the caller's may belong to a runtime, which connections can't be driven on.
        thread::scope(|scope| scope.spawn(open).join())
            .unwrap_or_else(|_| Err(OpenError::Engine("opening it has died".into())))
    }

    pub(crate) fn start(
        mut writer: Box<dyn Writer>,
        reader: Arc<dyn Reader>,
        options: Options,
    ) -> Result<Self, OpenError> {
        let failed = |error: engine::EngineError| OpenError::Engine(error.to_string());
        let name = reader.name().map_err(failed)?;
        let last = reader.last().map_err(failed)?;
        let now = (options.clock)().max(last.time());
        let mut memory = Memory::new(&options, last);
        let since = Seq(now.before(options.window()).0);
        memory.remember(&reader.recent(since, limits::REPEAT_WINDOW).map_err(failed)?);
        let since = Seq(now.before(limits::HOOK_REPEAT).0);
        memory.learn_hooks(reader.recent_hooks(since, limits::HOOK_WINDOW).map_err(failed)?);
        let shared = Arc::new(Shared::new(last));
        shared.backlog.load(reader.pending().map_err(failed)?);
        let queue = Arc::new(Queue::new());
        let tending = Arc::new(Tending::default());
        let no_thread = |source| OpenError::Engine(format!("no thread: {source}"));
        let mut threads = Vec::new();
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let mut flushes = None;
        if let Some(flusher) = writer.flusher().map_err(failed)? {
            let (thread, handle) = FlushThread::new(flusher, Arc::clone(&queue), Arc::clone(&shared));
            threads.push(named("store-flusher").spawn(|| thread.run()).map_err(no_thread)?);
            flushes = Some(handle);
        }
        let thread =
            WriterThread::new(writer, Arc::clone(&queue), Arc::clone(&shared), memory, options.clone(), flushes);
        threads.push(named("store-writer").spawn(|| thread.run()).map_err(no_thread)?);
        let (tended, tended_by) = (Arc::clone(&reader), Arc::clone(&tending));
        let told = Arc::clone(&shared);
        let tend = move || tend(&*tended, &told, &tended_by);
        match named("store-tender").spawn(tend) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                queue.end(Mode::Stopped);
                return Err(no_thread(source));
            }
        }
        if reader.follows() {
            let (follower, told, asked) = (Arc::clone(&reader), Arc::clone(&shared), Arc::clone(&queue));
            // One that has nothing to write would learn late that it can't.
            let doubted = move || {
                if told.health().is_ok() {
                    asked.push(Job::Flush(oneshot::channel().0));
                }
            };
            let told = Arc::clone(&shared);
            match named("store-follower").spawn(move || follower.follow(&told, &doubted)) {
                Ok(thread) => threads.push(thread),
                Err(source) => {
                    queue.end(Mode::Stopped);
                    return Err(no_thread(source));
                }
            }
        }
        let (threads, reads) = (Mutex::new(threads), Semaphore::new(reader.parallel()));
        Ok(Self(Arc::new(Inner { queue, shared, reader, reads, name, options, threads, tending })))
    }

    /// The name of its database, which no other one has and which never changes. Others meet it in the ids of events that
    /// are passed on, so it can't be guessed either.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How long events are kept.
    pub fn retention_age(&self) -> Duration {
        self.0.options.retention_age
    }

    /// Takes an event in. When this answers `Ok`, the event, its object's new state and its deliveries are durable.
    /// Safe to cancel: the event may or may not be taken in then.
    pub async fn append(&self, mut candidate: Candidate) -> Result<Appended, Refused> {
        clean(&mut candidate);
        let (reply, answer) = oneshot::channel();
        self.push(Job::Append(Box::new(candidate), reply))?;
        answer.await.unwrap_or_else(|_| Err(Refused::Down("it is closed".into())))
    }

    /// Takes in what a watch saw of an object's status, for the CommitStatuses that select the object. Logs it only if it
    /// tells of a rollout what was not known yet, and says as what then. Safe to cancel.
    pub async fn observe(&self, mut sighting: Sighting, routes: Vec<RouteRef>) -> Result<Option<Seq>, Refused> {
        if !sighting.matters() {
            return Ok(None);
        }
        clean_sighting(&mut sighting);
        let body = serde_json::to_vec(&sighting).map_err(|error| Refused::Invalid(error.to_string()))?;
        let (reply, answer) = oneshot::channel();
        self.push(Job::Observe(Box::new(Watched { sighting, routes, body }), reply))?;
        answer.await.unwrap_or_else(|_| Err(Refused::Down("it is closed".into())))
    }

    /// Takes lanes that are due, as many as there is room for at each destination. What is claimed is in flight until a
    /// settlement finishes it or it is released, and that is committed. One claim at a time. Safe to cancel.
    pub async fn claim(&self, rooms: Vec<(DestId, Room)>) -> Result<Claims, StoreError> {
        let (reader, queue) = (Arc::clone(&self.0.reader), Arc::clone(&self.0.queue));
        let now = (self.0.options.clock)();
        let claimed = tokio::task::spawn_blocking(move || {
            let claims = reader.claim(&rooms, now)?;
            Ok::<_, engine::EngineError>(Unclaimed { claims: Some(claims), queue })
        });
        let mut claimed = claimed.await.map_err(|_| died())??;
        let mut claims = claimed.claims.take().unwrap_or_default();
        claims.lanes.retain(|claim| {
            if claim.rows.is_empty() {
                // Due with nothing in it, which should not be: settle that it has nothing.
                let (lane, dest) = (claim.lane, claim.dest);
                self.settle(Settlement { lane, dest, results: Vec::new(), finish: Some(Finish::default()) });
            }
            !claim.rows.is_empty()
        });
        Ok(claims)
    }

    /// Gives a lane back of which nothing was attempted since it was claimed. Never waits.
    pub fn release(&self, lane: LaneId) {
        self.0.queue.push(Job::Release(lane));
    }

    /// Hands outcomes over. Never waits: they go into the next commit, and as long as the store can't write they are
    /// kept, and their lane stays in flight. Those of one lane are written in the order in which they are handed over.
    pub fn settle(&self, settlement: Settlement) {
        self.0.queue.push(Job::Settle(clean_settlement(settlement)));
    }

    /// Waits until everything that was handed over before is durable. While the store can't write this waits for ever.
    pub async fn flush(&self) {
        let (reply, answer) = oneshot::channel();
        self.0.queue.push(Job::Flush(reply));
        let _ = answer.await;
    }

    /// Waits for destinations that may have work that is due, or whose next work is due at another time than the last
    /// claim said: an event came, a lane is free again, something was woken or redelivered. For one caller at a time.
    pub async fn woken(&self) -> HashSet<DestId> {
        self.0.shared.woken().await
    }

    /// Makes everything that waits for a destination due now; what is in flight and fails is due again at once.
    pub async fn wake(&self, dest: DestId) {
        if let Err(error) = self.task(Task::Wake(dest)).await {
            // While the store can't write nothing can be delivered for long either; lanes stay due as they were.
            tracing::warn!(dest = dest.0, %error, "a destination could not be woken");
        }
    }

    /// The destinations that have work, and when the earliest of it is due.
    pub async fn dests(&self) -> Result<Vec<(DestId, ConfigKey, Option<Time>)>, StoreError> {
        self.read(|reader| reader.dests()).await
    }

    /// Takes in which configuration objects there are, from a complete list, each with its last good version, which has
    /// no secrets. What had one and isn't among them is absent from now on: see [`Store::prune`].
    pub async fn config_changed(&self, present: Vec<(ConfigKey, Value)>) -> Result<(), StoreError> {
        let present = present.into_iter().map(|(key, body)| (key, body.to_string())).collect();
        self.task(Task::Config(present)).await.map(drop)
    }

    /// The configuration objects that were there last.
    pub async fn saved_config(&self) -> Result<Vec<(ConfigKey, Value)>, StoreError> {
        let rows = self.read(|reader| reader.saved_config()).await?;
        let parse = |(key, body): (ConfigKey, String)| serde_json::from_str(&body).ok().map(|body| (key, body));
        Ok(rows.into_iter().filter_map(parse).collect())
    }

    /// Deliveries, newest first.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<Page<DeliveryRow>, StoreError> {
        self.read(move |reader| reader.deliveries(&query)).await
    }

    /// The attempts at a delivery, in their order.
    pub async fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>, StoreError> {
        self.read(move |reader| reader.attempts(delivery)).await
    }

    /// Events, newest first, or oldest first after one of them.
    pub async fn events(&self, query: EventQuery) -> Result<Page<EventRow>, StoreError> {
        self.read(move |reader| reader.events(&query)).await
    }

    /// One event.
    pub async fn event(&self, seq: Seq) -> Result<Option<EventRow>, StoreError> {
        self.read(move |reader| reader.event(seq)).await
    }

    /// Rollouts, newest first.
    pub async fn rollouts(&self, query: RolloutQuery) -> Result<Page<RolloutRow>, StoreError> {
        self.read(move |reader| reader.rollouts(&query)).await
    }

    /// One rollout.
    pub async fn rollout(&self, id: Seq) -> Result<Option<RolloutRow>, StoreError> {
        self.read(move |reader| reader.rollout(id)).await
    }

    /// What is known of an object; `None` when nothing was ever heard of it.
    pub async fn object_state(&self, object: &ObjectKey) -> Result<Option<ObjectState>, StoreError> {
        Ok(self.object_states(vec![object.clone()]).await?.pop().flatten())
    }

    /// The same for several objects, in their order.
    pub async fn object_states(&self, objects: Vec<ObjectKey>) -> Result<Vec<Option<ObjectState>>, StoreError> {
        self.read(move |reader| reader.object_states(&objects)).await
    }

    /// The objects that something was heard of, in the order of their names.
    pub async fn objects(&self, query: ObjectQuery) -> Result<Vec<ObjectRow>, StoreError> {
        self.read(move |reader| reader.find_objects(&query)).await
    }

    /// Makes a delivery that is settled once more: as a new one at the end of its lane.
    pub async fn redeliver(&self, delivery: i64) -> Result<Redelivered, RedeliverError> {
        match self.task(Task::Redeliver(delivery)).await? {
            Answer::Redelivered(redelivered) => redelivered,
            Answer::Done | Answer::Count(_) => Err(RedeliverError::Unknown(delivery)),
        }
    }

    /// The last event that is committed; changes with every commit that adds one.
    pub fn head(&self) -> watch::Receiver<Seq> {
        self.0.shared.head.subscribe()
    }

    /// Figures.
    pub fn stats(&self) -> Stats {
        self.0.shared.stats(self.0.queue.depth(), self.0.reader.bytes())
    }

    /// How many deliveries wait for a destination; cheap.
    pub fn waiting(&self, dest: DestId) -> u64 {
        self.0.shared.backlog.count(dest)
    }

    /// Whether the store takes writes; if not, why. After a commit that failed it tries again about every second.
    pub fn health(&self) -> Result<(), String> {
        self.0.shared.health()
    }

    /// Whether an attempt may begin: what is claimed is sure to stay so while it lasts. Always, but for a replica that lost
    /// touch with the others.
    pub fn leased(&self) -> bool {
        self.0.reader.leased()
    }

    /// Writes what was handed over, if it can be written at all, and closes the database. Other clones of this store
    /// answer that it is down from then on.
    pub async fn close(self) {
        self.0.queue.end(Mode::Closing);
        let inner = Arc::clone(&self.0);
        let _ = tokio::task::spawn_blocking(move || inner.join()).await;
    }

    pub(crate) fn push(&self, input: Job) -> Result<(), Refused> {
        self.0.queue.push_input(input).inspect_err(|_| {
            self.0.shared.refused.fetch_add(1, Relaxed);
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Reader) -> engine::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.0.reads.acquire().await.map_err(|_| died())?;
        let reader = Arc::clone(&self.0.reader);
        Ok(tokio::task::spawn_blocking(move || read(&*reader)).await.map_err(|_| died())??)
    }

    pub(crate) async fn task(&self, task: Task) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.queue.push(Job::Task(task, reply));
        answer.await.unwrap_or_else(|_| Err(StoreError::Down("it is closed".into())))
    }
}

fn died() -> StoreError {
    StoreError::Down("a task of the store has died".into())
}

/// Claims on their way to who asked; released if nobody waits for them any more.
struct Unclaimed {
    claims: Option<Claims>,
    queue: Arc<Queue>,
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        for claim in self.claims.iter().flat_map(|claims| &claims.lanes) {
            self.queue.push(Job::Release(claim.lane));
        }
    }
}

/// Keeps the database in shape, beside the writer.
fn tend(reader: &dyn Reader, shared: &Shared, tending: &Tending) {
    let mut refreshed = Instant::now();
    loop {
        let over = tending.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = tending.ended.wait_timeout_while(over, reader.tend_every(), |over| !*over);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        if let Err(error) = reader.tend() {
            tracing::debug!(%error, "the store could not be tended to");
        }
        if refreshed.elapsed() >= REFRESH && (reader.follows() || !shared.backlog.is_empty()) {
            let counted = shared.backlog.turns();
            match reader.pending() {
                Ok(rows) if reader.follows() => shared.backlog.settle(rows, counted),
                Ok(rows) => shared.backlog.refresh(&rows),
                Err(error) => tracing::debug!(%error, "the backlog could not be read"),
            }
            refreshed = Instant::now();
        }
    }
}
