//! `opsgenie`: an alert for every event.

use std::collections::BTreeMap;

use belfry_core::notification::Notification;
use belfry_http::{HeaderValue, Request, Url};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{authorized, post};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

// Characters (docs.opsgenie.com/docs/alert-api, "Create Alert").
const MESSAGE: usize = 130;
const DESCRIPTION: usize = 15_000;

struct Opsgenie {
    url: Url,
    authorization: HeaderValue,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let authorization = resolved.authorization("GenieKey", resolved.required_token()?)?;
    Ok(Box::new(Opsgenie { url: resolved.url()?, authorization }))
}

#[derive(Serialize)]
struct Alert<'a> {
    message: &'a str,
    alias: String,
    description: &'a str,
    details: BTreeMap<&'a str, &'a str>,
}

impl Protocol for Opsgenie {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let message = format!("{}/{}", object.kind, object.name);
        let mut details: BTreeMap<&str, &str> =
            event.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        details.insert("severity", &event.severity);
        let alert = Alert {
            message: &text::cut(&message, MESSAGE),
            alias: alias(notification),
            description: &text::cut(&event.message, DESCRIPTION),
            details,
        };
        Ok(vec![authorized(post(&self.url, &alert), Some(&self.authorization))])
    }
}

/// The same for all events of an object with one reason.
fn alias(notification: &Notification) -> String {
    let object = &notification.event.involved_object;
    let parts =
        [&*notification.provider_uid, &object.kind, &object.namespace, &object.name, &notification.event.reason];
    Sha256::digest(parts.join("/")).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::probe;

    #[test]
    fn aliases_are_the_peers() {
        let of = |namespace: &str, reason: &str| {
            let mut notification = probe("info");
            notification.provider_uid = "test-provider-uid-123".into();
            let object = &mut notification.event.involved_object;
            (object.kind, object.namespace, object.name) = ("GitRepository".into(), namespace.into(), "webapp".into());
            notification.event.reason = reason.into();
            alias(&notification)
        };
        for (namespace, reason, expected) in [
            ("gitops-system", "reason", "fe0de7c3e730984dc8fa97aa4e3564e679cce5c2fa3103734a603115c16f7156"),
            ("gitops-system", "HealthCheckFailed", "133edd63c5f08162ec902d462d4976369517ab0e14325901cbc839b157859a24"),
            ("production", "reason", "581e631f8212b6df5b0e9e175de8f1b47c5c73314865e1ee56173d33551555dd"),
        ] {
            assert_eq!(of(namespace, reason), expected);
        }
    }
}
