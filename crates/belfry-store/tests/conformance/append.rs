//! Taking events in.

use std::time::Duration;

use belfry_core::{
    Seq,
    passed::{Sent, identity},
    plan::{Candidate, Change},
};
use belfry_store::{Appended, What};

use super::{Fixture, START, World, event};

fn failing(n: u64, key: u64) -> Candidate {
    Candidate { severity: "error".into(), reason: "BuildFailed".into(), dedupe: key, ..event(n, "app", &["a"]) }
}

/// A success of the revision that `failing` has.
fn succeeding(n: u64, key: u64) -> Candidate {
    Candidate {
        reason: "ReconciliationSucceeded".into(),
        updates_commit_status: true,
        dedupe: key,
        ..event(n, "app", &["a"])
    }
}

fn of_revision(candidate: Candidate, revision: &str) -> Candidate {
    Candidate { revision: Some(revision.into()), ..candidate }
}

pub async fn it_answers_what_happened<F: Fixture>() {
    let world = World::<F>::new();
    let answer = world.append(failing(1, 1)).await;
    assert_eq!(answer, Appended::Stored { seq: Seq(START), change: Some(Change::Failed), deliveries: 1 });
    world.pass(Duration::from_secs(1));
    let answer = world.append(succeeding(2, 2)).await;
    let seq = Seq(START + 1_000_000);
    assert_eq!(answer, Appended::Stored { seq, change: Some(Change::Recovered), deliveries: 1 });
    let answer = world.append(event(3, "other", &[])).await;
    assert_eq!(answer, Appended::Stored { seq: Seq(seq.0 + 1), change: None, deliveries: 0 });
}

pub async fn numbers_only_grow<F: Fixture>() {
    let mut world = World::<F>::new();
    let mut last = Seq(0);
    for n in 0..20 {
        let seq = world.stored(event(n, "app", &["a", "b"])).await;
        assert!(seq > last);
        last = seq;
        if n == 10 {
            world.pass(Duration::ZERO);
            world = world.crash();
        }
    }
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    assert!(claim.rows.windows(2).all(|rows| rows[0].id < rows[1].id));
}

pub async fn repeats_are_counted_on_the_first<F: Fixture>() {
    let world = World::<F>::new();
    let first = world.stored(event(1, "app", &["a"])).await;
    for n in 0..3 {
        let again = Candidate { dedupe: 1, ..event(100 + n, "app", &["a"]) };
        assert_eq!(world.append(again).await, Appended::Repeat { of: first });
    }
    assert_eq!(world.store.event(first).await.unwrap().unwrap().repeats, 3);
    world.pass(world.options.repeat_interval);
    let late = world.append(Candidate { dedupe: 1, ..event(9, "app", &["a"]) }).await;
    assert!(matches!(late, Appended::Stored { deliveries: 1, .. }), "{late:?}");
    let stats = world.store.stats();
    assert_eq!((stats.appended, stats.repeats), (2, 3));
}

pub async fn repeats_survive_a_crash<F: Fixture>() {
    let world = World::<F>::new();
    let first = world.stored(event(1, "app", &["a"])).await;
    let world = world.crash();
    let again = Candidate { dedupe: 1, ..event(2, "app", &["a"]) };
    assert_eq!(world.append(again).await, Appended::Repeat { of: first });
    assert_eq!(world.append(event(1, "app", &["a"])).await, Appended::Repeat { of: first });
}

pub async fn the_same_body_is_the_same_event<F: Fixture>() {
    let world = World::<F>::with(|options| options.repeat_interval = Duration::ZERO);
    let first = world.stored(event(1, "app", &["a"])).await;
    world.pass(Duration::from_secs(599));
    assert_eq!(world.append(event(1, "app", &["a"])).await, Appended::Repeat { of: first });
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.append(event(1, "app", &["a"])).await, Appended::Stored { .. }));
}

/// An event that a cluster sent with this id; all of them have the same key and body.
fn sent(cluster: &str, id: &str) -> Candidate {
    let mut candidate = event(1, "app", &["a"]);
    candidate.object.cluster = cluster.into();
    let identity = identity(cluster, id).unwrap();
    Candidate { sent: Some(Box::new(Sent { identity, via: vec!["0a".into(), "1b".into()] })), ..candidate }
}

pub async fn the_same_id_is_the_same_event_however_late<F: Fixture>() {
    let mut world = World::<F>::new();
    let first = world.stored(sent("eu", "1")).await;
    world = world.crash();
    assert_eq!(world.append(sent("eu", "1")).await, Appended::Repeat { of: first });
    world.pass(Duration::from_secs(20 * 24 * 3600));
    assert_eq!(world.append(sent("eu", "1")).await, Appended::Repeat { of: first });
    assert_eq!(world.store.event(first).await.unwrap().unwrap().repeats, 2);
    // What was kept of it is gone, and so is what was known.
    world.pass(world.options.retention_age);
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let What::Event { via, .. } = &claim.rows[0].what else { panic!("{claim:?}") };
    assert_eq!(*via, ["0a", "1b"]);
    world.deliver(&claim).await;
    world.store.prune().await.unwrap();
    assert!(matches!(world.append(sent("eu", "1")).await, Appended::Stored { .. }));
}

