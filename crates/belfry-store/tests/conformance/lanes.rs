//! Claims and outcomes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_core::plan::Candidate;
use belfry_store::{DeliveryState, Finish, Room, RowState, What};

use super::{Fixture, World, event, report, settlement, status};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn in_order_per_lane<F: Fixture>() {
    let world = World::<F>::new();
    let mut seqs = Vec::new();
    for n in 0..40 {
        seqs.push(world.stored(event(n, "app", &["a"])).await);
    }
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let first: Vec<_> = claim.rows.iter().map(|row| row.cause).collect();
    assert_eq!(first, seqs[..first.len()]);
    assert_eq!(&*claim.dest_key.name, "a");
    assert_eq!(&*claim.rows[0].route.name, "to-a");
    assert_eq!(claim.rows[0].object.name, "app");
    let What::Event { body, .. } = &claim.rows[0].what else { panic!("{:?}", claim.rows[0].what) };
    assert_eq!(body, "{\"message\":\"event 0\"}");
    world.deliver(&claim).await;
    let rest = world.drain(dest).await;
    assert_eq!([first, rest].concat(), seqs);
    assert_eq!(world.next_due(dest).await, None);
    assert!(world.store.dests().await.unwrap().is_empty());
}

pub async fn a_lane_is_claimed_once<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..200 {
        world.stored(event(n, &format!("app-{n}"), &["a"])).await;
    }
    let dest = world.dest("a").await;
    let mut claims = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = world.store.clone();
        claims.spawn(async move {
            let mut lanes = Vec::new();
            loop {
                let claimed = store.claim(vec![(dest, Room { lanes: 3, probe: false })]).await.unwrap().lanes;
                if claimed.is_empty() {
                    return lanes;
                }
                lanes.extend(claimed.iter().map(|claim| claim.lane));
            }
        });
    }
    let mut lanes: Vec<_> = claims.join_all().await.into_iter().flatten().collect();
    assert_eq!(lanes.len(), 200);
    lanes.sort_unstable();
    lanes.dedup();
    assert_eq!(lanes.len(), 200);
    assert_eq!(world.next_due(dest).await, None);
}

pub async fn other_lanes_go_on<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a", "b"])).await;
    let (a, b) = (world.dest("a").await, world.dest("b").await);
    let claim = world.claim_one(a).await;
    world.stored(event(2, "other", &["a"])).await;
    world.stored(event(3, "app", &["a"])).await;
    assert_eq!(world.claim_one(a).await.rows[0].object.name, "other");
    assert_eq!(world.claim_one(b).await.rows.len(), 1);
    world.deliver(&claim).await;
    assert_eq!(world.claim_one(a).await.rows.len(), 1);
}

pub async fn a_retry_waits_until_it_is_due<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let due = world.now().after(MINUTE);
    world.settle(&claim, RowState::Retry, Finish { due: Some(due), ..Finish::default() }).await;
    // A newer event doesn't bring the older one's time forward.
    world.stored(event(2, "app", &["a"])).await;
    assert!(world.claim(dest).await.is_empty());
    assert_eq!(world.next_due(dest).await, Some(due));
    assert_eq!(world.store.dests().await.unwrap()[0].2, Some(due));
    let world = world.crash();
    world.pass(MINUTE - Duration::from_micros(1));
    assert!(world.claim(dest).await.is_empty());
    world.pass(Duration::from_micros(1));
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.rows.iter().map(|row| row.attempts).collect::<Vec<_>>(), [1, 0]);
}

pub async fn a_probe_does_not_wait<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let due = Some(world.now().after(MINUTE));
    world.settle(&claim, RowState::Retry, Finish { due, ..Finish::default() }).await;
    world.stored(event(2, "other", &["a"])).await;
    let other = world.claim_one(dest).await;
    let later = Some(world.now().after(2 * MINUTE));
    world.settle(&other, RowState::Retry, Finish { due: later, ..Finish::default() }).await;
    let probe = world.store.claim(vec![(dest, Room { lanes: 1, probe: true })]).await.unwrap();
    assert_eq!(probe.lanes.len(), 1);
    assert_eq!(probe.lanes[0].lane, claim.lane);
    assert_eq!(probe.next_due, [(dest, later)]);
    assert!(world.claim(dest).await.is_empty());
}

pub async fn waking_makes_everything_due<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..5 {
        world.stored(event(n, &format!("app-{n}"), &["a"])).await;
    }
    let dest = world.dest("a").await;
    for claim in world.claim(dest).await {
        let due = Some(world.now().after(MINUTE));
        world.settle(&claim, RowState::Retry, Finish { due, ..Finish::default() }).await;
    }
    assert!(world.claim(dest).await.is_empty());
    world.store.wake(dest).await;
    assert_eq!(world.claim(dest).await.len(), 5);
}

