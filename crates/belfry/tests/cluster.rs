//! `belfry serve` in a real cluster, as the ServiceAccount that `deploy/` gives it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::{
    PATIENCE, client, event,
    in_cluster::{KUSTOMIZATIONS, ROOT, Server, installed, kustomization, say},
};
use serde_json::{Value, json};
use testkit::{Answer, Cluster, Sink, until};

fn manifests(address: &str, token: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: hook, namespace: flux-system}}
stringData: {{address: '{address}', headers: 'Authorization: Bearer {token}'}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: hook, namespace: flux-system, finalizers: [finalizers.fluxcd.io]}}
spec: {{type: generic, secretRef: {{name: hook}}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Alert
metadata: {{name: hook, namespace: flux-system}}
spec:
  providerRef: {{name: hook}}
  eventSources: [{{kind: Kustomization, name: '*', namespace: '*'}}]
"
    )
}

fn messages(sink: &Sink) -> Vec<String> {
    sink.received().iter().map(|r| r.json().unwrap()["message"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn arrived(sink: &Sink, message: &str) {
    until(&format!("{message:?} to arrive"), PATIENCE, async || {
        let messages = messages(sink);
        anyhow::ensure!(messages.iter().any(|m| m == message), "only {messages:?} did");
        Ok(())
    })
    .await
    .unwrap();
}

/// The Warnings on our Alert.
async fn warnings(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    let request = http::Request::get("/api/v1/namespaces/flux-system/events").body(Vec::new())?;
    let list: Value = cluster.admin().request(request).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_controllers_post_to_a_destination_through_every_outage() {
    let Some(cluster) = installed().await else { return };
    let sink = Sink::start().unwrap();
    cluster.apply_yaml(&manifests(&sink.url("/secret-path-of-the-hook"), "stale-token-value")).await.unwrap();
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let mut server = Server::start(&kubeconfig).await;
    server.ready().await;
    let probe = AtomicUsize::new(0);
    let post_probe = async || {
        let number = probe.fetch_add(1, Ordering::Relaxed);
        let message = format!("probe {number}");
        assert_eq!(server.post(&event("probe", "info", &message)).await, 202);
        message
    };
    until("the Alert to be in force", PATIENCE, async || {
        post_probe().await;
        anyhow::ensure!(!sink.received().is_empty());
        Ok(())
    })
    .await
    .unwrap();
    // With the last of them, all have arrived: they are about one object.
    let last = post_probe().await;
    arrived(&sink, &last).await;
    assert_eq!(sink.received()[0].header("authorization"), "Bearer stale-token-value");

    // A stale token: the event waits, the Alert says so once, and a new token sends it at once.
    sink.default_answer(Answer::body(401, "text/plain", "who are you, stale-token-value?"));
    sink.forget();
    assert_eq!(server.post(&event("app", "error", "health check failed")).await, 202);
    let warning = until("a Warning on the Alert", PATIENCE, async || {
        let warnings = warnings(&cluster).await?;
        let found = warnings.into_iter().find(|event| event["reason"] == "NotificationDispatchFailed");
        found.ok_or_else(|| anyhow::anyhow!("none yet"))
    })
    .await
    .unwrap();
    assert_eq!(warning["source"]["component"], "notification-controller");
    assert_eq!(warning["involvedObject"]["kind"], "Alert");
    let message = warning["message"].as_str().unwrap();
    assert!(message.starts_with("failed to send notification for Kustomization/flux-system/app: "), "{message}");
    assert!(
        message.contains("401") && !message.contains("stale-token") && !message.contains("secret-path"),
        "{message}"
    );
    sink.default_answer(Answer::Status(204));
    sink.forget();
    cluster.apply_yaml(&manifests(&sink.url("/secret-path-of-the-hook"), "fresh-token-value")).await.unwrap();
    arrived(&sink, "health check failed").await;
    assert!(sink.received().iter().any(|request| request.header("authorization") == "Bearer fresh-token-value"));

    // The API server is away: events are still taken and delivered.
    cluster.stop_apiserver().unwrap();
    assert_eq!(server.post(&event("app", "error", "while the API server was away")).await, 202);
    arrived(&sink, "while the API server was away").await;
    // And taken, even by a new process: what it must read a Secret for waits.
    server.process.restart().unwrap();
    server.ready().await;
    assert_eq!(server.post(&event("app", "error", "to a new process")).await, 202);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!messages(&sink).contains(&"to a new process".to_owned()));
    cluster.start_apiserver().await.unwrap();
    arrived(&sink, "to a new process").await;

    // Deleting objects that carry the peer's finalizer works.
    let api = "/apis/notification.toolkit.fluxcd.io/v1beta3/namespaces/flux-system/providers/hook";
    let delete = http::Request::delete(api).body(Vec::new()).unwrap();
    cluster.admin().request::<Value>(delete).await.unwrap();
    until("the Provider to be gone", PATIENCE, async || {
        let get = http::Request::get(api).body(Vec::new())?;
        match cluster.admin().request::<Value>(get).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();

    let log = server.process.lines().join("\n");
    assert!(!log.contains("token-value"), "a token is in the log");
    assert!(!log.contains("secret-path"), "an address is in the log");
    assert!(log.contains("--concurrent is accepted and has no effect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_select_through_the_object_index() {
    let Some(cluster) = installed().await else { return };
    let shared = Path::new(ROOT).join("../shared/data/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    if !shared.exists() {
        testkit::skip("the Kustomization CRD of Flux is not here");
        return;
    }
    cluster.apply_path(shared).await.unwrap();
    let sink = Sink::start().unwrap();
    let labelled =
        manifests(&sink.url("/"), "x").replace("name: '*', namespace: '*'", "name: '*', matchLabels: {team: web}");
    cluster.apply_yaml(&labelled).await.unwrap();
    for (name, team) in [("shop", "web"), ("ledger", "books")] {
        let object = json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": {"name": name, "namespace": "flux-system", "labels": {"team": team}},
            "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "x"}},
        });
        cluster.apply_yaml(&object.to_string()).await.unwrap();
    }
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let mut server = Server::start(&kubeconfig).await;
    server.ready().await;
    until("the labelled object's event to arrive", PATIENCE, async || {
        let text = format!("{:?}", std::time::Instant::now());
        for name in ["shop", "ledger", "unknown"] {
            anyhow::ensure!(server.post(&event(name, "info", &text)).await == 202);
        }
        anyhow::ensure!(!sink.received().is_empty());
        Ok(())
    })
    .await
    .unwrap();
    for request in sink.received() {
        assert_eq!(request.json().unwrap()["involvedObject"]["name"], "shop");
    }
}

/// A CommitStatus for every Kustomization, to a GitHub of our own.
fn statuses(address: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: git, namespace: flux-system}}
stringData: {{token: token-of-the-git-host}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: git, namespace: flux-system}}
spec: {{type: github, address: '{address}', secretRef: {{name: git}}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {{name: git, namespace: flux-system}}
spec:
  providerRef: {{name: git}}
  prefix: prod
  eventSources: [{{kind: Kustomization, name: '*'}}]
"
    )
}

const COMMIT_STATUS: &str = "/apis/notification.toolkit.fluxcd.io/v1beta1/namespaces/flux-system/commitstatuses/git";

/// Waits until the git host was told this about a commit, last.
async fn told(sink: &Sink, name: &str, commit: &str, state: &str) -> Value {
    let path = format!("/api/v3/repos/org/repo/statuses/{commit}");
    until(&format!("{name} at {commit} to be {state}"), PATIENCE, async || {
        let all: Vec<Value> = sink.received_on(&path).iter().map(|request| request.json().unwrap()).collect();
        let context = format!("prod/kustomization/flux-system/{name}");
        let last = all.into_iter().rfind(|status| status["context"] == *context);
        let last = last.ok_or_else(|| anyhow::anyhow!("{:?}", sink.received()))?;
        anyhow::ensure!(last["state"] == state, "{last}");
        Ok(last)
    })
    .await
    .unwrap()
}

/// The CommitStatus' status once `check` is content with it.
async fn shown(cluster: &Cluster, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, async || {
        let object: Value = cluster.admin().request(http::Request::get(COMMIT_STATUS).body(Vec::new())?).await?;
        anyhow::ensure!(check(&object["status"]), "{:#}", object["status"]);
        Ok(object["status"].clone())
    })
    .await
    .unwrap()
}

fn ready(status: &Value) -> &Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == "Ready").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_alone_is_shown_on_the_git_host_and_the_commit_status_tells_of_it() {
    let Some(cluster) = installed().await else { return };
    let crd = Path::new(ROOT).join("../shared/data/crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    if !crd.exists() {
        return testkit::skip("the Kustomization CRD of Flux is not here");
    }
    cluster.apply_path(crd).await.unwrap();
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::body(201, "application/json", "{}"));
    let [first, second, third, odd] = ["1", "2", "3", "4"].map(|digit| digit.repeat(40));
    let refused = Answer::body(422, "application/json", "{\"message\": \"No commit found for SHA\"}");
    sink.default_answer_on(&format!("/api/v3/repos/org/repo/statuses/{odd}"), refused);
    cluster.apply_yaml(&statuses(&sink.url("/org/repo"))).await.unwrap();
    // It was live before Belfry came, and its event was lost.
    kustomization(&cluster, "app").await;
    say(&cluster, "app", true, "ReconciliationSucceeded", &first).await;
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;
    told(&sink, "app", &first, "success").await;
    assert_eq!(sink.received()[0].header("authorization"), "Bearer token-of-the-git-host");
    let status = shown(&cluster, "it to be ready", |status| status["posted"].is_array()).await;
    assert_eq!((&ready(&status)["status"], &ready(&status)["reason"]), (&json!("True"), &json!("Succeeded")));
    assert_eq!(status["observedGeneration"], 1);
    let posted = &status["posted"][0];
    assert_eq!(posted["context"], "prod/kustomization/flux-system/app");
    assert_eq!((&posted["commit"], &posted["state"]), (&json!(first), &json!("success")));

    // A rollout that an event opens, and no event ends.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut opened = event("app", "info", "new revision");
    opened["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now()));
    opened["metadata"]["kustomize.toolkit.fluxcd.io/revision"] = json!(format!("main@sha1:{second}"));
    opened["involvedObject"]["uid"] = json!("");
    assert_eq!(server.post(&opened).await, 202);
    told(&sink, "app", &second, "pending").await;
    say(&cluster, "app", true, "ReconciliationSucceeded", &second).await;
    let success = told(&sink, "app", &second, "success").await;
    assert_eq!(success["description"], "live");

    // Where there is an event, its words count, though the status comes first.
    kustomization(&cluster, "told").await;
    say(&cluster, "told", true, "ReconciliationSucceeded", &second).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut finished = event("told", "info", "Reconciliation finished in 1s");
    finished["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now()));
    finished["reason"] = json!("ReconciliationSucceeded");
    finished["metadata"] = json!({
        "kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{second}"),
        "kustomize.toolkit.fluxcd.io/commit_status": "update",
    });
    finished["involvedObject"]["uid"] = json!("");
    assert_eq!(server.post(&finished).await, 202);
    let success = told(&sink, "told", &second, "success").await;
    assert_eq!(success["description"], "live: Reconciliation finished in 1s");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    say(&cluster, "app", false, "HealthCheckFailed", &third).await;
    let failure = told(&sink, "app", &third, "failure").await;
    assert!(failure["description"].as_str().unwrap().contains("as seen"), "{failure}");

    // What names no commit, and what the host refuses.
    let mut nameless = event("chart", "info", "new version");
    nameless["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": "6.5.0"});
    assert_eq!(server.post(&nameless).await, 202);
    kustomization(&cluster, "odd").await;
    say(&cluster, "odd", true, "ReconciliationSucceeded", &odd).await;
    let status = shown(&cluster, "the refusal", |status| {
        ready(status)["message"].as_str().is_some_and(|message| message.contains("No commit found"))
            && status["withoutCommit"].is_array()
    })
    .await;
    assert_eq!(status["withoutCommit"], json!(["Kustomization/flux-system/chart"]));
    assert_eq!(ready(&status)["status"], "True");
    assert_eq!(status["posted"][0]["state"], "failure");
    let warning = until("a Warning on the CommitStatus", PATIENCE, async || {
        let found =
            warnings(&cluster).await?.into_iter().find(|event| event["involvedObject"]["kind"] == "CommitStatus");
        found.ok_or_else(|| anyhow::anyhow!("none yet"))
    })
    .await
    .unwrap();
    assert_eq!(warning["involvedObject"]["apiVersion"], "notification.toolkit.fluxcd.io/v1beta1");
    assert_eq!((&warning["type"], &warning["reason"]), (&json!("Warning"), &json!("NotificationDispatchFailed")));
    let metrics = client().get(&server.metrics).send().await.unwrap().text().await.unwrap();
    let counted = r#"belfry_commit_statuses_total{namespace="flux-system",name="git",outcome="rejected"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");

    // A new process posts nothing that is shown, and its status stays what it was.
    let before = sink.received().len();
    server.process.restart().unwrap();
    server.ready().await;
    // Long enough for all to be seen again, and a commit status to settle.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(sink.received().len(), before);
    let gone = http::Request::delete(format!("{KUSTOMIZATIONS}/app")).body(Vec::new()).unwrap();
    cluster.admin().request::<Value>(gone).await.unwrap();
    cluster
        .apply_yaml(&statuses(&sink.url("/org/repo")).replace("name: '*'", "name: '*', namespace: team"))
        .await
        .unwrap();
    let after = shown(&cluster, "the new generation", |status| status["observedGeneration"] == 2).await;
    assert_eq!((&after["posted"], &after["withoutCommit"]), (&status["posted"], &status["withoutCommit"]));

    // Without its Provider it says so.
    let provider = COMMIT_STATUS.replace("v1beta1", "v1beta3").replace("commitstatuses", "providers");
    cluster.admin().request::<Value>(http::Request::delete(provider).body(Vec::new()).unwrap()).await.unwrap();
    let lost = shown(&cluster, "it to miss its Provider", |status| ready(status)["status"] == "False").await;
    assert_eq!(ready(&lost)["reason"], "ProviderNotFound");
    let log = server.process.lines().join("\n");
    assert!(!log.contains("token-of-the-git-host"), "the token is in the log");
}
