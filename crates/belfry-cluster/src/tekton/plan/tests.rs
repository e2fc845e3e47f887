//! Runs through their lives, as values: each line of a test is a plan that is carried out on the run.

use belfry_core::{
    ObjectKey, Seq,
    verdict::{OnFailure, Standing},
};
use jiff::Timestamp;
use serde_json::Map;

use super::*;

const CREATED: i64 = 1_795_252_556;

fn at(seconds: i64) -> Time {
    Time((CREATED + seconds) * 1_000_000)
}

fn run(more: &Value) -> Run {
    let mut spec = json!({
        "customRef": { "apiVersion": "belfry.dev/v1alpha1", "kind": "FluxDeploymentWait" },
        "params": [{ "name": "revision", "value": "main@sha1:985f8f0" }],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    let owners = spec.as_object_mut().unwrap().remove("ownerReferences");
    let created = Timestamp::from_second(CREATED).unwrap();
    Run::read(json!({
        "kind": "CustomRun",
        "metadata": {
            "namespace": "ci", "name": "wait", "uid": "u", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": created.to_string(), "ownerReferences": owners,
        },
        "spec": spec,
    }))
    .unwrap()
}

fn clock(seconds: i64) -> Clock {
    Clock { now: at(seconds), since: at(0), told: None }
}

fn look(run: &Run, heard: Option<&Heard>, seconds: i64) -> Step {
    plan(run, heard, clock(seconds), &TektonSettings::default())
}

/// Carries a step out, as an API server merges patches.
fn write(run: &mut Run, step: Step) -> Remark {
    let Step::Write { status, remark } = step else { panic!("nothing to write: {step:?}") };
    merge(&mut run.status, status);
    remark
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (field, value) in patch {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(&field);
        } else {
            merge(&mut into[&field], value);
        }
    }
}

fn begun(more: &Value) -> Run {
    let mut run = run(more);
    let step = look(&run, None, 2);
    write(&mut run, step);
    run
}

fn until(step: &Step) -> Option<i64> {
    let Step::Wait { until, .. } = step else { panic!("no waiting: {step:?}") };
    until.map(|until| until.0 / 1_000_000 - CREATED)
}

fn ending(step: &Step) -> (String, String) {
    let Step::Write { status, .. } = step else { panic!("nothing to write: {step:?}") };
    let condition = &status["conditions"][0];
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (format!("{}/{}", text("status"), text("reason")), text("message"))
}

fn standing(name: &str, state: Phase, seconds: i64, reason: &str) -> Standing {
    Standing {
        object: ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".to_owned(),
            kind: "Kustomization".to_owned(),
            namespace: "flux-system".to_owned(),
            name: name.to_owned(),
            ..ObjectKey::default()
        },
        cluster: String::new(),
        state,
        revision: Some("main@sha1:985f8f08fad492ca9166cd880b7938e0d7aab4e9".to_owned()),
        origin_revision: None,
        reason: reason.to_owned(),
        message: format!("{name} says {reason}"),
        live: None,
        superseded_by: None,
        rollout: None,
        event: Some(Seq(at(seconds).0)),
        started: Some(at(-10)),
        finished: (!state.is_open()).then(|| at(seconds)),
        said: Some(at(seconds)),
    }
}

fn answer(verdict: Verdict, reason: &'static str, objects: Vec<Standing>) -> Heard {
    let first = objects.first();
    Heard::Answer(Arc::new(Answer {
        verdict,
        reason,
        message: format!("It is {}", verdict.as_str()),
        revision: "main@sha1:985f8f08fad492ca9166cd880b7938e0d7aab4e9".to_owned(),
        origin_revision: None,
        object: first.map(|one| one.object.clone()),
        superseded_by: None,
        event: first.and_then(|one| one.event),
        started: first.and_then(|one| one.started),
        finished: first.and_then(|one| one.finished),
        objects,
    }))
}

fn failed(seconds: i64) -> Heard {
    answer(Verdict::Failed, "ReconciliationFailed", vec![standing("app", Phase::Failed, seconds, "BuildFailed")])
}

fn pending() -> Heard {
    answer(Verdict::Pending, "Waiting", vec![standing("app", Phase::Progressing, 3, "Progressing")])
}

