//! Receiver, as <https://fluxcd.io/flux/components/notification/receivers/> documents it, and `spec.cdevents`, which is
//! Belfry's own. Doc comments become the descriptions in the CRD.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{LocalObjectReference, Resource, SOURCE_KINDS};

/// The values of a Receiver's `spec.type`.
pub const RECEIVER_TYPES: &[&str] = &[
    "generic",
    "generic-hmac",
    "generic-oidc",
    "github",
    "gitlab",
    "bitbucket",
    "harbor",
    "dockerhub",
    "quay",
    "gcr",
    "nexus",
    "acr",
    "cdevents",
];

/// The type that authenticates with tokens of OpenID Connect providers, and has no Secret.
pub const OIDC_RECEIVER: &str = "generic-oidc";

/// The audience that an OIDC provider without `audience` expects.
pub const DEFAULT_OIDC_AUDIENCE: &str = "notification-controller";

/// What is said of a `generic-oidc` Receiver without providers.
pub const OIDC_PROVIDERS_MISSING: &str = "generic-oidc receivers must define at least one oidcProvider";
/// What is said of providers on any other type.
pub const OIDC_PROVIDERS_MISPLACED: &str = "oidcProviders can only be set when type is generic-oidc";
/// What is said of a `generic-oidc` Receiver with a Secret.
pub const SECRET_MISPLACED: &str = "secretRef cannot be set when type is generic-oidc";
/// What is said of any other type without one.
pub const SECRET_MISSING: &str = "secretRef is required when type is not generic-oidc";

/// The same rules in CEL, for the API server.
const OIDC_PROVIDERS_MISSING_RULE: &str =
    "self.type != 'generic-oidc' || (has(self.oidcProviders) && size(self.oidcProviders) > 0)";
const OIDC_PROVIDERS_MISPLACED_RULE: &str =
    "self.type == 'generic-oidc' || !has(self.oidcProviders) || size(self.oidcProviders) == 0";
const SECRET_MISPLACED_RULE: &str = "self.type != 'generic-oidc' || !has(self.secretRef)";
const SECRET_MISSING_RULE: &str = "self.type == 'generic-oidc' || has(self.secretRef)";

/// What accepts webhooks, and which objects they reconcile.
pub type Receiver = Resource<ReceiverSpec>;

/// ReceiverSpec defines the desired state of the Receiver.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    { "message": OIDC_PROVIDERS_MISSING, "rule": OIDC_PROVIDERS_MISSING_RULE },
    { "message": OIDC_PROVIDERS_MISPLACED, "rule": OIDC_PROVIDERS_MISPLACED_RULE },
    { "message": SECRET_MISPLACED, "rule": SECRET_MISPLACED_RULE },
    { "message": SECRET_MISSING, "rule": SECRET_MISSING_RULE },
]))]
pub struct ReceiverSpec {
    /// Type of webhook sender: decides how a request is verified and how its payload is read.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = RECEIVER_TYPES))]
    pub type_: String,
    /// Interval at which to reconcile the Receiver with its Secret references.
    #[serde(default = "default_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    pub interval: String,
    /// Events specifies the list of event types to handle, such as 'push' for GitHub or 'Push Hook' for GitLab. Other
    /// types are answered 200 and trigger nothing. Empty means all. Only for the types github, gitlab, bitbucket and
    /// cdevents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Resources lists the objects that a webhook reconciles.
    pub resources: Vec<ReceiverResource>,
    /// ResourceFilter is a CEL expression that returns a boolean, evaluated for each of the resources when a webhook
    /// comes; a resource for which it is false is not reconciled. It reads the resource's metadata as 'res', the
    /// request's JSON body as 'req', and for generic-oidc the verified token's claims as 'claims'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_filter: Option<String>,
    /// SecretRef names the Secret whose 'token' verifies the sender and is part of the webhook's path. For gcr it also
    /// needs 'email', the service account of the Pub/Sub push subscription, and 'audience', which its tokens are for.
    /// Required for all types except generic-oidc, which must not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// OIDCProviders lists whose tokens a generic-oidc Receiver takes. The one whose issuerURL is the token's 'iss'
    /// verifies signature, expiry and audience, and its validations are evaluated over the claims.
    #[serde(rename = "oidcProviders", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["issuerURL"]))]
    pub oidc_providers: Vec<OidcProvider>,
    /// CDEvents says how closely a cdevents Receiver looks at what it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cdevents: Option<ReceiverCdEvents>,
    /// Suspend tells the controller to answer this Receiver's webhooks as if it didn't exist.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
}

