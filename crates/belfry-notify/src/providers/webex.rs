//! `webex`: a Markdown message to a room.

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

/// Bytes of the text (developer.webex.com/docs/api/v1/messages/create-a-message).
const MARKDOWN: usize = 7439;

struct Webex {
    url: Url,
    room: String,
    authorization: HeaderValue,
}

/// Without a token nothing is ever taken; the peer finds that out with each message.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let authorization = resolved.authorization("Bearer", resolved.required_token()?)?;
    Ok(Box::new(Webex { url: resolved.url()?, room: resolved.channel.to_owned(), authorization }))
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "roomId")]
    room_id: &'a str,
    markdown: String,
}

impl Protocol for Webex {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let emoji = if is_error(event) { '💣' } else { '✅' };
        let head = format!("{emoji} **{}**\n", text::object(event));
        let tail: String = event.metadata.iter().map(|(key, value)| format!("\n>**{key}**: {value}")).collect();
        let room = MARKDOWN.saturating_sub(head.len() + tail.len() + 1);
        let markdown = format!("{head}{}{tail}\n", text::cut_bytes(&event.message, room));
        let request = post(&self.url, &Message { room_id: &self.room, markdown });
        Ok(vec![authorized(request, Some(&self.authorization))])
    }
}
