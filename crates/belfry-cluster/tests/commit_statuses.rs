//! CommitStatuses as the ServiceAccount of `deploy/` sees and writes them in a real cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::ensure;
use belfry_api::PostedStatus;
use belfry_cluster::{Cluster, CommitStatusReport, CommitStatusState, Leadership};
use belfry_core::ConfigKey;
use futures::StreamExt as _;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject},
};
use serde_json::{Value, json};
use support::{CONFIG, NAMESPACE, SOON, allowed, belfry, cluster, definitions, install_role, merge, objects};
use tokio::{sync::watch, task::JoinHandle};

const STATUS: &str = "
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: { name: git }
spec: { providerRef: { name: git }, prefix: prod, eventSources: [{ kind: Kustomization, name: '*' }] }
";

async fn report(api: &Api<DynamicObject>, namespace: &str, state: CommitStatusState) -> CommitStatusReport {
    let found = api.get("git").await.unwrap().metadata;
    CommitStatusReport {
        key: ConfigKey::commit_status(namespace, "git"),
        uid: found.uid.unwrap().as_str().into(),
        generation: found.generation.unwrap(),
        state,
        conflict: None,
        posted: Vec::new(),
        commits: BTreeMap::new(),
    }
}

fn shown(second: usize) -> PostedStatus {
    PostedStatus {
        context: "prod/kustomization/apps/app".into(),
        commit: "7d8b790e325ffa0885be99788a08f4ae67d382a5".into(),
        state: "success".into(),
        time: format!("2026-01-01T00:00:{second:02}Z"),
    }
}

/// The status once `check` is content with it.
async fn status(api: &Api<DynamicObject>, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    testkit::until(what, SOON, || async {
        let status = api.get("git").await?.data["status"].clone();
        ensure!(check(&status), "{status:#}");
        Ok(status)
    })
    .await
    .unwrap()
}

fn keep(belfry: &Cluster, reports: watch::Receiver<Arc<Vec<Arc<CommitStatusReport>>>>) -> JoinHandle<()> {
    tokio::spawn(belfry.keep_statuses(reports, Leadership::sole()))
}

