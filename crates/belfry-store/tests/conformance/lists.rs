//! Lists hold exactly what a look at each row would find, whichever way leads there: enough objects, events and days for all ways.

use std::time::Duration;

use belfry_core::{Seq, Time, plan::Candidate, rollout::Phase};
use belfry_store::{
    DeliveryQuery, DeliveryRow, DeliveryState, EventQuery, EventRow, Finish, ObjectFilter, RolloutQuery, RolloutRow,
    RowState,
};

use super::{Fixture, World, report};

const OBJECTS: u64 = 60;
const ROUNDS: u64 = 50;

/// The event of an object in a round: some fail, one commit follows another, a few say what is rarely said.
fn candidate(now: Time, round: u64, object: u64) -> Candidate {
    let letter = char::from(b'a' + (round / 8 + object % 3) as u8);
    let reason = match (round + object) % 8 {
        _ if round == 3 && object % 20 == 7 => "!PruneFailed",
        0 | 1 => "Progressing",
        2 if object.is_multiple_of(5) => "!BuildFailed",
        3 if object.is_multiple_of(5) => "!HealthCheckFailed",
        _ => "ReconciliationSucceeded",
    };
    let mut candidate = report(now, &format!("app-{}", object / 4), reason, letter);
    candidate.object.cluster = format!("cluster-{}", object % 2);
    candidate.object.namespace = format!("team-{}", object / 2 % 2);
    // Each object of its own, and each event.
    candidate.dedupe = round * OBJECTS + object;
    candidate.body_hash = candidate.dedupe | 1 << 63;
    let routed = super::event(0, "", if object.is_multiple_of(3) { &["chat", "pager"] } else { &["chat"] });
    candidate.routes = if object.is_multiple_of(2) { routed.routes } else { Vec::new() };
    candidate
}

/// Twelve days of events, of whose deliveries some wait and some are dead.
async fn filled<F: Fixture>() -> World<F> {
    let world = World::<F>::new();
    for round in 0..ROUNDS {
        world.pass(Duration::from_secs(6 * 3600));
        let now = world.now();
        let all = (0..OBJECTS).map(|object| world.store.append(candidate(now, round, object)));
        for appended in futures::future::join_all(all).await {
            appended.unwrap();
        }
        for provider in ["chat", "pager"].into_iter().filter(|_| !round.is_multiple_of(10)) {
            let dest = world.dest(provider).await;
            for claim in world.claim_some(dest, 64).await.lanes {
                let dead = claim.lane.0 % 7 == 0;
                let state = if dead { RowState::Dead("no".into()) } else { RowState::Delivered };
                world.store.settle(super::settlement(&claim, world.now(), &state, Some(Finish::default())));
            }
            world.store.flush().await;
        }
    }
    world
}

async fn events<F: Fixture>(world: &World<F>, query: &EventQuery) -> Vec<EventRow> {
    let (mut rows, mut query) = (Vec::new(), query.clone());
    loop {
        let page = world.store.events(query.clone()).await.unwrap();
        rows.extend(page.items);
        match (page.next, query.after) {
            (None, _) => return rows,
            (Some(next), Some(_)) => query.after = Some(Seq(next)),
            (next, None) => query.cursor = next,
        }
    }
}

fn is(filter: &ObjectFilter, object: &belfry_core::ObjectKey) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    is(&filter.cluster, &object.cluster)
        && is(&filter.group, &object.group)
        && is(&filter.kind, &object.kind)
        && is(&filter.namespace, &object.namespace)
        && is(&filter.name, &object.name)
}

/// Filters that select none, one, few, many, and all objects.
fn objects() -> Vec<ObjectFilter> {
    let some = |text: &str| Some(text.to_owned());
    let all = ObjectFilter::default();
    vec![
        all.clone(),
        ObjectFilter { name: some("app-3"), ..all.clone() },
        ObjectFilter { name: some("app-3"), namespace: some("team-1"), cluster: some("cluster-0"), ..all.clone() },
        ObjectFilter { namespace: some("team-1"), ..all.clone() },
        ObjectFilter { cluster: some("cluster-1"), kind: some("Kustomization"), ..all.clone() },
        ObjectFilter { namespace: some("none"), ..all },
    ]
}

