//! A thousand who wait for one revision: how soon all of them know, and what each of them takes up.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

use super::{
    Bed,
    process::{Server, get},
    report::{Report, Target},
};

const PART: &str = "1,000 waits for one revision";
const WAITS: usize = 1_000;
const REVISION: &str = "main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738";
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures once.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn round(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    bed.say(PART)?;
    let folder = bed.folder()?;
    let config = folder.path().join("config");
    fs::create_dir_all(&config).with_context(|| format!("can't write to {}", config.display()))?;
    let server = Server::belfry(&bed.belfry, &config, &folder.path().join("data"))?;
    server.ready()?;
    let (api, metrics) = (server.api.context("it has no API")?, server.metrics.context("it has no metrics")?);
    post(server.events, "web", REVISION, "Progressing", false)?;
    // The first of anything takes memory that the others share.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let before = runtime.block_on(async {
        let mut first = begin(api, 10).await?;
        waiting(metrics, 10)?;
        let before = server.memory()?.now;
        let mut all = begin(api, WAITS - 10).await?;
        waiting(metrics, WAITS)?;
        let after = server.memory()?.now;
        post(server.events, "web", REVISION, "ReconciliationSucceeded", true)?;
        let told = Instant::now();
        let mut last = Duration::ZERO;
        while let Some(known) = match all.join_next().await {
            None => first.join_next().await,
            some => some,
        } {
            last = last.max(known??.saturating_duration_since(told));
        }
        anyhow::Ok((after - before, last))
    });
    let (grown, last) = before?;
    report.add(PART, "event durable to the last answer", "ms", last.as_secs_f64() * 1e3, Target::Most(1000.0));
    report.add(PART, "memory for each", "KiB", grown * 1024.0 / (WAITS - 10) as f64, None);
    server.terminate()
}

/// Starts waits; each ends with the time at which it was answered.
async fn begin(api: SocketAddr, count: usize) -> anyhow::Result<JoinSet<anyhow::Result<Instant>>> {
    let mut waits = JoinSet::new();
    for _ in 0..count {
        let mut stream = tokio::net::TcpStream::connect(api).await.context("can't reach the API")?;
        let request = format!(
            "GET /api/v1/wait?revision={REVISION}&object=Kustomization/apps/web HTTP/1.1\r\nHost: {api}\r\nConnection: \
             close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        waits.spawn(async move {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            let at = Instant::now();
            let text = String::from_utf8_lossy(&answer);
            ensure!(text.contains("\"verdict\":\"succeeded\""), "a wait was answered {text}");
            Ok(at)
        });
        // The backlog of a listener is shorter than this.
        tokio::task::yield_now().await;
    }
    Ok(waits)
}

/// Waits until so many wait.
///
/// # Errors
/// When they don't.
pub fn waiting(metrics: SocketAddr, count: usize) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let text = get(metrics, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("belfry_waits "));
        if line.and_then(|count| count.trim().parse().ok()) == Some(count) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("{count} waits did not begin")
}

/// Posts what a Kustomization reports of a revision.
///
/// # Errors
/// When it is refused.
pub fn post(events: SocketAddr, name: &str, revision: &str, reason: &str, update: bool) -> anyhow::Result<()> {
    let mut metadata = json!({"kustomize.toolkit.fluxcd.io/revision": revision});
    if update {
        metadata["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    }
    let body = json!({
        "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "namespace": "apps", "name": name,
        },
        "severity": "info", "timestamp": "2026-01-02T03:04:05Z", "reason": reason, "message": reason,
        "metadata": metadata, "reportingController": "kustomize-controller",
    })
    .to_string();
    let mut stream = TcpStream::connect(events)?;
    let head =
        format!("POST / HTTP/1.1\r\nHost: {events}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 202"), "an event was answered {answer}");
    Ok(())
}
