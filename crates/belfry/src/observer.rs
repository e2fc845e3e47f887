//! What the watches see of Kustomizations and HelmReleases, handed to the store: a status alone decides a rollout too, for
//! events get lost. Of each object only the latest waits, and what was handed over once isn't again.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belfry_cluster::ObjectChange;
use belfry_core::{
    ObjectKey,
    index::{Condition, Decided, IndexedObject, ObjectIndex},
    revision::Revision,
    rollout::{Found, Sighting},
};
use belfry_store::{Refused, Store};
use futures::{StreamExt as _, stream};
use tokio::{sync::Notify, time::Instant};

use crate::{configuration::Configuration, metrics::Metrics};

/// The kinds that go to revisions, and say in their status to which.
const KINDS: [&str; 2] = ["Kustomization", "HelmRelease"];
/// Sightings that are in the store's hands at a time.
const AT_ONCE: usize = 32;
/// How long a sighting waits for the event that tells the same: controllers post it before or right after they write the
/// status, and it says more.
const GRACE: Duration = Duration::from_secs(3);
/// How long what the store could not take waits.
const AGAIN: Duration = Duration::from_secs(1);

/// What was seen and is to be handed over.
pub struct Observer {
    /// The cluster that is watched, as events name it.
    cluster: String,
    grace: Duration,
    seen: Mutex<Seen>,
    news: Notify,
}

#[derive(Default)]
struct Seen {
    /// All objects were listed.
    synced: bool,
    /// The configuration that says which CommitStatuses select them is that of now.
    configured: bool,
    /// What was last seen of each object that there is.
    told: HashMap<ObjectKey, u64>,
    /// Since when, and what.
    waiting: HashMap<ObjectKey, (Instant, Sighting)>,
    /// What is seen next of these doesn't wait: an event has told already, and is to be confirmed.
    hurried: HashSet<ObjectKey>,
}

