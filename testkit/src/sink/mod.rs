//! A scripted HTTP server on 127.0.0.1: it records every request, and answers as the test told it to.
//!
//! It runs on a thread of its own, so it neither waits for the test nor stops with the test's clock.

mod answer;
mod server;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::{
    runtime::Runtime,
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub use self::answer::Answer;
use self::answer::Script;
use crate::port;

/// A request, as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// What follows the `?`.
    pub query: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
    /// When its head had come in.
    pub arrived: Instant,
    /// The number of its connection, from 1 in the order in which they were opened.
    pub connection: u64,
    /// The client's port.
    pub peer_port: u16,
}

impl Received {
    /// A header's value, empty where it is missing or no text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{} {}: {}", self.method, self.path, self.text()))
    }
}

/// What the server and the test share.
struct State {
    script: Mutex<Script>,
    received: watch::Sender<Vec<Received>>,
    connections: AtomicU64,
}

impl State {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Keeps the request and takes its answer from the script, in one: the order of answers is that of requests.
    fn record(&self, request: Received) -> Answer {
        let mut script = self.script();
        let answer = script.next(&request.path);
        self.received.send_modify(|received| received.push(request));
        answer
    }
}

/// The running sink. Its port closes when it is dropped.
pub struct Sink {
    state: Arc<State>,
    port: u16,
    runtime: Option<Runtime>,
    serving: Mutex<Option<Serving>>,
}

struct Serving {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Sink {
    /// Starts a sink that answers 200 to everything, until it is told otherwise.
    ///
    /// # Errors
    /// When it gets no thread or no port.
    pub fn start() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("sink").enable_all().build()?;
        let state = Arc::new(State {
            script: Mutex::new(Script::new(Answer::Status(200))),
            received: watch::Sender::new(Vec::new()),
            connections: AtomicU64::new(0),
        });
        let sink = Self { state, port: port::free()?, runtime: Some(runtime), serving: Mutex::new(None) };
        sink.resume()?;
        Ok(sink)
    }

    /// The address of `path` on the sink.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port, the same after [`Sink::stop`] and [`Sink::resume`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is answered where nothing else was scripted.
    pub fn default_answer(&self, answer: Answer) {
        self.state.script().set_default(answer);
    }

    /// What is answered on `path`, once [`Sink::answer_on`] is used up.
    pub fn default_answer_on(&self, path: &str, answer: Answer) {
        self.state.script().set_default_on(path, answer);
    }

    /// The answers to the next requests, one each, on whichever path has none of its own.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.script().push(answers);
    }

    /// The answers to the next requests on `path`, one each.
    pub fn answer_on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state.script().push_on(path, answers);
    }

    /// All requests so far, in the order in which they were complete.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.received.borrow().clone()
    }

    /// The requests on `path` so far.
    #[must_use]
    pub fn received_on(&self, path: &str) -> Vec<Received> {
        self.state.received.borrow().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// Forgets the requests so far; what waits then counts from zero.
    pub fn forget(&self) {
        self.state.received.send_modify(Vec::clear);
    }

    /// How many connections were opened so far, with or without a request on them.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How many connections the requests so far came on.
    #[must_use]
    pub fn connections_used(&self) -> usize {
        self.state.received.borrow().iter().map(|request| request.connection).collect::<HashSet<_>>().len()
    }

    /// Waits until `n` requests have come in, and gives all there are.
    ///
    /// # Errors
    /// When there are fewer after `timeout`, saying which.
    pub async fn wait_for(&self, n: usize, timeout: Duration) -> Result<Vec<Received>> {
        self.wait(n, timeout, "requests".to_owned(), |_| true).await
    }

    /// Waits until `n` requests have come in on `path`, and gives all there are on it.
    ///
    /// # Errors
    /// When there are fewer after `timeout`, saying which came in at all.
    pub async fn wait_for_on(&self, path: &str, n: usize, timeout: Duration) -> Result<Vec<Received>> {
        let wanted = path.to_owned();
        self.wait(n, timeout, format!("requests on {path:?}"), move |request| request.path == wanted).await
    }

    async fn wait(
        &self,
        n: usize,
        timeout: Duration,
        what: String,
        counts: impl Fn(&Received) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<Received>> {
        let mut received = self.state.received.subscribe();
        let waited = async move {
            let enough = |all: &Vec<Received>| all.iter().filter(|request| counts(request)).count() >= n;
            // An error says that time is over. That the sender is gone can't be: the sink holds it.
            let there = tokio::time::timeout(timeout, received.wait_for(enough)).await.is_ok();
            let all = received.borrow();
            if there {
                return Ok(all.iter().filter(|request| counts(request)).cloned().collect());
            }
            let all: Vec<String> = all.iter().map(|request| format!("{} {}", request.method, request.path)).collect();
            Err(anyhow!("waited {timeout:?} for {n} {what}, there were: {all:?}"))
        };
        // On the sink's own runtime, whose clock always runs.
        self.runtime()?.spawn(waited).await?
    }

    /// Closes the port and every connection: from its return on, connections are refused.
    ///
    /// # Errors
    /// When the server had died.
    pub async fn stop(&self) -> Result<()> {
        let serving = self.serving().take();
        let Some(Serving { stop, done }) = serving else { return Ok(()) };
        // It can't have gone without having been told to; if it has, `done` says so.
        let _ = stop.send(());
        done.await.context("the sink's server")
    }

    /// Listens again on the same port. Does nothing where it listens.
    ///
    /// # Errors
    /// When the port can't be bound.
    pub fn resume(&self) -> Result<()> {
        let mut serving = self.serving();
        if serving.is_some() {
            return Ok(());
        }
        let runtime = self.runtime()?;
        let listener = port::bind(self.port)?;
        listener.set_nonblocking(true)?;
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel();
        let done = runtime.spawn(server::serve(listener, Arc::clone(&self.state), stopped));
        *serving = Some(Serving { stop, done });
        Ok(())
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is one until the sink is dropped.
    fn runtime(&self) -> Result<&Runtime> {
        self.runtime.as_ref().context("the sink is gone")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed where a runtime runs, and tests drop their sinks there.
            runtime.shutdown_background();
        }
    }
}
