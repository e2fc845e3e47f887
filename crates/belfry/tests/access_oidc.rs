//! CI outside the cluster: jobs show the token that their own system gave them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;
#[path = "common/issuer.rs"]
mod issuer;

use std::sync::atomic::Ordering;

use common::{PATIENCE, client, program};
use issuer::{Issuer, authority};
use serde_json::{Value, json};
use testkit::port;

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_token_is_let_in_if_its_claims_are_right() {
    let authority = authority();
    let (issuer, stranger) = (Issuer::start(&authority).await, Issuer::start(&authority).await);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("roots.pem"), authority.pem()).unwrap();
    std::fs::write(path("manifests.yaml"), "").unwrap();
    let access = json!({"issuers": [
        {
            "issuerURL": issuer.url(), "namespaces": ["apps"],
            "variables": [{"name": "owner", "expression": "claims.repository.split('/')[0]"}],
            "validations": [{"expression": "vars.owner == 'acme'", "message": "only acme's own"}],
        },
        // A second entry for the same issuer, for other jobs.
        {
            "issuerURL": issuer.url(), "audience": "ops", "namespaces": ["*"], "role": "admin",
            "validations": [{"expression": "claims.repository == 'ops/tools'", "message": "only the tools"}],
        },
        {
            "issuerURL": "https://localhost:9", "namespaces": ["*"],
            "validations": [{"expression": "true", "message": "down"}],
        },
    ]});
    std::fs::write(path("access.yaml"), access.to_string()).unwrap();
    let address = || format!("127.0.0.1:{}", port::free().unwrap());
    let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
    let mut process = program()
        .args(["serve", "--log-encoding", "console", "--config", &path("manifests.yaml"), "--data", &path("data")])
        .args(["--receiverAddr", &receivers, "--events-addr", &events, "--metrics-addr", &metrics])
        .args(["--api-addr", &api, "--health-addr", &health, "--api-access", &path("access.yaml")])
        .env("SSL_CERT_FILE", path("roots.pem"))
        .spawn()
        .unwrap();
    process.wait_for_http(&format!("http://{health}/readyz"), PATIENCE).await.unwrap();
    let get = async |token: &str| {
        let request = client().get(format!("http://{api}/api/v1/rollouts")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let with = |changes: Value| {
        let mut claims = issuer.claims();
        claims["aud"] = "belfry".into();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        issuer.token("one", &claims)
    };
    let good = with(json!({}));
    let strangers = {
        let mut claims = stranger.claims();
        claims["aud"] = "belfry".into();
        stranger.token("one", &claims)
    };
    // Nobody is asked for the sake of a token that can't be right.
    assert_eq!(get(&strangers).await, 401);
    assert_eq!((issuer.asked.load(Ordering::SeqCst), stranger.asked.load(Ordering::SeqCst)), (0, 0));
    for (what, token, expected) in [
        ("a good one", good.clone(), 200),
        ("for the other entry", with(json!({"aud": "ops", "repository": "ops/tools"})), 200),
        ("one entry's audience, the other's claims", with(json!({"repository": "ops/tools"})), 401),
        ("another repository", with(json!({"repository": "evil/app"})), 401),
        ("another audience", with(json!({"aud": "notification-controller"})), 401),
        ("no audience", with(json!({"aud": null})), 401),
        ("expired", with(json!({"exp": 1})), 401),
        ("not signed", good.rsplit_once('.').unwrap().0.to_owned() + ".", 401),
        (
            "signed by another",
            stranger.token("one", &{
                let mut claims = issuer.claims();
                claims["aud"] = "belfry".into();
                claims
            }),
            401,
        ),
        ("an issuer that is down", with(json!({"iss": "https://localhost:9"})), 503),
        ("not a token", "x.y.z".to_owned(), 401),
    ] {
        assert_eq!(get(&token).await, expected, "{what}");
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2, "one for the discovery document, one for the keys");
    let post = client().post(format!("http://{api}/events")).bearer_auth(&good).body("{}");
    assert_eq!(post.send().await.unwrap().status().as_u16(), 403, "a job reads, and posts nothing");
    let log = process.lines().join("\n");
    assert!(!log.contains(&good), "a token is in the log");
    assert!(log.contains("only acme's own"), "the log says why a token was refused: {log}");
}
