//! The API port and its credentials: who is let in, whose events are whose, and what changes when the files do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::fs;

use anyhow::ensure;
use common::{Belfry, PATIENCE, client, event};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::until;

const READER: &str = "token-of-a-reader";
const EU: &str = "token-of-the-eu-cluster";
const HERE: &str = "token-of-this-cluster";
const KEY: &str = "key-of-the-us-cluster";
const ACCESS: &str = "
tokens:
- {name: reader, tokenFile: secrets/reader, namespaces: ['*'], clusters: ['*']}
clusters:
- {name: eu, tokenFiles: [secrets/eu]}
- {name: us, hmacKeyFiles: [secrets/us]}
- {name: local, tokenFiles: [secrets/here]}
";

/// A server that knows these credentials and doesn't trust this machine.
async fn strict(flags: &[&str]) -> Belfry {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("secrets")).unwrap();
    for (name, secret) in [("reader", READER), ("eu", EU), ("us", KEY), ("here", HERE)] {
        fs::write(folder.path().join("secrets").join(name), secret).unwrap();
    }
    let access = folder.path().join("access.yaml");
    fs::write(&access, ACCESS).unwrap();
    let data = folder.path().join("data");
    let access = access.to_str().unwrap().to_owned();
    let flags = [&["--api-access", &access, "--api-trust-loopback=false"], flags].concat();
    Belfry::start_in(folder, &data, "", &flags).await
}

