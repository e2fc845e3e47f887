//! Runs outlive restarts, API servers that are away, and CRDs that come late.

use std::time::Duration;

use belfry_core::rollout::Phase;
use serde_json::json;

use crate::{
    harness::{Belfry, OURS, Readable, Runs, definitions, listeners, result, scene},
    support::install_role,
    world::World,
};

const APP: &str = "Kustomization/flux-system/app";

#[tokio::test]
async fn a_restart_goes_on_with_the_same_question() {
    let Some((runs, world, belfry)) = scene("restart").await else { return };
    let params = json!({ "revision": "a", "objects": [APP], "not-before": "10m", "failure-grace": "5s" });
    runs.create("wait", params, json!({ "retries": 1 })).await;
    listeners(&world, 1).await;
    world.happens("a", APP, Phase::Failed, "BuildFailed");
    let before = runs.custom("wait", "Unknown", "Retrying").await;
    runs.told("wait", "Retrying").await;
    belfry.stop().await;
    listeners(&world, 0).await;

    let belfry = Belfry::start(runs.cluster, &runs.namespace, &world, Readable::Everything.may()).await;
    listeners(&world, 1).await;
    let asked = world.asked();
    assert_eq!(asked.first(), asked.last());
    // The failure that ended the first attempt is known still, and nothing is told twice.
    runs.create("other", json!({ "revision": "b" }), json!({})).await;
    runs.custom("other", "Unknown", "Waiting").await;
    assert_eq!(runs.get("wait").await, before);
    belfry.stop().await;
    listeners(&world, 0).await;

    // What happens while nobody is there is not lost.
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let _belfry = Belfry::start(runs.cluster, &runs.namespace, &world, Readable::Everything.may()).await;
    runs.custom("wait", "True", "ReconciliationSucceeded").await;
    let told: Vec<_> = runs.told("wait", "ReconciliationSucceeded").await;
    let reasons: Vec<_> = told.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["Waiting", "Retrying", "ReconciliationSucceeded"]);
}

#[tokio::test]
async fn a_run_of_the_older_controller_is_taken_over() {
    let Some((runs, world, belfry)) = scene("takeover").await else { return };
    belfry.leads(false);
    runs.create("wait", json!({ "revision": "a" }), json!({})).await;
    let status = json!({ "status": {
        "conditions": [{
            "type": "Succeeded", "status": "Unknown", "reason": "Waiting", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "Waiting for Kustomisation to complete reconciliation",
        }],
        "startTime": "2026-01-01T00:00:00Z",
    }});
    let patch = kube::api::Patch::Merge(status);
    runs.api("CustomRun").patch_status("wait", &Default::default(), &patch).await.unwrap();
    belfry.leads(true);
    listeners(&world, 1).await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let done = runs.custom("wait", "True", "ReconciliationSucceeded").await;
    assert_eq!(result(&done, "object"), APP);
}

#[tokio::test]
async fn crds_may_come_late_and_the_api_server_may_go_away() {
    let Some(cluster) = testkit::Cluster::start_or_skip().await else { return };
    let Some([custom, older]) = definitions() else { return };
    install_role(&cluster).await.unwrap();
    let namespace = cluster.namespace("late").await.unwrap();
    let world = World::new();
    let _belfry = Belfry::start(&cluster, &namespace, &world, Readable::Everything.may()).await;
    let runs = Runs { cluster: &cluster, namespace };

    cluster.apply_yaml(&custom).await.unwrap();
    runs.create("wait", json!({ "revision": "a" }), json!({})).await;
    runs.custom("wait", "Unknown", "Waiting").await;
    cluster.apply_yaml(&older).await.unwrap();
    let reference = json!({ "apiVersion": OURS, "kind": "FluxDeploymentWait" });
    runs.create_as("Run", "older", reference, json!({ "revision": "a" }), json!({})).await;
    runs.until("Run", "older", "Unknown", "Waiting").await;
    listeners(&world, 2).await;

    cluster.stop_apiserver().unwrap();
    // It can't be written now, and there is nobody to be asked.
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.start_apiserver().await.unwrap();
    runs.custom("wait", "True", "ReconciliationSucceeded").await;
    runs.until("Run", "older", "True", "ReconciliationSucceeded").await;
    listeners(&world, 0).await;
    // And it watches again.
    runs.create("after", json!({ "revision": "b" }), json!({})).await;
    world.happens("b", APP, Phase::Failed, "BuildFailed");
    runs.custom("after", "False", "ReconciliationFailed").await;
}

/// As may be for a moment when the lead changes.
#[tokio::test]
async fn two_at_once_do_no_harm() {
    let Some((runs, world, _belfry)) = scene("twins").await else { return };
    let _twin = Belfry::start(runs.cluster, &runs.namespace, &world, Readable::Everything.may()).await;
    runs.create("wait", json!({ "revision": "a" }), json!({ "retries": 1 })).await;
    listeners(&world, 2).await;
    world.happens("a", APP, Phase::Failed, "BuildFailed");
    let retrying = runs.custom("wait", "Unknown", "Retrying").await;
    assert_eq!(retrying["status"]["retriesStatus"].as_array().unwrap().len(), 1);
    runs.told("wait", "Retrying").await;
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let done = runs.custom("wait", "True", "ReconciliationSucceeded").await;
    assert_eq!(done["status"]["retriesStatus"].as_array().unwrap().len(), 1);
    listeners(&world, 0).await;
    // Who wrote it tells of it.
    let told: Vec<_> = runs.told("wait", "ReconciliationSucceeded").await;
    let reasons: Vec<_> = told.iter().map(|event| event["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["Waiting", "Retrying", "ReconciliationSucceeded"]);
    assert_eq!(runs.get("wait").await, done);
}
