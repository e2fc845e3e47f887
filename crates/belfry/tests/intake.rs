//! The events port as Flux's controllers, `generic` providers and strangers meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::time::{Duration, Instant};

use common::{Belfry, PATIENCE, client, event, generic};
use serde_json::{Value, json};
use testkit::{Sink, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn status(belfry: &Belfry, path: &str, body: impl Into<reqwest::Body>) -> u16 {
    let url = format!("{}{path}", belfry.events);
    let answer = client().post(url).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.bytes().await.unwrap().len(), 0, "answers are empty: {status}");
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_the_peers() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    let body = |text: &str| event("app", "info", text).to_string();
    for (path, body, expected) in [
        ("", body("root"), 202),
        ("events", body("events"), 202),
        ("any/path/at/all?x=y", body("any path"), 202),
        ("", "{}".into(), 202),
        ("", r#"{"INVOLVEDOBJECT":{"KIND":"x"},"Message":"case","unknown":[1]}"#.into(), 202),
        ("", String::new(), 400),
        ("", "[]".into(), 400),
        ("", "{} trailing".into(), 400),
        ("", r#"{"metadata":{"a":1}}"#.into(), 400),
        ("", r#"{"timestamp":"tomorrow"}"#.into(), 400),
    ] {
        assert_eq!(status(&belfry, path, body.clone()).await, expected, "{path} {body}");
    }
    // The limit is inclusive, and counts before the decoder is asked.
    let largest = |bytes: usize| {
        let start = r#"{"message":""#.to_owned();
        let end = r#""}"#;
        start.clone() + &"x".repeat(bytes - start.len() - end.len()) + end
    };
    assert_eq!(status(&belfry, "", largest(3_145_728)).await, 202);
    assert_eq!(status(&belfry, "", largest(3_145_729)).await, 413);
    assert_eq!(status(&belfry, "", vec![b'x'; 6_000_000]).await, 413);
    let put = client().put(&belfry.events).body(body("by PUT")).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_told_so_in_the_words_of_their_sender() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    let post = async |forwarded: bool, event: &Value| {
        let request = client().post(&belfry.events).json(event);
        let request = if forwarded { request.header("Gotk-Component", "kustomize-controller") } else { request };
        request.send().await.unwrap()
    };
    let error = event("app", "error", "it failed");
    let first = post(false, &error).await;
    assert_eq!(first.status().as_u16(), 202);
    assert_eq!(first.headers()["x-ratelimit-limit"], "1");
    let mut later = error.clone();
    later["timestamp"] = json!("2026-01-02T03:04:09Z");
    let repeat = post(false, &later).await;
    assert_eq!(repeat.status().as_u16(), 429);
    assert_eq!(repeat.headers()["retry-after"], repeat.headers()["x-ratelimit-reset"]);
    assert_eq!(post(false, &error).await.status().as_u16(), 429, "the same bytes again");
    assert_eq!(post(true, &error).await.status().as_u16(), 202, "a generic provider must not complain");

    // A recovery, and the failure after it, get through, however alike the texts are.
    let mut success = event("app", "info", "it works");
    success["reason"] = json!("ReconciliationSucceeded");
    success["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    let at = |event: &Value, second: u32| {
        let mut event = event.clone();
        event["timestamp"] = json!(format!("2026-01-02T03:05:{second:02}Z"));
        event
    };
    for second in 0..3 {
        assert_eq!(post(false, &at(&success, second * 2)).await.status().as_u16(), 202);
        assert_eq!(post(false, &at(&error, second * 2 + 1)).await.status().as_u16(), 202);
    }
    sink.wait_for(7, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_of_metadata_reach_the_destination_alike() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    let mut prefixed = event("hop-a", "info", "from a controller");
    prefixed["metadata"]["event.toolkit.fluxcd.io/team"] = json!("web");
    prefixed["metadata"]["kustomize.toolkit.fluxcd.io/token"] = json!("internal");
    let mut stripped = event("hop-b", "info", "passed on");
    stripped["metadata"] =
        json!({"revision": prefixed["metadata"]["kustomize.toolkit.fluxcd.io/revision"], "team": "web"});
    belfry.accept(&prefixed).await;
    let answer = client().post(&belfry.events).header("Gotk-Component", "c").json(&stripped).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    let received = sink.wait_for(2, PATIENCE).await.unwrap();
    let metadata = |i: usize| received[i].json().unwrap()["metadata"].clone();
    assert_eq!(metadata(0), metadata(1));
    assert_eq!(metadata(0), stripped["metadata"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let belfry = Belfry::start("", &[]).await;
    let address = belfry.events.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let exchange = async |header: usize| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request =
            format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX-Large: {}\r\n\r\n{{}}", "x".repeat(header));
        // The server may answer, and close, before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    assert_eq!(exchange(200_000).await, "HTTP/1.1 202");
    assert_eq!(exchange(300_000).await, "HTTP/1.1 431");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_hold_nobody_up() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    let address = belfry.events.trim_start_matches("http://").trim_end_matches('/').to_owned();
    // More than the listener keeps open; half of them stuck in the headers, half in the body.
    let mut stuck = Vec::new();
    for i in 0..2200 {
        let Ok(mut stream) = TcpStream::connect(&address).await else { break };
        let start: &[u8] = if i % 2 == 0 {
            b"POST / HTTP/1.1\r\nHost:"
        } else {
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
        };
        let _ = stream.write_all(start).await;
        stuck.push(stream);
    }
    let start = Instant::now();
    for i in 0..20 {
        belfry.accept(&event("app", "info", &format!("while others dawdle {i}"))).await;
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?} with {} stuck clients", start.elapsed(), stuck.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_is_named_and_changes_nothing() {
    let sink = Sink::start().unwrap();
    let manifests = generic("one", &sink.url("/"));
    let mut belfry = Belfry::start(&manifests, &[]).await;
    belfry.write("manifests.yaml", &manifests.replace("providerRef: {name: one}", "providerRef: [one]"));
    let line = belfry.process.wait_for_line("providerRef", PATIENCE).await.unwrap();
    assert!(line.contains("manifests.yaml") && line.contains("spec.providerRef"), "{line}");
    belfry.accept(&event("app", "info", "after a bad manifest")).await;
    sink.wait_for(1, PATIENCE).await.unwrap();
    belfry.write("broken.yaml", "kind: [");
    belfry.process.wait_for_line("broken.yaml", PATIENCE).await.unwrap();
    belfry.accept(&event("app", "info", "after a broken file")).await;
    sink.wait_for(2, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_under_way() {
    let sink = Sink::start().unwrap();
    sink.default_answer(testkit::Answer::Status(204).after(Duration::from_millis(300)));
    let mut belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    for i in 0..100 {
        belfry.accept(&event(&format!("app-{i}"), "info", "one of many")).await;
    }
    let start = Instant::now();
    let status = belfry.process.terminate(Duration::from_secs(12)).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(10));
    let before = sink.received().len();
    belfry.process.restart().unwrap();
    belfry.ready().await;
    belfry.wait_for("delivered", 100).await;
    assert_eq!(sink.received().len(), 100, "{before} before; a clean stop sends nothing twice");
    assert!(before > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_peers_names_and_ours() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    belfry.accept(&event("app", "info", "counted")).await;
    belfry.wait_for("delivered", 1).await;
    until("the counters", PATIENCE, async || {
        let text = client().get(&belfry.metrics).send().await?.text().await?;
        for line in [
            r#"gotk_event_http_request_duration_seconds_count{service="",handler="/",method="POST",code="202"} 1"#,
            r#"gotk_event_http_requests_inflight{service="",handler="/"} 0"#,
            r#"belfry_events_total{result="stored"} 1"#,
            r#"belfry_deliveries_total{namespace="flux-system",provider="one",type="generic",outcome="delivered"} 1"#,
            r#"belfry_store_writable 1"#,
            r#"belfry_store_commit_seconds_count"#,
        ] {
            anyhow::ensure!(text.contains(line), "no {line} in\n{text}");
        }
        Ok(())
    })
    .await
    .unwrap();
}
