//! A real Kubernetes API server with its etcd, as envtest users know it: real watches, RBAC, tokens and CRDs.
//!
//! There is no controller-manager: the aggregated ClusterRoles `view`, `edit` and `admin` have no rules, namespaces
//! never finish their deletion, and nothing is garbage-collected. So: explicit roles, and a namespace per test.
//!
//! Clients are made anew at each call, because a client belongs to the runtime that made it and every test has its own.

mod access;
mod apply;
mod binaries;
mod certificates;
mod servers;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use self::{
    binaries::Binaries,
    certificates::Certificates,
    servers::{ApiServer, Etcd},
};
use crate::{port, skip, until};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no cluster.
#[derive(Debug)]
pub enum StartError {
    /// The binaries are not on this machine: reason for a test to be skipped.
    Missing(String),
    /// They are, and did not start: reason for a test to fail.
    Failed(anyhow::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(what) => f.write_str(what),
            Self::Failed(error) => write!(f, "the cluster did not start: {error:#}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running API server and what is needed to talk to it. Both processes end when it is dropped.
pub struct Cluster {
    // In this order: what depends on the other ends first.
    apiserver: Mutex<Option<ApiServer>>,
    etcd: Etcd,
    certificates: Certificates,
    binaries: Binaries,
    port: u16,
    folder: TempDir,
}

impl Cluster {
    /// Starts a cluster of one's own, for a test that takes its API server down. Others use [`Cluster::shared`].
    ///
    /// # Errors
    /// [`StartError::Missing`] without binaries, [`StartError::Failed`] when they don't get ready within 30 seconds.
    pub async fn start() -> Result<Self, StartError> {
        let binaries = Binaries::find().map_err(StartError::Missing)?;
        Self::start_with(binaries).await.map_err(StartError::Failed)
    }

    async fn start_with(binaries: Binaries) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("testkit-cluster-").tempdir()?;
        let certificates = Certificates::write(folder.path()).context("certificates")?;
        let etcd = Etcd::start(&binaries, folder.path()).await.context("etcd")?;
        let port = port::free()?;
        let cluster = Self { apiserver: Mutex::new(None), etcd, certificates, binaries, port, folder };
        cluster.start_apiserver().await?;
        Ok(cluster)
    }

    /// Like [`Cluster::start`], but `None`, said loudly, where the binaries are missing.
    ///
    /// # Panics
    /// When it does not start, or is missing where `BELFRY_REQUIRE_CLUSTER=1`.
    pub async fn start_or_skip() -> Option<Self> {
        match Self::start().await {
            Ok(cluster) => Some(cluster),
            Err(StartError::Missing(what)) => {
                skip(&what);
                None
            }
            Err(error @ StartError::Failed(_)) => panic!("{error}"),
        }
    }

    /// The one cluster of this test binary, started by the first test that asks. A test makes its own namespaces in it
    /// and leaves the API server running.
    ///
    /// `None`, said loudly, where the binaries are missing: the test then returns.
    ///
    /// # Panics
    /// When it does not start, or is missing where `BELFRY_REQUIRE_CLUSTER=1`.
    pub async fn shared() -> Option<&'static Self> {
        static SHARED: OnceCell<Result<Cluster, StartError>> = OnceCell::const_new();
        match SHARED.get_or_init(Self::start).await {
            Ok(cluster) => Some(cluster),
            Err(StartError::Missing(what)) => {
                skip(what);
                None
            }
            Err(error @ StartError::Failed(_)) => panic!("{error}"),
        }
    }

    /// Kills the API server. Its port then refuses connections; what it stored stays.
    ///
    /// # Errors
    /// When the process can't be killed.
    pub fn stop_apiserver(&self) -> Result<()> {
        match self.running().take() {
            Some(mut apiserver) => apiserver.kill(),
            None => Ok(()),
        }
    }

    /// Starts the API server again on its port, unless it runs, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready within 30 seconds.
    pub async fn start_apiserver(&self) -> Result<()> {
        {
            let mut running = self.running();
            let runs = running.as_mut().is_some_and(|apiserver| apiserver.still_runs().is_ok());
            if !runs {
                let apiserver = ApiServer::start(&self.binaries, self.folder.path(), self.port, self.etcd.port())?;
                *running = Some(apiserver);
            }
        }
        let client = self.admin();
        let client = &client;
        until("the API server is ready", READY_WITHIN, || async move {
            self.still_runs()?;
            let ready = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(ready).await.context("/readyz").map(drop)
        })
        .await
        .map_err(|error| servers::account(&error, self.folder.path(), servers::APISERVER_LOG))
    }

    /// Makes a namespace for one test, named after `prefix`, and gives its name.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses the prefix.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let wanted = Namespace {
            metadata: ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let made = Api::<Namespace>::all(self.admin()).create(&PostParams::default(), &wanted).await?;
        made.metadata.name.context("the API server named no namespace")
    }

    /// The address of the API server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The folder of this cluster, with the logs of its processes; removed at the end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<ApiServer>> {
        self.apiserver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error once the API server has ended of itself, so that nobody waits for it in vain.
    fn still_runs(&self) -> Result<()> {
        self.running().as_mut().map_or(Ok(()), ApiServer::still_runs)
    }
}
