//! `sentry`: errors as events, the rest as transactions, each in an envelope. The address is a DSN.

use std::collections::BTreeMap;

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{HeaderName, HeaderValue, Request, USER_AGENT, Url};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::{Resolved, secret_header},
    text,
};

const ENVELOPE: &str = "application/x-sentry-envelope";
const AUTH: HeaderName = HeaderName::from_static("x-sentry-auth");

struct Sentry {
    url: Url,
    auth: HeaderValue,
    environment: String,
}

/// `https://<key>@<host>/<path>/<project>` (develop.sentry.dev/sdk/overview, "Parsing the DSN").
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    let bad = || {
        let text = format!(
            "{} is not a DSN of Sentry: it must be like https://key@host/project",
            resolved.place_of("address")
        );
        Misconfigured::new(Reason::Address, text)
    };
    let key = text::percent_decode(url.username());
    let secret = url.password().map(text::percent_decode);
    let path = url.path().trim_end_matches('/').to_owned();
    let (below, project) = path.rsplit_once('/').filter(|(_, project)| !project.is_empty()).ok_or_else(bad)?;
    if key.is_empty() {
        return Err(bad());
    }
    let mut auth = format!("Sentry sentry_version=7, sentry_client={USER_AGENT}, sentry_key={key}");
    if let Some(secret) = secret {
        auth.push_str(&format!(", sentry_secret={secret}"));
    }
    let auth = secret_header(&auth).ok_or_else(bad)?;
    url.set_path(&format!("{below}/api/{project}/envelope/"));
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    Ok(Box::new(Sentry { url, auth, environment: resolved.channel.to_owned() }))
}

#[derive(Serialize)]
struct Head<'a> {
    event_id: &'a str,
    sdk: Sdk,
}

#[derive(Serialize)]
struct Item {
    #[serde(rename = "type")]
    kind: &'static str,
    length: usize,
}

#[derive(Clone, Copy, Serialize)]
struct Sdk {
    name: &'static str,
    version: &'static str,
}

const SDK: Sdk = Sdk { name: "belfry", version: env!("CARGO_PKG_VERSION") };

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    environment: &'a str,
    event_id: &'a str,
    level: &'a str,
    message: &'a str,
    platform: &'static str,
    sdk: Sdk,
    server_name: &'a str,
    timestamp: &'a str,
    transaction: &'a str,
    contexts: Contexts<'a>,
    #[serde(flatten)]
    rest: Option<Transaction<'a>>,
}

#[derive(Serialize)]
struct Contexts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Trace<'a>>,
}

#[derive(Serialize)]
struct Trace<'a> {
    op: &'static str,
    span_id: &'a str,
    trace_id: &'a str,
}

/// What a transaction has and an error hasn't.
#[derive(Serialize)]
struct Transaction<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    start_timestamp: &'a str,
    spans: [Span<'a>; 1],
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Span<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    op: &'static str,
    start_timestamp: &'a str,
    timestamp: &'a str,
    origin: &'static str,
    tags: BTreeMap<&'a str, &'a str>,
}

/// Metadata goes first, as with the peer: it may not pass for what the event itself says.
fn tags(event: &Event) -> BTreeMap<&str, &str> {
    let object = &event.involved_object;
    let known = [
        ("flux_involved_object_kind", &object.kind),
        ("flux_involved_object_name", &object.name),
        ("flux_involved_object_namespace", &object.namespace),
        ("flux_reason", &event.reason),
        ("flux_reporting_controller", &event.reporting_controller),
        ("flux_reporting_instance", &event.reporting_instance),
    ];
    let metadata = event.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    metadata.chain(known.map(|(key, value)| (key, value.as_str()))).collect()
}

