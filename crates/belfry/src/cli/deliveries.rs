//! `belfry deliveries` and `belfry redeliver`.

use std::io::Write as _;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use super::client::Remote;

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

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl List {
    /// Prints them.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if let Some(id) = self.id {
            let delivery: Value = self.remote.ask(Method::GET, &format!("/api/v1/deliveries/{id}")).await?;
            writeln!(out, "{delivery:#}")?;
            return Ok(());
        }
        let items = self.fetch().await?;
        match self.output {
            Output::Json => writeln!(out, "{:#}", Value::Array(items))?,
            Output::Table if items.is_empty() => writeln!(out, "no deliveries")?,
            Output::Table => {
                let rows = items.iter().map(row);
                let header = ["ID", "CREATED", "STATE", "PROVIDER", "OBJECT", "REASON", "ATTEMPTS", "NEXT", "DETAIL"];
                print_table(&mut out, header.map(str::to_owned), rows)?;
            }
        }
        Ok(())
    }

    async fn fetch(&self) -> anyhow::Result<Vec<Value>> {
        let filters = [
            ("state", &self.state),
            ("provider", &self.provider),
            ("alert", &self.alert),
            ("object", &self.object),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in filters {
            value.as_ref().map(|value| parameters.append_pair(name, value));
        }
        let filter = parameters.finish();
        let mut items = Vec::new();
        let mut cursor = String::new();
        while items.len() < self.limit {
            let limit = self.limit - items.len();
            let path = format!("/api/v1/deliveries?{filter}&limit={limit}{cursor}");
            let mut page: Value = self.remote.ask(Method::GET, &path).await?;
            if let Some(Value::Array(page)) = page.get_mut("items").map(Value::take) {
                items.extend(page);
            }
            match page.get("cursor").and_then(Value::as_i64) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        Ok(items)
    }
}

fn row(delivery: &Value) -> [String; 9] {
    ["id", "created", "state", "provider", "object", "reason", "attempts", "nextAttempt", "detail"]
        .map(|key| text(delivery, key))
}

/// A field on one short line.
pub(super) fn text(of: &Value, key: &str) -> String {
    let text = match of.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect()
}

/// Columns as wide as they need to be, the last one as it is.
pub(super) fn print_table<const N: usize>(
    out: &mut impl std::io::Write,
    header: [String; N],
    rows: impl Iterator<Item = [String; N]>,
) -> std::io::Result<()> {
    let rows: Vec<[String; N]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> =
        (0..N).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or_default()).collect();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
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
