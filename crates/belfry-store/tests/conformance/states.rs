//! State lanes: a destination is told where a rollout stands, and only the newest counts.

use std::time::Duration;

use belfry_core::{
    Seq,
    plan::{Candidate, RouteRef},
    rollout::{Found, Phase},
};
use belfry_store::{Claim, DeliveryKind, DeliveryQuery, DeliveryState, DestId, Finish, RolloutRow, RowState, What};

use super::{Fixture, World, commit, event, report, sighting, status};

const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);

/// An event of `app` a second later, for a CommitStatus of this Provider.
async fn tell<F: Fixture>(world: &World<F>, route: &RouteRef, object: &str, reason: &str, letter: char) -> Seq {
    world.pass(SECOND);
    let candidate = report(world.now(), object, reason, letter);
    world.stored(Candidate { routes: vec![route.clone()], ..candidate }).await
}

/// The rollout that a claim is to tell.
fn told(claim: &Claim) -> &RolloutRow {
    let [row] = &claim.rows[..] else { panic!("{:?}", claim.rows) };
    let What::Rollout { rollout, .. } = &row.what else { panic!("{:?}", row.what) };
    rollout
}

async fn claim<F: Fixture>(world: &World<F>, dest: DestId) -> Claim {
    world.claim_one(dest).await
}

async fn states<F: Fixture>(world: &World<F>) -> Vec<DeliveryState> {
    let rows = world.store.deliveries(DeliveryQuery::default()).await.unwrap().items;
    rows.iter().rev().map(|row| row.state).collect()
}

pub async fn a_status_is_told_of_rollouts<F: Fixture>() {
    let world = World::<F>::new();
    let both = |candidate: Candidate| {
        let mut routes = event(0, "app", &["chat"]).routes;
        routes.push(status("git", 0));
        Candidate { routes, ..candidate }
    };
    let opened = world.stored(both(report(world.now(), "app", "Progressing", 'a'))).await;
    let (git, chat) = (world.dest("git").await, world.dest("chat").await);
    let first = claim(&world, git).await;
    let row = &first.rows[0];
    assert_eq!((row.cause, &*row.route.name, &*row.object.name, row.newest), (opened, "status-git", "app", true));
    assert_eq!((told(&first).id, told(&first).state), (opened, Phase::Progressing));
    let What::Rollout { body, .. } = &row.what else { panic!() };
    assert_eq!(*body, world.store.event(opened).await.unwrap().unwrap().body);
    world.deliver(&first).await;
    // The same words again are an event for the Alert, and nothing new for the status.
    world.pass(SECOND);
    let mut again = both(report(world.now(), "app", "Progressing", 'a'));
    again.rollout.as_mut().unwrap().message = told(&first).message.clone();
    world.stored(again).await;
    assert_eq!(world.claim_one(chat).await.rows.len(), 2);
    assert_eq!(world.next_due(git).await, None);
    let rows =
        world.store.deliveries(DeliveryQuery { rollout: Some(opened), ..DeliveryQuery::default() }).await.unwrap();
    let row = &rows.items[0];
    assert_eq!((row.kind, row.rollout, row.event), (DeliveryKind::Rollout, Some(opened), opened));
    assert_eq!(row.route.to_string(), "CommitStatus/flux-system/status-git");
    let of_kind = |kind| DeliveryQuery { kind: Some(kind), ..DeliveryQuery::default() };
    for (kind, expected) in [(DeliveryKind::Event, 2), (DeliveryKind::Rollout, 1), (DeliveryKind::Trigger, 0)] {
        assert_eq!(world.store.deliveries(of_kind(kind)).await.unwrap().items.len(), expected, "{kind:?}");
    }
}

