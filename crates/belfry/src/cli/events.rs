//! `belfry events`.

use std::{io::Write, time::Duration};

use anyhow::bail;
use clap::Args;
use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    client::{self, Backoff, Failure, Remote},
    output::{ObjectFlags, Output, fetch, object, print, query, short, text},
    wait::text::{escaped, json, tame},
};

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const LIST: &str = "/api/v1/events";

/// List events, newest first, or follow them as they come.
#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    remote: Remote,
    /// One event, whole
    #[arg(value_name = "ID")]
    id: Option<i64>,
    #[command(flatten)]
    objects: ObjectFlags,
    /// Only of this revision or commit: 7 digits of it suffice
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Only of this severity: info or error
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<String>,
    /// Only with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only since then (RFC 3339, or a duration such as 1h)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only until then (RFC 3339, or a duration such as 1h)
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// How many at most; with --follow: how many of before [default: 50; with --follow: 10]
    #[arg(long)]
    limit: Option<usize>,
    /// Go on with what comes, oldest first, until Ctrl-C; connects again when the connection breaks
    #[arg(short, long, conflicts_with = "id")]
    follow: bool,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Events {
    /// Prints them.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        if let Some(id) = self.id {
            let event: Value = self.remote.ask(Method::GET, &format!("{LIST}/{id}")).await?;
            writeln!(out, "{}", json(&event))?;
            return Ok(());
        }
        if self.follow {
            return match self.follow(&mut out).await {
                // Who reads our output has enough of it.
                Err(error) if is_broken_pipe(&error) => Ok(()),
                ended => ended,
            };
        }
        let items = fetch(&self.remote, LIST, &self.listed(), self.limit.unwrap_or(50)).await?;
        let header = ["ID", "TIME", "OBJECT", "SEVERITY", "REASON", "REVISION", "MESSAGE"];
        print(&mut out, self.output, items, "events", header, |event| {
            [
                text(event, "id"),
                text(event, "time"),
                object(event),
                text(event, "severity"),
                text(event, "reason"),
                short(&text(event, "revision")),
                text(event, "message"),
            ]
        })?;
        Ok(())
    }

    fn filters(&self) -> Vec<(&'static str, &Option<String>)> {
        let own = [("revision", &self.revision), ("severity", &self.severity), ("reason", &self.reason)];
        self.objects.filters().into_iter().chain(own).collect()
    }

    fn listed(&self) -> String {
        query(&[self.filters(), vec![("since", &self.since), ("until", &self.until)]].concat())
    }

    async fn follow(&self, out: &mut impl Write) -> anyhow::Result<()> {
        if self.output == Output::Json {
            bail!("-o json has an end, and --follow has none: use -o ndjson");
        }
        // What the list doesn't hold yet comes after the newest event of before it was asked for.
        let newest = fetch(&self.remote, LIST, "", 1).await?;
        let before = fetch(&self.remote, LIST, &self.listed(), self.limit.unwrap_or(10)).await?;
        let mut after = newest.iter().chain(&before).filter_map(id).max().unwrap_or_default();
        for event in before.iter().rev() {
            self.print(out, event)?;
        }
        let client = self.remote.streaming().map_err(|failure| anyhow::anyhow!("{}", failure.message()))?;
        let filters = query(&self.filters());
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        let mut is_away = false;
        loop {
            let begun = Instant::now();
            let path = format!("{LIST}/stream?{filters}&after={after}");
            let failure = match self.remote.open(&client, &path).await {
                Ok(stream) => {
                    is_away = false;
                    self.pass_on(stream, out, &mut after).await?
                }
                Err(failure) => failure,
            };
            backoff.lasted(begun.elapsed());
            let wanted = match failure {
                Failure::Refused(_, message) | Failure::Unusable(message) => bail!("{message}"),
                Failure::Broken(_) => None,
                Failure::Away { message, after } => {
                    if !std::mem::replace(&mut is_away, true) {
                        writeln!(std::io::stderr(), "belfry: {}; trying again", tame(&message))?;
                    }
                    after
                }
            };
            sleep(backoff.next(wanted)).await;
        }
    }

    /// Prints what a stream brings until it ends, and keeps the id of the last one; says why it ended.
    async fn pass_on(
        &self,
        mut stream: client::Events,
        out: &mut impl Write,
        after: &mut i64,
    ) -> anyhow::Result<Failure> {
        loop {
            match stream.next().await {
                Ok(event) if event.name == "message" => {
                    let Ok(event) = serde_json::from_str::<Value>(&event.data) else {
                        bail!("{} sent something that is not expected", self.remote.server());
                    };
                    self.print(out, &event)?;
                    *after = id(&event).unwrap_or(*after);
                }
                // Something that this version doesn't know.
                Ok(_) => {}
                Err(failure) => return Ok(failure),
            }
        }
    }

    /// One that is not part of a list: its columns are as wide as most need.
    fn print(&self, out: &mut impl Write, event: &Value) -> anyhow::Result<()> {
        match self.output {
            Output::Table => writeln!(
                out,
                "{}  {:<48}  {:<5}  {:<24}  {:<24}  {}",
                text(event, "time"),
                object(event),
                text(event, "severity"),
                text(event, "reason"),
                short(&text(event, "revision")),
                text(event, "message"),
            ),
            Output::Json | Output::Ndjson => writeln!(out, "{}", escaped(&event.to_string())),
        }?;
        out.flush()?;
        Ok(())
    }
}

fn id(event: &Value) -> Option<i64> {
    event.get("id").and_then(Value::as_i64)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
