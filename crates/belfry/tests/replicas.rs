//! Three replicas on one PostgreSQL: killed at random moments under load, and the server crashed in between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;
#[path = "common/witness.rs"]
mod witness;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use common::{Belfry, PATIENCE, client, event, generic, on_database};
use testkit::{Answer, Postgres, Sink, postgres::Stop, skip, until};
use witness::Witness;

const SENDERS: usize = 12;
const REPLICAS: usize = 3;
/// Crashes of the server.
const CRASHES: u32 = 3;
/// How long replicas and server are made to die, in seconds.
const SECONDS: &str = "BELFRY_TEST_REPLICAS_SECONDS";
/// As long as CI does it.
const SHORT: Duration = Duration::from_secs(15);

/// What senders know.
struct Load {
    urls: Vec<String>,
    witnesses: Vec<Arc<Witness>>,
    /// Messages, and when they were answered 202.
    accepted: Mutex<Vec<(String, Instant)>>,
    done: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nor_out_of_order_while_replicas_and_the_server_die() {
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await.unwrap().unwrap();
    let Some(server) = server else { return skip("PostgreSQL is missing") };
    let length = std::env::var(SECONDS).map_or(SHORT, |text| Duration::from_secs(text.parse().expect(SECONDS)));
    let url = server.url(&server.database().unwrap());
    let sink = Sink::start().unwrap();
    let mut replicas = start(&url, &sink).await;
    let load = Arc::new(Load {
        urls: replicas.iter().map(|replica| replica.events.clone()).collect(),
        witnesses: replicas.iter().map(|_| Arc::default()).collect(),
        accepted: Mutex::default(),
        done: AtomicBool::new(false),
    });
    let watched = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = replicas
        .iter()
        .zip(&load.witnesses)
        .map(|(replica, witness)| {
            tokio::spawn(Arc::clone(witness).watch(format!("{}/readyz", replica.health), Arc::clone(&watched)))
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS).map(|sender| tokio::spawn(send(sender, Arc::clone(&load)))).collect();
    let (begun, mut kills, mut crashes) = (Instant::now(), 0, 0);
    while begun.elapsed() < length || crashes < CRASHES {
        let pause = length.as_millis() as u64 / 60;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(pause / 2..pause * 3 / 2 + 1))).await;
        let victim = fastrand::usize(..REPLICAS);
        if begun.elapsed() > length * (2 * crashes + 1) / (2 * CRASHES) {
            crash(&server, &mut replicas, victim).await;
            crashes += 1;
        } else {
            replicas[victim].process.restart().unwrap();
            replicas[victim].ready().await;
        }
        kills += 1;
    }
    load.done.store(true, Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    until("the backlog to be delivered", 2 * PATIENCE, async || {
        let pending = replicas[0].deliveries("state=pending").await.len();
        anyhow::ensure!(pending == 0, "{pending} are pending");
        Ok(())
    })
    .await
    .unwrap();
    watched.store(true, Relaxed);
    for watcher in watchers {
        watcher.await.unwrap();
    }
    let accepted = std::mem::take(&mut *load.accepted.lock().unwrap());
    assert!(accepted.len() > 100, "only {} events were accepted: that proves little", accepted.len());
    let arrived = arrivals(&sink, &accepted);
    eprintln!("{:?}: {kills} kills, {crashes} crashes of the server, {arrived}", begun.elapsed());
    for witness in &load.witnesses {
        let (lies, (looks, unready)) = (witness.lies(), witness.looks());
        eprintln!("/readyz: {looks} looks, {unready} times not ready, {} lies", lies.len());
        assert!(lies.is_empty(), "{lies:?}");
    }
}

/// Crashes the server, and a replica while it is away. All say that they take nothing, and, once it is back, that they do.
async fn crash(server: &Postgres, replicas: &mut [Belfry], victim: usize) {
    server.stop(Stop::Immediate).unwrap();
    for replica in replicas.iter() {
        let health = format!("{}/readyz", replica.health);
        until("a replica to be not ready", PATIENCE, async || {
            let status = client().get(&health).send().await?.status();
            anyhow::ensure!(status.as_u16() == 503, "{status}");
            Ok(())
        })
        .await
        .unwrap();
    }
    replicas[victim].process.restart().unwrap();
    server.resume().unwrap();
    for replica in replicas {
        replica.ready().await;
    }
}

/// Sees to it that all that was accepted has arrived, in order; what there is to tell of it.
fn arrivals(sink: &Sink, accepted: &[(String, Instant)]) -> String {
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    let mut order: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let received = sink.received();
    for request in &received {
        let body = request.json().expect("a whole event");
        let message = body["message"].as_str().unwrap().to_owned();
        let (object, n) = message.split_once(' ').unwrap();
        let (object, n) = (object.to_owned(), n.parse().unwrap());
        seen.entry(message).or_insert_with(|| {
            order.entry(object).or_default().push(n);
            request.arrived
        });
    }
    let lost: Vec<_> = accepted.iter().filter(|(message, _)| !seen.contains_key(message)).collect();
    assert!(lost.is_empty(), "{} of {} accepted events are lost: {lost:?}", lost.len(), accepted.len());
    for (object, order) in order {
        assert!(order.is_sorted(), "{object} is out of order: {order:?}");
    }
    let waited = accepted.iter().map(|(message, at)| seen[message].saturating_duration_since(*at)).max();
    let mut times: Vec<Instant> = received.iter().map(|request| request.arrived).collect();
    times.sort();
    let stall = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    format!(
        "{} events accepted, {} arrived more than once, the longest under way for {:?}, the longest stall {:?}",
        accepted.len(),
        received.len() - seen.len(),
        waited.unwrap_or_default(),
        stall.unwrap_or_default()
    )
}

async fn start(url: &str, sink: &Sink) -> Vec<Belfry> {
    let manifests = generic("one", &sink.url("/"));
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Belfry::start(&manifests, &on_database(url)).await);
    }
    replicas
}

