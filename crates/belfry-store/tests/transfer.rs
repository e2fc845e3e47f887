//! Stores that are moved, exported and brought back: what arrives is what was there, and a server goes on with it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, unused_imports, reason = "the suite is for engines; this uses the world that it builds on")]
mod conformance;

use std::{fs, io::Cursor, path::Path, sync::Arc, time::Duration};

use belfry_core::{ConfigKey, Seq, rollout::Found};
use belfry_store::{
    Appended, Database, Finish, Hook, HookVerdict, OpenError, Options, RowState, Store, TriggerRef, What,
    transfer::{self, Moved, Progress, Site, Stage, TransferError, Window},
};
use conformance::{Fixture, World, event, kustomization, report, sighting, status};
use tempfile::TempDir;
use testkit::Postgres;

const SECOND: Duration = Duration::from_secs(1);

struct Sqlite(TempDir);

impl Fixture for Sqlite {
    fn create() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self, options: Options) -> Store {
        Store::open_sqlite(self.0.path(), options).unwrap()
    }
}

struct Shared {
    server: &'static Postgres,
    name: String,
}

impl Shared {
    fn database(&self) -> Database {
        Database::at(&self.server.url(&self.name))
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.name, sql).unwrap()
    }
}

impl Fixture for Shared {
    fn available() -> bool {
        let available = Postgres::shared().is_some();
        if !available {
            testkit::skip("PostgreSQL is missing");
        }
        available
    }

    fn create() -> Self {
        let server = Postgres::shared().unwrap();
        Self { server, name: server.database().unwrap() }
    }

    fn open(&self, options: Options) -> Store {
        Store::open_postgres(&self.database(), options).unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = self.server.remove_database(&self.name);
    }
}

