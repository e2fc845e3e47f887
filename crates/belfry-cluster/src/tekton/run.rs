//! A run as Tekton made it: `CustomRun`, and the older `Run`, which differs in a few names.

use belfry_core::Time;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::seen::Keep;

const KIND: &str = "FluxDeploymentWait";
/// Ours, and that of the older flux-event-store.
const API_VERSIONS: [&str; 2] = ["belfry.dev/v1alpha1", "github.com/janakerman/flux-event-store/v0"];
/// What Tekton writes into `spec.status`; for both kinds.
const CANCELLED: &str = "RunCancelled";

/// A run that is Belfry's to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Run {
    /// `tekton.dev/v1beta1` `CustomRun`, or the older `tekton.dev/v1alpha1` `Run`.
    pub(super) older: bool,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// The resource version.
    pub(super) version: String,
    pub(super) generation: i64,
    pub(super) created: Time,
    /// It belongs to a PipelineRun, which ends it in its time.
    pub(super) in_pipeline: bool,
    /// The name of the task that is referred to; there is none that could be meant.
    pub(super) task: Option<String>,
    /// The spec of the task, where it is embedded.
    pub(super) spec: Option<Map<String, Value>>,
    pub(super) params: Vec<(String, Value)>,
    pub(super) workspaces: bool,
    pub(super) timeout: Option<String>,
    pub(super) retries: u64,
    pub(super) service_account: String,
    /// It was cancelled, and why.
    pub(super) cancelled: Option<String>,
    pub(super) status: Value,
}

impl Run {
    /// The run, if it is one of ours that is not being deleted.
    pub(super) fn read(mut object: Value) -> Option<Self> {
        let older = object["kind"] == "Run";
        let (by_reference, embedded) = if older { ("ref", "spec") } else { ("customRef", "customSpec") };
        let mut spec = object["spec"].take();
        let mut task = [by_reference, embedded].into_iter().find_map(|field| {
            let task = spec.get_mut(field)?.take();
            (!task.is_null()).then_some((field == embedded, task))
        });
        let (is_embedded, task) = task.as_mut()?;
        if task["kind"] != KIND || !API_VERSIONS.iter().any(|ours| task["apiVersion"] == *ours) {
            return None;
        }
        let metadata = &object["metadata"];
        if !metadata["deletionTimestamp"].is_null() {
            return None;
        }
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let cancelled = (spec["status"] == CANCELLED).then(|| text(&spec["statusMessage"]).unwrap_or_default());
        Some(Self {
            older,
            namespace: text(&metadata["namespace"])?,
            name: text(&metadata["name"])?,
            uid: text(&metadata["uid"])?,
            version: text(&metadata["resourceVersion"])?,
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            created: time(&metadata["creationTimestamp"]).unwrap_or_default(),
            in_pipeline: in_pipeline(metadata),
            task: text(&task["name"]).filter(|_| !*is_embedded),
            spec: is_embedded.then(|| object_of(task["spec"].take())),
            params: params(spec["params"].take()),
            workspaces: spec["workspaces"].as_array().is_some_and(|all| !all.is_empty()),
            timeout: text(&spec["timeout"]),
            retries: spec["retries"].as_u64().unwrap_or_default(),
            service_account: text(&spec["serviceAccountName"]).unwrap_or_else(|| "default".to_owned()),
            cancelled,
            status: object["status"].take(),
        })
    }

    /// Whether it has ended, whoever ended it.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.succeeded()["status"].as_str(), Some("True" | "False"))
    }

    /// Its condition `Succeeded`.
    pub(super) fn succeeded(&self) -> &Value {
        let conditions = self.status["conditions"].as_array();
        conditions.into_iter().flatten().find(|known| known["type"] == "Succeeded").unwrap_or(&Value::Null)
    }

    /// Whether this is an older version of that run than another.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let number = |run: &Self| run.version.parse::<u64>();
        self.uid == other.uid && matches!((number(self), number(other)), (Ok(this), Ok(that)) if this < that)
    }

    /// Its kind's name.
    pub(super) fn kind(&self) -> &'static str {
        if self.older { "Run" } else { "CustomRun" }
    }

    /// Its kind's version.
    pub(super) fn api_version(&self) -> &'static str {
        if self.older { "tekton.dev/v1alpha1" } else { "tekton.dev/v1beta1" }
    }
}

