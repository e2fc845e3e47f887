//! A line to one destination for the length of one attempt, for providers that must read before they write.

use std::{
    future::Future,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use belfry_core::notification::{Failure, Notification, Outcome};
use belfry_http::{Client, Error, Request, Response};
use tokio::time::{Instant, timeout_at};

use crate::{
    classify,
    protocol::{Unsent, Verdict},
    secrecy::Secrecy,
};

/// A future that borrows.
pub(crate) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A provider that listens before it speaks: what it sends depends on what it is told.
pub(crate) trait Conversation: Send + Sync {
    /// Makes one attempt over this line.
    fn hold<'a>(&'a self, notification: &'a Notification, line: &'a Line<'a>) -> Boxed<'a, Result<(), Stop>>;
}

/// What carries requests: the HTTP client, or a script.
pub(crate) trait Transport: Send + Sync {
    /// Sends a request and reads its answer within `timeout`.
    fn carry<'a>(&'a self, request: &'a Request, timeout: Duration) -> Boxed<'a, Result<Response, Error>>;
}

impl Transport for Client {
    fn carry<'a>(&'a self, request: &'a Request, timeout: Duration) -> Boxed<'a, Result<Response, Error>> {
        Box::pin(self.send(request, timeout))
    }
}

/// Why a conversation ended before its aim. Texts are not masked yet.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is nothing to say.
    Unsent(Unsent),
    /// Something must be mended, and no answer is needed to know.
    Misconfigured(String),
    /// Something else of this provider holds it up.
    Busy(&'static str),
    /// It was taken, and doesn't show.
    Unconfirmed(&'static str),
    /// No answer.
    Unanswered(Error),
    /// An answer that ends it, what it means, and how long the destination asks to be left alone.
    Answered(Box<Response>, Verdict, Option<Duration>),
}

impl From<Unsent> for Stop {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(unsent)
    }
}

/// One attempt's line.
pub(crate) struct Line<'a> {
    transport: &'a dyn Transport,
    deadline: Instant,
    status: Mutex<Option<u16>>,
    learned: Mutex<Vec<String>>,
}

impl<'a> Line<'a> {
    pub(crate) fn new(transport: &'a dyn Transport, deadline: Instant) -> Self {
        Self { transport, deadline, status: Mutex::default(), learned: Mutex::default() }
    }

    /// Sends a request in what is left of the attempt's time.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response, Stop> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let result = self.transport.carry(request, left).await;
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
            result.as_ref().ok().map(|answer| answer.status.as_u16());
        result.map_err(Stop::Unanswered)
    }

    /// Waits for something inside this process, no longer than the attempt may take.
    pub(crate) async fn wait<T>(&self, what: &'static str, future: impl Future<Output = T>) -> Result<T, Stop> {
        timeout_at(self.deadline, future).await.map_err(|_| Stop::Busy(what))
    }

    /// The time of day.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    /// A secret that no Secret holds, learned on the way: from now on it is masked too.
    pub(crate) fn learned(&self, secret: &str) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).push(secret.to_owned());
    }

    /// HTTP status of the last answer.
    pub(crate) fn status(&self) -> Option<u16> {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, masked.
    pub(crate) fn conclude(&self, result: Result<(), Stop>, secrecy: &Secrecy) -> Outcome {
        let learned = std::mem::take(&mut *self.learned.lock().unwrap_or_else(PoisonError::into_inner));
        let secrecy = &secrecy.and(learned);
        match result {
            Ok(()) => Outcome::Delivered,
            Err(Stop::Unsent(unsent)) => unsent.outcome(secrecy),
            Err(Stop::Misconfigured(text)) => Outcome::Misconfigured(Failure::new(secrecy.mask(&text))),
            Err(Stop::Busy(what)) => Outcome::Retry(Failure::new(what)),
            Err(Stop::Unconfirmed(what)) => Outcome::Retry(Failure { unknown: true, ..Failure::new(what) }),
            Err(Stop::Unanswered(error)) => classify::unanswered(&error, secrecy),
            Err(Stop::Answered(answer, verdict, wait)) => {
                let answer = Response { retry_after: wait.or(answer.retry_after), ..*answer };
                classify::answered(&answer, verdict, secrecy)
            }
        }
    }
}
