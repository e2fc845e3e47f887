//! `generic-oidc` with an issuer of our own over TLS: who has a token that fulfils the validations is let in, the
//! issuer is asked once, and one that hangs or lies lets nobody in.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

#[path = "common/issuer.rs"]
mod issuer;

use std::sync::atomic::Ordering;

use common::{PATIENCE, client, program};
use issuer::{Issuer, authority};
use serde_json::{Value, json};
use testkit::port;

fn receiver(name: &str, issuer: &str) -> String {
    format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {{name: {name}, namespace: apps}}
spec:
  type: generic-oidc
  resources: [{{kind: GitRepository, name: app, filter: \"claims.repository == 'acme/app'\"}}]
  oidcProviders:
  - issuerURL: {issuer}
    variables: [{{name: owner, expression: \"claims.repository.split('/')[0]\"}}]
    validations: [{{expression: \"vars.owner == 'acme'\", message: only acme's own}}]
---
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_are_verified_with_keys_that_are_fetched_once() {
    let authority = authority();
    let issuer = Issuer::start(&authority).await;
    let stranger = Issuer::start(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, authority.pem()).unwrap();
    let config = folder.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let manifests = receiver("ci", &issuer.url())
        + &receiver("down", "https://localhost:9")
        + &receiver("plain", "http://localhost:9");
    std::fs::write(config.join("a.yaml"), manifests).unwrap();
    let address = || format!("127.0.0.1:{}", port::free().unwrap());
    let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
    let mut process = program()
        .args(["serve", "--log-encoding", "console", "--config", config.to_str().unwrap()])
        .args(["--data", folder.path().join("data").to_str().unwrap(), "--receiverAddr", &receivers])
        .args(["--events-addr", &events, "--api-addr", &api, "--metrics-addr", &metrics, "--health-addr", &health])
        .env("SSL_CERT_FILE", &roots)
        .spawn()
        .unwrap();
    process.wait_for_http(&format!("http://{health}/readyz"), PATIENCE).await.unwrap();
    let list: Value =
        client().get(format!("http://{api}/api/v1/receivers")).send().await.unwrap().json().await.unwrap();
    let path = |name: &str| {
        let all = list["items"].as_array().unwrap();
        all.iter().find(|item| item["name"] == name).unwrap()["path"].as_str().unwrap().to_owned()
    };
    let post = async |name: &str, token: &str| {
        let request = client().post(format!("http://{receivers}{}", path(name))).bearer_auth(token).body("{}");
        request.send().await.unwrap().status().as_u16()
    };

    // Nothing is fetched for what can't be right whatever the keys are.
    for token in ["", "x", "a.b.c", &stranger.token("one", &stranger.claims())] {
        assert_eq!(post("ci", token).await, 404, "{token}");
    }
    assert_eq!((issuer.asked.load(Ordering::SeqCst), stranger.asked.load(Ordering::SeqCst)), (0, 0));
    let good = issuer.token("one", &issuer.claims());
    let all = futures::future::join_all((0..20).map(|_| post("ci", &good))).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2, "one for the discovery document, one for the keys");

    let with = |field: &str, value: Value| {
        let mut claims = issuer.claims();
        claims[field] = value;
        issuer.token("one", &claims)
    };
    for (what, token) in [
        ("another's repository", with("repository", "evil/app".into())),
        ("no repository", with("repository", Value::Null)),
        ("another audience", with("aud", "somebody-else".into())),
        ("expired", with("exp", 1.into())),
        ("another's signature", stranger.token("one", &issuer.claims())),
        ("an unknown key", issuer.token("two", &issuer.claims())),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned() + "."),
    ] {
        assert_eq!(post("ci", &token).await, 404, "{what}");
    }
    for _ in 0..20 {
        post("ci", &issuer.token("two", &issuer.claims())).await;
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2, "unknown keys don't make us ask again and again");

    // An issuer that can't be asked is no reason to let anybody in, nor to say that the token is wrong.
    let claims = |url: &str| json!({"iss": url, "aud": "notification-controller", "exp": 99_999_999_999_i64});
    assert_eq!(post("down", &issuer.token("one", &claims("https://localhost:9"))).await, 503);
    assert_eq!(post("plain", &issuer.token("one", &claims("http://localhost:9"))).await, 404);
    let log = process.lines().join("\n");
    assert!(!log.contains(&good) && !log.contains(&path("ci")), "a token or a path is in the log");
}
