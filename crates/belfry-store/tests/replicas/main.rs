//! Several stores on one database: what one does the others know, and what one leaves behind the others finish.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod rivals;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time,
    decide::{Outage, PROBE_ALONE},
    passed::{Sent, identity},
    plan::{Candidate, Change, Origin, RouteRef},
};
use belfry_store::{
    Appended, AttemptOutcome, AttemptRecord, Claim, Database, DeliveryQuery, DeliveryState, DestId, Finish, Hook,
    HookVerdict, Options, Probe, Refused, Room, RowResult, RowState, Settlement, Store, TriggerRef,
};
use testkit::{
    Postgres,
    postgres::{FAST, Stop},
    skip, until,
};

const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(3);

fn event(n: u64, object: &str) -> Candidate {
    let alert = Arc::new(ConfigKey::alert("n", "a"));
    Candidate {
        object: ObjectKey { kind: "Kustomization".into(), name: object.into(), ..ObjectKey::default() },
        origin: Origin::Recorder,
        severity: "info".into(),
        reason: "Progressing".into(),
        revision: None,
        commit: None,
        updates_commit_status: false,
        rollout: None,
        dedupe: n,
        body_hash: n | 1 << 63,
        sent: None,
        body: n.to_string().into(),
        routes: vec![RouteRef::alert(alert, Arc::new(ConfigKey::provider("n", "p")), true)],
    }
}

/// Stores on one database of a server, with a lease that ends soon.
fn open(server: &Postgres, name: &str, count: usize) -> Vec<Store> {
    let database = Database::at(&server.url(name)).lease(LEASE);
    (0..count).map(|_| Store::open_postgres(&database, Options::default()).unwrap()).collect()
}

async fn stored(store: &Store, candidate: Candidate) -> Seq {
    match store.append(candidate).await.unwrap() {
        Appended::Stored { seq, .. } => seq,
        repeat @ Appended::Repeat { .. } => panic!("{repeat:?}"),
    }
}

async fn dest(store: &Store) -> DestId {
    store.dests().await.unwrap()[0].0
}

/// Claims as soon as the store may: a slow machine may leave it without a lease for a moment.
async fn claim(store: &Store, dest: DestId) -> Vec<Claim> {
    let claim = async || Ok(store.claim(vec![(dest, Room { lanes: 8, probe: false })]).await?.lanes);
    until("a claim", PATIENCE, claim).await.unwrap()
}

/// Claims until one is there: whoever had it is dead, and will be found to be.
async fn take_over(store: &Store, dest: DestId) -> Claim {
    until("the lane to be taken over", PATIENCE, async || {
        claim(store, dest).await.pop().ok_or_else(|| anyhow::anyhow!("none yet"))
    })
    .await
    .unwrap()
}

