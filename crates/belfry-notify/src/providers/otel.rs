//! `otel`: a span for each event, by OTLP over HTTP. All events of one Alert and revision are in one trace.

use belfry_core::notification::Notification;
use belfry_http::{HeaderMap, HeaderValue, Request, Response, Url, header};
use prost::Message;
use sha2::{Digest, Sha256};

use super::is_error;
use crate::{
    Misconfigured,
    classify::{by_status, said},
    protocol::{Protocol, Unsent, Verdict},
    settings::{Resolved, basic, secret_header},
};

const PROTOBUF: &str = "application/x-protobuf";
const TRACES: &str = "/v1/traces";
const SCOPE: &str = "flux:notification-controller";
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.34.0";
/// `SPAN_KIND_INTERNAL`.
const INTERNAL: i32 = 1;
/// Sampled, and it is known that its parent is remote.
const FLAGS: u32 = 0x301;
const OK: i32 = 1;
const ERROR: i32 = 2;

struct Otel {
    url: Url,
    headers: HeaderMap,
}

/// A path in the address is taken as it is; its query is dropped, as with the peer.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    if url.path() == "/" {
        url.set_path(TRACES);
    }
    url.set_query(None);
    url.set_fragment(None);
    let mut headers = resolved.extra_headers()?;
    if !headers.contains_key(header::AUTHORIZATION)
        && let Some(value) = authorization(resolved)?
    {
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(Box::new(Otel { url, headers }))
}

/// User name and password, else the token, or a password alone as one. The peer sends them only when the Secret has
/// additional headers.
fn authorization(resolved: &Resolved<'_>) -> Result<Option<HeaderValue>, Misconfigured> {
    let password = resolved.password.filter(|password| !password.is_empty());
    if let (false, Some(password)) = (resolved.username.is_empty(), password) {
        return Ok(secret_header(&basic(resolved.username, password)));
    }
    match resolved.token()?.or(password) {
        Some(token) => resolved.authorization("Bearer", token).map(Some),
        None => Ok(None),
    }
}

impl Protocol for Otel {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        if notification.event.involved_object.kind == "HelmRepository" {
            return Err(Unsent::Skip("events of a HelmRepository belong to no trace"));
        }
        let export = Export { resource_spans: vec![spans(notification)] };
        let mut request = Request::post(self.url.clone(), PROTOBUF, export.encode_to_vec());
        request.headers.extend(self.headers.clone());
        Ok(vec![request])
    }

    /// A collector that refuses a span says so in an answer of status 200.
    fn classify(&self, _: usize, answer: &Response) -> Verdict {
        let partly = |answer: &Response| Exported::decode(&*answer.body).ok()?.partial_success;
        match by_status(answer) {
            Verdict::Taken => match partly(answer) {
                Some(partly) if partly.rejected_spans > 0 => Verdict::Rejected(partly.error_message),
                _ => Verdict::Taken,
            },
            // An error is a message in Protobuf too.
            verdict if !said(answer).contains(char::REPLACEMENT_CHARACTER) => verdict,
            Verdict::Retry(_) => Verdict::Retry(String::new()),
            Verdict::Misconfigured(_) => Verdict::Misconfigured(String::new()),
            Verdict::Rejected(_) | Verdict::Full(_) => Verdict::Rejected(String::new()),
        }
    }
}

fn spans(notification: &Notification) -> ResourceSpans {
    let Notification { event, alert, alert_uid, .. } = notification;
    let object = &event.involved_object;
    let arrived = u64::try_from(notification.seq.time().0).unwrap_or(0).saturating_mul(1000);
    let happened = event.timestamp.and_then(|at| u64::try_from(at.as_nanosecond()).ok());
    let start = happened.unwrap_or(arrived);
    let known = [
        ("object.uid", &object.uid),
        ("object.kind", &object.kind),
        ("object.name", &object.name),
        ("object.namespace", &object.namespace),
    ];
    let rest = event.metadata.iter().map(|(key, value)| (key.as_str(), value));
    let span = Span {
        trace_id: trace(notification),
        span_id: hash(&[&notification.provider_uid, &notification.delivery.to_string()], 8),
        name: format!("{}: {}/{}", object.kind, object.namespace, object.name),
        kind: INTERNAL,
        start_time_unix_nano: start,
        // The peer ends it when it is sent; this is the same over all attempts.
        end_time_unix_nano: arrived.max(start),
        attributes: known.into_iter().chain(rest).map(|(key, value)| KeyValue::new(key, value)).collect(),
        status: Some(match is_error(event) {
            true => Status { message: event.message.clone(), code: ERROR },
            false => Status { message: String::new(), code: OK },
        }),
        flags: FLAGS,
    };
    let resource = [
        ("service.instance.id", alert_uid.to_string()),
        ("service.name", format!("{}/{}", alert.namespace, alert.name)),
        ("service.namespace", alert.namespace.to_string()),
    ];
    ResourceSpans {
        resource: Some(Resource {
            attributes: resource.iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
        }),
        scope_spans: vec![ScopeSpans { scope: Some(Scope { name: SCOPE.into() }), spans: vec![span] }],
        schema_url: SCHEMA.into(),
    }
}

