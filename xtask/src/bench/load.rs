//! The load generator: keep-alive connections that post one event after the other, each as soon as the answer to the
//! last one is there, or at a steady rate. One thread, no HTTP library: about 7 µs an event.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    events::{About, Request},
    histogram::Histogram,
    sink::Tally,
};

/// The longest that a load may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Connections that may break before it is given up.
const BROKEN: u64 = 1_000;
/// Bytes of an answer's head at most.
const HEAD: usize = 16 * 1024;

/// What is to be posted.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where to.
    pub to: SocketAddr,
    /// Connections.
    pub connections: u64,
    /// The numbers of the events.
    pub numbers: Range<u64>,
    /// What they are about.
    pub about: About,
    /// About how many objects.
    pub objects: u64,
    /// Events a second; as many as possible, otherwise.
    pub rate: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Answers by status; 0 counts connections that broke.
    pub statuses: BTreeMap<u16, u64>,
    /// From the first byte of a request to the last of its answer.
    pub latency: Histogram,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Posted {
    /// Events that were accepted.
    pub fn accepted(&self) -> u64 {
        self.statuses.get(&202).copied().unwrap_or_default()
    }

    /// Answers other than 202, for a message; empty when there are none.
    pub fn others(&self) -> String {
        let others = self.statuses.iter().filter(|(status, _)| **status != 202);
        others.map(|(status, count)| format!("{count} × {status}")).collect::<Vec<_>>().join(", ")
    }

    /// Takes over what another connection counted.
    pub fn add(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.latency.add(&other.latency);
    }
}

/// Posts events; where they arrive learns when each was posted.
///
/// # Errors
/// When the server can't be reached, or it takes longer than five minutes.
pub fn drive(load: &Load, tally: Option<&Arc<Tally>>) -> anyhow::Result<Posted> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let posted = tokio::time::timeout(PATIENCE, all(load, tally));
        posted.await.with_context(|| format!("{} did not take in all within {PATIENCE:?}", load.to))?
    })
}

async fn all(load: &Load, tally: Option<&Arc<Tally>>) -> anyhow::Result<Posted> {
    let next = Arc::new(AtomicU64::new(load.numbers.start));
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        let turns =
            Turns { next: next.clone(), end: load.numbers.end, first: load.numbers.start, rate: load.rate, start };
        connections.spawn(connection(load.to, Request::new(load.about, load.objects, load.to), turns, tally.cloned()));
    }
    let mut posted = Posted::default();
    while let Some(part) = connections.join_next().await {
        posted.add(&part??);
    }
    posted.took = start.elapsed();
    Ok(posted)
}

/// Gives each event to the connection that is free first.
pub struct Turns {
    /// The number that is next.
    pub next: Arc<AtomicU64>,
    /// The first number.
    pub first: u64,
    /// The number after the last.
    pub end: u64,
    /// How many a second.
    pub rate: Option<u64>,
    /// When the first one is due.
    pub start: Instant,
}

impl Turns {
    /// A number once it is due, until there are no more.
    pub async fn next(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Relaxed);
        if number >= self.end {
            return None;
        }
        if let Some(rate) = self.rate {
            let at =
                self.start + Duration::from_secs(number - self.first) / u32::try_from(rate.max(1)).unwrap_or(u32::MAX);
            tokio::time::sleep_until(at.into()).await;
        }
        Some(number)
    }
}

async fn connection(
    to: SocketAddr,
    mut request: Request,
    turns: Turns,
    tally: Option<Arc<Tally>>,
) -> anyhow::Result<Posted> {
    let mut posted = Posted::default();
    let mut answers = Answers::connect(to).await?;
    while let Some(number) = turns.next().await {
        request.set(number);
        if let Some(tally) = &tally {
            tally.posted(number);
        }
        let start = Instant::now();
        let status = answers.ask(request.bytes()).await.unwrap_or(0);
        posted.latency.record(start.elapsed());
        let count = posted.statuses.entry(status).or_default();
        *count += 1;
        if status == 0 {
            if *count > BROKEN {
                bail!("{to} breaks its connections");
            }
            answers = Answers::connect(to).await?;
        }
    }
    Ok(posted)
}

/// A connection, and what came over it.
pub struct Answers {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Answers {
    /// Opens a connection.
    ///
    /// # Errors
    /// When it can't.
    pub async fn connect(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("can't connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request and gives the status of its answer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((status, length)) = answer(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(status);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("closed");
            }
        }
    }
}

/// Status and length of the answer that the buffer begins with, if it is whole.
fn answer(buffer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = end_of_head(buffer) else {
        if buffer.len() > HEAD {
            bail!("an answer's head without an end");
        }
        return Ok(None);
    };
    let status = std::str::from_utf8(buffer.get(9..12).unwrap_or_default())?.parse()?;
    let whole = end + content_length(&buffer[..end]).unwrap_or_default();
    Ok((buffer.len() >= whole).then_some((status, whole)))
}

/// Where the head that the buffer begins with ends, if it does.
pub fn end_of_head(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The length of the body, if the head tells.
pub fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let line =
        lines.into_iter().find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_by_one() {
        let two =
            b"HTTP/1.1 202 Accepted\r\nContent-length: 3\r\nX: y\r\n\r\nabcHTTP/1.1 429 Too Many Requests\r\n\r\n";
        for cut in 0..51 {
            assert_eq!(answer(&two[..cut]).unwrap(), None, "{cut}");
        }
        let (status, length) = answer(two).unwrap().unwrap();
        assert_eq!(status, 202);
        assert_eq!(answer(&two[length..]).unwrap().unwrap(), (429, two.len() - length));
        assert!(answer(b"HTTP/1.1 abc\r\n\r\n").is_err());
        assert!(answer(&[b'x'; HEAD + 1]).is_err());
    }
}