#[test]
fn a_run_waits_progresses_and_succeeds() {
    let mut run = run(&json!({ "timeout": "5m0s", "serviceAccountName": "default" }));
    let mut told = Vec::new();
    let step = look(&run, None, 2);
    told.push(write(&mut run, step));
    insta::assert_json_snapshot!("waiting", run.status);

    let step = look(&run, None, 2);
    let Step::Wait { question, .. } = &step else { panic!("{step:?}") };
    let expected = Question { revision: "main@sha1:985f8f0".to_owned(), asked: at(1), ..Question::default() };
    assert_eq!(*question, expected);
    assert_eq!(until(&step), Some(302));

    let step = look(&run, Some(&pending()), 4);
    told.push(write(&mut run, step));
    insta::assert_json_snapshot!("progressing", run.status);
    assert_eq!(until(&look(&run, Some(&pending()), 5)), Some(302), "what was told is not told again");

    let live = vec![standing("app", Phase::Succeeded, 20, "ReconciliationSucceeded")];
    let live = answer(Verdict::Succeeded, "ReconciliationSucceeded", live);
    let step = look(&run, Some(&live), 21);
    told.push(write(&mut run, step));
    insta::assert_json_snapshot!("succeeded", run.status);
    assert_eq!(look(&run, Some(&failed(30)), 31), Step::Done);
    insta::assert_debug_snapshot!("told", told);
}

#[test]
fn ends_say_why() {
    let none = &json!({});
    let superseded = answer(Verdict::Superseded, "RevisionSuperseded", Vec::new());
    let unknown = answer(Verdict::Unknown, "NotTracked", Vec::new());
    for (spec, heard, seconds, expected, message) in [
        (none, failed(5), 6, "False/ReconciliationFailed", "It is failed"),
        (none, superseded, 6, "False/RevisionSuperseded", "It is superseded"),
        (
            none,
            Heard::Forbidden("Kustomization/a/b".to_owned()),
            6,
            "False/NotPermitted",
            "ServiceAccount ci/default may not get Kustomization/a/b",
        ),
        (
            &json!({ "serviceAccountName": "builder" }),
            Heard::NothingReadable { over: Some(at(6)) },
            66,
            "False/NotPermitted",
            "ServiceAccount ci/builder may get none of the objects that went to main@sha1:985f8f0",
        ),
        (none, unknown, 3602, "False/CustomRunTimedOut", "main@sha1:985f8f0 was not live within 1h0m0s: It is unknown"),
        (
            &json!({ "timeout": "6s" }),
            Heard::NothingReadable { over: None },
            8,
            "False/CustomRunTimedOut",
            "main@sha1:985f8f0 was not live within 6s: ServiceAccount ci/default may get none of the objects",
        ),
    ] {
        let mut run = begun(spec);
        let step = look(&run, Some(&heard), seconds);
        assert_eq!(ending(&step), (expected.to_owned(), message.to_owned()));
        write(&mut run, step);
        let names: Vec<_> = run.status["results"].as_array().unwrap().iter().map(|result| &result["name"]).collect();
        let all = [
            "revision",
            "origin-revision",
            "duration",
            "reason",
            "message",
            "object",
            "event-id",
            "timestamp",
            "objects",
        ];
        assert_eq!(names, all, "{message}");
        assert!(run.status["completionTime"].is_string());
    }
}

#[test]
fn cancelled_runs_end_whatever_else() {
    let cancelled = json!({ "status": "RunCancelled", "statusMessage": "The PipelineRun has been cancelled." });
    let (fresh, begun) = (run(&cancelled), Run { cancelled: Some(String::new()), ..begun(&json!({ "retries": 3 })) });
    let older = Run { older: true, ..fresh.clone() };
    for (run, expected, message) in [
        (fresh, "False/CustomRunCancelled", "The PipelineRun has been cancelled."),
        (begun, "False/CustomRunCancelled", "The run was cancelled."),
        (older, "False/RunCancelled", "The PipelineRun has been cancelled."),
    ] {
        for heard in [None, Some(failed(5)), Some(Heard::Forbidden("x".to_owned()))] {
            let step = look(&run, heard.as_ref(), 6);
            assert_eq!(ending(&step), (expected.to_owned(), message.to_owned()));
        }
    }
    let other = run(&json!({ "status": "Paused" }));
    assert_eq!(ending(&look(&other, None, 1)).0, "Unknown/Waiting");
}

