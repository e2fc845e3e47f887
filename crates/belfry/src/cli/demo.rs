//! `belfry demo`: what a newcomer runs first. A real server, real recorded events, and destinations on this machine that
//! show what arrives; one of them fails for a while.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::body::Body;
use belfry_store::{DeliveryQuery, DeliveryState, Store};
use clap::Args;
use http::{Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use super::{
    flags::{LogEncoding, LogLevel, Logging},
    replay::{self, Tally},
};
use crate::{
    serve::{Addresses, Server, Settings, Source},
    server::{self, Bounds, WholeRequest, empty},
};

const PROVIDERS: &str = include_str!("../../../../examples/quickstart/providers.yaml");
const ALERTS: &str = include_str!("../../../../examples/quickstart/alerts.yaml");
const EVENTS: &str = include_str!("../../../../examples/events/flux.jsonl");
/// Where the manifests of the quickstart send to.
const SINK: &str = "127.0.0.1:4180";
/// How long the chat is away.
const OUTAGE: Duration = Duration::from_secs(6);

/// See it work: a server, recorded Flux events, and a destination that fails and recovers.
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder for the store and the manifests (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End when the show is over, rather than at Ctrl-C
    #[arg(long)]
    once: bool,
}

/// The destinations.
#[derive(Default)]
struct Sink {
    chat_is_down: AtomicBool,
    taken: AtomicUsize,
    refused: AtomicUsize,
    /// Messages that the record took since it was last asked.
    recorded: AtomicUsize,
}

impl Demo {
    /// Runs the show.
    pub async fn run(self) -> anyhow::Result<()> {
        Logging { log_encoding: LogEncoding::Console, log_level: LogLevel::Error }.start();
        let folder = self
            .data
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("belfry-demo-{}", std::process::id())));
        let sink = Arc::new(Sink::default());
        let (_stop, stopping) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.context("can't listen on this machine")?;
        let address = listener.local_addr()?.to_string();
        let shown = sink.clone();
        tokio::spawn(server::serve(listener, Bounds::default(), stopping, move |request| {
            let sink = shown.clone();
            async move { sink.take(&request) }
        }));
        let config = folder.join("quickstart");
        std::fs::create_dir_all(&config).with_context(|| format!("can't write to {}", folder.display()))?;
        for (name, text) in [("providers.yaml", PROVIDERS), ("alerts.yaml", ALERTS)] {
            std::fs::write(config.join(name), text.replace(SINK, &address))?;
        }
        let server = start(&config, &folder.join("data")).await?;
        say(&format!("A server runs from the manifests in {}. Events: http://{}/", config.display(), server.events))?;
        self.show(&server, &sink).await?;
        say(&format!(
            "\nThe server goes on until Ctrl-C. Try:\n  belfry deliveries --server http://{}\n  belfry replay FILE --to http://{}/\n  curl http://{}/metrics",
            server.api, server.events, server.metrics
        ))?;
        if !self.once {
            tokio::signal::ctrl_c().await?;
        }
        server.stop().await;
        if self.data.is_none() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        Ok(())
    }

    async fn show(&self, server: &Server, sink: &Sink) -> anyhow::Result<()> {
        let events = replay::parse(EVENTS)?;
        let (before, rest) = events.split_at(events.len() / 3);
        let (during, after) = rest.split_at(rest.len() / 2);
        let to = format!("http://{}/", server.events);
        say(&format!("\n1. {} recorded Flux events are posted, one after the other:\n", before.len()))?;
        let mut tally = Tally::default();
        post(&to, before, &mut tally).await?;
        settle(server.store()).await?;
        sink.say_recorded()?;

        say(&format!(
            "\n2. The chat goes down for {} s (503 to everything); {} more events:\n",
            OUTAGE.as_secs(),
            during.len()
        ))?;
        sink.chat_is_down.store(true, Ordering::Relaxed);
        post(&to, during, &mut tally).await?;
        tokio::time::sleep(OUTAGE).await;
        sink.say_recorded()?;
        let waiting = pending(server.store()).await?;
        say(&format!(
            "\n3. {} attempts were refused; {waiting} deliveries wait in the store. The record missed nothing. The chat comes back:\n",
            sink.refused.load(Ordering::Relaxed)
        ))?;
        sink.chat_is_down.store(false, Ordering::Relaxed);
        settle(server.store()).await?;

        say(&format!("\n4. The last {} events:\n", after.len()))?;
        post(&to, after, &mut tally).await?;
        settle(server.store()).await?;
        sink.say_recorded()?;
        say(&format!(
            "\n{} events accepted, {} of them known already (repeats); {} messages arrived, none was lost.",
            tally.accepted,
            server.store().stats().repeats,
            sink.taken.load(Ordering::Relaxed)
        ))
    }
}

