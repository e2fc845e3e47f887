//! The smallest HTTP client: one GET on a connection of its own, for readiness, metrics and pages of a process under test.

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// GETs `url`, which is plain `http://`.
///
/// # Errors
/// When nothing answers, or not in HTTP.
pub async fn get(url: &str) -> Result<Probed> {
    let uri: http::Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
    ensure!(uri.scheme_str() == Some("http"), "{url} is not http://");
    let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    // HTTP/1.0: no keep-alive and no chunks, so the end of the stream is the end of the body.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    parse(&answer).with_context(|| format!("{url} answered something else than HTTP"))
}

fn parse(answer: &[u8]) -> Result<Probed> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no end of head")?;
    let status = head.split(' ').nth(1).context("no status")?.parse().context("status is no number")?;
    Ok(Probed { status, body: body.to_owned() })
}
