//! What is to be done about a run, given what is known: the rules, without anybody who carries them out.

use std::{sync::Arc, time::Duration};

use belfry_core::{
    Time, duration,
    rollout::Phase,
    verdict::{Answer, Question, Verdict},
};
use serde_json::{Value, json};

use super::{
    TektonSettings,
    params::{Params, given, quoted, written},
    results::{self, Found, go_duration},
    run::Run,
    status::{self, MESSAGE, Outcome, Progress, shortened},
};
use crate::call;

/// Retries that a run may have.
const RETRIES: u64 = 100;
/// Objects that a message names.
const NAMED: usize = 5;
/// How long an answer is waited for before a run times out that was found beyond its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after the end of all that a run may not see something is waited for that it may: another source may be slower
/// to learn of the revision.
const OTHERS: Duration = Duration::from_secs(60);
/// An object's event and its status tell of one failure with times that may be so far apart.
const SAME_FAILURE: Duration = Duration::from_secs(3);
/// How often a run's status tells of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// What came of the run's question.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// An answer about objects that its ServiceAccount may read.
    Answer(Arc<Answer>),
    /// It may not read this one, which the run itself names.
    Forbidden(String),
    /// It may read none of those that there are.
    NothingReadable {
        /// Since when there is a final answer about them.
        over: Option<Time>,
    },
}

/// The times that matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Time,
    /// Since when this process looks after the run.
    pub(super) since: Time,
    /// When it wrote progress last.
    pub(super) told: Option<Time>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing, ever.
    Done,
    /// Write the status, which is a merge patch, and tell of it; then look again.
    Write { status: Value, remark: Remark },
    /// Wait for what comes of the question, and look again at that time.
    Wait { question: Question, until: Option<Time> },
}

/// What a Kubernetes Event tells of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Decides. A run that is done is left alone.
pub(super) fn plan(run: &Run, heard: Option<&Heard>, clock: Clock, settings: &TektonSettings) -> Step {
    if run.is_done() {
        return Step::Done;
    }
    let now = clock.now;
    let progress = Progress::of(run);
    let answer = match heard {
        Some(Heard::Answer(answer)) => Some(&**answer),
        _ => None,
    };
    let end = |outcome: Outcome| {
        let found = Found {
            answer,
            revision: progress.as_ref().map_or("", |progress| &progress.params.revision),
            asked: progress.as_ref().map(|progress| progress.asked),
        };
        let status = status::ended(run, &outcome, &found, now);
        let remark = Remark { warning: outcome.status != "True", reason: outcome.reason, message: outcome.message };
        Step::Write { status, remark }
    };
    if let Some(why) = &run.cancelled {
        let why = if why.is_empty() { "The run was cancelled." } else { why };
        return end(Outcome::failed(if run.older { "RunCancelled" } else { "CustomRunCancelled" }, why));
    }
    let Some(progress) = &progress else {
        return match accepted(run, now) {
            Ok(progress) => begin(run, &progress, now),
            Err(refused) => end(refused),
        };
    };
    let timeout = timeout(run, &progress.params, settings);
    let late = timeout.filter(|timeout| {
        let unheard = heard.is_none() && now < clock.since.after(PATIENCE);
        now >= progress.started.after(*timeout) && !unheard
    });
    match heard {
        Some(Heard::Forbidden(object)) => {
            end(Outcome::failed("NotPermitted", format!("{} may not get {object}", account(run))))
        }
        Some(Heard::NothingReadable { over: Some(over) }) if now >= over.after(OTHERS) => {
            let what =
                format!("{} may get none of the objects that went to {}", account(run), progress.params.revision);
            end(Outcome::failed("NotPermitted", what))
        }
        Some(Heard::Answer(answer)) if answer.verdict == Verdict::Succeeded => {
            end(Outcome { status: "True", reason: answer.reason, message: answer.message.clone() })
        }
        Some(Heard::Answer(answer)) if answer.verdict == Verdict::Superseded => {
            end(Outcome::failed(answer.reason, answer.message.clone()))
        }
        Some(Heard::Answer(answer)) if is_failure(answer, progress.consumed) => {
            let outcome = Outcome::failed(answer.reason, answer.message.clone());
            let consumed = last_failure(answer).unwrap_or(now).max(progress.consumed.unwrap_or_default());
            retry(run, progress, &outcome, Some(consumed), now).unwrap_or_else(|| end(outcome))
        }
        _ => match late {
            Some(timeout) => {
                let outcome = timed_out(run, progress, timeout, heard);
                retry(run, progress, &outcome, progress.consumed, now).unwrap_or_else(|| end(outcome))
            }
            None => go_on(run, progress, heard, timeout, clock),
        },
    }
}

