//! Which objects a question is about, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};

use belfry_core::{
    ObjectKey,
    index::{IndexedObject, ObjectIndex},
    plan::ObjectState,
    revision::{self, Revision},
    verdict::{Facts, Question, Selector, Trace, Watched},
};
use belfry_store::{ObjectFilter, RolloutQuery, RolloutRow};

use super::{Sees, Unanswered, Waits, print, print_of};
use crate::configuration::Configuration;

/// Objects that one answer counts at most.
const MEMBERS: usize = 2_000;
/// Kinds that a cluster's watches see going to revisions, and their groups.
const WATCHED: [(&str, &str); 2] =
    [("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io")];
const PARENT: [&str; 2] = ["kustomize.toolkit.fluxcd.io/namespace", "kustomize.toolkit.fluxcd.io/name"];

/// One object that counts.
#[derive(Debug)]
pub(super) struct Found {
    object: ObjectKey,
    rollout: Option<RolloutRow>,
    state: ObjectState,
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

    /// What the answer depends on.
    pub fn prints(&self) -> Vec<u64> {
        let mut prints = vec![print(&self.object)];
        if let Some(Some(Present { source, parent, .. })) = &self.watched {
            prints.extend(source.as_ref().map(print_of));
            if let Some((parent, source)) = parent {
                prints.push(print_of(parent));
                prints.extend(source.as_ref().map(print_of));
            }
        }
        prints
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

impl Waits {
    /// Looks up what a question is about, as far as its asker may see it, in the order of the objects' names.
    pub(super) async fn gather(&self, question: &Question, sees: &Sees) -> Result<Vec<Found>, Unanswered> {
        let mut rollouts: BTreeMap<ObjectKey, Option<RolloutRow>> = BTreeMap::new();
        for row in self.seen(question).await? {
            if is_asked(question, &row.object) {
                rollouts.entry((*row.object).clone()).or_insert(Some(row));
            }
        }
        for object in expected(&self.configuration, question) {
            rollouts.entry(object).or_insert(None);
        }
        named(question, &self.cluster, &mut rollouts);
        let mut found = Vec::new();
        let mut previous = BTreeSet::new();
        for (object, rollout) in rollouts.into_iter().take(MEMBERS) {
            if let Some(it) = self.look_up(object, rollout, sees).await? {
                if self.configuration.watched() != Some(it.object.cluster.as_str()) {
                    previous.extend(before(&it).map(|before| (it.object.cluster.clone(), before)));
                }
                found.push(it);
            }
        }
        if question.objects.is_empty() || question.objects.iter().any(|selector| exact(selector).is_none()) {
            self.follow_up(question, sees, previous, &mut found).await?;
        }
        Ok(found)
    }

    /// The one object that a selector of a question names, if it names one.
    pub fn object(&self, question: &Question, selector: &Selector) -> Option<ObjectKey> {
        the_object(question, selector, &self.cluster)
    }

    /// The rollouts of the revision, newest first.
    async fn seen(&self, question: &Question) -> Result<Vec<RolloutRow>, Unanswered> {
        let mut filters: Vec<ObjectFilter> = question.objects.iter().filter_map(exact).collect();
        if filters.len() != question.objects.len() || filters.is_empty() {
            filters = vec![ObjectFilter::default()];
        }
        let mut rows = Vec::new();
        for object in filters {
            let object = ObjectFilter { cluster: question.cluster.clone(), ..object };
            rows.extend(self.rollouts(object, &question.revision).await?);
        }
        Ok(rows)
    }

    async fn rollouts(&self, object: ObjectFilter, revision: &str) -> Result<Vec<RolloutRow>, Unanswered> {
        let revision = Some(revision.to_owned());
        let mut query = RolloutQuery { object, revision, ..RolloutQuery::default() };
        let mut rows = Vec::new();
        loop {
            let page = self.store.rollouts(query.clone()).await?;
            rows.extend(page.items);
            query.cursor = page.next;
            if query.cursor.is_none() || rows.len() >= MEMBERS {
                return Ok(rows);
            }
        }
    }

    async fn look_up(
        &self,
        object: ObjectKey,
        rollout: Option<RolloutRow>,
        sees: &Sees,
    ) -> Result<Option<Found>, Unanswered> {
        if !sees(&object).await.map_err(Unanswered::Permission)? {
            return Ok(None);
        }
        let state = self.store.object_state(&object).await?.unwrap_or_default();
        let is_watched = self.configuration.watched() == Some(object.cluster.as_str())
            && self.configuration.is_synced()
            && WATCHED.contains(&(object.kind.as_str(), object.group.as_str()));
        let watched = is_watched.then(|| {
            self.configuration.with_index(|index| {
                let present = index.get(&object.kind, &object.namespace, &object.name);
                present.map(|present| Present::of(present, index))
            })
        });
        Ok(Some(Found { object, rollout, state, watched }))
    }

    /// Where nobody watches, objects that still have what others had before the revision are expected to follow them.
    async fn follow_up(
        &self,
        question: &Question,
        sees: &Sees,
        previous: BTreeSet<(String, String)>,
        found: &mut Vec<Found>,
    ) -> Result<(), Unanswered> {
        for (cluster, revision) in previous {
            let filter = ObjectFilter { cluster: Some(cluster), ..ObjectFilter::default() };
            for row in self.rollouts(filter, &revision).await? {
                let known = found.iter().any(|found| found.object == *row.object);
                if known || found.len() >= MEMBERS || !is_asked(question, &row.object) {
                    continue;
                }
                let Some(it) = self.look_up((*row.object).clone(), None, sees).await? else { continue };
                let current = it.state.rollouts.current();
                let has_it = current.is_some_and(|current| revision::same(&current.revision, &revision));
                if has_it && !it.state.rollouts.is_gone() {
                    found.push(it);
                }
            }
        }
        found.sort_by(|a, b| a.object.cmp(&b.object));
        Ok(())
    }
}

/// The one object that a selector names.
fn exact(selector: &Selector) -> Option<ObjectFilter> {
    let Selector { kind: Some(kind), namespace: Some(namespace), name: Some(name) } = selector else { return None };
    let (kind, namespace, name) = (Some(kind.clone()), Some(namespace.clone()), Some(name.clone()));
    Some(ObjectFilter { kind, namespace, name, ..ObjectFilter::default() })
}

fn is_asked(question: &Question, object: &ObjectKey) -> bool {
    let is = |asked: &Option<String>, it: &str| asked.as_deref().is_none_or(|asked| asked == it);
    let selected = |selector: &Selector| {
        is(&selector.kind, &object.kind)
            && is(&selector.namespace, &object.namespace)
            && is(&selector.name, &object.name)
            && !object.name.is_empty()
    };
    is(&question.cluster, &object.cluster) && (question.objects.is_empty() || question.objects.iter().any(selected))
}

/// The objects of the watched cluster that are to go to the revision: their source holds it. A HelmRelease also if the
/// Kustomization that applied it is to, and HelmReleases are asked for.
fn expected(configuration: &Configuration, question: &Question) -> Vec<ObjectKey> {
    let Some(cluster) = configuration.watched() else { return Vec::new() };
    let asks_releases = question.objects.iter().any(|selector| selector.kind.as_deref() == Some("HelmRelease"));
    configuration.with_index(|index| {
        let holds =
            |object: &IndexedObject| index.source_of(object).is_some_and(|source| source.holds(&question.revision));
        let objects = WATCHED.iter().flat_map(|(kind, _)| index.of_kind(kind));
        let goes_there = objects
            .filter(|object| !object.suspended && !object.deleting)
            .filter(|object| holds(object) || (asks_releases && parent(object, index).is_some_and(holds)));
        let keys = goes_there.map(|object| ObjectKey { cluster: cluster.to_owned(), ..object.key() });
        keys.filter(|key| is_asked(question, key)).collect()
    })
}

/// What is named counts before anything was heard of it.
fn named(question: &Question, local: &str, rollouts: &mut BTreeMap<ObjectKey, Option<RolloutRow>>) {
    for object in question.objects.iter().filter_map(|selector| the_object(question, selector, local)) {
        let is_it =
            |key: &ObjectKey| key.kind == object.kind && key.namespace == object.namespace && key.name == object.name;
        if !rollouts.keys().any(is_it) {
            rollouts.insert(object, None);
        }
    }
}

/// The one object that a selector names.
fn the_object(question: &Question, selector: &Selector, local: &str) -> Option<ObjectKey> {
    let ObjectFilter { kind: Some(kind), namespace: Some(namespace), name: Some(name), .. } = exact(selector)? else {
        return None;
    };
    let group = WATCHED.iter().find(|(watched, _)| *watched == kind).map_or("", |(_, group)| group);
    let cluster = question.cluster.as_deref().unwrap_or(local).to_owned();
    Some(ObjectKey { cluster, group: group.to_owned(), kind, namespace, name })
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
