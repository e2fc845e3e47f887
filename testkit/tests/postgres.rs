//! A server that is started, crashed, followed and promoted.

#![allow(clippy::unwrap_used, reason = "a test")]

use testkit::{
    Postgres,
    postgres::{FAST, Stop},
    skip,
};

#[test]
fn what_is_committed_outlives_a_crash_of_the_server() {
    let Some(server) = Postgres::start(&[]).unwrap() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    server.sql(&name, "CREATE TABLE t(x INT); INSERT INTO t VALUES(7)").unwrap();
    server.stop(Stop::Immediate).unwrap();
    assert!(server.sql(&name, "SELECT x FROM t").is_err());
    server.resume().unwrap();
    assert_eq!(server.sql(&name, "SELECT x FROM t").unwrap(), "7");
    server.kill().unwrap();
    server.resume().unwrap();
    assert_eq!(server.sql(&name, "SELECT x FROM t").unwrap(), "7");
    server.remove_database(&name).unwrap();
    assert!(server.sql(&name, "SELECT 1").is_err());
}

#[test]
fn a_standby_takes_over() {
    let Some(primary) = Postgres::start(FAST).unwrap() else { return skip("PostgreSQL is missing") };
    let name = primary.database().unwrap();
    let standby = Postgres::standby_of(&primary, "second", FAST).unwrap();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'second'").unwrap();
    primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    primary.sql(&name, "CREATE TABLE t(x INT); INSERT INTO t VALUES(7)").unwrap();
    assert!(standby.sql(&name, "INSERT INTO t VALUES(8)").is_err());
    primary.kill().unwrap();
    standby.promote().unwrap();
    assert_eq!(standby.sql(&name, "INSERT INTO t VALUES(8); SELECT count(*) FROM t").unwrap(), "2");
}
