//! Webhooks to `belfry serve` in a real cluster, as the ServiceAccount that `deploy/` gives it: from the Receiver to the
//! annotation on the object, through every outage.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::path::Path;

use anyhow::{Context as _, ensure};
use common::{PATIENCE, client, program};
use serde_json::{Value, json};
use testkit::{Cluster, Process, port, until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const NOTIFICATION: &str = "/apis/notification.toolkit.fluxcd.io/v1/namespaces/flux-system/receivers";
const KUSTOMIZE: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations";
const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

struct Server {
    process: Process,
    receivers: String,
    api: String,
    health: String,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start(source: &[&str]) -> Self {
        let address = || format!("127.0.0.1:{}", port::free().unwrap());
        let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
        let data = tempfile::tempdir().unwrap();
        let process = program()
            .args(["serve", "--log-encoding", "console", "--log-level", "debug", "--api-trust-loopback"])
            .args(["--data", data.path().to_str().unwrap(), "--receiverAddr", &receivers])
            .args(["--events-addr", &events, "--api-addr", &api, "--metrics-addr", &metrics, "--health-addr", &health])
            .args(source.to_vec())
            .env("RUNTIME_NAMESPACE", "flux-system")
            .spawn()
            .unwrap();
        let (receivers, api) = (format!("http://{receivers}"), format!("http://{api}"));
        let mut server = Self { process, receivers, api, health: format!("http://{health}/readyz"), _data: data };
        server.ready().await;
        server
    }

    async fn ready(&mut self) {
        self.process.wait_for_http(&self.health, PATIENCE).await.unwrap();
    }

    async fn post(&self, path: &str, token: &str) -> u16 {
        let request = client().post(format!("{}{path}", self.receivers)).header("x-gitlab-token", token);
        request.body("{}").send().await.unwrap().status().as_u16()
    }

    async fn posted(&self, path: &str, token: &str, expected: u16) {
        until(&format!("{path} to answer {expected}"), PATIENCE, async || {
            let status = self.post(path, token).await;
            ensure!(status == expected, "it answers {status}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn view(&self) -> Value {
        let answer = client().get(format!("{}/api/v1/receivers", self.api)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["items"][0].clone()
    }
}

async fn installed() -> Option<Cluster> {
    let crd = Path::new(ROOT).join("../shared/data/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    if !crd.exists() {
        testkit::skip("the Kustomization CRD of Flux is not here");
        return None;
    }
    let cluster = Cluster::start_or_skip().await?;
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: flux-system}}").await.unwrap();
    cluster.apply_path(Path::new(ROOT).join("config/crd")).await.unwrap();
    cluster.apply_path(crd).await.unwrap();
    cluster.apply_path(Path::new(ROOT).join("deploy/rbac.yaml")).await.unwrap();
    for (name, team) in [("shop", "web"), ("cart", "web"), ("ledger", "books")] {
        let object = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": name, "namespace": "flux-system", "labels": {"team": team}},
            "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "x"}},
        });
        cluster.apply_yaml(&object.to_string()).await.unwrap();
    }
    Some(cluster)
}

fn manifests(token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: hook, namespace: flux-system}}
stringData: {{token: {token}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {{name: hook, namespace: flux-system, finalizers: [finalizers.fluxcd.io]}}
spec:
  type: gitlab
  secretRef: {{name: hook}}
  resources:
  - {{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, name: '*', matchLabels: {{team: web}}}}
  - {{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, name: nobody}}
"
    )
}

async fn read(cluster: &Cluster, path: &str) -> anyhow::Result<Value> {
    Ok(cluster.admin().request(http::Request::get(path).body(Vec::new())?).await?)
}

async fn requested(cluster: &Cluster, name: &str) -> anyhow::Result<Option<String>> {
    let object = read(cluster, &format!("{KUSTOMIZE}/{name}")).await?;
    Ok(object["metadata"]["annotations"][REQUESTED_AT].as_str().map(str::to_owned))
}

/// Waits until the objects were asked for, and not at that time.
async fn asked(cluster: &Cluster, names: &[&str], but: Option<&str>) -> String {
    until(&format!("{names:?} to be asked for"), PATIENCE, async || {
        let mut found = String::new();
        for name in names {
            found = requested(cluster, name).await?.with_context(|| format!("{name} is not"))?;
            ensure!(Some(found.as_str()) != but, "{name} is still as before");
        }
        Ok(found)
    })
    .await
    .unwrap()
}

