//! One webhook: from the head of its request to the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Body;
use belfry_api::{CdEventsSchema, CdEventsValidation, OIDC_RECEIVER, ReceiverCdEvents};
use belfry_cdevents::{Mode, UnknownSchema, http as cdevents};
use belfry_core::{ObjectKey, config::receiver::Request as FilterRequest, limits};
use belfry_receive::{Accepted, Given, Inbound, KeySource, Keys, Path, Reason, Refused, Verdict, accepted_cdevent};
use belfry_store::{Hook, HookVerdict, TriggerRef};
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts as Head};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Receivers,
    doors::Door,
    select::{Lookup, Selected, needs_index},
};
use crate::{
    dispatcher::now,
    metrics::WebhookLabels,
    server::{Handler, WholeRequest, empty},
};

/// Events of a batch, or objects, that a text names.
const NAMED: usize = 3;

/// The receivers' port.
#[derive(Clone)]
pub struct Port(pub Arc<Receivers>);

impl Handler for Port {
    fn admit(&self, head: &Head) -> Result<(), Box<Response<Body>>> {
        let start = Instant::now();
        let admitted = self.0.doors_for(head).map(drop);
        if let Err(answer) = &admitted {
            let observed = self.0.metrics.receiver_requests.start();
            observed.finish(head.method.as_str(), answer.status(), start.elapsed());
        }
        admitted
    }

    fn unread(&self, head: &Head, answer: StatusCode) {
        let observed = self.0.metrics.receiver_requests.start();
        observed.finish(head.method.as_str(), answer, Duration::ZERO);
        let why = match answer {
            StatusCode::PAYLOAD_TOO_LARGE => format!("the body has more than {} bytes", limits::EVENT_BODY),
            StatusCode::REQUEST_TIMEOUT => "the body took too long".to_owned(),
            StatusCode::SERVICE_UNAVAILABLE => "too many bodies at a time".to_owned(),
            _ => "the body ended early".to_owned(),
        };
        for door in self.0.doors_for(head).into_iter().flatten() {
            self.0.turned_away(&door, "body", &why);
        }
    }

    async fn handle(&self, request: WholeRequest) -> Response<Body> {
        let start = Instant::now();
        let method = request.method().clone();
        let observed = self.0.metrics.receiver_requests.start();
        let response = self.0.answer(request).await;
        observed.finish(method.as_str(), response.status(), start.elapsed());
        response
    }
}

/// What came of a request that is genuine.
#[derive(Debug, Default)]
struct Judged {
    accepted: bool,
    /// What happened, in the sender's words.
    event: String,
    /// What it is about, or why nothing comes of it.
    reason: String,
    delivery_id: Option<String>,
    objects: Vec<ObjectKey>,
    failed: Vec<String>,
    /// Bytes of the body.
    bytes: u64,
}

/// What a door says.
enum Said {
    Judged(Judged),
    Refused(Refused),
    /// It takes the object index, which isn't complete yet.
    NotSynced,
    /// It is genuine, and one too many.
    TooMany(Duration),
}

impl Receivers {
    /// Who may answer a request, by its head alone.
    fn doors_for(&self, head: &Head) -> Result<Vec<Arc<Door>>, Box<Response<Body>>> {
        // Only what came as a path: a proxy's form of a request names a host as well.
        let target = head.uri.path_and_query().filter(|_| head.uri.authority().is_none());
        let target = target.map(|target| target.as_str()).unwrap_or_default();
        if head.method != Method::POST {
            if !target.starts_with("/hook/") {
                return Err(empty(StatusCode::NOT_FOUND).into());
            }
            let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return Err(answer.into());
        }
        let Some(path) = Path::parse(target) else { return Err(empty(StatusCode::NOT_FOUND).into()) };
        let doors = self.doors.load();
        match doors.at(&path) {
            [] if doors.unknown || !doors.built => Err(later(StatusCode::SERVICE_UNAVAILABLE, 5).into()),
            [] => Err(empty(StatusCode::NOT_FOUND).into()),
            open => Ok(open.to_vec()),
        }
    }

