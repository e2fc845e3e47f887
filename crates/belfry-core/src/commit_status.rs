//! What a commit status says: from rollouts, and from what the git host is known to show, purely. How each host spells a
//! state, and how much fits, is not known here.

use std::time::Duration;

use belfry_api::{AfterSuccess, CommitStatusSpec, EventSeverity};
use serde::{Deserialize, Serialize};

use crate::{
    ObjectKey, Time,
    rollout::{Phase, Rollout, Successor},
};

/// How late a git host may apply a request whose answer nobody waited for.
pub const LATE: Duration = Duration::from_secs(20);

/// A state that a commit can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On its way, or waiting.
    Pending,
    /// Live.
    Success,
    /// Failed; may yet succeed.
    Failure,
    /// Another commit came before it was live, or its object was deleted.
    Superseded,
}

impl State {
    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Superseded => "superseded",
        }
    }
}

/// What a context is to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The state.
    pub state: State,
    /// Why, what matters first; not yet cut to what a host takes.
    pub description: String,
}

/// What a context shows as far as is known. Belongs to one commit in one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Repository, as the notifier names it.
    #[serde(rename = "r")]
    pub repository: String,
    /// Context.
    #[serde(rename = "c")]
    pub context: String,
    /// What it shows.
    #[serde(flatten)]
    pub shown: Desired,
    /// The host takes nothing more under this context: it has too many statuses of the commit.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// What is known of a context: what the lane of a status remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// What was posted last.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub posted: Option<Posted>,
    /// When the last attempt ended of which it isn't known what became of it: the host may come to show that instead.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub unsure: Option<Time>,
}

impl Memory {
    /// When the host is to be looked at once more: what is shown now may still be overwritten by an earlier request that
    /// is late.
    pub fn look_again(&self, now: Time) -> Option<Time> {
        self.unsure.map(|at| at.after(LATE)).filter(|at| *at > now)
    }
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Its state.
    pub state: Phase,
    /// Attempts made.
    pub attempts: u32,
    /// The last reason.
    pub reason: &'a str,
    /// The message that came with it.
    pub message: &'a str,
    /// It has succeeded at some time.
    pub succeeded: bool,
    /// What superseded it.
    pub superseded_by: Option<&'a Successor>,
}

impl<'a> From<&'a Rollout> for Standing<'a> {
    fn from(rollout: &'a Rollout) -> Self {
        Self {
            state: rollout.state,
            attempts: rollout.attempts,
            reason: &rollout.reason,
            message: &rollout.message,
            succeeded: rollout.first_success.is_some(),
            superseded_by: rollout.superseded_by.as_ref(),
        }
    }
}

/// One object's part in a status.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The object.
    pub object: &'a ObjectKey,
    /// Its newest rollout of the commit; `None` when it is expected to go to the commit, and hasn't begun.
    pub rollout: Option<Standing<'a>>,
}

/// What the status of one object says.
pub fn of_object(spec: &CommitStatusSpec, rollout: Standing<'_>) -> Desired {
    let state = state(spec, rollout);
    let reason = words(rollout.reason);
    let message = rollout.message.lines().next().unwrap_or_default().trim();
    let because = |head: &str| match message.is_empty() {
        true => head.to_owned(),
        false => format!("{head}: {message}"),
    };
    let description = match state {
        State::Success if rollout.state == Phase::Failed => "live; failed later".to_owned(),
        State::Success if rollout.attempts > 1 => because(&format!("live after {} attempts", rollout.attempts)),
        State::Success => because("live"),
        State::Failure => because(&reason),
        State::Pending if rollout.attempts == 0 => because(&format!("waiting, {reason}")),
        State::Pending => because(&reason),
        // What it was superseded by is shown as each host shows it.
        State::Superseded if rollout.superseded_by.is_some() => String::new(),
        State::Superseded => "the object was deleted".to_owned(),
    };
    Desired { state, description }
}