fn delivered(claim: &Claim) -> Settlement {
    let attempt = |n| AttemptRecord {
        n,
        at: Time(1),
        took: Duration::ZERO,
        status: None,
        outcome: AttemptOutcome::Delivered,
        error: String::new(),
    };
    let result = |row: &belfry_store::Row| RowResult {
        delivery: row.id,
        attempt: Some(attempt(row.attempts + 1)),
        state: RowState::Delivered,
    };
    let results = claim.rows.iter().map(result).collect();
    Settlement { lane: claim.lane, dest: claim.dest, results, finish: Some(Finish::default()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_takes_in_all_know() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let stores = open(server, &name, 3);
    // A repeat anywhere is a repeat.
    let first = stored(&stores[0], event(1, "app")).await;
    for store in &stores {
        let again = Candidate { body_hash: fastrand::u64(..), ..event(1, "app") };
        assert_eq!(store.append(again).await.unwrap(), Appended::Repeat { of: first });
    }
    // So is an event that came with the id before, whatever else it holds.
    let sent = |id: &str| {
        let sent = Sent { identity: identity("", id).unwrap(), via: Vec::new() };
        Candidate { sent: Some(Box::new(sent)), dedupe: fastrand::u64(..), ..event(6, "sent") }
    };
    let passed_on = stored(&stores[1], sent("a-1")).await;
    for store in &stores {
        assert_eq!(store.append(sent("a-1")).await.unwrap(), Appended::Repeat { of: passed_on });
    }
    assert!(stores.iter().all(|store| store.name() == stores[0].name()));
    // The state of an object is that which another left.
    let failing = |n| Candidate { severity: "error".into(), reason: "BuildFailed".into(), ..event(n, "app") };
    let change = async |store: &Store, candidate| match store.append(candidate).await.unwrap() {
        Appended::Stored { change, .. } => change,
        repeat @ Appended::Repeat { .. } => panic!("{repeat:?}"),
    };
    assert_eq!(change(&stores[1], failing(2)).await, Some(Change::Failed));
    assert_eq!(change(&stores[2], failing(3)).await, None);
    let good = Candidate { reason: "ReconciliationSucceeded".into(), updates_commit_status: true, ..event(4, "app") };
    assert_eq!(change(&stores[0], good).await, Some(Change::Recovered));
    // So is a webhook's delivery id.
    let hook = Hook {
        receiver: Arc::new(ConfigKey::receiver("n", "r")),
        at: Time(1),
        delivery_id: Some("1".into()),
        verdict: HookVerdict::Accepted,
        reason: String::new(),
        event: "push".into(),
        bytes: 1,
        triggers: vec![TriggerRef { object: event(0, "app").object }],
    };
    let hooked = stores[0].hook(hook.clone()).await.unwrap();
    assert_eq!(stores[1].hook(hook).await.unwrap().repeat_of, Some(hooked.seq));
    // What one says the others hear, and itself not.
    let mut listeners: Vec<_> = stores.iter().map(Store::told).collect();
    stores[0].tell("x".repeat(8000)).await;
    stores[0].tell("a: b, c".into()).await;
    stores[1].tell("d".into()).await;
    for (n, expected) in [(0, vec!["d"]), (1, vec!["a: b, c"]), (2, vec!["a: b, c", "d"])] {
        for words in expected {
            let heard = tokio::time::timeout(PATIENCE, listeners[n].recv()).await.unwrap().unwrap();
            assert_eq!(&*heard, words);
        }
        assert!(listeners[n].try_recv().is_err());
    }
    // And everyone hears of what is new, and of the work.
    let mut head = stores[2].head();
    let last = stored(&stores[0], event(5, "other")).await;
    tokio::time::timeout(PATIENCE, head.wait_for(|head| *head == last)).await.unwrap().unwrap();
    let provider = stores[0].dests().await.unwrap().iter().find(|(_, key, _)| &*key.name == "p").unwrap().0;
    let told = async { while !stores[2].woken().await.contains(&provider) {} };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    for store in stores {
        store.close().await;
    }
    server.remove_database(&name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pruned_meanwhile_has_changed_its_object_all_the_same() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let stores = open(server, &name, 2);
    let failing = |n| Candidate { severity: "error".into(), reason: "BuildFailed".into(), ..event(n, "app") };
    let quiet = |candidate| Candidate { routes: Vec::new(), ..candidate };
    stored(&stores[0], quiet(event(1, "app"))).await;
    let failed = stored(&stores[1], quiet(failing(2))).await;
    stored(&stores[1], quiet(event(3, "other"))).await;
    // The first one has no turn for a while; what it didn't hear of is pruned before it has.
    server.sql(&name, &format!("DELETE FROM event WHERE seq = {}", failed.0)).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = stores[0].append(quiet(failing(4))).await.unwrap();
    assert!(matches!(again, Appended::Stored { change: None, .. }), "{again:?}");
    for store in stores {
        store.close().await;
    }
    server.remove_database(&name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_gives_back_and_a_zombie_settles_nothing() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let mut stores = open(server, &name, 2);
    stored(&stores[0], event(1, "app")).await;
    let to = dest(&stores[0]).await;
    let first = claim(&stores[0], to).await.remove(0);
    assert!(!first.recovered && claim(&stores[1], to).await.is_empty());
    stores.remove(0).close().await;
    let second = take_over(&stores[0], to).await;
    assert_eq!((second.lane, second.recovered), (first.lane, true));
    // The others think that it is dead. It isn't, and goes on under another name.
    let zombie = stores.remove(0);
    server.sql(&name, "DELETE FROM replica; UPDATE lane SET owner = NULL, doubt = TRUE").unwrap();
    let other = open(server, &name, 1).remove(0);
    let third = take_over(&other, to).await;
    assert!(third.recovered);
    zombie.settle(delivered(&second));
    zombie.flush().await;
    let pending = DeliveryQuery { states: vec![DeliveryState::Pending], ..DeliveryQuery::default() };
    assert_eq!(zombie.deliveries(pending.clone()).await.unwrap().items.len(), 1);
    assert!(claim(&other, to).await.is_empty());
    other.settle(delivered(&third));
    other.flush().await;
    assert!(other.deliveries(pending).await.unwrap().items.is_empty());
    stored(&zombie, event(2, "app")).await;
    assert!(!take_over(&zombie, to).await.recovered);
    zombie.close().await;
    other.close().await;
    server.remove_database(&name).unwrap();
}

/// What a store hears of a destination next.
async fn hears(store: &Store, dest: DestId) -> Option<Outage> {
    let heard = async {
        loop {
            store.woken().await;
            if let Some((_, outage)) = store.heard_circuits().into_iter().find(|(of, _)| *of == dest) {
                return outage;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("to hear of a circuit")
}

fn now() -> Time {
    (Options::default().clock)()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_down_is_probed_by_one_and_back_for_all() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let mut stores = open(server, &name, 2);
    let dest = DestId(7);
    let outage = |until: Time, failures| Outage {
        until,
        since: now().before(Duration::from_secs(5)),
        failures,
        asked: false,
        error: "no\0 route".into(),
    };
    // Nobody was told: whoever thinks so may look.
    assert_eq!(stores[1].take_probe(dest).await.unwrap(), Probe::Ours);
    stores[0].share_circuit(dest, Some(outage(now(), 3)), false).await.unwrap();
    let heard = hears(&stores[1], dest).await.unwrap();
    assert_eq!((heard.failures, heard.asked, &*heard.error), (3, false, "no\u{fffd} route"));
    assert!(heard.until <= now() && now().since(heard.since) >= Duration::from_secs(5), "{heard:?}");
    // One probes, and the other waits for what comes of it.
    assert_eq!(stores[1].take_probe(dest).await.unwrap(), Probe::Ours);
    let Probe::NotBefore(at) = stores[0].take_probe(dest).await.unwrap() else { panic!("two probe") };
    assert!(at > now().after(PROBE_ALONE / 2), "{at}");
    // What another finds out late ends no probe; what came of the probe does.
    let late = now().after(Duration::from_secs(3600));
    stores[0].share_circuit(dest, Some(outage(now(), 4)), false).await.unwrap();
    assert!(matches!(stores[0].take_probe(dest).await.unwrap(), Probe::NotBefore(_)));
    let all = stores[1].share_circuit(dest, Some(outage(now(), 1)), true).await.unwrap();
    assert_eq!(all.failures, 4, "{all:?}");
    assert_eq!(stores[0].take_probe(dest).await.unwrap(), Probe::Ours);
    // Who took it and died keeps nobody from it for ever.
    assert!(matches!(stores[1].take_probe(dest).await.unwrap(), Probe::NotBefore(_)));
    server.sql(&name, "UPDATE circuit SET taken = clock_timestamp()").unwrap();
    assert_eq!(stores[1].take_probe(dest).await.unwrap(), Probe::Ours);
    // The longest pause counts, whoever was asked for it; and who comes later knows.
    let asked = Outage { asked: true, ..outage(late, 4) };
    stores[0].share_circuit(dest, Some(asked), true).await.unwrap();
    let all = stores[1].share_circuit(dest, Some(outage(now(), 5)), false).await.unwrap();
    assert!(all.asked && all.until > now().after(Duration::from_secs(3000)), "{all:?}");
    stores.extend(open(server, &name, 1));
    let known = hears(&stores[2], dest).await;
    assert_eq!((known.clone().map(|outage| outage.failures), stores[2].outage(dest)), (Some(5), known));
    let Probe::NotBefore(at) = stores[2].take_probe(dest).await.unwrap() else { panic!("too early") };
    assert!(at > now().after(Duration::from_secs(3000)), "{at}");
    // And it is back for all.
    assert_eq!(stores[2].share_circuit(dest, None, true).await, None);
    for store in &stores[..2] {
        until("the outage to be over", PATIENCE, async || {
            anyhow::ensure!(store.outage(dest).is_none());
            Ok(())
        })
        .await
        .unwrap();
    }
    assert_eq!(stores[0].take_probe(dest).await.unwrap(), Probe::Ours);
    for store in stores {
        store.close().await;
    }
    server.remove_database(&name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_count_each_other() {
    let Some(server) = Postgres::shared() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let mut stores = open(server, &name, 3);
    let count = async |store: &Store, count| {
        until("the replicas to be counted", PATIENCE, async || {
            anyhow::ensure!(store.replicas() == count, "{}", store.replicas());
            Ok(())
        })
        .await
        .unwrap();
    };
    for store in &stores {
        count(store, 3).await;
    }
    stores.remove(1).close().await;
    // One that dies is missed once its lease is over.
    drop(stores.remove(1));
    count(&stores[0], 1).await;
    stores.remove(0).close().await;
    server.remove_database(&name).unwrap();
}

/// Delivers what it can get, and says what it delivered.
async fn work(
    store: Store,
    done: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<(String, u64)>>>,
    flying: Arc<Mutex<BTreeSet<i64>>>,
) {
    while !done.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let Ok(dests) = store.dests().await else { continue };
        let rooms = dests.iter().map(|(dest, ..)| (*dest, Room { lanes: 4, probe: false })).collect();
        let Ok(claims) = store.claim(rooms).await else { continue };
        for claim in claims.lanes {
            if !store.leased() {
                store.release(claim.lane);
                continue;
            }
            assert!(flying.lock().unwrap().insert(claim.lane.0), "lane {} is in flight twice", claim.lane.0);
            for row in &claim.rows {
                let belfry_store::What::Event { body, .. } = &row.what else { panic!("{row:?}") };
                let n = std::str::from_utf8(body).unwrap().parse().unwrap();
                log.lock().unwrap().push((row.object.name.clone(), n));
                tokio::task::yield_now().await;
            }
            flying.lock().unwrap().remove(&claim.lane.0);
            store.settle(delivered(&claim));
        }
    }
}

/// Appends to one object, each event until it is answered; gives the order in which they were.
async fn send(store: Store, sender: u64, next: Arc<AtomicU64>, done: Arc<AtomicBool>) -> Vec<(String, u64)> {
    let mut sent = Vec::new();
    while !done.load(Relaxed) {
        let n = next.fetch_add(1, Relaxed);
        let object = format!("app-{sender}");
        loop {
            match store.append(event(n, &object)).await {
                Ok(_) => break sent.push((object, n)),
                Err(Refused::Down(_) | Refused::Full) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(refused) => panic!("{refused}"),
            }
        }
    }
    sent
}

/// Each object's events arrive in their order, whatever comes again; and all of them.
fn in_order(sent: &[(String, u64)], delivered: &[(String, u64)]) {
    let mut first: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (object, n) in delivered {
        if seen.insert(*n) {
            first.entry(object).or_default().push(*n);
        }
    }
    let lost: Vec<_> = sent.iter().filter(|(_, n)| !seen.contains(n)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), sent.len());
    for (object, order) in first {
        assert!(order.is_sorted(), "{object} is out of order: {order:?}");
    }
}

async fn drained(store: &Store) {
    until("everything to be delivered", PATIENCE, async || {
        let pending = DeliveryQuery { states: vec![DeliveryState::Pending], ..DeliveryQuery::default() };
        let left = store.deliveries(pending).await?.items.len();
        anyhow::ensure!(left == 0, "{left} wait");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn order_and_everything_hold_while_the_server_crashes() {
    let Some(server) = Postgres::start(&[]).unwrap() else { return skip("PostgreSQL is missing") };
    let name = server.database().unwrap();
    let stores = open(&server, &name, 3);
    let (sending, working) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (log, flying, next) = (Arc::default(), Arc::default(), Arc::new(AtomicU64::new(1)));
    let workers: Vec<_> = stores
        .iter()
        .map(|store| tokio::spawn(work(store.clone(), Arc::clone(&working), Arc::clone(&log), Arc::clone(&flying))))
        .collect();
    let senders: Vec<_> = (0..12)
        .map(|n| tokio::spawn(send(stores[n % 3].clone(), n as u64, Arc::clone(&next), Arc::clone(&sending))))
        .collect();
    // One that nobody sends anything to, nor does it deliver.
    let idle = open(&server, &name, 1).remove(0);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(800)).await;
        server.stop(Stop::Immediate).unwrap();
        for store in stores.iter().chain([&idle]) {
            until("a store to notice", PATIENCE, async || {
                anyhow::ensure!(store.health().is_err(), "it takes writes");
                Ok(())
            })
            .await
            .unwrap();
        }
        server.resume().unwrap();
        for store in stores.iter().chain([&idle]) {
            until("the store to come back", PATIENCE, async || store.health().map_err(anyhow::Error::msg))
                .await
                .unwrap();
        }
    }
    sending.store(true, Relaxed);
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    drained(&stores[0]).await;
    working.store(true, Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(sent.len() > 100, "only {} were sent: that proves little", sent.len());
    in_order(&sent, &log.lock().unwrap());
    for store in stores.into_iter().chain([idle]) {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_answered_is_lost_when_a_synchronous_standby_takes_over() {
    let Some(primary) = Postgres::start(FAST).unwrap() else { return skip("PostgreSQL is missing") };
    let name = primary.database().unwrap();
    let standby = Postgres::standby_of(&primary, "second", FAST).unwrap();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'second'").unwrap();
    primary.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    // Both are named, and the one that takes writes is found.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let url = primary.url(&name);
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let database = Database::in_file(&file).lease(LEASE);
    let store = Store::open_postgres(&database, Options::default()).unwrap();
    let (done, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
    let senders: Vec<_> =
        (0..8).map(|n| tokio::spawn(send(store.clone(), n, Arc::clone(&next), Arc::clone(&done)))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    primary.kill().unwrap();
    until("the store to be down", PATIENCE, async || {
        anyhow::ensure!(store.health().is_err(), "it takes writes");
        Ok(())
    })
    .await
    .unwrap();
    // A standby is read-only: no better than none, until it is promoted.
    std::fs::write(&file, standby.url(&name)).unwrap();
    assert!(matches!(store.append(event(0, "app-0")).await, Err(Refused::Down(_))));
    standby.promote().unwrap();
    until("the store to come back", PATIENCE, async || store.health().map_err(anyhow::Error::msg)).await.unwrap();
    let count = next.load(Relaxed);
    until("more to be sent", PATIENCE, async || {
        anyhow::ensure!(next.load(Relaxed) > count + 10, "no");
        Ok(())
    })
    .await
    .unwrap();
    done.store(true, Relaxed);
    let mut sent = BTreeSet::new();
    for sender in senders {
        sent.extend(sender.await.unwrap().into_iter().map(|(_, n)| n));
    }
    let kept = standby.sql(&name, "SELECT convert_from(body, 'UTF8') FROM event").unwrap();
    let kept: BTreeSet<u64> = kept.lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = sent.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), sent.len());
    store.close().await;
}
