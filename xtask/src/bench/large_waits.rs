//! Waits on a large store beside the same ones on an empty store, in turns.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use anyhow::{Context as _, ensure};

use super::{
    histogram::Histogram,
    large::{Row, TARGET},
    large_client::Client,
    large_questions::Known,
    process::Server,
    waits::{post, waiting},
};

/// What another 95 of 100 answers may take longer than on the empty store, in milliseconds.
const SLACK: f64 = 2.0;

/// What one server's waits took.
#[derive(Default)]
struct Waits {
    known: Histogram,
    whole: Histogram,
    coming: Histogram,
}

/// Measures.
///
/// # Errors
/// When a server can't be reached, or answers something else.
pub fn rows(empty: &Server, large: &Server, known: &Known, times: u32) -> anyhow::Result<Vec<Row>> {
    let mut waits = [Waits::default(), Waits::default()];
    // The large store may have been asked before.
    let salt = std::process::id();
    for turn in 0..times {
        for (server, waits) in [empty, large].into_iter().zip(&mut waits) {
            let (name, revision) = (format!("web-{salt}-{turn}"), revision(salt, turn));
            waits.come(server, &name, &revision)?;
            waits.ask(server, &name, &revision)?;
        }
    }
    let mut many = Histogram::default();
    let mut client = Client::connect(known.api)?;
    for turn in 0..times {
        let hash = known.hash(u64::from(turn));
        many.record(client.get(&format!("/api/v1/wait?revision={hash}&timeout=0s"))?.took);
    }
    let [empty, large] = waits;
    let mut rows = Vec::new();
    let pairs = [
        ("wait: a revision that is known, of an object", empty.known, large.known),
        ("wait: a revision that is known", empty.whole, large.whole),
        ("wait: from the event to the answer", empty.coming, large.coming),
    ];
    for (name, empty, large) in pairs {
        let most = empty.quantile(0.95) + SLACK;
        rows.push(row(format!("{name} (empty store)"), empty, None));
        rows.push(row(name.into(), large, Some(most)));
    }
    rows.push(row("wait: an old commit of some hundred objects".into(), many, Some(TARGET)));
    Ok(rows)
}

fn row(name: String, took: Histogram, target: Option<f64>) -> Row {
    Row { name, took, size: 1.0, blank: 0, target }
}

fn revision(salt: u32, turn: u32) -> String {
    format!("main@sha1:{:08x}{salt:08x}48332b2de7c17dd8b8384bbc", turn.wrapping_mul(0x9e37_79b1))
}

impl Waits {
    /// Somebody waits, and then it happens.
    fn come(&mut self, server: &Server, name: &str, revision: &str) -> anyhow::Result<()> {
        let (api, metrics) = (server.api.context("it has no API")?, server.metrics.context("it has no metrics")?);
        let mut wait = TcpStream::connect(api)?;
        let path = format!("/api/v1/wait?revision={revision}&object=Kustomization/apps/{name}");
        wait.write_all(format!("GET {path} HTTP/1.1\r\nHost: {api}\r\nConnection: close\r\n\r\n").as_bytes())?;
        waiting(metrics, 1)?;
        let start = Instant::now();
        post(server.events, name, revision, "ReconciliationSucceeded", true)?;
        let mut answer = String::new();
        wait.read_to_string(&mut answer)?;
        self.coming.record(start.elapsed());
        ensure!(answer.contains("\"verdict\":\"succeeded\""), "a wait was answered {answer}");
        waiting(metrics, 0)
    }

    /// It has happened.
    fn ask(&mut self, server: &Server, name: &str, revision: &str) -> anyhow::Result<()> {
        let mut client = Client::connect(server.api.context("it has no API")?)?;
        for (path, took) in [
            (format!("/api/v1/wait?revision={revision}&object=Kustomization/apps/{name}"), &mut self.known),
            (format!("/api/v1/wait?revision={revision}"), &mut self.whole),
        ] {
            let answer = client.get(&path)?;
            let text = String::from_utf8_lossy(&answer.body);
            ensure!(text.contains("\"verdict\":\"succeeded\""), "a wait was answered {text}");
            took.record(answer.took);
        }
        Ok(())
    }
}
