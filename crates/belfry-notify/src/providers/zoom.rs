//! `zoom`: a message to an incoming webhook.

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

struct Zoom {
    url: Url,
    authorization: HeaderValue,
}

/// The address asks for `format=full`, unless it says otherwise.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    if !url.query_pairs().any(|(key, value)| key == "format" && !value.is_empty()) {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(key, _)| key != "format")
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs).append_pair("format", "full");
    }
    let authorization = resolved.authorization("", resolved.required_token()?)?;
    Ok(Box::new(Zoom { url, authorization }))
}

#[derive(Serialize)]
struct Message<'a> {
    content: Content<'a>,
}

#[derive(Serialize)]
struct Content<'a> {
    head: Head<'a>,
    body: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Head<'a> {
    text: String,
    sub_head: SubHead<'a>,
}

#[derive(Serialize)]
struct SubHead<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Item<'a> {
    Message { text: &'a str },
    Fields { items: Vec<Pair<'a>> },
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    value: &'a str,
}

impl Protocol for Zoom {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let mut body = vec![Item::Message { text: &event.message }];
        if !event.metadata.is_empty() {
            body.push(Item::Fields { items: event.metadata.iter().map(|(key, value)| Pair { key, value }).collect() });
        }
        let head = Head { text: text::object(event), sub_head: SubHead { text: &event.severity } };
        let message = Message { content: Content { head, body } };
        Ok(vec![authorized(post(&self.url, &message), Some(&self.authorization))])
    }
}
