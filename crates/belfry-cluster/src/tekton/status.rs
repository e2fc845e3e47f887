//! What stands in a run's status: the condition that Tekton reads, and how far the run is, for whoever goes on with it.

use belfry_core::Time;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    params::Params,
    results,
    run::{Run, time},
};

/// Bytes of a condition's message: it is copied into the PipelineRun, and lives in etcd.
pub(super) const MESSAGE: usize = 1024;
/// Attempts that are kept, the last ones.
const ATTEMPTS_KEPT: usize = 10;

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    pub(super) params: Params,
    /// When the run's question was asked first.
    pub(super) asked: Time,
    /// When this attempt began.
    pub(super) started: Time,
    /// The number of this attempt, from 1.
    pub(super) attempt: u64,
    /// Failures up to then have ended earlier attempts.
    pub(super) consumed: Option<Time>,
    /// What was told last about the objects.
    pub(super) objects: Value,
}

impl Progress {
    /// A run that begins.
    pub(super) fn begin(params: Params, asked: Time, now: Time) -> Self {
        Self { params, asked, started: now, attempt: 1, consumed: None, objects: json!([]) }
    }

    /// What its status says; `None` for a run that nobody has begun, or somebody who left nothing to go on with.
    pub(super) fn of(run: &Run) -> Option<Self> {
        let kept = &run.status["extraFields"];
        let params = Params::read(kept["params"].as_object()?, run.created).ok()?;
        Some(Self {
            params,
            asked: time(&kept["asked"])?,
            started: time(&kept["attemptStarted"])?,
            attempt: kept["attempt"].as_u64().filter(|attempt| *attempt > 0)?,
            consumed: time(&kept["failuresUntil"]),
            objects: kept["objects"].clone(),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "params": self.params.to_json(),
            "asked": exact(self.asked),
            "attemptStarted": exact(self.started),
            "attempt": self.attempt,
            "failuresUntil": self.consumed.map(exact),
            "objects": self.objects,
        })
    }
}

/// What becomes of a run: the condition `Succeeded`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Outcome {
    pub(super) fn unknown(reason: &'static str, message: String) -> Self {
        Self { status: "Unknown", reason, message }
    }

    pub(super) fn failed(reason: &'static str, message: impl Into<String>) -> Self {
        Self { status: "False", reason, message: message.into() }
    }
}

/// The status, as a merge patch, of a run that goes on.
pub(super) fn going_on(run: &Run, progress: &Progress, outcome: &Outcome, now: Time) -> Value {
    json!({
        "conditions": conditions(run, outcome, now),
        "observedGeneration": run.generation,
        "startTime": whole_seconds(progress.started),
        "extraFields": progress.to_json(),
    })
}

/// The same of one that begins its next attempt, `progress`, after another came to nothing.
pub(super) fn again(run: &Run, progress: &Progress, ended: &Outcome, outcome: &Outcome, now: Time) -> Value {
    let mut attempts = run.status["retriesStatus"].as_array().cloned().unwrap_or_default();
    attempts.push(json!({
        "conditions": [condition(&Value::Null, ended, now)],
        "startTime": run.status["startTime"],
        "completionTime": whole_seconds(now),
    }));
    let surplus = attempts.len().saturating_sub(ATTEMPTS_KEPT);
    attempts.drain(..surplus);
    let mut status = going_on(run, progress, outcome, now);
    status["retriesStatus"] = json!(attempts);
    status
}

/// The same of one that ends. All results are there, whatever the end: a PipelineRun fails that refers to one that isn't.
pub(super) fn ended(run: &Run, outcome: &Outcome, found: &results::Found<'_>, now: Time) -> Value {
    let mut status = json!({
        "conditions": conditions(run, outcome, now),
        "observedGeneration": run.generation,
        "completionTime": whole_seconds(now),
        "results": results::all(found, outcome, now),
    });
    if run.status["startTime"].is_null() {
        status["startTime"] = whole_seconds(now);
    }
    if let Some(answer) = found.answer {
        status["extraFields"] = json!({ "objects": results::objects(answer) });
    }
    status
}

/// `Succeeded` first, for of the first Tekton takes the reason that tasks and results can name.
fn conditions(run: &Run, outcome: &Outcome, now: Time) -> Vec<Value> {
    let others = run.status["conditions"].as_array().into_iter().flatten();
    let others = others.filter(|known| known["type"] != "Succeeded").cloned();
    std::iter::once(condition(run.succeeded(), outcome, now)).chain(others).collect()
}

fn condition(before: &Value, outcome: &Outcome, now: Time) -> Value {
    let since = &before["lastTransitionTime"];
    let kept = before["status"] == outcome.status && !since.is_null();
    json!({
        "type": "Succeeded",
        "status": outcome.status,
        "reason": outcome.reason,
        "message": shortened(&outcome.message, MESSAGE),
        "lastTransitionTime": if kept { since.clone() } else { whole_seconds(now) },
    })
}

/// As much of a text as fits.
pub(super) fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Kubernetes' times, which are those that Tekton reads, have whole seconds.
fn whole_seconds(at: Time) -> Value {
    let at = Timestamp::from_microsecond(at.0).unwrap_or_default();
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn exact(at: Time) -> String {
    Timestamp::from_microsecond(at.0).unwrap_or_default().to_string()
}