/// What the one status of several objects says: failed if any failed, pending while any is under way, successful once
/// all are. `None` when there are no members.
pub fn of_all(spec: &CommitStatusSpec, members: &[Member<'_>]) -> Option<Desired> {
    let states: Vec<State> =
        members.iter().map(|member| member.rollout.map_or(State::Pending, |rollout| state(spec, rollout))).collect();
    let count = |wanted: State| states.iter().filter(|state| **state == wanted).count();
    let all = states.len();
    let (applied, failed, superseded) = (count(State::Success), count(State::Failure), count(State::Superseded));
    let first = |wanted: State| {
        let at = states.iter().position(|state| *state == wanted)?;
        members.get(at)
    };
    let tally = format!("{applied}/{all} applied");
    let (state, description) = match () {
        () if all == 0 => return None,
        () if failed > 0 => {
            let member = first(State::Failure)?;
            let why = member.rollout.map(|rollout| of_object(spec, rollout).description).unwrap_or_default();
            (State::Failure, format!("{tally}, {failed} failed: {} {why}", member.object))
        }
        () if count(State::Pending) > 0 => match first(State::Pending) {
            Some(member) => (State::Pending, format!("{tally}, waiting for {}", member.object)),
            None => (State::Pending, tally),
        },
        () if superseded > 0 => (State::Superseded, format!("{tally}, {superseded} superseded")),
        () => (State::Success, tally),
    };
    Some(Desired { state, description })
}

/// Whether it is to be posted: what is shown already isn't, nor what the severity leaves out.
///
/// # Errors
/// With the reason why not.
pub fn is_news(spec: &CommitStatusSpec, desired: &Desired, posted: Option<&Posted>) -> Result<(), &'static str> {
    let shown = posted.map(|posted| &posted.shown);
    match () {
        () if posted.is_some_and(|posted| posted.ended) => Err("the git host takes no more statuses of this context"),
        () if shown == Some(desired) => Err("the git host shows it already"),
        // The words of one attempt and the next differ, and each costs a request.
        () if desired.state == State::Pending && shown.is_some_and(|shown| shown.state == State::Pending) => {
            Err("the git host shows it as pending already")
        }
        () if spec.event_severity == EventSeverity::Info || desired.state == State::Failure => Ok(()),
        () if desired.state == State::Success && shown.is_some_and(|shown| shown.state == State::Failure) => Ok(()),
        () => Err("eventSeverity leaves it out"),
    }
}

fn state(spec: &CommitStatusSpec, rollout: Standing<'_>) -> State {
    match rollout.state {
        Phase::Pending | Phase::Progressing => State::Pending,
        Phase::Succeeded => State::Success,
        Phase::Failed if spec.after_success == AfterSuccess::Keep && rollout.succeeded => State::Success,
        Phase::Failed => State::Failure,
        Phase::Superseded => State::Superseded,
    }
}

