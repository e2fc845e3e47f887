//! Provider and Alert, as <https://fluxcd.io/flux/components/notification/> documents them. Doc comments become the
//! descriptions in the CRDs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Resource;

/// The values of a Provider's `spec.type`.
pub const PROVIDER_TYPES: &[&str] = &[
    "slack",
    "discord",
    "msteams",
    "rocket",
    "generic",
    "generic-hmac",
    "github",
    "gitlab",
    "gitea",
    "giteapullrequestcomment",
    "bitbucketserver",
    "bitbucket",
    "azuredevops",
    "googlechat",
    "googlepubsub",
    "webex",
    "sentry",
    "azureeventhub",
    "telegram",
    "lark",
    "matrix",
    "opsgenie",
    "alertmanager",
    "grafana",
    "githubdispatch",
    "githubpullrequestcomment",
    "gitlabmergerequestcomment",
    "pagerduty",
    "datadog",
    "nats",
    "zulip",
    "otel",
    "zoom",
    "incident.io",
    // Belfry's own.
    "cdevents",
    "belfry",
];

/// The types that post commit statuses, and so take `spec.commitStatusExpr`.
pub const COMMIT_STATUS_TYPES: &[&str] = &["github", "gitlab", "gitea", "bitbucketserver", "bitbucket", "azuredevops"];

/// What is said of a `spec.commitStatusExpr` on any other type.
pub const COMMIT_STATUS_MESSAGE: &str = "spec.commitStatusExpr is only supported for the 'github', 'gitlab', 'gitea', \
                                         'bitbucketserver', 'bitbucket', 'azuredevops' provider types";

/// The same rule in CEL, for the API server.
const COMMIT_STATUS_RULE: &str = "self.type == 'github' || self.type == 'gitlab' || self.type == 'gitea' || \
                                  self.type == 'bitbucketserver' || self.type == 'bitbucket' || self.type == \
                                  'azuredevops' || !has(self.commitStatusExpr)";

/// The kinds that an Alert's `spec.eventSources` can name.
pub const SOURCE_KINDS: &[&str] = &[
    "Bucket",
    "GitRepository",
    "Kustomization",
    "HelmRelease",
    "HelmChart",
    "HelmRepository",
    "ImageRepository",
    "ImagePolicy",
    "ImageUpdateAutomation",
    "OCIRepository",
    "ArtifactGenerator",
    "ExternalArtifact",
];

/// Where deliveries go.
pub type Provider = Resource<ProviderSpec>;

/// Which events go to which Provider.
pub type Alert = Resource<AlertSpec>;

/// ProviderSpec defines the desired state of the Provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{ "message": COMMIT_STATUS_MESSAGE, "rule": COMMIT_STATUS_RULE }]))]
pub struct ProviderSpec {
    /// Type specifies which Provider implementation to use.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = PROVIDER_TYPES))]
    pub type_: String,
    /// Interval at which to reconcile the Provider with its Secret references. Deprecated and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: Option<String>,
    /// Channel specifies the destination channel where events should be posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub channel: Option<String>,
    /// Username specifies the name under which events are posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub username: Option<String>,
    /// Address specifies the endpoint, in a generic sense, to where alerts are sent. What kind of endpoint depends on
    /// the Provider type: for generic it is an HTTP/S address, for others it can be a project ID or a namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub address: Option<String>,
    /// Timeout for one attempt at sending to the Provider. Defaults to 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$"))]
    pub timeout: Option<String>,
    /// Proxy the HTTP/S address of the proxy server. Deprecated: use proxySecretRef instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^(http|https)://.*$"))]
    pub proxy: Option<String>,
    /// ProxySecretRef names a Secret with the 'address' of an HTTP/S proxy, and optionally its 'username' and
    /// 'password'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<LocalObjectReference>,
    /// SecretRef names the Secret with the credentials for this Provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// ServiceAccountName is the Kubernetes ServiceAccount whose workload identity authenticates with the cloud
    /// provider's services. Needs the feature gate ObjectLevelWorkloadIdentity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// CertSecretRef names a Secret with TLS certificates: 'ca.crt' (replaces the system's roots), 'tls.crt' and
    /// 'tls.key' (client certificate). The older names 'caFile', 'certFile', 'keyFile' still work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalObjectReference>,
    /// Suspend tells the controller to skip new events for this Provider; what already waits is held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// CDEvents says how events become CDEvents. Only for the type cdevents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdevents: Option<CdEventsSpec>,
    /// Comment says how many comments a pull or merge request gets: one for each object ('each', the default), or one with
    /// a table of all objects ('single'). Only for the types githubpullrequestcomment, gitlabmergerequestcomment,
    /// giteapullrequestcomment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<CommentMode>,
    /// CommitStatusExpr is a CEL expression that evaluates to the string used as commit status id, with the variables
    /// event, provider and alert. Only for the types github, gitlab, gitea, bitbucketserver, bitbucket, azuredevops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_status_expr: Option<String>,
}

/// How many comments a pull or merge request gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CommentMode {
    /// One for each object.
    #[default]
    Each,
    /// One with a table of all objects.
    Single,
}

