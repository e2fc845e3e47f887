//! Three replicas on one PostgreSQL: killed at random moments under load, and the server crashed in between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{Belfry, PATIENCE, client, event, generic, on_database};
use testkit::{Answer, Postgres, Sink, postgres::Stop, skip, until};

const SENDERS: usize = 12;
const REPLICAS: usize = 3;
const KILLS: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nor_out_of_order_while_replicas_and_the_server_die() {
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await.unwrap().unwrap();
    let Some(server) = server else { return skip("PostgreSQL is missing") };
    let url = server.url(&server.database().unwrap());
    let sink = Sink::start().unwrap();
    let mut replicas = start(&url, &sink).await;
    let urls: Arc<Vec<String>> = Arc::new(replicas.iter().map(|replica| replica.events.clone()).collect());
    let (accepted, done) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send(sender, Arc::clone(&urls), Arc::clone(&accepted), Arc::clone(&done))))
        .collect();
    for round in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..900))).await;
        if round % 3 == 1 {
            server.stop(Stop::Immediate).unwrap();
            // It tells the truth while the database is away.
            let health = format!("{}/readyz", replicas[0].health);
            until("a replica to be not ready", PATIENCE, async || {
                let status = client().get(&health).send().await?.status();
                anyhow::ensure!(status.as_u16() != 200, "{status}");
                Ok(())
            })
            .await
            .unwrap();
            server.resume().unwrap();
        }
        let replica = &mut replicas[fastrand::usize(..REPLICAS)];
        replica.process.restart().unwrap();
        replica.ready().await;
    }
    done.store(true, Relaxed);
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
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    assert!(accepted.len() > 100, "only {} events were accepted: that proves little", accepted.len());
    let mut seen = BTreeSet::new();
    let mut order: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in sink.received() {
        let body = request.json().expect("a whole event");
        let message = body["message"].as_str().unwrap().to_owned();
        let (object, n) = message.split_once(' ').unwrap();
        if seen.insert(message.clone()) {
            order.entry(object.to_owned()).or_default().push(n.parse().unwrap());
        }
    }
    let lost: Vec<_> = accepted.iter().filter(|message| !seen.contains(*message)).collect();
    assert!(lost.is_empty(), "{} of {} accepted events are lost: {lost:?}", lost.len(), accepted.len());
    for (object, order) in order {
        assert!(order.is_sorted(), "{object} is out of order: {order:?}");
    }
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
async fn send(sender: usize, urls: Arc<Vec<String>>, accepted: Arc<Mutex<Vec<String>>>, done: Arc<AtomicBool>) {
    let client = client();
    let object = format!("app-{sender}");
    for n in 0.. {
        let message = format!("{object} {n}");
        let event = event(&object, "info", &message);
        loop {
            let url = &urls[fastrand::usize(..urls.len())];
            match client.post(url).json(&event).send().await.map(|answer| answer.status().as_u16()) {
                Ok(202 | 429) => {
                    accepted.lock().unwrap().push(message);
                    break;
                }
                Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(other) => panic!("answered {other}"),
            }
        }
        if done.load(Relaxed) {
            return;
        }
    }
}
