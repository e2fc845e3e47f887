//! The writer thread: takes what waits, decides and writes it in one transaction, and only then tells anyone.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use belfry_core::{Time, limits, plan::RouteRef};

use crate::{
    Refused, StoreError,
    engine::{Added, Begun, EngineError, Load, Result, Writer},
    flush::{Committed, Done, Flushes, refuse},
    fold::{Folded, Input, Memory, Numbers},
    queue::{Answer, Job, Mode, Queue, Task},
    stats::Shared,
    types::{DestId, LaneId, Options, Redelivered, Settlement},
};

/// How long after a failure the next try comes.
const PROBE: Duration = Duration::from_secs(1);
/// The longest wait for a batch to fill.
const LINGER: Duration = Duration::from_micros(500);

/// The only one who writes.
pub(crate) struct WriterThread {
    engine: Box<dyn Writer>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    memory: Memory,
    options: Options,
    /// Outcomes that could not be written yet, in their order.
    kept: VecDeque<Job>,
    /// It is down; when to try again.
    down: Option<(String, Instant)>,
    /// How many jobs the next batch may well have: those who were answered by the last are likely to come back.
    expected: usize,
    /// How long it is worth to wait for them.
    linger: Duration,
    /// Where commits are made durable, if not by themselves.
    flushes: Option<Flushes>,
}

/// What came of a batch.
struct Batch<'a> {
    done: Vec<Done>,
    folded: Folded<'a>,
    woken: HashSet<DestId>,
    closed: Vec<(DestId, u64)>,
    redelivered: Vec<Redelivered>,
}

/// Outcomes that are written together.
#[derive(Default)]
struct Outcomes<'a> {
    settlements: Vec<&'a Settlement>,
    released: Vec<LaneId>,
}

impl<'a> Outcomes<'a> {
    fn settle(&mut self, settlement: &'a Settlement) -> Done {
        self.settlements.push(settlement);
        Done::Nothing
    }

    fn release(&mut self, lane: LaneId) -> Done {
        self.released.push(lane);
        Done::Nothing
    }
}

/// Tells everyone when the writer is gone, be it by a panic.
struct Gone(Arc<Queue>, Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.end(Mode::Stopped);
        if std::thread::panicking() {
            self.1.went_down("the writer thread has died");
        }
    }
}

impl WriterThread {
    pub fn new(
        engine: Box<dyn Writer>,
        queue: Arc<Queue>,
        shared: Arc<Shared>,
        memory: Memory,
        options: Options,
        flushes: Option<Flushes>,
    ) -> Self {
        Self {
            engine,
            queue,
            shared,
            memory,
            options,
            kept: VecDeque::new(),
            down: None,
            expected: 0,
            linger: Duration::ZERO,
            flushes,
        }
    }

    /// Works until the queue is closed.
    pub fn run(mut self) {
        let _gone = Gone(Arc::clone(&self.queue), Arc::clone(&self.shared));
        loop {
            let wait = self.down.as_ref().map(|(_, at)| at.saturating_duration_since(Instant::now()));
            let (jobs, mode) = self.queue.take(wait, self.linger, self.expected);
            if mode == Mode::Stopped {
                break;
            }
            let idle = jobs.is_empty();
            if self.down.is_none()
                && let Some(error) = self.flushes.as_ref().and_then(Flushes::failure)
            {
                self.went_down(error);
            }
            let later = self.process(jobs);
            self.kept.extend(later);
            self.recover(mode == Mode::Closing);
            if mode == Mode::Closing && idle {
                break;
            }
        }
        if !self.kept.is_empty() {
            tracing::error!(
                jobs = self.kept.len(),
                "outcomes could not be written: their deliveries will be made again"
            );
        }
        self.engine.close();
    }

    /// Tries again what could not be written, when it is time.
    fn recover(&mut self, now: bool) {
        match &self.down {
            Some((_, at)) if now || *at <= Instant::now() => {}
            _ => return,
        }
        // The probe sees to a flush that failed before it, not to one that fails meanwhile.
        let failed = self.flushes.as_ref().filter(|flushes| flushes.failure().is_some());
        if let Err(error) = self.engine.probe() {
            self.went_down(error.to_string());
            return;
        }
        if let Some(flushes) = failed {
            flushes.recovered();
        }
        self.down = None;
        while self.down.is_none() && !self.kept.is_empty() {
            let count = self.kept.len().min(limits::APPEND_BATCH);
            let jobs = self.kept.drain(..count).collect();
            for job in self.process(jobs).into_iter().rev() {
                self.kept.push_front(job);
            }
        }
        if self.down.is_none() {
            tracing::info!("the store takes writes again");
            self.shared.came_up();
        }
    }

    fn went_down(&mut self, error: String) {
        if self.down.is_none() {
            tracing::error!(error, "the store can't write");
        }
        self.shared.went_down(&error);
        self.memory.distrust();
        self.down = Some((error, Instant::now() + PROBE));
    }