fn post(belfry: &Belfry, body: &str) -> RequestBuilder {
    client().post(format!("{}/events", belfry.api)).body(body.to_owned())
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// `generic-hmac` signs the body; Belfry the id and the time as well.
fn sign(key: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn flux_signed(belfry: &Belfry, key: &str, body: &str) -> RequestBuilder {
    post(belfry, body).header("X-Signature", format!("sha256={}", sign(key, body)))
}

/// The same with the name of the cluster whose key it is, so that it is looked at however many failures there were.
fn named(belfry: &Belfry, key: &str, body: &str) -> RequestBuilder {
    let request = client().post(format!("{}/events?cluster=us", belfry.api)).body(body.to_owned());
    request.header("X-Signature", format!("sha256={}", sign(key, body)))
}

fn signed_at(belfry: &Belfry, key: &str, body: &str, offset: i64) -> RequestBuilder {
    signed_as(belfry, key, body, offset, "42")
}

/// Signed with the id 42, and sent with this one.
fn signed_as(belfry: &Belfry, key: &str, body: &str, offset: i64, id: &str) -> RequestBuilder {
    let time = jiff::Timestamp::now().as_second() + offset;
    let signature = sign(key, &format!("v1\n42\n{time}\n{body}"));
    let request = post(belfry, body).header("Belfry-Signature", format!("v1={signature}"));
    request.header("Belfry-Timestamp", time).header("Belfry-Event-Id", id)
}

/// The rollouts as the reader sees them: cluster, object, revision.
async fn rollouts(belfry: &Belfry) -> Vec<(String, String, String)> {
    let request = client().get(format!("{}/api/v1/rollouts?limit=500", belfry.api)).bearer_auth(READER);
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| (text(item, "cluster"), text(item, "object"), text(item, "revision"))).collect()
}

fn of(name: &str) -> String {
    let mut event = event(name, "info", name);
    // What a sender says of its cluster counts for nothing.
    event["metadata"]["cluster"] = json!("forged");
    event["metadata"]["event.toolkit.fluxcd.io/cluster"] = json!("forged");
    event["cluster"] = json!("forged");
    event.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_of_the_cluster_whose_credential_it_came_with() {
    let belfry = strict(&["--cluster-name", "here"]).await;
    for (what, request) in [
        ("bearer", post(&belfry, &of("a")).bearer_auth(EU)),
        ("bearer, named", client().post(format!("{}/events?cluster=eu", belfry.api)).body(of("b")).bearer_auth(EU)),
        ("Flux's signature", flux_signed(&belfry, KEY, &of("c"))),
        ("Belfry's signature", signed_at(&belfry, KEY, &of("d"), -200)),
        ("this cluster's own", post(&belfry, &of("e")).bearer_auth(HERE)),
    ] {
        assert_eq!(status(request).await, 202, "{what}");
    }
    let mut clusters: Vec<String> = rollouts(&belfry).await.into_iter().map(|(cluster, ..)| cluster).collect();
    clusters.sort();
    assert_eq!(clusters, ["eu", "eu", "here", "us", "us"]);

    let unsigned = flux_signed(&belfry, KEY, &of("c"));
    for (what, request, expected) in [
        ("nothing", post(&belfry, &of("x")), 401),
        ("an unknown token", post(&belfry, &of("x")).bearer_auth("no-such-token-here"), 401),
        ("a reader", post(&belfry, &of("x")).bearer_auth(READER), 403),
        (
            "another's name",
            client().post(format!("{}/events?cluster=us", belfry.api)).body(of("x")).bearer_auth(EU),
            403,
        ),
        ("another body", unsigned.body(of("x")), 401),
        ("another key", flux_signed(&belfry, "key-of-nobody-at-all", &of("x")), 401),
        ("a token as a key", flux_signed(&belfry, EU, &of("x")), 401),
        ("too old", signed_at(&belfry, KEY, &of("x"), -400), 401),
        ("too new", signed_at(&belfry, KEY, &of("x"), 400), 401),
        ("another id", signed_as(&belfry, KEY, &of("x"), 0, "43"), 401),
        ("not an event", post(&belfry, "[]").bearer_auth(EU), 400),
        ("a GET by a sender", client().get(format!("{}/api/v1/rollouts", belfry.api)).bearer_auth(EU), 403),
        ("a GET by nobody", client().get(format!("{}/api/v1/rollouts", belfry.api)), 401),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{what}");
        if expected == 401 {
            assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{what}");
        }
    }
    let log = belfry.process.lines().join("\n");
    for secret in [READER, EU, HERE, KEY] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_stores_took_is_taken_and_repeats_are_no_trouble() {
    let belfry = strict(&[]).await;
    let build = json!({
        "metadata": {"revision": "a"}, "timestamp": "2026-01-02T03:04:05Z", "reason": "BuildFailed",
        "severity": "error",
    });
    for _ in 0..2 {
        assert_eq!(status(post(&belfry, &build.to_string()).bearer_auth(HERE)).await, 202);
    }
    let bare = json!({"timestamp": "2026-01-02T03:04:05Z", "reason": "BuildFailed"});
    assert_eq!(status(post(&belfry, &bare.to_string()).bearer_auth(HERE)).await, 202);
    assert_eq!(rollouts(&belfry).await, [(String::new(), "//".to_owned(), "a".to_owned())]);

    // An event as a controller wrote it, and as a generic provider passes it on.
    let mut plain = event("stripped", "info", "stripped");
    plain["metadata"] = json!({"revision": "main@sha1:7d8b790e325ffa0885be99788a08f4ae67d382a5"});
    let passed_on = post(&belfry, &plain.to_string()).header("Gotk-Component", "kustomize-controller");
    assert_eq!(status(passed_on.bearer_auth(EU)).await, 202);
    assert_eq!(status(post(&belfry, &event("whole", "info", "whole").to_string()).bearer_auth(EU)).await, 202);
    let mut known = rollouts(&belfry).await;
    known.retain(|(cluster, ..)| cluster == "eu");
    known.sort();
    assert_eq!(
        known.iter().map(|(_, object, _)| object.as_str()).collect::<Vec<_>>(),
        ["Kustomization/flux-system/stripped", "Kustomization/flux-system/whole"]
    );
    assert!(known.iter().all(|(.., revision)| revision.starts_with("main@sha1:7d8b")));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_exchanged_without_a_restart_and_a_bad_file_changes_nothing() {
    let belfry = strict(&[]).await;
    let (access, secret) = (belfry.folder.path().join("access.yaml"), belfry.folder.path().join("secrets/us"));
    let next = "next-key-of-the-us-cluster";
    let mut number = 0;
    let mut body = || {
        number += 1;
        of(&format!("app-{number}"))
    };
    assert_eq!(status(named(&belfry, KEY, &body())).await, 202);

    // Both count while the senders change over.
    fs::write(belfry.folder.path().join("secrets/us-next"), next).unwrap();
    fs::write(&access, ACCESS.replace("[secrets/us]", "[secrets/us, secrets/us-next]")).unwrap();
    until_taken(&belfry, next, &mut body, true).await;
    assert_eq!(status(named(&belfry, KEY, &body())).await, 202);

    // A bad file is told of, and what was in force stays so.
    fs::write(&access, ACCESS.replace("[secrets/us]", "[secrets/nowhere]")).unwrap();
    until("the bad file to be named", PATIENCE, async || {
        let log = belfry.process.lines().join("\n");
        ensure!(log.contains("clusters[1].hmacKeyFiles[0]: can't read"), "{log}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(status(named(&belfry, next, &body())).await, 202);

    // The key in a file is exchanged, as when a Secret's mount changes.
    fs::write(&access, ACCESS).unwrap();
    until_taken(&belfry, next, &mut body, false).await;
    assert_eq!(status(named(&belfry, KEY, &body())).await, 202);
    fs::write(&secret, next).unwrap();
    until_taken(&belfry, next, &mut body, true).await;
    // So many failures may be answered 429.
    assert_ne!(status(named(&belfry, KEY, &body())).await, 202);
    let log = belfry.process.lines().join("\n");
    assert!(!log.contains(KEY) && !log.contains(next));
}

/// Waits until a key is taken, or isn't.
async fn until_taken(belfry: &Belfry, key: &str, body: &mut impl FnMut() -> String, taken: bool) {
    let body = std::sync::Mutex::new(body);
    until(&format!("the key to be taken: {taken}"), PATIENCE, async || {
        let next = (body.lock().unwrap())();
        let status = status(named(belfry, key, &next)).await;
        ensure!((status == 202) == taken, "it is answered {status}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn this_machine_is_trusted_where_it_was_always_and_pages_of_others_are_not() {
    let belfry = Belfry::start("", &[]).await;
    let list = || client().get(format!("{}/api/v1/rollouts", belfry.api));
    let answer = async |request: RequestBuilder| -> Response { request.send().await.unwrap() };
    for (what, request, expected) in [
        ("the list", list(), 200),
        ("an event", post(&belfry, &of("a")), 202),
        ("a token that nobody asked for", list().bearer_auth("whatever-it-may-be"), 200),
        ("a page of another site", post(&belfry, &of("b")).header("Origin", "https://evil.example"), 403),
        ("a name that leads here", list().header("Host", "evil.example"), 403),
    ] {
        assert_eq!(answer(request).await.status().as_u16(), expected, "{what}");
    }
    drop(belfry);
    // Who has credentials and shows a wrong one is not taken for this machine.
    let folder = tempfile::tempdir().unwrap();
    let (token, data) = (folder.path().join("token"), folder.path().join("data"));
    fs::write(&token, "the-token-of-the-api").unwrap();
    let token = token.to_str().unwrap().to_owned();
    let belfry = Belfry::start_in(folder, &data, "", &["--api-token-file", &token]).await;
    for (token, expected) in [(None, 200), (Some("the-token-of-the-api"), 200), (Some("the-token-of-the-apj"), 401)] {
        let request = client().get(format!("{}/api/v1/rollouts", belfry.api));
        let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
        assert_eq!(answer(request).await.status().as_u16(), expected, "{token:?}");
    }
    let event = post(&belfry, &of("a")).bearer_auth("the-token-of-the-api");
    assert_eq!(answer(event).await.status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_good_credentials_are_not() {
    let belfry = strict(&[]).await;
    let mut unauthorized = 0;
    loop {
        let guess = format!("guess-number-{unauthorized}");
        let answer = client().get(format!("{}/api/v1/rollouts", belfry.api)).bearer_auth(guess).send().await.unwrap();
        match answer.status().as_u16() {
            401 => unauthorized += 1,
            429 => break assert!(answer.headers().contains_key("retry-after")),
            other => panic!("a guess is answered {other}"),
        }
        assert!(unauthorized < 10_000);
    }
    assert!(unauthorized >= 20, "{unauthorized}");
    assert_eq!(status(post(&belfry, &of("a")).bearer_auth(EU)).await, 202);
    assert_eq!(status(named(&belfry, KEY, &of("b"))).await, 202);
    assert_eq!(rollouts(&belfry).await.len(), 2);
    until("a signature that names no cluster to be held back", PATIENCE, async || {
        let guess = client().get(format!("{}/api/v1/rollouts", belfry.api)).bearer_auth("one-more-guess-here");
        let _ = guess.send().await?;
        let status = status(flux_signed(&belfry, KEY, &of("c"))).await;
        ensure!(status == 429, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// `cluster:Kind/namespace/name` of a list's items, without repeats.
async fn listed(belfry: &Belfry, path: &str, token: &str) -> Vec<String> {
    let request = client().get(format!("{}{path}", belfry.api)).bearer_auth(token);
    let list: Value = request.send().await.unwrap().json().await.unwrap();
    let items = list["items"].as_array().or(list.as_array()).unwrap_or_else(|| panic!("{path}: {list}"));
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let mut listed: Vec<_> =
        items.iter().map(|item| format!("{}:{}", text(item, "cluster"), text(item, "object"))).collect();
    listed.sort();
    listed.dedup();
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_sees_its_namespaces_in_its_clusters() {
    let belfry = strict(&[]).await;
    let tokens = "
- {name: apps, tokenFile: secrets/apps, namespaces: [apps], clusters: [local, eu]}
- {name: eu-only, tokenFile: secrets/eu-only, namespaces: ['*'], clusters: [eu]}
clusters:";
    for (name, token) in [("apps", "token-for-apps-only"), ("eu-only", "token-for-eu-alone")] {
        fs::write(belfry.folder.path().join("secrets").join(name), token).unwrap();
    }
    fs::write(belfry.folder.path().join("access.yaml"), ACCESS.replace("\nclusters:", tokens)).unwrap();
    for (sender, cluster) in [(EU, "eu"), (HERE, "")] {
        for namespace in ["apps", "infra"] {
            let mut event = event("shop", "info", &format!("{cluster}{namespace}"));
            event["involvedObject"]["namespace"] = json!(namespace);
            assert_eq!(status(post(&belfry, &event.to_string()).bearer_auth(sender)).await, 202);
        }
        let unnamed = json!({"reason": "BuildFailed", "message": cluster, "metadata": {"revision": "a"}});
        assert_eq!(status(post(&belfry, &unnamed.to_string()).bearer_auth(sender)).await, 202);
    }
    let apps = [":Kustomization/apps/shop", "eu:Kustomization/apps/shop"];
    let eu = ["eu://", "eu:Kustomization/apps/shop", "eu:Kustomization/infra/shop"];
    let all = [&apps[..1], &[":Kustomization/infra/shop", "://"], &eu].concat();
    until("the new tokens to count", PATIENCE, async || {
        let request = client().get(format!("{}/api/v1/rollouts", belfry.api)).bearer_auth("token-for-eu-alone");
        ensure!(status(request).await == 200);
        Ok(())
    })
    .await
    .unwrap();
    for (token, expected) in [("token-for-apps-only", &apps[..]), ("token-for-eu-alone", &eu), (READER, &all)] {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        for path in ["/api/v1/rollouts", "/api/v1/events", "/api/v1/objects"] {
            assert_eq!(listed(&belfry, path, token).await, expected, "{path} with {token}");
        }
    }
    let ask = |path: &str| client().get(format!("{}{path}", belfry.api)).bearer_auth("token-for-apps-only");
    for (path, expected) in [
        ("/api/v1/explain?object=Kustomization/apps/shop", 200),
        ("/api/v1/explain?object=Kustomization/apps/shop&cluster=eu", 200),
        ("/api/v1/explain?object=Kustomization/infra/shop", 404),
        ("/api/v1/explain?object=Kustomization/infra/nothing-there", 404),
        ("/api/v1/wait?revision=a&timeout=0s&object=Kustomization/apps/shop", 200),
        ("/api/v1/wait?revision=a&timeout=0s&object=Kustomization/infra/shop", 403),
    ] {
        assert_eq!(status(ask(path)).await, expected, "{path}");
    }
}

#[test]
fn the_file_can_be_checked_before_it_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.yaml");
    let check = || {
        let arguments = ["check", "--api-access", file.to_str().unwrap()];
        std::process::Command::new(env!("CARGO_BIN_EXE_belfry")).args(arguments).output().unwrap()
    };
    fs::write(&file, "clusters: [{name: eu, hmacKeyFiles: [eu.key]}]").unwrap();
    let output = check();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with(&format!("error: {}: clusters[0].hmacKeyFiles[0]: can't read ", file.display())),
        "{said}"
    );
    assert!(said.contains(" [InvalidAccess]\n"), "{said}");
    fs::write(folder.path().join("eu.key"), KEY).unwrap();
    assert!(check().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_object_has_not_the_labels_of_ours() {
    let sink = testkit::Sink::start().unwrap();
    let manifests = format!(
        "{}
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {{name: by-labels, namespace: flux-system}}
spec:
  providerRef: {{name: one}}
  eventSources: [{{kind: Kustomization, name: '*', matchLabels: {{team: web}}}}]
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {{name: shop, namespace: flux-system, labels: {{team: web}}}}
spec: {{interval: 1m, prune: true, sourceRef: {{kind: GitRepository, name: shop}}}}
",
        common::generic("one", &sink.url("/"))
    );
    let folder = tempfile::tempdir().unwrap();
    let (access, data) = (folder.path().join("access.yaml"), folder.path().join("data"));
    fs::write(folder.path().join("eu"), EU).unwrap();
    fs::write(&access, "clusters: [{name: eu, tokenFiles: [eu]}]").unwrap();
    let access = access.to_str().unwrap().to_owned();
    let belfry = Belfry::start_in(folder, &data, &manifests, &["--api-access", &access]).await;
    let shop = event("shop", "info", "shop").to_string();
    assert_eq!(status(post(&belfry, &shop)).await, 202);
    assert_eq!(status(post(&belfry, &shop).bearer_auth(EU)).await, 202, "the same of another cluster is no repeat");
    let deliveries = belfry.wait_for("delivered", 3).await;
    let mut told: Vec<String> = deliveries
        .iter()
        .map(|delivery| format!("{}{}", delivery["cluster"].as_str().unwrap_or_default(), delivery["alert"]))
        .collect();
    told.sort();
    assert_eq!(told, [r#""flux-system/by-labels""#, r#""flux-system/one""#, r#"eu"flux-system/one""#]);
    assert_eq!(belfry.deliveries("").await.len(), 3);
}
