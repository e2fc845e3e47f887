//! No secret of a Provider ever stands in an error: every type, a secret in every position, and a destination that
//! answers with everything that it was sent.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use belfry_core::notification::{Failure, Outcome};
use belfry_http::{Error, ErrorKind, Request};

use super::{
    Case, answer, probe_for,
    script::{concluded, spoken},
};
use crate::{Attempted, registry::SUPPORTED};

const TOKEN: &str = "token-<s3cr&t>-0123";
const SECRETS: [&str; 9] = [
    TOKEN,
    "s3cr",
    "pathsecret-0123456789",
    "querysecret-0123",
    "urlpassword-0123",
    "basicpassword-0123",
    "headersecret-0123",
    "proxypassword-0123",
    "routingkey-0123",
];

/// A Provider that is made of secrets.
fn case(type_: &str, host: &str) -> Case {
    let folder = match type_ {
        "bitbucketserver" => "scm/services",
        "azuredevops" => "services/project/_git",
        _ => "services",
    };
    let address =
        format!("http://urluser:urlpassword-0123@{host}/{folder}/pathsecret-0123456789?b=c&key=querysecret-0123");
    let channel = if type_ == "zulip" { "stream/topic" } else { "routingkey-0123" };
    Case::new(type_, "").channel(channel).secret(&[
        ("address", &address),
        ("token", &format!("{TOKEN}\n")),
        ("username", "basicuser"),
        ("password", "basicpassword-0123"),
        ("headers", "X-Key: headersecret-0123\nX-Auth: Bearer headersecret-0123\n"),
        ("proxy", "http://proxyuser:proxypassword-0123@proxy.example:3128/"),
    ])
}

