//! `belfry deliveries` and `belfry redeliver`.

use std::io::Write as _;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::Remote,
    output::{Output, fetch, print, query, text},
    wait::text::json,
};

/// List deliveries, newest first.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
    /// One delivery, with all its attempts
    #[arg(value_name = "ID")]
    id: Option<i64>,
    /// Only those that are pending, delivered, superseded or dead; a list with commas
    #[arg(long)]
    state: Option<String>,
    /// Only those to this Provider
    #[arg(long, value_name = "NAMESPACE/NAME")]
    provider: Option<String>,
    /// Only those that this Alert caused
    #[arg(long, value_name = "NAMESPACE/NAME")]
    alert: Option<String>,
    /// Only those about this object
    #[arg(long, value_name = "KIND/NAMESPACE/NAME")]
    object: Option<String>,
    /// Only those since then (RFC 3339, or a duration such as 1h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those until then (RFC 3339, or a duration such as 1h)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl List {
    /// Prints them.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if let Some(id) = self.id {
            let delivery: Value = self.remote.ask(Method::GET, &format!("/api/v1/deliveries/{id}")).await?;
            writeln!(out, "{}", json(&delivery))?;
            return Ok(());
        }
        let filters = query(&[
            ("state", &self.state),
            ("provider", &self.provider),
            ("alert", &self.alert),
            ("object", &self.object),
            ("since", &self.since),
            ("until", &self.until),
        ]);
        let items = fetch(&self.remote, "/api/v1/deliveries", &filters, self.limit).await?;
        let header = ["ID", "CREATED", "STATE", "PROVIDER", "OBJECT", "REASON", "ATTEMPTS", "NEXT", "DETAIL"];
        print(&mut out, self.output, items, "deliveries", header, |delivery| {
            ["id", "created", "state", "provider", "object", "reason", "attempts", "nextAttempt", "detail"]
                .map(|key| text(delivery, key))
        })?;
        Ok(())
    }
}

/// Deliver again what was delivered, superseded or given up.
#[derive(Debug, Args)]
pub struct Redeliver {
    #[command(flatten)]
    remote: Remote,
    /// The deliveries
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i64>,
}

impl Redeliver {
    /// Asks for each; the exit code is 1 when one was refused.
    pub async fn run(self) -> anyhow::Result<u8> {
        let mut code = 0;
        for id in self.ids {
            let path = format!("/api/v1/deliveries/{id}/redeliver");
            match self.remote.ask::<Value>(Method::POST, &path).await {
                Ok(answer) => writeln!(
                    std::io::stdout(),
                    "delivery {id} goes out again as {}",
                    answer.get("id").unwrap_or(&Value::Null)
                )?,
                Err(error) => {
                    writeln!(std::io::stderr(), "delivery {id}: {error:#}")?;
                    code = 1;
                }
            }
        }
        Ok(code)
    }
}
