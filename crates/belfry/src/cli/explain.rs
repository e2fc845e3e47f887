//! `belfry explain`.

use std::io::{self, Write};

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{
    client::Remote,
    output::{Output, object, print_table, query, short, text},
    wait::text::{escaped, json, tame},
};

/// Show which Alerts, CommitStatuses and Providers tell of an object, what keeps others from it, and what went out.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    remote: Remote,
    /// The object
    #[arg(value_name = "KIND/NAMESPACE/NAME")]
    object: String,
    /// Its cluster, if not the one that the server runs in
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Explain {
    /// Prints it.
    pub async fn run(self) -> anyhow::Result<()> {
        let filters = query(&[("object", &Some(self.object)), ("cluster", &self.cluster)]);
        let told: Value = self.remote.ask(Method::GET, &format!("/api/v1/explain?{filters}")).await?;
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", json(&told))?,
            Output::Ndjson => writeln!(out, "{}", escaped(&told.to_string()))?,
            Output::Table => page(&mut out, &told)?,
        }
        Ok(())
    }
}

fn list<'v>(of: &'v Value, key: &str) -> &'v [Value] {
    of[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn page(out: &mut impl Write, told: &Value) -> io::Result<()> {
    state(out, &told["object"])?;
    for (kind, key) in [("Alert", "alerts"), ("CommitStatus", "commitStatuses")] {
        for route in list(told, key) {
            writeln!(out)?;
            self::route(out, kind, route)?;
        }
    }
    if list(told, "alerts").is_empty() && list(told, "commitStatuses").is_empty() {
        writeln!(out, "\nno Alert and no CommitStatus selects it, or comes close")?;
    }
    events(out, list(told, "events"))?;
    deliveries(out, list(told, "deliveries"))
}

fn state(out: &mut impl Write, of: &Value) -> io::Result<()> {
    writeln!(out, "{}", object(of))?;
    let mut line = |name: &str, value: String| match value.is_empty() {
        true => Ok(()),
        false => writeln!(out, "  {name:<10} {value}"),
    };
    let reason = [text(of, "reason"), text(of, "message")].into_iter().filter(|part| !part.is_empty());
    let reason = reason.collect::<Vec<_>>().join(": ");
    match of["ready"].as_bool() {
        Some(true) => line("ready", format!("yes {reason}").trim_end().to_owned())?,
        Some(false) => line("ready", format!("no  {reason}").trim_end().to_owned())?,
        None => line("ready", format!("unknown {reason}").trim_end().to_owned())?,
    }
    line("live", short(&text(of, "live")))?;
    line("attempted", short(&text(of, "attempted")))?;
    line("rollout", text(&of["rollout"], "state"))?;
    line("source", text(of, "source"))?;
    for flag in ["suspended", "deleting"] {
        if of[flag] == true {
            line(flag, "yes".into())?;
        }
    }
    if of["indexed"] != true {
        line("index", "nothing watches it: all that is known comes from its events".into())?;
    }
    Ok(())
}

/// An Alert or a CommitStatus: what it does, and below what speaks against it.
fn route(out: &mut impl Write, kind: &str, route: &Value) -> io::Result<()> {
    let verb = if route["selects"] == true { "selects it" } else { "doesn't select it" };
    let provider = match text(route, "providerType") {
        kind if kind.is_empty() => format!("{} (there is no such Provider)", text(route, "provider")),
        kind => format!("{} ({kind})", text(route, "provider")),
    };
    writeln!(out, "{kind} {} {verb}, for Provider {provider}", text(route, "name"))?;
    for (mark, key) in [("-", "whyNot"), ("!", "findings")] {
        for reason in list(route, key) {
            writeln!(out, "  {mark} {}", tame(reason.as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn events(out: &mut impl Write, events: &[Value]) -> io::Result<()> {
    if events.is_empty() {
        return writeln!(out, "\nno events");
    }
    let rows = events.iter().map(|event| {
        let names: Vec<String> =
            list(event, "alerts").iter().filter(|alert| alert["tells"] == true).map(|one| text(one, "name")).collect();
        let told = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        let columns = [text(event, "id"), text(event, "time"), text(event, "severity"), text(event, "reason")];
        let [id, time, severity, reason] = columns;
        [id, time, severity, reason, told, text(event, "message")]
    });
    writeln!(out)?;
    let header = ["EVENT", "TIME", "SEVERITY", "REASON", "TOLD BY", "MESSAGE"];
    print_table(out, header.map(str::to_owned), rows)?;
    for event in events {
        for alert in list(event, "alerts").iter().filter(|alert| alert["tells"] != true) {
            let why: Vec<String> =
                list(alert, "whyNot").iter().map(|why| tame(why.as_str().unwrap_or_default())).collect();
            writeln!(out, "  {}: not by {}: {}", text(event, "id"), text(alert, "name"), why.join("; "))?;
        }
    }
    Ok(())
}

fn deliveries(out: &mut impl Write, deliveries: &[Value]) -> io::Result<()> {
    if deliveries.is_empty() {
        return writeln!(out, "\nno deliveries");
    }
    writeln!(out)?;
    let keys = ["id", "created", "state", "provider", "alert", "event", "attempts", "detail"];
    let header = ["DELIVERY", "CREATED", "STATE", "PROVIDER", "BY", "EVENT", "ATTEMPTS", "DETAIL"];
    print_table(out, header.map(str::to_owned), deliveries.iter().map(|one| keys.map(|key| text(one, key))))
}
