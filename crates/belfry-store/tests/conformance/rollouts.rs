//! Rollouts, and what watches tell of them.

use std::time::Duration;

use belfry_core::{
    Seq, event as flux_event,
    plan::{Candidate, ObjectState, Origin, Plan, Seen, observe, plan},
    rollout::{Found, Hints, KEPT, Phase, Sighting},
};
use belfry_store::{Appended, EventQuery, ObjectFilter, Pruned, RolloutQuery, RolloutRow};

use super::{Fixture, World, commit, event, kustomization, report, revision, sighting, status};

const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(31 * 24 * 3600);

async fn all<F: Fixture>(world: &World<F>) -> Vec<RolloutRow> {
    let mut rows = world.store.rollouts(RolloutQuery::default()).await.unwrap().items;
    rows.reverse();
    rows
}

async fn tell<F: Fixture>(world: &World<F>, object: &str, reason: &str, letter: char) -> Seq {
    world.pass(SECOND);
    world.stored(report(world.now(), object, reason, letter)).await
}

async fn see<F: Fixture>(world: &World<F>, object: &str, letter: char, found: Found) -> Option<Seq> {
    world.pass(SECOND);
    world.store.observe(sighting(world.now(), object, letter, found), Vec::new()).await.unwrap()
}

fn failed() -> Found {
    Found::Failed { reason: "HealthCheckFailed".into(), message: "timeout".into() }
}

pub async fn they_are_written_as_they_go<F: Fixture>() {
    let world = World::<F>::new();
    let first = tell(&world, "app", "Progressing", 'a').await;
    let row = world.store.rollout(first).await.unwrap().unwrap();
    assert_eq!((row.state, row.finished, row.attempts, row.last_event), (Phase::Progressing, None, 1, first));
    assert_eq!((row.id, &*row.object, &row.revision), (first, &kustomization("app"), &revision('a')));
    assert_eq!(row.commit, Some(commit('a')));
    let second = tell(&world, "app", "!BuildFailed", 'a').await;
    let row = world.store.rollout(first).await.unwrap().unwrap();
    assert_eq!((row.state, &*row.reason, row.last_event), (Phase::Failed, "BuildFailed", second));
    assert_eq!(row.finished.map(|at| at.since(row.started)), Some(SECOND));
    assert!(row.message.starts_with("BuildFailed at "), "{}", row.message);
    let third = tell(&world, "app", "Progressing", 'b').await;
    let fourth = tell(&world, "app", "Progressing", 'c').await;
    let world = world.crash();
    tell(&world, "app", "ReconciliationSucceeded", 'c').await;
    let rows = all(&world).await;
    let states: Vec<_> = rows.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(states, [(first, Phase::Failed), (third, Phase::Superseded), (fourth, Phase::Succeeded)]);
    let next = rows[1].superseded_by.as_ref().unwrap();
    assert_eq!((next.id, &next.revision, next.commit.as_ref()), (fourth, &revision('c'), Some(&commit('c'))));
    assert_eq!(rows[2].first_success, rows[2].finished);
    let state = world.store.object_state(&kustomization("app")).await.unwrap().unwrap();
    assert_eq!(state.rollouts.current().unwrap().id, fourth);
    assert_eq!(state.rollouts.live().unwrap().revision, revision('c'));
    assert_eq!(world.store.object_state(&kustomization("never heard of")).await.unwrap(), None);
    assert_eq!(world.store.rollout(Seq(1)).await.unwrap(), None);
    // Sources have none.
    let mut source = report(world.now(), "app", "NewArtifact", 'd');
    source.object.kind = "GitRepository".into();
    source.rollout = None;
    world.stored(source).await;
    assert_eq!(all(&world).await.len(), 3);
}

