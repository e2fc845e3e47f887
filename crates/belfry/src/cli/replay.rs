//! `belfry replay`: posts recorded events, in their order, until each is taken.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use http::{StatusCode, header};
use serde_json::Value;

/// Post recorded events to any address.
#[derive(Debug, Args)]
pub struct Replay {
    /// Events: a JSON array, or one event (bare, or as `event` of an object) on each line
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to post
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090/")]
    to: String,
    /// Events per second at most
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
}

/// How the posts were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken.
    pub accepted: usize,
    /// Known already.
    pub repeats: usize,
    /// Refused for good.
    pub refused: usize,
}

impl Replay {
    /// Posts them all; exit code 1 when one was refused.
    pub async fn run(self) -> anyhow::Result<u8> {
        let events = read(&self.file)?;
        let client = client()?;
        let pause = self.rate.filter(|rate| *rate > 0.0).map(|rate| Duration::from_secs_f64(1.0 / rate));
        let terminal = std::io::stderr().is_terminal();
        let start = Instant::now();
        let mut tally = Tally::default();
        for (i, event) in events.iter().enumerate() {
            post(&client, &self.to, event, &mut tally).await?;
            if terminal {
                write!(std::io::stderr(), "\r{}/{} events", i + 1, events.len())?;
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        if terminal {
            writeln!(std::io::stderr())?;
        }
        let Tally { accepted, repeats, refused } = tally;
        writeln!(
            std::io::stdout(),
            "{} events in {:.1} s: {accepted} accepted, {repeats} repeats, {refused} refused",
            events.len(),
            start.elapsed().as_secs_f64()
        )?;
        Ok(u8::from(refused > 0))
    }
}

/// The client that posts.
pub fn client() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build()?)
}

/// Posts one event and tries again for as long as the server is busy or can't be reached.
pub async fn post(client: &reqwest::Client, to: &str, event: &Value, tally: &mut Tally) -> anyhow::Result<()> {
    let body = serde_json::to_vec(event)?;
    let mut pause = Duration::from_millis(250);
    loop {
        let mut request = client.post(to).header(header::CONTENT_TYPE, "application/json").body(body.clone());
        if let Some(component) = forwarded_by(event) {
            request = request.header("Gotk-Component", component);
        }
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::TOO_MANY_REQUESTS) => tally.repeats += 1,
            Ok(status) if status.is_success() => tally.accepted += 1,
            Ok(status) if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED => {
                if pause > Duration::from_secs(8) {
                    bail!("{to} still answers {status}");
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
            Ok(status) => {
                tracing::warn!(%status, "an event was refused");
                tally.refused += 1;
            }
            Err(error) if pause > Duration::from_secs(8) => {
                return Err(error).with_context(|| format!("can't reach {to}"));
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
                continue;
            }
        }
        return Ok(());
    }
}

/// The reporting controller, when the event has the form in which a `generic` provider passes it on: metadata keys
/// without any prefix.
fn forwarded_by(event: &Value) -> Option<&str> {
    let prefixed =
        event.get("metadata").and_then(Value::as_object).is_some_and(|pairs| pairs.keys().any(|key| key.contains('/')));
    (!prefixed).then(|| event.get("reportingController").and_then(Value::as_str)).flatten()
}

fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    parse(&text).with_context(|| format!("{} holds no recorded events", file.display()))
}

/// Reads recorded events.
pub fn parse(text: &str) -> anyhow::Result<Vec<Value>> {
    let items: Vec<Value> = match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(items)) => items,
        Ok(one) => vec![one],
        Err(_) => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| serde_json::from_str(line).with_context(|| format!("line {} is not JSON", i + 1)))
            .collect::<anyhow::Result<_>>()?,
    };
    if items.is_empty() {
        bail!("it is empty");
    }
    Ok(items.into_iter().map(|mut item| item.get_mut("event").map(Value::take).unwrap_or(item)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_recording_is_read() {
        let bare = r#"{"reason":"A","metadata":{"revision":"x"},"reportingController":"kustomize-controller"}"#;
        for text in [bare.to_owned(), format!("[{bare}]"), format!("{{\"seq\":1,\"event\":{bare}}}\n\n")] {
            let events = parse(&text).unwrap();
            assert_eq!(events[0]["reason"], "A");
            assert_eq!(forwarded_by(&events[0]), Some("kustomize-controller"));
        }
        let recorder = parse(r#"{"metadata":{"g/revision":"x"},"reportingController":"c"}"#).unwrap();
        assert_eq!(forwarded_by(&recorder[0]), None);
        let error = format!("{:#}", parse("{}\nnope").unwrap_err());
        assert!(error.contains("line 2 is not JSON"), "{error}");
    }
}
