//! `belfry rollouts`.

use std::io::Write as _;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::Remote,
    output::{ObjectFlags, Output, fetch, object, print, query, short, text},
    wait::text::json,
};

const LIST: &str = "/api/v1/rollouts";

/// List rollouts, newest first: which object went to which revision, and what came of it.
#[derive(Debug, Args)]
pub struct Rollouts {
    #[command(flatten)]
    remote: Remote,
    /// One rollout, whole
    #[arg(value_name = "ID")]
    id: Option<i64>,
    #[command(flatten)]
    objects: ObjectFlags,
    /// Only to this revision or commit: 7 digits of it suffice
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Only those that are pending, progressing, succeeded, failed or superseded; a list with commas
    #[arg(long)]
    state: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Rollouts {
    /// Prints them.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if let Some(id) = self.id {
            let rollout: Value = self.remote.ask(Method::GET, &format!("{LIST}/{id}")).await?;
            writeln!(out, "{}", json(&rollout))?;
            return Ok(());
        }
        let own = [("revision", &self.revision), ("state", &self.state)];
        let filters: Vec<_> = self.objects.filters().into_iter().chain(own).collect();
        let items = fetch(&self.remote, LIST, &query(&filters), self.limit).await?;
        let header = ["ID", "STARTED", "FINISHED", "OBJECT", "REVISION", "STATE", "ATTEMPTS", "REASON", "MESSAGE"];
        print(&mut out, self.output, items, "rollouts", header, |rollout| {
            [
                text(rollout, "id"),
                text(rollout, "started"),
                text(rollout, "finished"),
                object(rollout),
                short(&text(rollout, "revision")),
                text(rollout, "state"),
                text(rollout, "attempts"),
                text(rollout, "reason"),
                text(rollout, "message"),
            ]
        })?;
        Ok(())
    }
}
