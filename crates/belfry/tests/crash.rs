//! Killed at random moments under load: everything that was answered 202 arrives, whole; what arrives twice was under way
//! when the process died.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use belfry_core::limits;
use common::{Belfry, PATIENCE, client, event, generic};
use testkit::{Sink, until};

const KILLS: usize = 20;
const SENDERS: usize = 16;
const OBJECTS: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_the_process_is_killed() {
    let sink = Sink::start().unwrap();
    let mut belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let done = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| tokio::spawn(send(sender, belfry.events.clone(), accepted.clone(), done.clone())))
        .collect();

    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(50..600))).await;
        belfry.process.restart().unwrap();
        belfry.ready().await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    done.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    assert!(accepted.len() > 1000, "only {} events were accepted: that proves little", accepted.len());
    until("the backlog to be delivered", PATIENCE, async || {
        let pending = belfry.deliveries("state=pending").await.len();
        anyhow::ensure!(pending == 0, "{pending} are pending");
        Ok(())
    })
    .await
    .unwrap();

    let mut arrived: HashMap<String, usize> = HashMap::new();
    for request in sink.received() {
        let body = request.json().expect("a whole event");
        *arrived.entry(body["message"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let lost: Vec<_> = accepted.iter().filter(|message| !arrived.contains_key(*message)).collect();
    assert!(lost.is_empty(), "{} of {} accepted events are lost: {lost:?}", lost.len(), accepted.len());
    let twice: usize = arrived.values().map(|count| count - 1).sum();
    // What one process can have claimed: of each object, what is taken from its lane at a time.
    let in_flight = KILLS * OBJECTS * limits::LANE_CLAIM as usize;
    assert!(twice <= in_flight, "{twice} arrived again; no more than {in_flight} can have been under way");
    println!("{} accepted, {KILLS} kills, {twice} arrived twice, none lost", accepted.len());
}

/// Posts events one after the other, each again and again until it is answered 202 or, since it was taken by a process
/// that died before it could answer, 429.
async fn send(sender: usize, url: String, accepted: Arc<Mutex<Vec<String>>>, done: Arc<AtomicBool>) {
    let client = client();
    for i in 0.. {
        let message = format!("sender {sender} event {i}");
        let event = event(&format!("app-{}", (sender * 7 + i) % OBJECTS), "info", &message);
        loop {
            match client.post(&url).json(&event).send().await.map(|answer| answer.status().as_u16()) {
                Ok(202 | 429) => {
                    accepted.lock().unwrap().push(message);
                    break;
                }
                Ok(503) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(other) => panic!("answered {other}"),
            }
        }
        if done.load(Ordering::Relaxed) {
            return;
        }
    }
}
