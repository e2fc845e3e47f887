//! Webhooks as values.
