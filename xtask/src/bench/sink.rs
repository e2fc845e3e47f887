//! Where notifications arrive: an HTTP server with a thread of its own that counts requests, distinct events and
//! connections, and answers with bytes that were made before.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::{
    events,
    load::{content_length, end_of_head},
};

/// What the sink answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// 204.
    NoContent,
    /// 200, with an empty body.
    Empty,
    /// 503: it is down.
    Down,
}

impl Answer {
    const BYTES: [&[u8]; 3] = [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    ];
}

/// What arrived.
#[derive(Debug)]
pub struct Tally {
    start: Instant,
    answer: AtomicU8,
    connections: AtomicU64,
    requests: AtomicU64,
    distinct: AtomicU64,
    last_micros: AtomicU64,
    /// For each event: when it was posted (0: was not), in microseconds since the start.
    posted: Vec<AtomicU64>,
    /// For each event: when it first arrived (0: has not).
    arrived: Vec<AtomicU64>,
}

impl Tally {
    fn new(events: u64, answer: Answer) -> Self {
        let times = || (0..events).map(|_| AtomicU64::new(0)).collect();
        Self {
            start: Instant::now(),
            answer: AtomicU8::new(answer as u8),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            distinct: AtomicU64::new(0),
            last_micros: AtomicU64::new(0),
            posted: times(),
            arrived: times(),
        }
    }

    /// From now on it answers so.
    pub fn set_answer(&self, answer: Answer) {
        self.answer.store(answer as u8, Relaxed);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Events that were taken so far.
    pub fn distinct(&self) -> u64 {
        self.distinct.load(Relaxed)
    }

    /// An event is posted now.
    pub fn posted(&self, number: u64) {
        if let Some(posted) = self.posted.get(number as usize) {
            posted.store(self.micros(), Relaxed);
        }
    }

    /// For how long events have arrived that were posted since then.
    pub fn since(&self, start: Instant) -> Duration {
        let last = self.start + Duration::from_micros(self.last_micros.load(Relaxed));
        last.saturating_duration_since(start)
    }

    /// For each event that was posted and arrived: how long that took.
    pub fn end_to_end(&self) -> super::histogram::Histogram {
        let mut histogram = super::histogram::Histogram::default();
        for (posted, arrived) in self.posted.iter().zip(&self.arrived) {
            let (posted, arrived) = (posted.load(Relaxed), arrived.load(Relaxed));
            if posted > 0 && arrived > 0 {
                histogram.record(Duration::from_micros(arrived.saturating_sub(posted)));
            }
        }
        histogram
    }

    /// Waits until so many events were taken, and says how many are missing after `patience`.
    pub fn wait_for(&self, events: u64, patience: Duration) -> u64 {
        let start = Instant::now();
        while self.distinct() < events && start.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        events.saturating_sub(self.distinct())
    }

    /// Never zero: that stands for "not yet".
    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn take(&self, body: &[u8]) -> &'static [u8] {
        self.requests.fetch_add(1, Relaxed);
        let answer = self.answer.load(Relaxed);
        if answer != Answer::Down as u8
            && let Some(arrived) = events::number(body).and_then(|number| self.arrived.get(number as usize))
            && arrived.load(Relaxed) == 0
        {
            let now = self.micros();
            arrived.store(now, Relaxed);
            self.last_micros.store(now, Relaxed);
            self.distinct.fetch_add(1, Relaxed);
        }
        Answer::BYTES.get(usize::from(answer)).copied().unwrap_or_default()
    }
}

/// A running sink.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    /// What arrived.
    pub tally: Arc<Tally>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port, for events with numbers below `events`.
    ///
    /// # Errors
    /// When there is none, or no thread.
    pub fn start(events: u64, answer: Answer) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("can't listen on this machine")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let tally = Arc::new(Tally::new(events, answer));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let told = tally.clone();
        let thread = std::thread::Builder::new().name("sink".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = accept(&listener, &told) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, tally, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: &TcpListener, tally: &Arc<Tally>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tally.connections.fetch_add(1, Relaxed);
                tokio::spawn(connection(stream, tally.clone()));
            }
            // Out of file descriptors.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(mut stream: TcpStream, tally: Arc<Tally>) {
    let _ = stream.set_nodelay(true);
    let mut buffer: Vec<u8> = Vec::with_capacity(8192);
    loop {
        while let Some(head) = end_of_head(&buffer) {
            let whole = head + content_length(&buffer[..head]).unwrap_or_default();
            if buffer.len() < whole {
                break;
            }
            let answer = tally.take(&buffer[head..whole]);
            buffer.drain(..whole);
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
