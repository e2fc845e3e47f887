//! The client against real sockets.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::Request as Incoming,
    http::{HeaderMap, StatusCode, header},
    routing::{any, post},
};
use belfry_core::limits;
use belfry_http::{Client, Clients, Environment, Error, ErrorKind, Proxy, Request, Response, Route};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PATIENT: Duration = Duration::from_secs(10);

fn client() -> Client {
    Clients::with_environment(Environment::default()).client(&Route::default()).unwrap()
}

fn request(url: &str) -> Request {
    Request::post(url.parse().unwrap(), "application/json", "{\"a\":1}")
}

async fn send(url: &str) -> Result<Response, Error> {
    client().send(&request(url), PATIENT).await
}

/// Serves a router and counts the connections that were made to it.
async fn serve(router: Router) -> (SocketAddr, Arc<AtomicUsize>) {
    struct Counting(TcpListener, Arc<AtomicUsize>);
    impl axum::serve::Listener for Counting {
        type Io = TcpStream;
        type Addr = SocketAddr;
        async fn accept(&mut self) -> (TcpStream, SocketAddr) {
            let accepted = self.0.accept().await.unwrap();
            self.1.fetch_add(1, Ordering::SeqCst);
            accepted
        }
        fn local_addr(&self) -> std::io::Result<SocketAddr> {
            self.0.local_addr()
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let listener = Counting(listener, count.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (at, count)
}

/// Gives every connection the same bytes, once something was read from it, and then holds it open or not.
async fn say(bytes: &'static [u8], hold: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(bytes).await;
                if hold {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    at
}

async fn echo(method: axum::http::Method, uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> String {
    let mut lines = vec![format!("{method} {uri}")];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    lines.push(String::from_utf8_lossy(&body).into_owned());
    lines.join("\n")
}

#[tokio::test]
async fn a_request_arrives_as_it_was_made() {
    let (at, _) = serve(Router::new().fallback(any(echo))).await;
    let answer = send(&format!("http://user:p%40ss@{at}/a%20b?c=d")).await.unwrap();
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let expected = [
        "POST /a%20b?c=d".to_owned(),
        "accept: */*".to_owned(),
        "authorization: Basic dXNlcjpwQHNz".to_owned(),
        "content-length: 7".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: {at}"),
        format!("user-agent: {}", belfry_http::USER_AGENT),
        "{\"a\":1}".to_owned(),
    ];
    assert_eq!(lines, expected);
    assert!(answer.complete);
}

#[tokio::test]
async fn connections_are_reused_whatever_is_answered() {
    let router = Router::new()
        .route("/empty", post(|| async { StatusCode::NO_CONTENT }))
        .route("/nothing", post(|| async { StatusCode::OK }))
        .route("/failed", post(|| async { (StatusCode::BAD_GATEWAY, "x".repeat(10)) }))
        .route("/long", post(|| async { "x".repeat(limits::ANSWER_READ + 100_000) }));
    let (at, connections) = serve(router).await;
    let clients = Clients::with_environment(Environment::default());
    for path in ["empty", "nothing", "failed", "long", "empty", "nothing", "long"] {
        // A client from the cache each time, as notifiers are made anew with each delivery.
        let client = clients.client(&Route::default()).unwrap();
        let answer = client.send(&request(&format!("http://{at}/{path}")), PATIENT).await.unwrap();
        assert!(answer.body.len() <= limits::ANSWER_READ);
        assert_eq!(answer.complete, path != "long");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let client = client();
    for _ in 0..3 {
        let answer = client.send(&request(&format!("http://{at}/")), PATIENT).await.unwrap();
        assert_eq!(answer.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_timeout_after_sending_leaves_it_open_whether_it_was_taken() {
    let at = say(b"", true).await;
    let started = Instant::now();
    let error = client().send(&request(&format!("http://{at}/")), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Timeout, true));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_timeout_before_sending_is_known() {
    // A TLS handshake that is never answered: nothing of the request has left.
    let at = say(b"", true).await;
    let error = client().send(&request(&format!("https://{at}/")), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Timeout, false));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let error = send(&format!("http://{at}/secret-path?secret=query")).await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Connect, false));
    assert_eq!(error.to_string(), format!("can't connect to {at}: Connection refused (os error 111)"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let error = send("http://nobody.invalid/secret").await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Dns, false));
    assert!(error.to_string().starts_with("can't resolve nobody.invalid"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_connection_closed_before_the_answer() {
    let at = say(b"", false).await;
    let error = send(&format!("http://{at}/")).await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Closed, true));
    let at = say(b"HTTP/1.1 200 OK\r\ncontent-le", false).await;
    assert_eq!(send(&format!("http://{at}/")).await.unwrap_err().kind, ErrorKind::Closed);
    let at = say(b"SSH-2.0-OpenSSH_9.9\r\n", false).await;
    assert_eq!(send(&format!("http://{at}/")).await.unwrap_err().kind, ErrorKind::Closed);
}

#[tokio::test]
async fn an_answer_cut_off_is_still_an_answer() {
    let at = say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\nno, bec", false).await;
    let answer = send(&format!("http://{at}/")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.complete), (400, false));
    assert!(answer.body.is_empty() || answer.body == "no, bec");
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_at_the_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 500 x\r\n\r\n").await;
            while socket.write_all(&[b'x'; 8192]).await.is_ok() {}
        }
    });
    let answer = send(&format!("http://{at}/")).await.unwrap();
    assert_eq!((answer.body.len(), answer.complete), (limits::ANSWER_READ, false));
}

#[tokio::test]
async fn a_body_that_never_comes_holds_nothing_up() {
    let at = say(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nretry-after: 7\r\n\r\n", true).await;
    let started = Instant::now();
    let answer = client().send(&request(&format!("http://{at}/")), Duration::from_millis(300)).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.complete), (200, false));
    assert_eq!(answer.retry_after, Some(Duration::from_secs(7)));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn only_redirects_that_keep_the_request_are_followed() {
    let redirect = |status: u16, to: &'static str| {
        move || async move { (StatusCode::from_u16(status).unwrap(), [(header::LOCATION, to)]) }
    };
    let (elsewhere, visited) = serve(Router::new().fallback(any(echo))).await;
    let other_host: &'static str = Box::leak(format!("http://{elsewhere}/end").into_boxed_str());
    let router = Router::new()
        .route("/307", post(redirect(307, "/end")))
        .route("/308", post(redirect(308, "end")))
        .route("/302", post(redirect(302, "/end")))
        .route("/301", post(redirect(301, "/end")))
        .route("/loop", post(redirect(307, "/loop")))
        .route("/away", post(redirect(307, other_host)))
        .route("/nowhere", post(redirect(307, "")))
        .route("/end", post(|body: Bytes| async move { body }));
    let (at, _) = serve(router).await;
    for path in ["307", "308"] {
        let answer = send(&format!("http://{at}/{path}")).await.unwrap();
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"{\"a\":1}"[..]), "{path}");
    }
    for (path, status) in [("302", 302), ("301", 301), ("loop", 307), ("away", 307), ("nowhere", 307)] {
        assert_eq!(send(&format!("http://{at}/{path}")).await.unwrap().status, status, "{path}");
    }
    assert_eq!(visited.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn link_local_addresses_are_refused() {
    for url in ["http://169.254.169.254/x", "https://[fe80::1]/x", "http://[fd00:ec2::254]/", "http://2852039166/"] {
        let error = send(url).await.unwrap_err();
        assert_eq!((error.kind, error.unknown()), (ErrorKind::Refused, false), "{url}");
        assert!(error.to_string().contains("link-local"), "{error}");
    }
    assert_eq!(send("ftp://127.0.0.1/x").await.unwrap_err().kind, ErrorKind::BadUrl);
}

#[tokio::test]
async fn a_proxy_is_asked_with_its_credentials() {
    let (proxy, _) = serve(Router::new().fallback(any(|request: Incoming| async move {
        let auth = request.headers().get(header::PROXY_AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
        format!("{} {}", request.uri(), auth.unwrap_or_default())
    })))
    .await;
    let through =
        |route: Route<'_>, environment: Environment| Clients::with_environment(environment).client(&route).unwrap();
    let url = format!("http://proxyuser:proxypw@{proxy}");
    let by_url = Route { proxy: Some(Proxy { url: &url, credentials: None }), ..Route::default() };
    let plain = format!("http://{proxy}");
    let by_pair = Route { proxy: Some(Proxy { url: &plain, credentials: Some(("proxyuser", "proxypw")) }), ..by_url };
    let environment = Environment {
        http: Some(format!("proxyuser:proxypw@{proxy}")),
        no: Some("direct.invalid".into()),
        https: None,
    };
    for (route, environment) in
        [(by_url, Environment::default()), (by_pair, Environment::default()), (Route::default(), environment.clone())]
    {
        let answer = through(route, environment).send(&request("http://nobody.invalid/x"), PATIENT).await.unwrap();
        assert_eq!(answer.body, "http://nobody.invalid/x Basic cHJveHl1c2VyOnByb3h5cHc=");
    }
    // NO_PROXY and this machine are reached directly.
    let error = through(Route::default(), environment.clone()).send(&request("http://direct.invalid/"), PATIENT).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Dns);
    let (here, _) = serve(Router::new().fallback(any(|| async { "here" }))).await;
    let answer = through(Route::default(), environment).send(&request(&format!("http://{here}/")), PATIENT).await;
    assert_eq!(answer.unwrap().body, "here");
}

#[tokio::test]
async fn a_proxy_that_refuses_to_connect() {
    let at = say(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", false).await;
    let url = format!("http://proxyuser:proxypw@{at}");
    let route = Route { proxy: Some(Proxy { url: &url, credentials: None }), ..Route::default() };
    let client = Clients::with_environment(Environment::default()).client(&route).unwrap();
    let error = client.send(&request("https://nobody.invalid/secret"), PATIENT).await.unwrap_err();
    assert_eq!((error.kind, error.unknown()), (ErrorKind::Connect, false));
    assert!(!error.to_string().contains("proxypw") && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_socks_proxy_is_given_the_name_and_the_credentials() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let said = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        // Methods, credentials, where to, the request; each but the last is granted.
        let granted: [&[u8]; 3] = [&[5, 2], &[1, 0], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]];
        for grant in granted {
            let mut buffer = [0; 256];
            let read = socket.read(&mut buffer).await.unwrap();
            said.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
            socket.write_all(grant).await.unwrap();
        }
        let _ = socket.read(&mut [0; 4096]).await.unwrap();
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        said
    });
    let url = format!("socks5://{proxy}");
    let route = Route { proxy: Some(Proxy { url: &url, credentials: Some(("user", "p@ss")) }), ..Route::default() };
    let client = Clients::with_environment(Environment::default()).client(&route).unwrap();
    let answer = client.send(&request("http://nobody.invalid/x"), PATIENT).await.unwrap();
    assert_eq!(answer.status, 204);
    let said = said.await.unwrap();
    assert_eq!(said[1], "\u{1}\u{4}user\u{4}p@ss");
    assert!(said[2].contains("nobody.invalid"), "{said:?}");
}