    async fn answer(&self, request: WholeRequest) -> Response<Body> {
        let (head, body) = request.into_parts();
        let doors = match self.doors_for(&head) {
            Ok(doors) => doors,
            Err(answer) => return *answer,
        };
        let request = Arc::new((head.headers, body));
        let mut refusal = StatusCode::NOT_FOUND;
        for door in doors {
            match self.ask(&door, &request).await {
                Said::NotSynced => return later(StatusCode::SERVICE_UNAVAILABLE, 5),
                Said::TooMany(wait) => return self.too_many(&door, wait),
                Said::Judged(judged) => return self.conclude(&door, judged).await,
                Said::Refused(refused) if refused.reason == Reason::Payload => {
                    return self.refuse(&door, refused, request.1.len() as u64).await;
                }
                Said::Refused(refused) => {
                    self.turned_away(&door, refused.reason.as_str(), &refused.why);
                    if refused.status() != StatusCode::NOT_FOUND {
                        refusal = refused.status();
                    }
                }
            }
        }
        match refusal {
            StatusCode::SERVICE_UNAVAILABLE => later(refusal, 30),
            status => empty(status),
        }
    }

    /// Notes a request of which it isn't known who sent it.
    fn turned_away(&self, door: &Door, verdict: &'static str, why: &str) {
        self.metrics.count_webhook(labels(door, verdict));
        if let Some(unsaid) = door.entry.refused(now(), why) {
            tracing::warn!(receiver = %door.rule.key, why, unsaid, "refused a webhook");
        }
    }

    async fn ask(&self, door: &Arc<Door>, request: &Arc<(http::HeaderMap, bytes::Bytes)>) -> Said {
        if needs_index(&door.rule) && !self.configuration.is_synced() {
            return Said::NotSynced;
        }
        let inbound = Inbound { headers: &request.0, body: &request.1 };
        let source = match belfry_receive::keys(&door.rule.spec, &inbound) {
            Ok(source) => source,
            Err(refused) => return Said::Refused(refused),
        };
        let keys = match &source {
            None => None,
            Some(KeySource::Issuer(issuer)) if !issuer.starts_with("https://") => {
                let why = "the keys of an issuer are fetched over https only".to_owned();
                return Said::Refused(Refused { reason: Reason::NotReady, why });
            }
            Some(source) => match self.keys.get(source).await {
                Ok(keys) => Some(keys),
                Err(refused) => return Said::Refused(refused),
            },
        };
        let said = self.judge(door, request, keys.clone()).await;
        if let (Said::Refused(Refused { reason: Reason::UnknownKey, .. }), Some(source), Some(keys)) =
            (&said, &source, &keys)
            && let Some(newer) = self.keys.newer(source, keys).await
        {
            return self.judge(door, request, Some(newer)).await;
        }
        said
    }

    /// Verifies and selects, away from what must not wait.
    async fn judge(
        &self,
        door: &Arc<Door>,
        request: &Arc<(http::HeaderMap, bytes::Bytes)>,
        keys: Option<Arc<Keys>>,
    ) -> Said {
        let _turn = self.verifiers.acquire().await;
        let (door, request, configuration) = (door.clone(), request.clone(), self.configuration.clone());
        let (cluster, complete) = (self.cluster.clone(), self.index_is_complete);
        let judged = tokio::task::spawn_blocking(move || {
            let lookup = Lookup { cluster: &cluster, complete, configuration: &configuration };
            let inbound = Inbound { headers: &request.0, body: &request.1 };
            judge(&door, &inbound, keys.as_deref(), &lookup)
        });
        judged.await.unwrap_or_else(|error| {
            tracing::error!(%error, "verifying a webhook ended unexpectedly");
            Said::Refused(Refused { reason: Reason::KeysMissing, why: "verifying it ended unexpectedly".to_owned() })
        })
    }

