//! Triggers: asking Flux to reconcile an object, until the API server takes it or never will.

use belfry_core::{
    Time,
    announcement::Announcement,
    decide::{AgeLimit, Decision, Head, Turn, decide, expired},
    notification::Outcome,
};
use belfry_store::{Row, RowResult, RowState};

use super::{
    Destination, Shared,
    lane::{Step, record_of},
};

/// Why the Receiver's Kubernetes Event is there.
const REASON: &str = "ReconciliationRequestFailed";

/// Makes one request, which was asked for then.
pub(super) async fn step(shared: &Shared, dest: &Destination, row: &Row, asked: Time) -> Step {
    let limit = AgeLimit::Record.duration();
    let head = Head { created: row.created, attempts: row.attempts, newest: row.newest };
    if let Some(Decision::Dead { reason }) = expired(head, limit, shared.now()) {
        return dead(shared, row, RowResult { delivery: row.id, attempt: None, state: RowState::Retry }, reason);
    }
    let start = shared.now();
    let Some(outcome) = shared.environment.reconcile(&row.object, asked).await else {
        // No cluster to ask: it waits, and `belfry receivers` shows it.
        return Step::Held { step_aside: false };
    };
    let now = shared.now();
    note(shared, dest, &outcome, now).await;
    let attempt = Some(record_of(row, start, now, &outcome));
    let result = |state| RowResult { delivery: row.id, attempt, state };
    match decide(head, limit, &dest.circuit(), &outcome, now, fastrand::f64()) {
        Decision::Settled => {
            tracing::info!(object = %row.object, receiver = %row.route, "asked for a reconciliation");
            shared.metrics.count_trigger(&row.object.kind, "done");
            Step::Ended(result(RowState::Delivered), None)
        }
        Decision::Retry { at, step_aside } => {
            shared.metrics.count_trigger(&row.object.kind, "retry");
            Step::Again { result: result(RowState::Retry), at, step_aside, memo: None }
        }
        Decision::Dead { reason } => dead(shared, row, result(RowState::Retry), reason),
    }
}

async fn note(shared: &Shared, dest: &Destination, outcome: &Outcome, now: Time) {
    match shared.learn(dest, outcome, now).await {
        Turn::None | Turn::PutOff => {}
        Turn::Opened => {
            let error = dest.circuit().error().to_owned();
            tracing::warn!(error, "the cluster can't be asked for reconciliations; they wait, and probes go on");
        }
        Turn::Closed => tracing::info!("the cluster can be asked for reconciliations again"),
    }
}

/// It was given up: the log says so, a metric, and an Event on the Receiver.
fn dead(shared: &Shared, row: &Row, result: RowResult, reason: String) -> Step {
    tracing::warn!(delivery = row.id, object = %row.object, receiver = %row.route, "dead letter: {reason}");
    shared.metrics.count_trigger(&row.object.kind, "dead");
    if let Some(receiver) = shared.configuration.snapshot().receiver(&row.route) {
        shared.environment.announce(Announcement {
            object: (*receiver.key).clone(),
            uid: receiver.uid.clone(),
            warning: true,
            reason: REASON,
            message: format!("{} is not reconciled: {reason}", row.object),
            annotations: Default::default(),
        });
    }
    Step::Ended(RowResult { state: RowState::Dead(reason), ..result }, None)
}