async fn start(config: &Path, data: &Path) -> anyhow::Result<Server> {
    let settings = |port: [u16; 5]| Settings {
        source: Source::Directories { paths: vec![config.to_owned()], cluster: None },
        data: data.to_owned(),
        database: None,
        cluster_name: String::new(),
        public_url: None,
        runtime_namespace: "flux-system".into(),
        addresses: Addresses {
            events: format!("127.0.0.1:{}", port[0]),
            api: format!("127.0.0.1:{}", port[1]),
            metrics: format!("127.0.0.1:{}", port[2]),
            health: format!("127.0.0.1:{}", port[3]),
            receivers: format!("127.0.0.1:{}", port[4]),
        },
        api_token: None,
        api_access: None,
        api_trust_loopback: None,
        repeat_interval: Duration::from_secs(300),
        retention_age: Duration::from_secs(30 * 24 * 3600),
        retention_bytes: 2 << 30,
        no_cross_namespace_refs: false,
        workload_identity: false,
        elects: false,
        alert_commit_status: true,
        tekton: Default::default(),
    };
    // The usual ports, or any that are free: a demo should not fail for another server's sake.
    match Server::start(settings([9090, 9393, 8080, 9440, 9292])).await {
        Ok(server) => Ok(server),
        Err(_) => Server::start(settings([0; 5])).await,
    }
}

async fn post(to: &str, events: &[Value], tally: &mut Tally) -> anyhow::Result<()> {
    let client = replay::client()?;
    for event in events {
        replay::post(&client, to, event, tally).await?;
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    Ok(())
}

/// Waits until nothing is pending.
async fn settle(store: &Store) -> anyhow::Result<()> {
    for _ in 0..600 {
        if pending(store).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("deliveries are still pending after a minute")
}

async fn pending(store: &Store) -> anyhow::Result<usize> {
    let query = DeliveryQuery { states: vec![DeliveryState::Pending], ..DeliveryQuery::default() };
    Ok(store.deliveries(query).await?.items.len())
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

impl Sink {
    fn say_recorded(&self) -> anyhow::Result<()> {
        say(&format!("   record · {} events", self.recorded.swap(0, Ordering::Relaxed)))
    }

    fn take(&self, request: &WholeRequest) -> Response<Body> {
        let chat = request.uri().path() == "/slack";
        if chat && self.chat_is_down.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let _ = say("   chat   ✗ 503");
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        if chat {
            let mark = if text("/attachments/0/color") == "danger" { "🔴" } else { "🟢" };
            let (about, message) = (text("/attachments/0/author_name"), text("/attachments/0/text"));
            let _ = say(&format!("   chat   {mark} {about}: {}", first_line(&message)));
        } else {
            self.recorded.fetch_add(1, Ordering::Relaxed);
        }
        empty(StatusCode::NO_CONTENT)
    }
}

/// The first line, as far as it fits beside the rest.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 90 { line.chars().take(89).chain(['…']).collect() } else { line.to_owned() }
}
