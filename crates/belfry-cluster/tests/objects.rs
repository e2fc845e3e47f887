//! The feed of the object index, from real definitions and from ones that come and go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, ensure};
use belfry_cluster::{ObjectChange, Settings};
use belfry_core::index::{IndexedObject, ObjectIndex};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::DeleteParams};
use serde_json::json;
use support::{SOON, cluster, merge, objects, settings, shared};

/// What has been told.
#[derive(Default)]
struct Told {
    index: ObjectIndex,
    synced: u32,
    emptied: Vec<&'static str>,
}

impl Told {
    fn take_in(&mut self, change: ObjectChange) {
        match change {
            ObjectChange::Replace(kind, objects) => {
                if objects.is_empty() {
                    self.emptied.push(kind);
                }
                self.index.replace(kind, objects);
            }
            ObjectChange::Apply(object) => self.index.apply(object),
            ObjectChange::Remove { kind, namespace, name } => self.index.remove(kind, &namespace, &name),
            ObjectChange::Synced => self.synced += 1,
        }
    }
}

async fn watch(cluster: &testkit::Cluster, namespace: &str) -> Arc<Mutex<Told>> {
    let settings = Settings { watch_namespace: Some(namespace.to_owned()), ..settings(cluster).await };
    let belfry = belfry_cluster::connect(&settings).await.unwrap().rediscover_every(Duration::from_millis(200));
    let told = Arc::new(Mutex::new(Told::default()));
    let sink = told.clone();
    belfry.watch_objects(move |change| sink.lock().unwrap().take_in(change));
    told
}

async fn until(what: &str, told: &Mutex<Told>, holds: impl Fn(&Told) -> bool) {
    let probe = || async {
        ensure!(holds(&told.lock().unwrap()));
        Ok(())
    };
    testkit::until(what, SOON, probe).await.unwrap();
}

/// A definition that takes anything.
fn definition(group: &str, kind: &str, plural: &str, versions: &[&str]) -> String {
    let last = versions.len() - 1;
    let versions = versions.iter().enumerate().map(|(n, version)| {
        json!({
            "name": version, "served": true, "storage": n == last,
            "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": versions.collect::<Vec<_>>(),
        },
    })
    .to_string()
}

#[tokio::test]
async fn recorded_objects_are_indexed_trimmed() {
    let Some(cluster) = cluster().await else { return };
    if !shared("crds").is_dir() || !shared("flux-objects").is_dir() {
        return testkit::skip("recorded objects and CRDs are missing beside the project");
    }
    for file in [
        "kustomize.toolkit.fluxcd.io_kustomizations",
        "source.toolkit.fluxcd.io_gitrepositories",
        "helm.toolkit.fluxcd.io_helmreleases",
    ] {
        cluster.apply_path(shared(&format!("crds/{file}.yaml"))).await.unwrap();
    }
    let read = |name: &str| -> serde_json::Value {
        serde_saphyr::from_str(&fs::read_to_string(shared(&format!("flux-objects/{name}.yaml"))).unwrap()).unwrap()
    };
    let recorded = ["gitrepository-demo", "ks-app", "hr-failing-failed"].map(read);
    let namespace = recorded[0]["metadata"]["namespace"].as_str().unwrap().to_owned();
    for manifest in &recorded {
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap();
        cluster
            .apply_yaml(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))
            .await
            .unwrap();
        cluster.apply_yaml(&manifest.to_string()).await.unwrap();
    }

    let told = watch(cluster, &namespace).await;
    until("the index is complete", &told, |told| told.synced == 1).await;
    for manifest in recorded.iter().filter(|manifest| manifest["metadata"]["namespace"] == namespace.as_str()) {
        let expected = IndexedObject::trim(manifest).unwrap();
        let told = told.lock().unwrap();
        let found = told.index.get(&expected.kind, &expected.namespace, &expected.name);
        let found = found.with_context(|| expected.name.clone()).unwrap();
        // These two are the API server's to give.
        let (uid, created) = (expected.uid.clone(), expected.created.clone());
        let found = IndexedObject { uid, created, generation: expected.generation, ..found.clone() };
        assert_eq!(found, expected);
    }

    let name = recorded[1]["metadata"]["name"].as_str().unwrap();
    let api = objects(cluster, &namespace, "Kustomization");
    merge(&api, name, json!({ "spec": { "suspend": true } })).await;
    until("a change is seen", &told, |told| {
        told.index.get("Kustomization", &namespace, name).is_some_and(|object| object.suspended)
    })
    .await;
    api.delete(name, &DeleteParams::default()).await.unwrap();
    until("a deletion is seen", &told, |told| {
        told.index.get("Kustomization", &namespace, name).is_none_or(|object| object.deleting)
    })
    .await;
    assert_eq!(told.lock().unwrap().synced, 1);
}

#[tokio::test]
async fn kinds_come_and_go_with_their_definitions() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("kinds").await.unwrap();
    let told = watch(cluster, &namespace).await;
    until("what is missing keeps nothing waiting", &told, |told| told.synced == 1).await;
    assert!(told.lock().unwrap().index.is_empty());

    // One in an old version only, one whose older version is the stored one.
    cluster
        .apply_yaml(&definition("image.toolkit.fluxcd.io", "ImageRepository", "imagerepositories", &["v1beta2"]))
        .await
        .unwrap();
    let group = "source.extensions.fluxcd.io";
    cluster
        .apply_yaml(&definition(group, "ArtifactGenerator", "artifactgenerators", &["v1beta1", "v1alpha1"]))
        .await
        .unwrap();
    let objects = format!(
        "{{apiVersion: image.toolkit.fluxcd.io/v1beta2, kind: ImageRepository, metadata: {{name: app}}}}\n---\n\
         {{apiVersion: {group}/v1beta1, kind: ArtifactGenerator, metadata: {{name: app, labels: {{team: a}}}}}}"
    );
    cluster.apply_yaml_in(&namespace, &objects).await.unwrap();
    until("new kinds are found", &told, |told| {
        let found = |kind| told.index.get(kind, &namespace, "app").is_some();
        found("ImageRepository") && found("ArtifactGenerator")
    })
    .await;
    assert_eq!(told.lock().unwrap().index.get("ArtifactGenerator", &namespace, "app").unwrap().labels["team"], "a");

    // A version that is served no longer.
    cluster
        .apply_yaml(&definition("image.toolkit.fluxcd.io", "ImageRepository", "imagerepositories", &["v1", "v1beta2"]))
        .await
        .unwrap();
    let later = "{apiVersion: image.toolkit.fluxcd.io/v1, kind: ImageRepository, metadata: {name: later}}";
    cluster.apply_yaml_in(&namespace, later).await.unwrap();
    until("objects of the newer version are seen", &told, |told| {
        told.index.get("ImageRepository", &namespace, "later").is_some()
    })
    .await;

    told.lock().unwrap().emptied.clear();
    let definitions = Api::<CustomResourceDefinition>::all(cluster.admin());
    definitions.delete(&format!("artifactgenerators.{group}"), &DeleteParams::default()).await.unwrap();
    until("the kind is gone", &told, |told| {
        told.emptied.contains(&"ArtifactGenerator") && told.index.get("ArtifactGenerator", &namespace, "app").is_none()
    })
    .await;
    assert_eq!(told.lock().unwrap().synced, 1);
}
