//! Webhooks over real sockets, to a server that runs from a directory: what each type takes, what everybody else is
//! answered, and that what was answered 200 waits durably for a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{io::Write as _, net::TcpStream, time::Duration};

use anyhow::Context as _;
use common::{Belfry, PATIENCE, alert, client, event};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use serde_json::{Value, json};
use testkit::until;

const TOKEN: &str = "s3cr3t-t0ken";

/// A Receiver of this name and type, which reconciles the GitRepository `app`, and its Secret.
fn receiver(name: &str, type_: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: apps}}
stringData: {{token: {TOKEN}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {{name: {name}, namespace: apps}}
spec: {{type: {type_}, secretRef: {{name: {name}}}, resources: [{{kind: GitRepository, name: app}}]{more}}}
---
"
    )
}

fn tag(algorithm: hmac::Algorithm, body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, TOKEN.as_bytes()), body.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

async fn view(belfry: &Belfry, name: &str) -> Value {
    let list = belfry.get("/api/v1/receivers").await;
    let found = list["items"].as_array().unwrap().iter().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list:#}")).clone()
}

/// A Receiver's path, once its Secret was read.
async fn path(belfry: &Belfry, name: &str) -> String {
    until("the Receiver to have a path", PATIENCE, async || {
        view(belfry, name).await["path"].as_str().map(str::to_owned).context("none yet")
    })
    .await
    .unwrap()
}

/// Posts, checks that the answer is empty, and gives its status.
async fn post(belfry: &Belfry, path: &str, headers: HeaderMap, body: impl Into<reqwest::Body>) -> u16 {
    let sent = client().post(format!("{}{path}", belfry.receivers)).headers(headers).body(body).send().await.unwrap();
    let status = sent.status().as_u16();
    assert_eq!(sent.bytes().await.unwrap().len(), 0, "an answer says nothing but its status");
    status
}

/// What the last webhook of a Receiver came to.
async fn last(belfry: &Belfry, name: &str) -> (String, String) {
    let view = view(belfry, name).await;
    let last = &view["deliveries"][0];
    (last["verdict"].as_str().unwrap_or_default().into(), last["reason"].as_str().unwrap_or_default().into())
}

/// Type, body, headers of the genuine request, and the header that is its credential.
type Genuine = (&'static str, String, Vec<(&'static str, String)>, Option<&'static str>);

