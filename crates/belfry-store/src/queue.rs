//! What waits for the writer thread.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belfry_core::{
    ConfigKey, Seq, Time, limits,
    plan::{Candidate, RouteRef},
    rollout::Sighting,
};
use tokio::sync::oneshot;

use crate::{
    RedeliverError, Refused, StoreError,
    engine::Prunable,
    hooks::{Hook, Hooked},
    types::{Appended, DestId, LaneId, Redelivered, Settlement},
};

/// One outcome is written for so many inputs while inputs wait.
const SHARE: usize = 8;
/// Outcomes beyond so many are written whoever waits: those that a crash forgets are deliveries that are made twice.
const OUTCOMES: usize = 128;

/// One thing to write.
#[derive(Debug)]
pub(crate) enum Job {
    Append(Box<Candidate>, oneshot::Sender<Result<Appended, Refused>>),
    Observe(Box<Watched>, oneshot::Sender<Result<Option<Seq>, Refused>>),
    Hook(Box<Hook>, oneshot::Sender<Result<Hooked, Refused>>),
    Settle(Settlement),
    Release(LaneId),
    Flush(oneshot::Sender<()>),
    Task(Task, oneshot::Sender<Result<Answer, StoreError>>),
}

/// An observation, ready to be logged.
#[derive(Debug)]
pub(crate) struct Watched {
    pub sighting: Sighting,
    /// CommitStatuses that select the object.
    pub routes: Vec<RouteRef>,
    pub body: Vec<u8>,
}

impl Job {
    /// About how many bytes an input takes up; `None` for what isn't one.
    fn weight(&self) -> Option<usize> {
        const TRIGGER: usize = 256;
        match self {
            Self::Append(candidate, _) => Some(candidate.body.len()),
            Self::Observe(watched, _) => Some(watched.body.len()),
            Self::Hook(hook, _) => Some(hook.triggers.len() * TRIGGER),
            _ => None,
        }
    }
}

/// The rarer things to write.
#[derive(Debug)]
pub(crate) enum Task {
    Wake(DestId),
    Redeliver(i64),
    Config(Vec<(ConfigKey, String)>),
    Forget(i64),
    Kill { deliveries: Vec<i64>, reason: String },
    Prune { events: Vec<Seq>, which: Prunable },
    PruneLanes { lanes: Vec<LaneId>, before: Time },
    PruneRollouts(Vec<Seq>),
    PruneHooks { before: Seq },
    Vacuum,
}

/// What comes of a task.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Count(u64),
    Redelivered(Result<Redelivered, RedeliverError>),
}

/// What the writer is told along with its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// There may be more to come.
    Open,
    /// Nothing more comes: finish what is there.
    Closing,
    /// Stop now.
    Stopped,
}

#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug)]
struct State {
    /// Events and webhooks, whose senders wait for an answer.
    inputs: VecDeque<Job>,
    /// Everything else.
    others: VecDeque<Job>,
    /// Inputs in the batch before.
    before: usize,
    events: usize,
    bytes: usize,
    mode: Mode,
    /// The writer sleeps until so many jobs wait; it is busy when there is no number.
    wanted: Option<usize>,
}

impl State {
    fn len(&self) -> usize {
        self.inputs.len() + self.others.len()
    }

    /// A batch. While senders wait, what isn't theirs gets a share of it only: under more load than there is room for,
    /// deliveries go slower, and not the controllers that report.
    fn batch(&mut self) -> Vec<Job> {
        let inputs = self.inputs.len().min(limits::APPEND_BATCH);
        // Those who were answered by the batch before are likely to come back in a moment.
        let busy = inputs.max(std::mem::replace(&mut self.before, inputs));
        let share = if busy == 0 { limits::APPEND_BATCH } else { busy.div_ceil(SHARE) };
        let share = share.max(self.others.len().saturating_sub(OUTCOMES)).min(limits::APPEND_BATCH);
        let others = self.others.len().min(share);
        self.others.drain(..others).chain(self.inputs.drain(..inputs)).collect()
    }

