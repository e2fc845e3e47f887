//! `belfry serve` in a real cluster, as the ServiceAccount that `deploy/` gives it.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Cluster, Process, port};

use super::{PATIENCE, client, program};

/// The root of the repository.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A running server.
pub struct Server {
    pub process: Process,
    pub events: String,
    pub api: String,
    pub metrics: String,
    pub health: String,
    _data: tempfile::TempDir,
}

impl Server {
    pub async fn start(kubeconfig: &Path) -> Self {
        Self::start_with(kubeconfig, &[]).await
    }

    /// With more flags.
    pub async fn start_with(kubeconfig: &Path, flags: &[&str]) -> Self {
        let address = || format!("127.0.0.1:{}", port::free().unwrap());
        let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
        let data = tempfile::tempdir().unwrap();
        let process = program()
            .args(["serve", "--log-encoding", "console", "--log-level", "debug"])
            .args(["--kubeconfig", kubeconfig.to_str().unwrap(), "--data", data.path().to_str().unwrap()])
            .args(["--events-addr", &events, "--api-addr", &api, "--metrics-addr", &metrics, "--health-addr", &health])
            .args(["--receiverAddr", &receivers, "--api-trust-loopback"])
            .args(["--enable-leader-election", "--concurrent=10"])
            .args(flags)
            .env("RUNTIME_NAMESPACE", "flux-system")
            .spawn()
            .unwrap();
        Self {
            process,
            events: format!("http://{events}/"),
            api: format!("http://{api}"),
            metrics: format!("http://{metrics}/metrics"),
            health: format!("http://{health}/readyz"),
            _data: data,
        }
    }

    pub async fn ready(&mut self) {
        self.process.wait_for_http(&self.health, PATIENCE).await.unwrap();
    }

    pub async fn post(&self, event: &Value) -> u16 {
        client().post(&self.events).json(event).send().await.unwrap().status().as_u16()
    }
}

/// A cluster with our CRDs and the RBAC of `deploy/`.
pub async fn installed() -> Option<Cluster> {
    let cluster = Cluster::start_or_skip().await?;
    cluster.apply_yaml("{apiVersion: v1, kind: Namespace, metadata: {name: flux-system}}").await.unwrap();
    cluster.apply_path(Path::new(ROOT).join("config/crd")).await.unwrap();
    cluster.apply_path(Path::new(ROOT).join("deploy/rbac.yaml")).await.unwrap();
    Some(cluster)
}

/// Where the API server has Kustomizations.
pub const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations";

/// A Kustomization of which nothing is known yet.
pub async fn kustomization(cluster: &Cluster, name: &str) {
    let object = json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"},
        "spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "GitRepository", "name": "x"}},
    });
    cluster.apply_yaml(&object.to_string()).await.unwrap();
}

/// Writes a Kustomization's status as its controller does, for its first generation.
pub async fn say(cluster: &Cluster, name: &str, ready: bool, reason: &str, commit: &str) {
    let now = jiff::Timestamp::now();
    let revision = format!("main@sha1:{commit}");
    let mut status = json!({
        "observedGeneration": 1,
        "lastAttemptedRevision": revision,
        "conditions": [{
            "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": reason, "message": "as seen",
            "observedGeneration": 1, "lastTransitionTime": format!("{now:.0}"),
        }],
    });
    if ready {
        status["lastAppliedRevision"] = json!(revision);
    }
    let patch = http::Request::patch(format!("{KUSTOMIZATIONS}/{name}/status"))
        .header("content-type", "application/merge-patch+json")
        .body(json!({"status": status}).to_string().into_bytes());
    cluster.admin().request::<Value>(patch.unwrap()).await.unwrap();
}
