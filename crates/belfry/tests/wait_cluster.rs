//! Verdicts and published successes in a real cluster: what an object's status says counts, whatever events say.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{path::Path, time::Duration};

use common::{
    PATIENCE, client, event,
    in_cluster::{ROOT, Server, installed, kustomization, say},
};
use serde_json::{Value, json};
use testkit::{Answer, Cluster, Sink, until};

async fn with_kustomizations() -> Option<Cluster> {
    let cluster = installed().await?;
    for kind in ["kustomize.toolkit.fluxcd.io_kustomizations", "source.toolkit.fluxcd.io_gitrepositories"] {
        let crd = Path::new(ROOT).join(format!("../shared/data/crds/{kind}.yaml"));
        if !crd.exists() {
            testkit::skip("the CRDs of Flux are not here");
            return None;
        }
        cluster.apply_path(crd).await.unwrap();
    }
    Some(cluster)
}

async fn serve(cluster: &Cluster) -> Server {
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;
    server
}

async fn wait(server: &Server, query: &str) -> Value {
    let url = format!("{}/api/v1/wait?{query}", server.api);
    client().get(url).send().await.unwrap().json().await.unwrap()
}

fn revision(commit: &str) -> String {
    format!("main@sha1:{commit}")
}

/// What a controller says of a Kustomization's success.
fn success(name: &str, commit: &str) -> Value {
    let mut said = event(name, "info", "Reconciliation finished in 1s");
    said["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now()));
    said["reason"] = json!("ReconciliationSucceeded");
    said["metadata"] = json!({
        "kustomize.toolkit.fluxcd.io/revision": revision(commit),
        "kustomize.toolkit.fluxcd.io/commit_status": "update",
    });
    said["involvedObject"]["uid"] = json!("");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_lost_nor_a_forged_event_misleads() {
    let Some(cluster) = with_kustomizations().await else { return };
    let [first, second] = ["a", "b"].map(|digit| digit.repeat(40));
    kustomization(&cluster, "app").await;
    say(&cluster, "app", true, "ReconciliationSucceeded", &first).await;
    let server = serve(&cluster).await;
    let app = "object=Kustomization/flux-system/app";
    // No event ever told.
    let answer = wait(&server, &format!("revision={first}&{app}")).await;
    assert_eq!(answer["verdict"], "succeeded", "{answer}");
    // Anybody can post an event.
    assert_eq!(server.post(&success("app", &second)).await, 202);
    let answer = wait(&server, &format!("revision={second}&{app}&timeout=2s")).await;
    assert_eq!(answer["verdict"], "pending", "{answer}");
    assert_eq!(wait(&server, &format!("revision={first}&{app}")).await["verdict"], "succeeded");
    // Once the status agrees it is so, at once.
    let query = format!("revision={second}&{app}");
    let (answer, ()) = tokio::join!(wait(&server, &query), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        say(&cluster, "app", true, "ReconciliationSucceeded", &second).await;
    });
    assert_eq!(answer["verdict"], "succeeded", "{answer}");
    // A failure that no event tells of.
    let third = "c".repeat(40);
    let query = format!("revision={third}&{app}");
    let (answer, ()) = tokio::join!(wait(&server, &query), async {
        say(&cluster, "app", false, "HealthCheckFailed", &third).await;
    });
    assert_eq!(answer["verdict"], "failed", "{answer}");
    assert_eq!(answer["objects"][0]["message"], "as seen");
    let missing = wait(&server, &format!("revision={third}&object=Kustomization/flux-system/none&timeout=1s")).await;
    assert_eq!(missing["message"], "waiting for Kustomization/flux-system/none: Missing: it does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_objects_whose_source_holds_the_revision_are_expected() {
    let Some(cluster) = with_kustomizations().await else { return };
    let commit = "d".repeat(40);
    let source = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": {"name": "x", "namespace": "flux-system"}, "spec": {"url": "https://git.example/fleet", "interval": "1m"},
        "status": {"artifact": {
            "revision": revision(&commit), "digest": format!("sha256:{}", "0".repeat(64)), "path": "x", "url": "http://x",
            "lastUpdateTime": "2026-01-02T03:04:05Z",
        }},
    });
    cluster.apply_yaml(&source.to_string()).await.unwrap();
    for name in ["one", "two"] {
        kustomization(&cluster, name).await;
    }
    let paused = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": "paused", "namespace": "flux-system"},
        "spec": {
            "interval": "1m", "prune": true, "suspend": true, "sourceRef": {"kind": "GitRepository", "name": "x"},
        },
    });
    cluster.apply_yaml(&paused.to_string()).await.unwrap();
    let server = serve(&cluster).await;
    say(&cluster, "one", true, "ReconciliationSucceeded", &commit).await;
    let query = format!("revision={commit}");
    let (answer, ()) = tokio::join!(wait(&server, &query), async {
        until("one of two to be live", PATIENCE, async || {
            let answer = wait(&server, &format!("{query}&timeout=1s")).await;
            let message = answer["message"].as_str().unwrap_or_default();
            anyhow::ensure!(
                message.starts_with("1 of 2 objects are live; waiting for Kustomization/flux-system/two"),
                "{answer}"
            );
            Ok(())
        })
        .await
        .unwrap();
        say(&cluster, "two", true, "ReconciliationSucceeded", &commit).await;
    });
    assert_eq!(answer["message"], "all 2 objects are live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_published_once_the_status_agrees() {
    let Some(cluster) = with_kustomizations().await else { return };
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::body(201, "application/json", "{}"));
    let manifests = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: github, namespace: flux-system}}
stringData: {{token: t}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: github, namespace: flux-system}}
spec: {{type: github, address: '{}', secretRef: {{name: github}}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {{name: git, namespace: flux-system}}
spec:
  providerRef: {{name: github}}
  prefix: prod
  eventSources: [{{kind: Kustomization, name: '*'}}]
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: broker, namespace: flux-system}}
spec: {{type: cdevents, address: '{}'}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {{name: broker, namespace: flux-system}}
spec:
  providerRef: {{name: broker}}
  eventSources: [{{kind: Kustomization, name: '*'}}]
",
        sink.url("/org/repo"),
        sink.url("/broker"),
    );
    cluster.apply_yaml(&manifests).await.unwrap();
    kustomization(&cluster, "app").await;
    let server = serve(&cluster).await;
    let commit = "e".repeat(40);
    let path = format!("/api/v3/repos/org/repo/statuses/{commit}");
    let states = || -> Vec<String> {
        let posted = sink.received_on(&path);
        posted.iter().map(|request| request.json().unwrap()["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(server.post(&success("app", &commit)).await, 202);
    until("the commit to be pending", PATIENCE, async || {
        anyhow::ensure!(states() == ["pending"], "{:?}", states());
        Ok(())
    })
    .await
    .unwrap();
    assert!(sink.received_on("/broker").is_empty(), "nothing is live yet");
    say(&cluster, "app", true, "ReconciliationSucceeded", &commit).await;
    until("both to be told", PATIENCE, async || {
        anyhow::ensure!(states() == ["pending", "success"], "{:?}", states());
        anyhow::ensure!(sink.received_on("/broker").len() == 1, "{:?}", sink.received_on("/broker"));
        Ok(())
    })
    .await
    .unwrap();
    let last = sink.received_on(&path).pop().unwrap().json().unwrap();
    assert_eq!(last["description"], "live: Reconciliation finished in 1s");
}
