//! GitHub Apps: what the host promises about them, and how their tokens are got, kept and renewed.

use std::time::SystemTime;

use axum::response::Response;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_core::notification::Outcome;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    event,
    host::{Call, Host, World, answer},
    notifier, retry, send,
};

const PKCS1: &str = include_str!("../data/app.pkcs1.pem");
const PKCS8: &str = include_str!("../data/app.pkcs8.pem");

/// The App as the host knows it.
pub struct App {
    /// Tokens that are good.
    pub valid: Vec<String>,
    /// Seconds that a new one lives.
    pub life: i64,
    /// The number of the installation.
    pub installation: u64,
}

impl Default for App {
    fn default() -> Self {
        Self { valid: Vec::new(), life: 3600, installation: 99 }
    }
}

/// Whether the token is the App's own, by its signature and times.
fn is_app(token: &str) -> bool {
    let Ok(PrivateKeyDer::Pkcs1(der)) = PrivateKeyDer::from_pem_slice(PKCS1.as_bytes()) else { panic!() };
    let key = RsaKeyPair::from_der(der.secret_pkcs1_der()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
    let Some((signed, signature)) = token.rsplit_once('.') else { return false };
    let Some((head, claims)) = signed.split_once('.') else { return false };
    let head: Value = serde_json::from_slice(&decode(head)).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&decode(claims)).unwrap_or_default();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (issued, ends) = (claims["iat"].as_u64().unwrap_or(u64::MAX), claims["exp"].as_u64().unwrap_or(0));
    head["alg"] == "RS256"
        && claims["iss"] == "12"
        && issued <= now
        && (now..now + 600).contains(&ends)
        && public.verify(signed.as_bytes(), &decode(signature)).is_ok()
}

