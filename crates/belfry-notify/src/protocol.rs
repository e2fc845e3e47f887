//! What a provider type is: two pure functions.

use belfry_core::notification::Notification;
use belfry_http::{Request, Response};

use crate::classify;

/// The code that speaks one destination's protocol.
pub(crate) trait Protocol: Send + Sync {
    /// The requests that tell a notification, in the order in which they are sent. Each is sent only when the one
    /// before was taken.
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent>;

    /// What the answer to the request number `step` means.
    fn classify(&self, _step: usize, answer: &Response) -> Verdict {
        classify::by_status(answer)
    }
}

/// Why there is nothing to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// This destination has nothing to do with such an event.
    Skip(&'static str),
    /// No request can tell it, however often it is tried.
    Reject(String),
}

/// What an answer means. The text is what the destination says, not masked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Taken.
    Taken,
    /// Not now.
    Retry(String),
    /// Not until something is mended.
    Misconfigured(String),
    /// Never.
    Rejected(String),
}