/// A run that nobody has begun: what it asks, or why it can't be.
fn accepted(run: &Run, now: Time) -> Result<Progress, Outcome> {
    if run.workspaces {
        let reason = if run.older { "RunWorkspaceNotSupported" } else { "CustomRunWorkspaceNotSupported" };
        return Err(Outcome::failed(reason, "FluxDeploymentWait has no use for workspaces"));
    }
    if let Some(name) = &run.task {
        let message = format!("the name {} in the reference: FluxDeploymentWait takes none", quoted(name));
        return Err(Outcome::failed("UnexpectedName", message));
    }
    let read = Params::read(&given(&run.params, run.spec.as_ref()), run.created);
    let mut problems = read.as_ref().err().cloned().unwrap_or_default();
    if let Some(Err(error)) = run.timeout.as_deref().map(duration::parse) {
        problems.push(format!("spec.timeout: {}", shortened(&error.to_string(), 200)));
    }
    if run.retries > RETRIES {
        problems.push(format!("spec.retries: more than {RETRIES}"));
    }
    if !call::is_name(&run.service_account) {
        problems.push(format!("spec.serviceAccountName: {} can't be a name", quoted(&run.service_account)));
    }
    match read {
        // What went live in the second of the run's creation may have done so before it, as far as its time tells.
        Ok(params) if problems.is_empty() => {
            let asked = run.created.after(Duration::from_secs(1)).min(now);
            Ok(Progress::begin(params, asked, now))
        }
        _ => Err(Outcome::failed("InvalidParams", problems.join("; "))),
    }
}

fn begin(run: &Run, progress: &Progress, now: Time) -> Step {
    let outcome = Outcome::unknown("Waiting", awaited(&progress.params));
    let status = status::going_on(run, progress, &outcome, now);
    Step::Write { status, remark: Remark { warning: false, reason: "Waiting", message: outcome.message } }
}

/// Whether somebody was told already that the objects stand so, else who is to be told; then it is waited on.
fn go_on(run: &Run, progress: &Progress, heard: Option<&Heard>, timeout: Option<Duration>, clock: Clock) -> Step {
    let mut until = timeout.map(|timeout| progress.started.after(timeout));
    if heard.is_none() {
        until = until.map(|until| until.max(clock.since.after(PATIENCE)));
    }
    if let Some(Heard::NothingReadable { over: Some(over) }) = heard {
        let next = over.after(OTHERS);
        until = Some(until.map_or(next, |until| until.min(next)));
    }
    if let Some((objects, remark)) = news(run, progress, heard) {
        let next = clock.told.map(|told| told.after(PROGRESS)).filter(|next| *next > clock.now);
        let Some(next) = next else {
            let progress = Progress { objects, ..progress.clone() };
            let outcome = Outcome::unknown(attempt(run, &progress).0, remark.message.clone());
            return Step::Write { status: status::going_on(run, &progress, &outcome, clock.now), remark };
        };
        until = Some(until.map_or(next, |until| until.min(next)));
    }
    Step::Wait { question: progress.params.question(progress.asked), until }
}

