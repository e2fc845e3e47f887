//! `github`: GitHub, and Gitea and Forgejo, which send the same headers.

use crate::{
    Object, Refused,
    events::EventHeader,
    read, signature,
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook {
    name: "github",
    authenticate: |call| authenticate(call, "GitHub"),
    events: Some(EventHeader { name: "x-github-event", what: "GitHub event", tests: &["ping"] }),
    delivery: &["x-github-delivery", "x-gitea-delivery", "x-forgejo-delivery"],
    read: read::json_or_form,
    unreadable: "the GitHub payload is invalid, err: ",
    ..Webhook::BASE
};

/// The signature over the whole body, forms included: the one with SHA-256 where there are two.
pub(super) fn authenticate(call: &Call<'_>, host: &str) -> Result<Option<Object>, Refused> {
    let header = |name| call.inbound.header(name);
    let signature = header("x-hub-signature-256").or_else(|| header("x-hub-signature"));
    signature::check(signature, call.credential("token")?, call.inbound.body)
        .map_err(|why| Refused::credential(format!("the {host} signature header is invalid, err: {why}")))?;
    Ok(None)
}