/// `HealthCheckFailed` as `health check failed`.
fn words(reason: &str) -> String {
    let mut words = String::with_capacity(reason.len() + 4);
    let mut before = ' ';
    for letter in reason.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
        before = letter;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Seq,
        rollout::{Input, Report, State as Rollouts, step},
    };

    const HASH: &str = "main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738";
    const NEXT: &str = "main@sha1:a1afe267b54f38b46b487f6e938a6fd508278c07";

    fn object(name: &str) -> ObjectKey {
        ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".into(),
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: name.into(),
            ..ObjectKey::default()
        }
    }

    /// The rollout of the first revision after these events: reason, severity, revision, message.
    fn after(events: &[(&str, &str, &str, &str)]) -> Rollout {
        let object = object("web");
        let mut state = Rollouts::default();
        for (at, (reason, severity, revision, message)) in (1..).zip(events) {
            let report = Report {
                seq: Seq(at),
                object: &object,
                uid: "u",
                severity,
                reason,
                message,
                timestamp: Some(at),
                revision: Some(revision),
                origin_revision: None,
                commit: crate::revision::Revision::parse(revision).whole_hash(),
                updates_commit_status: *reason == "ReconciliationSucceeded",
                token: None,
                oci_digest: None,
                tests_decide: None,
                deleting: false,
                status: None,
            };
            state = step(&state, &Input::Reported(report)).state;
        }
        Rollout::clone(&state.rollouts()[0])
    }

    fn told(spec: &CommitStatusSpec, events: &[(&str, &str, &str, &str)]) -> String {
        let Desired { state, description } = of_object(spec, Standing::from(&after(events)));
        format!("{}: {description}", state.as_str())
    }

    #[test]
    fn an_objects_status() {
        let each = CommitStatusSpec::default();
        let keep = CommitStatusSpec { after_success: AfterSuccess::Keep, ..CommitStatusSpec::default() };
        let waits = ("DependencyNotReady", "info", HASH, "dependency 'infra' is not ready");
        let begins = ("Progressing", "info", HASH, "Service/apps/web created\nDeployment/apps/web created");
        let succeeds = ("ReconciliationSucceeded", "info", HASH, "Reconciliation finished in 1s");
        let fails = ("HealthCheckFailed", "error", HASH, "timeout waiting for: Deployment/apps/web");
        let next = ("Progressing", "info", NEXT, "");
        assert_eq!(told(&each, &[waits]), "pending: waiting, dependency not ready: dependency 'infra' is not ready");
        assert_eq!(told(&each, &[begins]), "pending: progressing: Service/apps/web created");
        assert_eq!(told(&each, &[begins, succeeds]), "success: live: Reconciliation finished in 1s");
        let failed = "failure: health check failed: timeout waiting for: Deployment/apps/web";
        assert_eq!(told(&each, &[begins, fails]), failed);
        assert_eq!(told(&each, &[succeeds, fails]), failed);
        assert_eq!(told(&keep, &[succeeds, fails]), "success: live; failed later");
        assert_eq!(told(&each, &[begins, next]), "superseded: ");
        // The fold keeps no words for what is no longer the newest.
        assert_eq!(told(&each, &[succeeds, next]), "success: live");
    }

    #[test]
    fn the_status_of_all() {
        let spec = CommitStatusSpec::default();
        let ok = after(&[("ReconciliationSucceeded", "info", HASH, "")]);
        let bad = after(&[("BuildFailed", "error", HASH, "no such file")]);
        let open = after(&[("Progressing", "info", HASH, "")]);
        let gone = after(&[("Progressing", "info", HASH, ""), ("Progressing", "info", NEXT, "")]);
        let objects = [object("a"), object("b"), object("c")];
        let told = |rollouts: [Option<&Rollout>; 3]| {
            let members: Vec<_> = objects
                .iter()
                .zip(rollouts)
                .map(|(object, rollout)| Member { object, rollout: rollout.map(Into::into) })
                .collect();
            of_all(&spec, &members).map(|desired| format!("{}: {}", desired.state.as_str(), desired.description))
        };
        let failed = "failure: 1/3 applied, 1 failed: Kustomization/apps/b build failed: no such file";
        assert_eq!(told([Some(&ok), Some(&bad), None]).unwrap(), failed);
        let waiting = "pending: 2/3 applied, waiting for Kustomization/apps/c";
        assert_eq!(told([Some(&ok), Some(&ok), None]).unwrap(), waiting);
        assert_eq!(told([Some(&ok), Some(&ok), Some(&open)]).unwrap(), waiting);
        assert_eq!(told([Some(&ok), Some(&ok), Some(&ok)]).unwrap(), "success: 3/3 applied");
        assert_eq!(told([Some(&ok), Some(&gone), Some(&ok)]).unwrap(), "superseded: 2/3 applied, 1 superseded");
        assert_eq!(of_all(&spec, &[]), None);
    }

    #[test]
    fn only_news_are_posted() {
        let info = CommitStatusSpec::default();
        let error = CommitStatusSpec { event_severity: EventSeverity::Error, ..CommitStatusSpec::default() };
        let desired = |state, description: &str| Desired { state, description: description.into() };
        let posted = |shown| Posted { repository: "o/r".into(), context: "dev".into(), shown, ended: false };
        let (pending, ok) = (desired(State::Pending, "a"), desired(State::Success, "b"));
        let (bad, other) = (desired(State::Failure, "c"), desired(State::Failure, "d"));
        let table: [(&CommitStatusSpec, &Desired, Option<&Desired>, bool); 12] = [
            (&info, &pending, None, true),
            (&info, &pending, Some(&pending), false),
            (&info, &desired(State::Pending, "z"), Some(&pending), false),
            (&info, &ok, Some(&pending), true),
            (&info, &ok, Some(&ok), false),
            (&info, &other, Some(&bad), true),
            (&info, &pending, Some(&bad), true),
            (&error, &pending, None, false),
            (&error, &bad, None, true),
            (&error, &ok, Some(&bad), true),
            (&error, &ok, None, false),
            (&error, &ok, Some(&ok), false),
        ];
        for (number, (spec, wanted, shown, news)) in table.into_iter().enumerate() {
            let posted = shown.cloned().map(posted);
            assert_eq!(is_news(spec, wanted, posted.as_ref()).is_ok(), news, "{number}");
        }
        let ended = Posted { ended: true, ..posted(bad.clone()) };
        assert!(is_news(&info, &ok, Some(&ended)).is_err());
        let text = serde_json::to_string(&posted(ok)).unwrap();
        assert_eq!(serde_json::from_str::<Posted>(&text).unwrap().shown.state, State::Success, "{text}");
    }
}
