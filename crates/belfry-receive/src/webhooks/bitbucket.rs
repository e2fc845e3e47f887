//! `bitbucket`: Bitbucket Data Center and Cloud, which sign as GitHub does.

use super::github;
use crate::{events::EventHeader, read, webhook::Webhook};

pub(crate) const WEBHOOK: Webhook = Webhook {
    name: "bitbucket",
    authenticate: |call| github::authenticate(call, "Bitbucket server"),
    events: Some(EventHeader { name: "x-event-key", what: "Bitbucket server event", tests: &["diagnostics:ping"] }),
    // Cloud's, and Data Center's.
    delivery: &["x-request-uuid", "x-request-id"],
    read: read::json_or_form,
    unreadable: "the Bitbucket server payload is invalid, err: ",
    ..Webhook::BASE
};
