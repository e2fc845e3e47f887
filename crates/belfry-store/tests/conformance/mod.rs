//! What every engine must do. An engine brings a [`Fixture`] and calls [`suite!`].

pub mod append;
pub mod hooks;
pub mod lanes;
pub mod lists;
pub mod model;
pub mod records;
pub mod rollouts;
pub mod state_model;
pub mod states;
pub mod upkeep;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time, event as flux_event,
    plan::{Candidate, Origin, RouteRef},
    rollout::{Found, Sighting},
};
use belfry_store::{
    Appended, AttemptOutcome, AttemptRecord, Claim, Claims, DeliveryQuery, DeliveryRow, DestId, Finish, Options, Room,
    RowResult, RowState, Settlement, Store,
};

/// A database that outlives the stores opened on it.
pub trait Fixture: Send + Sync + 'static {
    /// Whether this machine has what it takes; if not, that is said loudly.
    fn available() -> bool {
        true
    }
    /// An empty one.
    fn create() -> Self;
    /// Opens it.
    fn open(&self, options: Options) -> Store;
}

/// A database, the store that is open on it, and the time.
pub struct World<F> {
    pub store: Store,
    pub fixture: F,
    pub options: Options,
    pub clock: Arc<AtomicI64>,
}

/// Some day.
pub const START: i64 = 1_800_000_000_000_000;

impl<F: Fixture> World<F> {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&clock);
        let mut options = Options { clock: Arc::new(move || Time(read.load(SeqCst))), ..Options::default() };
        change(&mut options);
        let fixture = F::create();
        Self { store: fixture.open(options.clone()), fixture, options, clock }
    }

    pub fn now(&self) -> Time {
        (self.options.clock)()
    }

    pub fn pass(&self, by: Duration) {
        self.clock.fetch_add(i64::try_from(by.as_micros()).unwrap(), SeqCst);
    }

    /// Ends the store as a crash does, and opens it again.
    pub fn crash(self) -> Self {
        let Self { store, fixture, options, clock } = self;
        drop(store);
        Self { store: fixture.open(options.clone()), fixture, options, clock }
    }

    pub async fn append(&self, candidate: Candidate) -> Appended {
        self.store.append(candidate).await.unwrap()
    }

    /// Appends an event that must be stored.
    pub async fn stored(&self, candidate: Candidate) -> Seq {
        match self.append(candidate).await {
            Appended::Stored { seq, .. } => seq,
            repeat @ Appended::Repeat { .. } => panic!("{repeat:?}"),
        }
    }

    /// The destination that a Provider is, once it has work.
    pub async fn dest(&self, provider: &str) -> DestId {
        let dests = self.store.dests().await.unwrap();
        dests.iter().find(|(_, key, _)| *key.name == *provider).unwrap_or_else(|| panic!("{provider} has no work")).0
    }

    pub async fn claim_some(&self, dest: DestId, lanes: u32) -> Claims {
        self.store.claim(vec![(dest, Room { lanes, probe: false })]).await.unwrap()
    }

    pub async fn claim(&self, dest: DestId) -> Vec<Claim> {
        self.claim_some(dest, 32).await.lanes
    }

    /// Claims what must be one lane.
    pub async fn claim_one(&self, dest: DestId) -> Claim {
        let mut lanes = self.claim(dest).await;
        assert_eq!(lanes.len(), 1, "{lanes:?}");
        lanes.remove(0)
    }

    pub async fn next_due(&self, dest: DestId) -> Option<Time> {
        let claims = self.claim_some(dest, 0).await;
        assert!(claims.lanes.is_empty());
        assert_eq!(claims.next_due.len(), 1);
        claims.next_due[0].1
    }

    /// Settles every row of a claim alike, finishes it, and waits until that is durable.
    pub async fn settle(&self, claim: &Claim, state: RowState, finish: Finish) {
        self.store.settle(settlement(claim, self.now(), &state, Some(finish)));
        self.store.flush().await;
    }

    pub async fn deliver(&self, claim: &Claim) {
        self.settle(claim, RowState::Delivered, Finish::default()).await;
    }

    pub async fn delivery(&self, id: i64) -> DeliveryRow {
        let page = self.store.deliveries(DeliveryQuery { id: Some(id), ..DeliveryQuery::default() }).await.unwrap();
        page.items.into_iter().next().unwrap_or_else(|| panic!("no delivery {id}"))
    }

    /// Runs everything that waits for a destination, and says which events that were, in the order of the attempts.
    pub async fn drain(&self, dest: DestId) -> Vec<Seq> {
        let mut seqs = Vec::new();
        loop {
            let lanes = self.claim(dest).await;
            if lanes.is_empty() {
                return seqs;
            }
            for claim in lanes {
                seqs.extend(claim.rows.iter().map(|row| row.cause));
                self.deliver(&claim).await;
            }
        }
    }
}

