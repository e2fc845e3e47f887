//! What a Flux event becomes: CDEvents, by the profile that a Provider chose. Everything that depends on state or on the
//! cluster is a parameter, so that every replica and every attempt comes to the same events with the same ids.

mod delivery;
mod document;
pub mod identity;
mod options;
pub mod purl;
mod rfc;
mod story;

use belfry_api::Event;
use belfry_core::{
    ObjectKey,
    plan::{Change, Origin},
};
use jiff::Timestamp;
pub use options::{Incidents, KustomizationAs, Options, Profile, Version};
use serde_json::Value;
use story::Story;

use crate::{Invalid, mapping::document::Draft, mapping::purl::Source};

/// A Flux event, as it stands in the log or as it comes to a notifier.
#[derive(Clone, Copy, Debug)]
pub struct Reported<'a> {
    /// The event.
    pub event: &'a Event,
    /// The form of its metadata. What [`belfry_core::event::combine`] made has the form of [`Origin::Forwarded`].
    pub origin: Origin,
    /// What it is about.
    pub object: &'a ObjectKey,
    /// What the fold says it changed.
    pub change: Option<Change>,
    /// When it arrived: the time of events that name none.
    pub arrived: Timestamp,
}

/// What is known beside the event. The default is nothing, which is enough for valid CDEvents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The revision that the object last succeeded with before this event; `None` when it never has.
    pub live: Option<&'a str>,
    /// The object's incident that is open.
    pub incident: Option<&'a str>,
    /// Where the object's revisions come from.
    pub source: Option<Source<'a>>,
    /// The commit that this is about, where the event doesn't tell: of a HelmRelease, that of its Kustomization.
    pub commit: Option<Commit<'a>>,
    /// The chain that this belongs to, where it isn't the revision's own: the one of a CDEvent that triggered it, or,
    /// of a rollback, the one of the attempt that is rolled back.
    pub chain: Option<&'a str>,
    /// `context.id` of the CDEvent that triggered the object.
    pub cause: Option<&'a str>,
    /// `context.id` of the CDEvent sent before about the same object.
    pub previous: Option<&'a str>,
    /// Test hooks of a HelmRelease, from its history.
    pub tests: &'a [TestCase<'a>],
}

/// A commit of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit<'a> {
    /// URL of the repository, if known.
    pub repository: Option<&'a str>,
    /// Its hash.
    pub sha: &'a str,
}

/// One test hook and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestCase<'a> {
    /// Name of the hook.
    pub name: &'a str,
    /// It passed.
    pub passed: bool,
}

/// What becomes of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapped {
    /// What is to be sent, in this order.
    pub events: Vec<Emission>,
    /// What becomes of the object's incident once these are delivered.
    pub incident: Option<IncidentChange>,
    /// Why nothing is to be sent; set exactly when `events` is empty.
    pub skipped: Option<&'static str>,
}

/// What becomes of an object's incident. Of the profiles only `delivery` tells others that one is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentChange {
    /// One begins: its id, to be given as [`Facts::incident`] until it is closed.
    Opened(String),
    /// The one that was open is over.
    Closed,
}

/// A CDEvent to be sent: valid in the version of the spec that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Emission {
    /// `context.id`.
    pub id: String,
    /// `context.type`.
    pub event_type: String,
    /// The document; [`crate::http::request`] makes a request of it.
    pub document: Value,
}

/// What a rule of a user's own asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Custom {
    /// The type: `dev.cdevents.<subject>.<predicate>`, with or without a version, or a `dev.cdeventsx.` one.
    pub event_type: String,
    /// `subject.id`; that of the object's service when absent.
    pub subject: Option<String>,
    /// `subject.content`.
    pub content: Value,
}

/// An event that can't be sent as it would have to be: what a user configured doesn't fit the spec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmappable {
    /// There is no such type in the version of the spec that was asked for.
    #[error("CDEvents {version} has no type {event_type:?}")]
    NoSuchType {
        /// The type.
        event_type: String,
        /// The version.
        version: &'static str,
    },
    /// The document would be invalid.
    #[error("{event_type} would be invalid: {invalid}")]
    Invalid {
        /// The type.
        event_type: String,
        /// Why.
        invalid: Invalid,
    },
}

/// What an event becomes by the profile of the options.
///
/// # Errors
/// When the options, such as their source, make invalid documents.
pub fn map(reported: &Reported<'_>, facts: &Facts<'_>, options: &Options) -> Result<Mapped, Unmappable> {
    let story = Story::new(reported, facts, options);
    let told = match options.profile {
        Profile::Delivery => delivery::tell(&story),
        Profile::Rfc | Profile::Pipeline | Profile::Build => rfc::tell(&story),
    };
    match told {
        Ok(told) => {
            let events =
                told.drafts.into_iter().map(|draft| document::finish(&story, draft)).collect::<Result<_, _>>()?;
            Ok(Mapped { events, incident: told.incident, skipped: None })
        }
        Err(Skip { reason, incident }) => Ok(Mapped { skipped: Some(reason), incident, ..Mapped::default() }),
    }
}

/// The type that a user's rule names, with its version.
///
/// # Errors
/// When that version of the spec has no such type.
pub fn custom_type(event_type: &str, version: Version) -> Result<String, Unmappable> {
    document::full_type(event_type, version)
}

/// What a user's rule makes of an event.
///
/// # Errors
/// When the spec has no such type, or the content isn't one of that type.
pub fn custom(
    reported: &Reported<'_>,
    facts: &Facts<'_>,
    options: &Options,
    custom: Custom,
) -> Result<Emission, Unmappable> {
    let story = Story::new(reported, facts, options);
    document::finish_custom(&story, custom)
}

/// What a profile makes of an event.
#[derive(Default)]
struct Told {
    drafts: Vec<Draft>,
    incident: Option<IncidentChange>,
}

impl From<Draft> for Told {
    fn from(draft: Draft) -> Self {
        Self { drafts: vec![draft], incident: None }
    }
}

/// Why a profile makes nothing of it.
struct Skip {
    reason: &'static str,
    incident: Option<IncidentChange>,
}

impl From<&'static str> for Skip {
    fn from(reason: &'static str) -> Self {
        Self { reason, incident: None }
    }
}