    /// A genuine request that can't be read.
    async fn refuse(&self, door: &Door, refused: Refused, bytes: u64) -> Response<Body> {
        self.metrics.count_webhook(labels(door, refused.reason.as_str()));
        tracing::warn!(receiver = %door.rule.key, why = %refused, "refused a webhook");
        let reason = refused.why.clone();
        let hook = Hook { verdict: HookVerdict::Refused, reason, bytes, ..blank(door) };
        match self.store.hook(hook).await {
            Ok(_) => empty(refused.status()),
            Err(error) => self.cant_store(door, &error),
        }
    }

    async fn conclude(&self, door: &Door, judged: Judged) -> Response<Body> {
        let failed = !judged.failed.is_empty();
        let mut reason = judged.reason;
        if failed {
            let first: Vec<&str> = judged.failed.iter().take(NAMED).map(String::as_str).collect();
            let more = judged.failed.len().saturating_sub(NAMED);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let about = if reason.is_empty() { "" } else { ": " };
            reason = format!("{reason}{about}{}{more}", first.join("; "));
        }
        let hook = Hook {
            verdict: if judged.accepted { HookVerdict::Accepted } else { HookVerdict::Ignored },
            reason: reason.clone(),
            event: judged.event.clone(),
            bytes: judged.bytes,
            // What failed in part is looked at anew when the sender tries again.
            delivery_id: judged.delivery_id.filter(|_| !failed),
            triggers: judged.objects.into_iter().map(|object| TriggerRef { object }).collect(),
            ..blank(door)
        };
        let hooked = match self.store.hook(hook).await {
            Ok(hooked) => hooked,
            Err(error) => return self.cant_store(door, &error),
        };
        let repeat = hooked.repeat_of.is_some();
        let verdict = match (repeat, failed, judged.accepted) {
            (true, ..) => "repeat",
            (_, true, _) => "failed",
            (_, _, true) => "accepted",
            _ => "ignored",
        };
        self.metrics.count_webhook(labels(door, verdict));
        tracing::info!(
            receiver = %door.rule.key, verdict, event = judged.event, reason,
            triggers = hooked.new, waiting_already = hooked.merged, "took a webhook"
        );
        // As with the peer: the others are reconciled, and the sender's page of deliveries shows that something is wrong.
        empty(if failed && !repeat { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK })
    }

    fn too_many(&self, door: &Door, wait: Duration) -> Response<Body> {
        let why = format!("more than {} webhooks a second", limits::HOOK_RATE);
        self.turned_away(door, "rate-limited", &why);
        later(StatusCode::TOO_MANY_REQUESTS, wait.as_secs() + 1)
    }

    fn cant_store(&self, door: &Door, error: &dyn std::fmt::Display) -> Response<Body> {
        self.turned_away(door, "not-stored", &format!("it could not be stored: {error}"));
        later(StatusCode::SERVICE_UNAVAILABLE, 5)
    }
}

fn blank(door: &Door) -> Hook {
    Hook {
        receiver: door.rule.key.clone(),
        at: now(),
        delivery_id: None,
        verdict: HookVerdict::Ignored,
        reason: String::new(),
        event: String::new(),
        bytes: 0,
        triggers: Vec::new(),
    }
}

fn labels(door: &Door, verdict: &'static str) -> WebhookLabels {
    let key = &door.rule.key;
    WebhookLabels {
        namespace: key.namespace.to_string(),
        receiver: key.name.to_string(),
        r#type: door.rule.spec.type_.clone(),
        verdict,
    }
}

