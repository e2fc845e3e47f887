//! A disk that is full, on a file system of a few MB.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq,
    plan::{Candidate, Origin, RouteRef},
};
use belfry_store::{
    Appended, AttemptOutcome, AttemptRecord, Finish, Options, Refused, Room, RowResult, RowState, Settlement, Store,
};

/// A small file system, which goes with the test.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn event(n: u64) -> Candidate {
    Candidate {
        object: ObjectKey { kind: "Kustomization".into(), name: format!("app-{}", n % 5), ..ObjectKey::default() },
        origin: Origin::Recorder,
        severity: "info".into(),
        reason: "Progressing".into(),
        revision: None,
        commit: None,
        updates_commit_status: false,
        rollout: None,
        dedupe: n,
        body_hash: n,
        sent: None,
        body: vec![b'x'; 20_000].into(),
        routes: vec![RouteRef::alert(
            Arc::new(ConfigKey::alert("n", "a")),
            Arc::new(ConfigKey::provider("n", "p")),
            true,
        )],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_and_it_recovers() {
    let Some(mount) = Mount::new("6m") else {
        eprintln!("SKIPPED: a full disk was NOT tested, because mounting a small file system takes root");
        return;
    };
    let ballast = mount.path().join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let store = Store::open_sqlite(mount.path(), Options::default()).unwrap();

    let mut accepted: Vec<Seq> = Vec::new();
    accepted.push(stored(&store, event(0)).await.unwrap());
    let dest = store.dests().await.unwrap()[0].0;
    let claim = store.claim(vec![(dest, Room { lanes: 1, probe: false })]).await.unwrap().lanes.remove(0);

    let mut n = 1;
    let refused = loop {
        match stored(&store, event(n)).await {
            Ok(seq) => accepted.push(seq),
            Err(refused) => break refused,
        }
        n += 1;
    };
    assert!(matches!(refused, Refused::Down(_)), "{refused}");
    assert!(accepted.len() > 20, "{}", accepted.len());
    assert!(store.health().is_err());

    // Fill what a smaller write might still find; an outcome that comes now is kept.
    let mut rest = fs::File::create(mount.path().join("rest")).unwrap();
    while std::io::Write::write(&mut rest, &[1; 4096]).is_ok_and(|written| written > 0) {}
    store.settle(Settlement {
        lane: claim.lane,
        dest,
        results: vec![RowResult {
            delivery: claim.rows[0].id,
            attempt: Some(AttemptRecord {
                n: 1,
                at: claim.rows[0].created,
                took: Duration::ZERO,
                status: None,
                outcome: AttemptOutcome::Rejected,
                error: "no".into(),
            }),
            state: RowState::Dead("no".into()),
        }],
        finish: Some(Finish::default()),
    });
    let flushed = tokio::time::timeout(Duration::from_millis(2500), store.flush()).await;
    assert!(flushed.is_err(), "flushed on a full disk");
    assert!(store.health().is_err());
    assert!(matches!(store.append(event(n)).await, Err(Refused::Down(_))));
    assert_eq!(store.stats().pending[&dest].count, accepted.len() as u64);
    assert!(store.deliveries(Default::default()).await.unwrap().items.iter().all(|row| row.settled.is_none()));

    fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    while store.health().is_err() {
        assert!(freed.elapsed() < Duration::from_secs(10), "still down: {:?}", store.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.flush().await;
    assert_eq!(store.deliveries(Default::default()).await.unwrap().items.last().unwrap().answer.as_deref(), Some("no"));
    // What was refused left no trace: the same event is no repeat.
    accepted.push(stored(&store, event(n)).await.unwrap());
    assert!(store.stats().last_error.is_some() && store.stats().failed_commits > 0);

    drop(store);
    let store = Store::open_sqlite(mount.path(), Options::default()).unwrap();
    let mut kept: Vec<Seq> =
        store.events(Default::default()).await.unwrap().items.into_iter().map(|row| row.seq).collect();
    kept.reverse();
    assert_eq!(kept, accepted);
    assert_eq!(store.stats().pending[&dest].count, accepted.len() as u64 - 1);
    store.close().await;
}

async fn stored(store: &Store, candidate: Candidate) -> Result<Seq, Refused> {
    match store.append(candidate).await? {
        Appended::Stored { seq, .. } => Ok(seq),
        repeat @ Appended::Repeat { .. } => panic!("{repeat:?}"),
    }
}
