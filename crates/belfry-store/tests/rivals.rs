//! Several stores on one database that append at the same time.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use belfry_core::{
    ConfigKey, ObjectKey, Seq,
    plan::{Candidate, Change, Origin, RouteRef},
};
use belfry_store::{Appended, Database, EventQuery, Options, Store};
use testkit::{Postgres, skip};

/// What an object tells next, in turns of a failure and a success.
fn event(n: u64, object: u64, fails: bool) -> Candidate {
    let alert = Arc::new(ConfigKey::alert("n", "a"));
    Candidate {
        object: ObjectKey { kind: "Kustomization".into(), name: format!("object-{object}"), ..ObjectKey::default() },
        origin: Origin::Recorder,
        severity: if fails { "error" } else { "info" }.into(),
        reason: if fails { "BuildFailed" } else { "ReconciliationSucceeded" }.into(),
        revision: None,
        commit: None,
        updates_commit_status: !fails,
        rollout: None,
        dedupe: n,
        body_hash: n | 1 << 63,
        sent: None,
        body: n.to_string().into(),
        routes: vec![RouteRef::alert(alert, Arc::new(ConfigKey::provider("n", "p")), true)],
    }
}

/// Posts what happens to an object, each time to two of the stores at once: one of them stores it, as what it is, the other knows it.
async fn tell_of(stores: Vec<Store>, object: u64, rounds: u64) {
    for round in 0..rounds {
        let n = object * rounds + round;
        let fails = round % 2 == 0;
        let told = event(n, object, fails);
        let [first, second] = [(); 2].map(|()| fastrand::usize(..stores.len()));
        let again = Candidate { body_hash: !told.body_hash, ..told.clone() };
        let (one, other) = tokio::join!(stores[first].append(told), stores[second].append(again));
        let expected = if fails { Change::Failed } else { Change::Recovered };
        match (one.unwrap(), other.unwrap()) {
            (Appended::Stored { seq, change, .. }, Appended::Repeat { of })
            | (Appended::Repeat { of }, Appended::Stored { seq, change, .. }) => {
                assert_eq!((of, change), (seq, Some(expected)), "{n}");
            }
            both => panic!("{n}: {both:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_all_know_what_one_takes_in() {
    const OBJECTS: u64 = 48;
    const ROUNDS: u64 = 40;
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let database = Database::at(&server.url(&name));
    let stores: Vec<Store> = (0..4).map(|_| Store::open_postgres(&database, Options::default()).unwrap()).collect();
    let mut senders = tokio::task::JoinSet::new();
    for object in 0..OBJECTS {
        senders.spawn(tell_of(stores.clone(), object, ROUNDS));
    }
    let (mut done, mut last, mut seen) = (false, Seq(0), 0);
    // Whoever reads on misses nothing, for events come in the order of their numbers.
    while !done {
        done = senders.is_empty();
        let query = EventQuery { after: Some(last), limit: 500, ..Default::default() };
        let page = stores[0].events(query).await.unwrap();
        seen += page.items.len() as u64;
        last = page.items.last().map_or(last, |row| row.seq);
        done &= page.items.is_empty();
        while let Some(ended) = senders.try_join_next() {
            ended.unwrap();
        }
    }
    assert_eq!(seen, OBJECTS * ROUNDS);
    for store in stores {
        store.close().await;
    }
    server.remove_database(&name).unwrap();
}