impl Observer {
    /// An observer of the cluster with this name.
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), grace: GRACE, seen: Mutex::default(), news: Notify::new() }
    }

    /// The index is complete.
    pub fn synced(&self, index: &ObjectIndex) {
        self.open(index, |seen| &mut seen.synced);
    }

    /// The configuration is the API server's.
    pub fn configured(&self, index: &ObjectIndex) {
        self.open(index, |seen| &mut seen.configured);
    }

    /// Looks at all objects once both are so.
    fn open(&self, index: &ObjectIndex, gate: impl FnOnce(&mut Seen) -> &mut bool) {
        let mut seen = self.lock();
        let before = std::mem::replace(gate(&mut seen), true);
        if !before && seen.is_open() {
            for object in KINDS.iter().flat_map(|kind| index.of_kind(kind)) {
                self.look(&mut seen, index, object);
            }
            self.news.notify_one();
        }
    }

    /// Looks at what changes, before `index` does.
    pub fn see(&self, index: &ObjectIndex, change: &ObjectChange) {
        let mut seen = self.lock();
        if !seen.is_open() {
            return;
        }
        match change {
            ObjectChange::Apply(object) => self.look(&mut seen, index, object),
            ObjectChange::Remove { kind, namespace, name } => {
                if let Some(object) = index.get(kind, namespace, name) {
                    self.gone(&mut seen, object);
                }
            }
            ObjectChange::Replace(kind, objects) => {
                let named = |object: &IndexedObject| (object.namespace.clone(), object.name.clone());
                let left: HashSet<_> = objects.iter().map(named).collect();
                let gone = index.of_kind(kind).filter(|object| !left.contains(&named(object)));
                gone.for_each(|object| self.gone(&mut seen, object));
                objects.iter().for_each(|object| self.look(&mut seen, index, object));
            }
            ObjectChange::Synced => {}
        }
        if !seen.waiting.is_empty() {
            self.news.notify_one();
        }
    }

    /// An event came that the status of its object, which is watched, doesn't confirm yet.
    pub fn hurry(&self, object: ObjectKey) {
        let mut seen = self.lock();
        if let Some((since, _)) = seen.waiting.get_mut(&object) {
            *since = now_or_before(self.grace);
            self.news.notify_one();
        } else {
            seen.hurried.insert(object);
        }
    }

    fn look(&self, seen: &mut Seen, index: &ObjectIndex, object: &IndexedObject) {
        let Some(sighting) = sighting(object, index.source_of(object), &self.cluster) else { return };
        let print = fingerprint(&sighting);
        if seen.told.insert(sighting.object.clone(), print) != Some(print) {
            let hurried = seen.hurried.remove(&sighting.object);
            seen.wait(sighting, if hurried { now_or_before(self.grace) } else { Instant::now() });
        }
    }

    fn gone(&self, seen: &mut Seen, object: &IndexedObject) {
        if object.tells_revisions() {
            let sighting = nothing_yet(object, &self.cluster, Found::Gone);
            seen.told.remove(&sighting.object);
            seen.hurried.remove(&sighting.object);
            seen.wait(sighting, Instant::now());
        }
    }

    /// Hands over what was seen, for ever.
    pub async fn run(self: Arc<Self>, configuration: Arc<Configuration>, store: Store, metrics: Arc<Metrics>) {
        loop {
            let (due, next) = self.lock().take_due(self.grace, Instant::now());
            if due.is_empty() {
                let until_next = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = until_next => {}
                    () = self.news.notified() => {}
                }
                continue;
            }
            let observed = stream::iter(due).map(async |sighting| {
                let routes = configuration.status_routes(&sighting.object);
                let answer = store.observe(sighting.clone(), routes).await;
                (sighting, answer)
            });
            let mut observed = std::pin::pin!(observed.buffer_unordered(AT_ONCE));
            let mut failed = Vec::new();
            while let Some((sighting, answer)) = observed.next().await {
                match answer {
                    Ok(news) => metrics.count_observation(&sighting.object.kind, news.is_some()),
                    Err(Refused::Invalid(why)) => {
                        tracing::warn!(object = %sighting.object, "a status that was seen can't be stored: {why}");
                    }
                    Err(_) => failed.push(sighting),
                }
            }
            if !failed.is_empty() {
                tokio::time::sleep(AGAIN).await;
                let mut seen = self.lock();
                // What was seen since counts instead.
                failed.into_iter().for_each(|old| {
                    seen.waiting.entry(old.object.clone()).or_insert((now_or_before(self.grace), old));
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn is_open(&self) -> bool {
        self.synced && self.configured
    }

    /// Waits in the place of what waited of its object, and no longer than that would have.
    fn wait(&mut self, sighting: Sighting, now: Instant) {
        let since = self.waiting.get(&sighting.object).map_or(now, |(since, _)| (*since).min(now));
        self.waiting.insert(sighting.object.clone(), (since, sighting));
    }

    /// What has waited long enough; and when the next will have.
    fn take_due(&mut self, grace: Duration, now: Instant) -> (Vec<Sighting>, Option<Instant>) {
        let due = self.waiting.extract_if(|_, (since, _)| *since + grace <= now).map(|(_, (_, seen))| seen).collect();
        (due, self.waiting.values().map(|(since, _)| *since + grace).min())
    }
}

/// So long ago, as far as the clock goes back.
fn now_or_before(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(time).unwrap_or(now)
}

/// What an object's status says of its rollout; `None` while it decides nothing.
fn sighting(object: &IndexedObject, source: Option<&IndexedObject>, cluster: &str) -> Option<Sighting> {
    if object.deleting && object.tells_revisions() {
        return Some(nothing_yet(object, cluster, Found::Gone));
    }
    let Decided { revision, origin, failure } = object.decided(source)?;
    let found = match failure {
        None => Found::Ready,
        Some(Condition { reason, message, .. }) => Found::Failed { reason: reason.clone(), message: message.clone() },
    };
    // Without its time nobody knows whether it is older than what was reported.
    let changed = object.ready.as_ref()?.changed()?;
    let named = [origin, Some(revision)].into_iter().flatten();
    let commit = named.into_iter().find_map(|text| Revision::parse(text).whole_hash()).map(str::to_owned);
    Some(Sighting {
        timestamp: Some(changed.0.div_euclid(1_000_000)),
        revision: Some(revision.to_owned()),
        origin_revision: origin.map(str::to_owned),
        commit,
        ..nothing_yet(object, cluster, found)
    })
}

fn nothing_yet(object: &IndexedObject, cluster: &str, found: Found) -> Sighting {
    Sighting {
        object: ObjectKey { cluster: cluster.to_owned(), ..object.key() },
        uid: object.uid.clone(),
        timestamp: None,
        revision: None,
        origin_revision: None,
        commit: None,
        found,
    }
}

/// Tells one sighting of an object from another.
fn fingerprint(seen: &Sighting) -> u64 {
    let mut hasher = DefaultHasher::new();
    let said = match &seen.found {
        Found::Ready => (0, "", ""),
        Found::Failed { reason, message } => (1, reason.as_str(), message.as_str()),
        Found::Gone => (2, "", ""),
    };
    (&seen.uid, seen.timestamp, &seen.revision, &seen.origin_revision, said).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
