//! `gitlab`: the token itself in a header.

use crate::{
    Inbound, Object, Refused,
    events::EventHeader,
    read::{Payload, fingerprint},
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook {
    name: "gitlab",
    authenticate,
    events: Some(EventHeader { name: "x-gitlab-event", what: "GitLab event", tests: &[] }),
    // Stays the same over retries of one delivery; older versions don't send it.
    delivery: &["idempotency-key"],
    read: |inbound| Ok(Payload { delivery_id: event_id(inbound), ..Payload::default() }),
    ..Webhook::BASE
};

/// The id of the event, which webhooks that an event sets off in turn share with it: only with the same body is it the
/// same delivery.
fn event_id(inbound: &Inbound<'_>) -> Option<String> {
    let id = inbound.text("x-gitlab-event-uuid")?;
    Some(format!("{id}:{}", fingerprint(inbound.body)))
}

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let token = call.credential("token")?;
    match call.inbound.header("x-gitlab-token") {
        Some(presented) if token.is(presented) => Ok(None),
        _ => Err(Refused::credential("the X-Gitlab-Token header value does not match the receiver token")),
    }
}