pub async fn they_are_found<F: Fixture>() {
    let world = World::<F>::new();
    let a = tell(&world, "app", "ReconciliationSucceeded", 'a').await;
    let other = tell(&world, "other", "!BuildFailed", 'a').await;
    let b = tell(&world, "app", "Progressing", 'b').await;
    let mut image = report(world.now(), "image", "Progressing", 'c');
    image.revision = Some(format!("latest@sha256:{}", "e".repeat(64)));
    let image = world.stored(image).await;
    let mut chart = report(world.now(), "chart", "Progressing", 'x');
    (chart.revision, chart.commit) = (Some("6.5.0+1a2b3c4d5e6f".into()), None);
    let chart = world.stored(chart).await;
    let found = async |query: RolloutQuery| {
        let rows = world.store.rollouts(query).await.unwrap().items;
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let of = |revision: &str| RolloutQuery { revision: Some(revision.to_owned()), ..RolloutQuery::default() };
    for (name, query, expected) in [
        ("all", RolloutQuery::default(), vec![chart, image, b, other, a]),
        ("commit", of(&commit('a')), vec![other, a]),
        ("its beginning", of(&commit('a')[..7]), vec![other, a]),
        ("too little of it", of(&commit('a')[..6]), vec![]),
        ("revision", of(&revision('b')), vec![b]),
        ("commit of an artifact", of(&commit('c')), vec![image]),
        ("digest of an artifact", of("sha256:eeeeeeeeee"), vec![image]),
        ("chart version", of("6.5.0"), vec![chart]),
        ("chart version and digest", of("6.5.0+1a2b3c4d5e6f"), vec![chart]),
        ("chart version and another digest", of("6.5.0+000000000000"), vec![]),
        ("another chart version", of("6.5"), vec![]),
        (
            "open",
            RolloutQuery { states: vec![Phase::Pending, Phase::Progressing], ..RolloutQuery::default() },
            vec![chart, image, b],
        ),
        ("failed", RolloutQuery { states: vec![Phase::Failed], ..RolloutQuery::default() }, vec![other]),
        (
            "object",
            RolloutQuery {
                object: ObjectFilter {
                    name: Some("app".into()),
                    namespace: Some("apps".into()),
                    kind: Some("Kustomization".into()),
                    group: Some("kustomize.toolkit.fluxcd.io".into()),
                    cluster: Some(String::new()),
                },
                ..RolloutQuery::default()
            },
            vec![b, a],
        ),
        (
            "another group",
            RolloutQuery {
                object: ObjectFilter { group: Some("helm.toolkit.fluxcd.io".into()), ..ObjectFilter::default() },
                ..RolloutQuery::default()
            },
            vec![],
        ),
        (
            "failed of a commit",
            RolloutQuery { states: vec![Phase::Failed, Phase::Superseded], ..of(&commit('a')[..12]) },
            vec![other],
        ),
    ] {
        assert_eq!(found(query).await, expected, "{name}");
    }
}

pub async fn pages_of_them<F: Fixture>() {
    let world = World::<F>::new();
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(tell(&world, &format!("app-{n}"), "Progressing", 'a').await);
    }
    ids.reverse();
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let query = RolloutQuery { cursor, limit: 3, revision: Some(commit('a')), ..RolloutQuery::default() };
        let page = world.store.rollouts(query).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|row| row.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ids);
}

pub async fn events_are_found_by_reason_and_revision<F: Fixture>() {
    let world = World::<F>::new();
    let a = tell(&world, "app", "Progressing", 'a').await;
    let failed = tell(&world, "app", "!BuildFailed", 'a').await;
    let b = tell(&world, "app", "Progressing", 'b').await;
    let none = world.stored(Candidate { revision: None, ..event(1, "app", &[]) }).await;
    world.pass(SECOND);
    let digest = "d".repeat(64);
    let made = report(world.now(), "oci", "Progressing", 'e');
    let made = world.stored(Candidate { revision: Some(format!("latest@sha256:{digest}")), ..made }).await;
    let found = async |query: EventQuery| {
        let rows = world.store.events(query).await.unwrap().items;
        rows.iter().map(|row| row.seq).collect::<Vec<_>>()
    };
    let of = |revision: &str| EventQuery { revision: Some(revision.to_owned()), ..EventQuery::default() };
    let because = |reason: &str| EventQuery { reason: Some(reason.to_owned()), ..EventQuery::default() };
    for (name, query, expected) in [
        ("all", EventQuery::default(), vec![made, none, b, failed, a]),
        ("digest", of(&digest[..12]), vec![made]),
        ("what it was made from", of(&commit('e')), vec![made]),
        ("commit", of(&commit('a')[..8]), vec![failed, a]),
        ("revision", of(&revision('b')), vec![b]),
        ("reason", because("Progressing"), vec![made, none, b, a]),
        ("both", EventQuery { reason: Some("BuildFailed".into()), ..of(&commit('a')) }, vec![failed]),
        ("neither", EventQuery { reason: Some("BuildFailed".into()), ..of(&commit('b')) }, vec![]),
    ] {
        assert_eq!(found(query).await, expected, "{name}");
    }
}