/// ReceiverResource selects objects to reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverResource {
    /// API version of the referent. May be left out for Bucket, HelmChart, HelmRepository, GitRepository,
    /// OCIRepository, ImageRepository and ArtifactGenerator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind of the referent.
    #[schemars(extend("enum" = SOURCE_KINDS))]
    pub kind: String,
    /// Name of the referent; '*' selects all that carry matchLabels.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the referent; defaults to the Receiver's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub namespace: Option<String>,
    /// MatchLabels are the labels that objects must carry when the name is '*', which needs at least one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Filter is a CEL expression like resourceFilter, for the objects of this entry. An object is reconciled only if
    /// both, where set, are true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

/// OIDCProvider is an issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcProvider {
    /// IssuerURL is where the provider's discovery document is found. It must equal the tokens' 'iss' to the letter.
    #[serde(rename = "issuerURL")]
    #[schemars(regex(pattern = "^https?://"))]
    pub issuer_url: String,
    /// Audience that the tokens must be for ('aud'). Defaults to 'notification-controller'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Variables are named CEL expressions over 'claims', evaluated in order. Later ones and the validations read them
    /// as members of 'vars'.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<OidcVariable>,
    /// Validations are CEL expressions over 'claims' and 'vars' that return a boolean; the request is accepted if all
    /// are true. At least one is required: a public issuer gives tokens to anybody, so a good signature alone
    /// authorizes nobody.
    #[schemars(length(min = 1))]
    pub validations: Vec<OidcValidation>,
}

impl OidcProvider {
    /// The audience that tokens must be for.
    pub fn audience(&self) -> &str {
        self.audience.as_deref().filter(|audience| !audience.is_empty()).unwrap_or(DEFAULT_OIDC_AUDIENCE)
    }
}

/// OIDCVariable is a named CEL expression over a token's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OidcVariable {
    /// Name of the variable; a CEL identifier.
    pub name: String,
    /// Expression is the CEL expression that defines its value.
    pub expression: String,
}

/// OIDCValidation is a CEL expression that a token's claims must fulfil.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OidcValidation {
    /// Expression is the CEL expression; it returns a boolean.
    pub expression: String,
    /// Message is what the log says when it is false.
    pub message: String,
}

/// ReceiverCDEvents says how closely CDEvents are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverCdEvents {
    /// Validation: 'default' accepts what Flux accepts and more, 'strict' only what follows the specification to the
    /// letter.
    pub validation: CdEventsValidation,
    /// UnknownSchema says what becomes of an event that names a 'schemaUri', which is never fetched: 'reject', or
    /// 'ignore' the schema and check the rest.
    pub unknown_schema: CdEventsSchema,
}

/// How closely CDEvents are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsValidation {
    /// What Flux accepts, and more.
    #[default]
    Default,
    /// The specification to the letter.
    Strict,
}

/// What becomes of a CDEvent that names a schema of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdEventsSchema {
    /// It is refused.
    #[default]
    Reject,
    /// Its schema isn't looked at.
    Ignore,
}

/// ReceiverStatus defines the observed state of the Receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiverStatus {
    /// Conditions of the Receiver: Ready, and while there is a reason for them Reconciling and Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// WebhookPath is the path that webhooks are sent to: '/hook/' and the SHA-256 of token, name and namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_path: Option<String>,
    /// ObservedGeneration is the generation of the spec that the conditions are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// LastHandledReconcileAt is the value of the annotation reconcile.fluxcd.io/requestedAt that was acted upon last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// Condition is one aspect of an object's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Type of the condition in CamelCase, such as Ready.
    #[serde(rename = "type")]
    #[schemars(
        length(max = 316),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
        )
    )]
    pub type_: String,
    /// Status of the condition: True, False or Unknown.
    #[schemars(extend("enum" = ["True", "False", "Unknown"]))]
    pub status: String,
    /// ObservedGeneration is the generation of the spec that this condition is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// LastTransitionTime is when the status last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Reason of the last change in CamelCase.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"))]
    pub reason: String,
    /// Message with the details.
    #[schemars(length(max = 32768))]
    pub message: String,
}

fn default_interval() -> String {
    "10m".to_owned()
}

fn is_false(b: &bool) -> bool {
    !*b
}
