//! `quay`: Quay signs nothing; the path is the credential.

use crate::{
    Inbound, json,
    read::{Payload, subject},
    webhook::Webhook,
};

pub(crate) const WEBHOOK: Webhook =
    Webhook { name: "quay", read, unreadable: "cannot decode Quay webhook payload: ", ..Webhook::BASE };

fn read(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let body = json::first_object(inbound.body)?;
    let (url, tags) = (json::text(&body, "docker_url")?, json::texts(&body, "updated_tags")?);
    Ok(Payload { subject: subject(&url, &tags.join(", ")), ..Payload::default() })
}
