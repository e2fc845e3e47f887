//! What a webhook's sender waits for: the signature checked, and a trigger for each object made durable. Without a cluster
//! nothing takes the triggers, so those of an object become one.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::{
    Bed, Scale,
    load::{Answers, Posted, Turns},
    process::Server,
    report::{Report, Target},
};

const TOKEN: &str = "benchmark-token";
const NAMESPACE: &str = "flux-system";
const CONNECTIONS: u64 = 64;
/// Long enough for the slowest machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// One kind of webhooks.
struct Run {
    part: &'static str,
    /// A Receiver takes 10 webhooks a second, so there are as many as that makes necessary.
    receivers: u64,
    /// Objects that each reconciles.
    resources: u64,
    /// Webhooks a second, of all Receivers together.
    rate: u64,
    /// Milliseconds.
    p99: f64,
}

const RUNS: [Run; 2] = [
    Run { part: "5,000 webhooks/s for 1 object each", receivers: 512, resources: 1, rate: 5_000, p99: 10.0 },
    Run { part: "500 webhooks/s for 100 objects each", receivers: 64, resources: 100, rate: 500, p99: 50.0 },
];

/// Measures once.
///
/// # Errors
/// When a server doesn't come up or can't be reached.
pub fn round(bed: &Bed, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    for run in &RUNS {
        bed.say(run.part)?;
        let webhooks = scale.steady * run.rate / 1_000;
        let folder = bed.folder()?;
        let config = folder.path().join("config");
        write(&config, run)?;
        let server = Server::belfry(&bed.belfry, &config, &folder.path().join("data"))?;
        server.ready()?;
        let to = server.receivers.context("it doesn't say where it takes webhooks")?;
        // From now on each object has a trigger that waits.
        drive(to, run, 0..run.receivers)?;
        let before = server.cpu()?;
        let posted = drive(to, run, run.receivers..run.receivers + webhooks)?;
        let cpu = server.cpu()? - before;
        let refused: Vec<_> = posted.statuses.iter().filter(|(status, _)| **status != 200).collect();
        if !refused.is_empty() {
            let answers: Vec<_> = refused.iter().map(|(status, count)| format!("{count} × {status}")).collect();
            report.note(format!("{}: {}", run.part, answers.join(", ")));
        }
        let refused: u64 = refused.into_iter().map(|(_, count)| count).sum();
        report.add(run.part, "answer p50", "ms", posted.latency.quantile(0.5), None);
        report.add(run.part, "answer p99", "ms", posted.latency.quantile(0.99), Target::Most(run.p99));
        let reached = webhooks as f64 / posted.took.as_secs_f64();
        report.add(run.part, "reached", "webhooks/s", reached, Target::Least(run.rate as f64 * 0.95));
        report.add(run.part, "server CPU per webhook", "ms", cpu * 1e3 / webhooks as f64, None);
        report.add(run.part, "not answered 200", "webhooks", refused as f64, Target::Most(0.0));
        server.terminate()?;
    }
    Ok(())
}

fn name(receiver: u64) -> String {
    format!("receiver-{receiver:03}")
}

fn write(folder: &Path, run: &Run) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't write to {}", folder.display()))?;
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: token, namespace: {NAMESPACE}}}\nstringData: {{token: {TOKEN}}}\n"
    );
    for receiver in 0..run.receivers {
        let name = name(receiver);
        let _ = write!(
            text,
            "---\napiVersion: notification.toolkit.fluxcd.io/v1\nkind: Receiver\n\
             metadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  type: github\n  events: [push]\n  \
             secretRef: {{name: token}}\n  resources:\n"
        );
        for object in 0..run.resources {
            let _ = writeln!(text, "    - {{kind: GitRepository, name: {name}-{object}}}");
        }
    }
    fs::write(folder.join("manifests.yaml"), text).context("can't write the manifests")
}

/// Requests of which only path and delivery id differ.
struct Requests {
    paths: Vec<String>,
    rest: String,
}

impl Requests {
    fn new(to: SocketAddr, receivers: u64) -> anyhow::Result<Self> {
        let path = |receiver| {
            let digest = Sha256::digest(format!("{TOKEN}{}{NAMESPACE}", name(receiver)));
            format!("/hook/{}", hex(&digest))
        };
        let body = push().to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(TOKEN.as_bytes())?;
        mac.update(body.as_bytes());
        let signature = hex(&mac.finalize().into_bytes());
        let rest = format!(
            "Host: {to}\r\nContent-Type: application/json\r\nUser-Agent: GitHub-Hookshot/044aadd\r\nX-GitHub-Event: \
             push\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self { paths: (0..receivers).map(path).collect(), rest })
    }

    fn request(&self, number: u64) -> String {
        let path = &self.paths[(number % self.paths.len() as u64) as usize];
        let delivery = format!("X-GitHub-Delivery: 7b1f0c52-9d3e-4b7a-8c11-{number:012x}");
        format!("POST {path} HTTP/1.1\r\n{delivery}\r\n{}", self.rest)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A push of some commits, about as long as GitHub's are.
fn push() -> serde_json::Value {
    let person = json!({"name": "Somebody", "email": "somebody@example.com", "username": "somebody"});
    let commits: Vec<_> = (0..8)
        .map(|number| {
            json!({
                "id": format!("{number:040x}"), "tree_id": format!("{:040x}", number + 8), "distinct": true,
                "message": "Say what changed, and why, in a line or two", "timestamp": "2026-03-02T09:21:45Z",
                "url": format!("https://github.com/org/fleet/commit/{number:040x}"), "author": person, "committer": person,
                "added": [], "removed": [], "modified": ["clusters/production/apps.yaml", "apps/base/kustomization.yaml"],
            })
        })
        .collect();
    json!({
        "ref": "refs/heads/main", "before": format!("{:040x}", 0), "after": format!("{:040x}", 7), "forced": false,
        "repository": {"id": 1, "name": "fleet", "full_name": "org/fleet", "private": true, "default_branch": "main"},
        "pusher": person, "sender": {"login": "somebody", "id": 1, "type": "User"}, "commits": commits,
    })
}

fn drive(to: SocketAddr, run: &Run, webhooks: Range<u64>) -> anyhow::Result<Posted> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let posted = tokio::time::timeout(PATIENCE, all(to, run, webhooks)).await;
        posted.with_context(|| format!("{to} did not take in all within {PATIENCE:?}"))?
    })
}

async fn all(to: SocketAddr, run: &Run, webhooks: Range<u64>) -> anyhow::Result<Posted> {
    let requests = Arc::new(Requests::new(to, run.receivers)?);
    let next = Arc::new(AtomicU64::new(webhooks.start));
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let turns = Turns { next: next.clone(), first: webhooks.start, end: webhooks.end, rate: Some(run.rate), start };
        connections.spawn(connection(to, requests.clone(), turns));
    }
    let mut posted = Posted::default();
    while let Some(part) = connections.join_next().await {
        posted.add(&part??);
    }
    posted.took = start.elapsed();
    Ok(posted)
}

async fn connection(to: SocketAddr, requests: Arc<Requests>, turns: Turns) -> anyhow::Result<Posted> {
    let mut posted = Posted::default();
    let mut answers = Answers::connect(to).await?;
    while let Some(number) = turns.next().await {
        let request = requests.request(number);
        let start = Instant::now();
        let status = answers.ask(request.as_bytes()).await?;
        posted.latency.record(start.elapsed());
        *posted.statuses.entry(status).or_default() += 1;
    }
    Ok(posted)
}
