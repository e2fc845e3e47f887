//! Receivers' statuses, and requests for reconciliation, as the ServiceAccount of `deploy/` in a real cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use belfry_cluster::{Cluster, Leadership, ReceiverReport, ReceiverState, TriggerError};
use belfry_core::{ConfigKey, ObjectKey, Time};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use support::{SOON, allowed, belfry, cluster, merge, objects, own_cluster, shared};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

const RECEIVER: &str = "
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: { name: hook, finalizers: [finalizers.fluxcd.io] }
spec: { type: github, secretRef: { name: hook }, resources: [{ kind: GitRepository, name: app }] }
";

async fn report(receivers: &Api<DynamicObject>, namespace: &str, state: ReceiverState) -> ReceiverReport {
    let found = receivers.get("hook").await.unwrap();
    ReceiverReport {
        key: ConfigKey::receiver(namespace, "hook"),
        uid: found.metadata.uid.clone().unwrap().as_str().into(),
        generation: found.metadata.generation.unwrap(),
        interval: "10m".into(),
        requested_at: found.metadata.annotations.and_then(|all| all.get("reconcile.fluxcd.io/requestedAt").cloned()),
        state,
    }
}

type Reports = watch::Receiver<Arc<Vec<ReceiverReport>>>;

fn keep(belfry: &Cluster, reports: Reports, leadership: Leadership) -> JoinHandle<()> {
    tokio::spawn(belfry.keep_statuses(reports, leadership))
}

/// The status once `check` is content with it.
async fn status(receivers: &Api<DynamicObject>, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    testkit::until(what, SOON, || async {
        let status = receivers.get("hook").await?.data["status"].clone();
        ensure!(check(&status), "{status:#}");
        Ok(status)
    })
    .await
    .unwrap()
}

fn conditions(status: &Value) -> Vec<(String, String, String, String)> {
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut found: Vec<_> = all
        .iter()
        .map(|one| (text(one, "type"), text(one, "status"), text(one, "reason"), text(one, "message")))
        .collect();
    found.sort();
    found
}

fn owned(all: &[(&str, &str, &str, &str)]) -> Vec<(String, String, String, String)> {
    all.iter().map(|(a, b, c, d)| ((*a).into(), (*b).into(), (*c).into(), (*d).into())).collect()
}

