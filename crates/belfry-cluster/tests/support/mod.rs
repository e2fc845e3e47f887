//! A cluster as an installation leaves it: the CRDs, and the ServiceAccount of `deploy/rbac.yaml` with its role. Belfry
//! runs as that ServiceAccount; the administrator only prepares and looks.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use belfry_cluster::{Cluster, Settings};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Where Belfry is installed.
pub const NAMESPACE: &str = "flux-system";
/// Long enough for anything that comes at all.
pub const SOON: Duration = Duration::from_secs(20);

/// The cluster of this test binary, prepared; `None` where it can't be had.
pub async fn cluster() -> Option<&'static testkit::Cluster> {
    static PREPARED: OnceCell<bool> = OnceCell::const_new();
    let cluster = testkit::Cluster::shared().await?;
    PREPARED.get_or_init(|| async { install(cluster).await.unwrap() }).await.then_some(cluster)
}

/// A prepared cluster of one's own.
pub async fn own_cluster() -> Option<testkit::Cluster> {
    let cluster = testkit::Cluster::start_or_skip().await?;
    install(&cluster).await.unwrap().then_some(cluster)
}

/// Whether the CRDs were there to be installed.
async fn install(cluster: &testkit::Cluster) -> Result<bool> {
    let Some(definitions) = definitions()? else {
        testkit::skip("there are no CRDs in config/crd, nor beside the project");
        return Ok(false);
    };
    for (_, yaml) in definitions {
        cluster.apply_yaml(&yaml).await?;
    }
    install_role(cluster).await?;
    Ok(true)
}

/// The very file that users apply.
pub async fn install_role(cluster: &testkit::Cluster) -> Result<()> {
    cluster.apply_yaml(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}")).await?;
    cluster.apply_path(deploy().join("rbac.yaml")).await
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder that users install from.
pub fn deploy() -> PathBuf {
    root().join("deploy")
}

/// What lies beside the project.
pub fn shared(path: &str) -> PathBuf {
    root().join("../shared/data").join(path)
}

/// The CRDs of Providers, Alerts, CommitStatuses and Receivers by name: the project's own, else those beside it.
pub fn definitions() -> Result<Option<Vec<(String, String)>>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for folder in [root().join("config/crd"), shared("crds")] {
        let Ok(files) = fs::read_dir(folder) else { continue };
        for file in files {
            let path = file?.path();
            if path.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            let yaml = fs::read_to_string(&path)?;
            for kind in ["providers", "alerts", "commitstatuses", "receivers"] {
                let name = format!("{kind}.notification.toolkit.fluxcd.io");
                if yaml.contains(&format!("\n  name: {name}\n")) && !found.iter().any(|(known, _)| *known == name) {
                    found.push((name, yaml.clone()));
                }
            }
        }
    }
    Ok((found.len() == 4).then_some(found))
}

/// Belfry's settings for this cluster.
pub async fn settings(cluster: &testkit::Cluster) -> Settings {
    let kubeconfig = cluster.kubeconfig_for(NAMESPACE, "belfry").await.unwrap();
    Settings { kubeconfig: Some(kubeconfig), context: None, qps: 50.0, burst: 300, watch_namespace: None }
}

/// Belfry, for one namespace.
pub async fn belfry(cluster: &testkit::Cluster, namespace: &str) -> Cluster {
    let settings = Settings { watch_namespace: Some(namespace.to_owned()), ..settings(cluster).await };
    belfry_cluster::connect(&settings).await.unwrap()
}

/// The administrator's way to objects of a kind.
pub fn objects(cluster: &testkit::Cluster, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version, plural) = match kind {
        "Provider" => ("notification.toolkit.fluxcd.io", "v1beta3", "providers"),
        "Alert" => ("notification.toolkit.fluxcd.io", "v1beta3", "alerts"),
        "CommitStatus" => ("notification.toolkit.fluxcd.io", "v1beta1", "commitstatuses"),
        "Receiver" => ("notification.toolkit.fluxcd.io", "v1", "receivers"),
        "Kustomization" => ("kustomize.toolkit.fluxcd.io", "v1", "kustomizations"),
        "Secret" => ("", "v1", "secrets"),
        "Event" => ("", "v1", "events"),
        "Lease" => ("coordination.k8s.io", "v1", "leases"),
        other => panic!("{other}?"),
    };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(cluster.admin(), namespace, &resource)
}

/// A merge patch by the administrator.
pub async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// A Provider and an Alert for it.
pub const CONFIG: &str = r"
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: { name: on-call }
spec: { providerRef: { name: chat }, eventSources: [{ kind: Kustomization, name: '*' }] }
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: { name: chat }
spec: { type: slack, secretRef: { name: chat-url } }
";

/// Applies a Secret with one key.
pub async fn secret(cluster: &testkit::Cluster, namespace: &str, name: &str, value: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "token": value },
    });
    cluster.apply_yaml_in(namespace, &secret.to_string()).await.unwrap();
}

/// The token in a Secret, as Belfry reads it.
pub async fn token(belfry: &Cluster, namespace: &str, name: &str, fresh: bool) -> Result<Option<String>> {
    let secret = belfry.secret(namespace, name, fresh).await?;
    secret.map(|secret| Ok(secret.text("token")?.context("no token")?.to_owned())).transpose()
}

/// Waits until the role counts, which takes the API server a moment.
pub async fn allowed(belfry: &Cluster, namespace: &str) {
    testkit::until("the role counts", SOON, || async {
        ensure!(belfry.secret(namespace, "none", true).await?.is_none());
        Ok(())
    })
    .await
    .unwrap();
}
