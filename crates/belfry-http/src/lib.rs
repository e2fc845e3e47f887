//! The one outgoing HTTP client: client cache, egress policy, caps, masking
