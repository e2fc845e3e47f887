//! The API server goes and comes back; nothing here needs it to be up, and nothing that happened meanwhile is missed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::ensure;
use belfry_cluster::{Cluster, ObjectChange};
use belfry_core::{ConfigKey, announcement::Announcement, config::Document};
use futures::StreamExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use support::{CONFIG, SOON, allowed, install_role, merge, objects, own_cluster, secret, settings, token};

/// Holds the newest list.
fn keep(belfry: &Cluster) -> Arc<Mutex<Option<Arc<Vec<Document>>>>> {
    let newest = Arc::new(Mutex::new(None));
    let (sink, mut lists) = (newest.clone(), Box::pin(belfry.config()));
    tokio::spawn(async move {
        while let Some(list) = lists.next().await {
            *sink.lock().unwrap() = Some(list);
        }
    });
    newest
}

#[tokio::test]
async fn an_api_server_that_is_away_is_waited_for() {
    let Some(cluster) = own_cluster().await else { return };
    let namespace = cluster.namespace("outage").await.unwrap();
    cluster.apply_yaml_in(&namespace, CONFIG).await.unwrap();
    secret(&cluster, &namespace, "chat", "first").await;
    let settings = settings(&cluster).await;

    // It is down when Belfry starts.
    cluster.stop_apiserver().unwrap();
    let belfry = belfry_cluster::connect(&settings).await.unwrap();
    let newest = keep(&belfry);
    let synced = Arc::new(Mutex::new(0));
    let sink = synced.clone();
    belfry.watch_objects(move |change| *sink.lock().unwrap() += u32::from(change == ObjectChange::Synced));
    belfry.release_finalizers();
    let error = belfry.secret(&namespace, "chat", false).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.explain().contains("Connection refused"), "{}", error.explain());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(newest.lock().unwrap().is_none() && *synced.lock().unwrap() == 0 && !belfry.reachable());
    belfry.announce(Announcement {
        object: ConfigKey::alert(&namespace, "on-call"),
        uid: "".into(),
        warning: true,
        reason: "NotificationDispatchFailed",
        message: "said while nobody listened".into(),
        annotations: Default::default(),
    });

    cluster.start_apiserver().await.unwrap();
    allowed(&belfry, &namespace).await;
    testkit::until("everything is known", SOON, || async {
        ensure!(newest.lock().unwrap().as_ref().is_some_and(|list| list.len() == 2));
        ensure!(*synced.lock().unwrap() == 1);
        let events = objects(&cluster, &namespace, "Event").list(&ListParams::default()).await?;
        ensure!(events.items.len() == 1);
        Ok(())
    })
    .await
    .unwrap();
    assert!(belfry.reachable());
    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap().as_deref(), Some("first"));

    // It goes away while Belfry runs.
    cluster.stop_apiserver().unwrap();
    assert!(belfry.secret(&namespace, "other", false).await.unwrap_err().is_unavailable());
    assert!(belfry.secret(&namespace, "chat", true).await.unwrap_err().is_unavailable());
    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap().as_deref(), Some("first"));
    assert!(!belfry.reachable());

    cluster.start_apiserver().await.unwrap();
    merge(&objects(&cluster, &namespace, "Provider"), "chat", json!({ "spec": { "channel": "ops" } })).await;
    objects(&cluster, &namespace, "Alert").delete("on-call", &DeleteParams::default()).await.unwrap();
    testkit::until("what changed is known", SOON, || async {
        let newest = newest.lock().unwrap();
        let values: Vec<_> = newest.iter().flat_map(|list| list.iter()).map(|document| &document.value).collect();
        ensure!(values.len() == 1 && values[0]["spec"]["channel"] == "ops", "{values:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(*synced.lock().unwrap(), 1);
}

/// Anything goes, as with CRDs of another age.
fn lax(plural: &str, kind: &str) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.notification.toolkit.fluxcd.io") },
        "spec": {
            "group": "notification.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{
                "name": "v1beta3", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
    .to_string()
}

#[tokio::test]
async fn missing_definitions_are_waited_for_and_malformed_objects_are_passed_on() {
    let Some(cluster) = testkit::Cluster::start_or_skip().await else { return };
    install_role(&cluster).await.unwrap();
    let settings = settings(&cluster).await;
    let belfry = belfry_cluster::connect(&settings).await.unwrap().rediscover_every(Duration::from_millis(200));
    let newest = keep(&belfry);
    allowed(&belfry, "default").await;
    cluster.apply_yaml(&lax("providers", "Provider")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(newest.lock().unwrap().is_none(), "half of the configuration is none");

    cluster.apply_yaml(&lax("alerts", "Alert")).await.unwrap();
    let api = "apiVersion: notification.toolkit.fluxcd.io/v1beta3";
    let objects = format!(
        "{{{api}, kind: Alert, metadata: {{name: a}}, spec: 5}}\n---\n\
         {{{api}, kind: Alert, metadata: {{name: b}}, spec: {{eventSources: nothing, unknown: [1]}}, status: {{x: 1}}}}\n---\n\
         {{{api}, kind: Provider, metadata: {{name: c}}, spec: {{type: [slack]}}}}\n---\n\
         {{{api}, kind: Provider, metadata: {{name: d}}}}"
    );
    cluster.apply_yaml_in("default", &objects).await.unwrap();
    testkit::until("all are known", SOON, || async {
        let newest = newest.lock().unwrap().clone();
        ensure!(newest.is_some_and(|list| list.len() == 4));
        Ok(())
    })
    .await
    .unwrap();
    let list = newest.lock().unwrap().clone().unwrap();
    assert_eq!(list[0].value["spec"], 5);
    assert_eq!(list[1].value["spec"], json!({ "eventSources": "nothing", "unknown": [1] }));
    assert_eq!(list[1].value.get("status"), None);
    assert_eq!(list[2].value["spec"]["type"], json!(["slack"]));
    assert_eq!(list[3].value.get("spec"), None);
}
