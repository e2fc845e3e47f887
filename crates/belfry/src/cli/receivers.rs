//! `belfry receivers`.

use std::io::Write as _;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::Remote,
    output::{Output, print_table, text},
    wait::text::{escaped, json},
};

/// List Receivers, their paths, and their last webhooks.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    remote: Remote,
    /// One Receiver, with its last webhooks and what it could not reconcile
    #[arg(value_name = "NAMESPACE/NAME")]
    receiver: Option<String>,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl List {
    /// Prints them.
    pub async fn run(self) -> anyhow::Result<()> {
        let list: Value = self.remote.ask(Method::GET, "/api/v1/receivers").await?;
        let mut items = list["items"].as_array().cloned().unwrap_or_default();
        if let Some(wanted) = &self.receiver {
            items.retain(|item| name(item) == *wanted);
            anyhow::ensure!(!items.is_empty(), "there is no Receiver {wanted}");
        }
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", json(&Value::Array(items)))?,
            Output::Ndjson => items.iter().try_for_each(|item| writeln!(out, "{}", escaped(&item.to_string())))?,
            Output::Table if items.is_empty() => writeln!(out, "no receivers")?,
            Output::Table if self.receiver.is_some() => details(&mut out, &items[0])?,
            Output::Table => table(&mut out, &items)?,
        }
        Ok(())
    }
}

fn name(item: &Value) -> String {
    format!("{}/{}", text(item, "namespace"), text(item, "name"))
}

fn list<'v>(item: &'v Value, key: &str) -> &'v [Value] {
    item[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn table(out: &mut impl std::io::Write, items: &[Value]) -> std::io::Result<()> {
    let rows = items.iter().map(|item| {
        let last = list(item, "deliveries").first().cloned().unwrap_or_default();
        let state = |word: &str| list(item, "triggers").iter().filter(|one| one["state"] == word).count().to_string();
        // What is wrong with the Receiver comes before what its last webhook was about.
        let detail = if item["ready"] == true { text(&last, "reason") } else { text(item, "message") };
        [
            name(item),
            text(item, "type"),
            text(item, "ready"),
            text(item, "path"),
            text(&last, "time"),
            text(&last, "verdict"),
            text(&last, "resources"),
            state("pending"),
            state("dead"),
            detail,
        ]
    });
    let header = ["RECEIVER", "TYPE", "READY", "PATH", "LAST", "VERDICT", "RESOURCES", "WAITING", "DEAD", "DETAIL"];
    print_table(out, header.map(str::to_owned), rows)
}

fn details(out: &mut impl std::io::Write, item: &Value) -> std::io::Result<()> {
    writeln!(out, "{} ({})", name(item), text(item, "type"))?;
    writeln!(out, "ready: {}, {}: {}", text(item, "ready"), text(item, "reason"), text(item, "message"))?;
    writeln!(out, "path:  {}", text(item, "path"))?;
    for resource in list(item, "resources") {
        writeln!(out, "reconciles {}", resource.as_str().unwrap_or_default())?;
    }
    let row = |one: &Value| {
        ["time", "verdict", "event", "resources", "merged", "count", "id", "reason"].map(|key| text(one, key))
    };
    let header = ["TIME", "VERDICT", "EVENT", "RESOURCES", "MERGED", "COUNT", "ID", "REASON"];
    writeln!(out)?;
    print_table(out, header.map(str::to_owned), list(item, "deliveries").iter().map(row))?;
    if !list(item, "triggers").is_empty() {
        let row = |one: &Value| ["id", "time", "state", "object", "attempts", "detail"].map(|key| text(one, key));
        let header = ["TRIGGER", "TIME", "STATE", "OBJECT", "ATTEMPTS", "DETAIL"];
        writeln!(out)?;
        print_table(out, header.map(str::to_owned), list(item, "triggers").iter().map(row))?;
    }
    Ok(())
}