pub async fn of_events<F: Fixture>() {
    let world = filled::<F>().await;
    let rows = events(&world, &EventQuery::default()).await;
    assert_eq!(rows.len() as u64, OBJECTS * ROUNDS);
    assert!(rows.is_sorted_by(|newer, older| newer.seq > older.seq));
    let some = |text: &str| Some(text.to_owned());
    let middle = (rows[2_300].seq.time(), rows[400].seq.time());
    for object in objects() {
        for severity in [None, some("error"), some("info")] {
            for reason in
                [None, some("ReconciliationSucceeded"), some("BuildFailed"), some("PruneFailed"), some("Never")]
            {
                for revision in [None, some("6200000"), some(&super::revision('c')), some("7800000")] {
                    let combined =
                        [severity.is_some(), reason.is_some(), revision.is_some()].into_iter().filter(|is| *is).count();
                    if combined == 3 {
                        continue;
                    }
                    for (since, until) in
                        [(None, None), (Some(middle.0), Some(middle.1))].into_iter().take(2 - combined)
                    {
                        let query = EventQuery {
                            object: object.clone(),
                            severity: severity.clone(),
                            reason: reason.clone(),
                            revision: revision.clone(),
                            since,
                            until,
                            limit: 499,
                            ..EventQuery::default()
                        };
                        let hash = revision.as_ref().map(|revision| revision.rsplit(':').next().unwrap_or_default());
                        let mut expected: Vec<&EventRow> = rows
                            .iter()
                            .filter(|row| is(&object, &row.object))
                            .filter(|row| severity.as_ref().is_none_or(|severity| *severity == row.severity))
                            .filter(|row| reason.as_ref().is_none_or(|reason| *reason == row.reason))
                            .filter(|row| hash.is_none_or(|hash| row.revision.as_ref().unwrap().contains(hash)))
                            .filter(|row| since.is_none_or(|since| row.seq.time() >= since))
                            .filter(|row| until.is_none_or(|until| row.seq.time() < until))
                            .collect();
                        assert!(events(&world, &query).await.iter().eq(expected.iter().copied()), "{query:?}");
                        expected.reverse();
                        let query = EventQuery { after: Some(Seq(0)), ..query };
                        assert!(events(&world, &query).await.iter().eq(expected), "{query:?}");
                    }
                }
            }
        }
    }
}

async fn deliveries<F: Fixture>(world: &World<F>, query: &DeliveryQuery) -> Vec<DeliveryRow> {
    let (mut rows, mut query) = (Vec::new(), query.clone());
    loop {
        let page = world.store.deliveries(query.clone()).await.unwrap();
        rows.extend(page.items);
        match page.next {
            None => return rows,
            next => query.cursor = next,
        }
    }
}

pub async fn of_deliveries<F: Fixture>() {
    let world = filled::<F>().await;
    let rows = deliveries(&world, &DeliveryQuery::default()).await;
    assert!(rows.len() as u64 > OBJECTS * 6 && rows.is_sorted_by(|newer, older| newer.id > older.id));
    let some = |text: &str| Some(text.to_owned());
    let middle = rows[rows.len() / 2].created;
    let states = [
        vec![],
        vec![DeliveryState::Dead],
        vec![DeliveryState::Pending],
        vec![DeliveryState::Pending, DeliveryState::Dead],
        vec![DeliveryState::Superseded],
    ];
    for object in objects() {
        for states in &states {
            for provider in [None, some("pager"), some("chat"), some("none")] {
                for (alert, until) in [(None, None), (some("to-chat"), Some(middle))] {
                    let query = DeliveryQuery {
                        states: states.clone(),
                        provider: provider.clone(),
                        alert: alert.clone(),
                        object: object.clone(),
                        until,
                        limit: 83,
                        ..DeliveryQuery::default()
                    };
                    let expected = rows
                        .iter()
                        .filter(|row| states.is_empty() || states.contains(&row.state))
                        .filter(|row| provider.as_ref().is_none_or(|provider| *row.provider.name == **provider))
                        .filter(|row| alert.as_ref().is_none_or(|alert| *row.route.name == **alert))
                        .filter(|row| is(&object, &row.object))
                        .filter(|row| until.is_none_or(|until| row.created < until));
                    assert!(deliveries(&world, &query).await.iter().eq(expected), "{query:?}");
                }
            }
        }
    }
}

async fn rollouts<F: Fixture>(world: &World<F>, query: &RolloutQuery) -> Vec<RolloutRow> {
    let (mut rows, mut query) = (Vec::new(), query.clone());
    loop {
        let page = world.store.rollouts(query.clone()).await.unwrap();
        rows.extend(page.items);
        match page.next {
            None => return rows,
            next => query.cursor = next,
        }
    }
}

pub async fn of_rollouts<F: Fixture>() {
    let world = filled::<F>().await;
    let rows = rollouts(&world, &RolloutQuery::default()).await;
    assert!(rows.len() as u64 > OBJECTS * 6 && rows.is_sorted_by(|newer, older| newer.id > older.id));
    let states = [
        vec![],
        vec![Phase::Failed],
        vec![Phase::Pending, Phase::Progressing],
        vec![Phase::Succeeded],
        vec![Phase::Superseded, Phase::Failed],
        vec![Phase::Failed, Phase::Succeeded],
    ];
    for object in objects() {
        for states in &states {
            for revision in [None, Some("6300000".to_owned()), Some(super::revision('d')), Some("7900000".to_owned())] {
                let query = RolloutQuery {
                    object: object.clone(),
                    revision: revision.clone(),
                    states: states.clone(),
                    limit: 37,
                    ..RolloutQuery::default()
                };
                let hash = revision.as_ref().map(|revision| revision.rsplit(':').next().unwrap_or_default());
                let expected = rows
                    .iter()
                    .filter(|row| is(&object, &row.object))
                    .filter(|row| states.is_empty() || states.contains(&row.state))
                    .filter(|row| hash.is_none_or(|hash| row.revision.contains(hash)));
                assert!(rollouts(&world, &query).await.iter().eq(expected), "{query:?}");
            }
        }
    }
}
