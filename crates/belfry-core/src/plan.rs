//! The fold: what one event means for its object, decided from the object's state alone. The store calls [`plan`] while
//! it holds the append lock, and nothing else changes an object's state; replaying the log gives the same states.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    ConfigKey, ConfigKind, ObjectKey, Seq,
    passed::Sent,
    rollout::{self, Details, Input, Phase, Rollout, Sighting, Step},
};

/// For how long a byte-identical body is the same event: longer than any sender keeps trying.
pub const SAME_BODY: Duration = Duration::from_secs(600);

/// How an input came, which tells the form of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// An event straight from a controller's recorder: metadata keys carry prefixes.
    Recorder,
    /// An event that a `generic` provider passed on: metadata keys are stripped.
    Forwarded,
    /// Not an event: what a watch saw (a [`Sighting`]).
    Observed,
}

/// An event that was read and matched, and is to be taken in.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is about.
    pub object: ObjectKey,
    /// How it came.
    pub origin: Origin,
    /// Its severity as sent.
    pub severity: String,
    /// Its reason as sent.
    pub reason: String,
    /// Its `revision`, if it names one.
    pub revision: Option<String>,
    /// Hash of the commit that it is about, if it names one.
    pub commit: Option<String>,
    /// It carries `commit_status: update`: a Kustomization's success.
    pub updates_commit_status: bool,
    /// What else it says of its object's rollouts; `None` for kinds that have none.
    pub rollout: Option<Box<Details>>,
    /// Hash of the repeat key: the peer's key plus cluster, severity and reason.
    pub dedupe: u64,
    /// Hash of the body.
    pub body_hash: u64,
    /// What its sender says of it, if it came with an id: that alone tells then whether it is known.
    pub sent: Option<Box<Sent>>,
    /// The body as it came.
    pub body: Bytes,
    /// Where it may go: the Alerts that select it, and the CommitStatuses that select its object.
    pub routes: Vec<RouteRef>,
}

/// An Alert that selects an event, or a CommitStatus that selects its object, and the Provider it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRef {
    /// The Alert, which is told of events, or the CommitStatus, which is told of rollouts.
    pub route: Arc<ConfigKey>,
    /// The Provider, whether it exists or not.
    pub provider: Arc<ConfigKey>,
    /// The Provider's type takes `commit_status: update` events (git hosts, generic), or isn't known yet.
    pub takes_status_updates: bool,
    /// A CommitStatus that has one status for all objects of a commit.
    pub aggregate: bool,
    /// For how long a CommitStatus lets a state settle before it is posted. One that ends a rollout isn't held back,
    /// unless others of its commit may follow: when it aggregates.
    pub settle: Duration,
}

impl RouteRef {
    /// Of an Alert.
    pub fn alert(alert: Arc<ConfigKey>, provider: Arc<ConfigKey>, takes_status_updates: bool) -> Self {
        Self { route: alert, provider, takes_status_updates, aggregate: false, settle: Duration::ZERO }
    }

    /// Of a CommitStatus.
    pub fn commit_status(status: Arc<ConfigKey>, provider: Arc<ConfigKey>, aggregate: bool, settle: Duration) -> Self {
        Self { route: status, provider, takes_status_updates: false, aggregate, settle }
    }

    /// Whether it is told of rollouts rather than of events.
    pub fn tells_rollouts(&self) -> bool {
        self.route.kind == ConfigKind::CommitStatus
    }

    /// How long a rollout's new state waits before it is posted.
    pub fn holds_back(&self, phase: Phase) -> Duration {
        if phase.is_open() || self.aggregate { self.settle } else { Duration::ZERO }
    }
}

/// What Belfry knows of an object. The default is an object never heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectState {
    /// Severity of the last event that says something of the object's state.
    #[serde(rename = "s", default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    /// The last revision that such an event named.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// It failed and has not succeeded since.
    #[serde(rename = "f", default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Its rollouts, if it is of a kind that has any.
    #[serde(rename = "o", default, skip_serializing_if = "rollout::State::is_unheard")]
    pub rollouts: rollout::State,
}

/// What the fold says happened, as Alerts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The object was fine, or unknown, and failed.
    Failed,
    /// The object had failed and succeeded.
    Recovered,
}

impl Change {
    /// How the store spells it.
    pub fn code(self) -> i64 {
        match self {
            Self::Failed => 1,
            Self::Recovered => 2,
        }
    }

    /// What the store spells so.
    pub fn from_code(code: i64) -> Option<Self> {
        [Self::Failed, Self::Recovered].into_iter().find(|change| change.code() == code)
    }
}

/// The latest events that the candidate may be a repeat of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The last one stored under the same repeat key.
    pub same_key: Option<Seq>,
    /// The last one stored with the same body.
    pub same_body: Option<Seq>,
    /// The one stored with the same id, if the candidate has one, however long ago.
    pub same_id: Option<Seq>,
}

/// What is to be done with a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Count it on the event that it repeats, and store nothing.
    Repeat {
        /// The event that it repeats.
        of: Seq,
    },
    /// Store it.
    Store(Stored),
}

/// What taking an input in means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The object's new state, when it differs.
    pub state: Option<Arc<ObjectState>>,
    /// What happened.
    pub change: Option<Change>,
    /// Rollouts that are new or differ, each once.
    pub rollouts: Vec<Rollout>,
    /// One delivery each, in the order in which they are to be made.
    pub deliveries: Vec<Told>,
}

/// A delivery that an input causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Index into the routes.
    pub route: usize,
    /// Index into the rollouts that differ: what the route is told of, if not of the event.
    pub rollout: Option<usize>,
}