pub async fn states_settle<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 2);
    tell(&world, &route, "app", "DependencyNotReady", 'a').await;
    let git = world.dest("git").await;
    let due = world.now().after(2 * SECOND);
    assert!(world.claim(git).await.is_empty());
    assert_eq!(world.next_due(git).await, Some(due));
    // Another one in the meantime doesn't put it off.
    tell(&world, &route, "app", "Progressing", 'a').await;
    assert_eq!(world.next_due(git).await, Some(due));
    world.pass(SECOND);
    let progressing = claim(&world, git).await;
    assert_eq!(told(&progressing).state, Phase::Progressing);
    world.deliver(&progressing).await;
    // What ends a rollout is due at once, also when something waits to settle.
    tell(&world, &route, "app", "!BuildFailed", 'a').await;
    let failed = claim(&world, git).await;
    assert_eq!(told(&failed).state, Phase::Failed);
    world.deliver(&failed).await;
    tell(&world, &route, "app", "Progressing", 'b').await;
    assert!(world.claim(git).await.is_empty());
    tell(&world, &route, "app", "ReconciliationSucceeded", 'b').await;
    assert_eq!(told(&claim(&world, git).await).state, Phase::Succeeded);
}

pub async fn the_newest_wins<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    let opened = tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    tell(&world, &route, "app", "!HealthCheckFailed", 'a').await;
    assert_eq!(states(&world).await, [DeliveryState::Superseded, DeliveryState::Pending]);
    assert_eq!(world.store.stats().pending[&git].count, 1);
    let newest = claim(&world, git).await;
    assert_eq!((told(&newest).id, told(&newest).state), (opened, Phase::Failed));
    let rows = world.store.deliveries(DeliveryQuery::default()).await.unwrap().items;
    assert_eq!(rows[1].answer, Some(format!("superseded by delivery {}", newest.rows[0].id)));
    assert_eq!(rows[1].settled, Some(world.now()));
    world.deliver(&newest).await;
    assert_eq!(world.next_due(git).await, None);
    assert!(world.store.stats().pending.is_empty());
}

pub async fn what_is_in_flight_ends_as_it_ends<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let first = claim(&world, git).await;
    tell(&world, &route, "app", "!BuildFailed", 'a').await;
    tell(&world, &route, "app", "ReconciliationSucceeded", 'a').await;
    assert_eq!(states(&world).await, [DeliveryState::Pending, DeliveryState::Superseded, DeliveryState::Pending]);
    assert!(world.claim(git).await.is_empty());
    world.deliver(&first).await;
    assert_eq!(world.delivery(first.rows[0].id).await.state, DeliveryState::Delivered);
    let last = claim(&world, git).await;
    assert_eq!(told(&last).state, Phase::Succeeded);
    // Given back untouched, it is claimed as it was.
    world.store.release(last.lane);
    world.store.flush().await;
    assert_eq!(claim(&world, git).await.rows[0].id, last.rows[0].id);
}

pub async fn a_failed_attempt_is_not_repeated_for_an_old_state<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let first = claim(&world, git).await;
    tell(&world, &route, "app", "ReconciliationSucceeded", 'a').await;
    let due = world.now().after(60 * SECOND);
    world.settle(&first, RowState::Retry, Finish { due: Some(due), ..Finish::default() }).await;
    let row = world.delivery(first.rows[0].id).await;
    assert_eq!((row.state, row.attempts), (DeliveryState::Superseded, 1));
    assert_eq!(world.store.stats().pending[&git].count, 1);
    // The destination has just failed: the back-off is its own.
    assert_eq!(world.next_due(git).await, Some(due));
    world.pass(60 * SECOND);
    assert_eq!(told(&claim(&world, git).await).state, Phase::Succeeded);
}

pub async fn each_commit_has_a_lane<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    tell(&world, &route, "app", "Progressing", 'b').await;
    tell(&world, &route, "other", "Progressing", 'b').await;
    let mut again = route.clone();
    again.route = belfry_core::ConfigKey::commit_status("flux-system", "again").into();
    tell(&world, &again, "other", "!BuildFailed", 'b').await;
    let git = world.dest("git").await;
    let claims = world.claim(git).await;
    let mut all: Vec<_> = claims
        .iter()
        .map(|claim| {
            let row = told(claim);
            let route = claim.rows[0].route.name.to_string();
            (route, row.object.name.clone(), row.commit.clone().unwrap(), row.state)
        })
        .collect();
    all.sort_by_key(|(route, object, commit, _)| (route.clone(), object.clone(), commit.clone()));
    let [git_status, again] = ["status-git", "again"].map(String::from);
    assert_eq!(
        all,
        [
            (again, "other".into(), commit('b'), Phase::Failed),
            (git_status.clone(), "app".into(), commit('a'), Phase::Superseded),
            (git_status.clone(), "app".into(), commit('b'), Phase::Progressing),
            // The rollout as it is now, whoever is told of it.
            (git_status, "other".into(), commit('b'), Phase::Failed),
        ]
    );
}