pub async fn observations_fill_the_gaps<F: Fixture>() {
    let world = World::<F>::new();
    let opened = tell(&world, "app", "Progressing", 'a').await;
    let seen = see(&world, "app", 'a', Found::Ready).await.unwrap();
    let row = world.store.rollout(opened).await.unwrap().unwrap();
    assert_eq!((row.state, &*row.reason, row.last_event), (Phase::Succeeded, "Ready", seen));
    // One that no event told of.
    let opened = see(&world, "app", 'b', failed()).await.unwrap();
    let row = world.store.rollout(opened).await.unwrap().unwrap();
    assert_eq!((row.state, &*row.message), (Phase::Failed, "timeout"));
    let gone = Sighting { revision: None, commit: None, ..sighting(world.now(), "app", 'b', Found::Gone) };
    assert!(world.store.observe(gone, Vec::new()).await.unwrap().is_some());
    let state = world.crash().store.object_state(&kustomization("app")).await.unwrap().unwrap();
    assert!(state.rollouts.is_gone());
}

pub async fn observations_without_news_leave_no_trace<F: Fixture>() {
    let world = World::<F>::new();
    tell(&world, "app", "ReconciliationSucceeded", 'a').await;
    let opened = see(&world, "other", 'a', Found::Ready).await.unwrap();
    assert_eq!(*world.store.head().borrow(), opened);
    for _ in 0..3 {
        assert_eq!(see(&world, "app", 'a', Found::Ready).await, None);
        assert_eq!(see(&world, "app", 'a', failed()).await, None);
        assert_eq!(see(&world, "other", 'a', Found::Ready).await, None);
    }
    // A restarted watch sees everything again.
    let world = world.crash();
    assert_eq!(see(&world, "other", 'a', Found::Ready).await, None);
    let mut source = sighting(world.now(), "source", 'b', Found::Ready);
    (source.object.group, source.object.kind) = ("source.toolkit.fluxcd.io".into(), "GitRepository".into());
    assert_eq!(world.store.observe(source, Vec::new()).await.unwrap(), None);
    assert_eq!(*world.store.head().borrow(), opened);
    let log = EventQuery { observations: true, ..EventQuery::default() };
    assert_eq!(world.store.events(log).await.unwrap().items.len(), 2);
}

pub async fn observations_are_no_events<F: Fixture>() {
    let world = World::<F>::new();
    let failure = tell(&world, "app", "!BuildFailed", 'a').await;
    let seen = see(&world, "app", 'a', Found::Ready).await.unwrap();
    let rows = world.store.events(EventQuery::default()).await.unwrap().items;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [failure]);
    let row = world.store.event(seen).await.unwrap().unwrap();
    assert_eq!((row.origin, row.change), (Origin::Observed, None));
    assert_eq!(row.revision, Some(revision('a')));
    let read = Sighting::read((*row.object).clone(), &row.body).unwrap();
    assert_eq!(read, sighting(world.now(), "app", 'a', Found::Ready));
    // Alerts go by events: the recovery is still to be told.
    let recovered = world.append(report(world.now(), "app", "ReconciliationSucceeded", 'a')).await;
    assert!(matches!(recovered, Appended::Stored { change: Some(_), .. }), "{recovered:?}");
}

