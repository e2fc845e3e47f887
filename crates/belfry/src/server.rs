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
use http::{Request, Response, StatusCode, request::Parts};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
};

use belfry_core::limits;

/// A request whose body has arrived.
pub type WholeRequest = Request<Bytes>;

/// Marks an answer that lasts by intent, and is bounded elsewhere: its connection doesn't make room for others.
#[derive(Clone, Copy, Debug)]
pub struct Lasting;

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
    /// Bytes of all bodies that are held at a time.
    pub bodies: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body: limits::EVENT_BODY,
            headers: limits::REQUEST_HEADERS,
            header_timeout: limits::HEADER_TIMEOUT,
            body_timeout: limits::BODY_TIMEOUT,
            connections: limits::CONNECTIONS,
            bodies: Semaphore::MAX_PERMITS,
        }
    }
}

/// Who answers the requests of a listener. A function of whole requests is one.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Looks at a request before its body is read. The error is the answer; then nothing of the body is read.
    ///
    /// # Errors
    /// When the body isn't worth reading.
    fn admit(&self, _head: &Parts) -> Result<(), Box<Response<Body>>> {
        Ok(())
    }

    /// Is told of an admitted request whose body was not taken: too large, too slow, cut off, or one too many.
    fn unread(&self, _head: &Parts, _answer: StatusCode) {}

    /// Answers a request.
    fn handle(&self, request: WholeRequest) -> impl Future<Output = Response<Body>> + Send;
}

impl<H, F> Handler for H
where
    H: Fn(WholeRequest) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    fn handle(&self, request: WholeRequest) -> impl Future<Output = Response<Body>> + Send {
        self(request)
    }
}

/// Serves a listener until `stop` turns true; then finishes the requests under way, and returns.
pub async fn serve(listener: TcpListener, bounds: Bounds, mut stop: watch::Receiver<bool>, handler: impl Handler) {
    let open = Arc::new(Connections::default());
    let room = Arc::new(Semaphore::new(bounds.bodies));
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
        let intake = Intake { peer, bounds, room: room.clone(), handler: handler.clone() };
        tasks.spawn(connection(stream, intake, open.clone(), stop.clone()));
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// What turns the requests of a connection into whole ones.
#[derive(Clone)]
struct Intake<H> {
    peer: SocketAddr,
    bounds: Bounds,
    room: Arc<Semaphore>,
    handler: H,
}

async fn connection<H: Handler>(
    stream: TcpStream,
    intake: Intake<H>,
    open: Arc<Connections>,
    mut stop: watch::Receiver<bool>,
) {
    let (peer, bounds) = (intake.peer, intake.bounds);
    let slot = Slot::new(open);
    let state = slot.state.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (state, intake) = (state.clone(), intake.clone());
        async move {
            let whole = intake.whole(request).await;
            state.busy();
            let response = match whole {
                Ok((request, _room)) => intake.handler.handle(request).await,
                Err(refusal) => *refusal,
            };
            if response.extensions().get::<Lasting>().is_none() {
                state.waiting();
            }
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

impl<H: Handler> Intake<H> {
    /// Collects the body, or says what is wrong with it. These answers are empty: Flux's recorder opens a new connection
    /// after every answer that has a body. With the request comes the room that its body takes up.
    async fn whole(&self, request: Request<Incoming>) -> Result<(WholeRequest, Room), Box<Response<Body>>> {
        let (mut parts, body) = request.into_parts();
        // The buffer for headers grows by reads, so it bounds them only roughly.
        let sent: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if sent + parts.uri.path().len() > self.bounds.headers {
            return Err(empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).into());
        }
        self.handler.admit(&parts)?;
        let refuse = |status| {
            self.handler.unread(&parts, status);
            Err(empty(status).into())
        };
        match tokio::time::timeout(self.bounds.body_timeout, self.collect(body)).await {
            Ok(Ok((body, room))) => {
                parts.extensions.insert(axum::extract::ConnectInfo(self.peer));
                Ok((Request::from_parts(parts, body), room))
            }
            Ok(Err(status)) => refuse(status),
            Err(_) => refuse(StatusCode::REQUEST_TIMEOUT),
        }
    }

    /// Room is taken as the bytes come, so that who only announces them keeps none from others. Of a body that is too long
    /// as much again is read and thrown away: most senders look for an answer only once they have sent everything, and
    /// one whose connection breaks meanwhile takes that for an outage.
    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Room), StatusCode> {
        let (most, most_read) = (self.bounds.body, self.bounds.body.saturating_mul(2));
        if body.size_hint().lower() > most_read as u64 {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut room = Room { semaphore: self.room.clone(), taken: 0 };
        let mut kept = BytesMut::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let data = match frame.map(|frame| frame.into_data()) {
                Ok(Ok(data)) => data,
                // Trailers.
                Ok(Err(_)) => continue,
                Err(error) => {
                    tracing::debug!(%error, peer = %self.peer, "body ended early");
                    return Err(StatusCode::BAD_REQUEST);
                }
            };
            length += data.len();
            match length {
                _ if length <= most => {
                    room.take(data.len())?;
                    kept.extend_from_slice(&data);
                }
                _ if length <= most_read => kept = BytesMut::new(),
                _ => break,
            }
        }
        if length > most { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok((kept.freeze(), room)) }
    }
}

/// The room that a body takes up, until this is dropped.
struct Room {
    semaphore: Arc<Semaphore>,
    taken: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), StatusCode> {
        let count = u32::try_from(bytes).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        self.semaphore.try_acquire_many(count).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?.forget();
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.semaphore.add_permits(self.taken);
    }
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
