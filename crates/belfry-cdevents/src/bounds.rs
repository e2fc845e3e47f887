//! Every bound that this crate sets.

/// Bytes of a request's body. Receivers read no more than this anyway; it guards other callers.
pub const BODY: usize = belfry_core::limits::EVENT_BODY;
/// Events in one batch.
pub const BATCH: usize = 1000;
/// Levels of nesting in a document; deeper is not read.
pub const DEPTH: usize = 128;
/// Characters of what a sender wrote that an error repeats.
pub const QUOTED: usize = 80;
/// Bytes of a Flux message that are put into a field of a CDEvent; the whole message stands in `customData`.
pub const MESSAGE: usize = 8 * 1024;
/// Bytes of a Flux message that `customData` keeps.
pub const CUSTOM_MESSAGE: usize = 64 * 1024;
