//! What people ask about.

use std::time::Duration;

use belfry_core::{Seq, Time, plan::Candidate};
use belfry_store::{
    AttemptOutcome, DeliveryQuery, DeliveryState, EventQuery, Finish, ObjectFilter, ObjectQuery, RedeliverError,
    RowState,
};

use super::{Fixture, World, event};

async fn ids<F: Fixture>(world: &World<F>, query: DeliveryQuery) -> Vec<i64> {
    world.store.deliveries(query).await.unwrap().items.iter().map(|row| row.id).collect()
}

pub async fn deliveries_tell_everything<F: Fixture>() {
    let world = World::<F>::new();
    let seq = world.stored(Candidate { severity: "error".into(), ..event(1, "app", &["a"]) }).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let due = world.now().after(Duration::from_secs(60));
    world.settle(&claim, RowState::Retry, Finish { due: Some(due), ..Finish::default() }).await;
    let row = world.delivery(claim.rows[0].id).await;
    assert_eq!((row.event, row.created, row.state, row.lane), (seq, seq.time(), DeliveryState::Pending, claim.lane));
    assert_eq!(row.provider.to_string(), "Provider/flux-system/a");
    assert_eq!(row.route.to_string(), "Alert/flux-system/to-a");
    assert_eq!(row.object.to_string(), "Kustomization/apps/app");
    assert_eq!((&*row.severity, &*row.reason), ("error", "Progressing"));
    assert_eq!(row.revision.as_deref(), Some("main@sha1:0000000000000000000000000000000000000001"));
    assert_eq!((row.attempts, row.next_attempt, row.settled), (1, Some(due), None));
    assert_eq!(row.answer.as_deref(), Some("attempt 1"));
    world.pass(Duration::from_secs(60));
    let claim = world.claim_one(dest).await;
    world.deliver(&claim).await;
    let row = world.delivery(claim.rows[0].id).await;
    assert_eq!((row.state, row.attempts, row.next_attempt), (DeliveryState::Delivered, 2, None));
    assert_eq!((row.settled, row.answer), (Some(world.now()), None));
}

pub async fn filters<F: Fixture>() {
    let world = World::<F>::new();
    let mut seqs = Vec::new();
    for n in 0..4 {
        seqs.push(world.stored(event(n, &format!("app-{n}"), &["a", "b"])).await);
        world.pass(Duration::from_secs(1));
    }
    let a = world.dest("a").await;
    for (n, claim) in world.claim(a).await.into_iter().enumerate() {
        let state = match n {
            0 => RowState::Delivered,
            1 => RowState::Dead("no".into()),
            2 => RowState::Superseded("by another".into()),
            _ => continue,
        };
        world.settle(&claim, state, Finish::default()).await;
    }
    let all = DeliveryQuery::default();
    let count = async |query: DeliveryQuery| ids(&world, query).await.len();
    assert_eq!(count(all.clone()).await, 8);
    for (states, expected) in [
        (vec![DeliveryState::Pending], 5),
        (vec![DeliveryState::Delivered], 1),
        (vec![DeliveryState::Dead], 1),
        (vec![DeliveryState::Superseded], 1),
        (vec![DeliveryState::Superseded, DeliveryState::Dead], 2),
    ] {
        assert_eq!(count(DeliveryQuery { states: states.clone(), ..all.clone() }).await, expected, "{states:?}");
        let named = ObjectFilter { name: Some("app-1".into()), ..ObjectFilter::default() };
        let of_one = count(DeliveryQuery { states: states.clone(), object: named, ..all.clone() }).await;
        let expected = usize::from(states.contains(&DeliveryState::Pending) || states.contains(&DeliveryState::Dead));
        assert_eq!(of_one, expected, "{states:?}");
    }
    assert_eq!(count(DeliveryQuery { provider: Some("a".into()), ..all.clone() }).await, 4);
    assert_eq!(count(DeliveryQuery { provider_namespace: Some("flux-system".into()), ..all.clone() }).await, 8);
    assert_eq!(count(DeliveryQuery { provider_namespace: Some("other".into()), ..all.clone() }).await, 0);
    assert_eq!(count(DeliveryQuery { alert: Some("to-b".into()), ..all.clone() }).await, 4);
    assert_eq!(count(DeliveryQuery { event: Some(seqs[0]), ..all.clone() }).await, 2);
    assert_eq!(
        count(DeliveryQuery { since: Some(seqs[1].time()), until: Some(seqs[3].time()), ..all.clone() }).await,
        4
    );
    for (field, object, expected) in [
        ("kind", ObjectFilter { kind: Some("Kustomization".into()), ..ObjectFilter::default() }, 8),
        ("namespace", ObjectFilter { namespace: Some("apps".into()), ..ObjectFilter::default() }, 8),
        ("cluster", ObjectFilter { cluster: Some("far".into()), ..ObjectFilter::default() }, 0),
        ("name", ObjectFilter { name: Some("app-3".into()), ..ObjectFilter::default() }, 2),
    ] {
        assert_eq!(count(DeliveryQuery { object, ..all.clone() }).await, expected, "{field}");
    }
}

