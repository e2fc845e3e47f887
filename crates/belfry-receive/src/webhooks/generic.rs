//! `generic`: any request. Its path is its credential.

use super::cloud_event;
use crate::webhook::Webhook;

pub(crate) const WEBHOOK: Webhook = Webhook { name: "generic", read: cloud_event, ..Webhook::BASE };
