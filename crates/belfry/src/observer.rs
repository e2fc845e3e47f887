//! What the watches see of Kustomizations and HelmReleases, handed to the store: a status alone decides a rollout too, for
//! events get lost. Of each object only the latest waits, and what was handed over once isn't again.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belfry_cluster::ObjectChange;
use belfry_core::{
    ObjectKey,
    index::{IndexedObject, ObjectIndex},
    revision::Revision,
    rollout::{Found, Sighting},
};
use belfry_store::{Refused, Store};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use crate::{configuration::Configuration, metrics::Metrics};

/// The kinds that go to revisions, and say in their status to which.
const KINDS: [(&str, &str); 2] = [KUSTOMIZATION, HELM_RELEASE];
const KUSTOMIZATION: (&str, &str) = ("kustomize.toolkit.fluxcd.io", "Kustomization");
const HELM_RELEASE: (&str, &str) = ("helm.toolkit.fluxcd.io", "HelmRelease");
/// Reasons of a Ready condition that is False, and of a controller that waits or has called an attempt off.
const UNDECIDED: [&str; 5] =
    ["DependencyNotReady", "HealthCheckCanceled", "Progressing", "ProgressingWithRetry", "SourceNotReady"];
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
            for object in KINDS.iter().flat_map(|(_, kind)| index.of_kind(kind)) {
                self.look(&mut seen, object);
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
            ObjectChange::Apply(object) => self.look(&mut seen, object),
            ObjectChange::Remove { kind, namespace, name } => {
                if let Some(object) = index.get(kind, namespace, name) {
                    self.gone(&mut seen, object);
                }
            }
            ObjectChange::Replace(kind, objects) => {
                let named = |object: &IndexedObject| (object.namespace.clone(), object.name.clone());
                let left: std::collections::HashSet<_> = objects.iter().map(named).collect();
                let gone = index.of_kind(kind).filter(|object| !left.contains(&named(object)));
                gone.for_each(|object| self.gone(&mut seen, object));
                objects.iter().for_each(|object| self.look(&mut seen, object));
            }
            ObjectChange::Synced => {}
        }
        if !seen.waiting.is_empty() {
            self.news.notify_one();
        }
    }

    fn look(&self, seen: &mut Seen, object: &IndexedObject) {
        let Some(sighting) = sighting(object, &self.cluster) else { return };
        let print = fingerprint(&sighting);
        if seen.told.insert(sighting.object.clone(), print) != Some(print) {
            seen.wait(sighting, Instant::now());
        }
    }

    fn gone(&self, seen: &mut Seen, object: &IndexedObject) {
        if is_watched(object) {
            let sighting = nothing_yet(object, &self.cluster, Found::Gone);
            seen.told.remove(&sighting.object);
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
        let since = self.waiting.get(&sighting.object).map_or(now, |(since, _)| *since);
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

fn is_watched(object: &IndexedObject) -> bool {
    KINDS.contains(&(object.group.as_str(), object.kind.as_str()))
}

/// What an object's status says of its rollout; `None` while it decides nothing.
fn sighting(object: &IndexedObject, cluster: &str) -> Option<Sighting> {
    if !is_watched(object) {
        return None;
    }
    if object.deleting {
        return Some(nothing_yet(object, cluster, Found::Gone));
    }
    let ready = object.ready.as_ref().filter(|ready| ready.observed_generation == object.generation)?;
    // helm-controller names no revision but the attempted one, which is the installed one once it is ready.
    let helm = (object.group.as_str(), object.kind.as_str()) == HELM_RELEASE;
    let attempted = &object.attempted_revision;
    let (found, revision, origin) = match ready.status.as_str() {
        "True" if helm => (Found::Ready, attempted.as_ref(), None),
        "True" => (Found::Ready, object.applied_revision.as_ref(), object.applied_origin_revision.clone()),
        "False" if !UNDECIDED.contains(&ready.reason.as_str()) => {
            let (reason, message) = (ready.reason.clone(), ready.message.clone());
            (Found::Failed { reason, message }, attempted.as_ref(), None)
        }
        _ => return None,
    };
    let revision = revision.filter(|revision| !revision.is_empty())?;
    // Without its time nobody knows whether it is older than what was reported.
    let changed: Timestamp = ready.last_transition_time.parse().ok()?;
    let named = [origin.as_deref(), Some(revision.as_str())];
    let commit = named.into_iter().flatten().find_map(|text| Revision::parse(text).whole_hash()).map(str::to_owned);
    Some(Sighting {
        timestamp: Some(changed.as_second()),
        revision: Some(revision.clone()),
        origin_revision: origin,
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
