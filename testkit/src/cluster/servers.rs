//! The two processes of a cluster, and the flags that suffice for them.

use std::{
    fs::{self, File, OpenOptions},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{binaries::Binaries, certificates};
use crate::{guard::Guarded, port, probe, until};

const ETCD_LOG: &str = "etcd.log";
pub(super) const APISERVER_LOG: &str = "kube-apiserver.log";

/// The store of the API server.
pub(super) struct Etcd {
    _process: Guarded,
    port: u16,
}

impl Etcd {
    /// Starts it, and waits until it serves.
    pub(super) async fn start(binaries: &Binaries, folder: &Path) -> Result<Self> {
        let (port, peers) = (port::free()?, port::free()?);
        let (url, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
        let mut command = Command::new(&binaries.etcd);
        command
            .args(["--name=test", "--unsafe-no-fsync", "--log-level=warn"])
            .arg(format!("--data-dir={}", folder.join("etcd").display()))
            .arg(format!("--listen-client-urls={url}"))
            .arg(format!("--advertise-client-urls={url}"))
            .arg(format!("--listen-peer-urls={peers}"))
            .arg(format!("--initial-advertise-peer-urls={peers}"))
            .arg(format!("--initial-cluster=test={peers}"));
        log_to(&mut command, folder, ETCD_LOG)?;
        // It is the first to start and the last to end, so its watchdog removes the folder.
        let mut process = Guarded::spawn(&mut command, Some(folder))?;
        let health = format!("{url}/health");
        until("etcd is healthy", Duration::from_secs(20), || {
            let ended = process.ended();
            let health = &health;
            async move {
                ensure!(ended?.is_none(), "it ended");
                ensure!(probe::get(health).await?.status == 200, "not healthy");
                Ok(())
            }
        })
        .await
        .map_err(|error| account(&error, folder, ETCD_LOG))?;
        Ok(Self { _process: process, port })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

/// The API server.
pub(super) struct ApiServer(Guarded);

impl ApiServer {
    /// Starts it. It takes seconds until it is ready.
    pub(super) fn start(binaries: &Binaries, folder: &Path, port: u16, etcd: u16) -> Result<Self> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", folder.join(name).display());
        let mut command = Command::new(&binaries.kube_apiserver);
        command
            .args([
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--disable-admission-plugins=ServiceAccount",
                "--allow-privileged=true",
            ])
            .arg(format!("--etcd-servers=http://127.0.0.1:{etcd}"))
            .arg(format!("--secure-port={port}"))
            .arg(file("client-ca-file", certificates::CA_CERTIFICATE))
            .arg(file("tls-cert-file", certificates::SERVER_CERTIFICATE))
            .arg(file("tls-private-key-file", certificates::SERVER_KEY))
            .arg(file("service-account-key-file", certificates::TOKEN_PUBLIC_KEY))
            .arg(file("service-account-signing-key-file", certificates::TOKEN_KEY));
        log_to(&mut command, folder, APISERVER_LOG)?;
        Guarded::spawn(&mut command, None).map(Self).context("kube-apiserver")
    }

    /// An error once it has ended of itself.
    pub(super) fn still_runs(&mut self) -> Result<()> {
        match self.0.ended()? {
            Some(status) => bail!("kube-apiserver ended with {status}"),
            None => Ok(()),
        }
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.0.kill().map(drop).context("kube-apiserver can't be killed")
    }
}

fn log_to(command: &mut Command, folder: &Path, name: &str) -> Result<()> {
    let log: File = OpenOptions::new().create(true).append(true).open(folder.join(name))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(())
}

/// An error together with the last lines of a server's log.
pub(super) fn account(error: &anyhow::Error, folder: &Path, name: &str) -> anyhow::Error {
    let log = fs::read_to_string(folder.join(name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(10)..];
    anyhow!("{error:#}\n{name} ends with:\n{}\n", last.join("\n"))
}