/// Hex digits that are the same for every attempt at a delivery.
fn id(notification: &Notification, what: &str, bytes: usize) -> String {
    let Notification { provider_uid, delivery, .. } = notification;
    let hash = Sha256::digest(format!("{what}:{provider_uid}:{delivery}"));
    hash.iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

impl Protocol for Sentry {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let [event_id, trace_id] = ["event", "trace"].map(|what| id(notification, what, 16));
        let span_id = id(notification, "span", 8);
        let arrived = jiff::Timestamp::from_microsecond(notification.seq.time().0).unwrap_or_default();
        let timestamp = &event.timestamp.unwrap_or(arrived).to_string();
        let (kind, level, rest, contexts) = match event.severity.as_str() {
            "error" => {
                let metadata = Some(&event.metadata).filter(|metadata| !metadata.is_empty());
                ("event", "error", None, Contexts { metadata, trace: None })
            }
            "info" => {
                let (trace_id, span_id, start_timestamp) = (&*trace_id, &*span_id, timestamp.as_str());
                let tags = tags(event);
                let span = Span {
                    trace_id,
                    span_id,
                    op: "event",
                    start_timestamp,
                    timestamp,
                    origin: "manual",
                    tags: tags.clone(),
                };
                let rest = Transaction { kind: "transaction", start_timestamp, spans: [span], tags };
                let trace = Some(Trace { op: "event", span_id, trace_id });
                ("transaction", "info", Some(rest), Contexts { metadata: None, trace })
            }
            // The peer sends an error of its own making.
            _ => return Err(Unsent::Skip("Sentry is told errors and good news, nothing else")),
        };
        let payload = go_json::to_vec(&Payload {
            environment: &self.environment,
            event_id: &event_id,
            level,
            message: &event.message,
            platform: "other",
            sdk: SDK,
            server_name: &event.reporting_controller,
            timestamp,
            transaction: &format!("{}: {}/{}", object.kind, object.namespace, object.name),
            contexts,
            rest,
        });
        let head = go_json::to_vec(&Head { event_id: &event_id, sdk: SDK });
        let item = go_json::to_vec(&Item { kind, length: payload.len() });
        let mut request = Request::post(self.url.clone(), ENVELOPE, [head, item, payload, Vec::new()].join(&b'\n'));
        request.headers.insert(AUTH, self.auth.clone());
        Ok(vec![request])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Case, probe, script::spoken};

    fn request(address: &str, notification: &Notification) -> Request {
        spoken(&Case::new("sentry", address).build().unwrap(), notification).unwrap().remove(0)
    }

    #[test]
    fn a_dsn_is_taken_apart() {
        for (dsn, url, auth) in [
            ("https://key@o1.ingest.sentry.example/42", "https://o1.ingest.sentry.example/api/42/envelope/", "key"),
            ("http://key:old@h:9000/a/b/42/?x=y#z", "http://h:9000/a/b/api/42/envelope/", "key, sentry_secret=old"),
            ("https://k%2Bey@h/42", "https://h/api/42/envelope/", "k+ey"),
        ] {
            let request = request(dsn, &probe("error"));
            assert_eq!(request.url.as_str(), url);
            let expected = format!("Sentry sentry_version=7, sentry_client={USER_AGENT}, sentry_key={auth}");
            assert_eq!(request.headers["x-sentry-auth"], expected);
        }
        for bad in ["https://h/42", "https://key@h", "https://key@h/", "ftp://key@h/42", ""] {
            assert_eq!(Case::new("sentry", bad).build().unwrap_err().reason, Reason::Address, "{bad}");
        }
    }

    #[test]
    fn an_envelope_says_how_long_its_item_is() {
        for severity in ["error", "info"] {
            let body = request("https://key@h/42", &probe(severity)).body;
            let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
            assert_eq!((lines.len(), lines[3].len()), (4, 0), "head, item, payload, and a line's end");
            let item: serde_json::Value = serde_json::from_slice(lines[1]).unwrap();
            assert_eq!(item["length"], lines[2].len());
        }
    }

    #[test]
    fn every_attempt_is_the_same_event_and_every_delivery_another() {
        let body = |delivery| request("https://key@h/42", &Notification { delivery, ..probe("info") }).body;
        assert_eq!(body(1), body(1));
        assert_ne!(body(1), body(2));
    }

    #[test]
    fn metadata_does_not_pass_for_the_event() {
        let mut notification = probe("info");
        notification.event.metadata.insert("flux_reason".into(), "forged".into());
        assert_eq!(tags(&notification.event)["flux_reason"], "HealthCheckFailed");
    }
}
