//! `pagerduty`: an incident that opens with an error and resolves with good news, and a change event with the latter.

use std::collections::BTreeMap;

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{Request, Url};
use serde::Serialize;

use super::{is_error, post};
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Characters of a summary (developer.pagerduty.com/docs/send-alert-event).
const SUMMARY: usize = 1024;

struct PagerDuty {
    events: Url,
    changes: Url,
    routing_key: String,
}

/// Only scheme and host of the address count.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    if resolved.channel.is_empty() {
        let text = "spec.channel is missing: set it to the integration (routing) key of the PagerDuty service";
        return Err(Misconfigured::new(Reason::Channel, text));
    }
    let at = |path: &str| -> Result<Url, Misconfigured> {
        let mut url = resolved.url()?;
        url.set_path(path);
        url.set_query(None);
        url.set_fragment(None);
        Ok(url)
    };
    Ok(Box::new(PagerDuty {
        events: at("/v2/enqueue")?,
        changes: at("/v2/change/enqueue")?,
        routing_key: resolved.channel.to_owned(),
    }))
}

#[derive(Serialize)]
struct AlertEvent<'a> {
    routing_key: &'a str,
    event_action: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    dedup_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<AlertPayload<'a>>,
}

#[derive(Serialize)]
struct AlertPayload<'a> {
    summary: String,
    source: String,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    component: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    custom_details: Details<'a>,
}

#[derive(Serialize)]
struct ChangeEvent<'a> {
    routing_key: &'a str,
    payload: ChangePayload<'a>,
}

#[derive(Serialize)]
struct ChangePayload<'a> {
    summary: String,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    custom_details: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    message: &'a str,
    metadata: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Details<'a> {
    fn of(event: &'a Event) -> Self {
        Self { message: &event.message, metadata: (!event.metadata.is_empty()).then_some(&event.metadata) }
    }
}

impl Protocol for PagerDuty {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        if event.reason == "Progressing" {
            return Err(Unsent::Skip("PagerDuty isn't told of progress"));
        }
        let object = &event.involved_object;
        let summary = text::cut(&text::headline(event), SUMMARY).into_owned();
        let source = format!("Flux {}", event.reporting_controller);
        let timestamp = event.timestamp.map(go_json::seconds);
        let routing_key = self.routing_key.as_str();
        if is_error(event) {
            let payload = AlertPayload {
                summary,
                source,
                severity: "error",
                timestamp,
                component: &object.name,
                group: &object.kind,
                custom_details: Details::of(event),
            };
            let trigger =
                AlertEvent { routing_key, event_action: "trigger", dedup_key: &object.uid, payload: Some(payload) };
            return Ok(vec![post(&self.events, &trigger)]);
        }
        let resolve = AlertEvent { routing_key, event_action: "resolve", dedup_key: &object.uid, payload: None };
        let mut requests = vec![post(&self.events, &resolve)];
        if event.severity == "info" {
            let payload = ChangePayload { summary, source, timestamp, custom_details: Details::of(event) };
            requests.push(post(&self.changes, &ChangeEvent { routing_key, payload }));
        }
        Ok(requests)
    }
}