pub async fn waking_reaches_what_is_in_flight<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    world.store.wake(dest).await;
    assert!(world.claim(dest).await.is_empty());
    let due = Some(world.now().after(MINUTE));
    world.settle(&claim, RowState::Retry, Finish { due, ..Finish::default() }).await;
    let claim = world.claim_one(dest).await;
    world.settle(&claim, RowState::Retry, Finish { due, ..Finish::default() }).await;
    assert!(world.claim(dest).await.is_empty());
}

pub async fn what_came_meanwhile_is_due_at_once<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let second = world.stored(event(2, "app", &["a"])).await;
    assert!(world.claim(dest).await.is_empty());
    world.deliver(&claim).await;
    assert_eq!(world.claim_one(dest).await.rows[0].cause, second);
}

pub async fn released_lanes_are_as_before<F: Fixture>() {
    let world = World::<F>::new();
    let seq = world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    world.store.release(claim.lane);
    world.store.flush().await;
    let claim = world.claim_one(dest).await;
    assert_eq!((claim.rows[0].cause, claim.rows[0].attempts), (seq, 0));
    // Given back with another time: a finish without results.
    let due = Some(world.now().after(MINUTE));
    let finish = Some(Finish { due, ..Finish::default() });
    world.store.settle(belfry_store::Settlement { lane: claim.lane, dest, results: Vec::new(), finish });
    world.store.flush().await;
    assert_eq!(world.next_due(dest).await, due);
}

pub async fn results_stream_before_the_finish<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..3 {
        world.stored(event(n, "app", &["a"])).await;
    }
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    let all = settlement(&claim, world.now(), &RowState::Delivered, None);
    for result in all.results.iter().take(2) {
        world.store.settle(belfry_store::Settlement { results: vec![result.clone()], ..all.clone() });
    }
    world.store.flush().await;
    assert_eq!(world.delivery(claim.rows[1].id).await.state, DeliveryState::Delivered);
    assert!(world.claim(dest).await.is_empty());
    let world = world.crash();
    let rest = world.claim_one(dest).await;
    assert_eq!(rest.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [claim.rows[2].id]);
}

pub async fn the_memo_goes_with_the_outcome<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    assert!(claim.memo.is_empty());
    world.settle(&claim, RowState::Delivered, Finish { memo: Some(b"comment 7".to_vec()), ..Finish::default() }).await;
    world.stored(event(2, "app", &["a"])).await;
    let world = world.crash();
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.memo, b"comment 7");
    world.deliver(&claim).await;
    world.stored(event(3, "app", &["a"])).await;
    assert_eq!(world.claim_one(dest).await.memo, b"comment 7");
}

pub async fn stepping_aside_lets_others_pass<F: Fixture>() {
    let world = World::<F>::new();
    let first = world.stored(event(1, "app", &["a"])).await;
    let second = world.stored(event(2, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let mut claim = world.claim_one(dest).await;
    claim.rows.truncate(1);
    let due = world.now().after(MINUTE);
    let finish = Finish { due: Some(due), step_aside: Some(claim.rows[0].id), ..Finish::default() };
    world.settle(&claim, RowState::Retry, finish.clone()).await;
    let other = world.claim_one(dest).await;
    assert_eq!(other.lane, claim.lane);
    assert_eq!(other.rows.iter().map(|row| row.cause).collect::<Vec<_>>(), [second]);
    assert_eq!(world.next_due(dest).await, Some(due));
    world.deliver(&other).await;
    world.pass(MINUTE);
    let aside = world.claim_one(dest).await;
    assert_ne!(aside.lane, claim.lane);
    assert_eq!((aside.rows[0].cause, aside.rows[0].attempts), (first, 1));
    // It can't step further aside.
    let due = world.now().after(MINUTE);
    world.settle(&aside, RowState::Retry, Finish { due: Some(due), ..finish }).await;
    assert_eq!(world.next_due(dest).await, Some(due));
    world.pass(MINUTE);
    assert_eq!(world.drain(dest).await, [first]);
    assert_eq!(world.next_due(dest).await, None);
}

pub async fn only_what_is_pending_changes<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    world.settle(&claim, RowState::Dead("rejected: no".into()), Finish::default()).await;
    world.settle(&claim, RowState::Delivered, Finish::default()).await;
    let row = world.delivery(claim.rows[0].id).await;
    assert_eq!((row.state, row.answer.as_deref()), (DeliveryState::Dead, Some("rejected: no")));
    assert!(world.store.stats().pending.is_empty());
}

pub async fn recovered_after_a_crash<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    assert!(!claim.recovered);
    let world = world.crash();
    let claim = world.claim_one(dest).await;
    assert!(claim.recovered);
    // Nothing is known of it until it was attempted.
    world.store.release(claim.lane);
    world.store.flush().await;
    let claim = world.claim_one(dest).await;
    assert!(claim.recovered);
    world.settle(&claim, RowState::Retry, Finish::default()).await;
    assert!(!world.claim_one(dest).await.recovered);
    world.stored(event(2, "other", &["a"])).await;
    assert!(!world.claim_one(dest).await.recovered);
}