pub async fn with_ids_nothing_else_makes_a_repeat<F: Fixture>() {
    let world = World::<F>::new();
    let plain = world.stored(Candidate { sent: None, ..sent("eu", "1") }).await;
    let ids = ["1", "2", "3"];
    let mut seqs = vec![plain];
    for id in ids {
        seqs.push(world.stored(sent("eu", id)).await);
    }
    seqs.push(world.stored(sent("us", "1")).await);
    assert!(seqs.is_sorted());
    // One without an id is still known by its body.
    let again = Candidate { sent: None, ..sent("eu", "1") };
    assert!(matches!(world.append(again).await, Appended::Repeat { .. }));
    // The number alone says nothing of another cluster's.
    let mut other = sent("us", "2");
    other.sent.as_mut().unwrap().identity = identity("eu", "2").unwrap();
    assert!(matches!(world.append(other).await, Appended::Stored { .. }));
}

pub async fn ids_are_known_within_a_batch<F: Fixture>() {
    let world = World::<F>::new();
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..60 {
        let store = world.store.clone();
        appends.spawn(async move { store.append(sent("eu", &(n % 3).to_string())).await.unwrap() });
    }
    let answers = appends.join_all().await;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Appended::Stored { .. })).count(), 3);
}

pub async fn a_store_has_a_name_of_its_own<F: Fixture>() {
    let world = World::<F>::new();
    let name = world.store.name().to_owned();
    assert!(name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    assert_ne!(World::<F>::new().store.name(), name);
    assert_eq!(world.crash().store.name(), name);
}

/// However the writer cuts events into batches, the answers are those of one after the other.
pub async fn a_batch_sees_its_own_events<F: Fixture>() {
    let world = World::<F>::new();
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..50 {
        let store = world.store.clone();
        let candidate = of_revision(failing(n, 7), "main");
        appends.spawn(async move { store.append(candidate).await.unwrap() });
    }
    let answers = appends.join_all().await;
    let stored: Vec<_> = answers.iter().filter(|answer| matches!(answer, Appended::Stored { .. })).collect();
    assert_eq!(stored.len(), 1);
    assert!(matches!(stored[0], Appended::Stored { change: Some(Change::Failed), .. }));
}

pub async fn states_survive_a_crash<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(failing(1, 1)).await;
    let world = world.crash();
    let answer = world.append(failing(2, 2)).await;
    assert!(matches!(answer, Appended::Stored { change: None, .. }), "{answer:?}");
    let answer = world.append(succeeding(3, 3)).await;
    assert!(matches!(answer, Appended::Stored { change: Some(Change::Recovered), .. }), "{answer:?}");
}

pub async fn many_at_once<F: Fixture>() {
    let world = World::<F>::new();
    let mut appends = tokio::task::JoinSet::new();
    for appender in 0..64 {
        let store = world.store.clone();
        appends.spawn(async move {
            let mut seqs = Vec::new();
            for n in 0..20 {
                let candidate = event(appender * 1000 + n, &format!("app-{}", appender % 7), &["a"]);
                match store.append(candidate).await.unwrap() {
                    Appended::Stored { seq, .. } => seqs.push(seq),
                    repeat @ Appended::Repeat { .. } => panic!("{repeat:?}"),
                }
            }
            assert!(seqs.is_sorted());
            seqs
        });
    }
    let mut seqs: Vec<Seq> = appends.join_all().await.into_iter().flatten().collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 64 * 20);
    let world = world.crash();
    let dest = world.dest("a").await;
    let mut delivered = world.drain(dest).await;
    delivered.sort_unstable();
    assert_eq!(delivered, seqs);
}

pub async fn bodies_are_bytes<F: Fixture>() {
    let world = World::<F>::new();
    let body = b"\0\xff\xfe not text".to_vec();
    let mut candidate = Candidate { body: body.clone().into(), ..event(1, "a\0b", &["a"]) };
    candidate.reason = "Re\0ason".into();
    candidate.revision = Some("\0".into());
    let seq = world.stored(candidate).await;
    let stored = world.store.event(seq).await.unwrap().unwrap();
    assert_eq!(stored.body, body);
    assert_eq!((&*stored.object.name, &*stored.reason), ("a\u{fffd}b", "Re\u{fffd}ason"));
}

pub async fn the_head_moves<F: Fixture>() {
    let world = World::<F>::new();
    let mut head = world.store.head();
    let seq = world.stored(event(1, "app", &[])).await;
    head.changed().await.unwrap();
    assert_eq!(*head.borrow(), seq);
    let world = world.crash();
    assert_eq!(*world.store.head().borrow(), seq);
}
