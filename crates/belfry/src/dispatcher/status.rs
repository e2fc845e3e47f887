//! Commit statuses: what a rollout has come to, shown on the git host. The state of now is posted, not that of the event
//! that caused the delivery, and only when the host is not known to show it.

use std::sync::Arc;

use belfry_api::{Aggregate, Event};
use belfry_core::{
    ObjectKey, Time,
    commit_status::{Desired, Member, Memory, Posted, Standing, State, is_news, of_all, of_object},
    config::{CommitStatusRule, ProviderRule},
    decide::{AgeLimit, Decision, Head, decide},
    event, go_json,
    notification::{Failure, Outcome},
    plan::Origin,
};
use belfry_notify::{CommitState, Known, Status, StatusNotifier, SupersededAs};
use belfry_store::{RolloutRow, Row, RowResult, RowState};

use super::{
    Cause, Destination, Shared,
    lane::{Step, labels, record_of},
};
use crate::{
    expected_set::{ExpectedSet, Found, Unanswered, everything},
    metrics::CommitStatusLabels,
    status_board::Shown,
};

/// A delivery that tells where a rollout stands.
pub(super) struct Told<'a> {
    pub rollout: &'a RolloutRow,
    pub origin: Origin,
    pub body: &'a [u8],
    /// What the lane remembers.
    pub memo: &'a [u8],
    /// The process may have died in the middle of an attempt.
    pub recovered: bool,
}

/// What an attempt came to.
struct Attempt {
    outcome: Outcome,
    /// What is known of the context from now on, if that differs.
    memory: Option<Memory>,
    /// What was to be shown, if it came to that.
    shown: Option<Shown>,
    /// The host takes nothing more under this context.
    ended: bool,
}

impl From<Outcome> for Attempt {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, memory: None, shown: None, ended: false }
    }
}

/// Shows one state, or finds that it is shown.
pub(super) async fn step(shared: &Shared, dest: &Destination, row: &Row, told: &Told<'_>) -> Step {
    let snapshot = shared.configuration.snapshot();
    let Some(rule) = snapshot.commit_status(&row.route).filter(|rule| !rule.spec.suspend) else {
        return Step::Held { step_aside: false };
    };
    let provider = snapshot.provider(&dest.key);
    let kind = provider.map_or("", |provider| provider.spec.type_.as_str());
    let start = shared.now();
    let attempt = match provider {
        Some(provider) => attempt(shared, dest, rule, provider, row, told).await,
        None => Outcome::Misconfigured(Failure::new(format!("{} doesn't exist", dest.key))).into(),
    };
    let now = shared.now();
    note(shared, dest, rule, row, told, &attempt, now);
    let Attempt { outcome, memory, shown, .. } = attempt;
    shared.metrics.count_attempt(labels(dest, kind, &outcome), now.since(start));
    if outcome == Outcome::Delivered {
        shared.metrics.observe_latency(kind, now.since(row.cause.time()));
    }
    let cause = Cause { key: &rule.key, uid: &rule.uid };
    shared.record(dest, cause, row, &outcome, now).await;
    let look_again = memory.as_ref().and_then(|memory| memory.look_again(now));
    let memo = memory.and_then(|memory| serde_json::to_vec(&memory).ok());
    let attempt = Some(record_of(row, start, now, &outcome));
    let result = |state| RowResult { delivery: row.id, attempt, state };
    // A state lane holds nothing but its newest state, which goes out however late.
    let head = Head { created: row.created, attempts: row.attempts, newest: true };
    match decide(head, AgeLimit::Record.duration(), &dest.circuit(), &outcome, now, fastrand::f64()) {
        Decision::Settled if let Some(at) = look_again => {
            Step::Again { result: result(RowState::Retry), at, step_aside: false, memo }
        }
        Decision::Settled => match outcome {
            Outcome::Skipped(why) => Step::Ended(result(RowState::Skipped(why.to_owned())), memo),
            _ => Step::Ended(result(RowState::Delivered), memo),
        },
        Decision::Retry { at, .. } => Step::Again { result: result(RowState::Retry), at, step_aside: false, memo },
        Decision::Dead { reason } => {
            tracing::warn!(delivery = row.id, provider = %dest.key, object = %row.object, "dead letter: {reason}");
            shared.announce_failure(cause, row, &reason);
            shared.board.refused(rule, shown.as_ref(), &row.object, &reason);
            Step::Ended(result(RowState::Dead(reason)), memo)
        }
    }
}