pub async fn pages<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..10 {
        world.stored(event(n, "app", &["a"])).await;
    }
    let all = ids(&world, DeliveryQuery::default()).await;
    assert!(all.windows(2).all(|pair| pair[0] > pair[1]));
    for states in [vec![], vec![DeliveryState::Pending]] {
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let query = DeliveryQuery { cursor, states: states.clone(), limit: 3, ..DeliveryQuery::default() };
            let page = world.store.deliveries(query).await.unwrap();
            seen.extend(page.items.iter().map(|row| row.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
            assert_eq!(page.items.len(), 3);
        }
        assert_eq!(seen, all);
    }
}

pub async fn attempts_are_kept<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    for state in [RowState::Retry, RowState::Retry, RowState::Delivered] {
        let claim = world.claim_one(dest).await;
        world.settle(&claim, state, Finish::default()).await;
        world.pass(Duration::from_secs(1));
    }
    let id = ids(&world, DeliveryQuery::default()).await[0];
    let attempts = world.store.attempts(id).await.unwrap();
    assert_eq!(attempts.iter().map(|attempt| attempt.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((attempts[0].outcome, attempts[2].outcome), (AttemptOutcome::Retry, AttemptOutcome::Delivered));
    assert_eq!((attempts[0].status, attempts[0].took), (Some(503), Some(Duration::from_millis(3))));
    assert_eq!(attempts[1].error, "attempt 2");
    // A first try that succeeds is told from the delivery.
    world.stored(event(2, "app", &["a"])).await;
    let claim = world.claim_one(dest).await;
    world.deliver(&claim).await;
    let attempts = world.store.attempts(claim.rows[0].id).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!((attempts[0].n, attempts[0].at, attempts[0].took), (1, world.now(), None));
    assert!(world.store.attempts(1).await.unwrap().is_empty());
}

pub async fn events_by_page<F: Fixture>() {
    let world = World::<F>::new();
    let mut seqs = Vec::new();
    for n in 0..7 {
        seqs.push(world.stored(event(n, &format!("app-{}", n % 2), &[])).await);
    }
    seqs.reverse();
    let page = world.store.events(EventQuery { limit: 4, ..EventQuery::default() }).await.unwrap();
    assert_eq!(page.items.iter().map(|row| row.seq).collect::<Vec<_>>(), seqs[..4]);
    let rest = world.store.events(EventQuery { cursor: page.next, ..EventQuery::default() }).await.unwrap();
    assert_eq!(rest.items.iter().map(|row| row.seq).collect::<Vec<_>>(), seqs[4..]);
    assert_eq!(rest.next, None);
    let object = ObjectFilter { name: Some("app-1".into()), ..ObjectFilter::default() };
    assert_eq!(world.store.events(EventQuery { object, ..EventQuery::default() }).await.unwrap().items.len(), 3);
    let severity = Some("error".to_owned());
    assert!(world.store.events(EventQuery { severity, ..EventQuery::default() }).await.unwrap().items.is_empty());
    // Large bodies end a page early.
    for n in 10..16 {
        let body = vec![b'x'; 2 << 20].into();
        world.stored(Candidate { body, ..event(n, "large", &[]) }).await;
    }
    let page = world.store.events(EventQuery::default()).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert!(page.next.is_some());
    assert_eq!(world.store.event(Seq(1)).await.unwrap(), None);
}

pub async fn events_in_the_order_of_their_arrival<F: Fixture>() {
    let world = World::<F>::new();
    let mut seqs = Vec::new();
    for n in 0..7 {
        seqs.push(world.stored(event(n, &format!("app-{}", n % 2), &[])).await);
    }
    let after = |after: Seq, limit| EventQuery { after: Some(after), limit, ..EventQuery::default() };
    let (mut at, mut seen) = (Seq(0), Vec::new());
    loop {
        let page = world.store.events(after(at, 3)).await.unwrap();
        seen.extend(page.items.iter().map(|row| row.seq));
        let Some(next) = page.next else { break };
        at = Seq(next);
    }
    assert_eq!(seen, seqs);
    let object = ObjectFilter { name: Some("app-1".into()), ..ObjectFilter::default() };
    let until = Some(Time(seqs[5].0));
    let some = world.store.events(EventQuery { object, until, ..after(seqs[1], 0) }).await.unwrap();
    assert_eq!(some.items.iter().map(|row| row.seq).collect::<Vec<_>>(), [seqs[3]]);
    assert_eq!(some.next, None);
    // Large bodies end a page early.
    let last = *seqs.last().unwrap();
    for n in 10..14 {
        let body = vec![b'x'; 1 << 20].into();
        world.stored(Candidate { body, ..event(n, "large", &[]) }).await;
    }
    let page = world.store.events(after(last, 0)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, Some(page.items[0].seq.0)));
}

