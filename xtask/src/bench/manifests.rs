//! The configuration that a server under test runs from.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use anyhow::Context as _;

use super::events::TEAMS;

/// Alerts that select nothing of what is posted.
pub const IDLE_ALERTS: usize = 1_000;

/// Writes a Provider, the one Alert that selects every Kustomization that events are about, and so many that select none.
///
/// # Errors
/// When the folder can't be written to.
pub fn write(folder: &Path, sink: SocketAddr, idle_alerts: usize) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("can't write to {}", folder.display()))?;
    let mut text = format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Provider\nmetadata: {{name: sink, namespace: flux-system}}\n\
         spec: {{type: generic, address: \"http://{sink}/\"}}\n"
    );
    let sources = (0..TEAMS).map(|team| source("Kustomization", &format!("team-{team:02}"), "*"));
    text += &alert("everything", &sources.collect::<String>());
    for idle in 0..idle_alerts {
        text += &alert(&format!("idle-{idle}"), &idle_source(idle));
    }
    fs::write(folder.join("manifests.yaml"), text).context("can't write the manifests")
}

/// Misses in every way in which one can: by name, by namespace, by kind.
fn idle_source(idle: usize) -> String {
    let team = format!("team-{:02}", idle as u64 % TEAMS);
    match idle % 4 {
        0 | 1 => source("Kustomization", &team, &format!("other-{idle}")),
        2 => source("Kustomization", &format!("other-{idle}"), "*"),
        _ => source("GitRepository", &team, "*"),
    }
}

fn source(kind: &str, namespace: &str, name: &str) -> String {
    format!("    - {{kind: {kind}, namespace: {namespace}, name: \"{name}\"}}\n")
}

fn alert(name: &str, sources: &str) -> String {
    let mut text = String::from("---\napiVersion: notification.toolkit.fluxcd.io/v1beta3\nkind: Alert\n");
    let _ = writeln!(text, "metadata: {{name: {name}, namespace: flux-system}}");
    let _ = write!(text, "spec:\n  providerRef: {{name: sink}}\n  eventSources:\n{sources}");
    text
}
