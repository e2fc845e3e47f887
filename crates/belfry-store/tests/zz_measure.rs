use belfry_core::{
    ConfigKey, ObjectKey,
    plan::{Candidate, Origin, RouteRef},
};
use belfry_store::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

fn event(n: u64, routes: &[RouteRef]) -> Candidate {
    Candidate {
        object: ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".into(),
            kind: "Kustomization".into(),
            namespace: format!("team-{}", n % 50),
            name: format!("app-{}", n % 1000),
            ..ObjectKey::default()
        },
        origin: Origin::Recorder,
        severity: "info".into(),
        reason: "ReconciliationSucceeded".into(),
        revision: Some(format!("main@sha1:{n:040x}")),
        updates_commit_status: true,
        dedupe: n,
        body_hash: n ^ 0x5555_0000_0000_0000,
        body: vec![b'x'; 1000].into(),
        routes: routes.to_vec(),
    }
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn measure() {
    let dir = std::env::var("MEAS_DIR").unwrap_or("/tmp/meas/db".into());
    let total: u64 = std::env::var("MEAS_N").map(|n| n.parse().unwrap()).unwrap_or(300_000);
    let appenders: u64 = std::env::var("MEAS_A").map(|n| n.parse().unwrap()).unwrap_or(64);
    let _ = std::fs::remove_dir_all(&dir);
    let store = Store::open_sqlite(dir.as_ref(), Options::default()).unwrap();
    let routes = [RouteRef {
        alert: Arc::new(ConfigKey::alert("n", "a")),
        provider: Arc::new(ConfigKey::provider("n", "p")),
        takes_status_updates: true,
    }];
    let started = Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for a in 0..appenders {
        let store = store.clone();
        let routes = routes.clone();
        set.spawn(async move {
            let mut waits = Vec::new();
            for i in 0..total / appenders {
                let t = Instant::now();
                store.append(event(a * 10_000_000 + i * 7 + a, &routes)).await.unwrap();
                waits.push(t.elapsed());
            }
            waits
        });
    }
    let mut waits: Vec<Duration> = set.join_all().await.into_iter().flatten().collect();
    let took = started.elapsed();
    waits.sort();
    let s = store.stats();
    println!(
        "append: {:.0}/s p50 {:?} p99 {:?} max {:?}; commits {} ({:.1} per), db {} MB",
        waits.len() as f64 / took.as_secs_f64(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
        s.commits,
        waits.len() as f64 / s.commits as f64,
        s.db_bytes >> 20
    );
    // drain, leaving 10k
    let dest = store.dests().await.unwrap()[0].0;
    let started = Instant::now();
    let mut done = 0u64;
    let mut claim_time = Duration::ZERO;
    let mut claims_n = 0;
    'o: loop {
        let t = Instant::now();
        let claims = store.claim(vec![(dest, Room { lanes: 64, probe: false })]).await.unwrap();
        claim_time += t.elapsed();
        claims_n += 1;
        if claims.lanes.is_empty() {
            store.flush().await;
            if store.stats().pending.is_empty() {
                break;
            }
            continue;
        }
        for c in claims.lanes {
            let now = c.rows[0].created;
            for r in &c.rows {
                done += 1;
                store.settle(Settlement {
                    lane: c.lane,
                    dest,
                    results: vec![RowResult {
                        delivery: r.id,
                        attempt: Some(AttemptRecord {
                            n: 1,
                            at: now,
                            took: Duration::ZERO,
                            status: Some(200),
                            outcome: AttemptOutcome::Delivered,
                            error: String::new(),
                        }),
                        state: RowState::Delivered,
                    }],
                    finish: None,
                });
            }
            store.settle(Settlement { lane: c.lane, dest, results: vec![], finish: Some(Finish::default()) });
            if total - done <= 10_000 {
                store.flush().await;
                break 'o;
            }
        }
    }
    println!(
        "drain: {:.0}/s ({done}), claim avg {:?} x {claims_n}",
        done as f64 / started.elapsed().as_secs_f64(),
        claim_time / claims_n
    );
    let t = Instant::now();
    store.flush().await;
    println!("flush {:?}", t.elapsed());
    for (name, q) in [
        ("newest", DeliveryQuery::default()),
        ("pending", DeliveryQuery { states: vec![DeliveryState::Pending], ..Default::default() }),
        (
            "object",
            DeliveryQuery {
                object: ObjectFilter { name: Some("app-7".into()), ..Default::default() },
                ..Default::default()
            },
        ),
        ("missing provider", DeliveryQuery { provider: Some("nope".into()), ..Default::default() }),
        ("dead", DeliveryQuery { states: vec![DeliveryState::Dead], ..Default::default() }),
    ] {
        let t = Instant::now();
        let p = store.deliveries(q).await.unwrap();
        println!("query {name}: {:?} ({} rows)", t.elapsed(), p.items.len());
    }
    let t = Instant::now();
    store.close().await;
    println!("close {:?}", t.elapsed());
    let t = Instant::now();
    let store = Store::open_sqlite(dir.as_ref(), Options::default()).unwrap();
    println!("open {:?}, pending {}", t.elapsed(), store.stats().pending.values().map(|p| p.count).sum::<u64>());
    drop(store);
    let t = Instant::now();
    let opts = Options { retention_bytes: 50 << 20, ..Options::default() };
    let store = Store::open_sqlite(dir.as_ref(), opts).unwrap();
    println!("open again {:?}", t.elapsed());
    // appends during prune
    let p = {
        let store = store.clone();
        tokio::spawn(async move {
            let t = Instant::now();
            (store.prune().await.unwrap(), t.elapsed())
        })
    };
    let mut waits = Vec::new();
    let mut n = 0;
    while !p.is_finished() && n < 20_000 {
        let t = Instant::now();
        store.append(event(5_000_000_000 + n, &routes)).await.unwrap();
        waits.push(t.elapsed());
        n += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    waits.sort();
    println!(
        "append during prune: n {} p50 {:?} p99 {:?} max {:?}; {:?}",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() * 99 / 100],
        waits[waits.len() - 1],
        p.await.unwrap()
    );
}
