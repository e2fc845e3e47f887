//! The conformance suite on PostgreSQL, and what only several replicas or a server elsewhere can get wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

mod conformance;
#[path = "conformance/database.rs"]
mod database;

use std::time::Duration;

use belfry_store::{OpenError, Options, Refused, Store};
use conformance::{Fixture, World, event};
use database::Shared;

conformance::suite!(Shared);

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_fails_alone() {
    if !Shared::available() {
        return;
    }
    let world = World::<Shared>::new();
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..40 {
        let mut candidate = event(n, "app", &["a"]);
        if n == 20 {
            // Longer than an index can hold, however it is packed.
            candidate.object.name = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
        }
        let store = world.store.clone();
        appends.spawn(async move { (n, store.append(candidate).await) });
    }
    while let Some(answer) = appends.join_next().await {
        let (n, answer) = answer.unwrap();
        match n {
            20 => assert!(matches!(answer, Err(Refused::Invalid(_))), "{answer:?}"),
            _ => assert!(answer.is_ok(), "{n}: {answer:?}"),
        }
    }
    assert_eq!(world.store.health(), Ok(()));
    assert_eq!(world.store.stats().pending.values().next().unwrap().count, 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_start_together_and_a_schema_that_is_too_new_is_refused() {
    if !Shared::available() {
        return;
    }
    let fixture = Shared::create();
    let open = || {
        let database = fixture.database();
        tokio::task::spawn_blocking(move || Store::open_postgres(&database, Options::default()))
    };
    for store in [open(), open(), open(), open()] {
        store.await.unwrap().unwrap().close().await;
    }
    let set = |version: u32, needed: u32| {
        let sql = format!("UPDATE belfry_schema SET version = {version}, needed = {needed}");
        fixture.sql(&sql);
    };
    // A newer version that this one can live with has begun to replace it.
    set(99, 1);
    open().await.unwrap().unwrap().close().await;
    set(99, 99);
    let refused = open().await.unwrap().unwrap_err();
    assert!(matches!(refused, OpenError::NewerDatabase { found: 99, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn days_go_as_a_whole_but_for_what_waits() {
    if !Shared::available() {
        return;
    }
    let world = World::<Shared>::new();
    let sql = |sql: &str| world.fixture.sql(sql);
    for n in 0..20 {
        world.stored(event(n, &format!("app-{n}"), &["a"])).await;
    }
    let waits = world.stored(event(100, "app", &["b"])).await;
    let a = world.dest("a").await;
    assert_eq!(world.drain(a).await.len(), 20);
    assert_eq!(sql("SELECT count(*) FROM event_20833"), "21");
    world.pass(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(world.store.prune().await.unwrap().events, 20);
    assert_eq!(sql("SELECT to_regclass('event_20833') IS NULL, count(*) FROM event_rest"), "t|1");
    assert_eq!(sql("SELECT bytes - octet_length(body) - 512 FROM head, event"), "0");
    let b = world.dest("b").await;
    assert_eq!(world.drain(b).await, [waits]);
    assert_eq!(world.store.prune().await.unwrap().events, 1);
    assert_eq!(sql("SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM delivery), bytes FROM head"), "0|0|0");
}