/// An answer that asks to come again.
fn later(status: StatusCode, seconds: u64) -> Response<Body> {
    let mut answer = empty(status);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn judge(door: &Door, inbound: &Inbound<'_>, keys: Option<&Keys>, lookup: &Lookup<'_>) -> Said {
    let (rule, bytes) = (&door.rule, inbound.body.len() as u64);
    let claims = |provider: usize, claims: &belfry_receive::Object| rule.check_claims(provider, claims);
    let given = Given { secret: door.secret.as_deref(), keys, claims: &claims, now: now() };
    let verdict = belfry_receive::verify(&rule.spec, inbound, &given);
    let genuine = !matches!(&verdict, Verdict::Refused(refused) if refused.reason != Reason::Payload);
    // Before anything is made of it: what is counted is what strangers can't send.
    if genuine && let Err(wait) = door.entry.rate.take(now()) {
        return Said::TooMany(wait);
    }
    let (accepted, ignored) = match verdict {
        Verdict::Accepted(accepted) => (vec![accepted], String::new()),
        Verdict::CdEvents(rules) => match cdevents_of(door, inbound, rules) {
            Ok(found) => found,
            Err(refused) => return Said::Refused(refused),
        },
        Verdict::Ignored(why) => return Said::Judged(Judged { reason: why, bytes, ..Judged::default() }),
        Verdict::Refused(refused) => return Said::Refused(refused),
    };
    let mut judged = Judged { accepted: !accepted.is_empty(), reason: ignored, bytes, ..Judged::default() };
    judged.delivery_id = delivery_id(&accepted);
    judged.event = listed(accepted.iter().filter_map(|one| one.event_type.as_deref()));
    if judged.accepted {
        judged.reason = listed(accepted.iter().filter_map(|one| one.subject.as_deref()));
    }
    let mut selected = Selected::default();
    let deadline = Instant::now() + limits::HOOK_FILTERS;
    for one in accepted {
        let request = FilterRequest::new(one.request, one.claims.filter(|_| rule.spec.type_ == OIDC_RECEIVER));
        selected.add(rule, &request, lookup, deadline);
    }
    selected.failed.dedup();
    (judged.objects, judged.failed) = (selected.objects, selected.failed);
    Said::Judged(judged)
}

/// The CDEvents of a request that pass `spec.events`; or why none does.
fn cdevents_of(
    door: &Door,
    inbound: &Inbound<'_>,
    rules: ReceiverCdEvents,
) -> Result<(Vec<Accepted>, String), Refused> {
    let mode = match rules.validation {
        CdEventsValidation::Default => Mode::Default,
        CdEventsValidation::Strict => Mode::Strict,
    };
    let schemas = match rules.unknown_schema {
        CdEventsSchema::Reject => UnknownSchema::Reject,
        CdEventsSchema::Ignore => UnknownSchema::Ignore,
    };
    let events = cdevents::parse(inbound.headers, inbound.body, mode, schemas)
        .map_err(|refused| Refused::payload(format!("not a CDEvent: {refused}")))?;
    let entries = &door.rule.spec.events;
    let (passed, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.passes(entries));
    let why = match others.first() {
        Some(event) => format!("the CDEvent {:?} is not authorised", event.event_type),
        None => "the batch is empty".to_owned(),
    };
    let accepted = passed.into_iter().map(|event| {
        let document = match event.data {
            Value::Object(document) => document,
            _ => belfry_receive::Object::new(),
        };
        accepted_cdevent(&event.source, &event.id, &event.event_type, &event.subject, document)
    });
    Ok((accepted.collect(), why))
}

/// The id of a delivery; that of a batch is made of those in it, if all have one.
fn delivery_id(accepted: &[Accepted]) -> Option<String> {
    match accepted {
        [one] => one.delivery_id.clone(),
        [] => None,
        many => {
            let ids: Option<Vec<&str>> = many.iter().map(|one| one.delivery_id.as_deref()).collect();
            let mut hash = Sha256::new();
            for id in ids? {
                hash.update((id.len() as u64).to_be_bytes());
                hash.update(id.as_bytes());
            }
            let hex: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            Some(format!("batch:{hex}"))
        }
    }
}

/// The first few of different texts.
fn listed<'t>(texts: impl Iterator<Item = &'t str>) -> String {
    let mut different: Vec<&str> = Vec::new();
    for text in texts {
        if !different.contains(&text) && different.len() <= NAMED {
            different.push(text);
        }
    }
    let more = if different.len() > NAMED { ", …" } else { "" };
    different.truncate(NAMED);
    format!("{}{more}", different.join(", "))
}
