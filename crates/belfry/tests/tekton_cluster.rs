//! Tekton runs in a real cluster: the whole process, with the ServiceAccount and role of `deploy/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use common::{
    PATIENCE, client,
    in_cluster::{KUSTOMIZATIONS, ROOT, Server, installed, kustomization, say},
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use testkit::{Cluster, until};

/// A cluster with the CRDs of Flux and Tekton, and a namespace for pipelines.
async fn with_tekton() -> Option<Cluster> {
    let cluster = installed().await?;
    for file in [
        "kustomize.toolkit.fluxcd.io_kustomizations",
        "source.toolkit.fluxcd.io_gitrepositories",
        "tekton-customrun",
        "tekton-run-v1alpha1",
    ] {
        let crd = Path::new(ROOT).join(format!("../shared/data/crds/{file}.yaml"));
        if !crd.exists() {
            testkit::skip("the CRDs of Flux and Tekton are not here");
            return None;
        }
        cluster.apply_path(crd).await.unwrap();
    }
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: ci}}").await.unwrap();
    Some(cluster)
}

/// Lets a ServiceAccount of pipelines get some Kustomizations.
async fn allow(cluster: &Cluster, account: &str, names: &[&str]) {
    let rules = json!([{
        "apiGroups": ["kustomize.toolkit.fluxcd.io"], "resources": ["kustomizations"], "resourceNames": names, "verbs": ["get"],
    }]);
    let metadata = json!({ "name": account, "namespace": "flux-system" });
    let api = "rbac.authorization.k8s.io";
    let role = json!({ "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata, "rules": rules });
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": api, "kind": "Role", "name": account },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": "ci" }],
    });
    for object in [role, binding] {
        cluster.apply_yaml(&object.to_string()).await.unwrap();
    }
}

async fn run(cluster: &Cluster, name: &str, account: &str, params: Value) {
    let params = params.as_object().unwrap().iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let object = json!({
        "apiVersion": "tekton.dev/v1beta1", "kind": "CustomRun", "metadata": { "name": name, "namespace": "ci" },
        "spec": {
            "customRef": { "apiVersion": "belfry.dev/v1alpha1", "kind": "FluxDeploymentWait" },
            "serviceAccountName": account, "params": params.collect::<Vec<_>>(),
        },
    });
    cluster.apply_yaml(&object.to_string()).await.unwrap();
}

async fn status(cluster: &Cluster, path: &str) -> Result<Value> {
    let get = http::Request::get(format!("/apis/tekton.dev/{path}")).body(Vec::new())?;
    Ok(cluster.admin().request::<Value>(get).await?["status"].take())
}

async fn ends(cluster: &Cluster, name: &str, word: &str, reason: &str) -> Value {
    until_it_is(cluster, &format!("v1beta1/namespaces/ci/customruns/{name}"), word, reason).await
}

async fn until_it_is(cluster: &Cluster, path: &str, word: &str, reason: &str) -> Value {
    until(&format!("{path} to be {word}/{reason}"), PATIENCE, async || {
        let status = status(cluster, path).await?;
        let condition = &status["conditions"][0];
        ensure!(condition["status"] == word && condition["reason"] == reason, "{status}");
        Ok(status)
    })
    .await
    .unwrap()
}