pub fn settlement(claim: &Claim, now: Time, state: &RowState, finish: Option<Finish>) -> Settlement {
    let outcome = match state {
        RowState::Delivered => AttemptOutcome::Delivered,
        RowState::Retry => AttemptOutcome::Retry,
        _ => AttemptOutcome::Rejected,
    };
    let results = claim.rows.iter().map(|row| RowResult {
        delivery: row.id,
        attempt: Some(AttemptRecord {
            n: row.attempts + 1,
            at: now,
            took: Duration::from_millis(3),
            status: (*state != RowState::Delivered).then_some(503),
            outcome,
            error: if *state == RowState::Delivered { String::new() } else { format!("attempt {}", row.attempts + 1) },
        }),
        state: state.clone(),
    });
    Settlement { lane: claim.lane, dest: claim.dest, results: results.collect(), finish }
}

/// An event unlike any other `n`, about an object of this name, for Providers of these names.
pub fn event(n: u64, object: &str, providers: &[&str]) -> Candidate {
    let route = |provider: &&str| {
        let alert = Arc::new(ConfigKey::alert("flux-system", &format!("to-{provider}")));
        RouteRef::alert(alert, Arc::new(ConfigKey::provider("flux-system", provider)), false)
    };
    Candidate {
        object: ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".into(),
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: object.into(),
            ..ObjectKey::default()
        },
        origin: Origin::Recorder,
        severity: "info".into(),
        reason: "Progressing".into(),
        revision: Some(format!("main@sha1:{n:040x}")),
        commit: None,
        updates_commit_status: false,
        rollout: None,
        dedupe: n,
        body_hash: n | 1 << 63,
        sent: None,
        body: format!("{{\"message\":\"event {n}\"}}").into(),
        routes: providers.iter().map(route).collect(),
    }
}

/// A Flux object, as `event` has it.
pub fn kustomization(name: &str) -> ObjectKey {
    event(0, name, &[]).object
}

/// A commit, by a letter.
pub fn commit(letter: char) -> String {
    format!("{:02x}{}", letter as u32, "0".repeat(38))
}

pub fn revision(letter: char) -> String {
    format!("main@sha1:{}", commit(letter))
}

/// What kustomize-controller would say now about a Kustomization going to a commit, with a body that says so. A reason
/// that begins with `!` makes it an error.
pub fn report(now: Time, object: &str, reason: &str, letter: char) -> Candidate {
    let group = "kustomize.toolkit.fluxcd.io";
    let failed = reason.starts_with('!');
    let reason = reason.trim_start_matches('!');
    let mut metadata = serde_json::json!({ format!("{group}/revision"): revision(letter) });
    if reason == "ReconciliationSucceeded" {
        metadata[format!("{group}/commit_status")] = "update".into();
    }
    let body = serde_json::json!({
        "involvedObject": {
            "apiVersion": format!("{group}/v1"), "kind": "Kustomization", "namespace": "apps", "name": object, "uid": "u",
        },
        "severity": if failed { "error" } else { "info" },
        "timestamp": now.to_string(),
        "message": format!("{reason} at {now}"),
        "reason": reason,
        "metadata": metadata,
    });
    let body = body.to_string().into_bytes();
    let event = flux_event::read(&body).unwrap();
    flux_event::candidate(&event, Origin::Recorder, "", body.into(), Vec::new())
}

/// What a watch saw now of the same.
pub fn sighting(now: Time, object: &str, letter: char, found: Found) -> Sighting {
    Sighting {
        object: kustomization(object),
        uid: "u".into(),
        timestamp: Some(now.0 / 1_000_000),
        revision: Some(revision(letter)),
        origin_revision: None,
        commit: Some(commit(letter)),
        found,
    }
}

/// A CommitStatus that posts through a Provider of this name.
pub fn status(provider: &str, settle: u64) -> RouteRef {
    let route = Arc::new(ConfigKey::commit_status("flux-system", &format!("status-{provider}")));
    let provider = Arc::new(ConfigKey::provider("flux-system", provider));
    RouteRef::commit_status(route, provider, false, Duration::from_secs(settle))
}

