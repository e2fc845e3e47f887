//! The harness that every provider runs in.

use std::{fmt, sync::Arc, time::Duration};

use belfry_core::notification::{Notification, Outcome};
use belfry_http::{Client, Clients, Error, Response};
use tokio::time::Instant;

use crate::{
    Misconfigured, Settings, classify,
    line::Line,
    protocol::{Protocol, Speech},
    registry,
    secrecy::Secrecy,
    settings::Resolved,
};

/// Sends notifications to one Provider, with the settings and Secrets that it was built from.
pub struct Notifier {
    provider_type: &'static str,
    pub(crate) speech: Speech,
    client: Client,
    timeout: Duration,
    pub(crate) secrecy: Secrecy,
}

/// One try at a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status of the last answer, if there was one.
    pub status: Option<u16>,
    /// The destination takes no more of its kind: GitHub has 1000 statuses of the commit and context.
    pub ends_context: bool,
}

impl Attempted {
    fn unanswered(outcome: Outcome) -> Self {
        Self { outcome, status: None, ends_context: false }
    }
}

pub(crate) fn build(settings: &Settings<'_>, http: &Arc<Clients>) -> Result<Notifier, Misconfigured> {
    let entry = registry::entry(&settings.spec.type_)?;
    let resolved = Resolved::new(settings)?;
    let speech = entry.open.speech(&resolved)?;
    let client = resolved.client(http)?;
    Ok(Notifier {
        provider_type: entry.type_,
        speech,
        client,
        timeout: resolved.timeout()?,
        secrecy: Secrecy::of(&resolved),
    })
}

impl Notifier {
    /// The longest that [`Notifier::send`] takes.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The provider type.
    pub fn provider_type(&self) -> &'static str {
        self.provider_type
    }

    /// Makes one attempt. Errors in the outcome are masked.
    pub async fn send(&self, notification: &Notification) -> Attempted {
        let deadline = Instant::now() + self.timeout;
        match &self.speech {
            Speech::Plain(protocol) => self.say(protocol.as_ref(), notification, deadline).await,
            Speech::Conversation(conversation) => {
                let line = Line::new(&self.client, deadline);
                let result = conversation.hold(notification, &line).await;
                Attempted { status: line.status(), outcome: line.conclude(result, &self.secrecy), ends_context: false }
            }
        }
    }

    /// What the lane is to remember once a notification has ended well, if that differs from what it does.
    pub fn remember(&self, notification: &Notification) -> Option<Vec<u8>> {
        match &self.speech {
            Speech::Plain(protocol) => protocol.remember(notification),
            Speech::Conversation(_) => None,
        }
    }

    async fn say(&self, protocol: &dyn Protocol, notification: &Notification, deadline: Instant) -> Attempted {
        let requests = match protocol.render(notification) {
            Ok(requests) => requests,
            Err(unsent) => return Attempted::unanswered(unsent.outcome(&self.secrecy)),
        };
        let mut attempted = Attempted::unanswered(Outcome::Skipped("there is nothing to send for this event"));
        for (step, request) in requests.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            attempted = self.conclude(protocol, step, self.client.send(request, left).await);
            if attempted.outcome != Outcome::Delivered {
                break;
            }
        }
        attempted
    }

    pub(crate) fn conclude(&self, protocol: &dyn Protocol, step: usize, result: Result<Response, Error>) -> Attempted {
        match result {
            Ok(answer) => {
                let verdict = protocol.classify(step, &answer);
                let outcome = classify::answered(&answer, verdict, &self.secrecy);
                Attempted { outcome, status: Some(answer.status.as_u16()), ends_context: false }
            }
            Err(error) => Attempted::unanswered(classify::unanswered(&error, &self.secrecy)),
        }
    }
}

impl fmt::Debug for Notifier {
    /// The type only: the rest is made of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notifier({})", self.provider_type)
    }
}
