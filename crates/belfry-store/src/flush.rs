//! What comes after a commit: it is flushed, and only then is anyone told.
//!
//! An engine whose commits are durable as they return is told of at once. For the others a thread flushes while the writer is
//! at the next batch: neither waits for the other, and one flush serves all batches that were committed before it.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering::Relaxed,
        mpsc::{self, Receiver, SyncSender},
    },
    time::Instant,
};

use belfry_core::{ConfigKey, Seq};
use tokio::sync::oneshot;

use crate::{
    Refused, StoreError,
    engine::Flusher,
    fold::Answered,
    queue::{Answer, Job, Queue},
    stats::Shared,
    types::{Appended, DestId},
};

/// Batches that wait for a flush before the writer does.
const AHEAD: usize = 2;

/// What came of one job of a batch.
pub(crate) enum Done {
    Folded(Answered),
    Task(Answer),
    Refused(StoreError),
    Nothing,
}

/// A batch that is committed, and that nobody was told of.
pub(crate) struct Committed {
    pub jobs: Vec<(Job, Done)>,
    /// New deliveries, with their destinations and Providers.
    pub sent: Vec<(DestId, Arc<ConfigKey>, i64)>,
    /// How many of them inputs caused.
    pub caused: u64,
    /// Deliveries that wait no longer.
    pub closed: Vec<(DestId, u64)>,
    pub woken: HashSet<DestId>,
    /// The last event, if there is a new one.
    pub tail: Option<Seq>,
    pub started: Instant,
}

impl Committed {
    /// It is durable: tells everyone.
    pub fn publish(self, shared: &Shared) {
        shared.committed(self.started.elapsed());
        shared.deliveries.fetch_add(self.caused, Relaxed);
        shared.backlog.add(self.sent.iter().map(|(dest, provider, id)| (*dest, provider, *id)));
        for (dest, count) in self.closed {
            shared.backlog.sub(dest, count);
        }
        if let Some(tail) = self.tail {
            shared.moved(tail);
        }
        shared.wake(self.woken);
        for (job, done) in self.jobs {
            answer(job, done, shared);
        }
    }

    /// Nobody knows whether it is durable: who waits is to try again. What was written stays written as far as this process
    /// is concerned.
    fn fail(self, error: &str, queue: &Queue, shared: &Shared) {
        shared.backlog.add(self.sent.iter().map(|(dest, provider, id)| (*dest, provider, *id)));
        for (dest, count) in self.closed {
            shared.backlog.sub(dest, count);
        }
        for (job, _) in self.jobs {
            match refuse(job, Refused::Down(error.to_owned()), shared) {
                Some(Job::Task(_, reply)) => drop(reply.send(Err(StoreError::Down(error.to_owned())))),
                Some(Job::Flush(reply)) => queue.push(Job::Flush(reply)),
                _ => {}
            }
        }
    }
}

fn answer(job: Job, done: Done, shared: &Shared) {
    match (job, done) {
        (Job::Append(_, reply), Done::Folded(Answered::Event(appended))) => {
            let counter = if let Appended::Stored { .. } = appended { &shared.appended } else { &shared.repeats };
            counter.fetch_add(1, Relaxed);
            let _ = reply.send(Ok(appended));
        }
        (Job::Observe(_, reply), Done::Folded(Answered::Observed(seq))) => {
            shared.observations.fetch_add(u64::from(seq.is_some()), Relaxed);
            let _ = reply.send(Ok(seq));
        }
        (Job::Hook(_, reply), Done::Folded(Answered::Hook(hooked))) => {
            shared.hooks.fetch_add(1, Relaxed);
            let _ = reply.send(Ok(hooked));
        }
        (Job::Flush(reply), _) => drop(reply.send(())),
        (Job::Task(_, reply), Done::Task(answer)) => drop(reply.send(Ok(answer))),
        (Job::Task(_, reply), Done::Refused(error)) => drop(reply.send(Err(error))),
        _ => {}
    }
}

/// Tells the sender of an input that it isn't taken in; anything else comes back.
pub(crate) fn refuse(job: Job, refused: Refused, shared: &Shared) -> Option<Job> {
    match job {
        Job::Append(_, reply) => drop(reply.send(Err(refused))),
        Job::Observe(_, reply) => drop(reply.send(Err(refused))),
        Job::Hook(_, reply) => drop(reply.send(Err(refused))),
        other => return Some(other),
    }
    shared.refused.fetch_add(1, Relaxed);
    None
}

/// The writer's end.
pub(crate) struct Flushes {
    committed: SyncSender<Committed>,
    failure: Arc<Failure>,
}

/// Why the last flush failed. From then on all fail until the writer has seen to it.
#[derive(Default)]
struct Failure(Mutex<Option<String>>);

