//! Draining one lane: its deliveries in order, each rendered with the Alert, the Provider and the Secrets of the moment.

use std::{sync::Arc, time::Duration};

use belfry_core::{
    Time,
    announcement::Announcement,
    config::{AlertRule, ProviderRule},
    decide::{AgeLimit, Decision, Head, decide, expired},
    event,
    notification::{Failure, Notification, Outcome, Recorded},
    passed::Passed,
    plan::{Change, Origin},
    rollout::Hints,
};
use belfry_store::{AttemptOutcome, AttemptRecord, Claim, Finish, Row, RowResult, RowState, Settlement, What};
use bytes::Bytes;

use super::{Cause, Destination, Shared, confirm, status, trigger};
use crate::metrics::DeliveryLabels;

/// How long a delivery waits whose Alert or Provider is suspended or gone; a change of the configuration ends it sooner.
const HELD: Duration = Duration::from_secs(300);

/// How often it is looked whether an object's status confirms what an event says.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);

/// The type of Provider that passes events on to another Belfry.
const HUB: &str = "belfry";

/// What came of one delivery.
pub(super) enum Step {
    /// It ended: go on with the next. What the lane remembers from now on comes with it, if that changed.
    Ended(RowResult, Option<Vec<u8>>),
    /// It must be tried again; the lane waits, unless the delivery steps aside. Comes with what the lane remembers, too.
    Again { result: RowResult, at: Time, step_aside: bool, memo: Option<Vec<u8>> },
    /// It was not tried: what it belongs to is suspended or gone. It steps aside if that is its Alert alone.
    Held { step_aside: bool },
    /// It was not tried: whether what it tells is so is yet to be seen.
    Unconfirmed,
}

/// What a delivery to a notifier tells.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub origin: Origin,
    pub change: Option<Change>,
    /// What was known of its object when it came.
    pub hints: Hints,
    /// The stores that it was in before.
    pub via: &'a [String],
    pub body: &'a Bytes,
}

/// Drains a claimed lane, as far as its provider lets it.
pub async fn drain(shared: Arc<Shared>, dest: Arc<Destination>, claim: Claim) {
    let mut finish = Finish::default();
    let mut memo = None;
    // What came of the last one is written down together with the end of the claim.
    let mut last = None;
    for (i, row) in claim.rows.iter().enumerate() {
        shared.give_way(dest.id).await;
        if shared.stopping() || !shared.store.leased() || (i > 0 && dest.circuit().is_open()) {
            break;
        }
        let known = memo.as_deref().unwrap_or(claim.memo.as_slice());
        match step(&shared, &dest, row, known, claim.recovered && i == 0).await {
            Step::Ended(result, learned) => {
                memo = learned.or(memo);
                if i + 1 < claim.rows.len() {
                    shared.store.settle(settlement(&claim, Some(result), None));
                } else {
                    last = Some(result);
                }
            }
            Step::Again { result, at, step_aside, memo: learned } => {
                memo = learned.or(memo);
                last = Some(result);
                finish = wait(row, at, step_aside);
                break;
            }
            Step::Held { step_aside } => {
                dest.hold();
                finish = wait(row, shared.now().after(HELD), step_aside);
                break;
            }
            Step::Unconfirmed => {
                let (now, late) = (shared.now(), shared.now().since(row.created) > confirm::SOON);
                finish = wait(row, now.after(CONFIRM_EVERY), late);
                break;
            }
        }
    }
    shared.store.settle(settlement(&claim, last, Some(Finish { memo, ..finish })));
}

fn wait(row: &Row, at: Time, step_aside: bool) -> Finish {
    // Nobody waits behind the newest: no need for a lane of its own.
    Finish { due: Some(at), step_aside: (step_aside && !row.newest).then_some(row.id), ..Finish::default() }
}

fn settlement(claim: &Claim, result: Option<RowResult>, finish: Option<Finish>) -> Settlement {
    Settlement { lane: claim.lane, dest: claim.dest, results: result.into_iter().collect(), finish }
}