/// Decides what an event means that arrives as `seq`. `interval` is how long a repeat is held back
/// (`--rate-limit-interval`).
pub fn plan(state: &ObjectState, seen: Seen, candidate: &Candidate, interval: Duration, seq: Seq) -> Plan {
    let within = |before: Option<Seq>, window| before.filter(|before| seq.time().since(before.time()) < window);
    // Who passes events on has left out repeats, by the time that they came: here they may all come at once.
    let has_id = candidate.sent.is_some();
    let known = if has_id { seen.same_id } else { within(seen.same_body, SAME_BODY) };
    if let Some(of) = known {
        return Plan::Repeat { of };
    }
    let (health, change) = step(state, candidate);
    let moved = candidate
        .rollout
        .as_deref()
        .map(|details| rollout::step(&state.rollouts, &Input::Reported(details.report(candidate, seq))));
    let says_something_new = health.severity != state.severity
        || health.revision != state.revision.as_deref()
        || moved.as_ref().is_some_and(|step| step.is_news(&state.rollouts));
    if !says_something_new
        && !has_id
        && let Some(of) = within(seen.same_key, interval)
    {
        return Plan::Repeat { of };
    }
    let moved = moved.unwrap_or_else(|| Step { state: state.rollouts.clone(), ..Step::default() });
    let mut deliveries: Vec<Told> = (0..candidate.routes.len())
        .filter(|i| goes_to(&candidate.routes[*i], candidate, change))
        .map(|route| Told { route, rollout: None })
        .collect();
    tell_rollouts(&state.rollouts, &moved.changed, &candidate.routes, &mut deliveries);
    let same = health.is(state) && moved.state == state.rollouts;
    let next = (!same).then(|| Arc::new(health.with(moved.state)));
    Plan::Store(Stored { state: next, change, rollouts: moved.changed, deliveries })
}

/// Decides what something means that a watch saw: nothing, unless it tells of a rollout what no event told. Alerts are
/// never told of it, and what they know of the object stays.
pub fn observe(state: &ObjectState, sighting: &Sighting, routes: &[RouteRef], seq: Seq) -> Option<Stored> {
    let moved = rollout::step(&state.rollouts, &Input::Observed(sighting.observation(seq)));
    if !moved.is_news(&state.rollouts) {
        return None;
    }
    let mut deliveries = Vec::new();
    tell_rollouts(&state.rollouts, &moved.changed, routes, &mut deliveries);
    let next = ObjectState { rollouts: moved.state, ..state.clone() };
    Some(Stored { state: Some(Arc::new(next)), change: None, rollouts: moved.changed, deliveries })
}

/// One delivery for each CommitStatus and each rollout that a status would tell differently now.
fn tell_rollouts(before: &rollout::State, changed: &[Rollout], routes: &[RouteRef], deliveries: &mut Vec<Told>) {
    let differs = |now: &Rollout| {
        before.rollout(now.id).is_none_or(|old| {
            old.state != now.state
                || old.reason != now.reason
                || old.message != now.message
                || old.superseded_by != now.superseded_by
        })
    };
    for (i, _) in changed.iter().enumerate().filter(|(_, now)| differs(now)) {
        let told = routes.iter().enumerate().filter(|(_, route)| route.tells_rollouts());
        deliveries.extend(told.map(|(route, _)| Told { route, rollout: Some(i) }));
    }
}

fn goes_to(route: &RouteRef, candidate: &Candidate, change: Option<Change>) -> bool {
    !route.tells_rollouts() && is_told(candidate.updates_commit_status, route.takes_status_updates, change)
}

/// A Kustomization's commit status update is noise for a chat, but for the one that ends a failure.
pub(crate) fn is_told(updates_commit_status: bool, takes_status_updates: bool, change: Option<Change>) -> bool {
    !updates_commit_status || takes_status_updates || change == Some(Change::Recovered)
}

/// What Alerts know of an object.
struct Health<'a> {
    severity: &'a str,
    revision: Option<&'a str>,
    failed: bool,
}

impl Health<'_> {
    fn is(&self, state: &ObjectState) -> bool {
        self.severity == state.severity && self.revision == state.revision.as_deref() && self.failed == state.failed
    }

    fn with(&self, rollouts: rollout::State) -> ObjectState {
        ObjectState {
            severity: self.severity.to_owned(),
            revision: self.revision.map(str::to_owned),
            failed: self.failed,
            rollouts,
        }
    }
}

fn step<'a>(state: &'a ObjectState, candidate: &'a Candidate) -> (Health<'a>, Option<Change>) {
    let before = Health { severity: &state.severity, revision: state.revision.as_deref(), failed: state.failed };
    if matches!(candidate.reason.as_str(), "Progressing" | "DependencyNotReady") {
        return (before, None);
    }
    let failed = candidate.severity == "error";
    let next = Health {
        severity: &candidate.severity,
        revision: candidate.revision.as_deref().or(before.revision),
        failed: failed || (state.failed && !succeeds(candidate)),
    };
    let change = match (state.failed, next.failed) {
        (false, true) => Some(Change::Failed),
        (true, false) => Some(Change::Recovered),
        _ => None,
    };
    (next, change)
}

/// Whether an event that isn't an error ends a failure. A Kustomization reports prunes and abandoned health checks as
/// info too, with the reason that its Ready condition happens to have: only its final success carries the update.
fn succeeds(candidate: &Candidate) -> bool {
    match candidate.object.kind.as_str() {
        "Kustomization" => candidate.updates_commit_status,
        _ => candidate.reason != "HealthCheckCanceled",
    }
}

#[cfg(test)]
mod tests;
