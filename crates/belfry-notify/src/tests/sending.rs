//! Attempts over real sockets: order of several requests, time, and what becomes of errors.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::Uri};
use belfry_core::notification::{Failure, Outcome};
use belfry_http::StatusCode;

use super::{Case, probe};
use crate::Attempted;

type Seen = Arc<Mutex<Vec<String>>>;

/// A destination that answers each path as told, and 200 elsewhere.
async fn sink(status: u16, path: &'static str) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let router = Router::new()
        .fallback(move |State(seen): State<Seen>, uri: Uri, _: Bytes| async move {
            seen.lock().unwrap().push(uri.path().to_owned());
            if status == 0 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            if uri.path() == path { StatusCode::from_u16(status).unwrap() } else { StatusCode::OK }
        })
        .with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (at, seen)
}

async fn send(case: &Case) -> Attempted {
    case.build().unwrap().send(&probe("info")).await
}

fn misconfigured(attempted: Attempted) -> Failure {
    match attempted.outcome {
        Outcome::Misconfigured(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_second_request_goes_out_only_when_the_first_was_taken() {
    let pagerduty = |at: SocketAddr| Case::new("pagerduty", &format!("http://{at}")).channel("routing-key");
    let (at, seen) = sink(202, "").await;
    assert_eq!(
        send(&pagerduty(at)).await,
        Attempted { outcome: Outcome::Delivered, status: Some(200), ends_context: false }
    );
    assert_eq!(*seen.lock().unwrap(), ["/v2/enqueue", "/v2/change/enqueue"]);

    let (at, seen) = sink(429, "/v2/enqueue").await;
    let attempted = send(&pagerduty(at)).await;
    assert!(matches!(attempted.outcome, Outcome::Retry(_)), "{attempted:?}");
    assert_eq!((attempted.status, seen.lock().unwrap().len()), (Some(429), 1));

    let (at, seen) = sink(400, "/v2/change/enqueue").await;
    assert!(matches!(send(&pagerduty(at)).await.outcome, Outcome::Rejected(_)));
    assert_eq!(seen.lock().unwrap().len(), 2);

    let (at, seen) = sink(200, "").await;
    let mut progress = probe("info");
    progress.event.reason = "Progressing".into();
    let attempted = pagerduty(at).build().unwrap().send(&progress).await;
    assert!(matches!(attempted, Attempted { outcome: Outcome::Skipped(_), status: None, .. }));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_attempt_takes_no_longer_than_the_provider_allows() {
    let (at, _) = sink(0, "/").await;
    let mut case = Case::new("generic", &format!("http://{at}/"));
    case.spec.timeout = Some("300ms".into());
    let started = Instant::now();
    let attempted = send(&case).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    let Outcome::Retry(failure) = attempted.outcome else { panic!("{attempted:?}") };
    assert_eq!((attempted.status, failure.status, failure.unknown), (None, None, true));
    assert_eq!(failure.error, format!("no answer from {at} in time"));
    assert_eq!(case.build().unwrap().timeout(), Duration::from_millis(300));
    assert_eq!(Case::new("generic", "http://a.example").build().unwrap().timeout(), Duration::from_secs(15));
}

#[tokio::test]
async fn what_must_be_mended_is_not_called_an_outage() {
    let (at, _) = sink(404, "/gone").await;
    let failure = misconfigured(send(&Case::new("generic", &format!("http://{at}/gone"))).await);
    assert_eq!(failure.error, "answered 404 Not Found");
    // Not TLS at all.
    let failure = misconfigured(send(&Case::new("generic", &format!("https://{at}/"))).await);
    assert!(failure.error.starts_with(&format!("no trusted TLS connection to {at}")) && !failure.unknown);
    let failure = misconfigured(send(&Case::new("generic", "http://169.254.169.254/latest/meta-data")).await);
    assert!(failure.error.contains("link-local"), "{failure:?}");
}

#[tokio::test]
async fn an_outage_is_not_called_a_mistake() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let attempted = send(&Case::new("generic", &format!("http://{at}/"))).await;
    let Outcome::Retry(failure) = attempted.outcome else { panic!("{attempted:?}") };
    assert!(failure.error.starts_with(&format!("can't connect to {at}")) && !failure.unknown);
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_is_a_message_that_cannot() {
    let mut notification = probe("info");
    notification.event.reporting_controller = "a\nb".into();
    let attempted = Case::new("generic", "http://a.example").build().unwrap().send(&notification).await;
    assert!(matches!(attempted.outcome, Outcome::Rejected(_)));
}
