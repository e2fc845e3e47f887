//! Stores that are moved, exported and brought back: what arrives is what was there, and a server goes on with it.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, unused_imports, reason = "the suite is for engines; this uses the world that it builds on")]
#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../conformance/database.rs"]
mod database;
mod fixtures;
mod refusals;

use belfry_core::Seq;
use belfry_store::{
    Appended, Options, Store, What,
    transfer::{self, Progress, Stage, Window},
};
use conformance::{Fixture, World, event};
use database::Shared;
use fixtures::{Placed, SECOND, Sqlite, end, exercise, export, import, lines_of, passed_on, records, rows, silent};

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
async fn both_engines_have_the_same_columns() {
    if !Shared::available() {
        return;
    }
    let (folder, database) = (Sqlite::create(), Shared::create());
    folder.open(Options::default()).close().await;
    database.open(Options::default()).close().await;
    let file = rusqlite::Connection::open(folder.0.path().join("belfry.db")).unwrap();
    for table in ["config", "object", "lane", "delivery", "attempt", "rollout", "event", "hook"] {
        let mut columns: Vec<String> = file
            .prepare(&format!("SELECT name FROM pragma_table_info('{table}')"))
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        if table == "lane" {
            // Who has it, which is nobody in what was moved; and that this may have been so.
            columns.extend(["doubt", "first", "owner", "woken"].map(str::to_owned));
        }
        columns.sort();
        let sql =
            format!("SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::REGCLASS AND attnum > 0 ORDER BY 1");
        assert_eq!(database.sql(&sql).lines().collect::<Vec<_>>(), columns, "{table}");
    }
    // What is known of Providers' outages is found out again; `meta` has the name, which the first line of an export has.
    let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
         WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::REGNAMESPACE AND NOT relispartition";
    let known = "attempt belfry_schema circuit config delivery event head hook lane meta object replica rollout";
    assert_eq!(database.sql(tables), known);
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
    assert_eq!(first_line(&first), first_line(&third));
    assert_eq!(through.sql("SELECT value FROM meta"), first_line(&first)["belfry"]["head"]["name"].as_str().unwrap());
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

/// What an export says of itself.
fn first_line(lines: &[u8]) -> serde_json::Value {
    serde_json::from_slice(lines.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
}

/// What a server finds when it starts on a store.
async fn goes_on<F: Fixture>(fixture: F, options: Options, before: &[(String, Vec<Seq>)], name: &str) {
    let store = fixture.open(options.clone());
    let world = World { store, fixture, options, clock: Default::default() };
    assert_eq!(&waiting(&world).await, before);
    // Others know its events by its name, and it knows theirs by their ids.
    assert_eq!(world.store.name(), name);
    assert!(matches!(world.append(passed_on()).await, Appended::Repeat { .. }));
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
    world.stored(passed_on()).await;
    let world = world.crash();
    let before = waiting(&world).await;
    assert!(before.len() >= 8, "{before:?}");
    let name = world.store.name().to_owned();
    let (from, options) = end(world);
    let back = Sqlite::create();
    import(&back.site(), &export(&from.site(), Window::default())).unwrap();
    goes_on(back, options.clone(), &before, &name).await;
    if Shared::available() {
        let to = Shared::create();
        transfer::migrate(&from.site(), &to.site(), &mut silent).unwrap();
        goes_on(to, options, &before, &name).await;
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
async fn a_server_that_starts_meanwhile_waits() {
    if !Shared::available() {
        return;
    }
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (from, options) = end(world);
    let (first, second) = (Shared::create(), Shared::create());
    for (from, to, starts) in [(from.site(), first.site(), &first), (first.site(), second.site(), &first)] {
        let mut started = None;
        let migrated = transfer::migrate(&from, &to, &mut |_| {
            let open = || {
                let (database, options) = (starts.database(), options.clone());
                std::thread::spawn(move || Store::open_postgres(&database, options).unwrap())
            };
            started.get_or_insert_with(open);
        });
        let moved = migrated.unwrap();
        let store = started.unwrap().join().unwrap();
        // One is an observation, which no list has.
        assert_eq!(store.events(Default::default()).await.unwrap().items.len() as u64, rows(&moved, "event") - 1);
        assert_ne!(*store.head().borrow(), Seq(0));
        store.close().await;
    }
}
