//! Tables of verdicts.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    index::IndexedObject,
    revision,
    rollout::{Input, Report, State, step},
};

const A: &str = "main@sha1:a000000000000000000000000000000000000000";
const B: &str = "main@sha1:b000000000000000000000000000000000000000";
const SHORT_A: &str = "a000000";
/// When questions are asked; events come in the seconds before and after.
const ASKED: i64 = 100;

/// Second, reason (an error with `!`), revision.
type Said<'a> = (i64, &'a str, &'a str);

fn second(second: i64) -> Time {
    Time(second * 1_000_000)
}

/// One object, and what is known of it.
struct Scene {
    object: ObjectKey,
    state: State,
    watched: Option<Option<IndexedObject>>,
    source: Option<IndexedObject>,
    parent: Option<IndexedObject>,
}

fn key(kind: &str, name: &str) -> ObjectKey {
    let group = if kind == "HelmRelease" { "helm.toolkit.fluxcd.io" } else { "kustomize.toolkit.fluxcd.io" };
    ObjectKey {
        group: group.into(),
        kind: kind.into(),
        namespace: "apps".into(),
        name: name.into(),
        ..ObjectKey::default()
    }
}

impl Scene {
    /// A Kustomization of which these events came.
    fn told(events: &[Said<'_>]) -> Self {
        let object = key("Kustomization", "web");
        let mut state = State::default();
        for (at, reason, revision) in events {
            let report = Report {
                seq: Seq(at * 1_000_000),
                object: &object,
                uid: "u",
                severity: if reason.starts_with('!') { "error" } else { "info" },
                reason: reason.trim_start_matches('!'),
                message: "so it is",
                timestamp: Some(*at),
                revision: Some(revision),
                origin_revision: None,
                commit: revision::Revision::parse(revision).whole_hash(),
                updates_commit_status: *reason == "ReconciliationSucceeded",
                token: None,
                oci_digest: None,
                tests_decide: None,
                deleting: false,
                status: None,
            };
            state = step(&state, &Input::Reported(report)).state;
        }
        Self { object, state, watched: None, source: None, parent: None }
    }

    /// In a watched cluster, where it isn't.
    fn missing(mut self) -> Self {
        self.watched = Some(None);
        self
    }

    /// In a watched cluster: Ready's status and reason, the applied revision, the attempted one, the second of the change.
    fn seen(mut self, ready: (&str, &str), applied: &str, attempted: &str, at: i64) -> Self {
        self.watched = Some(Some(seen(&self.object, ready, applied, attempted, at)));
        self
    }

    fn facts<'a>(&'a self, question: &Question) -> Facts<'a> {
        let is_asked = |named: &str| revision::same(named, &question.revision);
        let asked = self.state.rollouts().iter().rev().find(|rollout| is_asked(&rollout.revision));
        Facts {
            object: &self.object,
            rollout: asked.map(|rollout| Trace::from(&**rollout)),
            newest: self.state.current().map(|rollout| rollout.id),
            live: self.state.live(),
            watched: self.watched.as_ref().map(|watched| match watched {
                None => Watched::Missing,
                Some(object) => Watched::Present {
                    object,
                    source: self.source.as_ref(),
                    parent: self.parent.as_ref().map(|parent| (parent, None)),
                },
            }),
        }
    }
}

fn seen(key: &ObjectKey, ready: (&str, &str), applied: &str, attempted: &str, at: i64) -> IndexedObject {
    let condition = json!({
        "type": "Ready", "status": ready.0, "reason": ready.1, "message": "as the status says", "observedGeneration": 2,
        "lastTransitionTime": second(at).to_string(),
    });
    let object = json!({
        "apiVersion": format!("{}/v1", key.group), "kind": key.kind,
        "metadata": {"name": key.name, "namespace": key.namespace, "generation": 2},
        "status": {"conditions": [condition], "lastAppliedRevision": applied, "lastAttemptedRevision": attempted},
    });
    IndexedObject::trim(&object).unwrap()
}

fn question(revision: &str) -> Question {
    Question { revision: revision.into(), asked: second(ASKED), ..Question::default() }
}

fn told(question: &Question, scenes: &[&Scene], now: i64) -> String {
    let facts: Vec<_> = scenes.iter().map(|scene| scene.facts(question)).collect();
    let (answer, again) = decide(question, &facts, second(now));
    let again = again.map(|at| format!(" [look again at {}]", at.0 / 1_000_000)).unwrap_or_default();
    format!("{}: {}{again}", answer.verdict.as_str(), answer.message)
}

