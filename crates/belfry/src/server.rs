//! The listener that every port shares: bounded headers, bodies, times and connections. A handler sees whole requests
//! only; a client that is slow to send one waits here, and makes room when connections run short.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};

use belfry_core::limits;

/// A request whose body has arrived.
pub type WholeRequest = Request<Bytes>;

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of the headers.
    pub headers: usize,
    /// Time for headers to arrive, and for a kept-alive connection to idle.
    pub header_timeout: Duration,
    /// Time for a body to arrive.
    pub body_timeout: Duration,
    /// Open connections.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: limits::EVENT_BODY,
            headers: limits::REQUEST_HEADERS,
            header_timeout: limits::HEADER_TIMEOUT,
            body_timeout: limits::BODY_TIMEOUT,
            connections: limits::CONNECTIONS,
        }
    }
}

/// Serves a listener until `stop` turns true; then finishes the requests under way, and returns.
pub async fn serve<H, F>(listener: TcpListener, bounds: Bounds, mut stop: watch::Receiver<bool>, handler: H)
where
    H: Fn(WholeRequest) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let open = Arc::new(Connections::default());
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: closing what idles is the only thing that helps.
                tracing::warn!(%error, "can't accept a connection");
                open.make_room();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if tasks.len() >= bounds.connections {
            open.make_room();
        }
        let _ = stream.set_nodelay(true);
        tasks.spawn(connection(stream, peer, bounds, open.clone(), stop.clone(), handler.clone()));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

async fn connection<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    bounds: Bounds,
    open: Arc<Connections>,
    mut stop: watch::Receiver<bool>,
    handler: H,
) where
    H: Fn(WholeRequest) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let slot = Slot::new(open);
    let state = slot.state.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, handler) = (state.clone(), handler.clone());
        async move {
            let whole = whole(request, peer, bounds).await;
            state.busy();
            let response = match whole {
                Ok(request) => handler(request).await,
                Err(refusal) => refusal,
            };
            state.waiting();
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(bounds.headers)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = &mut served => result,
        () = slot.state.evicted.notified() => return,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

/// Collects the body, or says what is wrong with it. All answers are empty: Flux's recorder opens a new connection after
/// every answer that has a body.
async fn whole(request: Request<Incoming>, peer: SocketAddr, bounds: Bounds) -> Result<WholeRequest, Response<Body>> {
    let (mut parts, body) = request.into_parts();
    // The buffer for headers grows by reads, so it bounds them only roughly.
    let sent: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if sent + parts.uri.path().len() > bounds.headers {
        return Err(empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
    }
    match tokio::time::timeout(bounds.body_timeout, collect(body, bounds.body)).await {
        Ok(Ok(Some(body))) => {
            parts.extensions.insert(axum::extract::ConnectInfo(peer));
            Ok(Request::from_parts(parts, body))
        }
        Ok(Ok(None)) => Err(empty(StatusCode::PAYLOAD_TOO_LARGE)),
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "body ended early");
            Err(empty(StatusCode::BAD_REQUEST))
        }
        Err(_) => Err(empty(StatusCode::REQUEST_TIMEOUT)),
    }
}

/// The body, or `None` when it is longer than `most` bytes. As much again is read and thrown away: most senders look for an
/// answer only once they have sent everything, and one whose connection breaks meanwhile takes that for an outage.
async fn collect(mut body: Incoming, most: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut kept = BytesMut::with_capacity(body.size_hint().lower().min(64 * 1024) as usize);
    let mut length = 0;
    if body.size_hint().lower() > most.saturating_mul(2) as u64 {
        return Ok(None);
    }
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length += data.len();
        match length {
            _ if length <= most => kept.extend_from_slice(&data),
            _ if length <= most.saturating_mul(2) => kept = BytesMut::new(),
            _ => break,
        }
    }
    Ok((length <= most).then(|| kept.freeze()))
}

/// Returns once the process is to stop.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Binds a listener.
///
/// # Errors
/// When the address doesn't parse or can't be had; the message names both flag and address.
pub async fn bind(flag: &str, address: &str) -> anyhow::Result<TcpListener> {
    use anyhow::Context as _;
    let bound = match address.strip_prefix(':') {
        // As Go has it: every interface, IPv6 and IPv4 alike where there is IPv6.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    };
    bound.with_context(|| format!("{flag}: can't listen on {address}"))
}

/// The connections of one listener, so that the one that has waited longest for its peer can make room.
#[derive(Default)]
struct Connections {
    states: Mutex<HashMap<u64, Arc<State>>>,
    next: AtomicU64,
}

impl Connections {
    fn make_room(&self) {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = states.values().filter(|state| state.since.load(Ordering::Relaxed) != BUSY);
        if let Some(state) = longest.min_by_key(|state| state.since.load(Ordering::Relaxed)) {
            state.since.store(BUSY, Ordering::Relaxed);
            state.evicted.notify_one();
        }
    }
}

const BUSY: u64 = u64::MAX;

struct State {
    born: Instant,
    /// When it began to wait for its peer, in microseconds of the process; [`BUSY`] while a request is worked on.
    since: AtomicU64,
    evicted: Notify,
}

impl State {
    fn busy(&self) {
        self.since.store(BUSY, Ordering::Relaxed);
    }

    fn waiting(&self) {
        self.since.store(self.micros(), Ordering::Relaxed);
    }

    fn micros(&self) -> u64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let start = *START.get_or_init(|| self.born);
        u64::try_from(start.elapsed().as_micros()).unwrap_or(BUSY - 1)
    }
}

struct Slot {
    id: u64,
    open: Arc<Connections>,
    state: Arc<State>,
}

impl Slot {
    fn new(open: Arc<Connections>) -> Self {
        let state = Arc::new(State { born: Instant::now(), since: AtomicU64::new(0), evicted: Notify::new() });
        state.waiting();
        let id = open.next.fetch_add(1, Ordering::Relaxed);
        open.states.lock().unwrap_or_else(PoisonError::into_inner).insert(id, state.clone());
        Self { id, open, state }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.states.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
