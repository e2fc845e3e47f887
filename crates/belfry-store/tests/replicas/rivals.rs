//! Several that append at the same time.

use belfry_core::{
    Seq,
    plan::{Candidate, Change},
};
use belfry_store::{Appended, EventQuery, Store};
use testkit::{Postgres, skip};

use super::{event, open};

/// What an object tells: that it failed, or that it is well again.
fn told(n: u64, object: u64, fails: bool) -> Candidate {
    let (severity, reason) = if fails { ("error", "BuildFailed") } else { ("info", "ReconciliationSucceeded") };
    Candidate {
        severity: severity.into(),
        reason: reason.into(),
        updates_commit_status: !fails,
        ..event(n, &format!("object-{object}"))
    }
}

/// Posts what happens to an object, each time to two of the stores at once: one of them stores it, as what it is, the other knows it.
async fn tell_of(stores: Vec<Store>, object: u64, rounds: u64) {
    for round in 0..rounds {
        let n = object * rounds + round;
        let fails = round % 2 == 0;
        let told = told(n, object, fails);
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
    let stores = open(server, &name, 4);
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
