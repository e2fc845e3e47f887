//! `harbor`: the token itself as the Authorization header, whatever scheme it may look like.

use http::header::AUTHORIZATION;

use super::cloud_event;
use crate::{
    Object, Refused,
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook { name: "harbor", authenticate, read: cloud_event, ..Webhook::BASE };

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let token = call.credential("token")?;
    match call.inbound.header(AUTHORIZATION.as_str()) {
        Some(presented) if token.is(presented) => Ok(None),
        _ => Err(Refused::credential("the Harbor Authorization header value does not match the receiver token")),
    }
}