async fn step(shared: &Shared, dest: &Destination, row: &Row, memo: &[u8], recovered: bool) -> Step {
    let snapshot = shared.configuration.snapshot();
    let provider = snapshot.provider(&dest.key);
    if provider.is_some_and(|provider| provider.spec.suspend) {
        return Step::Held { step_aside: false };
    }
    let mut told = match &row.what {
        What::Event { origin, change, hints, via, body } => {
            Told { origin: *origin, change: *change, hints: *hints, via, body }
        }
        What::Trigger { asked } => return trigger::step(shared, dest, row, *asked).await,
        What::Rollout { rollout, origin, body } => {
            let told = status::Told { rollout, origin: *origin, body, memo, recovered };
            return status::step(shared, dest, row, &told).await;
        }
    };
    let Some(alert) = snapshot.alert(&row.route).filter(|alert| !alert.spec.suspend) else {
        return Step::Held { step_aside: true };
    };
    let cause = Cause { key: &alert.key, uid: &alert.uid };
    let kind = provider.map_or("", |provider| provider.spec.type_.as_str());
    let limit = alert.max_age.unwrap_or_else(|| match belfry_notify::age_limit(kind) {
        AgeLimit::Retention => shared.store.retention_age(),
        limit => limit.duration(),
    });
    let head = Head { created: row.created, attempts: row.attempts, newest: row.newest };
    if let Some(Decision::Dead { reason }) = expired(head, limit, shared.now()) {
        shared.announce_failure(cause, row, &reason);
        let result = RowResult { delivery: row.id, attempt: None, state: RowState::Dead(reason) };
        return Step::Ended(result, None);
    }

    if let Some(step) = unconfirmed(shared, kind, cause, row, &mut told).await {
        return step;
    }
    let start = shared.now();
    let (outcome, learned) = attempt(shared, dest, alert, provider, row, told, memo).await;
    let now = shared.now();
    shared.metrics.count_attempt(labels(dest, kind, &outcome), now.since(start));
    if outcome == Outcome::Delivered {
        shared.metrics.observe_latency(kind, now.since(row.cause.time()));
    }
    shared.record(dest, cause, row, &outcome, now).await;
    let record = record_of(row, start, now, &outcome);
    let decision = decide(head, limit, &dest.circuit(), &outcome, now, fastrand::f64());
    let result = |state| RowResult { delivery: row.id, attempt: Some(record), state };
    match decision {
        Decision::Settled => {
            let state = match outcome {
                Outcome::Skipped(why) => RowState::Skipped(why.to_owned()),
                _ => RowState::Delivered,
            };
            Step::Ended(result(state), learned)
        }
        Decision::Retry { at, step_aside } => {
            let step_aside = step_aside && (kind != HUB || is_its_own_fault(&outcome));
            Step::Again { result: result(RowState::Retry), at, step_aside, memo: None }
        }
        Decision::Dead { reason } => {
            tracing::warn!(delivery = row.id, provider = %dest.key, object = %row.object, "dead letter: {reason}");
            shared.announce_failure(cause, row, &reason);
            Step::Ended(result(RowState::Dead(reason)), None)
        }
    }
}

/// What becomes of a delivery instead of an attempt, if its object's status doesn't say yet what it tells.
async fn unconfirmed(shared: &Shared, kind: &str, cause: Cause<'_>, row: &Row, told: &mut Told<'_>) -> Option<Step> {
    match kind {
        "cdevents" if confirm::is_awaited(shared, row, *told).await => {
            if shared.now().since(row.created) < confirm::LONG || !shared.environment.is_current() {
                return Some(Step::Unconfirmed);
            }
            let reason = "the object's own status never said what the event says".to_owned();
            shared.announce_failure(cause, row, &reason);
            let result = RowResult { delivery: row.id, attempt: None, state: RowState::Dead(reason) };
            Some(Step::Ended(result, None))
        }
        HUB => match confirm::status(shared, row, *told).await {
            Some(status) => {
                told.hints.status = status;
                None
            }
            None => Some(Step::Unconfirmed),
        },
        _ => None,
    }
}

/// Whether it is this event that a hub can't take. One that catches up has old events only: what the hub can't do for any of
/// them must not bring them out of their order.
fn is_its_own_fault(outcome: &Outcome) -> bool {
    let status = match outcome {
        Outcome::Retry(failure) => failure.status,
        _ => None,
    };
    status.is_some_and(|status| !matches!(status, 408 | 429 | 502..=504))
}

/// An attempt as it is kept.
pub(super) fn record_of(row: &Row, start: Time, end: Time, outcome: &Outcome) -> AttemptRecord {
    AttemptRecord {
        n: row.attempts + 1,
        at: start,
        took: end.since(start),
        status: failure(outcome).and_then(|failure| failure.status),
        outcome: kind_of(outcome),
        error: failure(outcome).map(|failure| failure.error.clone()).unwrap_or_default(),
    }
}

