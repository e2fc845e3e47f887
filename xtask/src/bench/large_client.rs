//! A client of the API on one connection, without a library: what it measures is the server.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::load::{content_length, end_of_head};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A connection.
pub struct Client {
    api: SocketAddr,
    stream: TcpStream,
}

/// What came of a question.
pub struct Answer {
    /// From the first byte of the question to the last of the answer.
    pub took: Duration,
    /// The answer.
    pub body: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When it can't.
    pub fn connect(api: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(api).context("can't reach the API")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { api, stream })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When it is anything but 200.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let Self { api, stream } = self;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {api}\r\n\r\n").as_bytes())?;
        let mut buffer = Vec::with_capacity(64 << 10);
        let (mut head, mut whole) = (0, usize::MAX);
        while buffer.len() < whole {
            let mut piece = [0; 64 << 10];
            let read = stream.read(&mut piece).with_context(|| format!("no answer to {path}"))?;
            ensure!(read > 0, "the connection was closed before {path} was answered");
            buffer.extend_from_slice(&piece[..read]);
            if head == 0
                && let Some(end) = end_of_head(&buffer)
            {
                head = end;
                whole = end + content_length(&buffer[..end]).with_context(|| format!("{path} has no length"))?;
            }
        }
        let took = start.elapsed();
        let body = buffer.split_off(head);
        if !buffer.starts_with(b"HTTP/1.1 200") {
            bail!("{path} was answered {} {}", String::from_utf8_lossy(&buffer), String::from_utf8_lossy(&body));
        }
        Ok(Answer { took, body })
    }

    /// Asks for a stream on a connection of its own, and reads until its first event is there.
    ///
    /// # Errors
    /// When there is none.
    pub fn first_event(&self, path: &str) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let mut stream = Self::connect(self.api)?.stream;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.api).as_bytes())?;
        let mut body = Vec::new();
        while !body.windows(6).any(|six| six == b"\ndata:") {
            let mut piece = [0; 64 << 10];
            let read = stream.read(&mut piece).with_context(|| format!("nothing came of {path}"))?;
            ensure!(read > 0, "{path} ended before its first event: {}", String::from_utf8_lossy(&body));
            body.extend_from_slice(&piece[..read]);
        }
        Ok(Answer { took: start.elapsed(), body })
    }
}