    /// Writes a batch; gives back what must be written later.
    fn process(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        if jobs.is_empty() {
            return jobs;
        }
        if let Some((error, _)) = &self.down {
            return put_off(jobs, error, &self.shared);
        }
        if self.engine.is_contended() && !jobs.iter().all(is_outcome) && jobs.iter().any(is_outcome) {
            let (outcomes, rest) = jobs.into_iter().partition(is_outcome);
            let mut later = self.process(outcomes);
            later.extend(self.process(rest));
            return later;
        }
        let started = Instant::now();
        self.shared.backlog.turn();
        self.engine.foresee(self.memory.foresee(jobs.iter().filter_map(input)));
        let load = load(&jobs);
        let came = (self.options.clock)();
        let begun = self.engine.begin(self.memory.tail, load);
        if let Ok(begun) = &begun {
            // That may have taken a while: other writers had their turn.
            match load {
                _ if begun.locked => jobs.extend(self.queue.more(jobs.len(), None)),
                Load::Events => jobs.extend(self.queue.more(jobs.len(), Some(is_plain))),
                Load::Outcomes | Load::Any => {}
            }
        }
        let attempted =
            begun.and_then(|begun| attempt(&begun, &mut *self.engine, &mut self.memory, &self.options, &jobs, came));
        if attempted.is_err() {
            self.shared.backlog.turn();
        }
        match attempted {
            Ok(batch) => {
                self.linger = (started.elapsed() / 8).min(LINGER);
                // Of those who were answered half are waited for: while they are written, the others come back. Where another
                // thread flushes, they come back while that goes on.
                self.expected = if self.flushes.is_some() { 0 } else { (jobs.len() + self.queue.len()) / 2 };
                let (done, mut committed) = batch.keep(&mut self.memory, started);
                committed.jobs = jobs.into_iter().zip(done).collect();
                self.tell(committed);
                self.shared.backlog.turn();
                Vec::new()
            }
            Err(EngineError::Overtaken) => {
                self.engine.rollback();
                self.process(jobs)
            }
            Err(EngineError::Down(error)) => {
                self.engine.rollback();
                self.went_down(error.clone());
                put_off(jobs, &error, &self.shared)
            }
            Err(EngineError::Data(error)) => {
                // Something in it can't be stored: find out what, by halves.
                self.engine.rollback();
                self.memory.distrust();
                let half = jobs.split_off(jobs.len() / 2);
                if jobs.is_empty() {
                    for job in half {
                        reject(job, &error, &self.queue, &self.shared);
                    }
                    return Vec::new();
                }
                let mut later = self.process(jobs);
                later.extend(self.process(half));
                later
            }
        }
    }

    /// Lets everyone know of a batch, once it is durable.
    fn tell(&mut self, mut committed: Committed) {
        for (job, done) in &mut committed.jobs {
            if let Job::Task(Task::Vacuum, _) = job
                && let Err(error) = self.engine.vacuum()
            {
                *done = Done::Refused(error.into());
            }
        }
        match &self.flushes {
            None => committed.publish(&self.shared),
            Some(flushes) => {
                if flushes.push(committed).is_err() {
                    self.went_down("the thread that flushes has died".into());
                    self.queue.end(Mode::Stopped);
                }
            }
        }
    }
}

/// Decides and writes a batch, for which the engine was begun, and commits it.
fn attempt<'a>(
    begun: &Begun,
    engine: &mut dyn Writer,
    memory: &mut Memory,
    options: &Options,
    jobs: &'a [Job],
    now: Time,
) -> Result<Batch<'a>> {
    memory.learn(begun);
    memory.learn_hooks(engine.other_hooks());
    let mut numbers = Numbers::new(begun);
    let inputs: Vec<Input<'a>> = jobs.iter().filter_map(input).collect();
    let (folded, appends) = Folded::new(memory, engine, &inputs, &mut numbers, options, now)?;
    let added = if appends.is_empty() { Added::default() } else { engine.append(&appends, now)? };
    let mut answers = folded.answers.iter().copied();
    let mut batch = Batch {
        done: Vec::with_capacity(jobs.len()),
        woken: added.woken.into_iter().collect(),
        closed: added.closed,
        ..Batch::empty()
    };
    let mut outcomes = Outcomes::default();
    for job in jobs {
        let done = match job {
            Job::Append(..) | Job::Observe(..) | Job::Hook(..) => answers.next().map_or(Done::Nothing, Done::Folded),
            Job::Settle(settlement) => outcomes.settle(settlement),
            Job::Release(lane) => outcomes.release(*lane),
            Job::Flush(_) => Done::Nothing,
            Job::Task(task, _) => {
                batch.write(engine, std::mem::take(&mut outcomes), now)?;
                Done::Task(batch.task(engine, task, &mut numbers, now)?)
            }
        };
        batch.done.push(done);
    }
    batch.write(engine, outcomes, now)?;
    engine.commit()?;
    let added = engine.added();
    batch.woken.extend(added.woken);
    batch.closed.extend(added.closed);
    drop(answers);
    batch.folded = folded;
    Ok(batch)
}

fn is_outcome(job: &Job) -> bool {
    matches!(job, Job::Settle(_) | Job::Release(_))
}

