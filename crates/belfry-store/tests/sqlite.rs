//! The conformance suite on SQLite, and what only SQLite can get wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

mod conformance;

use std::fs;

use belfry_store::{OpenError, Options, Refused, Store};
use conformance::{Fixture, World, event};
use tempfile::TempDir;

struct Sqlite(TempDir);

impl Fixture for Sqlite {
    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, options: Options) -> Store {
        Store::open_sqlite(self.0.path(), options).unwrap()
    }
}

conformance::suite!(Sqlite);

#[tokio::test]
async fn one_process_at_a_time() {
    let world = World::<Sqlite>::new();
    let folder = world.fixture.0.path();
    let refused = Store::open_sqlite(folder, Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    world.store.clone().close().await;
    let _store = Store::open_sqlite(folder, Options::default()).unwrap_err();
    let folder = world.fixture;
    drop(world.store);
    Store::open_sqlite(folder.0.path(), Options::default()).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Store::open_sqlite(folder.path(), Options::default()).unwrap().close().await;
    let file = folder.path().join("belfry.db");
    rusqlite::Connection::open(&file).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let refused = Store::open_sqlite(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 99, .. }), "{refused}");
    assert!(refused.to_string().contains("newer version"), "{refused}");
}

#[tokio::test]
async fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("belfry.db");
    fs::write(&file, vec![7; 8192]).unwrap();
    let refused = Store::open_sqlite(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
    fs::remove_file(&file).unwrap();
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    let refused = Store::open_sqlite(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_stored_fails_alone() {
    let world = World::<Sqlite>::new();
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..40 {
        let mut candidate = event(n, "app", &["a"]);
        if n == 20 {
            candidate.body = vec![b'x'; 17 << 20].into();
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
    let pending = world.store.stats().pending;
    let (dest, waits) = pending.iter().next().unwrap();
    assert_eq!((waits.count, world.store.waiting(*dest)), (39, 39));
}

#[tokio::test]
async fn what_is_pruned_is_given_back() {
    let world = World::<Sqlite>::with(|options| options.retention_bytes = 1 << 20);
    for n in 0..64 {
        let mut candidate = event(n, "app", &[]);
        candidate.body = vec![b'x'; 256 << 10].into();
        world.append(candidate).await;
    }
    let file = world.fixture.0.path().join("belfry.db");
    let pruned = world.store.prune().await.unwrap();
    assert!((60..64).contains(&pruned.events), "{pruned:?}");
    world.store.clone().close().await;
    let size = file.metadata().unwrap().len();
    assert!(size < 6 << 20, "{size}");
}