/// Where a fixture has its store.
trait Placed {
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

/// Leaves something of every kind: delivered, dead, superseded, waiting, tried in vain, in flight; rollouts, repeats, memos, triggers.
async fn exercise<F: Fixture>(world: &World<F>) {
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
fn end<F: Fixture>(world: World<F>) -> (F, Options) {
    let World { store, fixture, options, .. } = world;
    drop(store);
    (fixture, options)
}

fn silent(_: Progress) {}

fn export(site: &Site, window: Window) -> Vec<u8> {
    let mut out = Vec::new();
    transfer::export(site, window, &mut out, &mut silent).unwrap();
    out
}

fn import(site: &Site, lines: &[u8]) -> Result<Vec<Moved>, TransferError> {
    transfer::import(site, &mut Cursor::new(lines.to_vec()), &mut silent)
}

/// The lines of an export without the first one, which names the engine.
fn records(lines: &[u8]) -> &str {
    std::str::from_utf8(lines).unwrap().split_once('\n').unwrap().1
}

fn rows(moved: &[Moved], table: &str) -> u64 {
    moved.iter().find(|moved| moved.table == table).unwrap().rows
}

/// The number of lines of each kind.
fn lines_of(lines: &[u8], table: &str) -> usize {
    records(lines).lines().filter(|line| line.starts_with(&format!("{{\"{table}\":"))).count()
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().all(|entry| entry.unwrap().file_name() == "belfry.lock")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_brings_back_what_was_exported() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    // Beside the process that has it.
    let beside = export(&world.fixture.site(), Window::default());
    let (fixture, _) = end(world);
    let lines = export(&fixture.site(), Window::default());
    assert_eq!(beside, lines);
    let tables = ["config", "object", "lane", "delivery", "attempt", "rollout", "event", "hook"];
    assert_eq!(tables.map(|table| lines_of(&lines, table)), [12, 5, 16, 126, 60, 3, 35, 3]);
    let again = Sqlite::create();
    let moved = import(&again.site(), &lines).unwrap();
    assert_eq!(rows(&moved, "event"), lines_of(&lines, "event") as u64);
    assert_eq!(String::from_utf8(export(&again.site(), Window::default())).unwrap(), String::from_utf8(lines).unwrap());
    assert_eq!(
        transfer::survey(&again.site()).unwrap().deliveries,
        transfer::survey(&fixture.site()).unwrap().deliveries
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn to_postgres_and_back() {
    if !Shared::available() {
        return;
    }
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (from, _) = end(world);
    let (through, back) = (Shared::create(), Sqlite::create());
    let mut stages = Vec::new();
    let moved = transfer::migrate(&from.site(), &through.site(), &mut |progress: Progress| {
        assert_eq!(progress.total, Some(progress.rows), "{progress:?}");
        stages.push((progress.stage, progress.table));
    });
    let moved = moved.unwrap();
    assert_eq!(stages.len(), 16, "{stages:?}");
    assert_eq!((stages[0], stages[15]), ((Stage::Writing, "config"), (Stage::Verifying, "hook")));
    assert_eq!(transfer::migrate(&through.site(), &back.site(), &mut silent).unwrap(), moved);
    let [first, second, third] =
        [from.site(), through.site(), back.site()].map(|site| export(&site, Window::default()));
    assert_eq!(records(&first), records(&second));
    assert_eq!(first, third);
    // Each day in its place, and what is derived is right.
    assert_eq!(through.sql("SELECT count(*) FROM event_20833"), through.sql("SELECT count(*) FROM event"));
    let bytes = "SELECT bytes - (SELECT sum(octet_length(body) + 512) FROM event) FROM head";
    assert_eq!(through.sql(bytes), "0");
    assert_eq!(through.sql("SELECT count(*) FROM lane WHERE doubt IS DISTINCT FROM (due IS NOT NULL)"), "0");
    let (of_folder, of_database) =
        (transfer::survey(&from.site()).unwrap(), transfer::survey(&through.site()).unwrap());
    assert_eq!((of_database.engine, of_database.replicas), ("postgres", Some(0)));
    assert_eq!(
        (of_folder.events, of_folder.span, of_folder.deliveries, of_folder.waiting, of_folder.open_rollouts),
        (of_database.events, of_database.span, of_database.deliveries, of_database.waiting, of_database.open_rollouts)
    );
}

/// What a server finds when it starts on a store.
async fn goes_on<F: Fixture>(fixture: F, options: Options, before: &[(String, Vec<Seq>)]) {
    let store = fixture.open(options.clone());
    let world = World { store, fixture, options, clock: Default::default() };
    assert_eq!(&waiting(&world).await, before);
    // Told before: a repeat still; and what is new comes after all that was.
    assert!(matches!(world.append(event(29, "app-2", &["fine"])).await, Appended::Repeat { .. }));
    let newest = world.store.head().borrow().0;
    let slow = world.dest("slow").await;
    let seq = world.stored(event(100, "app-2", &["slow"])).await;
    assert!(seq.0 > newest);
    let claims = world.claim(slow).await;
    assert!(claims.iter().all(|claim| claim.recovered), "{claims:?}");
    let lane = claims.iter().find(|claim| claim.rows[0].object.name == "app-2").unwrap();
    assert_eq!(lane.rows.last().map(|row| row.cause), Some(seq));
    for claim in &claims {
        world.deliver(claim).await;
    }
    let git = world.claim(world.dest("git").await).await;
    assert!(git.iter().all(|claim| claim.recovered && matches!(claim.rows[0].what, What::Rollout { .. })), "{git:?}");
    // New names get new numbers.
    world.stored(event(101, "never-heard-of", &["new"])).await;
    world.store.clone().close().await;
}

/// What waits, lane by lane, as a server claims it.
async fn waiting<F: Fixture>(world: &World<F>) -> Vec<(String, Vec<Seq>)> {
    let mut found = Vec::new();
    for (dest, key, _) in world.store.dests().await.unwrap() {
        let room = belfry_store::Room { lanes: 32, probe: true };
        for claim in world.store.claim(vec![(dest, room)]).await.unwrap().lanes {
            let name = format!("{key} {} {:?}", claim.rows[0].object, claim.memo);
            found.push((name, claim.rows.iter().map(|row| row.cause).collect()));
            world.store.release(claim.lane);
        }
    }
    world.store.flush().await;
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_on_with_what_was_moved() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let world = world.crash();
    let before = waiting(&world).await;
    assert!(before.len() >= 8, "{before:?}");
    let (from, options) = end(world);
    let back = Sqlite::create();
    import(&back.site(), &export(&from.site(), Window::default())).unwrap();
    goes_on(back, options.clone(), &before).await;
    if Shared::available() {
        let to = Shared::create();
        transfer::migrate(&from.site(), &to.site(), &mut silent).unwrap();
        goes_on(to, options, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_leaves_what_waits() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let middle = world.now().after(SECOND);
    world.pass(60 * SECOND);
    for n in 200..203 {
        world.stored(event(n, "late", &["fine"])).await;
    }
    world.drain(world.dest("fine").await).await;
    let (fixture, _) = end(world);
    let late = export(&fixture.site(), Window { since: Some(middle), until: None });
    let nothing = export(&fixture.site(), Window { since: None, until: Some(belfry_core::Time(1)) });
    // Thirty still wait for someone, and so do the newest states.
    assert_eq!((lines_of(&late, "event"), lines_of(&nothing, "event")), (36, 33));
    let count = |lines: &[u8]| lines_of(lines, "delivery");
    assert_eq!(count(&late), count(&nothing) + 3);
    import(&Sqlite::create().site(), &late).unwrap();
    if Shared::available() {
        let to = Shared::create();
        transfer::migrate(&fixture.site(), &to.site(), &mut silent).unwrap();
        assert_eq!(records(&export(&to.site(), Window { since: Some(middle), until: None })), records(&late));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_or_not_empty_is_left_alone() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (used, empty) = (world.fixture.site(), Sqlite::create());
    let refused = transfer::migrate(&used, &empty.site(), &mut silent).unwrap_err();
    assert!(matches!(refused, TransferError::Open(OpenError::Locked { .. })), "{refused}");
    let lines = export(&used, Window::default());
    let refused = import(&used, &lines).unwrap_err();
    assert!(matches!(refused, TransferError::Open(OpenError::Locked { .. })), "{refused}");
    let (fixture, _) = end(world);
    let refused = import(&fixture.site(), &lines).unwrap_err().to_string();
    assert!(refused.contains("not empty: it has rows in attempt, config, delivery, event"), "{refused}");
    assert_eq!(export(&fixture.site(), Window::default()), lines);
    let refused = transfer::migrate(&empty.site(), &fixture.site(), &mut silent).unwrap_err();
    assert!(matches!(refused, TransferError::Missing(_)), "{refused}");
    assert!(is_empty(empty.0.path()));
    // A server that came to nothing leaves a store with nothing in it.
    empty.open(Options::default()).close().await;
    import(&empty.site(), &lines).unwrap();
    assert_eq!(export(&empty.site(), Window::default()), lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_use_is_left_alone() {
    if !Shared::available() {
        return;
    }
    let world = World::<Shared>::new();
    exercise(&world).await;
    let (site, empty) = (world.fixture.site(), Sqlite::create());
    let lines = export(&site, Window::default());
    assert_eq!(transfer::survey(&site).unwrap().replicas, Some(1));
    for refused in [transfer::migrate(&site, &empty.site(), &mut silent), import(&site, &lines)] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, TransferError::InUse { by, .. } if by.contains("1 running replicas")), "{refused}");
    }
    world.store.clone().close().await;
    let refused = import(&site, &lines).unwrap_err();
    assert!(matches!(refused, TransferError::NotEmpty { .. }), "{refused}");
    let refused = transfer::migrate(&site, &site, &mut silent).unwrap_err();
    assert!(matches!(refused, TransferError::InUse { .. }), "{refused}");
    transfer::migrate(&site, &empty.site(), &mut silent).unwrap();
    let moved = export(&empty.site(), Window::default());
    assert_eq!(records(&moved), records(&export(&site, Window::default())));
}

#[tokio::test]
async fn other_schemas_are_refused() {
    let fixture = Sqlite::create();
    fixture.open(Options::default()).close().await;
    let set = |version: u32| {
        let file = rusqlite::Connection::open(fixture.0.path().join("belfry.db")).unwrap();
        file.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
        transfer::survey(&fixture.site()).unwrap_err()
    };
    assert!(matches!(set(1), TransferError::Older { found: 1, .. }));
    assert!(matches!(set(99), TransferError::Newer { found: 99, .. }));
    fs::write(fixture.0.path().join("belfry.db"), vec![7; 8192]).unwrap();
    let refused = transfer::survey(&fixture.site()).unwrap_err();
    assert!(matches!(refused, TransferError::Open(OpenError::Corrupt { .. })), "{refused}");
    let refused = import(&fixture.site(), b"").unwrap_err();
    assert!(matches!(refused, TransferError::Truncated { line: 0 }), "{refused}");
}

/// A change of an export, as lines, and what is said about it.
type Bad = (&'static str, fn(&mut Vec<String>), &'static str);

/// The first line of a table, counted from 0.
fn first(lines: &[String], table: &str) -> usize {
    lines.iter().position(|line| line.starts_with(&format!("{{\"{table}\":"))).unwrap()
}

fn change(lines: &mut [String], table: &str, from: &str, to: &str) {
    let prefix = format!("{{\"{table}\":");
    let line = lines.iter_mut().find(|line| line.starts_with(&prefix) && line.contains(from)).unwrap();
    *line = line.replace(from, to);
}

const BAD: &[Bad] = &[
    ("another version", |lines| lines[0] = lines[0].replace("\"format\":1", "\"format\":2"), "line 1: its format is 2"),
    ("no export", |lines| lines[0] = "{\"seq\":1}".into(), "line 1: this is no export of a store"),
    (
        "a line cut off",
        |lines| {
            lines.truncate(5);
            lines[4].truncate(20);
        },
        "line 5: it breaks off",
    ),
    ("lines cut off", |lines| lines.truncate(9), "breaks off after line 9"),
    ("the end cut off", |lines| drop(lines.pop()), "it is not the whole of an export"),
    ("garbage", |lines| lines[6] = "\u{1f4a9}".into(), "line 7: expected value"),
    ("a blank line", |lines| lines.insert(3, String::new()), "line 4: EOF"),
    (
        "a row twice",
        |lines| {
            let line = first(lines, "event");
            lines.insert(line, lines[line].clone());
        },
        "event 1800000000000000 comes after event 1800000000000000",
    ),
    (
        "out of order",
        |lines| {
            let line = first(lines, "delivery");
            lines.swap(line, line + 1);
        },
        "comes after delivery",
    ),
    (
        "a table out of order",
        |lines| {
            let line = first(lines, "object");
            lines.swap(line - 1, line);
        },
        "comes after object 1",
    ),
    (
        "one object under two numbers",
        |lines| change(lines, "object", "\"app-1\"", "\"app-0\""),
        "came before, under another",
    ),
    ("a row missing", |lines| drop(lines.remove(first(lines, "attempt"))), "not what was exported: attempt"),
    ("a value changed", |lines| change(lines, "event", "Progressing", "Progressive"), "not what was exported: event"),
    ("an object missing", |lines| drop(lines.remove(first(lines, "object"))), "there is no object 1"),
    ("a Provider missing", |lines| drop(lines.remove(first(lines, "config"))), "there is no configuration object 1"),
    ("a lane missing", |lines| lines.retain(|line| !line.starts_with("{\"lane\"")), "never comes up"),
    ("an event missing", |lines| drop(lines.remove(first(lines, "event"))), "not what was exported: event"),
    (
        "an unknown word",
        |lines| change(lines, "event", "\"recorder\"", "\"tape\""),
        "expected one of recorder, forwarded",
    ),
    ("an unknown field", |lines| change(lines, "hook", "\"merged\"", "\"married\""), "unknown field `married`"),
    ("a NUL", |lines| change(lines, "event", "Progressing", "Pro\\u0000gressing"), "reason has a NUL in it"),
    ("a time far ahead", |lines| change(lines, "hook", "\"seq\":18", "\"seq\":918"), "is no number that a store gives"),
    (
        "a number too large",
        |lines| change(lines, "event", "\"repeats\":0", "\"repeats\":1e99"),
        "expected i64 at column",
    ),
    ("more after the end", |lines| lines.push("{}".into()), "nothing may follow the end"),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_name_the_line_and_leave_nothing() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (fixture, _) = end(world);
    let good = String::from_utf8(export(&fixture.site(), Window::default())).unwrap();
    let to = Sqlite::create();
    for (what, change, expected) in BAD {
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        change(&mut lines);
        let mut file = lines.join("\n");
        if *what != "a line cut off" {
            file.push('\n');
        }
        let refused = import(&to.site(), file.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains(expected), "{what}: {refused}");
        assert!(refused.contains("line "), "{what}: {refused}");
        assert!(is_empty(to.0.path()), "{what}");
    }
    import(&to.site(), good.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_whole_is_not_moved() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (fixture, _) = end(world);
    let file = rusqlite::Connection::open(fixture.0.path().join("belfry.db")).unwrap();
    let to = Sqlite::create();
    for (break_it, expected) in [
        ("DELETE FROM event WHERE seq = 1800000000000000", "waits, and the event 1800000000000000"),
        ("DELETE FROM rollout", "waits, and the rollout"),
        ("DELETE FROM hook", "waits, and the "),
        ("UPDATE event SET origin = 9 WHERE seq = 1800000000000001", "event 1800000000000001 of"),
        ("UPDATE lane SET due = NULL", "never comes up"),
    ] {
        file.execute_batch(break_it).unwrap();
        let refused = transfer::migrate(&fixture.site(), &to.site(), &mut silent).unwrap_err().to_string();
        assert!(refused.contains(expected), "{break_it}: {refused}");
        assert!(is_empty(to.0.path()), "{break_it}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_files_leave_a_database_empty() {
    if !Shared::available() {
        return;
    }
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (fixture, _) = end(world);
    let good = String::from_utf8(export(&fixture.site(), Window::default())).unwrap();
    let to = Shared::create();
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    // What only the database finds out.
    change(&mut lines, "attempt", "\"status\":503", "\"status\":99999999999");
    let refused = import(&to.site(), lines.join("\n").as_bytes()).unwrap_err().to_string();
    assert!(refused.starts_with("line ") && refused.contains("out of range"), "{refused}");
    let whole = lines.len();
    lines.truncate(whole - 1);
    let refused = import(&to.site(), lines.join("\n").as_bytes()).unwrap_err().to_string();
    assert!(refused.starts_with("line "), "{refused}");
    assert_eq!(to.sql("SELECT count(*) FROM config"), "0");
    let refused = import(&to.site(), good[..good.len() / 2].as_bytes()).unwrap_err().to_string();
    assert!(refused.contains("line "), "{refused}");
    assert_eq!(
        to.sql("SELECT (SELECT count(*) FROM config), (SELECT count(*) FROM event), (SELECT seq FROM head)"),
        "0|0|0"
    );
    import(&to.site(), good.as_bytes()).unwrap();
}
