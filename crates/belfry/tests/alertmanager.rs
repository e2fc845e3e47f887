//! A real Alertmanager.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::time::Duration;

use common::{Belfry, PATIENCE, alert, client, event};
use serde_json::Value;
use testkit::{Process, Program, port, until};

/// Starts one, or says loudly that there is none.
async fn alertmanager(folder: &std::path::Path) -> Option<(Process, String)> {
    let found = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|dir| dir.join("prometheus-alertmanager")).find(|p| p.exists()));
    let Some(binary) = found.flatten() else {
        testkit::skip("there is no prometheus-alertmanager on this machine (Debian has a package of that name)");
        return None;
    };
    let config = folder.join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: none}\nreceivers: [{name: none}]\n").unwrap();
    let address = format!("127.0.0.1:{}", port::free().unwrap());
    let mut process = Program::new(binary)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=")
        .spawn()
        .unwrap();
    let url = format!("http://{address}");
    process.wait_for_http(&format!("{url}/-/ready"), PATIENCE).await.unwrap();
    Some((process, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_takes_our_alerts_and_gets_those_of_an_outage() {
    let folder = tempfile::tempdir().unwrap();
    let Some((mut process, url)) = alertmanager(folder.path()).await else { return };
    let manifests = format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: alertmanager, namespace: flux-system}}
spec: {{type: alertmanager, address: '{url}/api/v2/alerts/'}}
---
{}",
        alert("alertmanager")
    );
    let belfry = Belfry::start(&manifests, &[]).await;
    belfry.accept(&event("app", "error", "health check failed")).await;
    let firing = async |name: &str| {
        until(&format!("an alert about {name}"), PATIENCE, async || {
            let alerts: Vec<Value> = client().get(format!("{url}/api/v2/alerts")).send().await?.json().await?;
            let about = alerts.into_iter().find(|alert| alert["labels"]["name"] == name);
            about.ok_or_else(|| anyhow::anyhow!("none"))
        })
        .await
        .unwrap()
    };
    let alert = firing("app").await;
    assert_eq!(alert["labels"]["alertname"], "FluxKustomizationHealthcheckfailed");
    assert_eq!(alert["labels"]["severity"], "error");
    assert_eq!(alert["labels"]["revision"], "main@sha1:7d8b790e325ffa0885be99788a08f4ae67d382a5");
    assert_eq!(alert["annotations"]["message"], "health check failed");

    process.terminate(PATIENCE).await.unwrap();
    belfry.accept(&event("away", "error", "while nobody listened")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    process.restart().unwrap();
    firing("away").await;
}
