//! What users and Flux write: the custom resources of `notification.toolkit.fluxcd.io` and the Event that Flux's
//! controllers POST. Types only. This crate knows nothing of what is done with them.

mod commit_status;
mod crds;
mod event;
mod meta;
mod receiver;
mod resources;

pub use commit_status::{
    AfterSuccess, Aggregate, CommitStatus, CommitStatusSpec, CommitStatusStatus, POSTED_CONTEXTS, PostedStatus,
    SupersededAs,
};
pub use crds::{crds, receiver_crd, spec_schema};
pub use event::{Event, ObjectReference};
pub use meta::{Metadata, Resource};
pub use receiver::{
    CdEventsSchema, CdEventsValidation, Condition, DEFAULT_OIDC_AUDIENCE, OIDC_PROVIDERS_MISPLACED,
    OIDC_PROVIDERS_MISSING, OIDC_RECEIVER, OidcProvider, OidcValidation, OidcVariable, RECEIVER_TYPES, Receiver,
    ReceiverCdEvents, ReceiverResource, ReceiverSpec, ReceiverStatus, SECRET_MISPLACED, SECRET_MISSING,
};
pub use resources::{
    Alert, AlertSpec, COMMIT_STATUS_MESSAGE, COMMIT_STATUS_TYPES, CdEventsIncidents, CdEventsKustomizationAs,
    CdEventsMode, CdEventsProfile, CdEventsRule, CdEventsSpec, CommentMode, CrossNamespaceObjectReference,
    EventSeverity, LocalObjectReference, PROVIDER_TYPES, Provider, ProviderSpec, SOURCE_KINDS,
};

/// API group of Belfry's and the peer's custom resources.
pub const GROUP: &str = "notification.toolkit.fluxcd.io";

/// The version of Provider and Alert that is stored in etcd.
pub const STORAGE_VERSION: &str = "v1beta3";

/// Every version of Provider and Alert that was ever published, and the announced `v1`. Their fields are subsets of
/// one schema, so all of them parse as the same types.
pub const VERSIONS: [&str; 4] = ["v1", "v1beta3", "v1beta2", "v1beta1"];

/// Every version of CommitStatus; the first one is stored.
pub const COMMIT_STATUS_VERSIONS: [&str; 2] = ["v1beta1", "v1beta3"];

/// The versions of Receiver, of which the first is stored. The older ones parse as the same type.
pub const RECEIVER_VERSIONS: [&str; 3] = ["v1", "v1beta2", "v1beta1"];
