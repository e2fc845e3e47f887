//! What the API shows of what belongs to others: nothing, not even how much of it there is.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::fs;

use common::{Belfry, PATIENCE, alert, client, event};
use serde_json::{Value, json};
use testkit::{Answer, Sink, until};

const ALL: &str = "token-of-the-platform-team";
const APPS: &str = "token-of-the-team-of-apps";
const ACCESS: &str = "
tokens:
- {name: platform, tokenFile: platform, namespaces: ['*'], clusters: ['*'], role: admin}
- {name: apps, tokenFile: apps, namespaces: [apps], clusters: ['*'], role: admin}
";

/// A server with objects in two namespaces, that a platform's Alert and a team's own tell of.
async fn start(sink: &Sink) -> Belfry {
    let folder = tempfile::tempdir().unwrap();
    for (name, token) in [("platform", ALL), ("apps", APPS)] {
        fs::write(folder.path().join(name), token).unwrap();
    }
    let access = folder.path().join("access.yaml");
    fs::write(&access, ACCESS).unwrap();
    let provider = |namespace: &str| {
        format!(
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: one, namespace: {namespace}}}
spec: {{type: generic, address: '{}'}}
---
",
            sink.url(&format!("/{namespace}"))
        )
    };
    let platform = alert("one").replace("name: '*'", "name: '*', namespace: '*'");
    let team = alert("one").replace("namespace: flux-system", "namespace: apps");
    let receiver = "apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: hook, namespace: flux-system}
spec: {type: generic, secretRef: {name: hook}, resources: []}
---
apiVersion: v1
kind: Secret
metadata: {name: hook, namespace: flux-system}
stringData: {token: something}
";
    let manifests = [provider("flux-system"), provider("apps"), platform, team, receiver.to_owned()].concat();
    let data = folder.path().join("data");
    let flags = ["--api-access", access.to_str().unwrap(), "--api-trust-loopback=false"];
    Belfry::start_in(folder, &data, &manifests, &flags).await
}

fn of(namespace: &str, name: &str, severity: &str, message: &str) -> Value {
    let mut event = event(name, severity, message);
    event["involvedObject"]["namespace"] = json!(namespace);
    event
}

async fn send(belfry: &Belfry, token: &str, method: reqwest::Method, path: &str) -> reqwest::Response {
    client().request(method, format!("{}{path}", belfry.api)).bearer_auth(token).send().await.unwrap()
}

