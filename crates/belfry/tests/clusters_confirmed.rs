//! What a Belfry in a real cluster passes on: an end of a rollout once the object's own status agrees.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::path::Path;

use anyhow::ensure;
use common::{
    PATIENCE, event,
    in_cluster::{ROOT, Server, installed, kustomization, say},
};
use serde_json::{Value, json};
use testkit::{Sink, until};

/// What a controller says of a Kustomization that goes to a commit.
fn said(name: &str, commit: &str, reason: &str) -> Value {
    let failed = reason != "ReconciliationSucceeded";
    let mut said = event(name, if failed { "error" } else { "info" }, reason);
    said["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now()));
    said["reason"] = json!(reason);
    said["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}")});
    if !failed {
        said["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    }
    said["involvedObject"]["uid"] = json!("");
    said
}

/// What was passed on of an object: its reasons, and what was said of its status.
fn passed(sink: &Sink, name: &str) -> Vec<(String, String)> {
    let of_object = |event: &Value| event["involvedObject"]["name"] == name;
    let requests = sink.received();
    let events = requests.iter().map(|request| (request.json().unwrap(), request.header("belfry-passed").to_owned()));
    let status = |passed: String| {
        let status = passed.split("; ").find_map(|part| part.strip_prefix("status=")).map(str::to_owned);
        status.unwrap_or_default()
    };
    let named = events.filter(|(event, _)| of_object(event));
    named.map(|(event, passed)| (event["reason"].as_str().unwrap().to_owned(), status(passed))).collect()
}

async fn wait_for(sink: &Sink, name: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(reason, status)| ((*reason).to_owned(), (*status).to_owned())).collect();
    until(&format!("{expected:?} of {name}"), PATIENCE, async || {
        let passed = passed(sink, name);
        ensure!(passed == expected, "{passed:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_passed_on_once_the_status_agrees() {
    let Some(cluster) = installed().await else { return };
    for kind in ["kustomize.toolkit.fluxcd.io_kustomizations", "source.toolkit.fluxcd.io_gitrepositories"] {
        let crd = Path::new(ROOT).join(format!("../shared/data/crds/{kind}.yaml"));
        if !crd.exists() {
            return testkit::skip("the CRDs of Flux are not here");
        }
        cluster.apply_path(crd).await.unwrap();
    }
    let sink = Sink::start().unwrap();
    let manifests = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: hub, namespace: flux-system}}
stringData: {{hmacKey: key-of-this-cluster}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: hub, namespace: flux-system}}
spec: {{type: belfry, address: '{}', secretRef: {{name: hub}}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {{name: hub, namespace: flux-system}}
spec:
  providerRef: {{name: hub}}
  eventSources: [{{kind: Kustomization, name: '*'}}]
",
        sink.url("/events?cluster=eu"),
    );
    cluster.apply_yaml(&manifests).await.unwrap();
    for name in ["app", "bad", "lied"] {
        kustomization(&cluster, name).await;
    }
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;
    let commit = "e".repeat(40);

    // A success waits for its object, and for no other.
    assert_eq!(server.post(&said("app", &commit, "ReconciliationSucceeded")).await, 202);
    say(&cluster, "bad", false, "HealthCheckFailed", &commit).await;
    assert_eq!(server.post(&said("bad", &commit, "HealthCheckFailed")).await, 202);
    wait_for(&sink, "bad", &[("HealthCheckFailed", "failed")]).await;
    assert_eq!(passed(&sink, "app"), []);
    say(&cluster, "app", true, "ReconciliationSucceeded", &commit).await;
    wait_for(&sink, "app", &[("ReconciliationSucceeded", "ready")]).await;

    // A failure that the status never tells of is passed on soon, for what it is.
    assert_eq!(server.post(&said("lied", &commit, "HealthCheckFailed")).await, 202);
    wait_for(&sink, "lied", &[("HealthCheckFailed", "neither")]).await;
}
