//! Destinations that misbehave in every way that destinations do: what should arrive arrives, what should be dead is dead
//! with a reason, and nobody else waits for it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::time::{Duration, Instant};

use common::{Belfry, PATIENCE, alert, event, generic};
use testkit::{Answer, Sink, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_down_for_a_while_gets_everything_in_order_and_delays_nobody() {
    let down = Sink::start().unwrap();
    let fine = Sink::start().unwrap();
    let manifests = generic("down", &down.url("/")) + &generic("fine", &fine.url("/"));
    let belfry = Belfry::start(&manifests, &[]).await;
    down.stop().await.unwrap();
    let start = Instant::now();
    for i in 0..200 {
        belfry.accept(&event(&format!("app-{}", i % 10), "info", &format!("message {i}"))).await;
    }
    fine.wait_for(200, PATIENCE).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(30), "the healthy destination waited for the other one");
    assert_eq!(belfry.deliveries("state=pending&provider=flux-system/down").await.len(), 200);

    down.resume().unwrap();
    let received = down.wait_for(200, PATIENCE).await.unwrap();
    belfry.wait_for("delivered", 400).await;
    assert_eq!(received.len(), 200, "nothing twice: no attempt reached it before");
    for object in 0..10 {
        let messages: Vec<String> = received
            .iter()
            .map(|request| request.json().unwrap())
            .filter(|body| body["involvedObject"]["name"] == format!("app-{object}"))
            .map(|body| body["message"].as_str().unwrap().to_owned())
            .collect();
        let expected: Vec<String> = (0..20).map(|i| format!("message {}", i * 10 + object)).collect();
        assert_eq!(messages, expected, "in the order of their arrival");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_taken_for_what_it_is() {
    let sink = Sink::start().unwrap();
    let names = ["flaky", "seconds", "date", "refuses", "hangs", "breaks", "gone"];
    let manifests: String = names.iter().map(|name| generic(name, &sink.url(&format!("/{name}")))).collect();
    let in_3_s = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let date = in_3_s.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    sink.answer_on("/flaky", [Answer::Status(500), Answer::Status(502), Answer::Status(503)]);
    sink.answer_on("/seconds", [Answer::header(429, "Retry-After", "3")]);
    sink.answer_on("/date", [Answer::header(503, "Retry-After", &date)]);
    sink.answer_on("/refuses", [Answer::body(400, "text/plain", "no thanks")]);
    sink.answer_on("/hangs", [Answer::Hang]);
    sink.answer_on("/breaks", [Answer::CloseMidAnswer, Answer::Close]);
    sink.answer_on("/gone", [Answer::Status(501)]);
    let belfry = Belfry::start(&manifests, &[]).await;
    let start = Instant::now();
    belfry.accept(&event("app", "error", "health check failed")).await;

    let dead = belfry.wait_for("dead", 2).await;
    let detail = |provider: &str| {
        let of = dead.iter().find(|delivery| delivery["provider"] == format!("flux-system/{provider}"));
        of.unwrap_or_else(|| panic!("{provider} is not dead: {dead:?}"))["detail"].as_str().unwrap().to_owned()
    };
    assert!(detail("refuses").contains("400") && detail("refuses").contains("no thanks"), "{}", detail("refuses"));
    assert!(detail("gone").contains("501"), "{}", detail("gone"));
    belfry.wait_for("delivered", 5).await;
    let arrivals = |path: &str| sink.received_on(path).iter().map(|r| r.arrived - start).collect::<Vec<_>>();
    assert_eq!(arrivals("/flaky").len(), 4);
    assert_eq!(arrivals("/hangs").len(), 2);
    assert_eq!(arrivals("/refuses").len(), 1);
    let [first, second] = arrivals("/seconds")[..] else { panic!("{:?}", arrivals("/seconds")) };
    assert!(second - first >= Duration::from_secs(3), "Retry-After in seconds: {:?}", second - first);
    let [first, second] = arrivals("/date")[..] else { panic!("{:?}", arrivals("/date")) };
    assert!(second - first >= Duration::from_secs(2), "Retry-After as a date: {:?}", second - first);

    let flaky = belfry.deliveries("provider=flux-system/flaky").await;
    let flaky = belfry.get(&format!("/api/v1/deliveries/{}", flaky[0]["id"])).await;
    let outcomes: Vec<_> = flaky["attemptLog"].as_array().unwrap().iter().map(|a| a["outcome"].clone()).collect();
    assert_eq!(outcomes, ["retry", "retry", "retry", "delivered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_configuration_goes_out_when_it_is_mended() {
    let sink = Sink::start().unwrap();
    let manifests = alert("absent")
        + &alert("strange")
        + "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: strange, namespace: flux-system}
spec: {type: telepathy}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: signed, namespace: flux-system}
spec: {type: generic-hmac, secretRef: {name: signed}}
---
" + &alert("signed");
    let belfry = Belfry::start(&manifests, &[]).await;
    belfry.accept(&event("app", "error", "it failed")).await;
    let reason = async |provider: &str, expected: &str| {
        until(&format!("{provider} to say {expected:?}"), PATIENCE, async || {
            let items = belfry.deliveries(&format!("provider=flux-system/{provider}&state=pending")).await;
            let detail = items.first().map(|item| item["detail"].to_string()).unwrap_or_default();
            anyhow::ensure!(detail.contains(expected), "it says {detail}");
            Ok(())
        })
        .await
        .unwrap();
    };
    reason("absent", "doesn't exist").await;
    reason("strange", "telepathy").await;
    reason("signed", "Secret flux-system/signed").await;
    assert!(sink.received().is_empty());

    let secret = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: signed, namespace: flux-system}}
stringData: {{token: key, address: '{}'}}
",
        sink.url("/signed")
    );
    belfry.write("secret.yaml", &secret);
    let received = sink.wait_for_on("/signed", 1, PATIENCE).await.unwrap();
    assert!(received[0].header("x-signature").starts_with("sha256="));
    belfry.write("absent.yaml", generic("absent", &sink.url("/absent")).split("---").next().unwrap());
    sink.wait_for_on("/absent", 1, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_token_fixes_what_waits_at_once() {
    let sink = Sink::start().unwrap();
    // By itself nothing would be tried again for an hour.
    sink.default_answer(Answer::header(401, "retry-after", "3600"));
    let manifests = generic("guarded", &sink.url("/")).replace("timeout: 2s", "secretRef: {name: guarded}");
    let belfry = Belfry::start(&manifests, &[]).await;
    let secret = |token: &str| {
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: guarded, namespace: flux-system}}
stringData: {{headers: 'Authorization: Bearer {token}'}}
"
        )
    };
    belfry.write("secret.yaml", &secret("stale-token-value"));
    for i in 0..5 {
        belfry.accept(&event(&format!("app-{i}"), "error", "it failed")).await;
    }
    // All five were tried, and refused: none of them may be under way when the answer changes.
    sink.wait_for(5, PATIENCE).await.unwrap();
    belfry.wait_for("pending", 5).await;
    sink.default_answer(Answer::Status(204));
    sink.forget();
    let start = Instant::now();
    belfry.write("secret.yaml", &secret("fresh-token-value"));
    belfry.wait_for("delivered", 5).await;
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
    let fresh = sink.received().iter().filter(|r| r.header("authorization") == "Bearer fresh-token-value").count();
    assert_eq!(fresh, 5);
    let log = belfry.process.lines().join("\n");
    assert!(!log.contains("token-value"), "a token is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_waits_and_deleted_is_over() {
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::Status(500));
    let manifests = generic("one", &sink.url("/one")) + &generic("two", &sink.url("/two"));
    let belfry = Belfry::start(&manifests, &[]).await;
    belfry.accept(&event("app", "error", "it failed")).await;
    sink.wait_for(2, PATIENCE).await.unwrap();
    belfry.write("manifests.yaml", &manifests.replace("timeout: 2s", "timeout: 2s, suspend: true"));
    until("the suspension to be in force", PATIENCE, async || {
        belfry.accept(&event("app", "info", &format!("probe {:?}", Instant::now()))).await;
        let pending = belfry.deliveries("state=pending").await.len();
        tokio::time::sleep(Duration::from_millis(300)).await;
        anyhow::ensure!(pending == belfry.deliveries("state=pending").await.len());
        let before = sink.received().len();
        tokio::time::sleep(Duration::from_secs(2)).await;
        anyhow::ensure!(before == sink.received().len(), "attempts go on");
        Ok(())
    })
    .await
    .unwrap();
    sink.default_answer(Answer::Status(204));
    belfry.write("manifests.yaml", &manifests);
    until("what waited to arrive", PATIENCE, async || {
        anyhow::ensure!(belfry.deliveries("state=pending").await.is_empty());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_can_be_redelivered() {
    let sink = Sink::start().unwrap();
    sink.answer([Answer::Status(400)]);
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    belfry.accept(&event("app", "error", "it failed")).await;
    let dead = belfry.wait_for("dead", 1).await;
    assert_eq!(belfry.redeliver(&dead[0]["id"]).await, 202);
    let delivered = belfry.wait_for("delivered", 1).await;
    assert_ne!(delivered[0]["id"], dead[0]["id"]);
    assert_eq!(sink.received().len(), 2);
    assert_eq!(sink.received()[0].body, sink.received()[1].body);
    assert_eq!(belfry.redeliver(&serde_json::json!(1)).await, 404);
}
