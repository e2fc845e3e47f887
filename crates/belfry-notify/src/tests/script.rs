//! Conversations without a network: a transport that answers from a script, and both kinds of providers looked at alike.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use belfry_core::notification::Notification;
use belfry_http::{Error, Method, Request, Response};

use super::{answer, probe_for};
use crate::{
    Attempted, Notifier,
    line::{Boxed, Conversation, Line, Stop, Transport},
    protocol::{Speech, Unsent},
};

type Answer<'a> = Box<dyn Fn(usize, &Request) -> Result<Response, Error> + Send + Sync + 'a>;

/// Answers the requests of a conversation, and keeps them.
pub(crate) struct Script<'a> {
    answer: Answer<'a>,
    sent: Mutex<Vec<Request>>,
}

impl<'a> Script<'a> {
    pub(crate) fn new(answer: impl Fn(usize, &Request) -> Result<Response, Error> + Send + Sync + 'a) -> Self {
        Self { answer: Box::new(answer), sent: Mutex::default() }
    }

    pub(crate) fn sent(self) -> Vec<Request> {
        self.sent.into_inner().unwrap()
    }
}

impl Transport for Script<'_> {
    fn carry<'a>(&'a self, request: &'a Request, _: Duration) -> Boxed<'a, Result<Response, Error>> {
        let mut sent = self.sent.lock().unwrap();
        sent.push(request.clone());
        let answer = (self.answer)(sent.len() - 1, request);
        Box::pin(async { answer })
    }
}

/// A host that takes everything, and where nothing is there yet.
pub(crate) fn polite(request: &Request) -> Response {
    let path = request.url.path();
    let posts = request.method != Method::GET;
    match () {
        () if posts && path.ends_with("/access_tokens") => answer(201, r#"{"token":"ghs_installation-0123"}"#),
        () if posts => answer(201, r#"{"id":7}"#),
        () if path.ends_with("/installation") => answer(200, r#"{"id":9}"#),
        () if path.ends_with("/app") => answer(200, r#"{"slug":"ringer"}"#),
        () if path.ends_with("/user") => answer(200, r#"{"login":"me","username":"me"}"#),
        () if path.contains("/builds") || path.contains("/statuses/build/") => answer(404, ""),
        () if path.contains("/_apis/") => answer(200, r#"{"count":0,"value":[]}"#),
        () => answer(200, "[]"),
    }
}

/// Holds a conversation with a script.
pub(crate) fn hold(
    conversation: &dyn Conversation,
    notification: &Notification,
    script: &Script<'_>,
) -> Result<(), Stop> {
    run(async { conversation.hold(notification, &Line::new(script, deadline())).await })
}

fn deadline() -> tokio::time::Instant {
    (Instant::now() + Duration::from_secs(15)).into()
}

/// Runs to the end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// All requests that a notification gives rise to when each is taken.
pub(crate) fn spoken(notifier: &Notifier, notification: &Notification) -> Result<Vec<Request>, Unsent> {
    match &notifier.speech {
        Speech::Plain(protocol) => protocol.render(notification),
        Speech::Conversation(conversation) => {
            let script = Script::new(|_, request| Ok(polite(request)));
            match hold(conversation.as_ref(), notification, &script) {
                Ok(()) => Ok(script.sent()),
                Err(Stop::Unsent(unsent)) => Err(unsent),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

/// What comes of an attempt whose request number `step` ends like this.
pub(crate) fn concluded(notifier: &Notifier, step: usize, result: Result<Response, Error>) -> Attempted {
    match &notifier.speech {
        Speech::Plain(protocol) => notifier.conclude(protocol.as_ref(), step, result),
        Speech::Conversation(conversation) => {
            let script = Script::new(|at, request| if at == step { result.clone() } else { Ok(polite(request)) });
            run(async {
                let line = Line::new(&script, deadline());
                let result = conversation.hold(&probe_for(notifier.provider_type(), "error"), &line).await;
                Attempted {
                    outcome: line.conclude(result, &notifier.secrecy),
                    status: line.status(),
                    ends_context: false,
                }
            })
        }
    }
}
