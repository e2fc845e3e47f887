//! Notifiers: one file a provider type, each a pure pair of functions. `render` says what to send for a notification,
//! `classify` what an answer means; one harness does the sending, the masking and the timing for all of them, and takes
//! one line in the [`registry`] for each. Git hosts must be read before they are written to: those hold a conversation
//! over the same harness ([`git`]).
//!
//! This crate must not know the store, Kubernetes, or when anything is tried again.

mod classify;
mod git;
mod line;
mod misconfigured;
mod notifier;
mod protocol;
mod providers;
mod registry;
mod secrecy;
mod settings;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use belfry_http::Clients;
pub use git::{
    commit_status::{CommitState, Known, Status, StatusNotifier, SupersededAs},
    context::{context, fit},
    hosts::{Host, Limits},
    repository::{NoRepository, Repository},
};
pub use misconfigured::{Misconfigured, Reason};
pub use notifier::{Attempted, Notifier};
pub use registry::{FLUX_TYPES, age_limit, is_supported};
pub use settings::Settings;

/// The notifier of a Provider with the Secrets of now. Cheap: connections are pooled in `http`, not here.
///
/// # Errors
/// When the Provider or one of its Secrets must be mended first. The text names the Provider, what is wrong, where, and
/// what to do; it never holds a secret value.
pub fn build(settings: &Settings<'_>, http: &Arc<Clients>) -> Result<Notifier, Misconfigured> {
    notifier::build(settings, http).map_err(|error| error.of(settings.provider))
}
