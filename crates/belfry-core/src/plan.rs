//! The fold: what one event means for its object, decided from the object's state alone. The store calls [`plan`] while
//! it holds the append lock, and nothing else changes an object's state; replaying the log gives the same states.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ConfigKey, ObjectKey, Seq, Time};

/// For how long a byte-identical body is the same event: longer than any sender keeps trying.
pub const SAME_BODY: Duration = Duration::from_secs(600);

/// How an event came, which tells the form of its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Straight from a controller's recorder: metadata keys carry prefixes.
    Recorder,
    /// Passed on by a `generic` provider: metadata keys are stripped.
    Forwarded,
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
    /// It carries `commit_status: update`: a Kustomization's success.
    pub updates_commit_status: bool,
    /// Hash of the repeat key: the peer's key plus cluster, severity and reason.
    pub dedupe: u64,
    /// Hash of the body.
    pub body_hash: u64,
    /// The body as it came.
    pub body: Bytes,
    /// Where it may go: the Alerts that select it.
    pub routes: Vec<RouteRef>,
}

/// An Alert that selects an event, and the Provider it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRef {
    /// The Alert.
    pub alert: Arc<ConfigKey>,
    /// The Provider, whether it exists or not.
    pub provider: Arc<ConfigKey>,
    /// The Provider's type takes `commit_status: update` events (git hosts, generic), or isn't known yet.
    pub takes_status_updates: bool,
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
}

/// What the fold says happened.
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
    Store {
        /// The object's new state, when it differs.
        state: Option<ObjectState>,
        /// What happened.
        change: Option<Change>,
        /// Indices into the candidate's routes: one delivery each.
        deliveries: Vec<usize>,
    },
}

/// Decides what an event means. `interval` is how long a repeat is held back (`--rate-limit-interval`).
pub fn plan(state: &ObjectState, seen: Seen, candidate: &Candidate, interval: Duration, now: Time) -> Plan {
    let within = |seq: Option<Seq>, window: Duration| seq.filter(|seq| now.since(seq.time()) < window);
    if let Some(of) = within(seen.same_body, SAME_BODY) {
        return Plan::Repeat { of };
    }
    let (next, change) = step(state, candidate);
    let says_something_new = next.severity != state.severity || next.revision != state.revision;
    if !says_something_new && let Some(of) = within(seen.same_key, interval) {
        return Plan::Repeat { of };
    }
    let deliveries =
        (0..candidate.routes.len()).filter(|i| goes_to(&candidate.routes[*i], candidate, change)).collect();
    Plan::Store { state: (next != *state).then_some(next), change, deliveries }
}

/// A Kustomization's commit status update is noise for a chat, but for the one that ends a failure.
fn goes_to(route: &RouteRef, candidate: &Candidate, change: Option<Change>) -> bool {
    !candidate.updates_commit_status || route.takes_status_updates || change == Some(Change::Recovered)
}

fn step(state: &ObjectState, candidate: &Candidate) -> (ObjectState, Option<Change>) {
    if matches!(candidate.reason.as_str(), "Progressing" | "DependencyNotReady") {
        return (state.clone(), None);
    }
    let failed = candidate.severity == "error";
    let next = ObjectState {
        severity: candidate.severity.clone(),
        revision: candidate.revision.clone().or_else(|| state.revision.clone()),
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
mod tests {
    use super::*;

    fn event(severity: &str, reason: &str, revision: &str, key: u64) -> Candidate {
        Candidate {
            object: ObjectKey { kind: "Kustomization".into(), ..ObjectKey::default() },
            origin: Origin::Recorder,
            severity: severity.into(),
            reason: reason.into(),
            revision: (!revision.is_empty()).then(|| revision.to_owned()),
            updates_commit_status: reason == "ReconciliationSucceeded",
            dedupe: key,
            body_hash: 0,
            body: Bytes::new(),
            routes: vec![route(false), route(true)],
        }
    }

    fn route(takes_status_updates: bool) -> RouteRef {
        let key = |kind| Arc::new(ConfigKey { kind, namespace: "n".into(), name: "x".into() });
        RouteRef {
            alert: key(crate::ConfigKind::Alert),
            provider: key(crate::ConfigKind::Provider),
            takes_status_updates,
        }
    }

    /// Feeds events one second apart into one object; keys are remembered as the store does.
    fn feed(events: &[Candidate]) -> Vec<String> {
        let mut state = ObjectState::default();
        let mut keys = std::collections::HashMap::new();
        let mut told = Vec::new();
        for (second, candidate) in events.iter().enumerate() {
            let now = Time(second as i64 * 1_000_000);
            let seen = Seen { same_key: keys.get(&candidate.dedupe).copied(), same_body: None };
            match plan(&state, seen, candidate, Duration::from_secs(300), now) {
                Plan::Repeat { of } => told.push(format!("repeat of {}", of.0 / 1_000_000)),
                Plan::Store { state: next, change, deliveries } => {
                    keys.insert(candidate.dedupe, Seq(now.0));
                    state = next.unwrap_or(state);
                    told.push(format!("{change:?} to {deliveries:?}"));
                }
            }
        }
        told
    }

    #[test]
    fn repeats_never_swallow_a_failure_or_a_recovery() {
        let told = feed(&[
            event("error", "BuildFailed", "a", 1),
            event("error", "BuildFailed", "a", 1),
            event("info", "Progressing", "a", 2),
            event("info", "Progressing", "a", 2),
            event("info", "ReconciliationSucceeded", "a", 3),
            event("info", "ReconciliationSucceeded", "a", 3),
            event("error", "BuildFailed", "a", 1),
            event("info", "ReconciliationSucceeded", "a", 3),
            event("info", "ReconciliationSucceeded", "b", 3),
            event("info", "ReconciliationSucceeded", "a", 3),
        ]);
        assert_eq!(
            told,
            [
                "Some(Failed) to [0, 1]",
                "repeat of 0",
                "None to [0, 1]",
                "repeat of 2",
                "Some(Recovered) to [0, 1]",
                "repeat of 4",
                "Some(Failed) to [0, 1]",
                "Some(Recovered) to [0, 1]",
                "None to [1]",
                "None to [1]",
            ]
        );
    }

    #[test]
    fn notices_in_between_do_not_end_a_failure() {
        let told = feed(&[
            event("error", "HealthCheckFailed", "a", 1),
            event("info", "HealthCheckCanceled", "a", 2),
            event("error", "HealthCheckFailed", "", 1),
            event("info", "HealthCheckFailed", "a", 3),
            event("info", "ReconciliationSucceeded", "a", 4),
        ]);
        assert_eq!(
            told,
            [
                "Some(Failed) to [0, 1]",
                "None to [0, 1]",
                "None to [0, 1]",
                "None to [0, 1]",
                "Some(Recovered) to [0, 1]"
            ]
        );
    }

    #[test]
    fn the_same_body_is_the_same_event_even_when_the_state_moved_on() {
        let seen = Seen { same_body: Some(Seq(5)), same_key: None };
        let state = ObjectState { severity: "info".into(), ..ObjectState::default() };
        let late = event("error", "BuildFailed", "a", 1);
        let at = |seconds: u64| Time(5).after(Duration::from_secs(seconds));
        assert_eq!(plan(&state, seen, &late, Duration::ZERO, at(60)), Plan::Repeat { of: Seq(5) });
        assert!(matches!(plan(&state, seen, &late, Duration::ZERO, at(600)), Plan::Store { .. }));
    }
}
