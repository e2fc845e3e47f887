//! What is read of a body.

use http::header::CONTENT_TYPE;
use ring::digest::{SHA256, digest};

use crate::{Inbound, Object, inbound::plain, json};

/// What a webhook type read of a body.
#[derive(Default)]
pub(crate) struct Payload {
    /// The delivery's id, where the body holds it.
    pub(crate) delivery_id: Option<String>,
    /// What happened, where no header says so.
    pub(crate) event_type: Option<String>,
    /// What it is about, for people.
    pub(crate) subject: Option<String>,
    /// What stands for the body from here on, where that isn't the body itself.
    pub(crate) replaced: Option<Object>,
}

/// The body is nobody's business but the filters'.
pub(crate) fn unread(_: &Inbound<'_>) -> Result<Payload, String> {
    Ok(Payload::default())
}

/// A body that is JSON, or a form with JSON in it: GitHub sends either, and others do as GitHub does. What the JSON
/// says is not looked at.
pub(crate) fn json_or_form(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let content_type = inbound.text(CONTENT_TYPE.as_str()).unwrap_or_default();
    match json::media_type(&content_type).as_deref() {
        Some("application/json" | "application/x-www-form-urlencoded") => Ok(Payload::default()),
        Some(other) => Err(format!("webhook request has unsupported Content-Type {other:?}")),
        None => Err("webhook request has no Content-Type that can be read".to_owned()),
    }
}

/// Tells bodies apart.
pub(crate) fn fingerprint(body: &[u8]) -> String {
    digest(&SHA256, body).as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Words for something that has a name and perhaps a tag.
pub(crate) fn subject(name: &str, tag: &str) -> Option<String> {
    match (name, tag) {
        ("", "") => None,
        (name, "") => Some(plain(name)),
        ("", tag) => Some(format!("tag {}", plain(tag))),
        (name, tag) => Some(format!("{} for tag {}", plain(name), plain(tag))),
    }
}
