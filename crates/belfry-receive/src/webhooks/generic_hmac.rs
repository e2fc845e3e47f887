//! `generic-hmac`: any body with a signature, as Flux's own `generic-hmac` provider sends.

use super::cloud_event;
use crate::{
    Object, Refused, signature,
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook { name: "generic-hmac", authenticate, read: cloud_event, ..Webhook::BASE };

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let signature = call.inbound.header("x-signature");
    signature::check(signature, call.credential("token")?, call.inbound.body)
        .map_err(|why| Refused::credential(format!("unable to validate HMAC signature: {why}")))?;
    Ok(None)
}
