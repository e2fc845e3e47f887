//! What must be mended before anything can be sent.

use std::fmt;

use belfry_core::ConfigKey;

/// A Provider that can't be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misconfigured {
    /// What it is about.
    pub reason: Reason,
    text: String,
    provider: Option<ConfigKey>,
}

/// What must be mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No such provider type.
    UnknownType,
    /// A provider type of Flux that this version doesn't speak.
    UnsupportedType,
    /// A Secret that is named and isn't there, or isn't text.
    Secret,
    /// The address.
    Address,
    /// The channel.
    Channel,
    /// The token.
    Token,
    /// User name and password.
    Credentials,
    /// The additional headers.
    Headers,
    /// The proxy.
    Proxy,
    /// The certificate authority or the client certificate.
    Tls,
    /// The timeout.
    Timeout,
    /// `spec.cdevents`.
    CdEvents,
}

impl Misconfigured {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), provider: None }
    }

    pub(crate) fn of(self, provider: &ConfigKey) -> Self {
        Self { provider: Some(provider.clone()), ..self }
    }
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "Provider {}/{}: {}", provider.namespace, provider.name, self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl std::error::Error for Misconfigured {}
