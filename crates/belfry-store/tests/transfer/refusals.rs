//! What is refused, with what reason, and that nothing was written then.

use std::fs;

use belfry_store::{
    OpenError, Options,
    transfer::{self, TransferError, Window},
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use crate::{
    conformance::{Fixture, World},
    database::Shared,
    fixtures::{Placed, Sqlite, end, exercise, export, import, is_empty, records, silent},
};

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
    ("no name", |lines| lines[0] = lines[0].replace("\"name\":\"", "\"name\":\","), "line 1: a store isn't called"),
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
    let refused = import(&to.site(), &good.as_bytes()[..good.len() / 2]).unwrap_err().to_string();
    assert!(refused.contains("line "), "{refused}");
    assert_eq!(
        to.sql("SELECT (SELECT count(*) FROM config), (SELECT count(*) FROM event), (SELECT seq FROM head)"),
        "0|0|0"
    );
    import(&to.site(), good.as_bytes()).unwrap();
}

/// Whatever befalls a file: it is refused, or what it brings is what was exported.
#[tokio::test(flavor = "multi_thread")]
async fn damage_never_gets_in() {
    let world = World::<Sqlite>::new();
    exercise(&world).await;
    let (fixture, _) = end(world);
    let good = export(&fixture.site(), Window::default());
    let config = Config { cases: 32, ..Config::default() };
    let changes = (0..good.len(), any::<u8>(), 0..3u8);
    let run = TestRunner::new(config).run(&changes, |(at, byte, how)| {
        let mut bad = good.clone();
        match how {
            0 => bad[at] = byte,
            1 => drop(bad.remove(at)),
            _ => bad.truncate(at),
        }
        let to = Sqlite::create();
        match import(&to.site(), &bad) {
            Ok(_) => {
                let brought = export(&to.site(), Window::default());
                prop_assert_eq!(records(&brought), records(&good));
            }
            Err(_) => prop_assert!(is_empty(to.0.path())),
        }
        Ok(())
    });
    run.unwrap();
}