/// CDEventsSpec says how Flux events become CDEvents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CdEventsSpec {
    /// Profile is the mapping: 'rfc' is the table of the Flux RFC, 'pipeline' and 'build' are its alternatives, and
    /// 'delivery' tells of services, test suites, task runs and paired incidents.
    pub profile: CdEventsProfile,
    /// SpecVersion is the version of the CDEvents spec to send: 0.5.1 or 0.4.1.
    #[schemars(extend("enum" = ["0.4.1", "0.5.1"]))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_version: Option<String>,
    /// Mode is how a CloudEvent travels: its attributes as headers ('binary'), or all of it in the body ('structured').
    pub mode: CdEventsMode,
    /// Source is context.source of every event, an absolute URI. Defaults to /flux/<cluster>.
    #[schemars(length(max = 2048))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Environment is the id of the environment of objects whose metadata name none, such as /prod/eu-1. Defaults to
    /// /<cluster>.
    #[schemars(length(max = 2048))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Incidents says, for the profile 'delivery', which failures are incidents: those that hit what is running
    /// ('running'), or failed installs, applies and prunes as well ('all').
    pub incidents: CdEventsIncidents,
    /// KustomizationAs says, for the profile 'delivery', what a Kustomization is: a service, a part of an environment,
    /// or neither.
    pub kustomization_as: CdEventsKustomizationAs,
    /// Sources tells, for the profile 'delivery', of sources and charts too.
    #[serde(skip_serializing_if = "is_false")]
    pub sources: bool,
    /// AssumeMerged tells, for the profile 'delivery', of a GitRepository's new artifact as a merged change.
    #[serde(skip_serializing_if = "is_false")]
    pub assume_merged: bool,
    /// Drift tells, for the profile 'delivery', of detected drift as a custom event.
    #[serde(skip_serializing_if = "is_false")]
    pub drift: bool,
    /// OmitMessages leaves messages out: those of Helm may hold secrets.
    #[serde(skip_serializing_if = "is_false")]
    pub omit_messages: bool,
    /// Rules come before the profile: the first whose condition holds decides what becomes of an event.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<CdEventsRule>,
}

/// CDEventsRule says what becomes of some events: nothing, or a CDEvent of a type and with a content of its own. Its
/// expressions are CEL, with the variables event (as sent to a generic Provider), cluster (the name of its object's
/// cluster) and live (the revision that its object succeeded with last, or an empty string).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CdEventsRule {
    /// When is a CEL expression that evaluates to a bool: whether this rule is for the event.
    #[schemars(length(min = 1, max = 4096))]
    pub when: String,
    /// Drop sends nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drop: bool,
    /// Type is the type of the CDEvent, such as dev.cdevents.service.deployed, with or without a version; or a custom
    /// one, such as dev.cdeventsx.mytool-deployment.approved.0.1.0.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub type_: Option<String>,
    /// Subject is a CEL expression that evaluates to the string subject.id. Defaults to the object as a service:
    /// /<cluster>/<namespace>/<kind>/<name>.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub subject: Option<String>,
    /// Content holds CEL expressions by the field of subject.content that they fill, such as artifactId or
    /// environment.id. A field whose expression evaluates to optional.none() is left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub content: BTreeMap<String, String>,
}

/// The mapping of Flux events to CDEvents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsProfile {
    /// The table of the Flux RFC.
    #[default]
    Rfc,
    /// The same with pipelineRun.finished.
    Pipeline,
    /// The same with build.finished.
    Build,
    /// Services, test suites, task runs and paired incidents.
    Delivery,
}

/// How a CloudEvent travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsMode {
    /// Attributes as headers.
    #[default]
    Binary,
    /// All of it in the body.
    Structured,
}

/// Which failures are incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsIncidents {
    /// Those that hit what is running.
    #[default]
    Running,
    /// All.
    All,
}

/// What a Kustomization is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsKustomizationAs {
    /// A service.
    #[default]
    Service,
    /// A part of an environment.
    Environment,
    /// Neither.
    None,
}

/// AlertSpec defines an alerting rule for events involving a list of objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertSpec {
    /// ProviderRef specifies which Provider this Alert should use.
    pub provider_ref: LocalObjectReference,
    /// EventSeverity specifies how to filter events based on severity. If set to 'info' no events will be filtered.
    #[serde(default)]
    pub event_severity: EventSeverity,
    /// EventSources specifies how to filter events based on the involved object kind, name and namespace.
    pub event_sources: Vec<CrossNamespaceObjectReference>,
    /// InclusionList specifies a list of Golang regular expressions to be used for including messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inclusion_list: Vec<String>,
    /// ExclusionList specifies a list of Golang regular expressions to be used for excluding messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclusion_list: Vec<String>,
    /// EventMetadata is added to the metadata of the events that this Alert sends. Metadata of the emitting controller
    /// wins over it; it wins over the object's event.toolkit.fluxcd.io/ annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub event_metadata: BTreeMap<String, String>,
    /// Summary holds a short description of the impact and affected cluster. Deprecated: use eventMetadata instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub summary: Option<String>,
    /// MaxAge is how old an event may get before it is no longer worth delivering, unless it is the newest of its
    /// object. Defaults to 1h for chats, 24h for incidents and metrics, as long as events are kept for belfry, and 72h for
    /// everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub max_age: Option<String>,
    /// Suspend tells the controller to skip new events for this Alert; what already waits is held.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
}

/// The least severity that an Alert selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventSeverity {
    /// Every event.
    #[default]
    Info,
    /// Only errors.
    Error,
}

/// LocalObjectReference names an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalObjectReference {
    /// Name of the referent.
    pub name: String,
}

/// CrossNamespaceObjectReference selects Flux objects at cluster level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrossNamespaceObjectReference {
    /// API version of the referent; not used to select events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind of the referent.
    #[schemars(extend("enum" = SOURCE_KINDS))]
    pub kind: String,
    /// Name of the referent; '*' selects all.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the referent; defaults to the Alert's own. '*' selects all namespaces when the Alert is in the
    /// controller's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// Cluster that the objects are of: the name of the credential that its events come with, or 'local' for the one whose
    /// objects Belfry itself sees. By default, and with '*', those of every cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub cluster: Option<String>,
    /// MatchLabels selects objects that carry all of these labels. Of other clusters' objects no labels are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

fn is_false(b: &bool) -> bool {
    !*b
}
