//! One request, one answer.

use std::{fmt, time::Duration};

use belfry_core::limits;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use crate::{
    Error, ErrorKind,
    body::{Sent, Watched},
    egress,
    error::host,
    retry_after,
};

/// Same-origin redirects that are followed.
const REDIRECTS: usize = 10;
/// The longest wait for the body of an answer whose head is there: the status is what counts.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes beyond [`limits::ANSWER_READ`] that are read and thrown away, so that the connection can be used again.
const DRAINED: usize = 256 * 1024;

/// What is to be sent.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Where to. Credentials in it are sent as Basic authorization unless a header says otherwise.
    pub url: Url,
    /// Headers; `User-Agent` and `Content-Length` need not be among them.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Request {
    /// A POST with a content type.
    pub fn post(url: Url, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { method: Method::POST, url, headers, body: body.into() }
    }
}

impl fmt::Debug for Request {
    /// Method, host and size: the rest may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} ({} bytes)", self.method, host(&self.url), self.body.len())
    }
}

/// What came back, whatever its status.
#[derive(Clone)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body, up to [`limits::ANSWER_READ`] bytes.
    pub body: Bytes,
    /// The body is whole: neither longer than that, nor cut off, nor slower than the time left.
    pub complete: bool,
    /// `Retry-After`, if the answer has a readable one.
    pub retry_after: Option<Duration>,
}

impl fmt::Debug for Response {
    /// Status and size: a destination may echo what it was sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

/// The way to some destinations, with a pool of connections. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
}

impl fmt::Debug for Client {
    /// No more than that: proxies have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(crate) fn new(inner: reqwest::Client) -> Self {
        Self { inner }
    }

    /// Sends a request and reads its answer, everything within `timeout`. Nothing is tried twice; a 307 or 308 to the
    /// same scheme, host and port is followed.
    ///
    /// # Errors
    /// When no answer comes. An answer whose body is cut off is still an answer.
    pub async fn send(&self, request: &Request, timeout: Duration) -> Result<Response, Error> {
        let deadline = Instant::now() + timeout;
        let mut url = request.url.clone();
        for _ in 0..REDIRECTS {
            let answer = self.attempt(request, &url, deadline).await?;
            match redirected(&url, &answer) {
                Some(next) => url = next,
                None => return Ok(read(answer, deadline).await),
            }
        }
        let answer = self.attempt(request, &url, deadline).await?;
        Ok(read(answer, deadline).await)
    }

    async fn attempt(&self, request: &Request, url: &Url, deadline: Instant) -> Result<reqwest::Response, Error> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::new(ErrorKind::BadUrl, url, false));
        }
        if egress::refused_literal(url) {
            return Err(Error::new(ErrorKind::Refused, url, false));
        }
        let (body, sent): (Watched, Sent) = Watched::new(request.body.clone());
        let mut outgoing = self.inner.request(request.method.clone(), url.clone()).headers(request.headers.clone());
        if !request.body.is_empty() {
            outgoing = outgoing.body(reqwest::Body::wrap(body));
        }
        match timeout_at(deadline, outgoing.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::from_reqwest(error, url, sent.get())),
            Err(_) => Err(Error::new(ErrorKind::Timeout, url, sent.get())),
        }
    }
}

/// Where a redirect leads that may be followed.
fn redirected(from: &Url, answer: &reqwest::Response) -> Option<Url> {
    if !matches!(answer.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return None;
    }
    let next = from.join(answer.headers().get(header::LOCATION)?.to_str().ok()?).ok()?;
    (next.origin() == from.origin()).then_some(next)
}

async fn read(mut answer: reqwest::Response, deadline: Instant) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, jiff::Timestamp::now()));
    let deadline = deadline.min(Instant::now() + BODY_PATIENCE);
    let mut body = BytesMut::new();
    let mut surplus = 0;
    // Ends with the body, an error, the deadline, or too much of it; only the first makes it whole.
    let ended = loop {
        match timeout_at(deadline, answer.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let kept = chunk.len().min(limits::ANSWER_READ - body.len());
                body.extend_from_slice(&chunk[..kept]);
                surplus += chunk.len() - kept;
                if surplus > DRAINED {
                    break false;
                }
            }
            Ok(Ok(None)) => break true,
            Ok(Err(_)) | Err(_) => break false,
        }
    };
    drop(answer);
    // The connection goes back to the pool in a task of its own: whoever asks for one before that opens another.
    tokio::task::yield_now().await;
    Response { status, headers, body: body.freeze(), complete: ended && surplus == 0, retry_after }
}
