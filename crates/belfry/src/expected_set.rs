//! The expected set: the objects that are to go to a revision, and what is known of each. Waits, verdicts and statuses of
//! several objects count the same ones.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use belfry_core::{
    ObjectKey,
    index::{IndexedObject, ObjectIndex},
    plan::ObjectState,
    revision::{self, Revision},
    rollout::Phase,
    verdict::{Facts, Trace, Watched},
};
use belfry_store::{ObjectFilter, RolloutQuery, RolloutRow, Store, StoreError};
use futures::{FutureExt as _, future::BoxFuture};

use crate::configuration::Configuration;

/// What an asker may see. It is asked of every object that an answer would count.
pub type Sees = Arc<dyn Fn(&ObjectKey) -> BoxFuture<'static, Result<bool, String>> + Send + Sync>;

/// Everything may be seen.
pub fn everything() -> Sees {
    Arc::new(|_| std::future::ready(Ok(true)).boxed())
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody can tell what may be seen.
    #[error("can't tell what may be read: {0}")]
    Permission(String),
    /// There are too many waits.
    #[error("too many waits at a time")]
    Full,
    /// What goes to the revision is more than an answer counts, and a part of it is no answer.
    #[error(
        "more than {MEMBERS} objects go to this revision, or have more than {READ} rollouts: name the objects, or a cluster"
    )]
    TooWide,
}

/// Objects that one answer counts at most.
const MEMBERS: usize = 2_000;
/// Rollouts of one revision that are read for it at most.
const READ: usize = 20_000;
/// Kinds that a cluster's watches see going to revisions, and their groups.
const WATCHED: [(&str, &str); 2] =
    [("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io")];
const PARENT: [&str; 2] = ["kustomize.toolkit.fluxcd.io/namespace", "kustomize.toolkit.fluxcd.io/name"];

/// Where to look, and for what.
pub struct ExpectedSet<'a> {
    /// What is known of rollouts.
    pub store: &'a Store,
    /// The object index.
    pub configuration: &'a Configuration,
    /// The revision or commit.
    pub revision: &'a str,
    /// Only in this cluster.
    pub cluster: Option<&'a str>,
    /// These count before anything was heard of them, and whatever becomes of them.
    pub named: Vec<ObjectKey>,
    /// Others count too, if this says so.
    pub selects: Option<&'a (dyn Fn(&ObjectKey) -> bool + Send + Sync)>,
    /// HelmReleases count for the commit of the Kustomization that applied them.
    pub releases: bool,
    /// What may be seen.
    pub sees: &'a Sees,
}

/// One object that counts.
#[derive(Debug)]
pub struct Found {
    /// Which.
    pub object: ObjectKey,
    /// Its newest rollout of the revision.
    pub rollout: Option<RolloutRow>,
    /// What is known of all of its rollouts.
    pub state: ObjectState,
    /// The inner one: it isn't there.
    watched: Option<Option<Present>>,
}

#[derive(Debug)]
struct Present {
    object: IndexedObject,
    source: Option<IndexedObject>,
    parent: Option<(IndexedObject, Option<IndexedObject>)>,
}

impl Found {
    /// As verdicts take it.
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            object: &self.object,
            rollout: self.rollout.as_ref().map(|row| match self.state.rollouts.rollout(row.id) {
                Some(known) => Trace::from(known),
                None => trace(row),
            }),
            newest: self.state.rollouts.current().map(|rollout| rollout.id),
            live: self.state.rollouts.live(),
            watched: self.watched.as_ref().map(|watched| watched.as_ref().map_or(Watched::Missing, Present::watched)),
        }
    }

    /// What else the answer depends on: what it is made from, and by whom it was applied.
    pub fn related(&self) -> impl Iterator<Item = &IndexedObject> {
        let present = self.watched.as_ref().and_then(Option::as_ref);
        let parents = present.and_then(|present| present.parent.as_ref());
        let sources = [present.and_then(|present| present.source.as_ref()), parents.and_then(|it| it.1.as_ref())];
        sources.into_iter().flatten().chain(parents.map(|parent| &parent.0))
    }

    /// It is suspended, or no more: nothing comes of it unless someone insists.
    fn rests(&self) -> bool {
        match &self.watched {
            Some(Some(present)) => present.object.suspended || present.object.deleting,
            Some(None) => true,
            None => self.state.rollouts.is_gone(),
        }
    }
}