impl Failure {
    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, error: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl Flushes {
    /// Hands a batch over. Waits while the disk is far behind; gives it back when the thread is gone.
    pub fn push(&self, committed: Committed) -> std::result::Result<(), Box<Committed>> {
        self.committed.send(committed).map_err(|mpsc::SendError(committed)| Box::new(committed))
    }

    /// Why nothing is durable any more.
    pub fn failure(&self) -> Option<String> {
        self.failure.get()
    }

    /// All that was committed is durable after all.
    pub fn recovered(&self) {
        self.failure.set(None);
    }
}

/// The thread that flushes.
pub(crate) struct FlushThread {
    flusher: Box<dyn Flusher>,
    committed: Receiver<Committed>,
    failure: Arc<Failure>,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl FlushThread {
    pub fn new(flusher: Box<dyn Flusher>, queue: Arc<Queue>, shared: Arc<Shared>) -> (Self, Flushes) {
        let (sender, committed) = mpsc::sync_channel(AHEAD);
        let failure = Arc::new(Failure::default());
        let flushes = Flushes { committed: sender, failure: Arc::clone(&failure) };
        (Self { flusher, committed, failure, queue, shared }, flushes)
    }

    /// Works until the writer is gone.
    pub fn run(mut self) {
        while let Ok(first) = self.committed.recv() {
            let batches: Vec<Committed> = std::iter::once(first).chain(self.committed.try_iter()).collect();
            match self.flush() {
                Ok(()) => batches.into_iter().for_each(|batch| batch.publish(&self.shared)),
                Err(error) => batches.into_iter().for_each(|batch| batch.fail(&error, &self.queue, &self.shared)),
            }
        }
    }

    fn flush(&mut self) -> std::result::Result<(), String> {
        if let Some(error) = self.failure.get() {
            return Err(error);
        }
        self.flusher.flush().map_err(|error| {
            let error = error.to_string();
            self.shared.went_down(&error);
            self.failure.set(Some(error.clone()));
            // The writer may be waiting for something to do.
            self.queue.push(Job::Flush(oneshot::channel().0));
            error
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use belfry_core::Time;

    use super::*;
    use crate::engine::{EngineError, Result};

    /// Fails as it is told to.
    struct Scripted(VecDeque<Result<()>>);

    impl Flusher for Scripted {
        fn flush(&mut self) -> Result<()> {
            self.0.pop_front().unwrap_or(Ok(()))
        }
    }

    type Replied = oneshot::Receiver<std::result::Result<Answer, StoreError>>;

    fn batch(head: i64) -> (Committed, Replied) {
        let (reply, replied) = oneshot::channel();
        let job = Job::Task(crate::queue::Task::PruneHooks { before: Seq(0) }, reply);
        let committed = Committed {
            jobs: vec![(job, Done::Task(Answer::Count(7)))],
            sent: vec![(DestId(1), Arc::new(ConfigKey::cluster()), head)],
            caused: 1,
            closed: Vec::new(),
            woken: HashSet::from([DestId(1)]),
            tail: Some(Seq(head)),
            started: Instant::now(),
        };
        (committed, replied)
    }

    #[test]
    fn nobody_is_told_before_the_flush_and_after_one_that_failed_all_fail_until_that_is_seen_to() {
        let (queue, shared) = (Arc::new(Queue::new()), Arc::new(Shared::new(Seq(0))));
        let script = VecDeque::from([Ok(()), Err(EngineError::Down("the disk is gone".into()))]);
        let (thread, flushes) = FlushThread::new(Box::new(Scripted(script)), Arc::clone(&queue), Arc::clone(&shared));
        let worker = std::thread::spawn(|| thread.run());
        let push = |head| {
            let (committed, replied) = batch(head);
            assert!(flushes.push(committed).is_ok());
            replied.blocking_recv().unwrap()
        };
        let head = || *shared.head.borrow();
        assert!(matches!(push(1), Ok(Answer::Count(7))));
        assert_eq!((head(), shared.health(), flushes.failure()), (Seq(1), Ok(()), None));
        for _ in 0..2 {
            assert!(push(2).is_err_and(|error| error.to_string().contains("the disk is gone")));
            assert_eq!((head(), flushes.failure().as_deref()), (Seq(1), Some("the disk is gone")));
        }
        assert!(shared.health().is_err());
        // The writer is woken, to try what it can.
        assert_eq!(queue.len(), 1);
        flushes.recovered();
        assert!(push(3).is_ok());
        assert_eq!(head(), Seq(3));
        // What was committed counts, told of or not.
        let pending = shared.stats((0, 0), 0).pending;
        assert_eq!((pending[&DestId(1)].count, pending[&DestId(1)].oldest), (4, Time(1)));
        drop(flushes);
        worker.join().unwrap();
    }

    #[test]
    fn who_waits_for_a_flush_that_failed_goes_on_waiting() {
        let (queue, shared) = (Arc::new(Queue::new()), Arc::new(Shared::new(Seq(0))));
        let (reply, mut flushed) = oneshot::channel();
        let (mut committed, _) = batch(1);
        committed.jobs = vec![(Job::Flush(reply), Done::Nothing)];
        committed.fail("the disk is gone", &queue, &shared);
        assert!(flushed.try_recv().is_err());
        assert_eq!(queue.len(), 1);
    }
}