/// The part of GitHub's API that is for Apps.
pub fn answer_to(call: &Call, world: &mut World, path: &[&str]) -> Option<Response> {
    if !matches!(path, ["app", ..] | [_, _, "installation"]) {
        return None;
    }
    if !call.header("authorization").strip_prefix("Bearer ").is_some_and(is_app) {
        return Some(answer(401, json!({ "message": "A JSON web token could not be decoded" })));
    }
    let installation = world.app.installation.to_string();
    Some(match (call.method.as_str(), path) {
        ("GET", ["app"]) => answer(200, json!({ "id": 12, "slug": "ringer" })),
        ("GET", ["users", "foo", "installation"]) => answer(200, json!({ "id": world.app.installation })),
        ("POST", ["app", "installations", id, "access_tokens"]) if *id == installation => {
            let token = format!("ghs_installation{:020}", world.id());
            world.app.valid.push(token.clone());
            let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(world.app.life);
            answer(201, json!({ "token": token, "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() }))
        }
        _ => answer(404, json!({ "message": "Not Found" })),
    })
}

fn by_id(key: &str) -> [(&'static str, &str); 3] {
    [("githubAppID", "12"), ("githubAppInstallationID", "99"), ("githubAppPrivateKey", key)]
}

fn by_owner(key: &str) -> [(&'static str, &str); 3] {
    [("githubAppID", "12"), ("githubAppInstallationOwner", "foo"), ("githubAppPrivateKey", key)]
}

const BUYS: &str = "POST /api/v3/app/installations/99/access_tokens";

#[tokio::test]
async fn a_token_is_bought_once_and_shared_by_all_providers_with_the_same_app() {
    let host = Host::default();
    let address = format!("http://{}/foo/bar", host.serve().await);
    let status = notifier("github", &address, &by_owner(PKCS1));
    for (severity, reason) in [("info", "ReconciliationSucceeded"), ("error", "HealthCheckFailed")] {
        assert_eq!(send(&status, &event(severity, reason)).await, Outcome::Delivered);
    }
    let dispatch = notifier("githubdispatch", &address, &by_owner(PKCS1));
    assert_eq!(send(&dispatch, &event("info", "x")).await, Outcome::Delivered);
    assert_eq!(host.states(), ["success", "failure"]);
    let world = host.world();
    assert_eq!(world.log[..3], ["GET /api/v3/orgs/foo/installation", "GET /api/v3/users/foo/installation", BUYS]);
    assert_eq!((world.count(BUYS), world.comments[0].author.as_str()), (1, "Kustomization/app.apps"));
}

#[tokio::test]
async fn either_form_of_key_will_do_and_another_servers_address() {
    for key in [PKCS1, PKCS8] {
        let (host, apps) = (Host::default(), Host::default());
        let address = format!("http://{}/foo/bar", host.serve().await);
        let base = format!("http://{}/api/v3/", apps.serve().await);
        let mut secret = by_id(key).to_vec();
        secret.push(("githubAppBaseURL", &base));
        let status = notifier("github", &address, &secret);
        // The token comes from elsewhere, so the repository's host doesn't know it.
        let Outcome::Misconfigured(failure) = send(&status, &event("info", "x")).await else { panic!() };
        assert_eq!((failure.status, apps.world().count(BUYS), host.world().count(BUYS)), (Some(401), 1, 0));
    }
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_when_it_is_refused() {
    let host = Host::default();
    let address = format!("http://{}/foo/bar", host.serve().await);
    let status = notifier("github", &address, &by_id(PKCS8));
    host.world().app.life = 0;
    assert_eq!(send(&status, &event("info", "x")).await, Outcome::Delivered);
    // One to read with, and another to write with: the first had ended by then.
    assert_eq!(host.world().count(BUYS), 2);
    host.world().app.life = 3600;
    for _ in 0..3 {
        assert_eq!(send(&status, &event("info", "x")).await, Outcome::Delivered);
    }
    assert_eq!(host.world().count(BUYS), 3);
    host.world().app.valid.clear();
    let Outcome::Misconfigured(failure) = send(&status, &event("info", "x")).await else { panic!() };
    assert_eq!(failure.status, Some(401));
    assert_eq!(send(&status, &event("info", "x")).await, Outcome::Delivered);
    assert_eq!(host.world().count(BUYS), 4);
}

#[tokio::test]
async fn many_at_once_buy_one_token() {
    let host = Host::default();
    let address = format!("http://{}/foo/bar", host.serve().await);
    let status = std::sync::Arc::new(notifier("github", &address, &by_id(PKCS1)));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let status = status.clone();
            tokio::spawn(async move { send(&status, &event("info", "x")).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Outcome::Delivered);
    }
    assert_eq!(host.world().count(BUYS), 1);
}

#[tokio::test]
async fn an_app_comments_as_its_bot() {
    let host = Host::default();
    let address = format!("http://{}/foo/bar", host.serve().await);
    let comments = notifier("githubpullrequestcomment", &address, &by_id(PKCS1));
    let mut notification = event("info", "x");
    notification.event.metadata.insert("change_request".into(), "42".into());
    for _ in 0..2 {
        assert_eq!(send(&comments, &notification).await, Outcome::Delivered);
    }
    let world = host.world();
    let authors: Vec<&str> = world.comments.iter().map(|comment| comment.author.as_str()).collect();
    assert_eq!((authors, world.count("GET /api/v3/user")), (vec!["ringer[bot]"], 0));
}

#[tokio::test]
async fn what_goes_wrong_with_an_app_is_told_without_its_key_or_token() {
    let host = Host::default();
    let address = format!("http://{}/foo/bar", host.serve().await);
    let status = notifier("github", &address, &by_id(PKCS1));
    host.world().app.installation = 7;
    let Outcome::Misconfigured(failure) = send(&status, &event("info", "x")).await else { panic!() };
    assert_eq!(
        failure.error,
        r#"answered 404 Not Found: GitHub App 12: can't get a token for the installation: {"message":"Not Found"}"#
    );
    host.world().app.installation = 99;
    host.trouble(axum::http::Method::POST, 503, &[("retry-after", "7")], "later");
    let failure = retry(send(&status, &event("info", "x")).await);
    assert_eq!(failure.retry_after.map(|wait| wait.as_secs()), Some(7));
    assert_eq!(send(&status, &event("info", "x")).await, Outcome::Delivered);
    // The host shows what it was sent.
    let token = host.world().app.valid[0].clone();
    let lines: Vec<&str> = PKCS1.lines().filter(|line| !line.starts_with("--")).collect();
    for echo in [token.as_str(), lines[3], &format!("Bearer {token}")] {
        host.trouble(axum::http::Method::GET, 400, &[], &format!("what is {echo}?"));
        let Outcome::Rejected(failure) = send(&status, &event("info", "x")).await else { panic!() };
        assert!(!failure.error.contains(&token) && !failure.error.contains(lines[3]), "{}", failure.error);
        assert!(failure.error.contains("*****"), "{}", failure.error);
    }
}
