//! `datadog`: an event in the event stream.

use belfry_core::notification::Notification;
use belfry_http::{HeaderName, HeaderValue, Request, Url, header};
use serde::Serialize;

use super::{is_error, post};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");
/// Characters of a text (docs.datadoghq.com/api/latest/events/post-an-event).
const TEXT: usize = 4000;
/// Go's zero time, for an event without one.
const ZERO: i64 = -62_135_596_800;

struct Datadog {
    url: Url,
    key: HeaderValue,
}

/// Only scheme and host of the address count.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    url.set_path("/api/v1/events");
    url.set_query(None);
    url.set_fragment(None);
    Ok(Box::new(Datadog { url, key: resolved.authorization("", resolved.required_token()?)? }))
}

#[derive(Serialize)]
struct Entry<'a> {
    alert_type: &'static str,
    date_happened: i64,
    source_type_name: &'static str,
    tags: Vec<String>,
    text: &'a str,
    title: String,
}

impl Protocol for Datadog {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let known = [
            ("flux_reporting_controller", &event.reporting_controller),
            ("flux_reason", &event.reason),
            ("kube_kind", &object.kind),
            ("kube_name", &object.name),
            ("kube_namespace", &object.namespace),
        ];
        let rest = event.metadata.iter().map(|(key, value)| (key.as_str(), value));
        let entry = Entry {
            alert_type: if is_error(event) { "error" } else { "info" },
            date_happened: event.timestamp.map_or(ZERO, |at| at.as_second()),
            source_type_name: "fluxcd",
            tags: known.into_iter().chain(rest).map(|(key, value)| format!("{key}:{value}").to_lowercase()).collect(),
            text: &text::cut(&event.message, TEXT),
            title: format!("Events from the {} {}/{}", object.kind, object.name, object.namespace),
        };
        let mut request = post(&self.url, &entry);
        request.headers.insert(API_KEY, self.key.clone());
        request.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Ok(vec![request])
    }
}