async fn webhook_path(cluster: &Cluster, but: &str) -> String {
    until("the path in the status", PATIENCE, async || {
        let status = read(cluster, &format!("{NOTIFICATION}/hook")).await?["status"].clone();
        let path = status["webhookPath"].as_str().context("none")?.to_owned();
        ensure!(path != but && status["conditions"][0]["status"] == "True", "{status}");
        Ok(path)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_webhook_to_the_annotation_through_every_outage() {
    let Some(cluster) = installed().await else { return };
    cluster.apply_yaml(&manifests("first-token")).await.unwrap();
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let mut server = Server::start(&["--kubeconfig", kubeconfig.to_str().unwrap()]).await;
    let path = webhook_path(&cluster, "").await;
    server.posted(&path, "first-token", 200).await;
    let first = asked(&cluster, &["shop", "cart"], None).await;
    assert_eq!(requested(&cluster, "ledger").await.unwrap(), None);
    assert_eq!(server.post(&path, "wrong").await, 404);

    // What can't ever be ends dead, with its reason where a person looks.
    let view = until("the dead letter", PATIENCE, async || {
        let view = server.view().await;
        ensure!(
            view["triggers"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "dead")),
            "{view:#}"
        );
        Ok(view)
    })
    .await
    .unwrap();
    let dead = view["triggers"].as_array().unwrap().iter().find(|one| one["state"] == "dead").unwrap();
    assert_eq!(dead["object"], "Kustomization/flux-system/nobody");
    assert!(dead["detail"].as_str().unwrap().contains("not found"), "{dead}");
    until("the Event on the Receiver", PATIENCE, async || {
        let list = read(&cluster, "/api/v1/namespaces/flux-system/events").await?;
        let said = list["items"].as_array().is_some_and(|all| {
            all.iter().any(|event| {
                event["reason"] == "ReconciliationRequestFailed" && event["involvedObject"]["kind"] == "Receiver"
            })
        });
        ensure!(said, "{list}");
        Ok(())
    })
    .await
    .unwrap();

    // The API server is away: webhooks are taken, and what they ask for is done once it is back.
    cluster.stop_apiserver().unwrap();
    assert_eq!(server.post(&path, "first-token").await, 200);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert!(server.view().await["triggers"].as_array().unwrap().iter().any(|one| one["state"] == "pending"));
    cluster.start_apiserver().await.unwrap();
    let second = asked(&cluster, &["shop", "cart"], Some(&first)).await;

    // A new process that has never read the Secret can't tell friend from foe: come again.
    cluster.stop_apiserver().unwrap();
    server.process.restart().unwrap();
    server.ready().await;
    assert_eq!(server.post(&path, "first-token").await, 503);
    cluster.start_apiserver().await.unwrap();
    server.posted(&path, "first-token", 200).await;
    asked(&cluster, &["shop", "cart"], Some(&second)).await;

    // Rotation, and `flux reconcile receiver` rather than the wait for the next look.
    cluster.apply_yaml(&manifests("second-token")).await.unwrap();
    let patch = json!({"metadata": {"annotations": {REQUESTED_AT: "now"}}});
    let request = http::Request::patch(format!("{NOTIFICATION}/hook"))
        .header("content-type", "application/merge-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
    cluster.admin().request::<Value>(request).await.unwrap();
    let moved = webhook_path(&cluster, &path).await;
    server.posted(&moved, "second-token", 200).await;
    assert_eq!(server.post(&path, "first-token").await, 404);
    let delete = http::Request::delete(format!("{NOTIFICATION}/hook")).body(Vec::new()).unwrap();
    cluster.admin().request::<Value>(delete).await.unwrap();
    server.posted(&moved, "second-token", 404).await;
    let log = server.process.lines().join("\n");
    for secret in [&path, &moved, "first-token", "second-token"] {
        assert!(!log.contains(secret.trim_start_matches("/hook/")), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_reconciles_in_the_cluster_that_it_is_given() {
    let Some(cluster) = installed().await else { return };
    let kubeconfig = cluster.admin_kubeconfig().unwrap();
    let config = tempfile::tempdir().unwrap();
    let manifests = manifests("token").replace("'*', matchLabels: {team: web}", "shop");
    std::fs::write(config.path().join("hook.yaml"), manifests).unwrap();
    let flags = ["--config", config.path().to_str().unwrap(), "--kubeconfig", kubeconfig.to_str().unwrap()];
    let server = Server::start(&flags).await;
    let path = server.view().await["path"].as_str().unwrap().to_owned();
    assert_eq!(server.post(&path, "token").await, 200);
    asked(&cluster, &["shop"], None).await;
}
