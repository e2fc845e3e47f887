//! One request to the API server, with a limit of time and an error that says what was asked.

use std::{future::Future, time::Duration};

use http::{Method, Request, header};
use kube::Client;
use serde_json::Value;

use crate::Error;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an answer for at most [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, answer: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| Error::from_kube(what, error)),
        Err(late) => Err(Error::Unavailable { what: what.to_owned(), source: late.into() }),
    }
}

/// An API server that starts forbids and denies what it has not read yet: its roles, its CRDs. What it says so before
/// it is ready is no answer, and neither is a refusal that extends to the question whether it is ready: everyone may
/// ask that.
pub(crate) async fn doubted(client: &Client, error: Error) -> Error {
    let (what, forbidden) = match &error {
        Error::Forbidden { what, .. } => (what, true),
        Error::Refused { what, code: 404, .. } => (what, false),
        _ => return error,
    };
    let Ok(request) = Request::get("/readyz").body(Vec::new()) else { return error };
    match within("asking whether the API server is ready", client.request_text(request)).await {
        Err(Error::Unavailable { source, .. }) => Error::Unavailable { what: what.clone(), source },
        Err(Error::Forbidden { message, .. }) if forbidden => {
            Error::Unavailable { what: what.clone(), source: message.into() }
        }
        _ => error,
    }
}

/// Asks for the JSON document at `path`.
pub(crate) async fn get(client: &Client, what: &str, path: &str) -> Result<Value, Error> {
    send(client, what, Method::GET, path, None).await
}

/// Sends a request, with a body of the given content type, and reads the JSON that answers it.
///
/// Not through the client's own parsing: that logs whole bodies when they are not what it expects, and a body may be a
/// Secret.
pub(crate) async fn send(
    client: &Client,
    what: &str,
    method: Method,
    path: &str,
    body: Option<(&'static str, &Value)>,
) -> Result<Value, Error> {
    let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
    if let Some((content_type, _)) = body {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    let unreadable = |message: String| Error::Refused { what: what.to_owned(), code: 0, message };
    let body = body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default();
    let request = request.body(body).map_err(|error| unreadable(error.to_string()))?;
    let text = match within(what, client.request_text(request)).await {
        Ok(text) => text,
        // An object of a built-in kind that is not there is not there.
        Err(error) if error.is_not_found() && path.starts_with("/api/") => return Err(error),
        Err(error) => return Err(doubted(client, error).await),
    };
    serde_json::from_str(&text).map_err(|_| unreadable("the answer is not JSON".to_owned()))
}

/// Whether `name` can be the name of an object, or of its namespace. What can't would reach beyond its place in a path.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 253
        && bytes.first().copied().is_some_and(fits)
        && bytes.last().copied().is_some_and(fits)
        && bytes.iter().all(|&byte| fits(byte) || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
        for good in ["a", "slack-url", "a.b", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../a", "a?watch=true", "a%2fb", "A", "-a", "a-", "ä", &"a".repeat(254)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
