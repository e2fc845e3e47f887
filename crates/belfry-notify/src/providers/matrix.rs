//! `matrix`: a message in a room, under an id of its own, so that a repeated attempt is the same message.

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{HeaderValue, Method, Request, Url};
use serde::Serialize;
use sha1::{Digest, Sha1};

use super::{authorized, is_error, post_bytes};
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Bytes of the content, so that the event that the server makes of it stays below 65,536
/// (spec.matrix.org/latest/client-server-api/#size-limits).
const CONTENT: usize = 60_000;

struct Matrix {
    /// Up to the transaction's id.
    prefix: String,
    authorization: HeaderValue,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut server = resolved.url()?;
    server.set_query(None);
    server.set_fragment(None);
    if resolved.channel.is_empty() {
        let text = "spec.channel is missing: set it to the id of the room, such as '!abc:matrix.org'";
        return Err(Misconfigured::new(Reason::Channel, text));
    }
    // Only what would end the path is escaped: the peer sends ids as they are.
    let room = resolved.channel.replace('?', "%3F").replace('#', "%23");
    let server = server.as_str().trim_end_matches('/');
    let prefix = format!("{server}/_matrix/client/r0/rooms/{room}/send/m.room.message/");
    let authorization = resolved.authorization("Bearer", resolved.required_token()?)?;
    Ok(Box::new(Matrix { prefix, authorization }))
}

#[derive(Serialize)]
struct Message {
    body: String,
    msgtype: &'static str,
}

impl Protocol for Matrix {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let transaction = transaction(event);
        let url: Url = format!("{}{transaction}", self.prefix)
            .parse()
            .map_err(|_| Unsent::Reject("the room's id doesn't fit into a URL".into()))?;
        let emoji = if is_error(event) { '🚨' } else { '💫' };
        let tail: String = event.metadata.iter().map(|(key, value)| format!("- {key}: {value}\n")).collect();
        let body = text::fit(CONTENT, &event.message, |message| {
            let body = format!("{emoji} {}\n{message}\n{tail}", text::object(event));
            go_json::to_vec(&Message { body, msgtype: "m.text" })
        });
        let request = Request { method: Method::PUT, ..post_bytes(&url, body) };
        Ok(vec![authorized(request, Some(&self.authorization))])
    }
}

/// The id of the event's transaction: SHA-1 of its JSON.
fn transaction(event: &Event) -> String {
    Sha1::digest(go_json::event(event)).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_have_the_peers_ids() {
        let event = Event {
            severity: "info".into(),
            timestamp: "2021-08-24T16:18:00Z".parse().ok(),
            message: "update successful".into(),
            reason: "update sucesful".into(),
            ..Event::default()
        };
        assert_eq!(transaction(&event), "37d91b4f6a1e44c6a38273b0a0fd408fade7b0f5");
    }
}
