//! `alertmanager`: an alert that fires, for every event.

use std::collections::BTreeMap;

use belfry_core::{go_json, notification::Notification};
use belfry_http::{HeaderValue, Request, Url};
use serde::Serialize;

use super::{authorized, post};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
};

/// Go's zero time, which Alertmanager takes for "not set".
const ZERO: &str = "0001-01-01T00:00:00Z";

struct Alertmanager {
    url: Url,
    authorization: Option<HeaderValue>,
}

/// User name and password go before the token, as with the peer.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let bearer = resolved.bearer()?;
    let authorization = match resolved.basic() {
        Ok(basic) => basic.or(bearer),
        Err(half) => Some(bearer.ok_or(half)?),
    };
    Ok(Box::new(Alertmanager { url: resolved.url()?, authorization }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'static str, &'a str>,
    starts_at: String,
    ends_at: &'static str,
}

impl Protocol for Alertmanager {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let name = format!("Flux{}{}", object.kind, titled(&event.reason));
        let mut labels: BTreeMap<&str, &str> =
            event.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let summary = labels.remove("summary");
        labels.extend([
            ("alertname", name.as_str()),
            ("kind", &object.kind),
            ("name", &object.name),
            ("namespace", &object.namespace),
            ("reason", &event.reason),
            ("reportingcontroller", &event.reporting_controller),
            ("severity", &event.severity),
        ]);
        let annotations =
            [("message", event.message.as_str())].into_iter().chain(summary.map(|text| ("summary", text))).collect();
        let starts_at = event.timestamp.map_or_else(|| ZERO.to_owned(), go_json::seconds);
        let alert = Alert { status: "firing", labels, annotations, starts_at, ends_at: ZERO };
        Ok(vec![authorized(post(&self.url, &[alert]), self.authorization.as_ref())])
    }
}

/// Title case as the peer has it: each word's first letter in upper case and all others in lower case, so that a
/// CamelCase reason is one word. `_`, `.`, `:` and `'` don't end a word.
fn titled(reason: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(reason.len());
    for c in reason.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || (inside && matches!(c, '_' | '.' | ':' | '\''));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camel_case_reason_is_one_word() {
        for (reason, title) in [
            ("HealthCheckFailed", "Healthcheckfailed"),
            ("Progressing", "Progressing"),
            ("info", "Info"),
            ("event-happened", "Event-Happened"),
            ("InstallFailed_x", "Installfailed_x"),
            ("", ""),
        ] {
            assert_eq!(titled(reason), title);
        }
    }
}
