//! Retention, bounds, and the end of what was deleted.

use std::time::Duration;

use belfry_core::{ConfigKey, Seq, plan::Candidate};
use belfry_store::{DeliveryQuery, DeliveryState, EventQuery, Finish, Pruned, RowState};
use serde_json::json;

use super::{Fixture, World, event, report, status};

const MINUTE: Duration = Duration::from_secs(61);
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);

async fn in_state<F: Fixture>(world: &World<F>, state: DeliveryState) -> Vec<(String, Seq, Option<String>)> {
    let query = DeliveryQuery { states: vec![state], ..DeliveryQuery::default() };
    let rows = world.store.deliveries(query).await.unwrap().items;
    rows.into_iter().rev().map(|row| (row.provider.name.to_string(), row.event, row.answer)).collect()
}

async fn seqs<F: Fixture>(world: &World<F>) -> Vec<Seq> {
    let mut seqs: Vec<_> =
        world.store.events(EventQuery::default()).await.unwrap().items.iter().map(|row| row.seq).collect();
    seqs.reverse();
    seqs
}

pub async fn a_backlog_is_bounded<F: Fixture>() {
    let world = World::<F>::with(|options| options.provider_backlog = 5);
    let mut stored = Vec::new();
    for n in 0..8 {
        stored.push(world.stored(event(n, &format!("app-{}", n % 2), &["a"])).await);
    }
    for n in 10..14 {
        world.stored(event(n, "app", &["b"])).await;
    }
    assert_eq!(world.store.prune().await.unwrap(), Pruned { backlog: 3, ..Pruned::default() });
    let full = Some("backlog full".to_owned());
    let dead: Vec<_> = stored[..3].iter().map(|seq| ("a".to_owned(), *seq, full.clone())).collect();
    assert_eq!(in_state(&world, DeliveryState::Dead).await, dead);
    let dest = world.dest("a").await;
    assert_eq!(world.store.stats().pending[&dest].count, 5);
    let mut left = world.drain(dest).await;
    left.sort_unstable();
    assert_eq!(left, stored[3..]);
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
}

pub async fn a_namespace_is_bounded<F: Fixture>() {
    let world = World::<F>::with(|options| options.namespace_backlog = 6);
    let mut stored = Vec::new();
    for n in 0..10 {
        stored.push(world.stored(event(n, "app", &[["a", "b"][n as usize % 2]])).await);
    }
    let mut elsewhere = event(20, "app", &["c"]);
    elsewhere.routes[0].provider = ConfigKey::provider("other", "c").into();
    world.stored(elsewhere).await;
    assert_eq!(world.store.prune().await.unwrap().backlog, 4);
    let dead: Vec<_> = in_state(&world, DeliveryState::Dead).await.into_iter().map(|(_, seq, _)| seq).collect();
    assert_eq!(dead, stored[..4]);
}