/// An event that depends on nothing but its object, and puts nothing into state lanes.
fn is_plain(job: &Job) -> bool {
    matches!(job, Job::Append(candidate, _)
        if candidate.sent.is_none() && !candidate.routes.iter().any(RouteRef::tells_rollouts))
}

fn load(jobs: &[Job]) -> Load {
    if jobs.iter().all(is_plain) {
        Load::Events
    } else if jobs.iter().all(is_outcome) {
        Load::Outcomes
    } else {
        Load::Any
    }
}

fn input(job: &Job) -> Option<Input<'_>> {
    match job {
        Job::Append(candidate, _) => Some(Input::Event(candidate)),
        Job::Observe(watched, _) => Some(Input::Observed(watched)),
        Job::Hook(hook, _) => Some(Input::Hook(hook)),
        _ => None,
    }
}

impl Batch<'_> {
    fn empty() -> Self {
        Self {
            done: Vec::new(),
            folded: Folded::default(),
            woken: HashSet::new(),
            closed: Vec::new(),
            redelivered: Vec::new(),
        }
    }

    /// Writes outcomes.
    fn write(&mut self, engine: &mut dyn Writer, outcomes: Outcomes<'_>, now: Time) -> Result<()> {
        let Outcomes { settlements, released } = outcomes;
        if !settlements.is_empty() {
            let settled = engine.settle_all(&settlements, now)?;
            for (settlement, settled) in settlements.iter().zip(settled) {
                self.closed.push((settlement.dest, settled.closed));
                if settled.left {
                    self.woken.insert(settlement.dest);
                }
            }
        }
        if !released.is_empty() {
            self.woken.extend(engine.release_all(&released)?);
        }
        Ok(())
    }

    /// Takes over what is committed.
    fn keep(self, memory: &mut Memory, started: Instant) -> (Vec<Done>, Committed) {
        let Self { done, folded, woken, closed, redelivered } = self;
        let caused = folded.sent.len() as u64;
        let sent = folded.sent.iter().map(|(dest, provider, id)| (*dest, Arc::clone(provider), *id));
        let again = redelivered.into_iter().map(|new| (new.dest, new.provider, new.delivery));
        let sent = sent.chain(again).collect();
        let grown = !folded.new.is_empty();
        memory.keep(folded);
        let tail = grown.then_some(memory.tail);
        (done, Committed { jobs: Vec::new(), sent, caused, closed, woken, tail, started })
    }

    fn task(&mut self, engine: &mut dyn Writer, task: &Task, numbers: &mut Numbers, now: Time) -> Result<Answer> {
        Ok(match task {
            Task::Wake(dest) => {
                engine.wake(*dest, now)?;
                self.woken.insert(*dest);
                Answer::Done
            }
            Task::Redeliver(delivery) => {
                let redelivered = engine.redeliver(*delivery, numbers.delivery(now), now)?;
                if let Ok((redelivered, superseded)) = &redelivered {
                    self.woken.insert(redelivered.dest);
                    self.closed.push((redelivered.dest, *superseded));
                    self.redelivered.push(redelivered.clone());
                }
                Answer::Redelivered(redelivered.map(|(redelivered, _)| redelivered))
            }
            Task::Config(present) => {
                engine.config(present, now)?;
                Answer::Done
            }
            Task::Forget(config) => {
                engine.forget(*config)?;
                Answer::Done
            }
            Task::Kill { deliveries, reason } => {
                let killed = engine.kill(deliveries, reason, now)?;
                self.closed.extend(&killed);
                Answer::Count(killed.iter().map(|(_, count)| count).sum())
            }
            Task::Prune { events, which } => Answer::Count(engine.prune(events, *which)?),
            Task::PruneLanes { lanes, before } => Answer::Count(engine.prune_lanes(lanes, *before)?),
            Task::PruneRollouts(rollouts) => Answer::Count(engine.prune_rollouts(rollouts)?),
            Task::PruneHooks { before } => Answer::Count(engine.prune_hooks(*before)?),
            Task::Vacuum => Answer::Done,
        })
    }
}

/// Answers those who can try again themselves, and gives back the rest.
fn put_off(jobs: Vec<Job>, error: &str, shared: &Shared) -> Vec<Job> {
    let mut later = Vec::new();
    for job in jobs {
        match refuse(job, Refused::Down(error.to_owned()), shared) {
            Some(Job::Task(_, reply)) => {
                let _ = reply.send(Err(StoreError::Down(error.to_owned())));
            }
            other => later.extend(other),
        }
    }
    later
}

/// Gives up on the one thing that can't be stored.
fn reject(job: Job, error: &str, queue: &Queue, shared: &Shared) {
    match refuse(job, Refused::Invalid(error.to_owned()), shared) {
        Some(Job::Task(_, reply)) => {
            let _ = reply.send(Err(StoreError::Invalid(error.to_owned())));
        }
        Some(Job::Settle(settlement)) => {
            tracing::error!(
                lane = settlement.lane.0,
                error,
                "an outcome can't be stored: its deliveries will be made again"
            );
            if settlement.finish.is_some() {
                queue.push(Job::Release(settlement.lane));
            }
        }
        _ => {}
    }
}