/// Words that were said minutes ago mean something new when the rollout has moved on.
pub async fn a_repeat_hides_nothing<F: Fixture>() {
    let world = World::<F>::new();
    let said = |letter, key| {
        let candidate = report(world.now(), "app", "Progressing", letter);
        Candidate { dedupe: key, ..candidate }
    };
    let first = world.stored(said('a', 1)).await;
    world.pass(SECOND);
    assert_eq!(world.append(said('a', 1)).await, Appended::Repeat { of: first });
    world.pass(SECOND);
    world.stored(said('b', 2)).await;
    world.pass(SECOND);
    let back = world.stored(said('a', 1)).await;
    assert_eq!(all(&world).await.last().unwrap().id, back);
}

/// Events and observations of the log, through the fold again, from nothing.
async fn replayed<F: Fixture>(world: &World<F>, object: &str) -> ObjectState {
    let object_filter = ObjectFilter { name: Some(object.into()), ..ObjectFilter::default() };
    let query = EventQuery { object: object_filter, observations: true, ..EventQuery::default() };
    let mut state = ObjectState::default();
    for row in world.store.events(query).await.unwrap().items.into_iter().rev() {
        let stored = if row.origin == Origin::Observed {
            let seen = Sighting::read((*row.object).clone(), &row.body).unwrap();
            // Only what tells something is logged.
            observe(&state, &seen, &[], row.seq).unwrap()
        } else {
            let event = flux_event::read(&row.body).unwrap();
            let mut candidate = flux_event::candidate(&event, row.origin, "", row.body, Vec::new());
            candidate.rollout.as_mut().unwrap().hints = row.hints;
            match plan(&state, Seen::default(), &candidate, Duration::ZERO, row.seq) {
                Plan::Store(stored) => stored,
                repeat @ Plan::Repeat { .. } => panic!("{repeat:?}"),
            }
        };
        state = stored.state.map_or(state, |next| (*next).clone());
    }
    state
}

pub async fn the_log_gives_the_same_states<F: Fixture>() {
    let mut world = World::<F>::new();
    let reasons =
        ["Progressing", "!HealthCheckFailed", "ReconciliationSucceeded", "DependencyNotReady", "HealthCheckCanceled"];
    let mut random = fastrand(7);
    for n in 0..300 {
        let object = ["app", "other"][random(2)];
        let letter = ['a', 'b', 'c', 'd'][random(4)];
        world.pass(Duration::from_millis(random(3000) as u64));
        match random(5) {
            0 => {
                let found = [Found::Ready, failed(), Found::Gone][random(3)].clone();
                let _ = world.store.observe(sighting(world.now(), object, letter, found), Vec::new()).await.unwrap();
            }
            _ => {
                let mut candidate = report(world.now(), object, reasons[random(5)], letter);
                let hints = Hints { deleting: random(20) == 0, ..Hints::default() };
                candidate.rollout.as_mut().unwrap().hints = hints;
                let _ = world.append(candidate).await;
            }
        }
        if n % 100 == 99 {
            world = world.crash();
        }
    }
    for object in ["app", "other"] {
        let state = world.store.object_state(&kustomization(object)).await.unwrap().unwrap();
        assert!(state.rollouts.rollouts().len() > 1, "{state:?}");
        assert_eq!(replayed(&world, object).await, state, "{object}");
        // The table says what the state says, and keeps the words of the older ones.
        for rollout in state.rollouts.rollouts() {
            let row = world.store.rollout(rollout.id).await.unwrap().unwrap();
            assert_eq!(
                (row.state, row.attempts, row.finished, row.first_success, row.last_event),
                (rollout.state, rollout.attempts, rollout.finished, rollout.first_success, rollout.last_event)
            );
            assert_eq!((row.reason, row.superseded_by), (rollout.reason.clone(), rollout.superseded_by.clone()));
        }
    }
}

/// Numbers that are the same in every run.
fn fastrand(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    }
}

