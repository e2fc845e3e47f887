//! Objects that are being deleted are let go; live ones are left alone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use anyhow::ensure;
use kube::api::DeleteParams;
use serde_json::json;
use support::{SOON, belfry, cluster, merge, objects};

const FINALIZER: &str = "finalizers.fluxcd.io";
const KINDS: [&str; 3] = ["Provider", "Alert", "Receiver"];

/// One of each kind by that name.
fn manifests(name: &str, finalizers: &[&str]) -> String {
    let specs = [
        json!({ "type": "slack" }),
        json!({ "providerRef": { "name": "chat" }, "eventSources": [] }),
        json!({ "type": "github", "secretRef": { "name": "token" }, "resources": [] }),
    ];
    let manifests = KINDS.iter().zip(specs).map(|(kind, spec)| {
        let version = if *kind == "Receiver" { "v1" } else { "v1beta3" };
        json!({
            "apiVersion": format!("notification.toolkit.fluxcd.io/{version}"),
            "kind": kind,
            "metadata": { "name": name, "finalizers": finalizers },
            "spec": spec,
        })
        .to_string()
    });
    manifests.collect::<Vec<_>>().join("\n---\n")
}

#[tokio::test]
async fn what_is_being_deleted_is_released_and_what_lives_is_not_touched() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("finalizers").await.unwrap();
    let apply = async |name, finalizers: &[&str]| {
        cluster.apply_yaml_in(&namespace, &manifests(name, finalizers)).await.unwrap();
    };
    apply("waits", &[FINALIZER]).await;
    apply("lives", &[FINALIZER]).await;
    apply("shared", &["example.com/other", FINALIZER]).await;
    apply("others", &["example.com/other"]).await;
    let delete = async |name| {
        for kind in KINDS {
            objects(cluster, &namespace, kind).delete(name, &DeleteParams::default()).await.unwrap();
        }
    };
    delete("waits").await;
    let mut versions = Vec::new();
    for kind in KINDS {
        versions.push(objects(cluster, &namespace, kind).get("lives").await.unwrap().metadata.resource_version);
    }

    let belfry = belfry(cluster, &namespace).await;
    let task = belfry.release_finalizers();
    delete("shared").await;
    delete("others").await;
    for kind in KINDS {
        let api = objects(cluster, &namespace, kind);
        testkit::until(&format!("the {kind}s are released"), SOON, || async {
            ensure!(api.get_opt("waits").await?.is_none());
            let shared = api.get("shared").await?.metadata.finalizers;
            ensure!(shared == Some(vec!["example.com/other".into()]), "{shared:?}");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(api.get("others").await.unwrap().metadata.finalizers.unwrap(), ["example.com/other"]);
    }
    for (kind, version) in KINDS.into_iter().zip(versions) {
        let now = objects(cluster, &namespace, kind).get("lives").await.unwrap().metadata;
        assert_eq!((now.resource_version, now.finalizers.unwrap().len()), (version, 1), "{kind}");
    }

    // One that is deleted while it is watched.
    delete("lives").await;
    for kind in KINDS {
        let api = objects(cluster, &namespace, kind);
        testkit::until("it is released", SOON, || async {
            ensure!(api.get_opt("lives").await?.is_none());
            Ok(())
        })
        .await
        .unwrap();
        merge(&api, "others", json!({ "metadata": { "finalizers": [] } })).await;
    }
    task.abort();
}