/// Counts an attempt, and tells the board of what there is to tell.
fn note(
    shared: &Shared,
    dest: &Destination,
    rule: &CommitStatusRule,
    row: &Row,
    told: &Told<'_>,
    attempt: &Attempt,
    now: Time,
) {
    let names_commit = told.rollout.commit.is_some();
    shared.board.names_commit(rule, &row.object, names_commit);
    if let (Outcome::Delivered, Some(shown)) = (&attempt.outcome, &attempt.shown) {
        shared.board.posted(rule, shown, now);
    }
    let outcome = match () {
        () if attempt.ended => "ended",
        () if !names_commit => "no_commit",
        () => labels(dest, "", &attempt.outcome).outcome,
    };
    let (namespace, name) = (rule.key.namespace.to_string(), rule.key.name.to_string());
    shared.metrics.count_commit_status(&CommitStatusLabels { namespace, name, outcome });
}

async fn attempt(
    shared: &Shared,
    dest: &Destination,
    rule: &CommitStatusRule,
    provider: &Arc<ProviderRule>,
    row: &Row,
    told: &Told<'_>,
) -> Attempt {
    let Some(commit) = told.rollout.commit.clone() else {
        return Outcome::Skipped("the revision names no commit").into();
    };
    let (desired, by) = match desired(shared, rule, row, told.rollout, &commit).await {
        Ok(Some(desired)) => desired,
        Ok(None) => return Outcome::Skipped("no object is expected to go to this commit").into(),
        Err(error) => return Outcome::Retry(Failure::new(error.to_string())).into(),
    };
    let local = shared.configuration.cluster();
    let context = match context(rule, provider, row, told, local) {
        Ok(context) => context,
        Err(error) => return Outcome::Rejected(Failure::new(error)).into(),
    };
    let source = shared.configuration.source_url(&row.object).unwrap_or_default();
    let fresh = dest.take_refresh();
    let (notifier, repository) =
        match shared.notifiers.statuses(provider, fresh, &source, &rule.spec.repositories).await {
            Ok(found) => found,
            Err(outcome) => return outcome.into(),
        };
    // What can't be read is forgotten, and asked for.
    let known = serde_json::from_slice::<Memory>(told.memo);
    let unreadable = known.is_err() && !told.memo.is_empty();
    let known = known.unwrap_or_default();
    let name = repository.name();
    let posted = known.posted.filter(|posted| posted.repository == name && posted.context == context);
    let unsure = known.unsure.or((told.recovered || unreadable).then(|| shared.now()));
    if let Err(why) = is_news(&rule.spec, &desired, posted.as_ref())
        && (unsure.is_none() || posted.as_ref().is_some_and(|posted| posted.ended))
    {
        return Outcome::Skipped(why).into();
    }
    let status = Status {
        repository,
        commit,
        context: context.clone(),
        state: state(desired.state, by),
        superseded_as: rule.spec.superseded_as.map(superseded_as),
        description: desired.description.clone(),
        target_url: shared.link(told.rollout.id),
    };
    let shown = Shown { context: context.clone(), commit: status.commit.clone(), state: desired.state };
    let new = Posted { repository: name, context, shown: desired, ended: false };
    let attempt = post(shared, &notifier, &status, posted, new, unsure).await;
    Attempt { shown: Some(shown), ..attempt }
}

async fn post(
    shared: &Shared,
    notifier: &StatusNotifier,
    status: &Status,
    before: Option<Posted>,
    new: Posted,
    unsure: Option<Time>,
) -> Attempt {
    let known = if unsure.is_some() { Known::Unsure } else { Known::Sure };
    let attempted = notifier.post(status, known).await;
    let now = shared.now();
    let memory = match &attempted.outcome {
        Outcome::Delivered => {
            let memory = Memory { posted: Some(new), unsure };
            if memory.look_again(now).is_some() { memory } else { Memory { unsure: None, ..memory } }
        }
        _ if attempted.ends_context => Memory { posted: Some(Posted { ended: true, ..new }), unsure: None },
        Outcome::Retry(failure) if failure.unknown => Memory { posted: before, unsure: Some(now) },
        _ => Memory { posted: before, unsure },
    };
    Attempt { memory: Some(memory), ended: attempted.ends_context, ..attempted.outcome.into() }
}

