//! The manifests of `deploy/` are what a real API server takes, to the letter, and put Belfry in the place of the peer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::fs;

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{Scope, pinned_kind},
};
use serde_json::{Value, json};
use support::{NAMESPACE, cluster, deploy};

/// As `kubectl apply --server-side --force-conflicts --validate=strict` has it.
async fn apply(cluster: &testkit::Cluster, who: &str, manifest: &Value) -> DynamicObject {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap();
    let (group, version) = text("/apiVersion").rsplit_once('/').unwrap_or(("", text("/apiVersion")));
    let gvk = GroupVersionKind::gvk(group, version, text("/kind"));
    let (resource, able) = pinned_kind(&cluster.admin(), &gvk).await.unwrap();
    let api: Api<DynamicObject> = match able.scope {
        Scope::Cluster => Api::all_with(cluster.admin(), &resource),
        Scope::Namespaced => Api::namespaced_with(cluster.admin(), text("/metadata/namespace"), &resource),
    };
    let how = PatchParams::apply(who).force().validation_strict();
    api.patch(text("/metadata/name"), &how, &Patch::Apply(manifest)).await.unwrap()
}

fn manifests() -> Vec<Value> {
    let mut all = Vec::new();
    for entry in fs::read_dir(deploy()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".yaml") && name != "kustomization.yaml" {
            all.extend(serde_saphyr::from_multiple::<Value>(&fs::read_to_string(&path).unwrap()).unwrap());
        }
    }
    all
}

fn find<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    all.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name).unwrap()
}

#[tokio::test]
async fn the_manifests_are_valid_and_take_the_peers_service_over() {
    let Some(cluster) = cluster().await else { return };
    let peers = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "notification-controller", "namespace": NAMESPACE },
        "spec": {
            "selector": { "app": "notification-controller" },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": "http" }],
        },
    });
    apply(cluster, "kustomize-controller", &peers).await;
    let all = manifests();
    for manifest in &all {
        apply(cluster, "kubectl", manifest).await;
    }

    let pod = &find(&all, "Deployment", "belfry")["spec"]["template"];
    let labels = pod["metadata"]["labels"].as_object().unwrap();
    for (name, port) in [
        ("notification-controller", json!([80, "http"])),
        ("webhook-receiver", json!([80, "http-webhook"])),
        ("belfry-api", json!([9393, "http-api"])),
    ] {
        let mut service = find(&all, "Service", name).clone();
        let ports = &service["spec"]["ports"][0];
        assert_eq!(json!([ports["port"], ports["targetPort"]]), port);
        let named = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(named.iter().any(|named| named["name"] == ports["targetPort"]));
        // As it stands in the cluster: nothing of the peer's selector is left.
        service = serde_json::to_value(apply(cluster, "kubectl", &service).await).unwrap();
        let selector = service["spec"]["selector"].as_object().unwrap();
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)), "{selector:?}");
    }
    let account = &pod["spec"]["serviceAccountName"];
    find(&all, "ServiceAccount", account.as_str().unwrap());

    // And back again.
    let back = apply(cluster, "kustomize-controller", &peers).await;
    assert_eq!(back.data["spec"]["selector"], json!({ "app": "notification-controller" }));
}
