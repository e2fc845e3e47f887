//! The one function that gives verdicts.

use super::{Answer, OnFailure, OnSuperseded, Question, Standing, Verdict};
use crate::{
    ObjectKey, Seq, Time,
    index::{Agreement, IndexedObject},
    revision,
    rollout::{Live, Phase, Rollout, Successor},
};

/// How long after its parent a HelmRelease is looked at: two watches may be so far apart.
const SETTLED: std::time::Duration = std::time::Duration::from_secs(2);

/// What is known of one object that a question is about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which.
    pub object: &'a ObjectKey,
    /// Its newest rollout of the revision that is asked for.
    pub rollout: Option<Trace<'a>>,
    /// Its newest rollout of all.
    pub newest: Option<Seq>,
    /// What it runs, as far as events and observations tell.
    pub live: Option<&'a Live>,
    /// What a watch sees of it; `None` when nobody watches its cluster.
    pub watched: Option<Watched<'a>>,
}

/// What a watch sees of an object.
#[derive(Clone, Copy, Debug)]
pub enum Watched<'a> {
    /// It isn't there.
    Missing,
    /// It is there.
    Present {
        /// It.
        object: &'a IndexedObject,
        /// What it is made from.
        source: Option<&'a IndexedObject>,
        /// The Kustomization that applied it, and what that is made from.
        parent: Option<(&'a IndexedObject, Option<&'a IndexedObject>)>,
    },
}

/// A rollout, as far as verdicts need it.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// Its id.
    pub id: Seq,
    /// The revision as its object names it.
    pub revision: &'a str,
    /// The revision that its artifact was made from.
    pub origin_revision: Option<&'a str>,
    /// Where it stands.
    pub state: Phase,
    /// The last reason.
    pub reason: &'a str,
    /// The message that came with it.
    pub message: &'a str,
    /// When it began, by the events' own clock.
    pub started: Time,
    /// When it came to the state that ended it, by the same clock.
    pub finished: Option<Time>,
    /// When its reason and message were said last, by the same clock.
    pub said: Time,
    /// What superseded it.
    pub superseded_by: Option<&'a Successor>,
    /// The last event or observation that changed it.
    pub last_event: Seq,
}

impl<'a> From<&'a Rollout> for Trace<'a> {
    fn from(rollout: &'a Rollout) -> Self {
        Self {
            id: rollout.id,
            revision: &rollout.revision,
            origin_revision: rollout.origin_revision.as_deref(),
            state: rollout.state,
            reason: &rollout.reason,
            message: &rollout.message,
            started: rollout.started,
            finished: rollout.finished,
            said: rollout.heard,
            superseded_by: rollout.superseded_by.as_ref(),
            last_event: rollout.last_event,
        }
    }
}

/// Answers a question. Facts are those of the objects that count, in the order in which the answer is to list them.
///
/// The time is the one at which the answer may be another although nothing happened.
pub fn decide(question: &Question, facts: &[Facts<'_>], now: Time) -> (Answer, Option<Time>) {
    let judged: Vec<Judged> = facts.iter().map(|facts| Judge { question, facts, now }.judge()).collect();
    let again = judged.iter().filter_map(|judged| judged.again).min();
    (answer(question, judged), again)
}

/// What one object means for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Succeeded,
    Failed,
    Superseded,
    Open,
}

struct Judged {
    standing: Standing,
    effect: Effect,
    again: Option<Time>,
}

struct Judge<'a> {
    question: &'a Question,
    facts: &'a Facts<'a>,
    now: Time,
}