fn result<'r>(status: &'r Value, name: &str) -> &'r str {
    let results = status["results"].as_array().unwrap();
    results.iter().find(|result| result["name"] == name).and_then(|result| result["value"].as_str()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_see_what_their_service_accounts_may_get() {
    let Some(cluster) = with_tekton().await else { return };
    let commit = "f".repeat(40);
    for name in ["app", "web"] {
        kustomization(&cluster, name).await;
    }
    allow(&cluster, "builder", &["app"]).await;
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;

    let named = json!({ "revision": commit, "objects": "Kustomization/flux-system/app" });
    run(&cluster, "named", "builder", named.clone()).await;
    run(&cluster, "any", "builder", json!({ "revision": commit })).await;
    run(&cluster, "nobody", "default", json!({ "revision": commit })).await;
    ends(&cluster, "named", "Unknown", "Waiting").await;
    run(&cluster, "refused", "default", named).await;
    let refused = ends(&cluster, "refused", "False", "NotPermitted").await;
    let message = "ServiceAccount ci/default may not get Kustomization/flux-system/app";
    assert_eq!(refused["conditions"][0]["message"], message);

    // One that the accounts may not get fails.
    say(&cluster, "web", false, "HealthCheckFailed", &commit).await;
    let posted = common::event("web", "error", "web is broken");
    assert_eq!(server.post(&with_revision(posted, "HealthCheckFailed", &commit)).await, 202);
    let says = "ServiceAccount ci/default may get none of the objects yet";
    until("nobody to be told", PATIENCE, async || {
        let nobody = status(&cluster, "v1beta1/namespaces/ci/customruns/nobody").await?;
        ensure!(nobody["conditions"][0]["message"] == says, "{nobody}");
        ensure!(!nobody.to_string().contains("web"), "{nobody}");
        Ok(())
    })
    .await
    .unwrap();

    say(&cluster, "app", true, "ReconciliationSucceeded", &commit).await;
    let posted = common::event("app", "info", "Reconciliation finished in 1s");
    assert_eq!(server.post(&with_revision(posted, "ReconciliationSucceeded", &commit)).await, 202);
    for name in ["named", "any"] {
        let done = ends(&cluster, name, "True", "ReconciliationSucceeded").await;
        assert_eq!(result(&done, "object"), "Kustomization/flux-system/app");
        assert_eq!(result(&done, "revision"), format!("main@sha1:{commit}"));
        assert!(!done.to_string().contains("web"), "{done}");
    }
}

/// The older event store's walk-through.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_about_no_object_decides_for_who_may_hear_it() {
    let Some(cluster) = with_tekton().await else { return };
    let rules = json!([{
        "apiGroups": ["belfry.dev"], "resources": ["clusters"], "resourceNames": ["local"], "verbs": ["get", "create"],
    }]);
    let api = "rbac.authorization.k8s.io";
    let metadata = json!({ "name": "walker" });
    for object in [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "walker", "namespace": "ci" } }),
        json!({ "apiVersion": format!("{api}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": rules }),
        json!({
            "apiVersion": format!("{api}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": api, "kind": "ClusterRole", "name": "walker" },
            "subjects": [{ "kind": "ServiceAccount", "name": "walker", "namespace": "ci" }],
        }),
    ] {
        cluster.apply_yaml(&object.to_string()).await.unwrap();
    }
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;
    let asked = TokenRequestSpec { audiences: vec!["belfry".to_owned()], ..TokenRequestSpec::default() };
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin(), "ci");
    let asked = TokenRequest { spec: asked, ..TokenRequest::default() };
    let made = accounts.create_token_request("walker", &PostParams::default(), &asked).await.unwrap();
    let token = made.status.unwrap().token;

    for (version, kind) in [("v1beta1", "CustomRun"), ("v1alpha1", "Run")] {
        for (name, reason, status, ending) in [
            ("a", "BuildFailed", "False", "ReconciliationFailed"),
            ("b", "ReconciliationSucceeded", "True", "ReconciliationSucceeded"),
        ] {
            let (name, plural) = (format!("{name}-{version}"), format!("{}s", kind.to_lowercase()));
            let reference = if kind == "Run" { "ref" } else { "customRef" };
            let object = json!({
                "apiVersion": format!("tekton.dev/{version}"), "kind": kind,
                "metadata": { "name": name, "namespace": "ci" },
                "spec": {
                    reference: { "apiVersion": "github.com/janakerman/flux-event-store/v0", "kind": "FluxDeploymentWait" },
                    "serviceAccountName": "walker", "params": [{ "name": "revision", "value": name }],
                },
            });
            cluster.apply_yaml(&object.to_string()).await.unwrap();
            let ends = async |word: &str, reason: &str| {
                until_it_is(&cluster, &format!("{version}/namespaces/ci/{plural}/{name}"), word, reason).await
            };
            ends("Unknown", "Waiting").await;
            let body =
                json!({ "metadata": { "revision": name }, "timestamp": "2021-05-30T15:04:05Z", "reason": reason });
            let post = client().post(format!("{}/events", server.api)).bearer_auth(&token).json(&body).send();
            assert_eq!(post.await.unwrap().status().as_u16(), 202);
            let done = ends(status, ending).await;
            assert_eq!((result(&done, "revision"), result(&done, "reason")), (&*name, reason));
            let message = done["conditions"][0]["message"].as_str().unwrap();
            assert!(message.starts_with("the revision "), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let Some(cluster) = with_tekton().await else { return };
    let commit = "e".repeat(40);
    kustomization(&cluster, "app").await;
    allow(&cluster, "builder", &["app"]).await;
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let mut server = Server::start(&kubeconfig).await;
    server.ready().await;
    run(&cluster, "wait", "builder", json!({ "revision": commit, "objects": "Kustomization/flux-system/app" })).await;
    let before = ends(&cluster, "wait", "Unknown", "Waiting").await;
    server.process.kill().unwrap();
    // No event is left to tell of it.
    say(&cluster, "app", true, "ReconciliationSucceeded", &commit).await;
    let _server = Server::start(&kubeconfig).await;
    let done = ends(&cluster, "wait", "True", "ReconciliationSucceeded").await;
    assert_eq!(done["startTime"], before["startTime"]);
    assert_eq!(done["extraFields"]["asked"], before["extraFields"]["asked"]);
}

/// Writes what a Kustomization's status says, which it has said for so long.
async fn fails(cluster: &Cluster, reason: &str, commit: &str, since: Duration) {
    let at = jiff::Timestamp::now() - since;
    let status = json!({
        "observedGeneration": 1, "lastAttemptedRevision": format!("main@sha1:{commit}"),
        "conditions": [{
            "type": "Ready", "status": "False", "reason": reason, "message": "as seen",
            "observedGeneration": 1, "lastTransitionTime": format!("{at:.0}"),
        }],
    });
    let patch = http::Request::patch(format!("{KUSTOMIZATIONS}/app/status"))
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "status": status }).to_string().into_bytes());
    cluster.admin().request::<Value>(patch.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_ends_one_attempt_however_often_it_is_told() {
    let Some(cluster) = with_tekton().await else { return };
    let commit = "d".repeat(40);
    kustomization(&cluster, "app").await;
    allow(&cluster, "builder", &["app"]).await;
    let mut server = Server::start(&cluster.kubeconfig_for("flux-system", "belfry").await.unwrap()).await;
    server.ready().await;
    run(&cluster, "wait", "builder", json!({ "revision": commit, "objects": "Kustomization/flux-system/app" })).await;
    let retries = http::Request::patch("/apis/tekton.dev/v1beta1/namespaces/ci/customruns/wait")
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "spec": { "retries": 1 } }).to_string().into_bytes());
    cluster.admin().request::<Value>(retries.unwrap()).await.unwrap();
    ends(&cluster, "wait", "Unknown", "Waiting").await;
    fails(&cluster, "HealthCheckFailed", &commit, Duration::from_secs(600)).await;
    ends(&cluster, "wait", "Unknown", "Retrying").await;
    // Its event, which comes when the status was seen; then Flux tries again.
    let told = |severity: &str, reason: &str, ago: u64| {
        let mut event = with_revision(common::event("app", severity, "as told"), reason, &commit);
        event["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now() - Duration::from_secs(ago)));
        event
    };
    for event in [told("error", "HealthCheckFailed", 599), told("info", "Progressing", 60)] {
        assert_eq!(server.post(&event).await, 202);
    }
    // Another run shows that all that was taken in.
    let after = json!({ "revision": commit, "objects": "Kustomization/flux-system/app", "timeout": "1s" });
    run(&cluster, "after", "builder", after).await;
    ends(&cluster, "after", "False", "ReconciliationFailed").await;
    assert_eq!(
        status(&cluster, "v1beta1/namespaces/ci/customruns/wait").await.unwrap()["conditions"][0]["reason"],
        "Retrying"
    );
    fails(&cluster, "BuildFailed", &commit, Duration::ZERO).await;
    // No event tells of this one.
    let done = ends(&cluster, "wait", "False", "ReconciliationFailed").await;
    assert_eq!(done["retriesStatus"].as_array().unwrap().len(), 1);
    assert_eq!(result(&done, "reason"), "BuildFailed");
}

fn with_revision(mut event: Value, reason: &str, commit: &str) -> Value {
    event["timestamp"] = json!(format!("{:.0}", jiff::Timestamp::now()));
    event["reason"] = json!(reason);
    event["metadata"] = json!({ "kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}") });
    event["involvedObject"]["uid"] = json!("");
    event
}