pub async fn room_is_kept<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..5 {
        world.stored(event(n, &format!("app-{n}"), &["a", "b"])).await;
        world.pass(Duration::from_secs(1));
    }
    let (a, b) = (world.dest("a").await, world.dest("b").await);
    let room = |lanes| Room { lanes, probe: false };
    let claims = world.store.claim(vec![(a, room(2)), (b, room(9))]).await.unwrap();
    assert_eq!(claims.lanes.iter().filter(|claim| claim.dest == a).count(), 2);
    assert_eq!(claims.lanes.iter().filter(|claim| claim.dest == b).count(), 5);
    // The earliest first, and what is left is due when it came.
    assert_eq!(claims.lanes[0].rows[0].object.name, "app-0");
    let due = world.now().before(Duration::from_secs(3));
    assert_eq!(claims.next_due, [(a, Some(due)), (b, None)]);
}

pub async fn a_lost_claim_is_free_again<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    for _ in 0..20 {
        let claim = world.store.claim(vec![(dest, Room { lanes: 1, probe: false })]);
        let _ = tokio::time::timeout(Duration::ZERO, claim).await.map(|claims| {
            for claim in claims.unwrap().lanes {
                world.store.release(claim.lane);
            }
        });
    }
    let mut lanes = Vec::new();
    for _ in 0..200 {
        world.store.flush().await;
        lanes = world.claim(dest).await;
        if !lanes.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lanes.len(), 1);
}

pub async fn newest_is_what_no_event_follows<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..3 {
        world.stored(event(n, "app", &["a"])).await;
    }
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.rows.iter().map(|row| row.newest).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(claim.tail, claim.rows[2].id);
    world.deliver(&claim).await;
    world.stored(event(3, "app", &["a"])).await;
    world.store.redeliver(claim.rows[0].id).await.unwrap();
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.rows.iter().map(|row| row.newest).collect::<Vec<_>>(), [true, true]);
}

pub async fn those_who_wait_are_told<F: Fixture>() {
    let world = World::<F>::new();
    let store = world.store.clone();
    let told = tokio::spawn(async move { store.woken().await });
    world.stored(event(1, "app", &["a", "b"])).await;
    let (a, b) = (world.dest("a").await, world.dest("b").await);
    assert_eq!(told.await.unwrap(), [a, b].into());
    let claim = world.claim_one(a).await;
    world.stored(event(2, "app", &["a"])).await;
    world.deliver(&claim).await;
    assert_eq!(world.store.woken().await, [a].into());
    world.store.wake(b).await;
    assert_eq!(world.store.woken().await, [b].into());
    let claim = world.claim_one(a).await;
    world.store.release(claim.lane);
    assert_eq!(world.store.woken().await, [a].into());
    let claim = world.claim_one(a).await;
    world.deliver(&claim).await;
    let quiet = tokio::time::timeout(Duration::from_millis(20), world.store.woken()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    world.store.redeliver(claim.rows[0].id).await.unwrap();
    assert_eq!(world.store.woken().await, [a].into());
}

/// A clock that goes on between any two looks at it, as clocks do.
pub async fn those_who_wait_are_told_as_time_goes_by<F: Fixture>() {
    let world = World::<F>::with(|options| {
        let (stopped, ticks) = (Arc::clone(&options.clock), AtomicU64::new(0));
        options.clock = Arc::new(move || stopped().after(Duration::from_micros(ticks.fetch_add(1, Relaxed))));
    });
    let told = async || tokio::time::timeout(Duration::from_secs(5), world.store.woken()).await.unwrap();
    world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    assert_eq!(told().await, [dest].into());
    assert_eq!(world.drain(dest).await.len(), 1);
    let reported = report(world.now(), "app", "Progressing", 'a');
    world.stored(Candidate { routes: vec![status("git", 0)], ..reported }).await;
    let dest = world.dest("git").await;
    assert_eq!(told().await, [dest].into());
    assert_eq!(world.drain(dest).await.len(), 1);
    let reported = report(world.now(), "app", "DependencyNotReady", 'b');
    world.stored(Candidate { routes: vec![status("git", 60)], ..reported }).await;
    assert_eq!(told().await, [dest].into(), "its next work is due at another time");
}
