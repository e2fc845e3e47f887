//! A server that does, connection by connection, what a test tells it to: what servers and proxies do to streams.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

/// What is done on one connection.
pub struct Step {
    bytes: Vec<u8>,
    hold: bool,
}

impl Step {
    /// A stream that has begun.
    pub fn stream() -> Self {
        Self::head("200 OK", "text/event-stream", "transfer-encoding: chunked")
    }

    /// A whole answer.
    pub fn answer(status: &str, kind: &str, body: &str) -> Self {
        let mut step = Self::head(status, kind, &format!("content-length: {}\r\nretry-after: 0", body.len()));
        step.bytes.extend_from_slice(body.as_bytes());
        step
    }

    /// A problem of the API.
    pub fn problem(status: &str, detail: &str) -> Self {
        let body = serde_json::json!({"title": "x", "status": 0, "detail": detail});
        Self::answer(status, "application/problem+json", &body.to_string())
    }

    /// Any answer's status and headers.
    pub fn head(status: &str, kind: &str, headers: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n{headers}\r\n\r\n");
        Self { bytes: head.into_bytes(), hold: false }
    }

    /// A piece of the stream.
    pub fn piece(mut self, text: &str) -> Self {
        self.bytes.extend_from_slice(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
        self
    }

    /// An event of the stream.
    pub fn event(self, name: &str, data: &Value) -> Self {
        self.piece(&format!(": heartbeat\n\nevent: {name}\ndata: {data}\n\n"))
    }

    /// The stream's proper end. Without it, it is cut.
    pub fn end(mut self) -> Self {
        self.bytes.extend_from_slice(b"0\r\n\r\n");
        self
    }

    /// The connection stays open, silent.
    pub fn hold(mut self) -> Self {
        self.hold = true;
        self
    }
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    requests: Vec<String>,
}

/// The running server; it takes the steps one after the other, and closes connections beyond the last.
pub struct Script {
    port: u16,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

impl Script {
    pub fn start(steps: impl IntoIterator<Item = Step>) -> Self {
        let state = State { steps: steps.into_iter().collect(), requests: Vec::new() };
        let port = testkit::port::free().unwrap();
        let mut script = Self { port, state: Arc::new(Mutex::new(state)), accepting: None };
        script.resume();
        script
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far, whole.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The parameters of each request so far.
    pub fn queries(&self) -> Vec<Vec<(String, String)>> {
        let query = |request: &String| {
            let target = request.split(' ').nth(1).unwrap().to_owned();
            let url = url::Url::parse("http://x").unwrap().join(&target).unwrap();
            url.query_pairs().into_owned().collect()
        };
        self.requests().iter().map(query).collect()
    }

    /// Closes the port and all connections.
    pub async fn stop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Listens again on the same port.
    pub fn resume(&mut self) {
        let listener = testkit::port::bind(self.port).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let state = Arc::clone(&self.state);
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connections.spawn(serve(connection, Arc::clone(&state)));
            }
        }));
    }
}

async fn serve(mut connection: TcpStream, state: Arc<Mutex<State>>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let step = {
        let mut state = state.lock().unwrap();
        state.requests.push(String::from_utf8(request).unwrap());
        state.steps.pop_front()
    };
    let Some(step) = step else { return };
    let _ = connection.write_all(&step.bytes).await;
    if step.hold {
        std::future::pending::<()>().await;
    }
    let _ = connection.shutdown().await;
}