async fn get(belfry: &Belfry, token: &str, path: &str) -> (u16, Value) {
    let answer = send(belfry, token, reqwest::Method::GET, path).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn items(belfry: &Belfry, token: &str, path: &str) -> Vec<Value> {
    let (status, mut list) = get(belfry, token, path).await;
    assert_eq!(status, 200, "{path}: {list}");
    list["items"].as_array_mut().map(std::mem::take).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_sees_its_own() {
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::body(422, "text/plain", "not like this"));
    let belfry = start(&sink).await;
    for n in 0..30 {
        belfry.accept(&of("secret", "vault", "info", &format!("turned {n} times"))).await;
        if n % 10 == 0 {
            belfry.accept(&of("apps", "web", "error", &format!("failed {n} times"))).await;
        }
    }
    // A delivery each for the platform's Alert, and for the team's own about what is theirs.
    until("all of it to be given up", PATIENCE, async || {
        let dead = items(&belfry, ALL, "/api/v1/deliveries?state=dead").await;
        anyhow::ensure!(dead.len() == 36, "{} are", dead.len());
        Ok(())
    })
    .await
    .unwrap();

    for (list, all, own) in [("events", 33, 3), ("objects", 2, 1), ("rollouts", 2, 1), ("deliveries", 36, 6)] {
        let path = format!("/api/v1/{list}");
        assert_eq!(items(&belfry, ALL, &path).await.len(), all, "{list}");
        let (status, page) = get(&belfry, APPS, &path).await;
        assert_eq!((status, page.get("cursor")), (200, None), "{list}: {page}");
        let shown = page["items"].as_array().unwrap();
        assert_eq!(shown.len(), own, "{list}: {page}");
        assert!(shown.iter().all(|item| item["object"] == "Kustomization/apps/web"), "{page}");
        // Full pages, however much of others lies between.
        let (mut cursor, mut paged) = (String::new(), Vec::new());
        loop {
            let (_, page) = get(&belfry, APPS, &format!("{path}?limit=1{cursor}")).await;
            paged.extend(page["items"].as_array().unwrap().clone());
            match &page["cursor"] {
                Value::Null => break,
                Value::String(next) => cursor = format!("&cursor={next}"),
                next => cursor = format!("&cursor={next}"),
            }
        }
        assert_eq!(&paged, shown, "{list}");
        if list == "objects" {
            continue;
        }
        let foreign = items(&belfry, ALL, &format!("{path}?object=*/secret/*")).await[0]["id"].clone();
        let own = &shown[0]["id"];
        assert_eq!(get(&belfry, APPS, &format!("{path}/{own}")).await.0, 200, "{list}");
        let (status, refused) = get(&belfry, APPS, &format!("{path}/{foreign}")).await;
        let (_, missing) = get(&belfry, APPS, &format!("{path}/17")).await;
        let words = |problem: &Value, id: &str| problem["detail"].as_str().unwrap().replace(id, "N");
        assert_eq!(status, 404, "{list}");
        assert_eq!(words(&refused, &foreign.to_string()), words(&missing, "17"), "as if there were none");
    }
    let (_, of_revision) = get(&belfry, APPS, "/events?revision=7d8b790").await;
    assert_eq!(of_revision.as_array().unwrap().len(), 3);
    assert_eq!(items(&belfry, ALL, "/api/v1/receivers").await.len(), 1);
    assert!(items(&belfry, APPS, "/api/v1/receivers").await.is_empty(), "their paths are credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_explains_and_redelivers_its_own() {
    let sink = Sink::start().unwrap();
    let belfry = start(&sink).await;
    belfry.accept(&of("apps", "web", "error", "failed")).await;
    belfry.accept(&of("secret", "vault", "error", "failed")).await;
    until("all of it to be delivered", PATIENCE, async || {
        let delivered = items(&belfry, ALL, "/api/v1/deliveries?state=delivered").await;
        anyhow::ensure!(delivered.len() == 3, "{} are", delivered.len());
        Ok(())
    })
    .await
    .unwrap();
    let path = "/api/v1/explain?object=Kustomization/apps/web";
    let alerts = async |token: &str| -> Vec<String> {
        let (status, told) = get(&belfry, token, path).await;
        assert_eq!(status, 200, "{told}");
        told["alerts"].as_array().unwrap().iter().map(|alert| alert["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(alerts(ALL).await, ["apps/one", "flux-system/one"]);
    assert_eq!(alerts(APPS).await, ["apps/one"]);
    for hidden in ["Kustomization/secret/vault", "Kustomization/secret/nothing"] {
        let (status, problem) = get(&belfry, APPS, &format!("/api/v1/explain?object={hidden}")).await;
        assert_eq!((status, &problem["detail"]), (404, &json!(format!("there is no object {hidden}"))));
    }

    let id = async |alert: &str, namespace: &str| {
        let list = format!("/api/v1/deliveries?alert={alert}/one&object=*/{namespace}/*");
        items(&belfry, ALL, &list).await[0]["id"].clone()
    };
    for (id, expected) in [
        (id("apps", "apps").await, 202),
        // About its own object, but another's Alert.
        (id("flux-system", "apps").await, 403),
        (id("flux-system", "secret").await, 404),
    ] {
        let path = format!("/api/v1/deliveries/{id}/redeliver");
        let answer = send(&belfry, APPS, reqwest::Method::POST, &path).await;
        assert_eq!(answer.status().as_u16(), expected, "{}", answer.text().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_its_readers_own_and_ends_with_the_credential() {
    let sink = Sink::start().unwrap();
    let belfry = start(&sink).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(format!("{}/api/v1/events/stream", belfry.api)).bearer_auth(APPS);
    let mut answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    for n in 0..20 {
        belfry.accept(&of("secret", "vault", "info", &format!("turned {n} times"))).await;
    }
    belfry.accept(&of("apps", "web", "error", "failed")).await;
    let mut text = String::new();
    while !text.contains("failed") {
        let chunk = tokio::time::timeout(PATIENCE, answer.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(!text.contains("secret") && !text.contains("vault"), "{text}");

    let without = ACCESS.lines().filter(|line| !line.contains("name: apps")).collect::<Vec<_>>().join("\n");
    fs::write(belfry.folder.path().join("access.yaml"), without).unwrap();
    until("the token to be worth nothing", PATIENCE, async || {
        let answer = send(&belfry, APPS, reqwest::Method::GET, "/api/v1/events").await;
        anyhow::ensure!(answer.status().as_u16() == 401, "{}", answer.status());
        Ok(())
    })
    .await
    .unwrap();
    belfry.accept(&of("apps", "web", "error", "failed once more")).await;
    // With the event, or with the next look at who it is.
    let mut rest = String::new();
    let end = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("the stream ends");
    assert!(!rest.contains("once more"), "{rest}");
}
