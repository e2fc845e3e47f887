//! `zulip`: a message to a topic of a channel.

use belfry_core::notification::Notification;
use belfry_http::{HeaderValue, Request, Url};

use super::authorized;
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Characters of a message by a server's defaults (zulip.com/api/send-message).
const CONTENT: usize = 10_000;
/// Characters of a topic (ibid.).
const TOPIC: usize = 60;

struct Zulip {
    url: Url,
    stream: String,
    topic: String,
    authorization: Option<HeaderValue>,
}

/// Scheme, host and query of the address count; the path is the API's.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    url.set_path("/api/v1/messages");
    url.set_fragment(None);
    let (stream, topic) =
        resolved.channel.split_once('/').filter(|(stream, topic)| !stream.is_empty() && !topic.is_empty()).ok_or_else(
            || Misconfigured::new(Reason::Channel, "spec.channel must be '<channel>/<topic>' for type 'zulip'"),
        )?;
    Ok(Box::new(Zulip { url, stream: stream.to_owned(), topic: topic.to_owned(), authorization: resolved.basic()? }))
}

impl Protocol for Zulip {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let whole = text::markdown(event, &event.message);
        let excess = whole.chars().count().saturating_sub(CONTENT);
        let content = if excess == 0 {
            whole
        } else {
            text::markdown(event, &text::cut(&event.message, event.message.chars().count().saturating_sub(excess)))
        };
        let pairs = [
            ("content", text::cut(&content, CONTENT)),
            ("to", self.stream.as_str().into()),
            ("topic", text::cut(&self.topic, TOPIC)),
            ("type", "stream".into()),
        ];
        let form: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={}", text::query_escape(value))).collect();
        let request = Request::post(self.url.clone(), "application/x-www-form-urlencoded", form.join("&"));
        Ok(vec![authorized(request, self.authorization.as_ref())])
    }
}
