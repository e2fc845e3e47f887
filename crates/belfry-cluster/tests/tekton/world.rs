//! A world of rollouts that a test moves, in the place of the store: it answers questions as the store's readers do, but
//! by a verdict that one can see through.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use belfry_cluster::{Ask, Sees};
use belfry_core::{
    ObjectKey, Seq, Time,
    rollout::Phase,
    verdict::{Answer, Question, Selector, Standing, Verdict},
};
use futures::{StreamExt as _, stream};
use tokio::sync::watch;

/// Rollouts, each with the revision that it is of.
pub struct World {
    rollouts: watch::Sender<Vec<(String, Standing)>>,
    asked: Mutex<Vec<Question>>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { rollouts: watch::channel(Vec::new()).0, asked: Mutex::default() })
    }

    /// An event says that an object came to a state on the way to a revision.
    pub fn happens(&self, revision: &str, object: &str, state: Phase, reason: &str) {
        self.happened(Duration::ZERO, revision, object, state, reason);
    }

    /// The same of an event that was so long on its way.
    pub fn happened(&self, ago: Duration, revision: &str, object: &str, state: Phase, reason: &str) {
        let at = jiff::Timestamp::now().as_microsecond();
        let said = Time(at).before(ago);
        let standing = Standing {
            object: key(object),
            cluster: String::new(),
            state,
            revision: Some(revision.to_owned()),
            origin_revision: None,
            reason: reason.to_owned(),
            message: format!("{object} says {reason}"),
            live: None,
            superseded_by: (state == Phase::Superseded).then(|| "next".to_owned()),
            rollout: None,
            event: Some(Seq(at)),
            started: Some(Time(at - 12_000_000)),
            finished: (!state.is_open()).then_some(Time(at)),
            said: Some(said),
        };
        self.rollouts.send_modify(|all| {
            all.retain(|(of, known)| (&**of, &known.object) != (revision, &standing.object));
            all.push((revision.to_owned(), standing));
        });
    }

    /// The questions that were asked so far.
    pub fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    /// How many still listen.
    pub fn listeners(&self) -> usize {
        self.rollouts.receiver_count()
    }

    pub fn ask(self: &Arc<Self>) -> Ask {
        let world = self.clone();
        Arc::new(move |question, sees| {
            world.asked.lock().unwrap().push(question.clone());
            let mut rollouts = world.rollouts.subscribe();
            rollouts.mark_changed();
            stream::unfold((rollouts, question, sees), |(mut rollouts, question, sees)| async move {
                rollouts.changed().await.ok()?;
                let known = rollouts.borrow_and_update().clone();
                let answer = Arc::new(answer(&question, seen(&question, known, &sees).await));
                Some((answer, (rollouts, question, sees)))
            })
            .boxed()
        })
    }
}

/// `Kind/namespace/name`; nothing: the object without a name.
pub fn key(object: &str) -> ObjectKey {
    let parts: Vec<_> = object.split('/').collect();
    let &[kind, namespace, name] = &parts[..] else { return ObjectKey::default() };
    let group = if kind == "HelmRelease" { "helm.toolkit.fluxcd.io" } else { "kustomize.toolkit.fluxcd.io" };
    ObjectKey {
        cluster: String::new(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn fits(selector: &Selector, object: &ObjectKey) -> bool {
    let fits = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
    fits(&selector.kind, &object.kind)
        && fits(&selector.namespace, &object.namespace)
        && fits(&selector.name, &object.name)
}

/// Where the objects stand that count, as far as they may be seen.
async fn seen(question: &Question, rollouts: Vec<(String, Standing)>, sees: &Sees) -> Vec<Standing> {
    let mut objects = Vec::new();
    for (revision, standing) in rollouts {
        let object = &standing.object;
        let asked = question.objects.iter().any(|selector| fits(selector, object)) || question.objects.is_empty();
        if revision == question.revision && asked && sees(object).await.unwrap() {
            objects.push(standing);
        }
    }
    objects
}

fn answer(question: &Question, mut objects: Vec<Standing>) -> Answer {
    objects.sort_by(|a, b| a.object.cmp(&b.object));
    let first = |state: Phase| objects.iter().find(|standing| standing.state == state);
    let open = objects.iter().find(|standing| standing.state.is_open());
    let (verdict, reason, decided) = if let Some(failed) = first(Phase::Failed) {
        (Verdict::Failed, "ReconciliationFailed", Some(failed))
    } else if let Some(superseded) = first(Phase::Superseded) {
        (Verdict::Superseded, "RevisionSuperseded", Some(superseded))
    } else if objects.is_empty() {
        (Verdict::Unknown, "NotTracked", None)
    } else if open.is_some() || objects.len() < question.objects.len() {
        (Verdict::Pending, "Waiting", open)
    } else {
        (Verdict::Succeeded, "ReconciliationSucceeded", objects.last())
    };
    let decided = decided.cloned();
    Answer {
        verdict,
        reason,
        message: decided.as_ref().map_or_else(|| "Nothing goes to it".to_owned(), |one| one.message.clone()),
        revision: question.revision.clone(),
        origin_revision: None,
        object: decided.as_ref().map(|one| one.object.clone()),
        superseded_by: decided.as_ref().and_then(|one| one.superseded_by.clone()),
        event: decided.as_ref().and_then(|one| one.event),
        started: decided.as_ref().and_then(|one| one.started),
        finished: decided.as_ref().and_then(|one| one.finished),
        objects,
    }
}
