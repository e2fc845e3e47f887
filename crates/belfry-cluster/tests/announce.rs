//! Kubernetes Events, as a real API server keeps them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use anyhow::ensure;
use belfry_core::{ConfigKey, announcement::Announcement};
use kube::api::ListParams;
use serde_json::{Value, json};
use support::{CONFIG, SOON, belfry, cluster, objects};

fn announcement(namespace: &str, message: &str) -> Announcement {
    Announcement {
        object: ConfigKey::alert(namespace, "on-call"),
        uid: "".into(),
        warning: true,
        reason: "NotificationDispatchFailed",
        message: message.to_owned(),
        annotations: Default::default(),
    }
}

/// Waits for events that satisfy `enough`.
async fn events(cluster: &testkit::Cluster, namespace: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let api = objects(cluster, namespace, "Event");
    testkit::until("the Events are there", SOON, || async {
        let listed = api.list(&ListParams::default()).await?;
        let events: Vec<Value> = listed.items.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
        ensure!(enough(&events), "{events:#?}");
        Ok(events)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_announcement_becomes_an_event_and_repeats_raise_its_count() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("announce").await.unwrap();
    cluster.apply_yaml_in(&namespace, CONFIG).await.unwrap();
    let uid = objects(cluster, &namespace, "Alert").get("on-call").await.unwrap().metadata.uid.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    let said = Announcement {
        uid: uid.as_str().into(),
        annotations: [("summary".to_owned(), "Alert object .spec.summary".to_owned())].into(),
        ..announcement(&namespace, "failed to send notification")
    };
    for _ in 0..3 {
        belfry.announce(said.clone());
    }

    let events = events(cluster, &namespace, |events| events.iter().any(|event| event["count"] == 3)).await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    let expected = json!({
        "involvedObject": {
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Alert", "namespace": namespace, "name": "on-call", "uid": uid,
        },
        "type": "Warning",
        "reason": "NotificationDispatchFailed",
        "message": "failed to send notification",
        "source": { "component": "notification-controller" },
        "reportingComponent": "notification-controller",
        "reportingInstance": "",
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&event[field], value, "{field}");
    }
    assert_eq!(event["metadata"]["annotations"], json!({ "summary": "Alert object .spec.summary" }));
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("on-call."));
    assert!(event["firstTimestamp"].as_str().unwrap() <= event["lastTimestamp"].as_str().unwrap());
}

#[tokio::test]
async fn an_event_that_is_gone_is_written_anew() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("gone").await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    belfry.announce(announcement(&namespace, "no"));
    events(cluster, &namespace, |events| events.len() == 1).await;
    let api = objects(cluster, &namespace, "Event");
    api.delete_collection(&Default::default(), &ListParams::default()).await.unwrap();
    belfry.announce(announcement(&namespace, "no"));
    assert_eq!(events(cluster, &namespace, |events| events.len() == 1).await[0]["count"], 2);
}

#[tokio::test]
async fn one_object_gets_a_burst_and_others_are_still_heard() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("burst").await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    for n in 0..60 {
        belfry.announce(announcement(&namespace, &n.to_string()));
    }
    // What is refused holds up nobody: this namespace does not exist.
    belfry.announce(announcement("nowhere", "no"));
    belfry.announce(Announcement {
        object: ConfigKey::provider(&namespace, "chat"),
        warning: false,
        ..announcement(&namespace, "last")
    });
    let events = events(cluster, &namespace, |events| events.iter().any(|event| event["message"] == "last")).await;
    assert_eq!(events.len(), 26);
    let last = events.iter().find(|event| event["message"] == "last").unwrap();
    assert_eq!((&last["type"], &last["involvedObject"]["kind"]), (&json!("Normal"), &json!("Provider")));
    assert_eq!(last["involvedObject"].get("uid"), None);
}