/// Waits until each of these replicas says whether the Provider is down.
async fn says_down(replicas: &[Belfry], down: bool) {
    let wanted = format!("belfry_provider_down{{namespace=\"flux-system\",provider=\"one\"}} {}", u8::from(down));
    for replica in replicas {
        until("the circuit to turn", PATIENCE, async || {
            let text = client().get(&replica.metrics).send().await?.text().await?;
            anyhow::ensure!(text.lines().any(|line| line == wanted), "{}", replica.metrics);
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_is_probed_by_one_replica_at_a_time_and_back_for_all() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let url = server.url(&server.database().unwrap());
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::Status(503));
    let replicas = start(&url, &sink).await;
    for n in 0..SENDERS {
        replicas[n % REPLICAS].accept(&event(&format!("app-{n}"), "info", "x")).await;
    }
    says_down(&replicas, true).await;
    let before = sink.received().len();
    let probes = sink.wait_for(before + 3, PATIENCE).await.unwrap().split_off(before);
    for pair in probes.windows(2) {
        // The shortest pause is 0.8 s after the answer, whoever makes the next probe.
        let pause = pair[1].arrived - pair[0].arrived;
        assert!(pause > Duration::from_millis(700), "probes came {pause:?} apart: {probes:?}");
    }
    sink.default_answer(Answer::Status(200));
    says_down(&replicas, false).await;
    replicas[0].wait_for("delivered", SENDERS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_one_replica_is_asked_for_is_kept_by_all_and_by_those_that_come_later() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let url = server.url(&server.database().unwrap());
    let sink = Sink::start().unwrap();
    sink.answer([Answer::header(429, "retry-after", "3600")]);
    let mut replicas = start(&url, &sink).await;
    replicas[0].accept(&event("first", "info", "x")).await;
    replicas[0].wait_for("pending", 1).await;
    sink.wait_for(1, PATIENCE).await.unwrap();
    until("the pause to be known", PATIENCE, async || {
        let known = replicas[0].deliveries("state=pending").await;
        anyhow::ensure!(known[0]["attempts"] == 1, "{known:?}");
        Ok(())
    })
    .await
    .unwrap();
    replicas[2].process.restart().unwrap();
    replicas[2].ready().await;
    for (n, replica) in replicas.iter().enumerate() {
        replica.accept(&event(&format!("app-{n}"), "info", "x")).await;
    }
    says_down(&replicas, true).await;
    assert_eq!(sink.received().len(), 1);
    // A change of the Provider, seen by whichever replica sees it first, ends the pause for all.
    let changed = generic("one", &sink.url("/changed"));
    for replica in &replicas {
        replica.write("manifests.yaml", &changed);
    }
    replicas[0].wait_for("delivered", 1 + REPLICAS).await;
    says_down(&replicas, false).await;
}

/// Posts the events of one object one after the other, to any replica, each until one has taken it.
async fn send(sender: usize, load: Arc<Load>) {
    let client = client();
    let object = format!("app-{sender}");
    for n in 0.. {
        let message = format!("{object} {n}");
        let event = event(&object, "info", &message);
        loop {
            let replica = fastrand::usize(..REPLICAS);
            let start = Instant::now();
            let answer = client.post(&load.urls[replica]).json(&event).send().await;
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(202 | 429) => {
                    load.witnesses[replica].answered(start, true);
                    load.accepted.lock().unwrap().push((message, Instant::now()));
                    break;
                }
                Ok(503) => load.witnesses[replica].answered(start, false),
                Ok(other) => panic!("answered {other}"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if load.done.load(Relaxed) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
