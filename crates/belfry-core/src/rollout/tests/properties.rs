//! What holds whatever is reported, in whatever order and however often.

use proptest::prelude::*;

use super::super::{Input, KEPT, MESSAGE, Observation, Phase, Report, Rollout, Seen, State, Step, step};
use crate::{ObjectKey, Seq, Time};

const SECOND: i64 = 1_000_000;
/// Later than every timestamp.
const ARRIVAL: i64 = 1_000_000 * SECOND;

/// Something said, with no reference to anything.
#[derive(Clone, Debug)]
struct Said {
    kind: &'static str,
    severity: &'static str,
    reason: &'static str,
    message: String,
    timestamp: Option<i64>,
    revision: Option<String>,
    token: Option<&'static str>,
    uid: &'static str,
    tests_decide: Option<bool>,
    deleting: bool,
    seen: Option<u8>,
}

impl Said {
    fn take_in(&self, state: &State, seq: i64) -> Step {
        let object = ObjectKey { kind: self.kind.into(), ..ObjectKey::default() };
        let (seq, revision) = (Seq(seq), self.revision.as_deref());
        let (uid, timestamp, message) = (self.uid, self.timestamp, self.message.as_str());
        let observation = |seen| Observation {
            seq,
            object: &object,
            uid,
            timestamp,
            revision,
            origin_revision: None,
            commit: None,
            seen,
        };
        let input = match self.seen {
            Some(0) => Input::Observed(observation(Seen::Ready)),
            Some(1) => Input::Observed(observation(Seen::Failed { reason: self.reason, message })),
            Some(_) => Input::Observed(observation(Seen::Gone)),
            None => Input::Reported(Report {
                seq,
                object: &object,
                uid,
                severity: self.severity,
                reason: self.reason,
                message,
                timestamp,
                revision,
                origin_revision: None,
                commit: None,
                updates_commit_status: self.reason == "ReconciliationSucceeded" && message.is_empty(),
                token: self.token,
                oci_digest: None,
                tests_decide: self.tests_decide,
                deleting: self.deleting,
                status: None,
            }),
        };
        step(state, &input)
    }
}

fn anything(kind: &'static str) -> impl Strategy<Value = Said> {
    let reasons = prop::sample::select(vec![
        "Progressing",
        "DependencyNotReady",
        "HealthCheckCanceled",
        "ReconciliationSucceeded",
        "HealthCheckFailed",
        "BuildFailed",
        "InstallSucceeded",
        "UpgradeSucceeded",
        "UpgradeFailed",
        "TestSucceeded",
        "TestFailed",
        "RollbackSucceeded",
        "RollbackFailed",
        "UninstallSucceeded",
        "UninstallFailed",
        "PendingRelease",
        "whatever",
    ]);
    let messages = prop_oneof![
        4 => Just(String::new()),
        1 => Just("ConfigMap/a/b deleted".to_owned()),
        1 => Just("Health check passed in 3s".to_owned()),
        1 => Just("Helm uninstall remediation".to_owned()),
        1 => ".{400,700}",
    ];
    let said = (
        prop::sample::select(vec!["info", "info", "error"]),
        reasons,
        messages,
        prop::option::weighted(0.9, 0i64..40),
        prop::option::weighted(0.9, "[1-5]\\.0"),
        prop::option::weighted(0.3, prop::sample::select(vec!["t1", "t2"])),
    );
    let rest = (
        prop::sample::select(vec!["u1", "u1", "u1", "u1", "u2", ""]),
        prop::option::weighted(0.2, any::<bool>()),
        prop::bool::weighted(0.03),
        prop::option::weighted(0.1, 0u8..3),
    );
    (said, rest).prop_map(move |(said, (uid, tests_decide, deleting, seen))| {
        let (severity, reason, message, timestamp, revision, token) = said;
        Said { kind, severity, reason, message, timestamp, revision, token, uid, tests_decide, deleting, seen }
    })
}

fn anything_said() -> impl Strategy<Value = Vec<Said>> {
    prop::sample::select(vec!["Kustomization", "HelmRelease", "Terraform", ""])
        .prop_flat_map(|kind| prop::collection::vec(anything(kind), 1..60))
}

/// What a Kustomization reports of one revision after the other, each at least a second after what was said of the one
/// before; then all of it mixed up, with repetitions.
fn mixed_up() -> impl Strategy<Value = (Vec<Said>, Vec<usize>)> {
    let endings = prop::sample::select(vec!["ReconciliationSucceeded", "HealthCheckFailed", "HealthCheckCanceled", ""]);
    let history = prop::collection::vec((endings, 0usize..3, 1i64..20), 1..KEPT).prop_map(|revisions| {
        let mut said = Vec::new();
        let mut now = 100;
        for (number, (ending, repeats, lasts)) in revisions.into_iter().enumerate() {
            let revision = Some(format!("{number}.0"));
            let mut say = |reason: &'static str, at| {
                said.push(Said {
                    kind: "Kustomization",
                    severity: if reason == "HealthCheckFailed" { "error" } else { "info" },
                    reason,
                    message: String::new(),
                    timestamp: Some(at),
                    revision: revision.clone(),
                    token: None,
                    uid: "u",
                    tests_decide: None,
                    deleting: false,
                    seen: None,
                });
            };
            say("Progressing", now);
            now += lasts;
            for _ in 0..=repeats {
                if !ending.is_empty() {
                    say(ending, now);
                }
                now += 60;
            }
        }
        said
    });
    history.prop_flat_map(|said| {
        let places: Vec<usize> = (0..said.len()).chain(0..said.len()).collect();
        (Just(said), Just(places).prop_shuffle())
    })
}

