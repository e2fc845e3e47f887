//! CommitStatus: which objects' rollouts are shown as commit statuses on a git host, and under which context. Doc
//! comments become the descriptions in the CRD.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, CrossNamespaceObjectReference, EventSeverity, LocalObjectReference, Resource};

/// Contexts that a CommitStatus' status names at most: the ones that changed last.
pub const POSTED_CONTEXTS: usize = 20;

/// What shows rollouts as commit statuses.
pub type CommitStatus = Resource<CommitStatusSpec>;

/// CommitStatusSpec defines which rollouts are shown as commit statuses, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatusSpec {
    /// ProviderRef names the Provider of the git host, in the same namespace. Its type is one of github, gitlab, gitea,
    /// bitbucket, bitbucketserver, azuredevops. When its address names no repository, that of the object's source is
    /// used.
    pub provider_ref: LocalObjectReference,
    /// EventSeverity 'info' shows every state; 'error' shows failures, and the success that ends one.
    #[serde(default)]
    pub event_severity: EventSeverity,
    /// EventSources specifies the objects by kind, name and namespace.
    #[schemars(length(min = 1))]
    pub event_sources: Vec<CrossNamespaceObjectReference>,
    /// Prefix is what the context of each status begins with, such as the name of the cluster or of the environment.
    /// Give each cluster its own, and they never overwrite each other's statuses.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[^\s/]([^\s]*[^\s/])?$"))]
    pub prefix: String,
    /// Aggregate says whether each object has a status of its own ('each'), or all of them have one together ('all').
    #[serde(default)]
    pub aggregate: Aggregate,
    /// AfterSuccess says what becomes of a success when the object fails later at the same commit: 'update' turns it
    /// into a failure, 'keep' leaves the first success.
    #[serde(default)]
    pub after_success: AfterSuccess,
    /// SupersededAs says how a commit is shown that made way for the next one before it was live: as pending, success or
    /// failure. By default in the git host's own word for it: error (GitHub), canceled (GitLab), STOPPED (Bitbucket),
    /// CANCELLED (Bitbucket Server), notApplicable (Azure DevOps), warning (Gitea).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_as: Option<SupersededAs>,
    /// ContextExpr is a CEL expression that evaluates to the context of a status, with the variables event, commitStatus
    /// and provider. It takes the place of prefix, kind, namespace and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub context_expr: Option<String>,
    /// Repositories, if given, are the only ones that statuses are posted to, as paths on the git host such as
    /// 'org/repo'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Suspend tells the controller to post nothing new; what waits is held.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// How statuses come of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// One for each object.
    #[default]
    Each,
    /// One for all of them.
    All,
}

/// What becomes of a success when the object fails later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AfterSuccess {
    /// It follows the object for as long as the commit is its newest.
    #[default]
    Update,
    /// The first success stays.
    Keep,
}

/// How a superseded commit is shown, instead of in the git host's own word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SupersededAs {
    /// As if it were still on its way.
    Pending,
    /// As if nothing were wrong with it.
    Success,
    /// As one that never went live.
    Failure,
}

/// CommitStatusStatus defines the observed state of the CommitStatus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CommitStatusStatus {
    /// Conditions of the CommitStatus: Ready; and Conflict, while another CommitStatus writes the same contexts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// ObservedGeneration is the generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Posted is what was posted last under each context, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub posted: Vec<PostedStatus>,
    /// WithoutCommit names objects whose events carry no commit, so that nothing can be posted of them, as
    /// kind/namespace/name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_commit: Vec<String>,
}

/// PostedStatus is what was posted under a context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostedStatus {
    /// Context of the status.
    pub context: String,
    /// Commit that it is about.
    pub commit: String,
    /// State: pending, success, failure or superseded.
    pub state: String,
    /// Time at which it was posted.
    #[schemars(extend("format" = "date-time"))]
    pub time: String,
}
