//! The HTTP side of the sink: takes connections, records requests, gives scripted answers.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::{Answer, Received, State};

/// The body of which [`Answer::CloseMidAnswer`] gives half.
const CUT_BODY: &[u8] = b"{\"half\": 1, \"other half\": 2}";

/// Serves until `stop`, then closes the port and every connection before it ends.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, mut stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(stream, peer, state.connected(), Arc::clone(&state)));
                }
                // Such as too many open files: passes once connections have ended.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stop => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, number: u64, state: Arc<State>) {
    let service = service_fn(|request| answer(request, peer, number, &state));
    // Ends with an error where the client, or the script, closed it early.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    number: u64,
    state: &State,
) -> io::Result<Response<Answering>> {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = head.uri.path().to_owned();
    let answer = state.record(Received {
        method: head.method,
        path,
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
        arrived,
        connection: number,
        peer_port: peer.port(),
    });
    respond(answer).await
}

/// An error closes the connection.
async fn respond(mut answer: Answer) -> io::Result<Response<Answering>> {
    loop {
        let (status, headers, body) = match answer {
            Answer::Status(status) => (status, Vec::new(), Answering::Whole(Bytes::new())),
            Answer::StatusWith(status, headers, body) => (status, headers, Answering::Whole(body)),
            Answer::CloseMidAnswer => (200, Vec::new(), Answering::Cut(Cut::Half)),
            Answer::Close => return Err(io::Error::other("closed by the script")),
            Answer::Hang => match std::future::pending::<Infallible>().await {},
            Answer::Slow(delay, then) => {
                tokio::time::sleep(delay).await;
                answer = *then;
                continue;
            }
        };
        let mut response = Response::builder().status(StatusCode::from_u16(status).map_err(io::Error::other)?);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return response.body(body).map_err(io::Error::other);
    }
}

/// The body of an answer.
enum Answering {
    Whole(Bytes),
    Cut(Cut),
}

/// Where a cut body stands: half of it, a pause in which that is sent, the end of the connection.
enum Cut {
    Half,
    Sent,
    End,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Cut(cut @ Cut::Half) => {
                *cut = Cut::Sent;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CUT_BODY[..CUT_BODY.len() / 2])))))
            }
            Self::Cut(cut @ Cut::Sent) => {
                *cut = Cut::End;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Cut(Cut::End) => Poll::Ready(Some(Err(io::Error::other("cut by the script")))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Cut(_) => CUT_BODY.len() as u64,
        })
    }
}
