//! Tests of the fold.

use super::*;
use crate::rollout::Found;

fn event(severity: &str, reason: &str, revision: &str, key: u64) -> Candidate {
    Candidate {
        object: ObjectKey { kind: "Kustomization".into(), ..ObjectKey::default() },
        origin: Origin::Recorder,
        severity: severity.into(),
        reason: reason.into(),
        revision: (!revision.is_empty()).then(|| revision.to_owned()),
        commit: None,
        updates_commit_status: reason == "ReconciliationSucceeded",
        rollout: None,
        dedupe: key,
        body_hash: 0,
        sent: None,
        body: Bytes::new(),
        routes: vec![route(false), route(true)],
    }
}

fn route(takes_status_updates: bool) -> RouteRef {
    RouteRef::alert(key(ConfigKind::Alert), key(ConfigKind::Provider), takes_status_updates)
}

fn key(kind: ConfigKind) -> Arc<ConfigKey> {
    Arc::new(ConfigKey { kind, namespace: "n".into(), name: "x".into() })
}

/// The same with what the rollouts of its object need, for an Alert and a CommitStatus.
fn rolling(severity: &str, reason: &str, revision: &str, key_: u64, second: i64) -> Candidate {
    let status =
        |settle| RouteRef::commit_status(key(ConfigKind::CommitStatus), key(ConfigKind::Provider), false, settle);
    let details = Details { uid: "u".into(), timestamp: Some(second), ..Details::default() };
    Candidate {
        rollout: Some(Box::new(details)),
        routes: vec![route(true), status(Duration::from_secs(2))],
        ..event(severity, reason, revision, key_)
    }
}