/// Makes a test of every requirement.
#[macro_export]
macro_rules! suite {
    ($fixture:ty) => {
        $crate::suite!(@ $fixture: append [
            it_answers_what_happened, numbers_only_grow, repeats_are_counted_on_the_first, repeats_survive_a_crash,
            the_same_body_is_the_same_event, the_same_id_is_the_same_event_however_late,
            with_ids_nothing_else_makes_a_repeat, ids_are_known_within_a_batch, a_store_has_a_name_of_its_own, a_batch_sees_its_own_events, states_survive_a_crash, many_at_once,
            bodies_are_bytes, the_head_moves,
        ]);
        $crate::suite!(@ $fixture: lanes [
            in_order_per_lane, a_lane_is_claimed_once, other_lanes_go_on, a_retry_waits_until_it_is_due,
            a_probe_does_not_wait, waking_makes_everything_due, waking_reaches_what_is_in_flight,
            what_came_meanwhile_is_due_at_once, released_lanes_are_as_before, results_stream_before_the_finish,
            the_memo_goes_with_the_outcome, stepping_aside_lets_others_pass, only_what_is_pending_changes,
            recovered_after_a_crash, room_is_kept, a_lost_claim_is_free_again, newest_is_what_no_event_follows,
            those_who_wait_are_told, those_who_wait_are_told_as_time_goes_by,
        ]);
        $crate::suite!(@ $fixture: records [
            deliveries_tell_everything, filters, pages, attempts_are_kept, events_by_page,
            events_in_the_order_of_their_arrival, objects_by_page, redelivery_is_a_new_delivery,
            redelivery_of_the_unsettled_is_refused, stats_count,
        ]);
        $crate::suite!(@ $fixture: lists [of_events, of_deliveries, of_rollouts]);
        $crate::suite!(@ $fixture: upkeep [
            a_backlog_is_bounded, a_namespace_is_bounded, deleted_providers_end_their_deliveries,
            deleted_alerts_end_their_deliveries, deleted_commit_statuses_end_their_deliveries, what_was_never_there_is_waited_for, old_events_go, undelivered_ones_stay,
            dead_letters_go_last, in_flight_is_left_alone, configuration_is_remembered,
        ]);
        $crate::suite!(@ $fixture: rollouts [
            they_are_written_as_they_go, they_are_found, pages_of_them, events_are_found_by_reason_and_revision,
            observations_fill_the_gaps, observations_without_news_leave_no_trace, observations_are_no_events,
            a_repeat_hides_nothing, the_log_gives_the_same_states, they_go_with_their_events, the_newest_stays, numbers_go_on_behind_them,
            what_is_pruned_can_still_be_told_late, states_are_bounded,
        ]);
        $crate::suite!(@ $fixture: states [
            a_status_is_told_of_rollouts, states_settle, the_newest_wins, what_is_in_flight_ends_as_it_ends,
            a_failed_attempt_is_not_repeated_for_an_old_state, each_commit_has_a_lane, an_aggregate_has_one_lane,
            a_new_state_is_no_way_around_a_back_off, the_memo_outlives_its_deliveries, the_unknown_is_told_once,
            redelivery_tells_the_state_of_now, observed_rollouts_are_told, order_holds_under_load,
        ]);
        $crate::suite!(@ $fixture: hooks [
            a_webhook_triggers_its_objects, waiting_triggers_do_for_all, what_is_in_flight_does_not, repeats_trigger_nothing,
            repeats_are_known_after_a_crash, what_is_refused_teaches_nothing, the_last_ones_are_kept,
            those_with_waiting_triggers_stay, they_go_with_age, triggers_are_deliveries, a_batch_of_webhooks,
            a_trigger_tried_in_vain_gives_way,
        ]);
        #[test]
        fn model() {
            if <$fixture as conformance::Fixture>::available() {
                conformance::model::run::<$fixture>();
            }
        }
        #[test]
        fn state_model() {
            if <$fixture as conformance::Fixture>::available() {
                conformance::state_model::run::<$fixture>();
            }
        }
    };
    (@ $fixture:ty: $module:ident [$($name:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if <$fixture as conformance::Fixture>::available() {
                    conformance::$module::$name::<$fixture>().await;
                }
            }
        )*
    };
}
pub use crate::suite;