pub async fn an_aggregate_has_one_lane<F: Fixture>() {
    let world = World::<F>::new();
    let route = RouteRef { aggregate: true, ..status("git", 2) };
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let due = world.now().after(2 * SECOND);
    for object in ["app", "other", "third"] {
        world.pass(Duration::from_millis(100));
        let candidate = report(world.now(), object, "ReconciliationSucceeded", 'a');
        world.stored(Candidate { routes: vec![route.clone()], ..candidate }).await;
    }
    // One post for all, and an end doesn't hurry it.
    assert_eq!(world.store.stats().pending[&git].count, 1);
    assert_eq!(world.next_due(git).await, Some(due));
    world.pass(2 * SECOND);
    let one = claim(&world, git).await;
    assert_eq!((&*told(&one).object.name, told(&one).state), ("third", Phase::Succeeded));
}

pub async fn a_new_state_is_no_way_around_a_back_off<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let due = world.now().after(60 * SECOND);
    let first = claim(&world, git).await;
    world.settle(&first, RowState::Retry, Finish { due: Some(due), ..Finish::default() }).await;
    tell(&world, &route, "app", "!BuildFailed", 'a').await;
    assert_eq!(world.next_due(git).await, Some(due));
    assert_eq!(states(&world).await, [DeliveryState::Superseded, DeliveryState::Pending]);
    // Unless it was woken: the destination is back.
    world.store.wake(git).await;
    assert_eq!(told(&claim(&world, git).await).state, Phase::Failed);
}

pub async fn the_memo_outlives_its_deliveries<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "ReconciliationSucceeded", 'a').await;
    let git = world.dest("git").await;
    let first = claim(&world, git).await;
    world.settle(&first, RowState::Delivered, Finish { memo: Some(b"success".to_vec()), ..Finish::default() }).await;
    world.pass(MONTH);
    // The delivery and its event go; the rollout is the newest, and what is shown for it stays known.
    assert_eq!(world.store.prune().await.unwrap().events, 1);
    let world = world.crash();
    tell(&world, &route, "app", "!HealthCheckFailed", 'a').await;
    let second = claim(&world, git).await;
    assert_eq!((second.lane, &second.memo[..]), (first.lane, &b"success"[..]));
    world.settle(&second, RowState::Delivered, Finish { memo: Some(b"failure".to_vec()), ..Finish::default() }).await;
    tell(&world, &route, "app", "ReconciliationSucceeded", 'b').await;
    let b = claim(&world, git).await;
    world.deliver(&b).await;
    world.pass(MONTH);
    let pruned = world.store.prune().await.unwrap();
    assert_eq!((pruned.events, pruned.rollouts), (2, 1));
    // With the rollout gone, so is the lane: should the commit come back, nothing is known.
    world.store.prune().await.unwrap();
    tell(&world, &route, "app", "ReconciliationSucceeded", 'a').await;
    let again = claim(&world, git).await;
    assert_eq!((again.lane, again.memo.len()), (first.lane, 0));
}

/// An attempt was under way at a crash, and then something newer is to be shown: whoever shows it must look first.
pub async fn the_unknown_is_told_once<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    assert!(!claim(&world, git).await.recovered);
    let world = world.crash();
    tell(&world, &route, "app", "!BuildFailed", 'a').await;
    let newest = claim(&world, git).await;
    assert!(newest.recovered);
    assert_eq!(told(&newest).state, Phase::Failed);
    world.deliver(&newest).await;
    tell(&world, &route, "app", "ReconciliationSucceeded", 'a').await;
    assert!(!claim(&world, git).await.recovered);
    // Two waited at a crash, one of them in flight.
    tell(&world, &route, "app", "!HealthCheckFailed", 'a').await;
    let world = world.crash();
    let newest = claim(&world, git).await;
    assert_eq!((told(&newest).state, newest.recovered), (Phase::Failed, true));
    world.deliver(&newest).await;
    assert_eq!(world.next_due(git).await, None);
    assert!(!states(&world).await.contains(&DeliveryState::Pending));
    assert!(world.store.stats().pending.is_empty());
}

