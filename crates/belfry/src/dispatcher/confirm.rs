//! Ends of rollouts that an event tells of before the status of its object does: who would act on one, and can't see the
//! object, is not told before it is so.

use std::time::Duration;

use belfry_core::{
    ObjectKey, event,
    index::Agreement,
    plan::Candidate,
    rollout::{self, Hints, Phase},
};
use belfry_store::{ObjectFilter, RolloutQuery, RolloutRow, Row, StoreError};
use bytes::Bytes;

use super::{Shared, lane::Told};

/// How long later events of the object wait behind one; and for how long a failure is kept back.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// How long a success is: Helm's tests, which come before, have minutes.
pub(super) const LONG: Duration = Duration::from_secs(900);

/// Whether it tells of a success of a watched object that its rollout doesn't have: a pipeline would go on although the
/// object's status says otherwise, or nothing yet.
pub(super) async fn is_awaited(shared: &Shared, row: &Row, told: Told<'_>) -> bool {
    let Ok(event) = event::read(told.body) else { return false };
    if event.severity != "info" || !rollout::is_success(&event.reason) {
        return false;
    }
    let metadata = event::combine(&event, told.origin, &Default::default()).metadata;
    let Some(revision) = metadata.get("revision") else { return false };
    if shared.configuration.hints(&row.object, Some(revision)).status.is_none() {
        return false;
    }
    match newest(shared, &row.object, Some(revision)).await {
        Ok(rollout) => rollout.is_none_or(|rollout| rollout.state != Phase::Succeeded),
        Err(_) => true,
    }
}

/// What is said of its object's status with an event that is passed on to another Belfry, which sees no status; `None`:
/// it is too early for that. The outer `Some` of nothing: nobody watches it here either.
pub(super) async fn status(shared: &Shared, row: &Row, told: Told<'_>) -> Option<Option<Agreement>> {
    let known = told.hints.status;
    let (Some(_), true) = (known, shared.configuration.watched() == Some(row.object.cluster.as_str())) else {
        return Some(known);
    };
    let Some((candidate, end)) = end(row, told) else { return Some(known) };
    let (agreed, patience) = match end {
        Phase::Failed => (Agreement::Failed, SOON),
        _ => (Agreement::Ready, LONG),
    };
    if known == Some(agreed) {
        return Some(known);
    }
    match newest(shared, &row.object, candidate.revision.as_deref()).await {
        Ok(Some(rollout)) if rollout.state == end => return Some(Some(agreed)),
        // It ended otherwise since: what it came to is told by what follows.
        Ok(Some(rollout)) if !rollout.state.is_open() && rollout.last_event > row.cause => {
            return Some(Some(Agreement::Neither));
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, object = %row.object, "can't tell whether it is confirmed"),
    }
    let waited = shared.now().since(row.created) >= patience;
    let blind = end == Phase::Succeeded && !shared.environment.is_current();
    (waited && !blind).then_some(Some(Agreement::Neither))
}

/// How a rollout would end by what the event says.
fn end(row: &Row, told: Told<'_>) -> Option<(Candidate, Phase)> {
    let event = event::read(told.body).ok()?;
    let mut candidate = event::candidate(&event, told.origin, &row.object.cluster, Bytes::new(), Vec::new());
    candidate.rollout.as_mut()?.hints = Hints { status: None, ..told.hints };
    // The unnamed object has no status that could agree.
    let end = rollout::end(&candidate).filter(|_| !row.object.kind.is_empty())?;
    Some((candidate, end))
}

/// The newest rollout of an object, or of one of its revisions.
async fn newest(shared: &Shared, object: &ObjectKey, revision: Option<&str>) -> Result<Option<RolloutRow>, StoreError> {
    let ObjectKey { cluster, group, kind, namespace, name } = object.clone();
    let [cluster, group, kind, namespace, name] = [cluster, group, kind, namespace, name].map(Some);
    let query = RolloutQuery {
        object: ObjectFilter { cluster, group, kind, namespace, name },
        revision: revision.map(str::to_owned),
        limit: 1,
        ..RolloutQuery::default()
    };
    Ok(shared.store.rollouts(query).await?.items.into_iter().next())
}
