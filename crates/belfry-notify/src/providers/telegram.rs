//! `telegram`: a message of a bot. The address is always Telegram's own.

use belfry_core::notification::Notification;
use belfry_http::{Request, Url};
use serde::Serialize;

use super::{is_error, post};
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
    text,
};

/// Telegram's Bot API.
const API: &str = "https://api.telegram.org";
/// Characters of a text, escapes not counted (core.telegram.org/bots/api#sendmessage).
const TEXT: usize = 4096;

struct Telegram {
    url: Url,
    chat: String,
    thread: String,
}

/// The channel is a chat, or a chat and a thread: `-1001:7`.
pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let token = resolved.required_token()?;
    let url = format!("{API}/bot{token}/sendMessage");
    let url = Some(url).filter(|url| !url.contains(|c: char| c.is_control() || c == '?' || c == '#'));
    let url = url.and_then(|url| url.parse().ok()).ok_or_else(|| {
        Misconfigured::new(Reason::Token, "the token is not that of a Telegram bot, which is like '123:abc'")
    })?;
    let (chat, thread) = resolved.channel.split_once(':').unwrap_or((resolved.channel, ""));
    if chat.is_empty() {
        return Err(Misconfigured::new(Reason::Channel, "spec.channel is missing: set it to the id of the chat"));
    }
    Ok(Box::new(Telegram { url, chat: chat.to_owned(), thread: thread.to_owned() }))
}

#[derive(Serialize)]
struct Message<'a> {
    chat_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message_thread_id: &'a str,
    text: String,
    parse_mode: &'static str,
}

impl Protocol for Telegram {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let object = &event.involved_object;
        let emoji = if is_error(event) { '🚨' } else { '💫' };
        let heading = format!("{}/{}/{}", object.kind.to_lowercase(), object.name, object.namespace);
        // "<emoji> <heading>\n", the message, and "\n- <key>: <value>" for each pair
        let pairs = event.metadata.iter().map(|(key, value)| key.chars().count() + value.chars().count() + 5);
        let taken = heading.chars().count() + 4 + pairs.sum::<usize>();
        let message = text::cut(&event.message, TEXT.saturating_sub(taken));
        let tail: String =
            event.metadata.iter().map(|(key, value)| format!("\\- *{}*: {}\n", escape(key), escape(value))).collect();
        let text = format!("*{emoji} {}*\n{}\n{tail}", escape(&heading), escape(&message));
        let message = Message { chat_id: &self.chat, message_thread_id: &self.thread, text, parse_mode: "MarkdownV2" };
        Ok(vec![post(&self.url, &message)])
    }
}

/// A backslash before everything that MarkdownV2 gives a meaning.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len() + 16), |mut out, c| {
        if "\\.-_[]()~`>#+=|{}!*".contains(c) {
            out.push('\\');
        }
        out.push(c);
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_the_peers() {
        assert_eq!(escape(r"a\.b"), r"a\\\.b");
        assert_eq!(escape("a_b-c (d) [e] ~`>#+=|{}!*"), r"a\_b\-c \(d\) \[e\] \~\`\>\#\+\=\|\{\}\!\*");
        assert_eq!(escape("1.2.3"), r"1\.2\.3");
        assert_eq!(escape("plain"), "plain");
    }
}