impl Present {
    fn of(object: &IndexedObject, index: &ObjectIndex) -> Self {
        let parent = parent(object, index).map(|parent| (parent.clone(), index.source_of(parent).cloned()));
        Self { object: object.clone(), source: index.source_of(object).cloned(), parent }
    }

    fn watched(&self) -> Watched<'_> {
        Watched::Present {
            object: &self.object,
            source: self.source.as_ref(),
            parent: self.parent.as_ref().map(|(parent, source)| (parent, source.as_ref())),
        }
    }
}

/// The Kustomization that applied an object.
fn parent<'a>(object: &IndexedObject, index: &'a ObjectIndex) -> Option<&'a IndexedObject> {
    let [namespace, name] = PARENT.map(|label| object.labels.get(label));
    index.get("Kustomization", namespace?, name?)
}

impl ExpectedSet<'_> {
    /// Looks up the objects and what is known of them, in the order of their names.
    ///
    /// # Errors
    /// When the store can't be read, or nobody can tell what may be seen.
    pub async fn gather(&self) -> Result<Vec<Found>, Unanswered> {
        let mut rollouts: BTreeMap<ObjectKey, Option<RolloutRow>> = BTreeMap::new();
        for row in self.seen().await? {
            rollouts.entry((*row.object).clone()).or_insert(Some(row));
        }
        for object in self.expected() {
            if !rollouts.contains_key(&object) && self.may_see(&object).await? {
                rollouts.insert(object, None);
            }
        }
        for object in &self.named {
            if !rollouts.keys().any(|known| is_called(known, object)) && self.may_see(object).await? {
                rollouts.insert(object.clone(), None);
            }
        }
        let mut found = self.look_up(rollouts).await?;
        let elsewhere = |it: &&Found| self.configuration.watched() != Some(it.object.cluster.as_str());
        let mut previous: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for it in found.iter().filter(elsewhere) {
            if let Some(before) = before(it) {
                previous.entry(before).or_default().insert(it.object.cluster.clone());
            }
        }
        if self.selects.is_some() {
            self.follow_up(previous, &mut found).await?;
        }
        Ok(found)
    }

    fn is_named(&self, object: &ObjectKey) -> bool {
        self.named.iter().any(|named| is_called(named, object))
    }

    fn counts(&self, object: &ObjectKey) -> bool {
        self.cluster.is_none_or(|cluster| cluster == object.cluster)
            && (self.is_named(object) || self.selects.is_some_and(|selects| selects(object)))
    }

    async fn may_see(&self, object: &ObjectKey) -> Result<bool, Unanswered> {
        (self.sees)(object).await.map_err(Unanswered::Permission)
    }

    /// The newest rollout of the revision of each object that counts.
    async fn seen(&self) -> Result<Vec<RolloutRow>, Unanswered> {
        let cluster = || self.cluster.map(str::to_owned);
        if self.selects.is_some() {
            let object = ObjectFilter { cluster: cluster(), ..ObjectFilter::default() };
            return self.rollouts(object, self.revision, |object| self.counts(object)).await;
        }
        let mut rows = Vec::new();
        for ObjectKey { kind, namespace, name, .. } in &self.named {
            let [kind, namespace, name] = [kind, namespace, name].map(|text| Some(text.clone()));
            let object = ObjectFilter { cluster: cluster(), group: None, kind, namespace, name };
            rows.extend(self.rollouts(object, self.revision, |object| self.counts(object)).await?);
        }
        Ok(rows)
    }

    /// Of each object that is wanted and may be seen the newest rollout of a revision.
    async fn rollouts(
        &self,
        object: ObjectFilter,
        revision: &str,
        wanted: impl Fn(&ObjectKey) -> bool,
    ) -> Result<Vec<RolloutRow>, Unanswered> {
        let revision = Some(revision.to_owned());
        let mut query = RolloutQuery { object, revision, ..RolloutQuery::default() };
        let (mut rows, mut read, mut objects) = (Vec::new(), 0, HashSet::new());
        loop {
            let page = self.store.rollouts(query.clone()).await?;
            read += page.items.len();
            for row in page.items.into_iter().filter(|row| wanted(&row.object)) {
                if objects.insert(row.object.clone()) && self.may_see(&row.object).await? {
                    rows.push(row);
                }
            }
            query.cursor = page.next;
            if rows.len() > MEMBERS || (query.cursor.is_some() && read >= READ) {
                return Err(Unanswered::TooWide);
            }
            if query.cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    /// The objects of the index whose source holds the revision.
    fn expected(&self) -> Vec<ObjectKey> {
        let cluster = self.configuration.cluster();
        self.configuration.with_index(|index| {
            let holds =
                |object: &IndexedObject| index.source_of(object).is_some_and(|source| source.holds(self.revision));
            let objects = WATCHED.iter().flat_map(|(kind, _)| index.of_kind(kind));
            let goes_there = objects
                .filter(|object| !object.suspended && !object.deleting)
                .filter(|object| holds(object) || (self.releases && parent(object, index).is_some_and(holds)));
            let keys = goes_there.map(|object| ObjectKey { cluster: cluster.to_owned(), ..object.key() });
            keys.filter(|key| self.counts(key)).collect()
        })
    }

    /// What is known of objects, if they are worth to wait for.
    async fn look_up(&self, objects: BTreeMap<ObjectKey, Option<RolloutRow>>) -> Result<Vec<Found>, Unanswered> {
        if objects.len() > MEMBERS {
            return Err(Unanswered::TooWide);
        }
        let states = self.store.object_states(objects.keys().cloned().collect()).await?;
        let found = objects.into_iter().zip(states);
        Ok(found
            .filter_map(|((object, rollout), state)| self.found(object, rollout, state.unwrap_or_default()))
            .collect())
    }

    fn found(&self, object: ObjectKey, rollout: Option<RolloutRow>, state: ObjectState) -> Option<Found> {
        let is_watched = self.configuration.watched() == Some(object.cluster.as_str())
            && self.configuration.is_synced()
            && WATCHED.contains(&(object.kind.as_str(), object.group.as_str()));
        let watched = is_watched.then(|| {
            self.configuration.with_index(|index| {
                let present = index.get(&object.kind, &object.namespace, &object.name);
                present.map(|present| Present::of(present, index))
            })
        });
        let found = Found { object, rollout, state, watched };
        let ended =
            found.rollout.as_ref().is_some_and(|rollout| matches!(rollout.state, Phase::Succeeded | Phase::Failed));
        (!found.rests() || ended || self.is_named(&found.object)).then_some(found)
    }

    /// Where nobody watches, objects that still have what others had before the revision are expected to follow them: those of the clusters
    /// in which others had it.
    async fn follow_up(
        &self,
        previous: BTreeMap<String, BTreeSet<String>>,
        found: &mut Vec<Found>,
    ) -> Result<(), Unanswered> {
        for (revision, clusters) in previous {
            // All of them at once: a commit goes to many clusters.
            let cluster = clusters.first().filter(|_| clusters.len() == 1).cloned();
            let known: HashSet<&ObjectKey> = found.iter().map(|found| &found.object).collect();
            let wanted = |object: &ObjectKey| {
                clusters.contains(&object.cluster) && !known.contains(object) && self.counts(object)
            };
            let rows = self.rollouts(ObjectFilter { cluster, ..ObjectFilter::default() }, &revision, wanted).await?;
            let others = rows.iter().map(|row| ((*row.object).clone(), None)).collect();
            let stayed = |it: &Found| {
                it.state.rollouts.current().is_some_and(|current| revision::same(&current.revision, &revision))
            };
            found.extend(self.look_up(others).await?.into_iter().filter(stayed));
            if found.len() > MEMBERS {
                return Err(Unanswered::TooWide);
            }
        }
        found.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(())
    }
}

/// The group that watched objects of a kind have.
pub fn group_of(kind: &str) -> &'static str {
    WATCHED.iter().find(|(watched, _)| *watched == kind).map_or("", |(_, group)| group)
}

fn is_called(one: &ObjectKey, other: &ObjectKey) -> bool {
    (&one.kind, &one.namespace, &one.name) == (&other.kind, &other.namespace, &other.name)
}

/// The revision that an object had before the one that is asked for, if that can be told from all others.
fn before(found: &Found) -> Option<String> {
    let row = found.rollout.as_ref()?;
    let rollouts = found.state.rollouts.rollouts();
    let at = rollouts.iter().position(|rollout| rollout.id == row.id)?;
    let before = &rollouts.get(at.checked_sub(1)?)?.revision;
    Revision::parse(before).whole_hash().map(|_| before.clone())
}

fn trace(row: &RolloutRow) -> Trace<'_> {
    Trace {
        id: row.id,
        revision: &row.revision,
        origin_revision: row.origin_revision.as_deref(),
        state: row.state,
        reason: &row.reason,
        message: &row.message,
        started: row.started,
        finished: row.finished,
        said: row.finished.unwrap_or(row.started),
        superseded_by: row.superseded_by.as_ref(),
        last_event: row.last_event,
    }
}
