//! Configuration as a pure function: documents in, a [`Snapshot`] and [`Finding`]s out. Watches and a directory of
//! manifests differ only in who supplies the documents and who writes the findings.

mod commit_status;
mod compile;
pub mod explain;
mod labels;
pub mod receiver;
mod snapshot;
mod sources;
mod validate;

use std::fmt;

pub use commit_status::CommitStatusRule;
pub use compile::compile;
pub use receiver::ReceiverRule;
pub use snapshot::{AlertRule, Matched, ProviderRule, Snapshot, takes_status_updates};

use crate::ConfigKey;

/// One manifest, parsed as far as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where it came from, for messages: `providers.yaml, document 2`, or empty in a cluster.
    pub origin: String,
    /// The object.
    pub value: serde_json::Value,
}

/// What the local cluster is called wherever a cluster is named, whatever name it has.
pub const LOCAL: &str = "local";

/// What configuration is compiled against.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--no-cross-namespace-refs`.
    pub no_cross_namespace_refs: bool,
    /// The namespace that Belfry runs in, whose Alerts may select `namespace: '*'`.
    pub runtime_namespace: String,
    /// `--cluster-name`.
    pub cluster: String,
    /// The feature gate `AlertCommitStatus` is off: commit statuses are for CommitStatuses alone.
    pub no_alert_commit_status: bool,
}

/// What compiling found about one configuration object. An object has one finding for each problem, and exactly one
/// when it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object, if it could be told.
    pub object: Option<ConfigKey>,
    /// Where it came from (see [`Document::origin`]).
    pub origin: String,
    /// What is to be said about it; `None` for an object that was accepted without remarks.
    pub problem: Option<Problem>,
}

/// What is wrong with a configuration object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, as a path such as `spec.eventSources[1].kind`; empty when it is the object as a whole.
    pub field: String,
    /// One CamelCase word, fit for a condition or a Kubernetes Event.
    pub reason: &'static str,
    /// What is wrong and what to do about it.
    pub message: String,
    /// The object is not in force (its last good version is, if there was one); else it works, but not as written.
    pub refused: bool,
}

impl Problem {
    /// The object is not in force.
    fn refusal(field: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason, message: message.into(), refused: true }
    }

    /// The object is in force, but not as written.
    fn warning(field: &str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason, message: message.into(), refused: false }
    }
}

impl fmt::Display for Problem {
    /// `spec.type: is required`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Finding {
    /// `alerts.yaml, document 2: Alert/apps/on-call: spec.providerRef: is required`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.origin.is_empty() {
            write!(f, "{}: ", self.origin)?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        match &self.problem {
            Some(problem) => problem.fmt(f),
            None => f.write_str("accepted"),
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
