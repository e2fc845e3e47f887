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
use testkit::{Postgres, Sink, postgres::Stop, skip, until};

const SENDERS: usize = 12;
const REPLICAS: usize = 3;
const KILLS: usize = 9;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_nor_out_of_order_while_replicas_and_the_server_die() {
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await.unwrap().unwrap();
    let Some(server) = server else { return skip("PostgreSQL is missing") };
    let url = server.url(&server.database().unwrap());
    let sink = Sink::start().unwrap();
    let manifests = generic("one", &sink.url("/"));
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Belfry::start(&manifests, &on_database(&url)).await);
    }
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