pub async fn they_go_with_their_events<F: Fixture>() {
    let world = World::<F>::new();
    for letter in ['a', 'b', 'c'] {
        tell(&world, "app", "ReconciliationSucceeded", letter).await;
    }
    let told = Candidate { routes: vec![status("git", 0)], ..report(world.now(), "other", "Progressing", 'a') };
    let kept = world.stored(told).await;
    let next = tell(&world, "other", "ReconciliationSucceeded", 'b').await;
    let git = world.dest("git").await;
    world.pass(MONTH);
    let young = tell(&world, "app", "ReconciliationSucceeded", 'd').await;
    // Of `app`, the three old ones; of `other`, the first waits to be told, and the second is the newest.
    let pruned = world.store.prune().await.unwrap();
    assert_eq!(pruned, Pruned { events: 4, rollouts: 3, ..Pruned::default() });
    assert_eq!(all(&world).await.iter().map(|row| row.id).collect::<Vec<_>>(), [kept, next, young]);
    world.drain(git).await;
    assert_eq!(world.store.prune().await.unwrap(), Pruned { events: 1, rollouts: 1, ..Pruned::default() });
    assert_eq!(all(&world).await.iter().map(|row| row.id).collect::<Vec<_>>(), [next, young]);
}

pub async fn the_newest_stays<F: Fixture>() {
    let world = World::<F>::with(|options| options.retention_bytes = 0);
    tell(&world, "app", "ReconciliationSucceeded", 'a').await;
    let newest = tell(&world, "app", "ReconciliationSucceeded", 'b').await;
    // Opened later, and begun earlier: its id is the highest, and it isn't the newest.
    let late = report(world.now().before(SECOND), "app", "Progressing", 'c');
    let late =
        world.stored(Candidate { rollout: late.rollout, ..report(world.now(), "app", "Progressing", 'c') }).await;
    assert_eq!(all(&world).await.last().unwrap().id, late);
    assert_eq!(world.store.prune().await.unwrap().rollouts, 2);
    assert_eq!(all(&world).await.iter().map(|row| row.id).collect::<Vec<_>>(), [newest]);
}

/// A number is never given twice, though the log is empty and the clock stands still.
pub async fn numbers_go_on_behind_them<F: Fixture>() {
    let world = World::<F>::with(|options| options.retention_bytes = 0);
    let first = tell(&world, "app", "ReconciliationSucceeded", 'a').await;
    assert_eq!(world.store.prune().await.unwrap().events, 1);
    let world = world.crash();
    let second = world.stored(report(world.now(), "other", "Progressing", 'a')).await;
    assert!(second > first);
    assert_eq!(all(&world).await.iter().map(|row| row.id).collect::<Vec<_>>(), [first, second]);
}

pub async fn what_is_pruned_can_still_be_told_late<F: Fixture>() {
    let world = World::<F>::with(|options| options.retention_bytes = 0);
    let started = world.now();
    let first = tell(&world, "app", "Progressing", 'a').await;
    tell(&world, "app", "Progressing", 'b').await;
    assert_eq!(world.store.prune().await.unwrap().rollouts, 1);
    let late = report(started.after(SECOND), "app", "!HealthCheckFailed", 'a');
    world.stored(late).await;
    let row = world.store.rollout(first).await.unwrap().unwrap();
    assert_eq!((row.state, &*row.reason), (Phase::Failed, "HealthCheckFailed"));
}

/// Whatever happens to an object, its state stays small: it is written with every event that changes it.
pub async fn states_are_bounded<F: Fixture>() {
    let world = World::<F>::new();
    for letter in 'a'..='z' {
        let mut candidate = report(world.now(), "app", "!BuildFailed", letter);
        candidate.rollout.as_mut().unwrap().message = "x".repeat(5000);
        world.pass(SECOND);
        world.stored(candidate).await;
    }
    let state = world.store.object_state(&kustomization("app")).await.unwrap().unwrap();
    assert_eq!(state.rollouts.rollouts().len(), KEPT);
    let size = serde_json::to_string(&state).unwrap().len();
    assert!(size < 3200, "{size}");
    assert_eq!(all(&world).await.len(), 26);
}
