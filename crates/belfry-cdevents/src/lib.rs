//! CDEvents as values: the vocabulary of the spec, whether a document follows it, how it travels as CloudEvents over
//! HTTP, which types a receiver lets pass, and what a Flux event becomes.
//!
//! This crate must not know sockets, stores, Kubernetes, or what a trigger is. It has no clock and no randomness: ids
//! are derived from what they name, times are parameters, and nothing is kept between two calls.

pub mod bounds;
pub mod filter;
pub mod format;
pub mod http;
pub mod mapping;
pub mod validate;
pub mod vocabulary;

pub use validate::{Invalid, Mode, UnknownSchema, validate};
pub use vocabulary::Spec;
