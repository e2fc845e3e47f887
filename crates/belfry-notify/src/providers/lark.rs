//! `lark`: an interactive card to a custom bot. Lark answers most errors with status 200 and a code in the body; the peer
//! takes those for success.

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{Request, Response, Url};
use serde::{Deserialize, Serialize};

use super::{is_error, post_bytes};
use crate::{
    Misconfigured, classify,
    protocol::{Protocol, Unsent, Verdict},
    settings::Resolved,
    text,
};

/// Bytes of a request (the usage guide for custom bots on open.larksuite.com).
const REQUEST: usize = 20 * 1024;

struct Lark {
    url: Url,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    Ok(Box::new(Lark { url: resolved.url()? }))
}

#[derive(Serialize)]
struct Message {
    msg_type: &'static str,
    card: Card,
}

#[derive(Serialize)]
struct Card {
    config: Config,
    header: Header,
    elements: [Element; 1],
}

#[derive(Serialize)]
struct Config {
    wide_screen_mode: bool,
}

#[derive(Serialize)]
struct Header {
    title: Text,
    template: &'static str,
}

#[derive(Serialize)]
struct Element {
    tag: &'static str,
    text: Text,
}

#[derive(Serialize)]
struct Text {
    tag: &'static str,
    content: String,
}

impl Protocol for Lark {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let body = text::fit(REQUEST, &event.message, |message| card(event, message));
        Ok(vec![post_bytes(&self.url, body)])
    }

    fn classify(&self, _: usize, answer: &Response) -> Verdict {
        let by_status = classify::by_status(answer);
        if by_status != Verdict::Taken {
            return by_status;
        }
        // What isn't Lark's JSON comes from a relay that has its own way to say yes.
        let Ok(Answer { code }) = serde_json::from_slice(&answer.body) else { return Verdict::Taken };
        let said = classify::said(answer);
        match code {
            0 => Verdict::Taken,
            // too many requests
            9499 | 11232 => Verdict::Retry(said),
            // unknown webhook; signature, address or keyword that the bot's security settings ask for
            19001 | 19021 | 19022 | 19024 => Verdict::Misconfigured(said),
            _ => Verdict::Rejected(said),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    code: i64,
}

fn card(event: &Event, message: &str) -> Vec<u8> {
    let (emoji, template) = if is_error(event) { ('🚨', "red") } else { ('💫', "turquoise") };
    let tail: String = event.metadata.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
    let title = Text { tag: "plain_text", content: format!("{emoji} {}", text::object(event)) };
    let text = Text { tag: "lark_md", content: format!("**{message}**\n\n{tail}") };
    go_json::to_vec(&Message {
        msg_type: "interactive",
        card: Card {
            config: Config { wide_screen_mode: true },
            header: Header { title, template },
            elements: [Element { tag: "div", text }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::answer;

    #[test]
    fn the_code_counts_where_there_is_one() {
        let lark = Lark { url: "https://open.larksuite.com/x".parse().unwrap() };
        let verdict = |status, body: &str| lark.classify(0, &answer(status, body));
        assert_eq!(verdict(200, r#"{"code":0,"msg":"success"}"#), Verdict::Taken);
        assert_eq!(verdict(200, "ok"), Verdict::Taken);
        assert_eq!(verdict(200, r#"{"StatusCode":0}"#), Verdict::Taken);
        assert!(matches!(verdict(200, r#"{"code":19001,"msg":"token invalid"}"#), Verdict::Misconfigured(_)));
        assert!(matches!(verdict(200, r#"{"code":11232,"msg":"slow"}"#), Verdict::Retry(_)));
        assert!(matches!(verdict(200, r#"{"code":19002,"msg":"params"}"#), Verdict::Rejected(_)));
        assert!(matches!(verdict(500, r#"{"code":0}"#), Verdict::Retry(_)));
    }
}
