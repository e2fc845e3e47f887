//! `msteams`: an Adaptive Card, or the older MessageCard for Office connectors.

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{Request, Url};
use serde::Serialize;

use super::{is_error, post_bytes};
use crate::{
    Misconfigured,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Hosts of Office connectors, which take the older card.
const CONNECTORS: &str = ".webhook.office.com";
/// Bytes of a message (learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors).
const MESSAGE: usize = 28 * 1024;

struct Teams {
    url: Url,
    connector: bool,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let url = resolved.url()?;
    let connector = url.host_str().is_some_and(|host| host.ends_with(CONNECTORS));
    Ok(Box::new(Teams { url, connector }))
}

impl Protocol for Teams {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let body = text::fit(MESSAGE, &event.message, |message| {
            if self.connector { message_card(event, message) } else { adaptive_card(event, message) }
        });
        Ok(vec![post_bytes(&self.url, body)])
    }
}

#[derive(Serialize)]
struct MessageCard<'a> {
    #[serde(rename = "@type")]
    type_: &'static str,
    #[serde(rename = "@context")]
    context: &'static str,
    #[serde(rename = "themeColor")]
    theme_color: &'static str,
    summary: &'a str,
    sections: [Section<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Section<'a> {
    activity_title: &'a str,
    activity_subtitle: &'a str,
    facts: Vec<NamedFact<'a>>,
}

#[derive(Serialize)]
struct NamedFact<'a> {
    name: &'a str,
    value: &'a str,
}

fn message_card(event: &Event, message: &str) -> Vec<u8> {
    let object = text::object(event);
    let facts = event.metadata.iter().map(|(name, value)| NamedFact { name, value }).collect();
    go_json::to_vec(&MessageCard {
        type_: "MessageCard",
        context: "http://schema.org/extensions",
        theme_color: if is_error(event) { "FF0000" } else { "0076D7" },
        summary: &object,
        sections: [Section { activity_title: message, activity_subtitle: &object, facts }],
    })
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    type_: &'static str,
    attachments: [Attachment<'a>; 1],
}

#[derive(Serialize)]
struct Attachment<'a> {
    #[serde(rename = "contentType")]
    content_type: &'static str,
    content: Card<'a>,
}

#[derive(Serialize)]
struct Card<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    #[serde(rename = "type")]
    type_: &'static str,
    version: &'static str,
    body: [Container<'a>; 1],
    msteams: Width,
}

#[derive(Serialize)]
struct Width {
    width: &'static str,
}

#[derive(Serialize)]
struct Container<'a> {
    #[serde(rename = "type")]
    type_: &'static str,
    items: [Item<'a>; 3],
}

/// A text block or a set of facts; what one doesn't have is left out.
#[derive(Default, Serialize)]
struct Item<'a> {
    #[serde(rename = "type")]
    type_: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    color: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrap: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    facts: Vec<Fact<'a>>,
}

#[derive(Serialize)]
struct Fact<'a> {
    title: &'a str,
    value: &'a str,
}

fn adaptive_card(event: &Event, message: &str) -> Vec<u8> {
    let object = text::object(event);
    let summary = event.metadata.get_key_value("summary");
    let rest = event.metadata.iter().filter(|(key, _)| key.as_str() != "summary");
    let facts = summary.into_iter().chain(rest).map(|(title, value)| Fact { title, value }).collect();
    let text = |text| Item { type_: "TextBlock", text: Some(text), wrap: Some(true), ..Item::default() };
    let items = [
        Item { size: Some("large"), weight: Some("bolder"), ..text(&object) },
        Item { color: is_error(event).then_some("attention"), ..text(message) },
        Item { type_: "FactSet", facts, ..Item::default() },
    ];
    go_json::to_vec(&Message {
        type_: "message",
        attachments: [Attachment {
            content_type: "application/vnd.microsoft.card.adaptive",
            content: Card {
                schema: "http://adaptivecards.io/schemas/adaptive-card.json",
                type_: "AdaptiveCard",
                version: "1.4",
                body: [Container { type_: "Container", items }],
                msteams: Width { width: "Full" },
            },
        }],
    })
}
