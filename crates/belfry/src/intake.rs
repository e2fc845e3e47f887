//! The events port: reads, matches in memory, hands over to the store, and answers once that is durable. It knows nothing
//! of notifiers. Every answer is empty: Flux's recorder opens a new connection after each answer that has a body.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::body::Body;
use belfry_core::{
    ObjectKey, event,
    index::Agreement,
    passed::{Passed, Sent},
    plan::{Candidate, Origin},
};
use belfry_store::{Appended, Refused, Store};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    configuration::Configuration,
    environment::Environment,
    metrics::{EventResult, Metrics},
    observer::Observer,
    server::{WholeRequest, empty},
};

/// Events that wait at a time to be taken in, beyond which it is a crowd.
const CROWD: u64 = 16;
/// How long it counts as one afterwards: a commit answers all who wait at once, and they come back a moment later.
const LINGERS: Duration = Duration::from_millis(25);

/// Whether many senders wait for an answer. Shared with the dispatcher, whose deliveries give way to them.
#[derive(Debug)]
pub struct Crowd {
    born: Instant,
    waiting: AtomicU64,
    /// Until when there counts as one that has just broken up, in microseconds of this value.
    until: AtomicU64,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { born: Instant::now(), waiting: AtomicU64::new(0), until: AtomicU64::new(0) }
    }
}

impl Crowd {
    /// Counts one who waits, until what is returned is dropped.
    pub fn join(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waits(self)
    }

    /// Whether there is one, or was a moment ago.
    pub fn is_there(&self) -> bool {
        self.waiting.load(Relaxed) > CROWD || self.until.load(Relaxed) > self.micros(Duration::ZERO)
    }

    fn micros(&self, later: Duration) -> u64 {
        u64::try_from((self.born.elapsed() + later).as_micros()).unwrap_or(u64::MAX)
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Waits<'a>(&'a Crowd);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Relaxed) == CROWD + 1 {
            self.0.until.store(self.0.micros(LINGERS), Relaxed);
        }
    }
}

/// Everything that taking in an event needs.
pub struct Intake {
    /// Where events are kept.
    pub store: Store,
    /// What selects them.
    pub configuration: Arc<Configuration>,
    /// Who is told about an Alert that doesn't work as written.
    pub environment: Arc<dyn Environment>,
    /// Who sees whether an object's status confirms what an event says.
    pub observer: Arc<Observer>,
    /// `--cluster-name`.
    pub cluster: String,
    /// `--rate-limit-interval`, which repeats are told to wait.
    pub repeat_interval: Duration,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who waits.
    pub crowd: Arc<Crowd>,
}

/// Which way an event came in.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// By the events port, which has no authentication.
    Events,
    /// By the API, with a credential.
    Api {
        /// The cluster that the credential is for.
        cluster: &'a str,
        /// The number of the event's id, if it has one.
        identity: Option<u64>,
        /// What the sender says of it beside.
        passed: &'a Passed,
    },
}

/// What became of an event.
#[derive(Debug)]
pub enum Taken {
    /// It is durable.
    Stored,
    /// It is known, and came this way.
    Repeat(Origin),
    /// It isn't one. Says why.
    Invalid(String),
    /// It was here before, and went out to others. Says which way.
    Ring(String),
    /// Not now.
    Busy,
}

impl Intake {
    /// Answers one POST on the events port.
    pub async fn handle(&self, request: WholeRequest) -> Response<Body> {
        let method = request.method().as_str().to_owned();
        let start = Instant::now();
        let observed = self.metrics.event_requests.start();
        let response = match self.take(request, Way::Events).await {
            Taken::Stored => {
                let mut response = empty(StatusCode::ACCEPTED);
                self.limiter_headers(response.headers_mut());
                response
            }
            Taken::Repeat(origin) => self.repeat(origin),
            Taken::Invalid(_) | Taken::Ring(_) => empty(StatusCode::BAD_REQUEST),
            Taken::Busy => busy(),
        };
        observed.finish(&method, response.status(), start.elapsed());
        response
    }

