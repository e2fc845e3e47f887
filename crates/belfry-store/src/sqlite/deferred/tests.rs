//! Whatever was appended, removed and restarted: questions find by an index what they find without one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use belfry_core::{
    ConfigKey, Time, event,
    plan::{Origin, RouteRef},
};
use proptest::prelude::*;

use super::*;
use crate::{
    DeliveryQuery, DeliveryRow, EventQuery, EventRow, ObjectFilter, Options, RolloutQuery, RolloutRow, Store,
    sqlite::schema::{FILE, Place},
};

const OBJECTS: u8 = 5;
const REVISIONS: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    /// Events that are appended at a time: each about an object, of a revision, and whether an Alert selects it.
    Append(Vec<(u8, u8, bool)>),
    /// So many minutes go by, and what is older than an hour is removed.
    Prune(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..OBJECTS, 0..REVISIONS, proptest::bool::weighted(0.2));
    prop_oneof![
        6 => proptest::collection::vec(event, 1..20).prop_map(Step::Append),
        1 => (1i64..90).prop_map(Step::Prune),
        1 => Just(Step::Restart),
    ]
}

fn revision(number: u8) -> String {
    format!("main@sha1:{}", char::from(b'a' + number).to_string().repeat(40))
}

fn body(n: usize, object: u8, number: u8) -> Vec<u8> {
    let fails = n.is_multiple_of(5);
    serde_json::json!({
        "involvedObject": {"kind": "Kustomization", "namespace": "apps", "name": format!("app-{object}"), "uid": "u",
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1"},
        "severity": if fails { "error" } else { "info" }, "timestamp": "2026-03-02T09:21:45Z", "message": format!("{n}"),
        "reason": if fails { "BuildFailed" } else { "ReconciliationSucceeded" },
        "metadata": {"kustomize.toolkit.fluxcd.io/revision": revision(number)},
        "reportingController": "kustomize-controller", "reportingInstance": "k",
    })
    .to_string()
    .into_bytes()
}

/// A store whose clock stands still unless it is told.
struct World {
    folder: tempfile::TempDir,
    /// `None` while it is closed.
    store: Option<Store>,
    now: Arc<AtomicI64>,
    events: usize,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_790_000_000_000_000));
        let store = Some(open(folder.path(), &now));
        Self { folder, store, now, events: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    async fn close(&mut self) {
        self.store.take().unwrap().close().await;
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append(events) => {
                let first = self.events;
                self.events += events.len();
                let appends = events.iter().enumerate().map(|(i, (object, revision, selected))| {
                    let body = body(first + i, *object, *revision);
                    let alert = Arc::new(ConfigKey::alert("apps", "a"));
                    let route = RouteRef::alert(alert, Arc::new(ConfigKey::provider("apps", "p")), false);
                    let routes = if *selected { vec![route] } else { Vec::new() };
                    let event = event::read(&body).unwrap();
                    self.store().append(event::candidate(&event, Origin::Recorder, "", body.clone().into(), routes))
                });
                for appended in futures::future::join_all(appends.collect::<Vec<_>>()).await {
                    appended.unwrap();
                }
            }
            Step::Prune(minutes) => {
                self.now.fetch_add(minutes * 60_000_000, SeqCst);
                self.store().prune().await.unwrap();
            }
            Step::Restart => {
                self.close().await;
                self.store = Some(open(self.folder.path(), &self.now));
            }
        }
    }

    async fn check(&self) {
        let (all, rollouts, deliveries) = self.everything().await;
        for number in 0..OBJECTS {
            let object = ObjectFilter { name: Some(format!("app-{number}")), ..ObjectFilter::default() };
            let of = |row: &&EventRow| row.object.name == format!("app-{number}");
            let query = EventQuery { object: object.clone(), ..EventQuery::default() };
            self.check_events(query, all.iter().filter(of).map(|row| row.seq)).await;
            let of = |row: &&DeliveryRow| row.object.name == format!("app-{number}");
            let query = DeliveryQuery { object, ..DeliveryQuery::default() };
            let found = self.store().deliveries(query).await.unwrap().items;
            let expected: Vec<i64> = deliveries.iter().filter(of).map(|row| row.id).collect();
            assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), expected);
        }
        for number in 0..REVISIONS {
            let name = revision(number);
            let of = |row: &&EventRow| row.revision.as_ref() == Some(&name);
            let query = EventQuery { revision: Some(name.clone()), ..EventQuery::default() };
            self.check_events(query, all.iter().filter(of).map(|row| row.seq)).await;
            let query = RolloutQuery { revision: Some(name[10..18].into()), ..RolloutQuery::default() };
            let found = self.store().rollouts(query).await.unwrap().items;
            let of = |row: &&RolloutRow| row.revision == name;
            assert_eq!(found.iter().collect::<Vec<_>>(), rollouts.iter().filter(of).collect::<Vec<_>>());
        }
    }

    async fn everything(&self) -> (Vec<EventRow>, Vec<RolloutRow>, Vec<DeliveryRow>) {
        let events = self.store().events(EventQuery::default()).await.unwrap();
        let rollouts = self.store().rollouts(RolloutQuery::default()).await.unwrap();
        let deliveries = self.store().deliveries(DeliveryQuery::default()).await.unwrap();
        assert!(events.next.is_none() && rollouts.next.is_none() && deliveries.next.is_none());
        (events.items, rollouts.items, deliveries.items)
    }

    /// In pages, backwards and forwards.
    async fn check_events(&self, query: EventQuery, expected: impl Iterator<Item = Seq>) {
        let mut expected: Vec<Seq> = expected.collect();
        for after in [None, Some(Seq(0))] {
            let (mut found, mut query) = (Vec::new(), EventQuery { after, limit: 7, ..query.clone() });
            loop {
                let page = self.store().events(query.clone()).await.unwrap();
                found.extend(page.items.iter().map(|row| row.seq));
                let Some(next) = page.next else { break };
                if after.is_some() { query.after = Some(Seq(next)) } else { query.cursor = Some(next) }
            }
            assert_eq!(found, expected, "{query:?}");
            expected.reverse();
        }
    }

    /// What is in the indexes is in the log, and what is in the log up to where it is indexed is in the indexes.
    async fn check_file(&mut self) {
        self.close().await;
        let connection = Place::reader_of(&self.folder.path().join(FILE)).unwrap();
        let upto: i64 = connection.query_row("SELECT upto FROM indexed", [], |row| row.get(0)).unwrap();
        for (index, log) in [
            ("SELECT object, seq FROM event_object", "SELECT object, seq FROM event"),
            ("SELECT rev, seq FROM event_rev", "SELECT rev, seq FROM event WHERE rev IS NOT NULL"),
            ("SELECT rev, id FROM rollout_rev", "SELECT rev, id FROM rollout"),
        ] {
            let read = |sql| -> BTreeSet<(i64, i64)> {
                all(&connection, sql, [], |row| Ok((row.get(1)?, row.get(0)?))).unwrap().into_iter().collect()
            };
            let (index, log) = (read(index), read(log));
            assert!(index.is_subset(&log), "entries of what isn't there: {:?}", index.difference(&log));
            let whole: BTreeSet<_> = log.into_iter().filter(|(number, _)| *number <= upto).collect();
            assert!(whole.is_subset(&index), "not indexed: {:?}", whole.difference(&index));
        }
    }
}