fn number(said: &Said) -> u32 {
    said.revision.as_deref().unwrap().split('.').next().unwrap().parse().unwrap()
}

fn holds(before: &State, done: &Step) -> Result<(), TestCaseError> {
    let (state, rollouts) = (&done.state, done.state.rollouts());
    // All but the newest forget their message.
    let wordless = |rollout: &Rollout| Rollout { message: String::new(), ..rollout.clone() };
    let written = |rollout| done.changed.iter().any(|changed| wordless(changed) == wordless(rollout));
    prop_assert!(rollouts.len() <= KEPT);
    prop_assert!(rollouts.is_sorted_by_key(|rollout| rollout.started));
    for (i, rollout) in rollouts.iter().enumerate() {
        prop_assert!(i + 1 == rollouts.len() || !rollout.state.is_open(), "only the newest is open");
        prop_assert_eq!(rollout.finished.is_none(), rollout.state.is_open());
        prop_assert!(rollout.finished.is_none_or(|finished| finished >= rollout.started));
        prop_assert!(rollout.message.len() <= MESSAGE);
        prop_assert!(rollout.superseded_by.is_none() || rollout.state == Phase::Superseded);
        let Some(old) = before.rollout(rollout.id) else { continue };
        match old.state {
            Phase::Succeeded | Phase::Failed => {
                prop_assert!(matches!(rollout.state, Phase::Succeeded | Phase::Failed), "ended stays ended");
            }
            Phase::Superseded => prop_assert!(!rollout.state.is_open(), "superseded never goes on"),
            _ => {}
        }
        let newest = before.current().is_some_and(|current| current.id == old.id);
        prop_assert!(newest || old.state != Phase::Succeeded || rollout.state == Phase::Succeeded);
        prop_assert!(wordless(old) == wordless(rollout) || written(rollout), "what differs is to be written");
    }
    prop_assert!(rollouts.iter().rev().skip(1).all(|rollout| rollout.message.is_empty()), "only the newest has words");
    for transition in &done.transitions {
        prop_assert!(done.changed(transition.rollout).is_some(), "what is told is written");
    }
    let json = serde_json::to_string(state).unwrap();
    prop_assert!(json.len() < KEPT * 3500, "{}", json.len());
    prop_assert_eq!(&serde_json::from_str::<State>(&json).unwrap(), state);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_said_the_state_is_sound(said in anything_said()) {
        let mut state = State::default();
        let mut again = State::default();
        for (n, said) in said.iter().enumerate() {
            let seq = ARRIVAL + n as i64 * SECOND;
            let done = said.take_in(&state, seq);
            holds(&state, &done)?;
            let repeated = said.take_in(&done.state, seq + 1);
            prop_assert!(repeated.transitions.is_empty(), "a repetition tells nothing: {:?}", repeated.transitions);
            prop_assert!(said.seen.is_none() || !repeated.is_news(&done.state), "nothing is logged twice");
            let json = serde_json::to_string(&again).unwrap();
            again = said.take_in(&serde_json::from_str(&json).unwrap(), seq).state;
            state = done.state;
            prop_assert_eq!(&state, &again, "the log replayed from a stored state gives the same one");
        }
    }

    #[test]
    fn no_order_or_repetition_lets_an_older_revision_hide_a_newer_one((said, order) in mixed_up()) {
        let mut state = State::default();
        let mut newest = 0;
        for (n, i) in order.into_iter().enumerate() {
            newest = newest.max(number(&said[i]));
            let done = said[i].take_in(&state, ARRIVAL + n as i64);
            holds(&state, &done)?;
            state = done.state;
            prop_assert_eq!(&state.current().unwrap().revision, &format!("{newest}.0"));
            let opened = |revision: &str| state.rollouts().iter().filter(|r| r.revision == revision).count();
            prop_assert!((0..=newest).all(|number| opened(&format!("{number}.0")) <= 1), "none is opened twice");
        }
        let ending = |number: u32| said.iter().rev().find(|said| self::number(said) == number).unwrap();
        for rollout in state.rollouts() {
            let number = rollout.revision.split('.').next().unwrap().parse().unwrap();
            let expected = match ending(number).reason {
                "ReconciliationSucceeded" => Some(Phase::Succeeded),
                "HealthCheckFailed" => Some(Phase::Failed),
                _ if number == newest => None,
                _ => Some(Phase::Superseded),
            };
            prop_assert!(expected.is_none_or(|phase| phase == rollout.state), "each ends as it ended: {rollout:?}");
        }
    }
}

#[test]
fn a_clock_that_was_ahead_makes_nothing_late() {
    let said = |timestamp, revision: &str| Said {
        kind: "Kustomization",
        severity: "error",
        reason: "BuildFailed",
        message: String::new(),
        timestamp: Some(timestamp),
        revision: Some(revision.into()),
        token: None,
        uid: "",
        tests_decide: None,
        deleting: false,
        seen: None,
    };
    let state = said(5_000, "1.0").take_in(&State::default(), 100 * SECOND).state;
    assert_eq!(state.current().unwrap().started, Time(100 * SECOND));
    let state = said(101, "2.0").take_in(&state, 101 * SECOND).state;
    assert_eq!(state.current().unwrap().revision, "2.0");
}
