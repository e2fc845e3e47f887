//! Providers and Alerts, as a real API server tells of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::{pin::Pin, sync::Arc, time::Duration};

use belfry_core::config::Document;
use futures::{Stream, StreamExt};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use support::{CONFIG, SOON, belfry, cluster, merge, objects};

type Lists = Pin<Box<dyn Stream<Item = Arc<Vec<Document>>> + Send>>;

async fn next(lists: &mut Lists) -> Arc<Vec<Document>> {
    tokio::time::timeout(SOON, lists.next()).await.expect("no list came").expect("the stream ended")
}

fn names(list: &[Document]) -> Vec<&str> {
    list.iter().map(|document| document.value["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_first_list_is_complete_and_each_change_gives_another() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("config").await.unwrap();
    cluster.apply_yaml_in(&namespace, CONFIG).await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    let mut lists: Lists = Box::pin(belfry.config());

    let list = next(&mut lists).await;
    assert_eq!(names(&list), ["on-call", "chat"]);
    let Document { origin, value } = &list[1];
    assert_eq!(origin, "");
    assert_eq!(
        (&value["kind"], &value["apiVersion"]),
        (&json!("Provider"), &json!("notification.toolkit.fluxcd.io/v1beta3"))
    );
    assert_eq!(value["spec"], json!({ "type": "slack", "secretRef": { "name": "chat-url" } }));
    assert_eq!(value["metadata"]["generation"], 1);
    assert!(value["metadata"]["uid"].is_string());
    for trimmed in ["managedFields", "resourceVersion", "annotations"] {
        assert_eq!(value["metadata"].get(trimmed), None, "{trimmed}");
    }

    merge(&objects(cluster, &namespace, "Provider"), "chat", json!({ "spec": { "channel": "ops" } })).await;
    let changed = next(&mut lists).await;
    assert_eq!(changed[1].value["spec"]["channel"], "ops");
    assert_eq!(list[1].value["spec"]["channel"], Value::Null, "a list that was handed out stays as it was");

    objects(cluster, &namespace, "Alert").delete("on-call", &DeleteParams::default()).await.unwrap();
    assert_eq!(names(&next(&mut lists).await), ["chat"]);
}

#[tokio::test]
async fn changes_that_come_together_are_one_and_changes_of_nothing_are_none() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("together").await.unwrap();
    cluster.apply_yaml_in(&namespace, CONFIG).await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    let mut lists: Lists = Box::pin(belfry.config());
    next(&mut lists).await;

    let alerts = objects(cluster, &namespace, "Alert");
    let last = json!({ "metadata": { "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}" } } });
    merge(&alerts, "on-call", last).await;
    assert!(tokio::time::timeout(Duration::from_millis(500), lists.next()).await.is_err());

    let patches =
        (0..30).map(|n| merge(&alerts, "on-call", json!({ "metadata": { "labels": { "n": n.to_string() } } })));
    futures::future::join_all(patches).await;
    merge(&alerts, "on-call", json!({ "metadata": { "labels": { "n": "done" } } })).await;
    let mut read = 0;
    loop {
        read += 1;
        let list = next(&mut lists).await;
        if list[0].value["metadata"]["labels"]["n"] == "done" {
            break;
        }
    }
    assert!(read < 31, "{read} lists for 31 changes");
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_watches() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("dropped").await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    let mut lists: Lists = Box::pin(belfry.config());
    assert!(next(&mut lists).await.is_empty());
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    drop(lists);
    testkit::until("the watches end", SOON, || async {
        anyhow::ensure!(tasks() < before);
        Ok(())
    })
    .await
    .unwrap();
}
