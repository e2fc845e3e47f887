//! What Tekton expects of whoever does a custom task, trap by trap.

use std::time::Duration;

use anyhow::ensure;
use belfry_core::{
    Time,
    rollout::Phase,
    verdict::{OnFailure, OnSuperseded},
};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    harness::{OURS, listeners, result, scene},
    support::{SOON, merge},
};

const APP: &str = "Kustomization/flux-system/app";
const WEB: &str = "Kustomization/flux-system/web";

#[tokio::test]
async fn what_happened_before_the_run_counts_and_all_objects_must_have_it() {
    let Some((runs, world, _belfry)) = scene("before").await else { return };
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    runs.create("early", json!({ "revision": "a", "objects": APP }), json!({})).await;
    runs.custom("early", "True", "ReconciliationSucceeded").await;

    runs.create("both", json!({ "revision": "a\n", "objects": [APP, WEB] }), json!({})).await;
    let waiting = testkit::until("progress is told", SOON, || async {
        let run = runs.get("both").await;
        ensure!(run["status"]["extraFields"]["objects"][0]["state"] == "succeeded", "{}", run["status"]);
        Ok(run)
    })
    .await
    .unwrap();
    assert_eq!(waiting["status"]["conditions"][0]["status"], "Unknown");
    world.happens("a", WEB, Phase::Succeeded, "ReconciliationSucceeded");
    let done = runs.custom("both", "True", "ReconciliationSucceeded").await;
    assert_eq!(result(&done, "revision"), "a");
    let objects: Vec<Value> = serde_json::from_str(result(&done, "objects")).unwrap();
    assert_eq!(objects.iter().map(|one| &one["object"]).collect::<Vec<_>>(), [APP, WEB]);
    let told: Vec<_> = runs.told("both", "ReconciliationSucceeded").await;
    let reasons: Vec<_> = told.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["Waiting", "Progressing", "ReconciliationSucceeded"]);
    listeners(&world, 0).await;
}

#[tokio::test]
async fn a_cancelled_run_ends_with_the_reason_that_tekton_counts() {
    let Some((runs, world, _belfry)) = scene("cancel").await else { return };
    let why = "CustomRun cancelled as the PipelineRun it belongs to has been cancelled.";
    let reference = json!({ "apiVersion": OURS, "kind": "FluxDeploymentWait" });
    for (kind, reason) in [("CustomRun", "CustomRunCancelled"), ("Run", "RunCancelled")] {
        let name = kind.to_lowercase();
        let params = json!({ "revision": "a" });
        runs.create_as(kind, &name, reference.clone(), params, json!({ "retries": 3 })).await;
        listeners(&world, 1).await;
        let cancelled = json!({ "spec": { "status": "RunCancelled", "statusMessage": why } });
        merge(&runs.api(kind), &name, cancelled).await;
        let done = runs.until(kind, &name, "False", reason).await;
        assert_eq!(done["status"]["conditions"][0]["message"], why);
        assert!(done["status"]["completionTime"].is_string());
        assert_eq!(result(&done, "revision"), "a");
        listeners(&world, 0).await;
    }
    // One that was cancelled before it was seen.
    let more = json!({ "status": "RunCancelled" });
    runs.create("never", json!({ "revision": "a" }), more).await;
    runs.custom("never", "False", "CustomRunCancelled").await;
}

#[tokio::test]
async fn a_run_times_out_by_itself() {
    let Some((runs, world, _belfry)) = scene("timeout").await else { return };
    world.happens("a", APP, Phase::Progressing, "Progressing");
    runs.create("short", json!({ "revision": "a" }), json!({ "timeout": "1s" })).await;
    let done = runs.custom("short", "False", "CustomRunTimedOut").await;
    let message = format!("a was not live within 1s: {APP} says Progressing");
    assert_eq!(done["status"]["conditions"][0]["message"], message);
    assert_eq!(result(&done, "object"), APP);
    runs.create("param", json!({ "revision": "a", "timeout": "1s" }), json!({ "retries": 1 })).await;
    let done = runs.custom("param", "False", "CustomRunTimedOut").await;
    assert_eq!(done["status"]["retriesStatus"][0]["conditions"][0]["reason"], "CustomRunTimedOut");
}