#[test]
fn one_object_by_its_events() {
    let begins = (90, "Progressing", A);
    let fails = (95, "!HealthCheckFailed", A);
    let succeeds = (96, "ReconciliationSucceeded", A);
    let table: [(&[Said<'_>], &str); 9] = [
        (&[], "pending: waiting for Kustomization/apps/web"),
        (&[begins], "pending: waiting for Kustomization/apps/web: Progressing: so it is"),
        (&[begins, succeeds], "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded: so it is"),
        (&[begins, fails], "failed: Kustomization/apps/web failed: HealthCheckFailed: so it is"),
        (&[fails, succeeds], "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded: so it is"),
        // What was live stays so in the records.
        (&[succeeds, (97, "Progressing", B)], "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded"),
        (
            &[begins, (97, "Progressing", B)],
            "superseded: Kustomization/apps/web was superseded by main@sha1:b000000000000000000000000000000000000000",
        ),
        // Never seen, and another one came after the question.
        (
            &[(101, "ReconciliationSucceeded", B)],
            "superseded: Kustomization/apps/web was superseded by main@sha1:b000000000000000000000000000000000000000",
        ),
        // Never seen, and another one was there before.
        (
            &[(90, "ReconciliationSucceeded", B), (101, "ReconciliationSucceeded", B)],
            "pending: waiting for Kustomization/apps/web (it runs main@sha1:b000000000000000000000000000000000000000)",
        ),
    ];
    for (events, expected) in table {
        assert_eq!(told(&question(SHORT_A), &[&Scene::told(events)], 110), expected, "{events:?}");
    }
}

#[test]
fn a_status_outweighs_events() {
    let begins = (90, "Progressing", A);
    let succeeds = (96, "ReconciliationSucceeded", A);
    let fails = (95, "!HealthCheckFailed", A);
    let forged = (97, "Progressing", B);
    let ready = ("True", "ReconciliationSucceeded");
    let failed = ("False", "HealthCheckFailed");
    let busy = ("Unknown", "Progressing");
    let live = "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded: as the status says";
    let bad = "failed: Kustomization/apps/web failed: HealthCheckFailed: as the status says";
    let none = Scene::told(&[]);
    let table = [
        ("lost events", Scene::told(&[]).seen(ready, A, A, 98), live),
        ("lost success", Scene::told(&[begins]).seen(ready, A, A, 98), live),
        ("lost recovery", Scene::told(&[fails]).seen(ready, A, A, 98), live),
        ("lost failure", Scene::told(&[begins]).seen(failed, B, A, 98), bad),
        ("failed later", Scene::told(&[succeeds]).seen(failed, A, A, 98), bad),
        ("a forged successor", Scene::told(&[begins, forged]).seen(ready, A, A, 98), live),
        (
            "a forged successor meanwhile",
            Scene::told(&[begins, forged]).seen(busy, B, A, 98),
            "pending: waiting for Kustomization/apps/web: Progressing",
        ),
        (
            "nothing yet",
            Scene::told(&[]).seen(("False", "DependencyNotReady"), "", "", 98),
            "pending: waiting for Kustomization/apps/web: DependencyNotReady: as the status says",
        ),
        ("not there", none.missing(), "pending: waiting for Kustomization/apps/web: Missing: it does not exist"),
    ];
    for (case, scene, expected) in table {
        assert_eq!(told(&question(A), &[&scene], 110), expected, "{case}");
    }
}

#[test]
fn the_asker_says_what_failures_and_successors_mean() {
    let failing = Scene::told(&[(95, "!HealthCheckFailed", A)]);
    let mut asked = question(A);
    asked.on_failure = OnFailure::Fail { grace: Duration::from_secs(30) };
    assert!(told(&asked, &[&failing], 110).ends_with("[look again at 125]"));
    assert!(told(&asked, &[&failing], 125).starts_with("failed: "));
    asked.on_failure = OnFailure::Wait;
    assert!(told(&asked, &[&failing], 1000).starts_with("pending: "));

    let mut asked = question(A);
    asked.not_before = Some(second(99));
    assert!(told(&asked, &[&failing], 110).starts_with("pending: "), "it failed before that");
    let again = Scene::told(&[(95, "!HealthCheckFailed", A), (105, "!HealthCheckFailed", A)]);
    assert!(told(&asked, &[&again], 110).starts_with("failed: "));
    let still = Scene::told(&[(95, "ReconciliationSucceeded", A)]);
    assert!(told(&asked, &[&still], 110).starts_with("succeeded: "), "it runs it");
    let left = Scene::told(&[(95, "ReconciliationSucceeded", A), (97, "ReconciliationSucceeded", B)]);
    assert!(told(&asked, &[&left], 110).starts_with("pending: "), "it no longer runs it");

    let replaced = Scene::told(&[(95, "Progressing", A), (101, "Progressing", B)]);
    let done = Scene::told(&[(95, "Progressing", A), (101, "Progressing", B), (102, "ReconciliationSucceeded", B)]);
    for (policy, while_open, once_live) in [
        (OnSuperseded::Fail, "superseded: ", "superseded: "),
        (OnSuperseded::Succeed, "pending: ", "succeeded: "),
        (OnSuperseded::Wait, "pending: ", "pending: "),
    ] {
        let asked = Question { on_superseded: policy, ..question(A) };
        assert!(told(&asked, &[&replaced], 110).starts_with(while_open), "{policy:?}");
        assert!(told(&asked, &[&done], 110).starts_with(once_live), "{policy:?}");
    }
}

#[test]
fn of_several_objects() {
    let live = Scene::told(&[(96, "ReconciliationSucceeded", A)]);
    let open = Scene::told(&[(96, "Progressing", A)]);
    let failed = Scene::told(&[(96, "!BuildFailed", A)]);
    let gone = Scene::told(&[(96, "Progressing", A), (98, "Progressing", B)]);
    let asked = question(A);
    assert_eq!(told(&asked, &[&live, &live, &live], 110), "succeeded: all 3 objects are live");
    assert_eq!(
        told(&asked, &[&live, &open, &live], 110),
        "pending: 2 of 3 objects are live; waiting for Kustomization/apps/web: Progressing: so it is"
    );
    assert_eq!(
        told(&asked, &[&failed, &open, &failed], 110),
        "failed: Kustomization/apps/web failed: BuildFailed: so it is (and 1 more)"
    );
    assert!(told(&asked, &[&live, &gone, &open], 110).starts_with("superseded: "));
    assert_eq!(told(&asked, &[], 110), format!("unknown: nothing that is known goes to {A}"));
}

#[test]
fn a_release_has_the_commit_of_the_kustomization_that_applied_it() {
    let release = |ready| {
        let object = key("HelmRelease", "shop");
        let watched = seen(&object, ready, "", "1.2.3", 80);
        Scene { object, state: State::default(), watched: Some(Some(watched)), source: None, parent: None }
    };
    let parent = |ready, at| Some(seen(&key("Kustomization", "web"), ready, A, A, at));
    let ok = ("True", "ReconciliationSucceeded");
    let upgraded = ("True", "UpgradeSucceeded");
    let table = [
        (
            release(upgraded),
            None,
            "pending: waiting for HelmRelease/apps/shop: NoParent: no Kustomization is known that applied it, so that no \
             commit can be told of it",
        ),
        (
            release(upgraded),
            parent(("Unknown", "Progressing"), 105),
            "pending: waiting for HelmRelease/apps/shop: Waiting: Kustomization/apps/web has yet to apply it",
        ),
        (
            release(upgraded),
            parent(("False", "BuildFailed"), 105),
            "failed: HelmRelease/apps/shop failed: BuildFailed: as the status says",
        ),
        (release(upgraded), parent(ok, 109), "pending: waiting for HelmRelease/apps/shop [look again at 111]"),
        (
            release(upgraded),
            parent(ok, 105),
            "succeeded: HelmRelease/apps/shop is live: UpgradeSucceeded: as the status says",
        ),
        (
            release(("False", "UpgradeFailed")),
            parent(ok, 105),
            "failed: HelmRelease/apps/shop failed: UpgradeFailed: as the status says",
        ),
        (
            release(("Unknown", "Progressing")),
            parent(ok, 105),
            "pending: waiting for HelmRelease/apps/shop: Progressing: as the status says",
        ),
    ];
    for (mut scene, parent, expected) in table {
        scene.parent = parent;
        assert_eq!(told(&question(A), &[&scene], 110), expected);
    }
    // Its chart's version needs no parent.
    assert!(told(&question("1.2.3"), &[&release(upgraded)], 110).starts_with("succeeded: "));
}

/// Real objects, as Flux left them.
#[test]
fn real_objects() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/flux-objects");
    if !folder.exists() {
        eprintln!("SKIPPED: the recorded objects of Flux are not here");
        return;
    }
    let read = |file: &str| -> IndexedObject {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        IndexedObject::trim(&value).unwrap()
    };
    let git = read("gitrepository-demo.yaml");
    let head = git.artifact_revision.clone().unwrap();
    let table = [
        ("ks-app.yaml", head.as_str(), Verdict::Succeeded),
        ("ks-badpath-failed.yaml", &head, Verdict::Failed),
        ("hr-failing-failed.yaml", "1.1.0", Verdict::Failed),
        ("ks-badcel.yaml", &head, Verdict::Failed),
    ];
    for (file, revision, expected) in table {
        let object = read(file);
        let scene = Scene {
            object: object.key(),
            state: State::default(),
            source: (object.kind == "Kustomization").then(|| git.clone()),
            watched: Some(Some(object)),
            parent: None,
        };
        let asked = question(revision);
        let (answer, _) = decide(&asked, &[scene.facts(&asked)], second(ASKED));
        assert_eq!(answer.verdict, expected, "{file}: {}", answer.message);
    }
}