/// What is to be told, if anything, and of which objects.
fn news(run: &Run, progress: &Progress, heard: Option<&Heard>) -> Option<(Value, Remark)> {
    let remark = |warning, reason, message: &str| {
        let message = format!("{}{message}", attempt(run, progress).1);
        Remark { warning, reason, message }
    };
    match heard {
        // A failure that goes on has been told of.
        Some(Heard::Answer(answer)) if answer.verdict != Verdict::Failed => {
            let objects = results::objects(answer);
            let new = states(&objects) != states(&progress.objects);
            new.then(|| (objects, remark(false, "Progressing", &answer.message)))
        }
        Some(Heard::NothingReadable { .. }) => {
            let remark = remark(true, "NotPermitted", &format!("{} may get none of the objects yet", account(run)));
            (run.succeeded()["message"] != *remark.message).then(|| (json!([]), remark))
        }
        _ => None,
    }
}

/// What is told of objects but for the words.
fn states(objects: &Value) -> Vec<(&Value, &Value)> {
    objects.as_array().into_iter().flatten().map(|item| (&item["object"], &item["state"])).collect()
}

/// How an attempt is called.
fn attempt(run: &Run, progress: &Progress) -> (&'static str, String) {
    match progress.attempt {
        1 => ("Waiting", String::new()),
        attempt => ("Retrying", format!("Attempt {attempt} of {}: ", run.retries.min(RETRIES) + 1)),
    }
}

/// The next attempt, if there is one left.
fn retry(run: &Run, progress: &Progress, ended: &Outcome, consumed: Option<Time>, now: Time) -> Option<Step> {
    if progress.attempt > run.retries.min(RETRIES) {
        return None;
    }
    let progress = Progress { attempt: progress.attempt + 1, started: now, consumed, ..progress.clone() };
    let (reason, prefix) = attempt(run, &progress);
    let message = format!("{prefix}{}", awaited(&progress.params));
    let remark = Remark { warning: true, reason, message: format!("{message}, after {}", ended.message) };
    let outcome = Outcome::unknown(reason, message);
    Some(Step::Write { status: status::again(run, &progress, ended, &outcome, now), remark })
}

/// Whether it is one that has not ended an earlier attempt: Flux tries again by itself, and what it failed at before is
/// still the answer while it does.
fn is_failure(answer: &Answer, consumed: Option<Time>) -> bool {
    answer.verdict == Verdict::Failed
        && consumed.is_none_or(|until| last_failure(answer).is_some_and(|failed| failed > until.after(SAME_FAILURE)))
}

/// When one of the objects failed last.
fn last_failure(answer: &Answer) -> Option<Time> {
    answer.objects.iter().filter(|standing| standing.state == Phase::Failed).filter_map(|standing| standing.said).max()
}

/// How long an attempt may take; `None` for ever.
fn timeout(run: &Run, params: &Params, settings: &TektonSettings) -> Option<Duration> {
    let spec = run.timeout.as_deref().and_then(|text| duration::parse(text).ok());
    let otherwise = if run.in_pipeline { settings.pipeline_timeout } else { settings.timeout };
    let timeout = spec.or(params.timeout).unwrap_or(otherwise);
    (!timeout.is_zero()).then_some(timeout)
}

fn timed_out(run: &Run, progress: &Progress, timeout: Duration, heard: Option<&Heard>) -> Outcome {
    let reason = if run.older { "RunTimedOut" } else { "CustomRunTimedOut" };
    let missing = match heard {
        Some(Heard::Answer(answer)) => format!(": {}", answer.message),
        Some(Heard::NothingReadable { .. }) => {
            format!(": {} may get none of the objects", account(run))
        }
        _ => String::new(),
    };
    let revision = &progress.params.revision;
    Outcome::failed(reason, format!("{revision} was not live within {}{missing}", go_duration(timeout)))
}

fn account(run: &Run) -> String {
    format!("ServiceAccount {}/{}", run.namespace, run.service_account)
}

fn awaited(params: &Params) -> String {
    let mut message = format!("Waiting for {}", params.revision);
    let named: Vec<_> = params.objects.iter().take(NAMED).map(written).collect();
    if !named.is_empty() {
        message = format!("{message} of {}", named.join(", "));
    }
    if params.objects.len() > NAMED {
        message = format!("{message} and {} more", params.objects.len() - NAMED);
    }
    if let Some(cluster) = &params.cluster {
        message = format!("{message} in cluster {cluster}");
    }
    shortened(&message, MESSAGE).to_owned()
}

#[cfg(test)]
mod tests;
