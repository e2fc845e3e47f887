//! The listener under more connections than it keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{Extension, body::Body, response::IntoResponse as _};
use belfry::server::{self, Bounds, Lasting, WholeRequest};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with a stream that goes on for ever, which lasts by intent or just happens to.
async fn serve(connections: usize) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let bounds = Bounds { connections, header_timeout: PATIENCE, ..Bounds::default() };
    let handler = |request: WholeRequest| async move {
        let ticks = futures::stream::repeat(Ok::<_, Infallible>(Bytes::from_static(b"tick\n"))).then(async |tick| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            tick
        });
        let body = Body::from_stream(ticks);
        if request.uri().path() == "/lasting" {
            (Extension(Lasting), body).into_response()
        } else {
            body.into_response()
        }
    };
    tokio::spawn(server::serve(listener, bounds, stopping, handler));
    (address, stop)
}

async fn get(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert!(ticks(&mut stream).await, "it begins");
    stream
}

/// Whether something comes, rather than the end.
async fn ticks(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().is_ok_and(|read| read > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_idles_makes_room_and_what_lasts_by_intent_does_not() {
    let (address, _stop) = serve(3).await;
    let mut lasting = get(address, "/lasting").await;
    let mut other = get(address, "/").await;
    // Strangers who say nothing, more of them than there is room for.
    let mut strangers = Vec::new();
    for _ in 0..8 {
        strangers.push(TcpStream::connect(address).await.unwrap());
    }
    while ticks(&mut other).await {}
    for _ in 0..50 {
        assert!(ticks(&mut lasting).await, "the stream goes on");
    }
    let mut last = get(address, "/").await;
    assert!(ticks(&mut last).await, "and there is room");
}