fn genuine() -> Vec<Genuine> {
    let json = || ("content-type", "application/json".to_owned());
    let push = r#"{"action":"push"}"#.to_owned();
    let sha256 = format!("sha256={}", tag(hmac::HMAC_SHA256, &push));
    let nexus = r#"{"action":"CREATED","repositoryName":"npm"}"#.to_owned();
    let cdevent = json!({
        "context": {
            "version": "0.4.1", "id": "271069a8", "source": "/event/source", "timestamp": "2026-01-02T03:04:05Z",
            "type": "dev.cdevents.change.merged.0.2.0",
        },
        "subject": {"id": "mySubject123", "source": "/s", "type": "change", "content": {}},
    })
    .to_string();
    vec![
        ("generic", push.clone(), vec![json()], None),
        ("generic-hmac", push.clone(), vec![("x-signature", sha256.clone())], Some("x-signature")),
        (
            "github",
            push.clone(),
            vec![json(), ("x-github-event", "push".into()), ("x-hub-signature-256", sha256.clone())],
            Some("x-hub-signature-256"),
        ),
        ("gitlab", push.clone(), vec![json(), ("x-gitlab-token", TOKEN.into())], Some("x-gitlab-token")),
        ("bitbucket", push.clone(), vec![json(), ("x-hub-signature", sha256)], Some("x-hub-signature")),
        ("harbor", push, vec![json(), ("authorization", TOKEN.into())], Some("authorization")),
        ("dockerhub", r#"{"push_data":{"tag":"v1"},"repository":{"repo_url":"org/repo"}}"#.into(), vec![json()], None),
        ("quay", r#"{"docker_url":"quay.io/x","updated_tags":["v1"]}"#.into(), vec![json()], None),
        (
            "nexus",
            nexus.clone(),
            vec![json(), ("x-nexus-webhook-signature", tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &nexus))],
            Some("x-nexus-webhook-signature"),
        ),
        ("acr", r#"{"action":"push","target":{"repository":"x","tag":"1"}}"#.into(), vec![json()], None),
        ("cdevents", cdevent, vec![json(), ("ce-type", "dev.cdevents.change.merged.0.2.0".into())], None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_takes_its_genuine_request_and_no_other() {
    let manifests: String = genuine().iter().map(|(type_, ..)| receiver(type_, type_, "")).collect();
    let belfry = Belfry::start(&manifests, &[]).await;
    for (type_, body, pairs, credential) in genuine() {
        let path = path(&belfry, type_).await;
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let right = headers(&pairs);
        assert_eq!(post(&belfry, &path, right.clone(), body.clone()).await, 200, "{type_}");
        assert_eq!(last(&belfry, type_).await.0, "accepted", "{type_}");
        let Some(credential) = credential else { continue };
        for wrong in ["", "sha256=00", "sha1=", "Bearer x", "s3cr3t-t0ke", "s3cr3t-t0kenn"] {
            let mut bent = right.clone();
            bent.insert(HeaderName::from_static(credential), HeaderValue::from_str(wrong).unwrap());
            assert_eq!(post(&belfry, &path, bent, body.clone()).await, 404, "{type_} with {wrong:?}");
        }
        let mut missing = right.clone();
        missing.remove(credential);
        assert_eq!(post(&belfry, &path, missing, body.clone()).await, 404, "{type_} without a credential");
        if matches!(type_, "generic-hmac" | "github" | "bitbucket" | "nexus") {
            assert_eq!(post(&belfry, &path, right, format!("{body} ")).await, 404, "{type_} with another body");
        }
        let (verdict, why) = last(&belfry, type_).await;
        assert_eq!(verdict, "refused", "{type_}");
        assert!(!why.is_empty() && !why.contains(TOKEN), "{type_}: {why}");
    }
    // All of them ask for the same object, and there is no cluster: one request waits, and can be seen.
    let waiting = belfry.deliveries("state=pending").await;
    assert_eq!(waiting.len(), 1, "{waiting:#?}");
    assert_eq!((&waiting[0]["kind"], &waiting[0]["object"]), (&json!("trigger"), &json!("GitRepository/apps/app")));
    let metrics = client().get(&belfry.metrics).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("belfry_webhooks_total{namespace=\"apps\",receiver=\"github\""), "{metrics}");
    let log = belfry.process.lines().join("\n");
    assert!(!log.contains("/hook/") && !metrics.contains("/hook/1"), "a path is in the log");
    for (type_, ..) in genuine() {
        let digest = path(&belfry, type_).await.replace("/hook/", "");
        assert!(!log.contains(&digest) && !metrics.contains(&digest), "{type_}: its path is told");
    }
    assert!(!log.contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_learn_nothing() {
    let manifests = receiver("open", "generic", "")
        + &receiver("suspended", "generic", ", suspend: true")
        + &receiver("broken", "generic", ", resourceFilter: 'req.x'")
        + &receiver("tokenless", "generic", "").replace("stringData: {token: s3cr3t-t0ken}", "stringData: {x: y}");
    let belfry = Belfry::start(&manifests, &[]).await;
    let open = path(&belfry, "open").await;
    let suspended = path(&belfry, "suspended").await;
    let none = HeaderMap::new();
    assert_eq!(post(&belfry, &open, none.clone(), "").await, 200);
    let digest = open.strip_prefix("/hook/").unwrap();
    for target in [
        suspended.as_str(),
        &format!("/hook/{}", "0".repeat(64)),
        &format!("{open}?x=1"),
        &format!("{open}/"),
        &format!("/hook/{}", digest.to_uppercase()),
        "/hook/",
        "/",
        "/api/v1/receivers",
    ] {
        assert_eq!(post(&belfry, target, none.clone(), "{}").await, 404, "{target}");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for target in [open.as_str(), "/hook/x"] {
            let url = format!("{}{target}", belfry.receivers);
            let answer = client().request(method.parse().unwrap(), url).send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["allow"]),
                (405, &HeaderValue::from_static("POST"))
            );
        }
    }
    for (name, reason) in
        [("suspended", "Suspended"), ("broken", "InvalidCELExpression"), ("tokenless", "TokenNotFound")]
    {
        let view = view(&belfry, name).await;
        assert_eq!((&view["ready"], view["reason"].as_str()), (&json!(false), Some(reason)), "{view:#}");
    }
    // A body that nobody will read isn't waited for.
    let mut socket = TcpStream::connect(belfry.receivers.trim_start_matches("http://")).unwrap();
    let head = format!("POST /hook/{} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n", "1".repeat(64));
    socket.write_all(head.as_bytes()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 12];
    std::io::Read::read_exact(&mut socket, &mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_refused_shortly_and_noted() {
    let belfry = Belfry::start(&receiver("filtered", "generic", ", resourceFilter: 'req.a == 1'"), &[]).await;
    let path = path(&belfry, "filtered").await;
    let json = headers(&[("content-type", "application/json")]);
    for (body, expected, verdict) in [
        ("{\"a\": 1}".to_owned(), 200, "accepted"),
        ("{\"a\": ".to_owned(), 400, "refused"),
        (String::new(), 400, "refused"),
        ("[1]".to_owned(), 400, "refused"),
        ("[".repeat(200_000), 400, "refused"),
        (format!("{{\"a\": {}1{}}}", "[".repeat(1000), "]".repeat(1000)), 400, "refused"),
        // The filter fails, as with the peer.
        ("{}".to_owned(), 500, "accepted"),
        ("{\"a\": 2}".to_owned(), 200, "accepted"),
    ] {
        let shown: String = body.chars().take(40).collect();
        assert_eq!(post(&belfry, &path, json.clone(), body).await, expected, "{shown}");
        assert_eq!(last(&belfry, "filtered").await.0, verdict, "{shown}");
    }
    let large = vec![b' '; 3 * 1024 * 1024 + 1];
    assert_eq!(post(&belfry, &path, json.clone(), large).await, 413);
    assert!(last(&belfry, "filtered").await.1.contains("more than 3145728 bytes"));
    let mut socket = TcpStream::connect(belfry.receivers.trim_start_matches("http://")).unwrap();
    write!(socket, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc").unwrap();
    drop(socket);
    until("the truncated body to be noted", PATIENCE, async || {
        anyhow::ensure!(last(&belfry, "filtered").await.1.contains("ended early"));
        Ok(())
    })
    .await
    .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_belfry"))
        .args(["receivers", "apps/filtered", "--server", &belfry.api])
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains(&path) && out.contains("ended early") && out.contains("refused"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_labels_and_repeats() {
    let image = |name: &str, team: &str| {
        format!(
            "apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageRepository
metadata: {{name: {name}, namespace: apps, labels: {{team: {team}}}, annotations: {{image: {name}}}}}
spec: {{image: example.com/{name}}}
---
"
        )
    };
    let more = ", events: [push], resourceFilter: \"req.repo == res.metadata.annotations['image']\"";
    let all = receiver("all", "github", more).replace(
        "{kind: GitRepository, name: app}",
        "{kind: ImageRepository, name: '*', matchLabels: {team: web}}, {kind: Kustomization, name: x}",
    );
    let named = receiver("named", "generic", "")
        .replace("name: app}", "name: app, filter: \"req.tag.startsWith(res.metadata.name)\"}");
    let manifests = all + &named + &image("shop", "web") + &image("cart", "web") + &image("ledger", "books");
    let belfry = Belfry::start(&manifests, &[]).await;
    let path_all = path(&belfry, "all").await;
    let send = async |event: &str, id: &str, body: &str| {
        let signature = format!("sha256={}", tag(hmac::HMAC_SHA256, body));
        let pairs = [
            ("content-type", "application/json"),
            ("x-github-event", event),
            ("x-github-delivery", id),
            ("x-hub-signature-256", signature.as_str()),
        ];
        post(&belfry, &path_all, headers(&pairs), body.to_owned()).await
    };
    let waiting = async || {
        let mut objects: Vec<String> =
            belfry.deliveries("state=pending").await.iter().map(|one| one["object"].as_str().unwrap().into()).collect();
        objects.sort();
        objects
    };
    assert_eq!(send("ping", "1", "{\"repo\": \"shop\"}").await, 200);
    assert_eq!(send("issues", "2", "{\"repo\": \"shop\"}").await, 200);
    assert_eq!(last(&belfry, "all").await.0, "ignored");
    assert_eq!(waiting().await, [""; 0]);
    // One entry can't be: the others count, and the sender sees that something is wrong.
    assert_eq!(send("push", "3", "{\"repo\": \"shop\"}").await, 500);
    let (verdict, why) = last(&belfry, "all").await;
    assert!(verdict == "accepted" && why.contains("apiVersion must be specified for kind \"Kustomization\""), "{why}");
    assert_eq!(waiting().await, ["ImageRepository/apps/shop"]);
    assert_eq!(send("push", "4", "{\"repo\": \"ledger\"}").await, 500);
    assert_eq!(waiting().await, ["ImageRepository/apps/shop"]);

    let path_named = path(&belfry, "named").await;
    let json = headers(&[("content-type", "application/json"), ("x-github-delivery", "7")]);
    for (body, expected) in [("{\"tag\": \"other\"}", 1), ("{\"tag\": \"app:1\"}", 2), ("{\"tag\": \"app:2\"}", 2)] {
        assert_eq!(post(&belfry, &path_named, json.clone(), body).await, 200, "{body}");
        assert_eq!(waiting().await.len(), expected, "{body}");
    }

    // A sender's second try is recognised by the id that it gives; a wrong one spends nothing.
    let mended = receiver("all", "github", "");
    belfry.write("manifests.yaml", &(mended + &image("shop", "web")));
    until("the change to be in force", PATIENCE, async || {
        anyhow::ensure!(view(&belfry, "all").await["resources"] == json!(["GitRepository/apps/app"]));
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(send("push", "9", "{}").await, 200);
    assert_eq!(last(&belfry, "all").await.0, "accepted");
    assert_eq!(send("push", "9", "{}").await, 200);
    assert_eq!(last(&belfry, "all").await.0, "repeat");
    assert_eq!(send("push", "10", "{}").await, 200);
    assert_eq!(last(&belfry, "all").await.0, "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_moves_the_path_and_a_flood_is_told_to_wait() {
    let manifests = receiver("hook", "gitlab", "");
    let belfry = Belfry::start(&manifests, &[]).await;
    let before = path(&belfry, "hook").await;
    let with = |token: &str| headers(&[("x-gitlab-token", token)]);
    assert_eq!(post(&belfry, &before, with(TOKEN), "{}").await, 200);
    belfry.write("manifests.yaml", &manifests.replace(TOKEN, "an0ther-token"));
    let after = until("the path to move", PATIENCE, async || {
        let after = path(&belfry, "hook").await;
        anyhow::ensure!(after != before);
        Ok(after)
    })
    .await
    .unwrap();
    assert_eq!(post(&belfry, &before, with(TOKEN), "{}").await, 404);
    assert_eq!(post(&belfry, &after, with(TOKEN), "{}").await, 404);
    assert_eq!(post(&belfry, &after, with("an0ther-token"), "{}").await, 200);

    // Strangers can't use up what the genuine sender may send.
    for _ in 0..300 {
        assert_eq!(post(&belfry, &after, with("wrong"), "{}").await, 404);
    }
    let view_after = view(&belfry, "hook").await;
    assert!(view_after["deliveries"][0]["count"].as_u64().unwrap() >= 300, "{view_after:#}");
    let url = format!("{}{after}", belfry.receivers);
    let client = client();
    let mut told = None;
    for _ in 0..500 {
        let answer = client.post(&url).header("x-gitlab-token", "an0ther-token").send().await.unwrap();
        if answer.status() == 429 {
            told = Some(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
            break;
        }
        assert_eq!(answer.status(), 200);
    }
    let wait = told.expect("500 webhooks at once are not too many");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(post(&belfry, &after, with("an0ther-token"), "{}").await, 200);
    let refused = belfry.process.lines().iter().filter(|line| line.contains("refused a webhook")).count();
    assert!(refused < 20, "{refused} lines of log for a flood");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_here_reconciles_something_there() {
    let there =
        Belfry::start(&receiver("deployed", "cdevents", ", events: [dev.cdevents.environment.modified]"), &[]).await;
    let address = format!("{}{}", there.receivers, path(&there, "deployed").await);
    let provider = format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: events, namespace: flux-system}}
spec: {{type: cdevents, address: '{address}'}}
---
{}",
        alert("events")
    );
    let here = Belfry::start(&provider, &[]).await;
    let mut done = event("app", "info", "Reconciliation finished in 1s");
    done["reason"] = json!("ReconciliationSucceeded");
    done["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    here.accept(&done).await;
    here.wait_for("delivered", 1).await;
    let (verdict, reason) = last(&there, "deployed").await;
    assert_eq!(verdict, "accepted", "{reason}");
    let view = view(&there, "deployed").await;
    assert!(
        view["deliveries"][0]["event"].as_str().unwrap().starts_with("dev.cdevents.environment.modified."),
        "{view:#}"
    );
    assert!(view["deliveries"][0]["id"].is_string());
    let waiting = there.wait_for("pending", 1).await;
    assert_eq!(waiting[0]["object"], "GitRepository/apps/app");
}
