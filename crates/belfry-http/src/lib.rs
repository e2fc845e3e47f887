//! The one outgoing HTTP client. It caches one client, with its pool of connections, per way to a destination (proxy,
//! roots, client certificate); it refuses link-local addresses; it bounds what is read of an answer and how long
//! everything takes; and its errors name a host and nothing more of a URL, for webhook addresses are credentials.
//! It must not know what is sent, nor try anything twice.
//!
//! Redirects: only a 307 or 308 to the same scheme, host and port is followed, for nothing else keeps both the request
//! and its credentials where they belong. Any other 3xx is an answer like every other, and none is a success.

mod body;
mod client;
mod clients;
pub mod egress;
mod environment;
mod error;
mod retry_after;

pub use client::{Client, Request, Response};
pub use clients::{BadRoute, Clients, Proxy, Route};
pub use environment::Environment;
pub use error::{Error, ErrorKind};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use reqwest::Url;
pub use retry_after::retry_after;

/// What requests carry as `User-Agent`, unless they say otherwise.
pub const USER_AGENT: &str = concat!("belfry/", env!("CARGO_PKG_VERSION"));
