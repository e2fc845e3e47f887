//! The HTTP client of the commands that ask a running server.

mod backoff;
mod events;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use belfry_core::limits::STREAM_EVENT;
use clap::Args;
use http::{Method, StatusCode, header};
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, Response};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

pub(super) use backoff::Backoff;
pub(super) use events::Event;

/// Time to connect, with TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// Silence after which a stream is taken for dead: three of the server's heartbeats.
const SILENCE: Duration = Duration::from_secs(45);
/// Bytes read of a refusal.
const REFUSAL: usize = 64 * 1024;

/// Which server to ask, and as whom.
#[derive(Debug, Args)]
pub struct Remote {
    /// The server's API
    #[arg(long, env = "BELFRY_SERVER", default_value = "http://127.0.0.1:9393", value_name = "URL")]
    server: String,
    /// File with the bearer token; read again for each connection (without it: the variable BELFRY_TOKEN)
    #[arg(long, env = "BELFRY_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// In GitHub Actions: present the job's own identity token for this audience, a fresh one for each connection
    #[arg(long, env = "BELFRY_GITHUB_OIDC", value_name = "AUDIENCE", conflicts_with = "token_file")]
    github_oidc: Option<String>,
}

/// Why a stream isn't there, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It broke after it had begun: as every stream does some day.
    Broken(String),
    /// Nobody answers, or not now; it may pass.
    Away {
        /// What is wrong.
        message: String,
        /// When the server wants to be asked again.
        after: Option<Duration>,
    },
    /// The answer is no.
    Refused(StatusCode, String),
    /// There is nothing to ask with: no such file, no such address.
    Unusable(String),
}

impl Failure {
    /// What is wrong.
    pub fn message(&self) -> &str {
        match self {
            Self::Broken(message) | Self::Away { message, .. } | Self::Refused(_, message) => message,
            Self::Unusable(message) => message,
        }
    }

    fn away(message: String) -> Self {
        Self::Away { message, after: None }
    }
}

/// What lies at the bottom of an error: the layers above it say where, which is known.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

impl Remote {
    /// The server's address, as it may be shown.
    pub(super) fn server(&self) -> String {
        let Ok(mut url) = Url::parse(&self.server) else { return self.server.clone() };
        // They fail for addresses that can't have them.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.as_str().trim_end_matches('/').to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.trim_end_matches('/'))
    }

    /// Sends a request without a body and reads the answer as JSON.
    ///
    /// # Errors
    /// When the server can't be reached, refuses (with what it says), or answers something else.
    pub async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> anyhow::Result<T> {
        let client = self.builder()?.timeout(Duration::from_secs(30)).build()?;
        let request = self.authorized(&client, client.request(method, self.url(path))).await?;
        let url = format!("{}{path}", self.server());
        let response = request.send().await.with_context(|| {
            format!("can't reach {} (is `belfry serve` running there? see --server)", self.server())
        })?;
        let status = response.status();
        let body = response.bytes().await.with_context(|| format!("{url}: the answer ended early"))?;
        if !status.is_success() {
            match problem(&body) {
                Some(detail) => bail!("{detail}"),
                None => bail!("{url} answered {status}: is that Belfry's API?"),
            }
        }
        serde_json::from_slice(&body).with_context(|| format!("{url} answered something that is not expected"))
    }

    /// A client for [`Remote::open`], whose connections may last. It doesn't follow redirects: the token would be lost
    /// on the way, and with it the reason why nothing is answered.
    pub(super) fn streaming(&self) -> Result<Client, Failure> {
        let client = self.builder().and_then(|builder| {
            let builder = builder.connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
            Ok(builder.build()?)
        });
        client.map_err(|error| Failure::Unusable(format!("{error:#}")))
    }