/// What the context is to show, and what superseded the commit.
async fn desired(
    shared: &Shared,
    rule: &CommitStatusRule,
    row: &Row,
    rollout: &RolloutRow,
    commit: &str,
) -> Result<Option<(Desired, Option<String>)>, Unanswered> {
    if rule.spec.aggregate == Aggregate::All {
        let found = members(shared, rule, commit).await?;
        let members = found.iter().map(|it| Member { object: &it.object, rollout: it.rollout.as_ref().map(standing) });
        let members: Vec<_> = members.collect();
        return Ok(of_all(&rule.spec, &members).map(|desired| (desired, None)));
    }
    // The object may have come back to the commit: then that is what its status tells of.
    let state = shared.store.object_state(&row.object).await?.unwrap_or_default();
    let newest = state.rollouts.rollouts().iter().rev().find(|known| known.commit.as_deref() == Some(commit));
    let standing = newest.map_or_else(
        || standing(rollout),
        |known| match known.id == rollout.id && known.message.is_empty() {
            // The fold keeps no words for what is no longer the newest.
            true => Standing { message: &rollout.message, ..Standing::from(&**known) },
            false => Standing::from(&**known),
        },
    );
    let by = standing.superseded_by.map(|next| next.commit.clone().unwrap_or_else(|| next.revision.clone()));
    Ok(Some((of_object(&rule.spec, standing), by)))
}

/// The objects of the CommitStatus that are to go to a commit.
async fn members(shared: &Shared, rule: &CommitStatusRule, commit: &str) -> Result<Vec<Found>, Unanswered> {
    let selects = |object: &ObjectKey| shared.configuration.shows(&rule.key, object);
    ExpectedSet {
        store: &shared.store,
        configuration: &shared.configuration,
        revision: commit,
        // One context, and one lane, for all clusters that it selects from.
        cluster: None,
        named: Vec::new(),
        selects: Some(&selects),
        releases: false,
        sees: &everything(),
    }
    .gather()
    .await
}

fn standing(row: &RolloutRow) -> Standing<'_> {
    Standing {
        state: row.state,
        attempts: row.attempts,
        reason: &row.reason,
        message: &row.message,
        succeeded: row.first_success.is_some(),
        superseded_by: row.superseded_by.as_ref(),
    }
}

/// The context of an object. Those of other clusters name theirs, so that objects of one name don't share a context.
fn context(
    rule: &CommitStatusRule,
    provider: &ProviderRule,
    row: &Row,
    told: &Told<'_>,
    local: &str,
) -> Result<String, String> {
    let spec = &rule.spec;
    let object = &row.object;
    if spec.aggregate == Aggregate::All {
        return Ok(spec.prefix.clone());
    }
    let cluster = if object.cluster == local { "" } else { &object.cluster };
    let own = || Ok(belfry_notify::context(&spec.prefix, cluster, &object.kind, &object.namespace, &object.name));
    if spec.context_expr.is_none() {
        return own();
    }
    let event = serde_json::json!(go_json::Wire(&event_of(row, told)?));
    rule.context(&event, &rule.manifest(), &provider.manifest()).unwrap_or_else(own)
}

/// The event that is told of, its metadata without prefixes. A watch sees none: then it is what one would have said.
fn event_of(row: &Row, told: &Told<'_>) -> Result<Event, String> {
    if told.origin == Origin::Observed {
        let RolloutRow { revision, origin_revision, reason, message, .. } = told.rollout;
        let mut event = Event { reason: reason.clone(), message: message.clone(), ..Event::default() };
        let object = &row.object;
        event.involved_object.kind.clone_from(&object.kind);
        event.involved_object.namespace.clone_from(&object.namespace);
        event.involved_object.name.clone_from(&object.name);
        event.metadata.insert("revision".into(), revision.clone());
        event.metadata.extend(origin_revision.clone().map(|origin| ("originRevision".into(), origin)));
        return Ok(event);
    }
    let mut event = event::read(told.body).map_err(|error| format!("the stored event can't be read: {error}"))?;
    event.metadata = event::combine(&event, told.origin, &Default::default()).metadata;
    Ok(event)
}

fn state(state: State, by: Option<String>) -> CommitState {
    match state {
        State::Pending => CommitState::Pending,
        State::Success => CommitState::Success,
        State::Failure => CommitState::Failure,
        State::Superseded => CommitState::Superseded { by },
    }
}

fn superseded_as(shown: belfry_api::SupersededAs) -> SupersededAs {
    match shown {
        belfry_api::SupersededAs::Pending => SupersededAs::Pending,
        belfry_api::SupersededAs::Success => SupersededAs::Success,
        belfry_api::SupersededAs::Failure => SupersededAs::Failure,
    }
}
