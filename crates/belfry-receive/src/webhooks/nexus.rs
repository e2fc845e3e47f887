//! `nexus`: Sonatype Nexus, which signs with SHA-1 and writes the digits alone.

use ring::hmac;

use crate::{
    Inbound, Object, Refused, json,
    read::{Payload, subject},
    signature,
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook {
    name: "nexus",
    authenticate,
    delivery: &["x-nexus-webhook-delivery"],
    read,
    unreadable: "cannot decode Nexus webhook payload: ",
    ..Webhook::BASE
};

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let token = call.credential("token")?;
    let digits = call.inbound.header("x-nexus-webhook-signature");
    let digits = digits.ok_or_else(|| Refused::credential("the Nexus signature is missing from header"))?;
    let tag = signature::hex(digits).filter(|_| !digits.iter().any(u8::is_ascii_uppercase));
    match tag {
        Some(tag) if token.signed(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, call.inbound.body, &tag) => Ok(None),
        _ => Err(Refused::credential("invalid Nexus signature")),
    }
}

fn read(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let body = json::whole_object(inbound.body)?;
    Ok(Payload {
        event_type: json::named(json::text(&body, "action")?),
        subject: subject(&json::text(&body, "repositoryName")?, ""),
        ..Payload::default()
    })
}
