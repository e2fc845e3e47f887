//! "Is this revision live?": the one answer that waits, the command line, Tekton runs and pages give.

mod decide;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use decide::{Facts, Trace, Watched, decide};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use crate::{ObjectKey, Seq, Time, rollout::Phase};

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The revision or commit: as controllers write it, or its hash, of which the first 7 digits suffice.
    pub revision: String,
    /// The objects that must have it; none: whatever goes to it.
    pub objects: Vec<Selector>,
    /// Only objects of this cluster.
    pub cluster: Option<String>,
    /// What a failure means.
    pub on_failure: OnFailure,
    /// What it means that another revision came before this one was live.
    pub on_superseded: OnSuperseded,
    /// What happened before this doesn't count.
    pub not_before: Option<Time>,
    /// When it was asked.
    pub asked: Time,
}

/// Selects objects; what isn't given doesn't matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Kind.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

/// What a failure means for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It is the answer, unless the object succeeds within this time after it.
    Fail {
        /// How long.
        grace: Duration,
    },
    /// Nothing: Flux tries again.
    Wait,
}

impl Default for OnFailure {
    fn default() -> Self {
        Self::Fail { grace: Duration::ZERO }
    }
}

/// What it means for a question that another revision came before the one that was asked for was live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSuperseded {
    /// The answer is superseded.
    #[default]
    Fail,
    /// As good as live, once the other revision is.
    Succeed,
    /// Nothing: someone may bring it back.
    Wait,
}

/// Whether it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All objects have it.
    Succeeded,
    /// One could not be brought to it.
    Failed,
    /// Another revision came before it was live.
    Superseded,
    /// Not yet.
    Pending,
    /// Nothing that is known goes to it.
    Unknown,
}

impl Verdict {
    /// Whether waiting longer is of no use.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Superseded)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// In a word.
    pub verdict: Verdict,
    /// `ReconciliationSucceeded`, `ReconciliationFailed`, `RevisionSuperseded`, `Waiting` or `NotTracked`.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
    /// The revision as the deciding object names it; as asked while none has named it.
    pub revision: String,
    /// The revision that its artifact was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_revision: Option<String>,
    /// The deciding object: the first that failed or was superseded, the last that succeeded, the first that is awaited.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "named")]
    #[schemars(with = "Option<String>")]
    pub object: Option<ObjectKey>,
    /// The revision that came before it was live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    /// The event or observation that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Seq>,
    /// When the first object began.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schemars(with = "Option<String>")]
    pub started: Option<Time>,
    /// When it was decided, by the events' own clock.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Time>,
    /// Every object that counts, in the order of their names.
    pub objects: Vec<Standing>,
}

/// Where one object stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Which.
    #[serde(serialize_with = "name")]
    #[schemars(with = "String")]
    pub object: ObjectKey,
    /// Its cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    /// How far it is; pending too when it has yet to begin.
    pub state: Phase,
    /// The revision as it names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The revision that its artifact was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_revision: Option<String>,
    /// The last reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The message that came with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The revision that it runs, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// The revision that came before this one was live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    /// Its rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Seq>,
    /// The last event or observation of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Seq>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schemars(with = "Option<String>")]
    pub started: Option<Time>,
    /// When it came to its state.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rfc3339")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Time>,
    /// When its reason and message were said last: of a failure, when it failed last.
    #[serde(skip)]
    pub said: Option<Time>,
}

fn name<S: Serializer>(object: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(object)
}

fn named<S: Serializer>(object: &Option<ObjectKey>, serializer: S) -> Result<S::Ok, S::Error> {
    object.as_ref().map(ToString::to_string).serialize(serializer)
}

fn rfc3339<S: Serializer>(time: &Option<Time>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}