#[tokio::test]
async fn a_retry_waits_for_what_has_not_failed_yet() {
    let Some((runs, world, _belfry)) = scene("retry").await else { return };
    world.happens("a", APP, Phase::Failed, "BuildFailed");
    runs.create("heals", json!({ "revision": "a" }), json!({ "retries": 1 })).await;
    let retrying = runs.custom("heals", "Unknown", "Retrying").await;
    let attempts = retrying["status"]["retriesStatus"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "the same failure is no second one");
    let (status, reason) = (&attempts[0]["conditions"][0]["status"], &attempts[0]["conditions"][0]["reason"]);
    assert_eq!((status, reason), (&json!("False"), &json!("ReconciliationFailed")));
    runs.told("heals", "Retrying").await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    runs.custom("heals", "True", "ReconciliationSucceeded").await;

    world.happened(Duration::from_secs(60), "b", APP, Phase::Failed, "BuildFailed");
    runs.create("fails", json!({ "revision": "b" }), json!({ "retries": 1 })).await;
    runs.custom("fails", "Unknown", "Retrying").await;
    world.happens("b", APP, Phase::Failed, "HealthCheckFailed");
    let done = runs.custom("fails", "False", "ReconciliationFailed").await;
    assert_eq!(result(&done, "reason"), "HealthCheckFailed");
    assert_eq!(done["status"]["retriesStatus"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_that_is_done_is_never_touched() {
    let Some((runs, world, _belfry)) = scene("done").await else { return };
    runs.create("done", json!({ "revision": "a" }), json!({})).await;
    listeners(&world, 1).await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    runs.custom("done", "True", "ReconciliationSucceeded").await;
    // Tekton cancels what is done too; and the answer turns.
    merge(&runs.api("CustomRun"), "done", json!({ "spec": { "status": "RunCancelled" } })).await;
    let before = runs.get("done").await;
    world.happens("a", APP, Phase::Failed, "HealthCheckFailed");
    // Another run shows that both were seen by now.
    runs.create("after", json!({ "revision": "a" }), json!({})).await;
    runs.custom("after", "False", "ReconciliationFailed").await;
    assert_eq!(runs.get("done").await, before);

    // One that somebody else ends while it is waited for.
    runs.create("taken", json!({ "revision": "z" }), json!({})).await;
    listeners(&world, 1).await;
    let ended = json!({ "conditions": [{ "type": "Succeeded", "status": "True", "reason": "Elsewhere" }] });
    let patch = Patch::Merge(json!({ "status": ended }));
    runs.api("CustomRun").patch_status("taken", &PatchParams::default(), &patch).await.unwrap();
    listeners(&world, 0).await;
    runs.custom("taken", "True", "Elsewhere").await;
}

#[tokio::test]
async fn deletion_drops_the_wait_and_the_same_name_is_another_run() {
    let Some((runs, world, _belfry)) = scene("delete").await else { return };
    runs.create("wait", json!({ "revision": "a" }), json!({})).await;
    let first = runs.custom("wait", "Unknown", "Waiting").await;
    listeners(&world, 1).await;
    runs.api("CustomRun").delete("wait", &DeleteParams::default()).await.unwrap();
    // As Tekton does it, at once.
    runs.create("wait", json!({ "revision": "b" }), json!({})).await;
    let second = runs.custom("wait", "Unknown", "Waiting").await;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    testkit::until("the second is asked for", SOON, || async {
        ensure!(world.asked().last().is_some_and(|question| question.revision == "b"));
        Ok(())
    })
    .await
    .unwrap();
    listeners(&world, 1).await;
    world.happens("a", APP, Phase::Failed, "BuildFailed");
    world.happens("b", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let done = runs.custom("wait", "True", "ReconciliationSucceeded").await;
    assert_eq!(done["metadata"]["uid"], second["metadata"]["uid"]);
    runs.create("gone", json!({ "revision": "c" }), json!({})).await;
    listeners(&world, 1).await;
    runs.api("CustomRun").delete("gone", &DeleteParams::default()).await.unwrap();
    listeners(&world, 0).await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_in_the_condition() {
    let Some((runs, world, _belfry)) = scene("invalid").await else { return };
    for (name, params, more, reason, says) in [
        ("color", json!({ "revision": "a", "color": "red" }), json!({}), "InvalidParams", "\"color\""),
        ("nothing", json!({}), json!({}), "InvalidParams", "revision: is missing"),
        ("array", json!({ "revision": ["a"] }), json!({}), "InvalidParams", "revision: must be a string"),
        ("timeout", json!({ "revision": "a" }), json!({ "timeout": "soon" }), "InvalidParams", "spec.timeout"),
        (
            "workspace",
            json!({ "revision": "a" }),
            json!({ "workspaces": [{ "name": "x", "emptyDir": {} }] }),
            "CustomRunWorkspaceNotSupported",
            "workspaces",
        ),
    ] {
        runs.create(name, params, more).await;
        let done = runs.custom(name, "False", reason).await;
        let message = done["status"]["conditions"][0]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
        assert_eq!(result(&done, "objects"), "[]");
    }
    let other = json!({ "apiVersion": "example.dev/v1", "kind": "FluxDeploymentWait" });
    runs.create_as("CustomRun", "other", other, json!({ "color": "red" }), json!({})).await;
    let named = json!({ "apiVersion": OURS, "kind": "FluxDeploymentWait", "name": "app" });
    runs.create_as("CustomRun", "named", named, json!({ "revision": "a" }), json!({})).await;
    runs.custom("named", "False", "UnexpectedName").await;
    assert_eq!(runs.get("other").await.get("status"), None, "it is not ours");
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn an_embedded_spec_is_read_with_its_variables() {
    let Some((runs, world, _belfry)) = scene("embedded").await else { return };
    let spec = json!({
        "apiVersion": OURS, "kind": "FluxDeploymentWait", "metadata": { "labels": { "a": "b" } },
        "spec": {
            "revision": "$(params.rev)",
            "objects": [{ "kind": "Kustomization", "namespace": "flux-system", "name": "app" }],
        },
    });
    let more = json!({ "customRef": null, "customSpec": spec });
    runs.create("embedded", json!({ "rev": "a" }), more.clone()).await;
    runs.custom("embedded", "Unknown", "Waiting").await;
    world.happens("a", WEB, Phase::Failed, "BuildFailed");
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    runs.custom("embedded", "True", "ReconciliationSucceeded").await;
    // As Tekton hands it over when nobody gives the param: the variable stays.
    runs.create("literal", json!({ "revision": "a" }), more).await;
    runs.custom("literal", "False", "InvalidParams").await;
}

#[tokio::test]
async fn a_change_of_the_params_changes_nothing_but_one_of_the_timeout_does() {
    let Some((runs, world, _belfry)) = scene("change").await else { return };
    runs.create("wait", json!({ "revision": "a" }), json!({ "timeout": "10m" })).await;
    runs.custom("wait", "Unknown", "Waiting").await;
    let spec = json!({ "params": [{ "name": "revision", "value": "b" }], "timeout": "1s" });
    merge(&runs.api("CustomRun"), "wait", json!({ "spec": spec })).await;
    let done = runs.custom("wait", "False", "CustomRunTimedOut").await;
    assert_eq!(result(&done, "revision"), "a");
    assert!(world.asked().iter().all(|question| question.revision == "a"));
}

#[tokio::test]
async fn many_runs_of_one_event_end_at_once() {
    let Some((runs, world, _belfry)) = scene("many").await else { return };
    for n in 0..50 {
        runs.create(&format!("wait-{n}"), json!({ "revision": "a" }), json!({})).await;
    }
    listeners(&world, 50).await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    for n in 0..50 {
        runs.custom(&format!("wait-{n}"), "True", "ReconciliationSucceeded").await;
    }
    listeners(&world, 0).await;
}

#[tokio::test]
async fn only_who_leads_does_anything() {
    let Some((runs, world, belfry)) = scene("leads").await else { return };
    runs.create("wait", json!({ "revision": "a" }), json!({})).await;
    listeners(&world, 1).await;
    belfry.leads(false);
    listeners(&world, 0).await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let waiting = runs.get("wait").await;
    assert_eq!(waiting["status"]["conditions"][0]["status"], "Unknown");
    belfry.leads(true);
    runs.custom("wait", "True", "ReconciliationSucceeded").await;
}

#[tokio::test]
async fn a_superseded_revision_is_not_waited_for_and_not_tried_again() {
    let Some((runs, world, _belfry)) = scene("superseded").await else { return };
    runs.create("wait", json!({ "revision": "a" }), json!({ "retries": 3 })).await;
    listeners(&world, 1).await;
    world.happens("a", APP, Phase::Superseded, "HealthCheckCanceled");
    let done = runs.custom("wait", "False", "RevisionSuperseded").await;
    assert_eq!(done["status"].get("retriesStatus"), None);
    listeners(&world, 0).await;
    let params = json!({
        "revision": "b", "on-superseded": "wait", "on-failure": "wait", "cluster": "prod", "not-before": "creation",
    });
    let created = runs.create("all", params, json!({})).await.metadata.creation_timestamp.unwrap().0;
    listeners(&world, 1).await;
    let asked = world.asked().pop().unwrap();
    assert_eq!((asked.on_superseded, asked.on_failure), (OnSuperseded::Wait, OnFailure::Wait));
    assert_eq!(asked.cluster.as_deref(), Some("prod"));
    assert_eq!(asked.not_before, Some(Time(created.as_microsecond())));
}