#[tokio::test]
async fn a_status_is_written_when_it_changes_and_not_in_a_hurry() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("statuses").await.unwrap();
    cluster.apply_yaml_in(&namespace, STATUS).await.unwrap();
    let api = objects(cluster, &namespace, "CommitStatus");
    let belfry = belfry(cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    let ready = |remarks| CommitStatusState::Ready { remarks };
    let first = report(&api, &namespace, ready(None)).await;
    let (sender, reports) = watch::channel(Arc::new(vec![Arc::new(first.clone())]));
    let task = keep(&belfry, reports);
    let found = status(&api, "it to be ready", |status| status["observedGeneration"] == 1).await;
    let condition = &found["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Ready"), &json!("True")));
    assert_eq!(condition["reason"], "Succeeded");

    // A burst: one after the other, hundreds in three seconds.
    let watched = tokio::spawn({
        let api = api.clone();
        async move {
            let mut versions = Vec::new();
            for _ in 0..60 {
                let version = api.get("git").await.unwrap().metadata.resource_version.unwrap();
                if versions.last() != Some(&version) {
                    versions.push(version);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            versions.len() - 1
        }
    });
    for i in 0..250 {
        let mut now = CommitStatusReport { posted: vec![shown(i % 50)], ..first.clone() };
        now.posted[0].state = format!("{i}");
        sender.send_replace(Arc::new(vec![Arc::new(now)]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let writes = watched.await.unwrap();
    assert!((1..=5).contains(&writes), "{writes} writes in three seconds");
    status(&api, "the last to be there", |status| status["posted"][0]["state"] == "249").await;

    // Then nothing: a status that is as it should be isn't written.
    let before = api.get("git").await.unwrap().metadata.resource_version;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.get("git").await.unwrap().metadata.resource_version, before);

    // A new process knows nothing, and empties nothing; somebody else's mark on the status stays.
    let with_mark = json!({"status": {"conditions": [{
        "type": "Mine", "status": "True", "reason": "So", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    task.abort();
    api.patch_status("git", &Default::default(), &kube::api::Patch::Merge(with_mark)).await.unwrap();
    let refused = Some(vec!["the git host refused it".to_owned()]);
    let commits = [("HelmRelease/apps/chart".to_owned(), false)].into();
    let conflict = Some("CommitStatus/apps/other does the same".to_owned());
    let later = CommitStatusReport { commits, conflict, ..report(&api, &namespace, ready(refused)).await };
    sender.send_replace(Arc::new(vec![Arc::new(later)]));
    let task = keep(&belfry, sender.subscribe());
    let found = status(&api, "the objects without a commit", |status| status["withoutCommit"].is_array()).await;
    assert_eq!(found["posted"][0]["state"], "249");
    let types: Vec<&Value> = found["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!(types, ["Mine", "Ready", "Conflict"]);
    assert!(found["conditions"][1]["message"].as_str().unwrap().contains("the git host refused it"), "{found}");

    // What is known of another generation, or of another object of that name, is not said of this one.
    let old = report(&api, &namespace, ready(Some(vec!["old news".into()]))).await;
    merge(&api, "git", json!({"spec": {"prefix": "stage"}})).await;
    sender.send_replace(Arc::new(vec![Arc::new(old)]));
    api.delete("git", &DeleteParams::default()).await.unwrap();
    cluster.apply_yaml_in(&namespace, STATUS).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.get("git").await.unwrap().data["status"], json!({"observedGeneration": -1}), "the CRD's own");
    let failed = CommitStatusState::Failed { reason: "ProviderNotFound", message: "there is none".into() };
    let now = report(&api, &namespace, failed).await;
    sender.send_replace(Arc::new(vec![Arc::new(now)]));
    let found = status(&api, "it to fail", |status| status["observedGeneration"] == 1).await;
    assert_eq!(found["conditions"][0]["reason"], "ProviderNotFound");
    assert_eq!(found["conditions"][0]["status"], "False");
    task.abort();
}

#[tokio::test]
async fn with_fluxs_crds_alone_there_is_a_configuration_all_the_same() {
    let Some(cluster) = testkit::Cluster::start_or_skip().await else { return };
    let Some(all) = definitions().unwrap() else { return };
    let (ours, fluxs): (Vec<_>, Vec<_>) = all.into_iter().partition(|(name, _)| name.starts_with("commitstatuses"));
    for (_, yaml) in fluxs {
        cluster.apply_yaml(&yaml).await.unwrap();
    }
    install_role(&cluster).await.unwrap();
    cluster.apply_yaml_in(NAMESPACE, CONFIG).await.unwrap();
    let belfry = belfry(&cluster, NAMESPACE).await.rediscover_every(Duration::from_millis(300));
    let mut lists = Box::pin(belfry.config());
    let mut next = async || tokio::time::timeout(SOON, lists.next()).await.expect("no list came").unwrap().len();
    assert_eq!(next().await, 2);
    // And when ours comes, its objects are there without a restart.
    cluster.apply_yaml(&ours[0].1).await.unwrap();
    cluster.apply_yaml_in(NAMESPACE, STATUS).await.unwrap();
    assert_eq!(next().await, 3);

    // A status whose API server is away, and comes back.
    let api = objects(&cluster, NAMESPACE, "CommitStatus");
    let first = report(&api, NAMESPACE, CommitStatusState::Ready { remarks: None }).await;
    let (sender, reports) = watch::channel(Arc::new(Vec::new()));
    let task = keep(&belfry, reports);
    sender.send_replace(Arc::new(vec![Arc::new(first.clone())]));
    status(&api, "it to be ready", |status| status["observedGeneration"] == 1).await;
    cluster.stop_apiserver().unwrap();
    sender.send_replace(Arc::new(vec![Arc::new(CommitStatusReport { posted: vec![shown(1)], ..first })]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.start_apiserver().await.unwrap();
    status(&api, "what happened meanwhile", |status| status["posted"][0]["state"] == "success").await;
    task.abort();
}