impl Judge<'_> {
    fn judge(&self) -> Judged {
        let mut standing = self.standing();
        let mut again = None;
        match self.facts.watched {
            Some(Watched::Missing) if self.rollout().is_none() => standing.say("Missing", "it does not exist"),
            Some(Watched::Present { object, source, parent }) => {
                self.look(&mut standing, object, source);
                if standing.state.is_open() && self.rollout().is_none() {
                    again = self.follow(&mut standing, object, parent);
                }
            }
            _ => {}
        }
        let effect = self.effect(&standing, &mut again);
        Judged { standing, effect, again }
    }

    /// The rollout, unless all that is known of it is too old to count.
    fn rollout(&self) -> Option<Trace<'_>> {
        let rollout = self.facts.rollout?;
        let old = self.question.not_before.is_some_and(|start| rollout.last_event.time() < start);
        let stands = rollout.state.is_open() || rollout.state == Phase::Succeeded;
        (!old || stands && self.facts.newest == Some(rollout.id)).then_some(rollout)
    }

    /// Where the object stands by what events and observations told.
    fn standing(&self) -> Standing {
        let blank = Standing {
            object: self.facts.object.clone(),
            cluster: self.facts.object.cluster.clone(),
            state: Phase::Pending,
            revision: None,
            origin_revision: None,
            reason: String::new(),
            message: String::new(),
            live: self.other_live().map(str::to_owned),
            superseded_by: None,
            rollout: None,
            event: None,
            started: None,
            finished: None,
            said: None,
        };
        match self.rollout() {
            Some(rollout) => Standing {
                state: rollout.state,
                revision: Some(rollout.revision.to_owned()),
                origin_revision: rollout.origin_revision.map(str::to_owned),
                reason: rollout.reason.to_owned(),
                message: rollout.message.to_owned(),
                superseded_by: rollout.superseded_by.map(|next| next.revision.clone()),
                rollout: Some(rollout.id),
                event: Some(rollout.last_event),
                started: Some(rollout.started),
                finished: rollout.finished,
                said: Some(rollout.said),
                ..blank
            },
            None => match self.overtaken() {
                Some(live) => Standing {
                    state: Phase::Superseded,
                    superseded_by: Some(live.revision.clone()),
                    event: Some(live.since),
                    finished: Some(live.since.time()),
                    ..blank
                },
                None => blank,
            },
        }
    }

    /// What the object runs, if that is another revision.
    fn other_live(&self) -> Option<&str> {
        let live = &self.facts.live?.revision;
        let is_asked = self.facts.rollout.is_some_and(|rollout| revision::same(rollout.revision, live))
            || revision::same(&self.question.revision, live);
        (!is_asked).then_some(live)
    }

    /// Of a revision that was never seen: the object went live with one that was first seen after the question was asked.
    fn overtaken(&self) -> Option<&Live> {
        let start = self.question.not_before.unwrap_or(self.question.asked);
        let live = self.facts.live?;
        let later = live.since.time() > start && live.rollout.is_some_and(|first_seen| first_seen.time() > start);
        (self.facts.rollout.is_none() && later && self.other_live().is_some()).then_some(live)
    }

    /// The object's own status decides, whatever was told.
    fn look(&self, standing: &mut Standing, object: &IndexedObject, source: Option<&IndexedObject>) {
        let names_it = |asked: &str| object.agreement(Some(asked), source);
        let by_rollout = self.facts.rollout.map(|rollout| names_it(rollout.revision));
        let agreement = match by_rollout {
            Some(agreement) if agreement != Agreement::Neither => agreement,
            _ => names_it(&self.question.revision),
        };
        let ready = object.ready.as_ref();
        match (agreement, ready) {
            (Agreement::Ready, Some(ready)) if standing.state != Phase::Succeeded => {
                standing.take(Phase::Succeeded, object, source, ready);
                standing.superseded_by = None;
            }
            (Agreement::Failed, Some(ready)) if standing.state != Phase::Failed && self.counts(ready) => {
                standing.take(Phase::Failed, object, source, ready);
            }
            // It failed again, and no event told of it.
            (Agreement::Failed, Some(ready)) if standing.state == Phase::Failed && ready.changed() > standing.said => {
                standing.say(&ready.reason, &ready.message);
                standing.said = ready.changed();
            }
            // It is at it yet: whoever said that another one came was wrong.
            (Agreement::Ready | Agreement::Failed, _) => {}
            (Agreement::Neither, _) if standing.state == Phase::Superseded && self.goes_on(object) => {
                standing.state = Phase::Progressing;
                standing.superseded_by = None;
            }
            (Agreement::Neither, _) if standing.state.is_open() && standing.reason.is_empty() => {
                self.explain(standing, object);
            }
            _ => {}
        }
    }

    /// Whether a failure that a status tells of is recent enough.
    fn counts(&self, ready: &crate::index::Condition) -> bool {
        let start = self.question.not_before;
        start.is_none_or(|start| ready.changed().is_some_and(|changed| changed >= start))
    }

    /// Whether the object, as its status says, is still under way to the revision.
    fn goes_on(&self, object: &IndexedObject) -> bool {
        let asked = self.facts.rollout.map_or(self.question.revision.as_str(), |rollout| rollout.revision);
        let attempted = object.attempted_revision.as_deref();
        attempted.is_some_and(|attempted| revision::same(attempted, asked))
            && object.ready.as_ref().is_some_and(|ready| ready.status != "True")
    }

    /// Why nothing happens.
    fn explain(&self, standing: &mut Standing, object: &IndexedObject) {
        if object.deleting {
            standing.say("Deleting", "it is being deleted");
        } else if object.suspended {
            standing.say("Suspended", "it is suspended");
        } else if let Some(ready) = object.ready.as_ref().filter(|ready| ready.status != "True") {
            standing.say(&ready.reason, &ready.message);
        }
    }

    /// A HelmRelease has no commit of its own: it has one when the Kustomization that applied it has.
    fn follow(
        &self,
        standing: &mut Standing,
        object: &IndexedObject,
        parent: Option<(&IndexedObject, Option<&IndexedObject>)>,
    ) -> Option<Time> {
        let commit = revision::Revision::parse(&self.question.revision).hash.is_some();
        if object.kind != "HelmRelease" || !commit {
            return None;
        }
        let Some((parent, source)) = parent else {
            standing.say("NoParent", "no Kustomization is known that applied it, so that no commit can be told of it");
            return None;
        };
        let (applied, own) = (parent.agreement(Some(&self.question.revision), source), object.agreement(None, None));
        let (Agreement::Ready, Some(at)) = (applied, parent.ready.as_ref().and_then(|ready| ready.changed())) else {
            if let (Agreement::Failed, Some(ready)) = (applied, &parent.ready) {
                standing.take(Phase::Failed, parent, source, ready);
            } else {
                standing
                    .say("Waiting", &format!("Kustomization/{}/{} has yet to apply it", parent.namespace, parent.name));
            }
            return None;
        };
        if at.after(SETTLED) > self.now {
            return Some(at.after(SETTLED));
        }
        match (own, &object.ready) {
            (Agreement::Ready, Some(ready)) => standing.take(Phase::Succeeded, object, None, ready),
            (Agreement::Failed, Some(ready)) => standing.take(Phase::Failed, object, None, ready),
            _ => {}
        }
        None
    }

    fn effect(&self, standing: &Standing, again: &mut Option<Time>) -> Effect {
        match (standing.state, self.question.on_failure, self.question.on_superseded) {
            (Phase::Succeeded, ..) => Effect::Succeeded,
            (Phase::Failed, OnFailure::Fail { grace }, _) => {
                let until = standing.finished.unwrap_or(self.now).after(grace);
                if grace.is_zero() || until <= self.now {
                    return Effect::Failed;
                }
                *again = Some(until);
                Effect::Open
            }
            (Phase::Superseded, _, OnSuperseded::Fail) => Effect::Superseded,
            (Phase::Superseded, _, OnSuperseded::Succeed) if self.is_live_with_another() => Effect::Succeeded,
            _ => Effect::Open,
        }
    }

    /// Whether what superseded it is live.
    fn is_live_with_another(&self) -> bool {
        let live = self.facts.live.is_some_and(|live| live.rollout.is_some() && live.rollout == self.facts.newest);
        let settled = match self.facts.watched {
            Some(Watched::Present { object, source, .. }) => object.agreement(None, source) == Agreement::Ready,
            _ => true,
        };
        live && settled
    }
}

