//! `acr`: Azure Container Registry. It signs nothing; the path is the credential.

use crate::{
    Inbound, json,
    read::{Payload, subject},
    webhook::Webhook,
};

pub(crate) const WEBHOOK: Webhook =
    Webhook { name: "acr", read, unreadable: "cannot decode ACR webhook payload: ", ..Webhook::BASE };

fn read(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let body = json::first_object(inbound.body)?;
    let target = json::member(&body, "target")?;
    Ok(Payload {
        // The peer doesn't look at it, so it may be anything.
        delivery_id: json::text(&body, "id").ok().and_then(json::named),
        event_type: json::named(json::text(&body, "action")?),
        subject: subject(&json::text(&target, "repository")?, &json::text(&target, "tag")?),
        ..Payload::default()
    })
}
