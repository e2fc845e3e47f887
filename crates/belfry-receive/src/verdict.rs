//! What becomes of a request, and what it is answered.

use std::fmt;

use belfry_api::ReceiverCdEvents;
use http::StatusCode;

use crate::Object;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Verdict {
    /// It is what it says it is: 200, and what it selects is triggered.
    Accepted(Accepted),
    /// It came on the path of a `cdevents` Receiver, which is all the credential that there is. The body has not been
    /// looked at: the caller reads it by these rules, compares `spec.events`, and makes an
    /// [`accepted_cdevent`](crate::accepted_cdevent) of each event that passes.
    CdEvents(ReceiverCdEvents),
    /// It is genuine and triggers nothing: 200. The text says why.
    Ignored(String),
    /// It isn't taken.
    Refused(Refused),
}

/// A request that is taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    /// What the sender calls this delivery, the same when it tries again; unique for one Receiver.
    pub delivery_id: Option<String>,
    /// The sender's name for what happened, such as `push`.
    pub event_type: Option<String>,
    /// What it is about, in a few words for people, where the payload says so in a known place.
    pub subject: Option<String>,
    /// `req` in CEL. Empty unless the Receiver has a filter and the content type is `application/json`.
    pub request: Object,
    /// `claims` in CEL: those of the verified token. `None` for the types that have none, where CEL must not know the
    /// name.
    pub claims: Option<Object>,
}

/// A request that isn't taken. Its text is for the log and for who may read the Receiver; the sender gets the status
/// and no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which kind of refusal it is.
    pub reason: Reason,
    /// Why, in words; it holds nothing of a Secret or of a credential.
    pub why: String,
}

/// Why a request isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The Receiver takes none: suspended, or not configured as it must be.
    NotReady,
    /// The credential is missing or wrong.
    Credential,
    /// The token is signed with a key that isn't among those given. When they come from memory, the caller may fetch
    /// them anew, now and then, and verify once more.
    UnknownKey,
    /// The keys that it takes to tell were not given.
    KeysMissing,
    /// The sender is who it should be, and what it sent can't be read.
    Payload,
}

impl Reason {
    /// What the sender is answered, with an empty body. A wrong credential, a suspended Receiver and a path that
    /// nobody has look alike.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NotReady | Self::Credential | Self::UnknownKey => StatusCode::NOT_FOUND,
            Self::KeysMissing => StatusCode::SERVICE_UNAVAILABLE,
            Self::Payload => StatusCode::BAD_REQUEST,
        }
    }

    /// One word for metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not-ready",
            Self::Credential => "credential",
            Self::UnknownKey => "unknown-key",
            Self::KeysMissing => "keys-missing",
            Self::Payload => "payload",
        }
    }
}

impl Refused {
    pub(crate) fn new(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    pub(crate) fn not_ready(why: impl Into<String>) -> Self {
        Self::new(Reason::NotReady, why)
    }

    pub(crate) fn credential(why: impl Into<String>) -> Self {
        Self::new(Reason::Credential, why)
    }

    /// A refusal of what was sent, after its sender was found to be the right one.
    pub fn payload(why: impl Into<String>) -> Self {
        Self::new(Reason::Payload, why)
    }

    /// The same refusal, its text behind another.
    pub(crate) fn within(self, outer: &str) -> Self {
        Self { why: format!("{outer}{}", self.why), ..self }
    }

    /// What the sender is answered.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}