impl Standing {
    fn say(&mut self, reason: &str, message: &str) {
        (self.reason, self.message) = (reason.to_owned(), message.to_owned());
    }

    /// Takes over what a status says.
    fn take(
        &mut self,
        state: Phase,
        object: &IndexedObject,
        source: Option<&IndexedObject>,
        ready: &crate::index::Condition,
    ) {
        self.state = state;
        self.say(&ready.reason, &ready.message);
        self.finished = ready.changed();
        self.said = self.finished;
        if let Some(decided) = object.decided(source) {
            self.revision.get_or_insert_with(|| decided.revision.to_owned());
            self.origin_revision = self.origin_revision.take().or(decided.origin.map(str::to_owned));
        }
    }

    /// What to call it: events without an object tell of the revision alone.
    fn subject(&self) -> String {
        if self.object.kind.is_empty() { "the revision".to_owned() } else { self.object.to_string() }
    }

    /// It in a few words.
    fn words(&self) -> String {
        let message = self.message.lines().next().unwrap_or_default().trim();
        let parts = [self.reason.as_str(), message].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join(": ")
    }
}

fn answer(question: &Question, judged: Vec<Judged>) -> Answer {
    let all = judged.len();
    let count = |effect: Effect| judged.iter().filter(|judged| judged.effect == effect).count();
    let (done, failed, superseded) = (count(Effect::Succeeded), count(Effect::Failed), count(Effect::Superseded));
    let first =
        |effect: Effect| judged.iter().map(|judged| (judged.effect, &judged.standing)).find(|it| it.0 == effect);
    let last_done = judged.iter().filter(|judged| judged.effect == Effect::Succeeded).map(|judged| &judged.standing);
    let last_done = last_done.max_by_key(|standing| (standing.finished, standing.event));
    let others = |count: usize| if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() };
    let (verdict, reason, deciding) = match () {
        () if failed > 0 => (Verdict::Failed, "ReconciliationFailed", first(Effect::Failed)),
        () if superseded > 0 => (Verdict::Superseded, "RevisionSuperseded", first(Effect::Superseded)),
        () if all == 0 => (Verdict::Unknown, "NotTracked", None),
        () if done == all => {
            (Verdict::Succeeded, "ReconciliationSucceeded", last_done.map(|standing| (Effect::Succeeded, standing)))
        }
        () => (Verdict::Pending, "Waiting", first(Effect::Open)),
    };
    let deciding = deciding.map(|(_, standing)| standing);
    let message = match (verdict, deciding) {
        (Verdict::Failed, Some(it)) => format!("{} failed: {}{}", it.subject(), it.words(), others(failed)),
        (Verdict::Superseded, Some(it)) => {
            let by = it.superseded_by.as_deref().unwrap_or("its deletion");
            format!("{} was superseded by {by}{}", it.subject(), others(superseded))
        }
        (Verdict::Succeeded, Some(it)) if all == 1 => format!("{} is live: {}", it.subject(), it.words()),
        (Verdict::Succeeded, _) => format!("all {all} objects are live"),
        (Verdict::Pending, Some(it)) => pending(it, done, all),
        _ => format!("nothing that is known goes to {}", question.revision),
    };
    let deciding = deciding.cloned();
    let event = deciding.as_ref().and_then(|it| it.event);
    Answer {
        verdict,
        reason,
        message,
        revision: deciding.as_ref().and_then(|it| it.revision.clone()).unwrap_or_else(|| question.revision.clone()),
        origin_revision: deciding.as_ref().and_then(|it| it.origin_revision.clone()),
        superseded_by: deciding.as_ref().and_then(|it| it.superseded_by.clone()),
        event,
        started: judged.iter().filter_map(|judged| judged.standing.started).min(),
        finished: deciding.as_ref().filter(|_| verdict.is_final()).and_then(|it| it.finished),
        object: deciding.map(|it| it.object),
        objects: judged.into_iter().map(|judged| judged.standing).collect(),
    }
}

fn pending(it: &Standing, done: usize, all: usize) -> String {
    let tally = if all > 1 { format!("{done} of {all} objects are live; ") } else { String::new() };
    let words = it.words();
    let why = if words.is_empty() { String::new() } else { format!(": {words}") };
    let live = it.live.as_ref().map(|live| format!(" (it runs {live})")).unwrap_or_default();
    format!("{tally}waiting for {}{why}{live}", it.subject())
}
