//! Two replicas in a real cluster: whichever leads says in the objects' statuses what both did.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::path::Path;

use common::{
    PATIENCE, client,
    in_cluster::{ROOT, Server, installed, kustomization, say},
    on_database,
};
use serde_json::Value;
use testkit::{Answer, Cluster, Postgres, Sink, skip, until};

const OBJECTS: &str = "/apis/notification.toolkit.fluxcd.io";
const MANIFESTS: &str = "
apiVersion: v1
kind: Secret
metadata: {name: git, namespace: flux-system}
stringData: {token: token-of-the-git-host}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: git, namespace: flux-system}
spec: {type: github, address: 'ADDRESS', secretRef: {name: git}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {name: git, namespace: flux-system}
spec:
  providerRef: {name: git}
  prefix: prod
  eventSources: [{kind: Kustomization, name: '*'}]
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: hook, namespace: flux-system}
spec: {type: generic, secretRef: {name: git}, resources: [{kind: Kustomization, name: '*'}]}
";

/// How many commit statuses a replica posted.
async fn posted_by(server: &Server) -> u64 {
    let text = client().get(&server.metrics).send().await.unwrap().text().await.unwrap();
    let counted = r#"belfry_commit_statuses_total{namespace="flux-system",name="git",outcome="delivered"} "#;
    text.lines().find_map(|line| line.strip_prefix(counted)).map_or(0, |count| count.parse().unwrap())
}

/// The status of an object once `check` is content with it.
async fn status(cluster: &Cluster, path: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, async || {
        let request = http::Request::get(format!("{OBJECTS}/{path}")).body(Vec::new())?;
        let object: Value = cluster.admin().request(request).await?;
        anyhow::ensure!(check(&object["status"]), "{:#}", object["status"]);
        Ok(object["status"].clone())
    })
    .await
    .unwrap()
}

const COMMIT_STATUS: &str = "v1beta1/namespaces/flux-system/commitstatuses/git";
const RECEIVER: &str = "v1/namespaces/flux-system/receivers/hook";

/// An object goes live, which one of the replicas tells the git host of; and the CommitStatus tells of that.
async fn live(cluster: &Cluster, n: usize) {
    let name = format!("app-{n}");
    kustomization(cluster, &name).await;
    say(cluster, &name, true, "ReconciliationSucceeded", &format!("{n:040x}")).await;
    status(cluster, COMMIT_STATUS, &name, |status| {
        let context = format!("prod/kustomization/flux-system/{name}");
        status["posted"].as_array().is_some_and(|posted| posted.iter().any(|posted| posted["context"] == *context))
    })
    .await;
}

fn leads(server: &Server) -> bool {
    server.process.lines().iter().any(|line| line.contains("leads by the Lease belfry"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leads_says_what_all_did() {
    let Some(postgres) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let Some(cluster) = installed().await else { return };
    let crd = Path::new(ROOT).join("../shared/data/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    if !crd.exists() {
        return skip("the Kustomization CRD of Flux is not here");
    }
    cluster.apply_path(crd).await.unwrap();
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::body(201, "application/json", "{}"));
    cluster.apply_yaml(&MANIFESTS.replace("ADDRESS", &sink.url("/org/repo"))).await.unwrap();
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let database = postgres.url(&postgres.database().unwrap());
    let mut servers = Vec::new();
    for _ in 0..2 {
        let mut server = Server::start_with(&kubeconfig, &on_database(&database)).await;
        server.ready().await;
        servers.push(server);
    }
    until("one to lead", PATIENCE, async || {
        anyhow::ensure!(servers.iter().any(leads));
        Ok(())
    })
    .await
    .unwrap();
    let leader = servers.iter().position(leads).unwrap();
    // Whose watch comes first is chance: in the end the other has posted some, and the status tells of each.
    let mut n = 1;
    while posted_by(&servers[1 - leader]).await == 0 || posted_by(&servers[leader]).await == 0 {
        assert!(n < 100, "one of them posts nothing");
        live(&cluster, n).await;
        n += 1;
    }
    assert!(!leads(&servers[1 - leader]));
    let path = status(&cluster, RECEIVER, "its path", |status| status["webhookPath"].is_string()).await;
    // The leader ends, and the other goes on from there.
    servers.remove(leader).process.terminate(PATIENCE).await.unwrap();
    live(&cluster, n).await;
    assert!(leads(&servers[0]));
    let change = MANIFESTS.replace("ADDRESS", &sink.url("/org/repo")).replace("type: generic", "type: github");
    cluster.apply_yaml(&change).await.unwrap();
    let after = status(&cluster, RECEIVER, "the change", |status| status["observedGeneration"] == 2).await;
    assert_eq!(after["conditions"][0]["status"], path["conditions"][0]["status"]);
}
