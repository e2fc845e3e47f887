//! `cdevents`: the path is the credential. Whether the body is a CDEvent, and which of a batch pass `spec.events`, is
//! decided by who knows the vocabulary; here is only what becomes of one that does.

use crate::{Accepted, Object, inbound::plain, webhook::Webhook};

pub(crate) const WEBHOOK: Webhook = Webhook { name: "cdevents", handed_over: true, ..Webhook::BASE };

/// A CDEvent that was found valid, and passes: its `source` and `id`, its type, what it is about, and the whole
/// document, which is `req` in CEL.
pub fn accepted(source: &str, id: &str, event_type: &str, subject: &str, document: Object) -> Accepted {
    let named = |text: &str| (!text.is_empty()).then(|| plain(text));
    Accepted {
        // The peer takes events without an id; what can't be told apart isn't a repeat.
        delivery_id: (!id.is_empty()).then(|| self::id(source, id)),
        event_type: named(event_type),
        subject: named(subject),
        request: document,
        claims: None,
    }
}

/// One id of the two parts that make a CloudEvent unique. The length keeps them apart.
pub(crate) fn id(source: &str, id: &str) -> String {
    format!("{}:{source}{id}", source.len())
}