pub async fn redelivery_tells_the_state_of_now<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let first = claim(&world, git).await;
    world.settle(&first, RowState::Dead("no".into()), Finish::default()).await;
    tell(&world, &route, "app", "!BuildFailed", 'a').await;
    world.pass(SECOND);
    let redelivered = world.store.redeliver(first.rows[0].id).await.unwrap();
    assert_eq!(states(&world).await, [DeliveryState::Dead, DeliveryState::Superseded, DeliveryState::Pending]);
    assert_eq!(world.store.stats().pending[&git].count, 1);
    let again = claim(&world, git).await;
    assert_eq!((again.lane, again.rows[0].id), (first.lane, redelivered.delivery));
    assert_eq!(told(&again).state, Phase::Failed);
    world.deliver(&again).await;
    assert_eq!(world.next_due(git).await, None);
}

pub async fn observed_rollouts_are_told<F: Fixture>() {
    let world = World::<F>::new();
    let route = status("git", 0);
    let opened = tell(&world, &route, "app", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let first = claim(&world, git).await;
    world.deliver(&first).await;
    world.pass(SECOND);
    let mut routes = event(0, "app", &["chat"]).routes;
    routes.push(route);
    let seen = sighting(world.now(), "app", 'a', Found::Ready);
    let seq = world.store.observe(seen.clone(), routes.clone()).await.unwrap().unwrap();
    assert_eq!(world.store.observe(seen, routes).await.unwrap(), None);
    let second = claim(&world, git).await;
    assert_eq!((told(&second).id, told(&second).state, second.rows[0].cause), (opened, Phase::Succeeded, seq));
    assert_eq!(world.store.deliveries(DeliveryQuery::default()).await.unwrap().items.len(), 2, "no Alert is told");
}

/// Claims, outcomes and new states at the same time: each lane is told in order, and the newest last.
pub async fn order_holds_under_load<F: Fixture>() {
    const EACH: i64 = 150;
    let world = World::<F>::new();
    let route = status("git", 0);
    tell(&world, &route, "app-0", "Progressing", 'a').await;
    let git = world.dest("git").await;
    let mut writers = tokio::task::JoinSet::new();
    for object in 0..3 {
        let (store, route, now) = (world.store.clone(), route.clone(), world.now());
        writers.spawn(async move {
            for n in 1..=EACH {
                let reason = if n % 2 == 0 { "ReconciliationSucceeded" } else { "!HealthCheckFailed" };
                let candidate = report(now.after(n as u32 * SECOND), &format!("app-{object}"), reason, 'a');
                store.append(Candidate { routes: vec![route.clone()], ..candidate }).await.unwrap();
            }
        });
    }
    let mut last = std::collections::BTreeMap::new();
    let mut attempts = 0;
    loop {
        let done = writers.is_empty();
        let claims = world.claim(git).await;
        for claim in &claims {
            let row = &claim.rows[0];
            let rollout = told(claim);
            let before = last.insert(row.object.name.clone(), (row.id, rollout.last_event, rollout.state));
            assert!(before.is_none_or(|(id, event, _)| id < row.id && event <= rollout.last_event), "{row:?}");
            attempts += 1;
            let state = if attempts % 5 == 0 { RowState::Retry } else { RowState::Delivered };
            if state == RowState::Retry {
                last.remove(&row.object.name);
            }
            world.store.settle(super::settlement(claim, world.now(), &state, Some(Finish::default())));
        }
        world.store.flush().await;
        while writers.try_join_next().is_some() {}
        if done && claims.is_empty() {
            break;
        }
    }
    assert!(attempts > 3, "{attempts}");
    assert_eq!(last.len(), 3);
    assert!(last.values().all(|(_, _, state)| *state == Phase::Succeeded), "{last:?}");
    assert!(world.store.stats().pending.is_empty());
    assert!(!states(&world).await.contains(&DeliveryState::Pending));
}