#[test]
fn what_cannot_be_asked_is_refused_at_once() {
    let reference =
        |name: &str| json!({ "apiVersion": "belfry.dev/v1alpha1", "kind": "FluxDeploymentWait", "name": name });
    for (spec, expected, message) in [
        (
            json!({ "params": [], "retries": 101, "timeout": "soon", "serviceAccountName": "A" }),
            "False/InvalidParams",
            "revision: is missing; spec.timeout: 'soon' is not a duration; write it like 300ms, 15s or 1m30s; \
             spec.retries: more than 100; spec.serviceAccountName: \"A\" can't be a name",
        ),
        (
            json!({ "workspaces": [{ "name": "source" }] }),
            "False/CustomRunWorkspaceNotSupported",
            "FluxDeploymentWait has no use for workspaces",
        ),
        (
            json!({ "customRef": reference("app") }),
            "False/UnexpectedName",
            "the name \"app\" in the reference: FluxDeploymentWait takes none",
        ),
    ] {
        let mut run = run(&spec);
        let step = look(&run, None, 1);
        assert_eq!(ending(&step), (expected.to_owned(), message.to_owned()));
        write(&mut run, step);
        assert!(run.status["startTime"].is_string() && run.is_done());
        assert_eq!(run.status["results"].as_array().unwrap().len(), 9);
    }
    assert_eq!(ending(&look(&run(&json!({ "customRef": reference("") })), None, 1)).0, "Unknown/Waiting");
    let embedded = json!({
        "customRef": null,
        "customSpec": {
            "apiVersion": "belfry.dev/v1alpha1", "kind": "FluxDeploymentWait", "spec": { "revision": "$(params.rev)" },
        },
        "params": [{ "name": "revision", "value": "abc" }],
    });
    let message = "revision: the variable \"$(params.rev)\" has no value";
    assert_eq!(ending(&look(&run(&embedded), None, 1)), ("False/InvalidParams".to_owned(), message.to_owned()));
}

