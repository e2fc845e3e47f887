//! Each kind of answer, as a client sees it that reads the bytes of its connection.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the helpers of tests are tests too")]

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use testkit::{Answer, Sink};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(5);

async fn send(stream: &mut TcpStream, path: &str, body: &str) {
    let head = format!("POST {path} HTTP/1.1\r\nHost: sink\r\nX-Test: yes\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}

/// What comes until the connection closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection stays open") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8(bytes).unwrap()
}

/// One answer without a body.
async fn head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap().into());
    }
    text
}

async fn connect(sink: &Sink) -> TcpStream {
    TcpStream::connect(("127.0.0.1", sink.port())).await.unwrap()
}

#[tokio::test]
async fn a_request_is_recorded_whole() {
    let sink = Sink::start().unwrap();
    let mut stream = connect(&sink).await;
    let before = Instant::now();
    send(&mut stream, "/hook?x=1", r#"{"a":1}"#).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));

    let all = sink.received();
    let [request] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.query.as_deref()),
        ("POST", "/hook", Some("x=1"))
    );
    assert_eq!((request.header("x-test"), request.header("x-none")), ("yes", ""));
    assert_eq!(request.text(), r#"{"a":1}"#);
    assert_eq!(request.json().unwrap()["a"], 1);
    assert!(before <= request.arrived && request.arrived <= Instant::now());
    assert_eq!((request.connection, request.peer_port), (1, stream.local_addr().unwrap().port()));
}

#[tokio::test]
async fn answers_follow_the_script() {
    let sink = Sink::start().unwrap();
    sink.answer([Answer::Status(500), Answer::header(429, "retry-after", "7")]);
    sink.answer_on("/json", [Answer::body(201, "application/json", r#"{"id":1}"#)]);
    sink.default_answer_on("/gone", Answer::Status(410));
    sink.default_answer(Answer::Status(204));

    let mut stream = connect(&sink).await;
    let mut heads = Vec::new();
    for path in ["/a", "/gone", "/a", "/a"] {
        send(&mut stream, path, "").await;
        heads.push(head(&mut stream).await);
    }
    let statuses: Vec<&str> = heads.iter().map(|head| &head[9..12]).collect();
    assert_eq!(statuses, ["500", "410", "429", "204"]);
    assert!(heads[2].contains("retry-after: 7\r\n"), "{}", heads[2]);

    send(&mut stream, "/json", "").await;
    let json = head(&mut stream).await;
    assert!(json.starts_with("HTTP/1.1 201 ") && json.contains("content-type: application/json\r\n"), "{json}");
    let mut body = [0; 8];
    stream.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, br#"{"id":1}"#);
    assert_eq!((sink.connections(), sink.connections_used()), (1, 1));
}

#[tokio::test]
async fn hang_is_silence_on_an_open_connection() {
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::Hang);
    let mut stream = connect(&sink).await;
    send(&mut stream, "/", "taken").await;
    let silence = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(sink.received()[0].text(), "taken");
}

#[tokio::test]
async fn close_is_the_end_without_a_byte() {
    let sink = Sink::start().unwrap();
    sink.answer([Answer::Close]);
    let mut stream = connect(&sink).await;
    send(&mut stream, "/", "taken").await;
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(sink.received()[0].text(), "taken");
}

#[tokio::test]
async fn close_mid_answer_is_half_of_the_announced_body() {
    let sink = Sink::start().unwrap();
    sink.answer([Answer::CloseMidAnswer]);
    let mut stream = connect(&sink).await;
    send(&mut stream, "/", "").await;
    let answer = rest(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("an announced length");
    let length: usize = length.parse().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(!body.is_empty() && body.len() < length, "{} of {length}", body.len());
}

#[tokio::test]
async fn slow_is_the_answer_after_a_delay_that_is_real() {
    let sink = Sink::start().unwrap();
    let delay = Duration::from_millis(150);
    sink.answer([Answer::Status(202).after(delay)]);
    let mut stream = connect(&sink).await;
    let sent = Instant::now();
    send(&mut stream, "/", "").await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 202 "));
    assert!(sent.elapsed() >= delay);
}

#[tokio::test]
async fn a_stopped_sink_refuses_and_comes_back_on_its_port_with_its_record() {
    let sink = Sink::start().unwrap();
    sink.default_answer_on("/hang", Answer::Hang);
    let mut open = connect(&sink).await;
    send(&mut open, "/hang", "").await;
    sink.wait_for(1, SOON).await.unwrap();
    let port = sink.port();

    sink.stop().await.unwrap();
    sink.stop().await.unwrap();
    assert_eq!(rest(&mut open).await, "");
    assert_eq!(TcpStream::connect(("127.0.0.1", port)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    sink.resume().unwrap();
    sink.resume().unwrap();
    assert_eq!(testkit::probe::get(&sink.url("/again")).await.unwrap().status, 200);
    assert_eq!((sink.port(), sink.connections()), (port, 2));
    assert_eq!(sink.received_on("/again")[0].connection, 2);
}

#[tokio::test]
async fn waiting_ends_with_the_requests_or_says_what_came_instead() {
    let sink = Sink::start().unwrap();
    let mut stream = connect(&sink).await;
    let (waited, ()) = tokio::join!(sink.wait_for_on("/b", 1, SOON), async {
        for path in ["/a", "/b"] {
            send(&mut stream, path, "").await;
            head(&mut stream).await;
        }
    });
    assert_eq!(waited.unwrap()[0].path, "/b");
    assert_eq!(sink.wait_for(2, SOON).await.unwrap().len(), 2);

    let limit = Duration::from_millis(50);
    let missed = sink.wait_for_on("/b", 2, limit).await.unwrap_err();
    assert_eq!(missed.to_string(), r#"waited 50ms for 2 requests on "/b", there were: ["POST /a", "POST /b"]"#);
    sink.forget();
    let missed = sink.wait_for(1, limit).await.unwrap_err();
    assert_eq!(missed.to_string(), "waited 50ms for 1 requests, there were: []");
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_not_end_a_wait() {
    let sink = Sink::start().unwrap();
    let url = sink.url("/");
    let client = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let mut stream = std::net::TcpStream::connect(url.trim_start_matches("http://").trim_end_matches('/')).unwrap();
        std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n").unwrap();
        stream
    });
    sink.wait_for(1, SOON).await.unwrap();
    client.join().unwrap();
}
