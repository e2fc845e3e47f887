//! How many events a second 1, 2 and 4 replicas append to one PostgreSQL, with the same number of producers in all. Starts a
//! server of its own and prints a JSON object a line: what `cargo xtask bench --only postgres` reads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use anyhow::Context as _;
use belfry_core::{
    ConfigKey, ObjectKey,
    plan::{Candidate, Origin, RouteRef},
};
use belfry_store::{Database, Options, Store};
use testkit::Postgres;

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REPLICAS: [usize; 3] = [1, 2, 4];
const PRODUCERS: usize = 64;
const OBJECTS: u64 = 200;

fn event(n: u64) -> Candidate {
    let alert = Arc::new(ConfigKey::alert("flux-system", "a"));
    Candidate {
        object: ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".into(),
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: format!("app-{}", n % OBJECTS),
            ..ObjectKey::default()
        },
        origin: Origin::Recorder,
        severity: "info".into(),
        reason: "Progressing".into(),
        revision: Some(format!("main@sha1:{n:040x}")),
        commit: None,
        updates_commit_status: false,
        rollout: None,
        dedupe: n,
        body_hash: n | 1 << 63,
        sent: None,
        body: vec![b'x'; 1024].into(),
        routes: vec![RouteRef::alert(alert, Arc::new(ConfigKey::provider("flux-system", "p")), false)],
    }
}

/// Events a second.
async fn run(server: &Postgres, replicas: usize, events: u64) -> anyhow::Result<f64> {
    let name = server.database()?;
    let database = Database::at(&server.url(&name));
    let open = |_| Store::open_postgres(&database, Options::default());
    let stores = (0..replicas).map(open).collect::<Result<Vec<_>, _>>()?;
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let (store, next) = (stores[producer % replicas].clone(), Arc::clone(&next));
        producers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Relaxed);
                if n >= events {
                    return Ok(());
                }
                store.append(event(n)).await?;
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended?.map_err(|refused: belfry_store::Refused| refused)?;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    for store in stores {
        store.close().await;
    }
    server.remove_database(&name)?;
    Ok(rate)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (events, rounds) = (number(50_000)?, number(3)?);
    let settings = [("max_wal_size", "4GB"), ("shared_buffers", "512MB")];
    let server = Postgres::start(&settings)?.context("PostgreSQL is missing")?;
    for round in 0..rounds as usize {
        for turn in 0..REPLICAS.len() {
            let replicas = REPLICAS[(turn + round) % REPLICAS.len()];
            let rate = run(&server, replicas, events).await?;
            use std::io::Write as _;
            writeln!(std::io::stdout(), "{}", serde_json::json!({ "replicas": replicas, "rate": rate }))?;
        }
    }
    Ok(())
}
