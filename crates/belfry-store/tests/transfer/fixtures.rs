//! Stores of both engines with something of every kind in them, and what is done with them.

use std::{fs, io::Cursor, path::Path, sync::Arc, time::Duration};

use belfry_core::{ConfigKey, passed::Sent, plan::Candidate, rollout::Found};
use belfry_store::{
    Appended, Finish, Hook, HookVerdict, Options, RowState, Store, TriggerRef,
    transfer::{self, Moved, Progress, Site, TransferError, Window},
};
use tempfile::TempDir;

use crate::{
    conformance::{Fixture, World, event, kustomization, report, sighting, status},
    database::Shared,
};

pub const SECOND: Duration = Duration::from_secs(1);

pub struct Sqlite(pub TempDir);

impl Fixture for Sqlite {
    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, options: Options) -> Store {
        Store::open_sqlite(self.0.path(), options).unwrap()
    }
}

/// Where a fixture has its store.
pub trait Placed {
    fn site(&self) -> Site;
}

impl Placed for Sqlite {
    fn site(&self) -> Site {
        Site::Folder(self.0.path().to_owned())
    }
}

impl Placed for Shared {
    fn site(&self) -> Site {
        Site::Database(self.database())
    }
}

/// An event that another store passed on.
pub fn passed_on() -> Candidate {
    let sent = Sent { identity: u64::MAX - 6, via: vec!["0a1b".into(), "2c3d".into()] };
    Candidate { sent: Some(Box::new(sent)), ..event(60, "app-0", &[]) }
}

/// Leaves something of every kind: delivered, dead, superseded, waiting, tried in vain, in flight; rollouts, repeats, memos, triggers.
pub async fn exercise<F: Fixture>(world: &World<F>) {
    let body = serde_json::json!({"spec": {"type": "generic"}});
    world.store.config_changed(vec![(ConfigKey::provider("flux-system", "fine"), body)]).await.unwrap();
    let flaky = Finish { due: Some(world.now().after(60 * SECOND)), memo: Some(vec![0xff, 0, 7]), ..Finish::default() };
    for n in 0..30 {
        let mut candidate = event(n, &format!("app-{}", n % 3), &["fine", "dead", "slow", "flaky"]);
        if n == 7 {
            candidate.body = vec![0xfe, 0, b'"'].into();
        }
        world.stored(candidate).await;
    }
    assert!(matches!(world.append(event(29, "app-2", &["fine"])).await, Appended::Repeat { .. }));
    let dests = [world.dest("fine").await, world.dest("dead").await, world.dest("flaky").await];
    world.drain(dests[0]).await;
    for claim in world.claim(dests[1]).await {
        let state = RowState::Dead("no thanks \u{1f514}".into());
        world.settle(&claim, state, Finish { memo: Some(b"{\"incident\":1}".to_vec()), ..Finish::default() }).await;
    }
    for claim in world.claim(dests[2]).await {
        world.settle(&claim, RowState::Retry, flaky.clone()).await;
    }
    for (letter, reason) in
        [('a', "Progressing"), ('a', "!BuildFailed"), ('b', "Progressing"), ('b', "ReconciliationSucceeded")]
    {
        world.pass(SECOND);
        let mut candidate = report(world.now(), "app", reason, letter);
        candidate.routes = vec![status("git", 0)];
        world.stored(candidate).await;
    }
    world.pass(SECOND);
    let seen = sighting(world.now(), "other", 'c', Found::Ready);
    world.store.observe(seen, vec![status("git", 2)]).await.unwrap().unwrap();
    for (id, verdict) in [("1", HookVerdict::Accepted), ("1", HookVerdict::Accepted), ("2", HookVerdict::Refused)] {
        let hook = Hook {
            receiver: Arc::new(ConfigKey::receiver("flux-system", "github")),
            at: world.now(),
            delivery_id: Some(id.into()),
            verdict,
            reason: String::new(),
            event: "push".into(),
            bytes: 7,
            triggers: vec![TriggerRef { object: kustomization("app") }],
        };
        world.store.hook(hook).await.unwrap();
    }
    // In flight when the process dies.
    assert!(!world.claim(world.dest("git").await).await.is_empty());
}

/// Ends the store as a crash does.
pub fn end<F: Fixture>(world: World<F>) -> (F, Options) {
    let World { store, fixture, options, .. } = world;
    drop(store);
    (fixture, options)
}

pub fn silent(_: Progress) {}

pub fn export(site: &Site, window: Window) -> Vec<u8> {
    let mut out = Vec::new();
    transfer::export(site, window, &mut out, &mut silent).unwrap();
    out
}

pub fn import(site: &Site, lines: &[u8]) -> Result<Vec<Moved>, TransferError> {
    transfer::import(site, &mut Cursor::new(lines.to_vec()), &mut silent)
}

/// The lines of an export without the first one, which names the engine.
pub fn records(lines: &[u8]) -> &str {
    std::str::from_utf8(lines).unwrap().split_once('\n').unwrap().1
}

pub fn rows(moved: &[Moved], table: &str) -> u64 {
    moved.iter().find(|moved| moved.table == table).unwrap().rows
}

/// The number of lines of each kind.
pub fn lines_of(lines: &[u8], table: &str) -> usize {
    records(lines).lines().filter(|line| line.starts_with(&format!("{{\"{table}\":"))).count()
}

pub fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| entry.unwrap().file_name() == "belfry.lock")
}