fn failure(attempted: Attempted) -> Failure {
    match attempted.outcome {
        Outcome::Retry(failure) | Outcome::Misconfigured(failure) | Outcome::Rejected(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn assert_tight(type_: &str, text: &str) {
    let pairs = ["urluser:urlpassword-0123", "basicuser:basicpassword-0123", "proxyuser:proxypassword-0123"];
    let secrets = SECRETS.into_iter().filter(|secret| type_ == "pagerduty" || *secret != "routingkey-0123");
    for secret in secrets.map(str::to_owned).chain(pairs.map(|pair| BASE64_STANDARD.encode(pair))) {
        assert!(!text.contains(&secret), "{type_}: '{secret}' in '{text}'");
    }
}

/// What a destination might say about a request, one piece at a time, for only 256 bytes are kept.
fn echoes(request: &Request) -> Vec<String> {
    let mut pieces = vec![
        format!("cannot {} {}", request.method, request.url),
        format!("no route {}?{}", request.url.path(), request.url.query().unwrap_or_default()),
        format!("query {:?}", request.url.query_pairs().collect::<Vec<_>>()),
        format!("host user {}:{}", request.url.username(), request.url.password().unwrap_or_default()),
        String::from_utf8_lossy(&request.body).into_owned(),
    ];
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        pieces.push(format!("{name}: {value}"));
        pieces.push(serde_json::json!({ "bad": value }).to_string());
        let (_, decoded) = value.split_once("Basic ").unwrap_or_default();
        pieces.push(String::from_utf8(BASE64_STANDARD.decode(decoded).unwrap()).unwrap());
    }
    for part in request.url.path().split('/') {
        pieces.push(format!("no such thing: {part}"));
    }
    pieces.push(TOKEN.to_owned());
    pieces.push(format!("{:?}", format!("{TOKEN}\n")));
    pieces
}

#[test]
fn no_answer_brings_a_secret_back() {
    for entry in SUPPORTED {
        let notifier = case(entry.type_, "sink.example").build().unwrap();
        assert_tight(entry.type_, &format!("{notifier:?}"));
        for severity in ["info", "error"] {
            for (step, request) in spoken(&notifier, &probe_for(entry.type_, severity)).unwrap().iter().enumerate() {
                assert_tight(entry.type_, &format!("{request:?}"));
                for echo in echoes(request) {
                    for status in [400, 401, 302, 500] {
                        // Anew: what it was told before would change what it asks.
                        let notifier = case(entry.type_, "sink.example").build().unwrap();
                        let failure = failure(concluded(&notifier, step, Ok(answer(status, &echo))));
                        assert_tight(entry.type_, &failure.error);
                    }
                }
            }
        }
    }
}

#[test]
fn a_secret_torn_at_the_end_of_what_was_read_is_not_shown_in_part() {
    let notifier = case("slack", "sink.example").build().unwrap();
    for end in 4..TOKEN.len() {
        let failure = failure(concluded(&notifier, 0, Ok(answer(400, &format!("you sent {}", &TOKEN[..end])))));
        assert_eq!(failure.error, "answered 400 Bad Request: you sent");
    }
}

#[test]
fn transport_errors_name_the_host_only() {
    for entry in SUPPORTED {
        for kind in [ErrorKind::Connect, ErrorKind::Tls, ErrorKind::Timeout, ErrorKind::Closed, ErrorKind::Refused] {
            let notifier = case(entry.type_, "sink.example").build().unwrap();
            let error = Error { kind, host: "sink.example".into(), detail: format!("x {TOKEN}"), sent: true };
            let failure = failure(concluded(&notifier, 0, Err(error)));
            assert!(failure.error.contains("sink.example"), "{}", failure.error);
            assert_tight(entry.type_, &failure.error);
        }
    }
}

#[test]
fn errors_in_the_settings_show_no_value() {
    for type_ in SUPPORTED.iter().map(|entry| entry.type_) {
        for (key, value) in [
            ("address", "http://bad host/pathsecret-0123456789"),
            ("token", "token-<s3cr&t>-0123\u{1}"),
            ("headers", "headersecret-0123"),
            ("headers", "headersecret-0123 x: y"),
            ("proxy", "ftp://proxyuser:proxypassword-0123@x"),
        ] {
            let mut pairs = vec![("address", "http://sink.example"), ("token", "t"), (key, value)];
            pairs.rotate_right(usize::from(key == "address"));
            let case = case(type_, "x").secret(&pairs);
            if let Err(error) = case.build() {
                assert_tight(type_, &format!("{error} {error:?}"));
            }
        }
    }
}

/// A destination that answers 400 with everything that it was sent.
async fn echo() -> SocketAddr {
    let router = Router::new().fallback(|uri: Uri, headers: HeaderMap, body: Bytes| async move {
        let body = String::from_utf8_lossy(&body).into_owned();
        let said = if uri.query().is_some_and(|q| q.contains("body")) { body } else { format!("{headers:?} {uri}") };
        (StatusCode::BAD_REQUEST, said)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    at
}

#[tokio::test]
async fn over_a_real_socket_too() {
    let at = echo().await;
    for entry in SUPPORTED {
        let mut case = case(entry.type_, &at.to_string());
        let secret = case.secret.take().unwrap();
        // Telegram's and Bitbucket's addresses are not ours to choose: they meet the echo as their proxy.
        let elsewhere = matches!(entry.type_, "telegram" | "bitbucket");
        let proxy = elsewhere.then(|| format!("http://proxyuser:proxypassword-0123@{at}"));
        case.secret = Some(
            secret
                .keys()
                .filter(|key| *key != "proxy")
                .map(|key| (key.to_owned(), secret.bytes(key).unwrap().to_vec()))
                .chain(proxy.map(|proxy| ("proxy".to_owned(), proxy.into_bytes())))
                .collect(),
        );
        let attempted = case.build().unwrap().send(&probe_for(entry.type_, "error")).await;
        assert_eq!(attempted.status, (!elsewhere).then_some(400), "{}", entry.type_);
        assert_tight(entry.type_, &failure(attempted).error);
    }
}