#[tokio::test]
async fn the_status_is_the_peers() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("status").await.unwrap();
    cluster.apply_yaml_in(&namespace, RECEIVER).await.unwrap();
    let receivers = objects(cluster, &namespace, "Receiver");
    let belfry = belfry(cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    let (sender, reports) = watch::channel(Arc::new(Vec::new()));
    let keeper = keep(&belfry, reports, Leadership::sole());
    let say = async |state| {
        sender.send_replace(Arc::new(vec![report(&receivers, &namespace, state).await]));
    };

    let no_token = "unable to read token from secret 'x/hook' error: Secret \"hook\" not found";
    say(ReceiverState::NoToken { reason: "TokenNotFound", message: no_token.into() }).await;
    let found = status(&receivers, "the missing token", |status| !conditions(status).is_empty()).await;
    let retries = ("Reconciling", "True", "ProgressingWithRetry", "Reconciliation in progress");
    assert_eq!(conditions(&found), owned(&[("Ready", "False", "TokenNotFound", no_token), retries]));
    assert_eq!((&found["observedGeneration"], &found["webhookPath"]), (&json!(-1), &Value::Null));

    let path = format!("/hook/{}", "a".repeat(64));
    // Somebody else's condition stays where it is.
    let other = json!({"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut all = found["conditions"].as_array().unwrap().clone();
    all.push(other);
    let patch = Patch::Merge(json!({"status": {"conditions": all}}));
    receivers.patch_status("hook", &PatchParams::default(), &patch).await.unwrap();
    say(ReceiverState::Ready { path: path.clone() }).await;
    let found = status(&receivers, "the path", |status| status["webhookPath"] == path.as_str()).await;
    let ready = format!("Receiver initialized for path: {path}");
    assert_eq!(conditions(&found), owned(&[("Other", "True", "R", ""), ("Ready", "True", "Succeeded", &ready)]));
    assert_eq!(found["observedGeneration"], 1);

    // The same report again writes nothing.
    let version = receivers.get("hook").await.unwrap().metadata.resource_version;
    say(ReceiverState::Ready { path: path.clone() }).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(receivers.get("hook").await.unwrap().metadata.resource_version, version);

    // `flux reconcile receiver`, then a change that can't work, then a suspension.
    merge(&receivers, "hook", json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}})).await;
    say(ReceiverState::Ready { path: path.clone() }).await;
    status(&receivers, "the handled request", |status| status["lastHandledReconcileAt"] == "now").await;
    merge(&receivers, "hook", json!({"spec": {"resourceFilter": "req.x"}})).await;
    say(ReceiverState::Stalled {
        reason: "InvalidCELExpression",
        message: "invalid resourceFilter expression: no".into(),
    })
    .await;
    let found = status(&receivers, "the stall", |status| status["observedGeneration"] == 2).await;
    let why = "Reconciliation failed terminally due to configuration error: invalid resourceFilter expression: no";
    assert_eq!(
        conditions(&found)[1..],
        owned(&[("Ready", "False", "InvalidCELExpression", why), ("Stalled", "True", "InvalidCELExpression", why)])
    );
    assert_eq!(found["webhookPath"], path.as_str(), "as with the peer, it stays");
    merge(&receivers, "hook", json!({"spec": {"suspend": true}})).await;
    say(ReceiverState::Suspended).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(receivers.get("hook").await.unwrap().data["status"], found);

    let events = objects(cluster, &namespace, "Event");
    testkit::until("the Events", SOON, || async {
        let all = events.list(&ListParams::default()).await?;
        let said = |reason: &str, message: &str| {
            all.items.iter().any(|event| event.data["reason"] == reason && event.data["message"] == message)
        };
        ensure!(said("Failed", no_token) && said("InvalidCELExpression", why));
        ensure!(said("Succeeded", "Reconciliation finished, next run in 10m"));
        ensure!(
            all.items
                .iter()
                .all(|event| event.data["involvedObject"]["apiVersion"] == "notification.toolkit.fluxcd.io/v1")
        );
        Ok(())
    })
    .await
    .unwrap();
    keeper.abort();
}

#[tokio::test]
async fn only_who_leads_writes_and_who_comes_to_lead_writes_what_is_due() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("leads").await.unwrap();
    cluster.apply_yaml_in(&namespace, RECEIVER).await.unwrap();
    let receivers = objects(cluster, &namespace, "Receiver");
    let belfry = belfry(cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    let now = |path: &str| ReceiverState::Ready { path: path.to_owned() };
    let say = async |says: &watch::Sender<_>, path: &str| {
        says.send_replace(Arc::new(vec![report(&receivers, &namespace, now(path)).await]));
    };
    let shows = async |path: &str| {
        status(&receivers, path, |status| {
            assert!(!status["webhookPath"].as_str().unwrap_or_default().starts_with("/never"), "{status}");
            status["webhookPath"] == path
        })
        .await
    };
    let hour = || Some(Instant::now() + std::time::Duration::from_secs(3600));
    let replica = || {
        let (leads, led) = watch::channel(None);
        let (says, reports) = watch::channel(Arc::new(Vec::new()));
        (leads, says, keep(&belfry, reports, Leadership::until(led)))
    };
    let (first, second) = (replica(), replica());
    first.0.send_replace(hour());
    say(&second.1, "/never/1").await;
    say(&first.1, "/first").await;
    shows("/first").await;
    // Its time is over, and nobody has told it.
    first.0.send_replace(Some(Instant::now()));
    say(&first.1, "/never/2").await;
    say(&second.1, "/second").await;
    second.0.send_replace(hour());
    shows("/second").await;
    first.0.send_replace(None);
    say(&second.1, "/again").await;
    shows("/again").await;
    // And back: what it had to say meanwhile is due now.
    second.0.send_replace(None);
    say(&second.1, "/never/3").await;
    say(&first.1, "/back").await;
    first.0.send_replace(hour());
    shows("/back").await;
    // An election that is over ends it.
    drop(second.0);
    second.2.await.unwrap();
    first.2.abort();
}