#[test]
fn timeouts_are_the_runs_own_else_those_of_its_kind() {
    let param = json!([{ "name": "revision", "value": "a" }, { "name": "timeout", "value": "90s" }]);
    let owned = json!([{ "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "name": "x" }]);
    for (spec, expected) in [
        (json!({ "timeout": "6s" }), Some(8)),
        (json!({ "timeout": "0" }), None),
        (json!({ "timeout": "0s", "params": param }), None),
        (json!({ "params": param }), Some(92)),
        (json!({ "timeout": "10s", "params": param }), Some(12)),
        (json!({}), Some(3602)),
        (json!({ "ownerReferences": owned }), Some(86402)),
        (json!({ "ownerReferences": owned, "params": param }), Some(92)),
    ] {
        assert_eq!(until(&look(&begun(&spec), Some(&failed_to_begin()), 3)), expected, "{spec}");
    }
    // A change of it counts, but for one that makes no sense.
    let changed = |timeout: &str| Run { timeout: Some(timeout.to_owned()), ..begun(&json!({ "timeout": "6s" })) };
    assert_eq!(until(&look(&changed("60s"), Some(&failed_to_begin()), 3)), Some(62));
    assert_eq!(until(&look(&changed("soon"), Some(&failed_to_begin()), 3)), Some(3602));
}

/// An answer that tells nothing new.
fn failed_to_begin() -> Heard {
    answer(Verdict::Unknown, "NotTracked", Vec::new())
}

#[test]
fn a_run_found_beyond_its_time_hears_an_answer_first() {
    let run = begun(&json!({ "timeout": "6s" }));
    let looked = |heard: Option<&Heard>, now: i64| {
        plan(&run, heard, Clock { now: at(now), since: at(100), told: None }, &TektonSettings::default())
    };
    assert_eq!(until(&looked(None, 100)), Some(130));
    let live = answer(Verdict::Succeeded, "ReconciliationSucceeded", Vec::new());
    assert_eq!(ending(&looked(Some(&live), 101)).0, "True/ReconciliationSucceeded");
    assert_eq!(ending(&looked(Some(&failed_to_begin()), 101)).0, "False/CustomRunTimedOut");
    assert_eq!(ending(&looked(None, 130)).0, "False/CustomRunTimedOut");
}

#[test]
fn retries_wait_for_what_has_not_failed_before() {
    let mut run = begun(&json!({ "retries": 2, "timeout": "60s" }));
    let step = look(&run, Some(&failed(5)), 6);
    let remark = write(&mut run, step);
    insta::assert_json_snapshot!("retrying", run.status);
    let said = "Attempt 2 of 3: Waiting for main@sha1:985f8f0, after It is failed";
    assert_eq!((remark.warning, remark.reason, &*remark.message), (true, "Retrying", said));

    // The same failure is still the answer, also while Flux tries again, and whoever tells of it.
    assert_eq!(until(&look(&run, Some(&failed(5)), 7)), Some(66));
    assert_eq!(until(&look(&run, Some(&failed(7)), 8)), Some(66));
    let tried = vec![Standing { event: Some(Seq(at(8).0)), ..standing("app", Phase::Failed, 5, "BuildFailed") }];
    assert_eq!(until(&look(&run, Some(&answer(Verdict::Failed, "ReconciliationFailed", tried)), 9)), Some(66));
    let step = look(&run, Some(&failed(10)), 11);
    assert_eq!(ending(&step).0, "Unknown/Retrying");
    write(&mut run, step);
    assert_eq!(run.status["retriesStatus"].as_array().unwrap().len(), 2);
    // The last attempt runs out of time, which it has anew.
    assert_eq!(until(&look(&run, Some(&failed(10)), 12)), Some(71));
    assert_eq!(ending(&look(&run, Some(&failed(10)), 71)).0, "False/CustomRunTimedOut");
    assert_eq!(ending(&look(&run, Some(&failed(15)), 16)).0, "False/ReconciliationFailed");
    let live = answer(Verdict::Succeeded, "ReconciliationSucceeded", Vec::new());
    assert_eq!(ending(&look(&run, Some(&live), 16)).0, "True/ReconciliationSucceeded");

    // Another object's failure counts, though the first one is still named; both are then known.
    let mut run = begun(&json!({ "retries": 1 }));
    let step = look(&run, Some(&failed(5)), 6);
    write(&mut run, step);
    let both = vec![standing("app", Phase::Failed, 5, "BuildFailed"), standing("web", Phase::Failed, 9, "BuildFailed")];
    let both = answer(Verdict::Failed, "ReconciliationFailed", both);
    assert_eq!(ending(&look(&run, Some(&both), 10)).0, "False/ReconciliationFailed");
}

#[test]
fn only_what_waiting_again_may_heal_is_tried_again() {
    let superseded = answer(Verdict::Superseded, "RevisionSuperseded", Vec::new());
    for (heard, expected) in [
        (superseded, "False/RevisionSuperseded"),
        (Heard::Forbidden("x".to_owned()), "False/NotPermitted"),
        (Heard::NothingReadable { over: Some(at(-60)) }, "False/NotPermitted"),
        (failed(5), "Unknown/Retrying"),
    ] {
        assert_eq!(ending(&look(&begun(&json!({ "retries": 3 })), Some(&heard), 6)).0, expected);
    }
}

#[test]
fn attempts_are_bounded_and_the_last_are_kept() {
    let mut run = begun(&json!({ "retries": 100 }));
    for n in 0..100 {
        let step = look(&run, Some(&failed(10 * n)), 10 * n);
        assert_eq!(ending(&step).0, "Unknown/Retrying", "{n}");
        write(&mut run, step);
    }
    assert_eq!(run.status["retriesStatus"].as_array().unwrap().len(), 10);
    assert_eq!(ending(&look(&run, Some(&failed(1000)), 1000)).0, "False/ReconciliationFailed");
}

#[test]
fn progress_is_told_when_it_is_some_and_not_all_the_time() {
    let mut run = begun(&json!({}));
    let step = look(&run, Some(&pending()), 3);
    write(&mut run, step);
    let waits = vec![standing("app", Phase::Pending, 4, "DependencyNotReady")];
    let waits = answer(Verdict::Pending, "Waiting", waits);
    let soon =
        |now: i64| plan(&run, Some(&waits), Clock { told: Some(at(3)), ..clock(now) }, &TektonSettings::default());
    assert_eq!(until(&soon(4)), Some(8));
    assert_eq!(ending(&soon(8)), ("Unknown/Waiting".to_owned(), "It is pending".to_owned()));
}

#[test]
fn a_service_account_that_may_see_nothing_is_told_so_once() {
    let mut run = begun(&json!({}));
    let hidden = Heard::NothingReadable { over: None };
    let step = look(&run, Some(&hidden), 3);
    let remark = write(&mut run, step);
    let said = "ServiceAccount ci/default may get none of the objects yet";
    assert_eq!((remark.warning, remark.reason, &*remark.message), (true, "NotPermitted", said));
    assert_eq!(until(&look(&run, Some(&hidden), 4)), Some(3602));
    // What it may see may come later than all else is over.
    let over = Heard::NothingReadable { over: Some(at(10)) };
    assert_eq!(until(&look(&run, Some(&over), 11)), Some(70));
    assert_eq!(ending(&look(&run, Some(&over), 70)).0, "False/NotPermitted");
    assert_eq!(ending(&look(&run, Some(&pending()), 5)), ("Unknown/Waiting".to_owned(), "It is pending".to_owned()));
}

#[test]
fn what_was_begun_goes_on_whatever_becomes_of_the_spec() {
    let begun = begun(&json!({}));
    let changed = Run { params: vec![("revision".to_owned(), json!("other"))], ..begun.clone() };
    assert_eq!(look(&changed, None, 9), look(&begun, None, 9));
    // One that the older controller began, or whose status was lost, begins anew.
    let mut older = run(&json!({}));
    older.status = json!({ "conditions": [{ "type": "Succeeded", "status": "Unknown", "reason": "Waiting" }] });
    assert_eq!(ending(&look(&older, None, 9)).0, "Unknown/Waiting");
    let mut broken = begun;
    broken.status["extraFields"]["asked"] = json!("never");
    assert_eq!(ending(&look(&broken, None, 9)).0, "Unknown/Waiting");
}

#[test]
fn everything_fits_whatever_flux_says() {
    let long = "é".repeat(5000);
    let objects: Vec<_> = (0..500)
        .map(|n| Standing {
            message: long.clone(),
            reason: long.clone(),
            ..standing(&format!("a{n}"), Phase::Failed, 5, "x")
        })
        .collect();
    let Heard::Answer(said) = answer(Verdict::Failed, "ReconciliationFailed", objects) else { unreachable!() };
    let endless = Heard::Answer(Arc::new(Answer { message: long.clone(), revision: long, ..(*said).clone() }));
    let mut run = begun(&json!({ "retries": 1 }));
    for seconds in [5, 6] {
        let step = look(&run, Some(&endless), seconds);
        write(&mut run, step);
        if seconds == 5 {
            run.status["extraFields"]["failuresUntil"] = json!(Timestamp::from_second(CREATED).unwrap().to_string());
        }
    }
    assert!(run.is_done());
    assert!(run.status.to_string().len() < 20_000, "{}", run.status.to_string().len());
    let objects = run.status["results"][8]["value"].as_str().unwrap();
    let list: Vec<Value> = serde_json::from_str(objects).unwrap();
    assert_eq!(list.last().unwrap()["omitted"], 500 - (list.len() - 1));
}

#[test]
fn conditions_of_others_stay_and_come_after() {
    let mut run = run(&json!({}));
    run.status = json!({ "conditions": [{ "type": "Other", "status": "True" }] });
    let step = look(&run, None, 1);
    write(&mut run, step);
    let types: Vec<_> = run.status["conditions"].as_array().unwrap().iter().map(|one| &one["type"]).collect();
    assert_eq!(types, ["Succeeded", "Other"]);
}

#[test]
fn what_is_awaited_is_named_in_part() {
    let named = |objects: &str| {
        let given = json!({ "revision": "a", "objects": objects, "cluster": "prod" });
        awaited(&Params::read(given.as_object().unwrap(), at(0)).unwrap())
    };
    assert_eq!(named("*/*/a"), "Waiting for a of */*/a in cluster prod");
    assert_eq!(named("*/*/a,*/*/b,*/*/c,*/*/d,*/*/e,*/*/f,*/*/g"), {
        "Waiting for a of */*/a, */*/b, */*/c, */*/d, */*/e and 2 more in cluster prod"
    });
    let graced = json!({ "revision": "a", "failure-grace": "1s" });
    let question = Params::read(graced.as_object().unwrap(), at(0)).unwrap().question(at(0));
    assert_eq!(question.on_failure, OnFailure::Fail { grace: Duration::from_secs(1) });
}
