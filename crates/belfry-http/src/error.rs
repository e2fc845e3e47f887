//! Why there is no answer.

use std::{error::Error as StdError, io};

use reqwest::Url;

use crate::egress::{Refused, Unresolved};

/// What kept a request from being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The URL is none that a request can go to.
    BadUrl,
    /// The address is one that is always refused.
    Refused,
    /// The name doesn't resolve.
    Dns,
    /// No connection to the destination or its proxy.
    Connect,
    /// The TLS handshake failed: no trust, a wrong name, a client certificate asked for.
    Tls,
    /// Not done in time.
    Timeout,
    /// The connection ended before the answer.
    Closed,
}

/// A request without an answer. Its text names the host and nothing else of the URL.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Error {
    /// What happened.
    pub kind: ErrorKind,
    /// Host, and port if the URL has one.
    pub host: String,
    /// The words of whoever noticed, without URLs; may be empty.
    pub detail: String,
    /// The request went out, at least in part: the destination may have acted on it.
    pub sent: bool,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, url: &Url, sent: bool) -> Self {
        Self { kind, host: host(url), detail: String::new(), sent }
    }

    pub(crate) fn from_reqwest(error: reqwest::Error, url: &Url, sent: bool) -> Self {
        let error = error.without_url();
        let mut found = None;
        let mut detail = String::new();
        for cause in chain(&error) {
            if cause.is::<Refused>() {
                found = Some(ErrorKind::Refused);
            } else if cause.is::<Unresolved>() {
                found = Some(ErrorKind::Dns);
            } else if cause.is::<rustls::Error>() {
                found = Some(ErrorKind::Tls);
            }
            detail = cause.to_string();
        }
        let kind = found.unwrap_or_else(|| match () {
            () if error.is_connect() => ErrorKind::Connect,
            () if error.is_timeout() => ErrorKind::Timeout,
            () if error.is_builder() => ErrorKind::BadUrl,
            () => ErrorKind::Closed,
        });
        // Without a connection nothing was sent, whatever became of the body.
        let sent = sent && !error.is_connect() && !error.is_builder() && kind != ErrorKind::Tls;
        Self { detail, ..Self::new(kind, url, sent) }
    }

    /// It isn't known whether the destination acted on the request.
    pub fn unknown(&self) -> bool {
        self.sent
    }

    fn text(&self) -> String {
        let host = &self.host;
        let what = match self.kind {
            ErrorKind::BadUrl => format!("not an address that a request can go to (host '{host}')"),
            ErrorKind::Refused => {
                return format!("{host} is a link-local address (or resolves to one): requests to those are refused");
            }
            ErrorKind::Dns => format!("can't resolve {host}"),
            ErrorKind::Connect => format!("can't connect to {host}"),
            ErrorKind::Tls => format!("no trusted TLS connection to {host}"),
            ErrorKind::Timeout if self.sent => format!("no answer from {host} in time"),
            ErrorKind::Timeout => format!("no connection to {host} in time"),
            ErrorKind::Closed => format!("the connection to {host} ended before the answer"),
        };
        if self.detail.is_empty() { what } else { format!("{what}: {}", self.detail) }
    }
}

/// Host, and port if the URL has one.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// An error and its causes. `io::Error` skips what it wraps, so that is looked at by hand.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use reqwest::dns::{Name, Resolve, Resolving};

    use super::*;

    struct LinkLocalOnly;

    impl Resolve for LinkLocalOnly {
        fn resolve(&self, _: Name) -> Resolving {
            Box::pin(async { Err(Refused.into()) })
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_refused_addresses_is_told_from_one_that_does_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().dns_resolver(LinkLocalOnly).build().unwrap();
        let url: Url = "http://metadata.example:8080/secret".parse().unwrap();
        let error = Error::from_reqwest(client.get(url.clone()).send().await.unwrap_err(), &url, true);
        assert_eq!((error.kind, error.unknown()), (ErrorKind::Refused, false));
        assert_eq!(
            error.to_string(),
            "metadata.example:8080 is a link-local address (or resolves to one): requests to those are refused"
        );
    }
}