fn open(folder: &std::path::Path, now: &Arc<AtomicI64>) -> Store {
    let now = Arc::clone(now);
    let options = Options {
        retention_age: Duration::from_secs(3_600),
        clock: Arc::new(move || Time(now.load(SeqCst))),
        ..Options::default()
    };
    Store::open_sqlite(folder, options).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn an_index_leads_to_the_same_rows_as_none(steps in proptest::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.check_file().await;
        });
    }
}

/// Nothing was said of it to the database yet.
fn connection() -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let connection = Place::take(folder.path()).unwrap().writer().unwrap();
    (folder, connection)
}

#[test]
fn a_rollout_goes_in_as_it_is_by_then_and_one_that_is_gone_does_not() {
    let (_folder, connection) = connection();
    let add = "INSERT INTO rollout(id, object, rev, revision, state, started, attempts, reason, message, last_event)
         VALUES(?1, 1, ?2, 'r', 1, 0, 1, '', '', 0)";
    for id in 1..=30 {
        connection.execute(add, [id, id]).unwrap();
    }
    let mut deferred = Deferred::load(&connection).unwrap();
    assert_eq!(deferred.gathered.len(), 30);
    deferred.committed(Seq(30));
    connection.execute_batch("UPDATE rollout SET rev = 77 WHERE id = 20; DELETE FROM rollout WHERE id = 21").unwrap();
    while !deferred.run.is_empty() {
        deferred.advance(&connection).unwrap();
        deferred.committed(Seq(31));
    }
    let found = all(&connection, "SELECT rev FROM rollout_rev ORDER BY id", [], |row| row.get::<_, i64>(0)).unwrap();
    let expected: Vec<i64> = (1..=30).filter(|id| *id != 21).map(|id| if id == 20 { 77 } else { id }).collect();
    assert_eq!(found, expected);
    assert_eq!(Deferred::load(&connection).unwrap().gathered.len(), 0, "all of it is indexed");
}
