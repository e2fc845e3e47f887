//! `googlechat`: a card (of the first generation) to a space's webhook.

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

/// Bytes of a message (developers.google.com, Chat API, `spaces.messages.create`).
const MESSAGE: usize = 32_000;

struct GoogleChat {
    url: Url,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    Ok(Box::new(GoogleChat { url: resolved.url()? }))
}

#[derive(Serialize)]
struct Message<'a> {
    cards: [Card<'a>; 1],
}

#[derive(Serialize)]
struct Card<'a> {
    header: Header<'a>,
    sections: Vec<Section<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    title: String,
    subtitle: &'a str,
    image_url: (),
    image_style: (),
}

#[derive(Serialize)]
struct Section<'a> {
    header: &'static str,
    widgets: Vec<Widget<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Widget<'a> {
    text_paragraph: Option<Paragraph>,
    key_value: Option<KeyValue<'a>>,
}

#[derive(Serialize)]
struct Paragraph {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyValue<'a> {
    top_label: &'a str,
    content: &'a str,
    content_multiline: bool,
    bottom_label: (),
    icon: (),
}

impl Protocol for GoogleChat {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let body = text::fit(MESSAGE, &event.message, |message| card(event, message));
        Ok(vec![post_bytes(&self.url, body)])
    }
}

fn card(event: &Event, message: &str) -> Vec<u8> {
    let text = if is_error(event) { format!("<font color=\"#ff0000\">{message}</font>") } else { message.to_owned() };
    let first = Widget { text_paragraph: Some(Paragraph { text }), key_value: None };
    let mut sections = vec![Section { header: "", widgets: vec![first] }];
    if !event.metadata.is_empty() {
        let pair = |(top_label, content)| Widget {
            text_paragraph: None,
            key_value: Some(KeyValue { top_label, content, content_multiline: false, bottom_label: (), icon: () }),
        };
        let widgets = event.metadata.iter().map(|(key, value)| pair((key.as_str(), value.as_str()))).collect();
        sections.push(Section { header: "", widgets });
    }
    let header =
        Header { title: text::object(event), subtitle: &event.reporting_controller, image_url: (), image_style: () };
    go_json::to_vec(&Message { cards: [Card { header, sections }] })
}
