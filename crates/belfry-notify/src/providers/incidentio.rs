//! `incident.io`: an alert that fires with an error and resolves with good news.

use std::collections::BTreeMap;

use belfry_core::notification::Notification;
use belfry_http::{HeaderValue, Request, Url};
use serde::Serialize;

use super::{authorized, is_error, post};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

struct IncidentIo {
    url: Url,
    authorization: HeaderValue,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let authorization = resolved.authorization("Bearer", resolved.required_token()?)?;
    Ok(Box::new(IncidentIo { url: resolved.url()?, authorization }))
}

#[derive(Serialize)]
struct Alert<'a> {
    title: String,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    deduplication_key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
}

impl Protocol for IncidentIo {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        if event.reason == "Progressing" {
            return Err(Unsent::Skip("incident.io isn't told of progress"));
        }
        let mut metadata: BTreeMap<&str, &str> =
            event.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        metadata.extend([("severity", event.severity.as_str()), ("reason", &event.reason)]);
        if !event.reporting_controller.is_empty() {
            metadata.insert("reportingController", &event.reporting_controller);
        }
        let alert = Alert {
            title: format!("{}: {}", text::object(event), event.reason),
            status: if is_error(event) { "firing" } else { "resolved" },
            deduplication_key: &event.involved_object.uid,
            description: &event.message,
            metadata,
        };
        Ok(vec![authorized(post(&self.url, &alert), Some(&self.authorization))])
    }
}