    /// A batch, out of the line.
    fn take(&mut self) -> Vec<Job> {
        let jobs = self.batch();
        self.taken(&jobs);
        jobs
    }

    fn taken(&mut self, jobs: &[Job]) {
        for bytes in jobs.iter().filter_map(Job::weight) {
            self.events -= 1;
            self.bytes -= bytes;
        }
    }

    /// Whether the writer must be woken: a call that is too dear to make for every job.
    fn rouses(&mut self) -> bool {
        let count = self.len();
        self.wanted.take_if(|wanted| count >= *wanted).is_some()
    }
}

impl Queue {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(State {
                inputs: VecDeque::new(),
                others: VecDeque::new(),
                before: 0,
                events: 0,
                bytes: 0,
                mode: Mode::Open,
                wanted: None,
            }),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an input in line, if there is room.
    pub fn push_input(&self, input: Job) -> Result<(), Refused> {
        let bytes = input.weight().unwrap_or_default();
        let mut state = self.lock();
        if state.mode != Mode::Open {
            return Err(Refused::Down("it is closed".into()));
        }
        if state.events >= limits::APPEND_QUEUE || state.bytes + bytes > limits::APPEND_QUEUE_BYTES {
            return Err(Refused::Full);
        }
        state.events += 1;
        state.bytes += bytes;
        state.inputs.push_back(input);
        if state.rouses() {
            drop(state);
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Puts anything else in line; gone when the store is closed.
    pub fn push(&self, job: Job) {
        let mut state = self.lock();
        if state.mode == Mode::Open {
            state.others.push_back(job);
            if state.rouses() {
                drop(state);
                self.ready.notify_one();
            }
        }
    }

    /// Waits for a job, at most so long, and takes up to a batch of them. When `expected` ones are likely, waits for them a
    /// little: a commit costs much the same for all of them as for some.
    pub fn take(&self, wait: Option<Duration>, linger: Duration, expected: usize) -> (Vec<Job>, Mode) {
        let mut state = self.wait(self.lock(), 1, wait);
        let expected = expected.min(limits::APPEND_BATCH);
        if state.len() > 0 && state.len() < expected && !linger.is_zero() {
            state = self.wait(state, expected, Some(linger));
        }
        (state.take(), state.mode)
    }

    /// What came since a batch of so many was taken, if it is to be written with them: all, or inputs as long as they are like this.
    pub fn more(&self, taken: usize, like: Option<fn(&Job) -> bool>) -> Vec<Job> {
        if taken >= limits::APPEND_BATCH {
            return Vec::new();
        }
        let mut state = self.lock();
        if let Some(like) = like {
            let count = state.inputs.iter().take(limits::APPEND_BATCH - taken).take_while(|job| like(job)).count();
            let jobs: Vec<Job> = state.inputs.drain(..count).collect();
            state.before += count;
            state.taken(&jobs);
            return jobs;
        }
        let before = state.before;
        let jobs = state.take();
        state.before += before;
        jobs
    }

    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        jobs: usize,
        wait: Option<Duration>,
    ) -> MutexGuard<'a, State> {
        let short = |state: &mut State| {
            let short = state.len() < jobs && state.mode == Mode::Open;
            state.wanted = short.then_some(jobs);
            short
        };
        state = match wait {
            None => self.ready.wait_while(state, short).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => self.ready.wait_timeout_while(state, wait, short).unwrap_or_else(PoisonError::into_inner).0,
        };
        state.wanted = None;
        state
    }

    /// Jobs that wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes no more jobs; dropped ones tell their senders.
    pub fn end(&self, mode: Mode) {
        let mut state = self.lock();
        if state.mode != Mode::Stopped {
            state.mode = mode;
        }
        if state.mode == Mode::Stopped {
            state.inputs.clear();
            state.others.clear();
            (state.events, state.bytes) = (0, 0);
        }
        self.ready.notify_all();
    }

    /// Events that wait, and their bytes.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.events, state.bytes)
    }
}