fn kustomization(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey {
        cluster: String::new(),
        group: "kustomize.toolkit.fluxcd.io".into(),
        kind: "Kustomization".into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

async fn asked(api: &Api<DynamicObject>, name: &str) -> anyhow::Result<String> {
    let annotations = api.get(name).await?.metadata.annotations.context("no annotations")?;
    annotations.get("reconcile.fluxcd.io/requestedAt").cloned().context("not asked")
}

async fn never(belfry: &Cluster, object: &ObjectKey) -> String {
    match belfry.request_reconciliation(object, Time(0)).await {
        Err(TriggerError::Never(why)) => why,
        other => panic!("{object}: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_one_annotation_and_says_when_it_never_works() {
    let Some(cluster) = own_cluster().await else { return };
    let crd = shared("crds/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    if !crd.exists() {
        return testkit::skip("the Kustomization CRD of Flux is not here");
    }
    cluster.apply_path(crd).await.unwrap();
    let namespace = cluster.namespace("trigger").await.unwrap();
    let app = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": "app", "annotations": {"other": "stays"}},
        "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "x"}},
    });
    cluster.apply_yaml_in(&namespace, &app.to_string()).await.unwrap();
    let api = objects(&cluster, &namespace, "Kustomization");
    let belfry = belfry(&cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    let object = kustomization(&namespace, "app");
    testkit::until("the kind to be served", SOON, || async {
        Ok(belfry.request_reconciliation(&object, Time(1_767_225_600_000_001)).await?)
    })
    .await
    .unwrap();
    assert_eq!(asked(&api, "app").await.unwrap(), "2026-01-01T00:00:00.000001Z");
    let before = api.get("app").await.unwrap().metadata;
    assert_eq!(before.annotations.unwrap()["other"], "stays");
    // Once more, as after a crash: nothing changes, so nobody reconciles twice.
    belfry.request_reconciliation(&object, Time(1_767_225_600_000_001)).await.unwrap();
    assert_eq!(api.get("app").await.unwrap().metadata.resource_version, before.resource_version);

    assert!(never(&belfry, &kustomization(&namespace, "nobody")).await.contains("not found"));
    for (group, kind, said) in [
        ("kustomize.toolkit.fluxcd.io", "Bell", "doesn't serve Bell"),
        ("bells.example.com", "Kustomization", "doesn't serve Kustomization"),
        ("notification.toolkit.fluxcd.io/../..", "Alert", "no object can have that group"),
        ("", "Secret", "no object can have that group"),
        ("apiextensions.k8s.io", "CustomResourceDefinition", ""),
    ] {
        let object = ObjectKey { group: group.into(), kind: kind.into(), ..kustomization(&namespace, "app") };
        let why = never(&belfry, &object).await;
        assert!(why.contains(said), "{group} {kind}: {why}");
    }
    let odd = ObjectKey { name: "../app".into(), ..object.clone() };
    never(&belfry, &odd).await;

    // The role lacks a rule: final, and said so.
    let role: Api<DynamicObject> = Api::all_with(
        cluster.admin(),
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRole",
        )),
    );
    let rules = role.get("belfry").await.unwrap().data["rules"].clone();
    merge(&role, "belfry", json!({"rules": []})).await;
    let why = testkit::until("the API server to forbid it", SOON, || async {
        match belfry.request_reconciliation(&object, Time(5)).await {
            Err(TriggerError::Never(why)) => Ok(why),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await
    .unwrap();
    assert!(why.contains("forbid"), "{why}");
    merge(&role, "belfry", json!({"rules": rules})).await;

    cluster.stop_apiserver().unwrap();
    assert!(matches!(belfry.request_reconciliation(&object, Time(6)).await, Err(TriggerError::Later(_))));
    cluster.start_apiserver().await.unwrap();
    testkit::until("it to work again", SOON, || async { Ok(belfry.request_reconciliation(&object, Time(7)).await?) })
        .await
        .unwrap();
}
