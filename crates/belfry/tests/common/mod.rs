//! A real `belfry serve` on free ports, from manifests written here.
#![allow(dead_code, clippy::expect_used, reason = "each test binary uses a part of it")]

pub mod in_cluster;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{Postgres, Process, Program, port, until};

/// Long enough for a slow machine; nothing waits for it when things go well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server and its folders.
pub struct Belfry {
    pub process: Process,
    pub folder: tempfile::TempDir,
    pub events: String,
    pub receivers: String,
    pub api: String,
    pub metrics: String,
    pub health: String,
    client: reqwest::Client,
}

/// Set to `1`, servers that aren't told otherwise use PostgreSQL: any of these tests can be run against it.
const ON_POSTGRES: &str = "BELFRY_TEST_POSTGRES";

/// Flags for a database of its own, if tests are to be run against PostgreSQL.
fn database(flags: &[&str]) -> Vec<String> {
    if std::env::var_os(ON_POSTGRES).is_none_or(|value| value != "1") || flags.contains(&"--database-url") {
        return Vec::new();
    }
    let server = Postgres::shared().expect("PostgreSQL is missing");
    on_database(&server.url(&server.database().unwrap())).map(String::from).into()
}

/// Flags for a database, with a lease that ends soon.
pub fn on_database(url: &str) -> [&str; 4] {
    ["--database-url", url, "--database-lease", "3s"]
}

impl Belfry {
    /// Starts from these manifests, with more flags.
    pub async fn start(manifests: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::start_in(folder, &data, manifests, flags).await
    }

    /// Starts with its store in `data`.
    pub async fn start_in(folder: tempfile::TempDir, data: &Path, manifests: &str, flags: &[&str]) -> Self {
        let config = folder.path().join("config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("manifests.yaml"), manifests).unwrap();
        let address = || format!("127.0.0.1:{}", port::free().unwrap());
        let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
        let process = program()
            .args(["serve", "--log-encoding", "console", "--log-level", "debug"])
            .args(["--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()])
            .args(["--events-addr", &events, "--api-addr", &api, "--metrics-addr", &metrics, "--health-addr", &health])
            .args(["--receiverAddr", &receivers])
            .args(database(flags))
            .args(flags)
            .spawn()
            .unwrap();
        let mut belfry = Self {
            process,
            folder,
            events: format!("http://{events}/"),
            receivers: format!("http://{receivers}"),
            api: format!("http://{api}"),
            metrics: format!("http://{metrics}/metrics"),
            health: format!("http://{health}"),
            client: client(),
        };
        belfry.ready().await;
        belfry
    }

    /// Waits until it takes events.
    pub async fn ready(&mut self) {
        let url = format!("{}/readyz", self.health);
        self.process.wait_for_http(&url, PATIENCE).await.unwrap();
    }

    /// Writes manifests anew; the server picks them up by itself.
    pub fn write(&self, name: &str, manifests: &str) {
        std::fs::write(self.config().join(name), manifests).unwrap();
    }

    /// The folder of its manifests.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Posts an event as a controller does; the status of the answer.
    pub async fn post(&self, event: &Value) -> u16 {
        self.client.post(&self.events).json(event).send().await.unwrap().status().as_u16()
    }

    /// Posts an event that must be taken.
    pub async fn accept(&self, event: &Value) {
        assert_eq!(self.post(event).await, 202, "{event}");
    }

    /// Asks the API.
    pub async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.api)).send().await.unwrap().json().await.unwrap()
    }

    /// The deliveries that a query selects, newest first.
    pub async fn deliveries(&self, query: &str) -> Vec<Value> {
        match self.get(&format!("/api/v1/deliveries?limit=500&{query}")).await["items"].take() {
            Value::Array(items) => items,
            other => panic!("no list: {other}"),
        }
    }

    /// Waits until this many deliveries are in a state.
    pub async fn wait_for(&self, state: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} deliveries to be {state}"), PATIENCE, async || {
            let items = self.deliveries(&format!("state={state}")).await;
            anyhow::ensure!(items.len() >= count, "{} are", items.len());
            Ok(items)
        })
        .await
        .unwrap()
    }

    /// Puts a delivery in line again; the status of the answer.
    pub async fn redeliver(&self, id: &Value) -> u16 {
        let url = format!("{}/api/v1/deliveries/{id}/redeliver", self.api);
        self.client.post(url).send().await.unwrap().status().as_u16()
    }
}

/// The binary.
pub fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_belfry"))
}

/// A client that speaks to this machine only.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// A Kustomization's event, as its controller posts it. The message makes it unique.
pub fn event(name: &str, severity: &str, message: &str) -> Value {
    json!({
        "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "namespace": "flux-system", "name": name, "uid": format!("uid-of-{name}"),
        },
        "severity": severity,
        "timestamp": "2026-01-02T03:04:05Z",
        "reason": if severity == "error" { "HealthCheckFailed" } else { "Progressing" },
        "message": message,
        "metadata": {"kustomize.toolkit.fluxcd.io/revision": "main@sha1:7d8b790e325ffa0885be99788a08f4ae67d382a5"},
        "reportingController": "kustomize-controller",
    })
}

/// A Provider of type `generic`, and an Alert that sends it every Kustomization's events.
pub fn generic(name: &str, address: &str) -> String {
    format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: {name}, namespace: flux-system}}
spec: {{type: generic, address: '{address}', timeout: 2s}}
---
{}",
        alert(name)
    )
}

/// An Alert that sends a Provider of the same name every Kustomization's events.
pub fn alert(name: &str) -> String {
    format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {{name: {name}, namespace: flux-system}}
spec:
  providerRef: {{name: {name}}}
  eventSources: [{{kind: Kustomization, name: '*'}}]
---
"
    )
}