/// Feeds events one second apart into one object; keys are remembered as the store does.
fn feed(events: &[Candidate]) -> Vec<String> {
    let mut state = Arc::new(ObjectState::default());
    let mut keys = std::collections::HashMap::new();
    let mut told = Vec::new();
    for (second, candidate) in events.iter().enumerate() {
        let seq = Seq(second as i64 * 1_000_000);
        let seen = Seen { same_key: keys.get(&candidate.dedupe).copied(), ..Seen::default() };
        match plan(&state, seen, candidate, Duration::from_secs(300), seq) {
            Plan::Repeat { of } => told.push(format!("repeat of {}", of.0 / 1_000_000)),
            Plan::Store(Stored { state: next, change, rollouts, deliveries }) => {
                keys.insert(candidate.dedupe, seq);
                state = next.unwrap_or(state);
                let rollout = |i: usize| format!("{} {}", rollouts[i].revision, rollouts[i].state.as_str());
                let deliveries = deliveries.iter().map(|told| match told.rollout {
                    Some(i) => format!("{}: {}", told.route, rollout(i)),
                    None => told.route.to_string(),
                });
                told.push(format!("{change:?} to [{}]", deliveries.collect::<Vec<_>>().join(", ")));
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
        ["Some(Failed) to [0, 1]", "None to [0, 1]", "None to [0, 1]", "None to [0, 1]", "Some(Recovered) to [0, 1]"]
    );
}

#[test]
fn the_same_body_is_the_same_event_even_when_the_state_moved_on() {
    let seen = Seen { same_body: Some(Seq(5)), ..Seen::default() };
    let state = ObjectState { severity: "info".into(), ..ObjectState::default() };
    let late = event("error", "BuildFailed", "a", 1);
    let at = |seconds: i64| Seq(5 + seconds * 1_000_000);
    assert_eq!(plan(&state, seen, &late, Duration::ZERO, at(60)), Plan::Repeat { of: Seq(5) });
    assert!(matches!(plan(&state, seen, &late, Duration::ZERO, at(600)), Plan::Store { .. }));
}

#[test]
fn a_commit_status_is_told_of_rollouts_and_an_alert_of_events() {
    let told = feed(&[
        rolling("info", "Progressing", "a", 1, 0),
        rolling("error", "BuildFailed", "a", 2, 1),
        // Another message would be another key; the same one again is a repeat, and the status stands.
        rolling("error", "BuildFailed", "a", 2, 2),
        rolling("error", "BuildFailed", "a", 3, 3),
        rolling("info", "Progressing", "b", 4, 4),
        rolling("info", "ReconciliationSucceeded", "b", 5, 5),
        rolling("info", "ReconciliationSucceeded", "b", 6, 6),
    ]);
    assert_eq!(
        told,
        [
            "None to [0, 1: a progressing]",
            "Some(Failed) to [0, 1: a failed]",
            "repeat of 1",
            "None to [0]",
            "None to [0, 1: b progressing]",
            "Some(Recovered) to [0, 1: b succeeded]",
            "None to [0]",
        ]
    );
}

#[test]
fn what_supersedes_tells_of_both() {
    let told = feed(&[rolling("info", "Progressing", "a", 1, 0), rolling("info", "Progressing", "b", 2, 1)]);
    assert_eq!(told[1], "None to [0, 1: a superseded, 1: b progressing]");
}

#[test]
fn what_a_rollout_needs_is_no_repeat() {
    // The same words in the same five minutes: only the rollout tells that the object went away and came back.
    let told = feed(&[
        rolling("info", "Progressing", "a", 1, 0),
        rolling("info", "Progressing", "b", 2, 1),
        rolling("info", "Progressing", "a", 1, 2),
        rolling("info", "Progressing", "a", 1, 3),
    ]);
    assert_eq!(told[2..], ["None to [0, 1: b superseded, 1: a progressing]", "repeat of 2"]);
}

#[test]
fn nor_is_what_only_prepares_the_next_step() {
    // The periodic success of the old revision, told in the same words: once it may be, twice it was taken back.
    let told = feed(&[
        rolling("info", "ReconciliationSucceeded", "a", 1, 0),
        rolling("info", "Progressing", "b", 2, 1),
        rolling("info", "ReconciliationSucceeded", "a", 1, 2),
        rolling("info", "ReconciliationSucceeded", "a", 1, 3),
    ]);
    assert_eq!(told[2..], ["None to [0]", "None to [0, 1: b superseded, 1: a succeeded]"]);
    // Deleted, made again, and deleted again: the second deletion too must take the success that follows it.
    let deleted = |second| {
        let mut notice = rolling("info", "BuildFailed", "a", 2, second);
        notice.rollout.as_mut().unwrap().message = "ConfigMap/a/b deleted".into();
        notice
    };
    let told = feed(&[
        rolling("error", "BuildFailed", "a", 1, 0),
        deleted(1),
        rolling("info", "Progressing", "a", 3, 2),
        deleted(3),
        deleted(4),
    ]);
    assert_eq!(told[3..], ["None to [0]", "repeat of 3"]);
}

#[test]
fn states_settle_unless_they_end_a_rollout() {
    let held = |aggregate, phase| {
        let settle = Duration::from_secs(2);
        RouteRef::commit_status(key(ConfigKind::CommitStatus), key(ConfigKind::Provider), aggregate, settle)
            .holds_back(phase)
            .as_secs()
    };
    for (phase, alone, together) in
        [(Phase::Pending, 2, 2), (Phase::Progressing, 2, 2), (Phase::Failed, 0, 2), (Phase::Succeeded, 0, 2)]
    {
        assert_eq!((held(false, phase), held(true, phase)), (alone, together), "{phase:?}");
    }
}

#[test]
fn an_observation_counts_only_when_it_tells_something() {
    let seen = |second, found| Sighting {
        object: ObjectKey { kind: "Kustomization".into(), ..ObjectKey::default() },
        uid: "u".into(),
        timestamp: Some(second),
        revision: Some("a".into()),
        origin_revision: None,
        commit: None,
        found,
    };
    let failing = rolling("error", "BuildFailed", "a", 1, 1);
    let Plan::Store(stored) = plan(&ObjectState::default(), Seen::default(), &failing, Duration::ZERO, Seq(1_000_000))
    else {
        panic!("stored nothing")
    };
    let state = stored.state.unwrap();
    let failed = Found::Failed { reason: "BuildFailed".into(), message: "no".into() };
    assert_eq!(observe(&state, &seen(1, failed), &failing.routes, Seq(2_000_000)), None);
    let stored = observe(&state, &seen(3, Found::Ready), &failing.routes, Seq(3_000_000)).unwrap();
    assert_eq!((stored.change, &*stored.deliveries), (None, &[Told { route: 1, rollout: Some(0) }][..]));
    let next = stored.state.unwrap();
    assert_eq!(next.rollouts.current().unwrap().state, Phase::Succeeded);
    // What Alerts know comes from events alone: the recovery is still to be told.
    assert!(next.failed);
    assert_eq!(observe(&next, &seen(3, Found::Ready), &failing.routes, Seq(4_000_000)), None);
    let gone = observe(&next, &seen(4, Found::Gone), &[], Seq(5_000_000)).unwrap();
    assert!(gone.state.as_ref().unwrap().rollouts.is_gone());
    assert_eq!(observe(&gone.state.unwrap(), &seen(4, Found::Gone), &[], Seq(6_000_000)), None);
}
