//! Webhooks and the triggers that they cause.

use std::{sync::Arc, time::Duration};

use belfry_core::{ConfigKey, Seq, limits};
use belfry_store::{
    DeliveryKind, DeliveryQuery, DeliveryState, DestId, EventQuery, Finish, Hook, HookVerdict, Hooked, ObjectFilter,
    Pruned, RowState, TriggerRef, What,
};

use super::{Fixture, World, event, kustomization};

const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);

fn hook<F: Fixture>(world: &World<F>, receiver: &str, id: &str, objects: &[&str]) -> Hook {
    Hook {
        receiver: Arc::new(ConfigKey::receiver("flux-system", receiver)),
        at: world.now(),
        delivery_id: Some(id.into()),
        verdict: HookVerdict::Accepted,
        reason: String::new(),
        event: "push".into(),
        bytes: 7,
        triggers: objects.iter().map(|name| TriggerRef { object: kustomization(name) }).collect(),
    }
}

async fn post<F: Fixture>(world: &World<F>, hook: Hook) -> Hooked {
    world.store.hook(hook).await.unwrap()
}

async fn cluster<F: Fixture>(world: &World<F>) -> DestId {
    let dests = world.store.dests().await.unwrap();
    dests.iter().find(|(_, key, _)| *key == ConfigKey::cluster()).unwrap().0
}

pub async fn a_webhook_triggers_its_objects<F: Fixture>() {
    let world = World::<F>::new();
    let hooked = post(&world, hook(&world, "github", "1", &["app", "other"])).await;
    assert_eq!(hooked, Hooked { seq: Seq(world.now().0), repeat_of: None, new: 2, merged: 0 });
    let world = world.crash();
    let dest = cluster(&world).await;
    let mut claims = world.claim(dest).await;
    claims.sort_by_key(|claim| claim.rows[0].object.name.clone());
    assert_eq!(claims.len(), 2);
    let row = &claims[0].rows[0];
    assert_eq!((&*row.object, row.cause, row.newest), (&kustomization("app"), hooked.seq, true));
    assert_eq!(row.route.to_string(), "Receiver/flux-system/github");
    assert!(matches!(row.what, What::Trigger { asked } if asked == hooked.seq.time()), "{:?}", row.what);
    assert_eq!(*claims[0].dest_key, ConfigKey::cluster());
    for claim in &claims {
        world.deliver(claim).await;
    }
    assert_eq!(world.next_due(dest).await, None);
    // A webhook is no event.
    assert!(world.store.events(EventQuery::default()).await.unwrap().items.is_empty());
    assert_eq!(*world.store.head().borrow(), Seq(0));
    let rows = world.store.hooks(None, 0).await.unwrap();
    let row = &rows[0];
    assert_eq!((rows.len(), row.seq, &*row.receiver.name, row.at), (1, hooked.seq, "github", hooked.seq.time()));
    assert_eq!((row.delivery_id.as_deref(), row.verdict, &*row.event), (Some("1"), HookVerdict::Accepted, "push"));
    assert_eq!((row.bytes, row.resources, row.merged), (7, 2, 0));
    // The numbers of the log go on behind it.
    assert!(world.stored(event(1, "app", &[])).await > hooked.seq);
}