pub async fn objects_by_page<F: Fixture>() {
    let world = World::<F>::new();
    for (n, name) in (0..).zip(["b", "a", "c", "a-b", "A", "b"]) {
        world.stored(Candidate { reason: "BuildFailed".into(), severity: "error".into(), ..event(n, name, &[]) }).await;
    }
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let page = world.store.objects(ObjectQuery { after, limit: 2, ..ObjectQuery::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        names.extend(page.into_iter().map(|row| row.key.name));
    }
    assert_eq!(names, ["A", "a", "a-b", "b", "c"]);
    let of = |object| ObjectQuery { object, ..ObjectQuery::default() };
    let named = ObjectFilter { name: Some("b".into()), kind: Some("Kustomization".into()), ..ObjectFilter::default() };
    let found = world.store.objects(of(named)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(Some(&found[0].state), world.store.object_state(&found[0].key).await.unwrap().as_ref());
    // Of several at once, in the order in which they are asked for, known or not.
    let all = world.store.objects(of(ObjectFilter::default())).await.unwrap();
    let mut asked: Vec<_> = all.into_iter().map(|row| (row.key, Some(row.state))).collect();
    let unknown = belfry_core::ObjectKey { name: "never heard of".into(), ..asked[0].0.clone() };
    asked.extend([(unknown, None), asked[2].clone()]);
    asked.reverse();
    let (keys, states): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    assert_eq!(world.store.object_states(keys).await.unwrap(), states);
    assert!(found[0].state.failed);
    let elsewhere = ObjectFilter { cluster: Some("far".into()), ..ObjectFilter::default() };
    assert!(world.store.objects(of(elsewhere)).await.unwrap().is_empty());
}

pub async fn redelivery_is_a_new_delivery<F: Fixture>() {
    let world = World::<F>::new();
    let first = world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let dead = world.claim_one(dest).await;
    world.settle(&dead, RowState::Dead("no".into()), Finish::default()).await;
    let second = world.stored(event(2, "app", &["a"])).await;
    let redelivered = world.store.redeliver(dead.rows[0].id).await.unwrap();
    assert_eq!((redelivered.dest, &*redelivered.provider.name), (dest, "a"));
    assert_eq!(world.store.stats().pending[&dest].count, 2);
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.rows.iter().map(|row| row.cause).collect::<Vec<_>>(), [second, first]);
    assert_eq!(claim.rows[1].id, redelivered.delivery);
    assert_eq!(claim.rows[1].attempts, 0);
    world.deliver(&claim).await;
    assert_eq!(world.delivery(dead.rows[0].id).await.state, DeliveryState::Dead);
    assert_eq!(world.delivery(redelivered.delivery).await.state, DeliveryState::Delivered);
    // A delivered one too, and an idle lane is due for it.
    let again = world.store.redeliver(redelivered.delivery).await.unwrap();
    let world = world.crash();
    assert_eq!(world.claim_one(dest).await.rows[0].id, again.delivery);
}

pub async fn redelivery_of_the_unsettled_is_refused<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let id = ids(&world, DeliveryQuery::default()).await[0];
    assert_eq!(world.store.redeliver(id).await, Err(RedeliverError::Pending(id)));
    assert_eq!(world.store.redeliver(77).await, Err(RedeliverError::Unknown(77)));
}

pub async fn stats_count<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..3 {
        world.stored(event(n, "app", &["a", "b"])).await;
    }
    let (a, b) = (world.dest("a").await, world.dest("b").await);
    let claim = world.claim_one(a).await;
    world.deliver(&claim).await;
    let check = |world: &World<F>| {
        let stats = world.store.stats();
        assert_eq!(stats.pending.len(), 1);
        assert_eq!((stats.pending[&b].count, &*stats.pending[&b].key.name), (3, "b"));
        assert!(stats.pending[&b].oldest <= world.now().after(Duration::from_micros(6)));
        assert!(stats.healthy && stats.db_bytes > 0 && stats.last_error.is_none());
        stats
    };
    let stats = check(&world);
    assert_eq!((stats.appended, stats.deliveries, stats.queued, stats.refused), (3, 6, 0, 0));
    assert!(stats.commits >= 4 && stats.commit_times.buckets.iter().sum::<u64>() == stats.commits);
    check(&world.crash());
}
