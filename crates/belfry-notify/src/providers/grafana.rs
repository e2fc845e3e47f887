//! `grafana`: an annotation.

use belfry_core::notification::Notification;
use belfry_http::{HeaderValue, Request, Url};
use serde::Serialize;

use super::{authorized, post};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Go's zero time, for an event without one.
const ZERO: i64 = -62_135_596_800;

struct Grafana {
    url: Url,
    authorization: Option<HeaderValue>,
}

/// The token goes before user name and password, as with the peer.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let authorization = match resolved.bearer()? {
        Some(bearer) => Some(bearer),
        None => resolved.basic()?,
    };
    Ok(Box::new(Grafana { url: resolved.url()?, authorization }))
}

#[derive(Serialize)]
struct Annotation {
    when: i64,
    text: String,
    tags: Vec<String>,
}

impl Protocol for Grafana {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let tag = |text: &str| text.replace(':', "|");
        let mut tags = vec!["flux".to_owned(), event.reporting_controller.clone()];
        tags.extend(event.metadata.iter().map(|(key, value)| format!("{}: {}", tag(key), tag(value))));
        tags.extend([
            format!("kind: {}", object.kind),
            format!("name: {}", object.name),
            format!("namespace: {}", object.namespace),
        ]);
        let when = event.timestamp.map_or(ZERO, |at| at.as_second());
        let annotation = Annotation { when, text: text::object(event), tags };
        Ok(vec![authorized(post(&self.url, &annotation), self.authorization.as_ref())])
    }
}
