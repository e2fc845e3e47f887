//! `slack`, and the payload of "incoming webhooks" that others understand too.

use belfry_api::Event;
use belfry_core::notification::Notification;
use belfry_http::{HeaderValue, Request, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::{authorized, is_error, post};
use crate::{
    Misconfigured, classify,
    protocol::{Protocol, Unsent, Verdict},
    settings::Resolved,
    text,
};

/// The method of Slack's Web API that answers errors with status 200.
const POST_MESSAGE: &str = "https://slack.com/api/chat.postMessage";
/// Characters of a text; Slack cuts off what is longer itself (docs.slack.dev/reference/methods/chat.postMessage).
const TEXT: usize = 40_000;

/// A message with one attachment.
#[derive(Serialize)]
pub(crate) struct Payload<'a> {
    pub(crate) channel: &'a str,
    pub(crate) username: &'a str,
    pub(crate) icon_url: &'a str,
    pub(crate) icon_emoji: &'a str,
    pub(crate) attachments: [Attachment; 1],
}

#[derive(Serialize)]
pub(crate) struct Attachment {
    pub(crate) fallback: String,
    pub(crate) color: &'static str,
    pub(crate) author_name: String,
    pub(crate) text: String,
    pub(crate) mrkdwn_in: [&'static str; 1],
    pub(crate) fields: Vec<Field>,
}

#[derive(Serialize)]
pub(crate) struct Field {
    pub(crate) title: String,
    pub(crate) value: String,
    pub(crate) short: bool,
}

impl<'a> Payload<'a> {
    /// The event as an attachment in one of two colours, without a fallback.
    pub(crate) fn new(event: &Event, channel: &'a str, username: &'a str, colors: [&'static str; 2]) -> Self {
        let field =
            |(title, value): (&String, &String)| Field { title: title.clone(), value: value.clone(), short: false };
        let [good, bad] = colors;
        let attachment = Attachment {
            fallback: String::new(),
            color: if is_error(event) { bad } else { good },
            author_name: text::object(event),
            text: event.message.clone(),
            mrkdwn_in: ["text"],
            fields: event.metadata.iter().map(field).collect(),
        };
        Self { channel, username, icon_url: "", icon_emoji: "", attachments: [attachment] }
    }
}

/// The name to post under: the Provider's, or else the controller's.
pub(crate) fn poster<'a>(username: &'a str, event: &'a Event) -> &'a str {
    if username.is_empty() { &event.reporting_controller } else { username }
}

struct Slack {
    url: Url,
    channel: String,
    username: String,
    authorization: Option<HeaderValue>,
    web_api: bool,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    Ok(Box::new(Slack {
        url: resolved.url()?,
        channel: resolved.channel.to_owned(),
        username: resolved.username.to_owned(),
        authorization: resolved.bearer()?,
        web_api: resolved.address == POST_MESSAGE,
    }))
}

impl Protocol for Slack {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let mut payload = Payload::new(event, &self.channel, poster(&self.username, event), ["good", "danger"]);
        for attachment in &mut payload.attachments {
            attachment.fallback = format!("{}: {}", text::object(event), text::first_line(&event.message));
            attachment.text = text::cut(&event.message, TEXT).into_owned();
        }
        Ok(vec![authorized(post(&self.url, &payload), self.authorization.as_ref())])
    }

    fn classify(&self, _: usize, answer: &Response) -> Verdict {
        if self.web_api && answer.status == StatusCode::OK { web_api(answer) } else { classify::by_status(answer) }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    error: String,
}

/// `{"ok":true}`, or an error by its name (docs.slack.dev/reference/methods/chat.postMessage, "Errors").
fn web_api(answer: &Response) -> Verdict {
    let Ok(Answer { ok, error }) = serde_json::from_slice(&answer.body) else {
        return Verdict::Retry(format!("not the JSON of Slack's API: {}", classify::said(answer)));
    };
    let said = format!("Slack responded with error: {error}");
    match error.as_str() {
        _ if ok => Verdict::Taken,
        "ratelimited"
        | "rate_limited"
        | "message_limit_exceeded"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org"
        | "accesslimited" => Verdict::Retry(said),
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_revoked"
        | "token_expired"
        | "no_permission"
        | "missing_scope"
        | "not_allowed_token_type"
        | "access_denied"
        | "ekm_access_denied"
        | "org_login_required"
        | "two_factor_setup_required"
        | "enterprise_is_restricted"
        | "team_access_not_granted"
        | "channel_not_found"
        | "not_in_channel"
        | "is_archived"
        | "restricted_action"
        | "restricted_action_read_only_channel"
        | "restricted_action_non_threadable_channel"
        | "restricted_action_thread_only_channel" => Verdict::Misconfigured(said),
        _ => Verdict::Rejected(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::answer;

    #[test]
    fn the_web_api_is_judged_by_its_body() {
        let verdict = |body: &str| web_api(&answer(200, body));
        assert_eq!(verdict(r#"{"ok":true,"ts":"1"}"#), Verdict::Taken);
        let refused = verdict(r#"{"ok":false,"error":"too_many_attachments"}"#);
        assert_eq!(refused, Verdict::Rejected("Slack responded with error: too_many_attachments".into()));
        assert!(matches!(verdict(r#"{"ok":false,"error":"ratelimited"}"#), Verdict::Retry(_)));
        for error in ["invalid_auth", "not_authed", "channel_not_found", "token_revoked"] {
            let body = format!(r#"{{"ok":false,"error":"{error}"}}"#);
            assert!(matches!(verdict(&body), Verdict::Misconfigured(_)), "{error}");
        }
        assert!(matches!(verdict("<html>"), Verdict::Retry(_)));
    }
}
