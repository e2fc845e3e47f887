//! Waits for verdicts: each question is answered from the store and the object index, and again whenever something
//! happened that may change the answer. Nothing is polled but for a slow look around, which is a net.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use belfry_cluster::ObjectChange;
use belfry_core::{
    ObjectKey, Seq, Time,
    index::IndexedObject,
    revision::Revision,
    verdict::{Answer, Question, Selector, decide},
};
use belfry_store::{EventQuery, Store, StoreError};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{Notify, watch};

use crate::{
    configuration::Configuration,
    dispatcher::now,
    expected_set::{ExpectedSet, Found, Sees, Unanswered, group_of},
    server::stopped,
};

/// How often a wait looks around although nothing was heard; also how soon it notices that it may see less.
const LOOK_AROUND: Duration = Duration::from_secs(30);
/// How long after a failure to read the next try comes.
const AGAIN: Duration = Duration::from_secs(1);
/// Waits at a time.
pub const WAITS: usize = 10_000;

/// All waits of this process.
pub struct Waits {
    store: Store,
    configuration: Arc<Configuration>,
    waiting: Mutex<HashMap<u64, Arc<Waiter>>>,
    next: AtomicU64,
}

/// One wait.
struct Waiter {
    question: Question,
    /// What tells in an event that it is about the revision.
    needle: String,
    /// Hashes of the objects that the answer depends on.
    interests: Mutex<HashSet<u64>>,
    news: Notify,
}

