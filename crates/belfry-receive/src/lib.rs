//! Receivers: one file a webhook type, each a value that says where the credential is, where the event's type and the
//! delivery's id are, and how the body is read. One harness runs them all, in one order: verify, filter, read.
//!
//! ```text
//! keys(spec, inbound)          -> which public keys the request's token needs, if any (the caller fetches and caches)
//! verify(spec, inbound, given) -> Accepted | CdEvents (the caller checks the body) | Ignored | Refused
//! check_secret(…)             -> what must be mended before the Receiver can be ready
//! path(spec, …)                -> /hook/<digest>
//! ```
//!
//! Values only. This crate must not know the store, Kubernetes, sockets, clocks, or how CEL is evaluated. What stands
//! in a Secret is in a type that can be compared, in constant time, and nothing else; no text made here holds any of
//! it, or a credential that came with a request.

mod check;
mod credential;
mod events;
mod inbound;
mod json;
mod oidc;
mod path;
mod read;
mod registry;
mod signature;
#[cfg(test)]
mod tests;
mod verdict;
mod webhook;
mod webhooks;

use belfry_api::ReceiverSpec;
pub use belfry_core::config::{Problem, receiver::check};
pub use check::{TOKEN_NOT_FOUND, check_secret};
pub use inbound::Inbound;
pub use oidc::{Algorithm, BadDocument, Discovery, KeySource, Keys};
pub use path::{Path, path};
use serde_json::{Map, Value};
pub use verdict::{Accepted, Reason, Refused, Verdict};
pub use webhook::{ClaimsCheck, Given, no_claims};
pub use webhooks::cdevents::accepted as accepted_cdevent;

/// A JSON object: the claims of a token, or a payload.
pub type Object = Map<String, Value>;

/// Whose public keys this request can be verified with; `None` when it takes none. They are the same for all requests
/// with tokens of one issuer, so the caller keeps them.
///
/// # Errors
/// When the request is refused whatever the keys are: nothing is fetched for the sake of such a request.
pub fn keys(spec: &ReceiverSpec, inbound: &Inbound<'_>) -> Result<Option<KeySource>, Refused> {
    webhook::keys(spec, inbound)
}

/// What is to become of a request that came in on this Receiver's path. That its method is POST is the caller's to
/// check, before it looks for the Receiver.
pub fn verify(spec: &ReceiverSpec, inbound: &Inbound<'_>, given: &Given<'_>) -> Verdict {
    webhook::verify(spec, inbound, given).unwrap_or_else(Verdict::Refused)
}

/// Whether this version knows a Receiver's `spec.type`.
pub fn is_supported(receiver_type: &str) -> bool {
    registry::webhook(receiver_type).is_some()
}
