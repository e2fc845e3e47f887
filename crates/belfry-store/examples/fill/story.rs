//! What a fleet reports in a month, as a function of an event's number: bodies as Flux's controllers send them, about objects that
//! follow commits, some of which fail.

use std::sync::Arc;

use belfry_core::{
    ConfigKey, Time, event,
    plan::{Candidate, Origin, RouteRef},
};
use serde_json::json;

/// Clusters, and namespaces in each.
const CLUSTERS: u64 = 20;
const TEAMS: u64 = 50;
/// Reports of an object about one commit.
const ROUND: u64 = 10;
/// A cluster, a kind and a reason of which little was heard, and that long ago.
const RETIRED: &str = "retired";
const RARE_KIND: &str = "ImageRepository";
const RARE_REASON: &str = "PruneFailed";

/// One that nobody takes deliveries for, so that some wait.
pub const ARCHIVE: &str = "archive";

/// So many events about so many objects.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    pub events: u64,
    pub objects: u64,
}

/// What one event says, but for what all have in common.
struct Said {
    kind: &'static str,
    severity: &'static str,
    reason: &'static str,
    message: String,
    confirms: bool,
}

impl Said {
    fn info(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, severity: "info", reason, message: message.into(), confirms: false }
    }

    fn error(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, severity: "error", reason, message: message.into(), confirms: false }
    }
}

impl Story {
    /// The event with this number, as it arrives at this time.
    pub fn candidate(&self, number: u64, at: Time) -> Candidate {
        // Neighbours in time are strangers in the index, as in a fleet.
        let object = number.wrapping_mul(7_919) % self.objects;
        let (cluster, team, app) = (object % CLUSTERS, object / CLUSTERS % TEAMS, object / CLUSTERS / TEAMS);
        // Teams don't deploy at the same time.
        let turn = number / self.objects + team * 7;
        let (commit, step) = (turn / ROUND, turn % ROUND);
        let fails = mix(object, commit).is_multiple_of(12);
        let mut said = match (team + app) % 10 {
            0 => source(number, step),
            1..=6 => kustomization(team, app, number, step, fails, commit),
            _ => helm_release(number, step, fails, commit),
        };
        let mut cluster = format!("cluster-{cluster:02}");
        let mut name = format!("app-{app:03}");
        if number % 50_000 == 17 && number < self.events / 2 {
            said = Said::error("Kustomization", RARE_REASON, "prune failed: Deployment/apps/web is still in use");
        } else if number % 10_000 == 23 && number < self.events / 10 {
            said = Said::error(RARE_KIND, "ReadOperationFailed", "unable to read tags: 403 Forbidden");
            name = "images".into();
        } else if number % 1_000 == 31 && number < self.events / 20 {
            cluster = RETIRED.into();
        }
        let error = said.severity == "error";
        let body = body(&said, &name, team, number, commit, at);
        let routes = routes(team, number, error);
        let event = event::read(body.as_bytes()).unwrap_or_default();
        event::candidate(&event, Origin::Recorder, &cluster, body.into(), routes)
    }
}

fn source(number: u64, step: u64) -> Said {
    let kind = "GitRepository";
    match step {
        0 => Said::info(kind, "NewArtifact", format!("stored artifact for commit 'change {number}'")),
        5 if number.is_multiple_of(3) => {
            Said::error(kind, "GitOperationFailed", "failed to checkout: connection refused")
        }
        _ => Said::info(kind, "GitOperationSucceeded", format!("no changes since last reconciliation ({number})")),
    }
}

fn kustomization(team: u64, app: u64, number: u64, step: u64, fails: bool, commit: u64) -> Said {
    let kind = "Kustomization";
    let late = commit.is_multiple_of(3);
    match step {
        0 if mix(number, 1).is_multiple_of(6) => {
            Said::info(kind, "DependencyNotReady", format!("dependency 'team-{team:02}/base' is not ready"))
        }
        0 => Said::info(kind, "Progressing", configured(team, app, number)),
        1..=4 if fails => {
            let message =
                format!("timeout waiting for: [Deployment/team-{team:02}/app-{app:03} status: 'InProgress'] ({step})");
            Said::error(kind, "HealthCheckFailed", message)
        }
        5..=9 if fails && late => {
            Said::error(kind, "BuildFailed", format!("kustomize build failed: accumulating resources ({number})"))
        }
        _ => {
            let message = format!("Reconciliation finished in 1.273s, next run in 10m0s ({number})");
            Said { confirms: true, ..Said::info(kind, "ReconciliationSucceeded", message) }
        }
    }
}