/// The trace of an Alert and a revision. Without a cluster there are no UIDs: the Alert's name stands in.
fn trace(notification: &Notification) -> Vec<u8> {
    let metadata = &notification.event.metadata;
    let revision = match (metadata.get("app-version"), metadata.get("oci-digest")) {
        (Some(version), Some(digest)) => format!("{version}@{digest}"),
        _ => metadata.get("revision").cloned().unwrap_or_else(|| "unknown".into()),
    };
    let alert = match &*notification.alert_uid {
        "" => format!("{}/{}", notification.alert.namespace, notification.alert.name),
        uid => uid.to_owned(),
    };
    hash(&[&alert, &revision], 16)
}

fn hash(parts: &[&str], bytes: usize) -> Vec<u8> {
    Sha256::digest(parts.join(":")).iter().take(bytes).copied().collect()
}

// opentelemetry.io/docs/specs/otlp, github.com/open-telemetry/opentelemetry-proto: of the messages what is sent.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

impl KeyValue {
    fn new(key: &str, value: &str) -> Self {
        Self { key: key.into(), value: Some(AnyValue { text: Some(value.into()) }) }
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Exported {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<Partly>,
}

#[derive(Clone, PartialEq, Message)]
struct Partly {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// A body for people.
#[cfg(test)]
pub(crate) fn readable(body: &[u8]) -> String {
    format!("{:?}", Export::decode(body).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Case, answer, probe, script::spoken};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_trace_is_an_alert_and_a_revision() {
        let mut notification = probe("info");
        assert_eq!(hex(&trace(&notification)), "258921ad62c2e0ab9b25fb5d287e608d");
        let of = |change: &dyn Fn(&mut Notification)| {
            let mut notification = probe("info");
            change(&mut notification);
            trace(&notification)
        };
        let chart = |n: &mut Notification| {
            n.event.metadata.insert("app-version".into(), "6.5".into());
            n.event.metadata.insert("oci-digest".into(), "sha256:ab".into());
        };
        assert_eq!(of(&chart), hash(&["aaaa-bbbb:6.5@sha256:ab"], 16));
        assert_eq!(of(&|n| n.event.metadata.clear()), hash(&["aaaa-bbbb:unknown"], 16));
        notification.alert_uid = "".into();
        notification.event.metadata.clear();
        assert_eq!(trace(&notification), hash(&["ns/al:unknown"], 16));
    }

    #[test]
    fn every_attempt_is_the_same_span_and_every_delivery_another() {
        let notifier = Case::new("otel", "https://otel.example").build().unwrap();
        let body = |delivery| spoken(&notifier, &Notification { delivery, ..probe("info") }).unwrap().remove(0).body;
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }

    #[test]
    fn credentials_with_and_without_headers() {
        let header = |pairs: &[(&str, &str)]| {
            let notifier = Case::new("otel", "https://otel.example").secret(pairs).build().unwrap();
            let request = spoken(&notifier, &probe("info")).unwrap().remove(0);
            request.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header(&[("headers", "X-A: b")]), None);
        assert_eq!(header(&[("token", "tok")]).unwrap(), "Bearer tok");
        assert_eq!(header(&[("password", "p")]).unwrap(), "Bearer p");
        assert_eq!(header(&[("token", "tok"), ("username", "u"), ("password", "p")]).unwrap(), "Basic dTpw");
        assert_eq!(header(&[("token", "tok"), ("headers", "authorization: mine")]).unwrap(), "mine");
    }

    #[test]
    fn addresses_without_a_path_get_one() {
        let url = |address: &str| {
            let notifier = Case::new("otel", address).build().unwrap();
            spoken(&notifier, &probe("info")).unwrap().remove(0).url.to_string()
        };
        assert_eq!(url("http://otel.example:4318"), "http://otel.example:4318/v1/traces");
        assert_eq!(url("https://otel.example/otlp/v1/traces?a=b#c"), "https://otel.example/otlp/v1/traces");
    }

    #[test]
    fn sources_of_charts_have_no_trace() {
        let mut notification = probe("info");
        notification.event.involved_object.kind = "HelmRepository".into();
        let notifier = Case::new("otel", "https://otel.example").build().unwrap();
        assert!(matches!(spoken(&notifier, &notification), Err(Unsent::Skip(_))));
    }

    #[test]
    fn a_span_that_is_refused_is_no_success() {
        let otel = Otel { url: "https://otel.example".parse().unwrap(), headers: HeaderMap::new() };
        let classify = |status, body: Vec<u8>| otel.classify(0, &Response { body: body.into(), ..answer(status, "") });
        assert_eq!(classify(200, Vec::new()), Verdict::Taken);
        assert_eq!(classify(200, b"{}".into()), Verdict::Taken);
        let partly = |rejected_spans| {
            let partial_success = Some(Partly { rejected_spans, error_message: "too old".into() });
            Exported { partial_success }.encode_to_vec()
        };
        assert_eq!(classify(200, partly(0)), Verdict::Taken);
        assert_eq!(classify(200, partly(1)), Verdict::Rejected("too old".into()));
        assert_eq!(classify(503, b"busy".into()), Verdict::Retry("busy".into()));
        assert_eq!(classify(400, vec![8, 0xff, 0xfe]), Verdict::Rejected(String::new()));
    }
}