impl Waits {
    /// Nobody waits yet.
    pub fn new(store: Store, configuration: Arc<Configuration>) -> Arc<Self> {
        Arc::new(Self { store, configuration, waiting: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Answers as soon as it can be known, and again whenever the answer has changed. What came before the question counts,
    /// and nothing that comes while it is answered is missed. Goes on until it is dropped; while the store can't be read
    /// it is silent.
    ///
    /// # Errors
    /// When there are too many waits.
    pub fn ask(
        self: &Arc<Self>,
        question: Question,
        sees: Sees,
    ) -> Result<impl Stream<Item = Arc<Answer>> + Send + use<>, Unanswered> {
        Ok(Waiting::new(self.clone(), question)?.answers(sees, None))
    }

    /// The same, but what can't be known now is an error at once. The answer of now comes first.
    ///
    /// # Errors
    /// When there are too many waits, or it can't be known now.
    pub async fn ask_now(
        self: &Arc<Self>,
        question: Question,
        sees: Sees,
    ) -> Result<impl Stream<Item = Arc<Answer>> + Send + use<>, Unanswered> {
        let mut waiting = Waiting::new(self.clone(), question)?;
        let first = Arc::new(waiting.look(&sees).await?);
        Ok(stream::once(std::future::ready(first.clone())).chain(waiting.answers(sees, Some(first))))
    }

    /// The one object that a selector of a question names, if it names one.
    pub fn object(&self, question: &Question, selector: &Selector) -> Option<ObjectKey> {
        let Selector { kind: Some(kind), namespace: Some(namespace), name: Some(name) } = selector else { return None };
        let cluster = question.cluster.as_deref().unwrap_or(self.configuration.cluster()).to_owned();
        let group = group_of(kind).to_owned();
        let (kind, namespace, name) = (kind.clone(), namespace.clone(), name.clone());
        Some(ObjectKey { cluster, group, kind, namespace, name })
    }

    async fn gather(&self, question: &Question, sees: &Sees) -> Result<Vec<Found>, Unanswered> {
        let named = question.objects.iter().filter_map(|selector| self.object(question, selector)).collect::<Vec<_>>();
        let selects = |object: &ObjectKey| is_selected(question, object);
        let only_named = !question.objects.is_empty() && named.len() == question.objects.len();
        ExpectedSet {
            store: &self.store,
            configuration: &self.configuration,
            revision: &question.revision,
            cluster: question.cluster.as_deref(),
            named,
            selects: if only_named { None } else { Some(&selects) },
            releases: question.objects.iter().any(|selector| selector.kind.as_deref() == Some("HelmRelease")),
            sees,
        }
        .gather()
        .await
    }

    /// Reads on in the log as it grows, and wakes those whom it concerns, until `stop`.
    pub async fn follow(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut head = self.store.head();
        let mut after = *head.borrow_and_update();
        loop {
            tokio::select! {
                changed = head.changed() => if changed.is_err() { return },
                () = stopped(&mut stop) => return,
            }
            let until = *head.borrow_and_update();
            // Who comes later looks back for itself.
            if self.lock().is_empty() {
                after = until;
            }
            while after < until {
                match self.read_on(after).await {
                    Ok(Some(next)) => after = next,
                    Ok(None) => after = until,
                    Err(error) => {
                        tracing::debug!(%error, "can't read what waits may wait for");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    async fn read_on(&self, after: Seq) -> Result<Option<Seq>, StoreError> {
        let query = EventQuery { after: Some(after), observations: true, ..EventQuery::default() };
        let page = self.store.events(query).await?;
        for row in &page.items {
            let body = String::from_utf8_lossy(&row.body);
            let print = print(&row.object);
            self.wake(|waiter| waiter.minds(print) || body.contains(&waiter.needle));
        }
        Ok(page.next.map(Seq))
    }

    /// Something is about to change in the object index.
    pub fn see(&self, change: &ObjectChange) {
        match change {
            ObjectChange::Apply(object) => {
                let print = print_of(object);
                self.wake(|waiter| waiter.minds(print) || object.holds(&waiter.question.revision));
            }
            ObjectChange::Remove { kind, namespace, name } => {
                let print = print_named(kind, namespace, name);
                self.wake(|waiter| waiter.minds(print));
            }
            ObjectChange::Replace(..) | ObjectChange::Synced => self.wake(|_| true),
        }
    }

    fn wake(&self, whom: impl Fn(&Waiter) -> bool) {
        self.lock().values().filter(|waiter| whom(waiter)).for_each(|waiter| waiter.news.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    fn minds(&self, print: u64) -> bool {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner).contains(&print)
    }
}

/// A wait that is known to all until it is dropped.
struct Waiting {
    waits: Arc<Waits>,
    id: u64,
    waiter: Arc<Waiter>,
    /// When to look again; none before the first answer.
    look_at: Option<Time>,
}

impl Waiting {
    fn new(waits: Arc<Waits>, question: Question) -> Result<Self, Unanswered> {
        let needle = needle(&question.revision);
        let waiter = Arc::new(Waiter { question, needle, interests: Mutex::default(), news: Notify::new() });
        let id = waits.next.fetch_add(1, Ordering::Relaxed);
        let mut waiting = waits.lock();
        if waiting.len() >= WAITS {
            return Err(Unanswered::Full);
        }
        waiting.insert(id, waiter.clone());
        drop(waiting);
        Ok(Self { waits, id, waiter, look_at: None })
    }

    /// The answers that differ from the one before.
    fn answers(self, sees: Sees, last: Option<Arc<Answer>>) -> impl Stream<Item = Arc<Answer>> + Send + use<> {
        stream::unfold((self, sees, last), async |(mut waiting, sees, last)| {
            let answer = waiting.next(&sees, last.as_deref()).await;
            Some((answer.clone(), (waiting, sees, Some(answer))))
        })
    }

    /// The next answer that differs from the last.
    async fn next(&mut self, sees: &Sees, last: Option<&Answer>) -> Arc<Answer> {
        loop {
            if let Some(at) = self.look_at {
                let pause = at.since(now()).min(LOOK_AROUND);
                let _ = tokio::time::timeout(pause, self.waiter.news.notified()).await;
            }
            match self.look(sees).await {
                Ok(answer) if last != Some(&answer) => return Arc::new(answer),
                Ok(_) => {}
                Err(error @ Unanswered::TooWide) => {
                    tracing::warn!(%error, revision = self.waiter.question.revision, "a wait can't be answered");
                    // What comes only makes it wider.
                    tokio::time::sleep(LOOK_AROUND).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "a wait can't be answered now");
                    self.look_at = Some(now().after(AGAIN));
                }
            }
        }
    }

    async fn look(&mut self, sees: &Sees) -> Result<Answer, Unanswered> {
        let question = &self.waiter.question;
        let found = self.waits.gather(question, sees).await?;
        let interests = found.iter().flat_map(prints).collect();
        let news =
            std::mem::replace(&mut *self.waiter.interests.lock().unwrap_or_else(PoisonError::into_inner), interests);
        let facts: Vec<_> = found.iter().map(Found::facts).collect();
        let at = now();
        let (answer, again) = decide(question, &facts, at);
        // What became of interest just now may have changed since it was looked at.
        let grown = !self.waiter.interests.lock().unwrap_or_else(PoisonError::into_inner).is_subset(&news);
        let around = at.after(LOOK_AROUND);
        self.look_at = Some(if grown { at } else { again.map_or(around, |again| again.min(around)) });
        Ok(answer)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.lock().remove(&self.id);
    }
}

/// What the body of an event holds that names a revision: its hash, as git and registries write it; else the revision
/// itself, but for the digest of a chart, which may be left out.
fn needle(revision: &str) -> String {
    match Revision::parse(revision).hash {
        Some(hash) => hash.to_ascii_lowercase(),
        None => revision.split('+').next().unwrap_or_default().to_owned(),
    }
}

/// Whether a question is about an object. The unnamed one counts only where no object is asked for.
fn is_selected(question: &Question, object: &ObjectKey) -> bool {
    let is = |asked: &Option<String>, it: &str| asked.as_deref().is_none_or(|asked| asked == it);
    question.objects.is_empty()
        || question.objects.iter().any(|selector| {
            is(&selector.kind, &object.kind)
                && is(&selector.namespace, &object.namespace)
                && is(&selector.name, &object.name)
                && !object.name.is_empty()
        })
}

/// What an answer depends on.
fn prints(found: &Found) -> Vec<u64> {
    std::iter::once(print(&found.object)).chain(found.related().map(print_of)).collect()
}

/// Tells objects apart well enough; a wait that is woken for nothing looks once more.
fn print(object: &ObjectKey) -> u64 {
    print_named(&object.kind, &object.namespace, &object.name)
}

fn print_of(object: &IndexedObject) -> u64 {
    print_named(&object.kind, &object.namespace, &object.name)
}

fn print_named(kind: &str, namespace: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, namespace, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_known_by_what_names_their_revision() {
        for (revision, expected) in [
            ("main@sha1:3C1AE5D4B09F6A7788990011223344556677AABB", "3c1ae5d4b09f6a7788990011223344556677aabb"),
            ("3C1AE5D", "3c1ae5d"),
            ("v1.2.3-RC1", "v1.2.3-RC1"),
            ("6.5.0+1a2b3c4d5e6f", "6.5.0"),
        ] {
            assert_eq!(needle(revision), expected);
        }
    }
}