    /// Opens a stream of server-sent events.
    pub(super) async fn open(&self, client: &Client, path: &str) -> Result<Events, Failure> {
        let request = client.get(self.url(path)).header(header::ACCEPT, "text/event-stream");
        let request = self.authorized(client, request).await.map_err(|error| match error.is::<reqwest::Error>() {
            true => Failure::away(format!("{error:#}")),
            false => Failure::Unusable(format!("{error:#}")),
        })?;
        let silent = || Failure::away(format!("{} doesn't answer", self.server()));
        let response = match tokio::time::timeout(SILENCE, request.send()).await {
            Err(_) => return Err(silent()),
            Ok(Err(error)) if error.is_builder() => return Err(Failure::Unusable(root(&error))),
            Ok(Err(error)) => {
                return Err(Failure::away(format!("can't reach {}: {}", self.server(), root(&error.without_url()))));
            }
            Ok(Ok(response)) => response,
        };
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if response.status() == StatusCode::OK && kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Ok(Events { response, parser: events::Parser::new(STREAM_EVENT), heard: Instant::now() });
        }
        tokio::time::timeout(SILENCE, self.refusal(response)).await.map_or_else(|_| Err(silent()), Err)
    }

    /// What an answer that is no stream means.
    async fn refusal(&self, mut response: Response) -> Failure {
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let after = header(header::RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let location = header(header::LOCATION);
        let mut body = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > REFUSAL {
                break;
            }
        }
        let server = self.server();
        let message = match (problem(&body), location) {
            (Some(detail), _) => detail,
            (None, Some(elsewhere)) if status.is_redirection() => {
                format!("{server} answered {status} to {elsewhere}: give --server the address that answers")
            }
            (None, _) if status.is_success() => format!("{server} answered something that is not expected"),
            (None, _) => format!("{server} answered {status}"),
        };
        let passes = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
        if passes { Failure::Away { message, after } } else { Failure::Refused(status, message) }
    }

    /// Proxies of the environment are for what lies beyond this machine.
    fn builder(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let url = Url::parse(&self.server).with_context(|| format!("--server: {:?} is not a URL", self.server))?;
        let local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => bail!("--server: {:?} names no host", self.server),
        };
        let builder = Client::builder();
        Ok(if local { builder.no_proxy() } else { builder })
    }

    async fn authorized(&self, client: &Client, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let token = if let Some(audience) = &self.github_oidc {
            github_token(client, audience).await?
        } else if let Some(file) = &self.token_file {
            std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?
        } else if let Ok(token) = std::env::var("BELFRY_TOKEN")
            && !token.is_empty()
        {
            token
        } else {
            return Ok(request);
        };
        Ok(request.bearer_auth(token.trim()))
    }
}

/// The detail of an RFC 9457 problem.
fn problem(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_slice::<Problem>(body).ok().map(|problem| problem.detail)
}

/// Asks GitHub for a token that says which job this is. It lives for some minutes only.
async fn github_token(client: &Client, audience: &str) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Token {
        value: String,
    }
    let variable = |name: &str| {
        std::env::var(name).with_context(|| format!("{name} isn't set: give the job `permissions: id-token: write`"))
    };
    let mut url = Url::parse(&variable("ACTIONS_ID_TOKEN_REQUEST_URL")?)?;
    url.query_pairs_mut().append_pair("audience", audience);
    let request = client.get(url).bearer_auth(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?).timeout(SILENCE);
    let response = request.send().await.and_then(Response::error_for_status).map_err(reqwest::Error::without_url)?;
    Ok(response.json::<Token>().await.map_err(reqwest::Error::without_url)?.value)
}

/// A stream of server-sent events that is open.
#[derive(Debug)]
pub(super) struct Events {
    response: Response,
    parser: events::Parser,
    /// When anything last came.
    heard: Instant,
}

impl Events {
    /// The server's clock as it opened the stream; it counts whole seconds.
    pub fn date(&self) -> Option<Timestamp> {
        let date = self.response.headers().get(header::DATE)?.to_str().ok()?;
        jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
    }

    /// The next event. May be dropped and asked again; nothing is lost.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(event);
            }
            let piece = match tokio::time::timeout_at((self.heard + SILENCE).into(), self.response.chunk()).await {
                Err(_) => return Err(Failure::Broken("the stream fell silent".into())),
                Ok(Err(error)) => return Err(Failure::Broken(root(&error.without_url()))),
                Ok(Ok(None)) => return Err(Failure::Broken("the server closed the stream".into())),
                Ok(Ok(Some(piece))) => piece,
            };
            self.heard = Instant::now();
            self.parser
                .feed(&piece)
                .map_err(|events::TooLong| Failure::away("the server sent something far too long".into()))?;
        }
    }
}