/// Makes an attempt; what the lane remembers once it has ended well comes with the outcome.
async fn attempt(
    shared: &Shared,
    dest: &Destination,
    alert: &AlertRule,
    provider: Option<&Arc<ProviderRule>>,
    row: &Row,
    told: Told<'_>,
    memo: &[u8],
) -> (Outcome, Option<Vec<u8>>) {
    let Some(provider) = provider else {
        return (Outcome::Misconfigured(Failure::new(format!("{} doesn't exist", dest.key))), None);
    };
    let notification = match notification(shared, alert, provider, row, told, memo) {
        Ok(notification) => notification,
        Err(outcome) => return (outcome, None),
    };
    let notifier = match shared.notifiers.get(provider, dest.take_refresh()).await {
        Ok(notifier) => notifier,
        Err(outcome) => return (outcome, None),
    };
    let outcome = notifier.send(&notification).await.outcome;
    let ended_well = matches!(outcome, Outcome::Delivered | Outcome::Skipped(_));
    let learned = if ended_well { notifier.remember(&notification) } else { None };
    (outcome, learned)
}

/// What the notifier is told: the event with the metadata that it, its object and the Alert have together.
fn notification(
    shared: &Shared,
    alert: &AlertRule,
    provider: &ProviderRule,
    row: &Row,
    told: Told<'_>,
    memo: &[u8],
) -> Result<Notification, Outcome> {
    let mut event = event::read(told.body)
        .map_err(|error| Outcome::Rejected(Failure::new(format!("the stored event can't be read: {error}"))))?;
    if event::updates_commit_status(&event, told.origin)
        && told.change != Some(Change::Recovered)
        && !belfry_core::config::takes_status_updates(&provider.spec.type_)
    {
        return Err(Outcome::Skipped("commit status updates are not for this type of Provider"));
    }
    let recorded = recorded(shared, row, told);
    let combined = event::combine(&event, told.origin, &alert.spec);
    if row.attempts == 0 && !combined.conflicts.is_empty() {
        shared.environment.announce(Announcement {
            object: (*alert.key).clone(),
            uid: alert.uid.clone(),
            warning: true,
            reason: "MetadataAppendFailed",
            message: "metadata key conflicts detected (please refer to the Alert API docs and Flux RFC 0008 for more \
                      information)"
                .into(),
            annotations: combined.conflicts,
        });
    }
    event.metadata = combined.metadata;
    // As with the peer, this event is not told; what would mend it is another expression, or other metadata.
    let commit_status_id = provider
        .commit_status_id(&event, alert)
        .map_err(|error| Outcome::Rejected(Failure::new(format!("failed to create commit status: {error}"))))?;
    Ok(Notification {
        event,
        object: (*row.object).clone(),
        seq: row.cause,
        delivery: row.id,
        source: shared.configuration.source(&row.object),
        change: told.change,
        memo: memo.to_vec(),
        alert: (*alert.key).clone(),
        alert_uid: alert.uid.clone(),
        provider_uid: provider.uid.clone(),
        commit_status_id,
        recorded,
    })
}

/// The event as it was recorded, with what who passes it on says of it.
fn recorded(shared: &Shared, row: &Row, told: Told<'_>) -> Recorded {
    let store = shared.store.name();
    let via = told.via.iter().cloned().chain([store.to_owned()]).collect();
    Recorded {
        id: format!("{store}-{}", row.cause.0),
        body: told.body.clone(),
        passed: Passed { form: Some(told.origin), hints: told.hints, via },
        at: shared.now(),
    }
}

pub(super) fn labels(dest: &Destination, kind: &str, outcome: &Outcome) -> DeliveryLabels {
    DeliveryLabels {
        namespace: dest.key.namespace.to_string(),
        provider: dest.key.name.to_string(),
        r#type: kind.to_owned(),
        outcome: kind_of(outcome).as_str(),
    }
}

fn kind_of(outcome: &Outcome) -> AttemptOutcome {
    match outcome {
        Outcome::Delivered => AttemptOutcome::Delivered,
        Outcome::Skipped(_) => AttemptOutcome::Skipped,
        Outcome::Retry(_) => AttemptOutcome::Retry,
        Outcome::Misconfigured(_) => AttemptOutcome::Misconfigured,
        Outcome::Rejected(_) => AttemptOutcome::Rejected,
    }
}

fn failure(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Retry(failure) | Outcome::Misconfigured(failure) | Outcome::Rejected(failure) => Some(failure),
        Outcome::Delivered | Outcome::Skipped(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_hub_holds_against_one_event_lets_others_pass_it() {
        let retry = |status| Outcome::Retry(Failure { status, ..Failure::default() });
        for (outcome, expected) in [
            (retry(Some(500)), true),
            (retry(Some(503)), false),
            (retry(Some(429)), false),
            (retry(Some(502)), false),
            (retry(None), false),
            (Outcome::Misconfigured(Failure { status: Some(401), ..Failure::default() }), false),
        ] {
            assert_eq!(is_its_own_fault(&outcome), expected, "{outcome:?}");
        }
    }
}