fn helm_release(number: u64, step: u64, fails: bool, commit: u64) -> Said {
    let kind = "HelmRelease";
    match step {
        0 => Said::info(kind, "Progressing", format!("Running 'upgrade' action ({number})")),
        1 if fails => {
            Said::error(kind, "UpgradeFailed", format!("Helm upgrade failed: timed out ({number}, {commit})"))
        }
        2 if fails => Said::info(kind, "RollbackSucceeded", format!("Helm rollback to previous release ({number})")),
        1 => Said::info(kind, "UpgradeSucceeded", format!("Helm upgrade succeeded for release ({number})")),
        2 => Said::info(kind, "TestSucceeded", format!("Helm test succeeded ({number})")),
        _ => Said::info(kind, "DriftDetected", format!("Cluster state of release has drifted ({number})")),
    }
}

fn configured(team: u64, app: u64, number: u64) -> String {
    let kinds = ["Deployment", "Service", "Ingress", "ConfigMap", "ServiceAccount", "HorizontalPodAutoscaler"];
    let lines = kinds.map(|kind| format!("{kind}/team-{team:02}/app-{app:03} configured"));
    format!("{}\n({number})", lines.join("\n"))
}

fn body(said: &Said, name: &str, team: u64, number: u64, commit: u64, at: Time) -> String {
    let (group, controller) = match said.kind {
        "Kustomization" => ("kustomize.toolkit.fluxcd.io", "kustomize-controller"),
        "HelmRelease" => ("helm.toolkit.fluxcd.io", "helm-controller"),
        RARE_KIND => ("image.toolkit.fluxcd.io", "image-reflector-controller"),
        _ => ("source.toolkit.fluxcd.io", "source-controller"),
    };
    let namespace = format!("team-{team:02}");
    // Copies of it begin with other digits.
    let hash = format!("0{:015x}{:016x}{:08x}", mix(team, commit) >> 4, mix(commit, team), commit);
    let mut metadata = json!({
        format!("{group}/revision"): if said.kind == "HelmRelease" { format!("1.{commit}.{team}") } else { format!("main@sha1:{hash}") },
        "event.toolkit.fluxcd.io/team": namespace,
        "event.toolkit.fluxcd.io/summary": "production: whom to call is in the handbook, chapter four; what to do first is in its appendix",
    });
    if said.confirms {
        metadata[format!("{group}/commit_status")] = json!("update");
    }
    let mut message = said.message.clone();
    // About as long as those of controllers that say what they changed.
    while message.len() < 300 {
        message += "\nConfigMap/settings unchanged";
    }
    json!({
        "involvedObject": {
            "apiVersion": format!("{group}/v1"), "kind": said.kind, "namespace": namespace, "name": name,
            "uid": format!("6f0c1a52-9d3e-4b7a-8c11-{:012}", mix(team, 7) % 1_000_000), "resourceVersion": number.to_string(),
        },
        "severity": said.severity, "timestamp": at.to_string(), "message": message, "reason": said.reason, "metadata": metadata,
        "reportingController": controller, "reportingInstance": format!("{controller}-6c8b7d5f9c-x2x4k"),
    })
    .to_string()
}

/// Every third team has its events told, failures go to whoever is on call, some teams have commit statuses.
fn routes(team: u64, number: u64, error: bool) -> Vec<RouteRef> {
    let provider = |namespace: &str, name: &str| Arc::new(ConfigKey::provider(namespace, name));
    let alert = |namespace: &str, name: &str, to: Arc<ConfigKey>| {
        RouteRef::alert(Arc::new(ConfigKey::alert(namespace, name)), to, false)
    };
    let namespace = format!("team-{team:02}");
    let mut routes = Vec::new();
    if team.is_multiple_of(3) {
        routes.push(alert(&namespace, "all", provider(&namespace, "chat")));
    }
    if error {
        routes.push(alert("flux-system", "failures", provider("flux-system", "pager")));
    }
    if team % 10 == 1 {
        let status = Arc::new(ConfigKey::commit_status("flux-system", "commits"));
        routes.push(RouteRef::commit_status(status, provider("flux-system", "git"), false, std::time::Duration::ZERO));
    }
    if number % 5_000 == 3 {
        routes.push(alert("flux-system", "samples", provider("flux-system", ARCHIVE)));
    }
    routes
}

/// The finalizer of SplitMix64 over two numbers: the same for the same two.
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