pub async fn in_flight_is_left_alone<F: Fixture>() {
    let world = World::<F>::with(|options| options.provider_backlog = 1);
    let first = world.stored(event(1, "app", &["a"])).await;
    world.pass(MINUTE);
    let second = world.stored(event(2, "other", &["a"])).await;
    let third = world.stored(event(3, "third", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_some(dest, 1).await.lanes.remove(0);
    assert_eq!(claim.rows[0].cause, first);
    assert_eq!(world.store.prune().await.unwrap().backlog, 2);
    let dead: Vec<_> = in_state(&world, DeliveryState::Dead).await.into_iter().map(|(_, seq, _)| seq).collect();
    assert_eq!(dead, [second, third]);
    world.deliver(&claim).await;
    assert_eq!(in_state(&world, DeliveryState::Delivered).await.len(), 1);
    assert_eq!(world.next_due(dest).await, None);
}

pub async fn deleted_providers_end_their_deliveries<F: Fixture>() {
    let world = World::<F>::new();
    let (a, b) = (ConfigKey::provider("flux-system", "a"), ConfigKey::provider("flux-system", "b"));
    let both = vec![(a.clone(), json!({"spec": 1})), (b.clone(), json!({"spec": 2}))];
    world.store.config_changed(both.clone()).await.unwrap();
    let first = world.stored(event(1, "app", &["a", "b"])).await;
    let second = world.stored(event(2, "app", &["a"])).await;
    let dest = world.dest("a").await;
    world.store.config_changed(both[1..].to_vec()).await.unwrap();
    // It may come back within a minute.
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
    world.store.config_changed(both.clone()).await.unwrap();
    world.pass(MINUTE);
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
    world.store.config_changed(both[1..].to_vec()).await.unwrap();
    let world = world.crash();
    world.pass(MINUTE);
    // What is in flight ends as it ends; what is left of it goes with the next pass.
    let mut claim = world.claim_one(dest).await;
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
    claim.rows.truncate(1);
    world.deliver(&claim).await;
    assert_eq!(world.store.prune().await.unwrap(), Pruned { deleted: 1, ..Pruned::default() });
    let why = Some("deleted: Provider/flux-system/a was deleted".to_owned());
    assert_eq!(in_state(&world, DeliveryState::Dead).await, [("a".to_owned(), second, why)]);
    assert_eq!(in_state(&world, DeliveryState::Pending).await, [("b".to_owned(), first, None)]);
    // From now on it is one that was never there: its deliveries wait.
    world.stored(event(3, "app", &["a"])).await;
    world.pass(MINUTE);
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
    assert_eq!(world.claim_one(dest).await.rows.len(), 1);
}

pub async fn deleted_alerts_end_their_deliveries<F: Fixture>() {
    let world = World::<F>::new();
    let alert = ConfigKey::alert("flux-system", "to-a");
    world.store.config_changed(vec![(alert, json!({}))]).await.unwrap();
    let mut other = event(2, "app", &["a"]);
    other.routes[0].route = ConfigKey::alert("flux-system", "another").into();
    world.stored(event(1, "app", &["a"])).await;
    let kept = world.stored(other).await;
    world.store.config_changed(Vec::new()).await.unwrap();
    world.pass(MINUTE);
    assert_eq!(world.store.prune().await.unwrap(), Pruned { deleted: 1, ..Pruned::default() });
    let dead = in_state(&world, DeliveryState::Dead).await;
    assert_eq!(dead[0].2.as_deref(), Some("deleted: Alert/flux-system/to-a was deleted"));
    let dest = world.dest("a").await;
    assert_eq!(world.drain(dest).await, [kept]);
}

pub async fn what_was_never_there_is_waited_for<F: Fixture>() {
    let world = World::<F>::new();
    world.stored(event(1, "app", &["a"])).await;
    world.store.config_changed(Vec::new()).await.unwrap();
    world.pass(MINUTE);
    assert_eq!(world.store.prune().await.unwrap(), Pruned::default());
    assert_eq!(in_state(&world, DeliveryState::Pending).await.len(), 1);
}

pub async fn configuration_is_remembered<F: Fixture>() {
    let world = World::<F>::new();
    let (a, b) = (ConfigKey::provider("flux-system", "a"), ConfigKey::alert("flux-system", "a"));
    world.store.config_changed(vec![(a.clone(), json!({"v": 1})), (b.clone(), json!({"v": 1}))]).await.unwrap();
    world.store.config_changed(vec![(a.clone(), json!({"v": 2}))]).await.unwrap();
    let world = world.crash();
    assert_eq!(world.store.saved_config().await.unwrap(), [(a, json!({"v": 2}))]);
}

pub async fn old_events_go<F: Fixture>() {
    let world = World::<F>::new();
    for n in 0..250 {
        world.stored(event(n, &format!("app-{n}"), &["a"])).await;
    }
    let dest = world.dest("a").await;
    assert_eq!(world.drain(dest).await.len(), 250);
    world.pass(MONTH);
    let young = world.stored(event(1000, "app", &["a"])).await;
    assert_eq!(world.store.prune().await.unwrap(), Pruned { events: 250, ..Pruned::default() });
    assert_eq!(seqs(&world).await, [young]);
    let rows = world.store.deliveries(DeliveryQuery::default()).await.unwrap().items;
    assert_eq!(rows.len(), 1);
    assert_eq!(world.drain(dest).await, [young]);
}

pub async fn undelivered_ones_stay<F: Fixture>() {
    let world = World::<F>::with(|options| options.retention_bytes = 0);
    let first = world.stored(event(1, "app", &["a", "b"])).await;
    world.stored(event(2, "app", &["b"])).await;
    let third = world.stored(event(3, "app", &["a"])).await;
    let (a, b) = (world.dest("a").await, world.dest("b").await);
    world.drain(b).await;
    world.pass(MONTH);
    assert_eq!(world.store.prune().await.unwrap().events, 1);
    assert_eq!(seqs(&world).await, [first, third]);
    assert_eq!(world.drain(a).await, [first, third]);
    assert_eq!(world.store.prune().await.unwrap().events, 2);
}

pub async fn dead_letters_go_last<F: Fixture>() {
    let world = World::<F>::with(|options| options.retention_bytes = 1 << 20);
    let dead = world.stored(event(1, "app", &["a"])).await;
    let dest = world.dest("a").await;
    let claim = world.claim_one(dest).await;
    world.settle(&claim, RowState::Dead("no".into()), Finish::default()).await;
    let mut large = Vec::new();
    for n in 10..20 {
        let body = vec![b'x'; 256 << 10].into();
        large.push(world.stored(Candidate { body, ..event(n, "app", &[]) }).await);
    }
    let pruned = world.store.prune().await.unwrap().events;
    assert!((6..=10).contains(&pruned), "{pruned}");
    let left = seqs(&world).await;
    assert_eq!(left[0], dead);
    assert_eq!(left[1..], large[usize::try_from(pruned).unwrap()..]);
}

pub async fn deleted_commit_statuses_end_their_deliveries<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    world.store.config_changed(vec![((*route.route).clone(), json!({}))]).await.unwrap();
    let told = Candidate { routes: vec![route], ..report(world.now(), "app", "Progressing", 'a') };
    world.stored(told).await;
    world.store.config_changed(Vec::new()).await.unwrap();
    world.pass(MINUTE);
    assert_eq!(world.store.prune().await.unwrap(), Pruned { deleted: 1, ..Pruned::default() });
    let dead = in_state(&world, DeliveryState::Dead).await;
    assert_eq!(dead[0].2.as_deref(), Some("deleted: CommitStatus/flux-system/status-git was deleted"));
    assert!(world.store.dests().await.unwrap().is_empty());
}
