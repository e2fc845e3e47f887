//! What a provider type is: two pure functions, or a [`Conversation`].

use belfry_core::notification::{Failure, Notification, Outcome};
use belfry_http::{Request, Response};

use crate::{classify, line::Conversation, secrecy::Secrecy};

/// How a provider type speaks.
pub(crate) enum Speech {
    /// It says what it has to say.
    Plain(Box<dyn Protocol>),
    /// It reads before it writes.
    Conversation(Box<dyn Conversation>),
}

/// The code that speaks one destination's protocol.
pub(crate) trait Protocol: Send + Sync {
    /// The requests that tell a notification, in the order in which they are sent. Each is sent only when the one
    /// before was taken.
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent>;

    /// What the answer to the request number `step` means.
    fn classify(&self, _step: usize, answer: &Response) -> Verdict {
        classify::by_status(answer)
    }

    /// What the lane is to remember once the notification was delivered, or skipped; `None` leaves its memo as it is.
    fn remember(&self, _notification: &Notification) -> Option<Vec<u8>> {
        None
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

impl Unsent {
    /// The outcome, masked.
    pub(crate) fn outcome(self, secrecy: &Secrecy) -> Outcome {
        match self {
            Self::Skip(why) => Outcome::Skipped(why),
            Self::Reject(why) => Outcome::Rejected(Failure::new(secrecy.mask(&why))),
        }
    }
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
    /// Never, nor anything else in this place: it is full.
    Full(String),
}