    /// Takes an event in; when this returns, it is durable, or refused.
    pub async fn take(&self, request: WholeRequest, way: Way<'_>) -> Taken {
        if !self.configuration.is_loaded() {
            return Taken::Busy;
        }
        if let Way::Api { passed, .. } = way
            && let Some(ring) = self.ring(passed)
        {
            tracing::warn!(ring, "refused an event");
            self.metrics.count_event(EventResult::Invalid);
            return Taken::Ring(ring);
        }
        // Only `generic` providers name the component, and they pass events on with stripped metadata keys.
        let forwarded = request.headers().contains_key("gotk-component");
        let body = request.into_body();
        let event = match event::read(&body) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, bytes = body.len(), "refused an event");
                self.metrics.count_event(EventResult::Invalid);
                return Taken::Invalid(error.to_string());
            }
        };
        let (cluster, origin) = match way {
            Way::Events if forwarded => (self.cluster.as_str(), Origin::Forwarded),
            Way::Events => (self.cluster.as_str(), Origin::Recorder),
            Way::Api { cluster, passed: Passed { form: Some(form), .. }, .. } => (cluster, *form),
            // Who posts by hand writes plain keys.
            Way::Api { cluster, .. } if forwarded || !event::has_prefixes(&event) => (cluster, Origin::Forwarded),
            Way::Api { cluster, .. } => (cluster, Origin::Recorder),
        };
        let matched = self.configuration.routes(&event, cluster);
        if matched.routes.is_empty() {
            tracing::debug!(
                object = %event::object(&event, ""), reason = event.reason, severity = event.severity,
                "no Alert selects this event; it is stored all the same"
            );
        }
        let mut candidate = event::candidate(&event, origin, cluster, body, matched.routes);
        if let Some(details) = &mut candidate.rollout {
            details.hints = match way {
                // Of another cluster only its own Belfry can tell.
                Way::Api { cluster, passed, .. } if cluster != self.cluster => passed.hints,
                _ => self.configuration.hints(&candidate.object, candidate.revision.as_deref()),
            };
        }
        if let Way::Api { identity: Some(identity), passed, .. } = way {
            candidate.sent = Some(Box::new(Sent { identity, via: passed.via.clone() }));
        }
        // Anybody in a cluster can post to the events port, and the unnamed object has no status that could disagree.
        if matches!(way, Way::Events) && self.configuration.watched().is_some() && candidate.object.kind.is_empty() {
            candidate.rollout.iter_mut().for_each(|details| details.hints.status = Some(Agreement::Neither));
            // Nor may it pass for one that comes with a credential, which would be its repeat.
            (candidate.dedupe, candidate.body_hash) = (!candidate.dedupe, !candidate.body_hash);
        }
        let unconfirmed = unconfirmed(&candidate);
        let appended = {
            let _waits = self.crowd.join();
            self.store.append(candidate).await
        };
        match appended {
            Ok(Appended::Stored { .. }) => {
                if let Some(object) = unconfirmed {
                    self.observer.hurry(object);
                }
                matched.notes.into_iter().for_each(|note| self.environment.announce(note));
                self.metrics.count_event(EventResult::Stored);
                Taken::Stored
            }
            Ok(Appended::Repeat { .. }) => {
                self.metrics.count_event(EventResult::Repeat);
                Taken::Repeat(origin)
            }
            Err(Refused::Invalid(error)) => {
                tracing::warn!(error, "refused an event");
                self.metrics.count_event(EventResult::Invalid);
                Taken::Invalid(error.to_string())
            }
            Err(Refused::Full | Refused::Down(_)) => {
                self.metrics.count_event(EventResult::Refused);
                Taken::Busy
            }
        }
    }

    /// The way of an event that was here before.
    fn ring(&self, passed: &Passed) -> Option<String> {
        let own = self.store.name();
        let from = passed.via.iter().position(|store| store == own)?;
        let way = passed.via[from..].join(" -> ");
        Some(format!(
            "this event was here before, and came back ({way} -> {own}): let the Alerts of those that forward to each other \
             select by cluster"
        ))
    }

    /// A controller takes 429 as "already known" and moves on; a `generic` provider would try again and then complain.
    fn repeat(&self, origin: Origin) -> Response<Body> {
        let status = match origin {
            Origin::Recorder => StatusCode::TOO_MANY_REQUESTS,
            Origin::Forwarded | Origin::Observed => StatusCode::ACCEPTED,
        };
        let mut response = empty(status);
        self.limiter_headers(response.headers_mut());
        if origin == Origin::Recorder {
            let reset = response.headers().get(RESET).cloned();
            reset.map(|reset| response.headers_mut().insert(header::RETRY_AFTER, reset));
        }
        response
    }

    /// The peer's rate limiter sends these with every answer that it had a say in.
    fn limiter_headers(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from_static("1"));
        headers.insert(REMAINING, HeaderValue::from_static("0"));
        if let Some(reset) = http_date(SystemTime::now() + self.repeat_interval) {
            headers.insert(RESET, reset);
        }
    }
}

/// The object, if the event may end a rollout and the object's status doesn't say so yet.
fn unconfirmed(candidate: &Candidate) -> Option<ObjectKey> {
    let status = candidate.rollout.as_ref()?.hints.status?;
    let goes_on = matches!(candidate.reason.as_str(), "Progressing" | "DependencyNotReady");
    let expected = if candidate.severity == "error" { Agreement::Failed } else { Agreement::Ready };
    (!goes_on && status != expected && !candidate.object.kind.is_empty()).then(|| candidate.object.clone())
}

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Senders try again after 503, soon: Flux's recorder sleeps for as long as it is told, with a worker held up.
fn busy() -> Response<Body> {
    let mut response = empty(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn http_date(at: SystemTime) -> Option<HeaderValue> {
    let at = jiff::Timestamp::try_from(at).ok()?;
    HeaderValue::from_str(&at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_more_than_a_few_and_goes_after_they_did() {
        let crowd = Crowd::default();
        let mut few: Vec<_> = (0..CROWD).map(|_| crowd.join()).collect();
        assert!(!crowd.is_there());
        few.push(crowd.join());
        assert!(crowd.is_there());
        few.clear();
        // However long that took: it is over in the end, and what it was is forgotten.
        while crowd.is_there() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(crowd.join());
        assert!(!crowd.is_there());
    }
}