pub async fn waiting_triggers_do_for_all<F: Fixture>() {
    let world = World::<F>::new();
    let names: Vec<String> = (0..100).map(|n| format!("app-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(post(&world, hook(&world, "github", "1", &names)).await.new, 100);
    let count = async |world: &World<F>| {
        let query = DeliveryQuery { limit: 500, ..DeliveryQuery::default() };
        world.store.deliveries(query).await.unwrap().items.len()
    };
    for id in 2..10 {
        let again = post(&world, hook(&world, "github", &id.to_string(), &names)).await;
        assert_eq!((again.new, again.merged), (0, 100));
    }
    let mixed = post(&world, hook(&world, "gitlab", "1", &["app-1", "new", "new"])).await;
    assert_eq!((mixed.new, mixed.merged), (1, 2));
    assert_eq!(count(&world).await, 101);
    let dest = cluster(&world).await;
    assert_eq!(world.store.stats().pending[&dest].count, 101);
    // An event of the same object for an Alert is another thing.
    world.stored(event(1, "app-1", &["chat"])).await;
    assert_eq!(post(&world, hook(&world, "gitlab", "2", &["app-1"])).await.merged, 1);
    let rows = world.store.hooks(Some(&ConfigKey::receiver("flux-system", "gitlab")), 1).await.unwrap();
    assert_eq!((rows.len(), rows[0].resources, rows[0].merged), (1, 1, 1));
}

/// Whoever is at it may have begun before the push.
pub async fn what_is_in_flight_does_not<F: Fixture>() {
    let world = World::<F>::new();
    post(&world, hook(&world, "github", "1", &["app"])).await;
    let dest = cluster(&world).await;
    let first = world.claim_one(dest).await;
    assert_eq!(post(&world, hook(&world, "github", "2", &["app"])).await.new, 1);
    assert_eq!(post(&world, hook(&world, "github", "3", &["app"])).await.merged, 1);
    assert!(world.claim(dest).await.is_empty());
    world.deliver(&first).await;
    let second = world.claim_one(dest).await;
    assert_eq!((second.lane, second.rows.len()), (first.lane, 1));
    assert_ne!(second.rows[0].id, first.rows[0].id);
    world.deliver(&second).await;
    assert_eq!(post(&world, hook(&world, "github", "4", &["app"])).await.new, 1);
}

pub async fn a_trigger_tried_in_vain_gives_way<F: Fixture>() {
    let world = World::<F>::new();
    post(&world, hook(&world, "github", "1", &["app"])).await;
    let dest = cluster(&world).await;
    let first = world.claim_one(dest).await;
    post(&world, hook(&world, "github", "2", &["app"])).await;
    let due = world.now().after(Duration::from_secs(60));
    world.settle(&first, RowState::Retry, Finish { due: Some(due), ..Finish::default() }).await;
    assert_eq!(world.delivery(first.rows[0].id).await.state, DeliveryState::Superseded);
    assert_eq!(world.store.stats().pending[&dest].count, 1);
    assert_eq!(world.next_due(dest).await, Some(due));
    // It waits, so another webhook need not.
    assert_eq!(post(&world, hook(&world, "github", "3", &["app"])).await.merged, 1);
    world.pass(Duration::from_secs(60));
    let second = world.claim_one(dest).await;
    world.deliver(&second).await;
    assert_eq!(world.next_due(dest).await, None);
}

pub async fn repeats_trigger_nothing<F: Fixture>() {
    let world = World::<F>::new();
    let first = post(&world, hook(&world, "github", "1", &["app"])).await;
    let dest = cluster(&world).await;
    world.drain(dest).await;
    let again = post(&world, hook(&world, "github", "1", &["app"])).await;
    assert_eq!((again.repeat_of, again.new, again.merged), (Some(first.seq), 0, 0));
    let rows = world.store.hooks(None, 0).await.unwrap();
    assert_eq!((rows[0].verdict, rows[0].merged), (HookVerdict::Repeat, 0));
    assert!(rows[0].reason.contains(&first.seq.time().to_string()), "{}", rows[0].reason);
    // The id of another Receiver, and no id at all.
    assert_eq!(post(&world, hook(&world, "gitlab", "1", &["app"])).await.new, 1);
    for _ in 0..2 {
        let nameless = Hook { delivery_id: None, ..hook(&world, "github", "", &["app"]) };
        assert_eq!(post(&world, nameless).await.repeat_of, None);
        assert_eq!(post(&world, hook(&world, "github", "", &["app"])).await.repeat_of, None);
    }
    // A repeat doesn't make it last longer: the host's own button works five minutes after the first.
    world.pass(limits::HOOK_REPEAT);
    assert_eq!(post(&world, hook(&world, "github", "1", &["third"])).await.repeat_of, None);
    // What was filtered out is known too.
    let ignored = |id: &str| Hook { verdict: HookVerdict::Ignored, ..hook(&world, "github", id, &[]) };
    let first = post(&world, ignored("9")).await;
    assert_eq!(post(&world, ignored("9")).await.repeat_of, Some(first.seq));
}

pub async fn repeats_are_known_after_a_crash<F: Fixture>() {
    let world = World::<F>::new();
    let first = post(&world, hook(&world, "github", "1", &["app"])).await;
    let world = world.crash();
    assert_eq!(post(&world, hook(&world, "github", "1", &["app"])).await.repeat_of, Some(first.seq));
    let world = world.crash();
    world.pass(limits::HOOK_REPEAT);
    assert_eq!(post(&world, hook(&world, "github", "1", &["app"])).await.repeat_of, None);
}

/// A stranger can't make a genuine webhook look like a repeat, nor push it out of the list.
pub async fn what_is_refused_teaches_nothing<F: Fixture>() {
    let world = World::<F>::new();
    let refused = |id: &str| {
        let reason = "the signature is wrong".into();
        Hook { verdict: HookVerdict::Refused, reason, ..hook(&world, "github", id, &["app"]) }
    };
    assert_eq!(post(&world, refused("1")).await.new, 0);
    let genuine = post(&world, hook(&world, "github", "1", &["app"])).await;
    assert_eq!((genuine.repeat_of, genuine.new), (None, 1));
    for n in 0..3 * limits::HOOKS_KEPT {
        assert_eq!(post(&world, refused("1")).await.repeat_of, None, "{n}");
    }
    let rows = world.store.hooks(None, 500).await.unwrap();
    assert_eq!(rows.len(), 1 + limits::HOOKS_KEPT as usize);
    assert!(rows.iter().any(|row| row.seq == genuine.seq));
    assert_eq!(rows[0].reason, "the signature is wrong");
}

pub async fn the_last_ones_are_kept<F: Fixture>() {
    let world = World::<F>::new();
    let kept = limits::HOOKS_KEPT as usize;
    let mut seqs = Vec::new();
    for n in 0..2 * kept {
        let ignored = Hook { verdict: HookVerdict::Ignored, ..hook(&world, "github", &n.to_string(), &[]) };
        seqs.push(post(&world, ignored).await.seq);
    }
    // Their ids are still to be remembered.
    assert_eq!(world.store.hooks(None, 500).await.unwrap().len(), 2 * kept);
    let other = post(&world, hook(&world, "gitlab", "1", &[])).await.seq;
    world.pass(limits::HOOK_REPEAT + Duration::from_secs(1));
    seqs.push(post(&world, hook(&world, "github", "last", &[])).await.seq);
    let github = ConfigKey::receiver("flux-system", "github");
    let rows = world.store.hooks(Some(&github), 500).await.unwrap();
    let left: Vec<_> = rows.iter().rev().map(|row| row.seq).collect();
    assert_eq!(left, seqs[seqs.len() - kept..]);
    assert!(world.store.hooks(None, 500).await.unwrap().iter().any(|row| row.seq == other));
}

pub async fn those_with_waiting_triggers_stay<F: Fixture>() {
    let world = World::<F>::new();
    let first = post(&world, hook(&world, "github", "first", &["app"])).await;
    world.pass(limits::HOOK_REPEAT);
    for n in 0..2 * limits::HOOKS_KEPT {
        post(&world, hook(&world, "github", &n.to_string(), &[])).await;
        world.pass(limits::HOOK_REPEAT);
    }
    let dest = cluster(&world).await;
    let claim = world.claim_one(dest).await;
    assert_eq!(claim.rows[0].cause, first.seq);
    world.deliver(&claim).await;
    post(&world, hook(&world, "github", "last", &[])).await;
    assert!(world.store.hooks(None, 500).await.unwrap().iter().all(|row| row.seq != first.seq));
    assert!(world.store.deliveries(DeliveryQuery::default()).await.unwrap().items.is_empty());
}

pub async fn they_go_with_age<F: Fixture>() {
    let world = World::<F>::new();
    post(&world, hook(&world, "github", "1", &["app"])).await;
    let dest = cluster(&world).await;
    world.drain(dest).await;
    let waits = post(&world, hook(&world, "github", "2", &["other"])).await;
    world.pass(MONTH);
    let young = post(&world, hook(&world, "github", "3", &[])).await;
    assert_eq!(world.store.prune().await.unwrap(), Pruned { hooks: 1, ..Pruned::default() });
    let left: Vec<_> = world.store.hooks(None, 0).await.unwrap().iter().map(|row| row.seq).collect();
    assert_eq!(left, [young.seq, waits.seq]);
    assert_eq!(world.drain(dest).await, [waits.seq]);
}

pub async fn triggers_are_deliveries<F: Fixture>() {
    let world = World::<F>::new();
    let hooked = post(&world, hook(&world, "github", "1", &["app", "other"])).await;
    world.stored(event(1, "app", &["chat"])).await;
    let triggers = DeliveryQuery { kind: Some(DeliveryKind::Trigger), ..DeliveryQuery::default() };
    let rows = world.store.deliveries(triggers.clone()).await.unwrap().items;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].provider.to_string(), "Cluster//local");
    assert_eq!(rows[0].route.to_string(), "Receiver/flux-system/github");
    assert_eq!((rows[0].event, &*rows[0].reason, rows[0].rollout), (hooked.seq, "push", None));
    let named = ObjectFilter { name: Some("app".into()), ..ObjectFilter::default() };
    for states in [vec![], vec![DeliveryState::Pending]] {
        let query = DeliveryQuery { object: named.clone(), states: states.clone(), ..DeliveryQuery::default() };
        assert_eq!(world.store.deliveries(query).await.unwrap().items.len(), 2, "{states:?}");
    }
    let query = DeliveryQuery { object: named, ..triggers };
    assert_eq!(world.store.deliveries(query).await.unwrap().items.len(), 1);
    // A dead one can be asked for again.
    let dest = cluster(&world).await;
    let claim = world.claim(dest).await.remove(0);
    world.settle(&claim, RowState::Dead("forbidden".into()), Finish::default()).await;
    let again = world.store.redeliver(claim.rows[0].id).await.unwrap();
    assert_eq!(*again.provider, ConfigKey::cluster());
    let claims = world.claim(dest).await;
    assert_eq!(claims.iter().find(|found| found.lane == claim.lane).unwrap().rows[0].id, again.delivery);
}

/// However the writer cuts them into batches, the answers are those of one after the other.
pub async fn a_batch_of_webhooks<F: Fixture>() {
    let world = World::<F>::new();
    let mut posts = tokio::task::JoinSet::new();
    for n in 0..60 {
        let store = world.store.clone();
        let hook = hook(&world, "github", &(n % 20).to_string(), &["app", "other"]);
        posts.spawn(async move { store.hook(hook).await.unwrap() });
    }
    let answers = posts.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.repeat_of.is_none()).count(), 20);
    assert_eq!(answers.iter().map(|answer| answer.new).sum::<u32>(), 2);
    assert_eq!(answers.iter().map(|answer| answer.merged).sum::<u32>(), 38);
    let mut seqs: Vec<_> = answers.iter().map(|answer| answer.seq).collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 60);
    assert_eq!(world.store.stats().hooks, 60);
}