/// A point in time as Kubernetes writes it.
pub(super) fn time(value: &Value) -> Option<Time> {
    Some(Time(value.as_str()?.parse::<Timestamp>().ok()?.as_microsecond()))
}

fn in_pipeline(metadata: &Value) -> bool {
    let owners = metadata["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| {
        let group = owner["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
        owner["kind"] == "PipelineRun" && group == Some("tekton.dev")
    })
}

fn params(params: Value) -> Vec<(String, Value)> {
    let Value::Array(params) = params else { return Vec::new() };
    let named = |mut param: Value| Some((param["name"].as_str()?.to_owned(), param["value"].take()));
    params.into_iter().filter_map(named).collect()
}

/// The older kind's CRD lets anything through.
fn object_of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        other => Map::from_iter([("spec".to_owned(), json!(other.to_string()))]),
    }
}

/// What a watch keeps of runs: nothing of others' ones.
#[derive(Clone, Debug)]
pub(super) struct Ours(pub(super) Option<Run>);

impl Keep for Ours {
    const METADATA_ONLY: bool = false;

    fn keep(object: Value) -> Self {
        let mut run = Run::read(object);
        if let Some(run) = run.as_mut().filter(|run| run.is_done()) {
            // Nobody looks into it any more, and there may be thousands.
            (run.spec, run.params) = (None, Vec::new());
            run.status = json!({ "conditions": [run.succeeded()] });
        }
        Self(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &str, spec: Value) -> Option<Run> {
        Run::read(json!({
            "kind": kind,
            "metadata": {
                "namespace": "ci", "name": "wait", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-21T09:15:56Z",
            },
            "spec": spec,
        }))
    }

    #[test]
    fn ours_are_told_from_others() {
        let ours = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind });
        for (kind, spec, expected) in [
            ("CustomRun", json!({ "customRef": ours("belfry.dev/v1alpha1", KIND) }), true),
            ("CustomRun", json!({ "customRef": ours("github.com/janakerman/flux-event-store/v0", KIND) }), true),
            ("CustomRun", json!({ "customSpec": ours("belfry.dev/v1alpha1", KIND) }), true),
            ("CustomRun", json!({ "customRef": ours("belfry.dev/v1", KIND) }), false),
            ("CustomRun", json!({ "customRef": ours("belfry.dev/v1alpha1", "Other") }), false),
            ("CustomRun", json!({ "ref": ours("belfry.dev/v1alpha1", KIND) }), false),
            ("CustomRun", json!({ "customRef": { "kind": KIND } }), false),
            ("CustomRun", json!({}), false),
            ("CustomRun", json!(5), false),
            ("Run", json!({ "ref": ours("belfry.dev/v1alpha1", KIND) }), true),
            ("Run", json!({ "spec": ours("belfry.dev/v1alpha1", KIND) }), true),
            ("Run", json!({ "customRef": ours("belfry.dev/v1alpha1", KIND) }), false),
        ] {
            assert_eq!(run(kind, spec.clone()).is_some(), expected, "{kind} {spec}");
        }
        let deleted = json!({
            "kind": "CustomRun",
            "metadata": {
                "namespace": "a", "name": "b", "uid": "c", "resourceVersion": "1", "deletionTimestamp": "2026-11-21T09:15:56Z",
            },
            "spec": { "customRef": ours("belfry.dev/v1alpha1", KIND) },
        });
        assert_eq!(Run::read(deleted), None);
    }

    #[test]
    fn what_belongs_to_a_pipeline_says_so() {
        for (kind, version, expected) in [
            ("PipelineRun", "tekton.dev/v1", true),
            ("PipelineRun", "tekton.dev/v1beta1", true),
            ("PipelineRun", "other.dev/v1", false),
            ("Job", "batch/v1", false),
        ] {
            let metadata = json!({ "ownerReferences": [{ "kind": kind, "apiVersion": version }] });
            assert_eq!(in_pipeline(&metadata), expected, "{kind} {version}");
        }
    }

    #[test]
    fn of_two_versions_the_later_counts() {
        let version = |version: &str| Run { version: version.to_owned(), ..Run::default() };
        assert!(version("9").is_older_than(&version("10")));
        assert!(!version("10").is_older_than(&version("10")));
        assert!(!version("x").is_older_than(&version("10")));
        let other = Run { uid: "other".to_owned(), ..version("10") };
        assert!(!version("9").is_older_than(&other));
    }
}
