//! The API's reading side, as people and their programs meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::time::Duration;

use common::{Belfry, PATIENCE, event, generic};
use serde_json::{Value, json};
use testkit::{Answer, Sink};

const COMMIT: &str = "7d8b790e325ffa0885be99788a08f4ae67d382a5";

async fn start() -> (Sink, Belfry) {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    (sink, belfry)
}

/// Status, and the body as JSON.
async fn ask(belfry: &Belfry, path: &str) -> (u16, Value) {
    let answer = common::client().get(format!("{}{path}", belfry.api)).send().await.unwrap();
    let status = answer.status().as_u16();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, if status == 200 { "application/json" } else { "application/problem+json" }, "{path}");
    (status, answer.json().await.unwrap())
}

async fn items(belfry: &Belfry, path: &str) -> Vec<Value> {
    match ask(belfry, path).await {
        (200, mut list) => list["items"].as_array_mut().map(std::mem::take).unwrap(),
        (status, problem) => panic!("{path}: {status} {problem}"),
    }
}

fn each<'v>(items: &'v [Value], key: &str) -> Vec<&'v str> {
    items.iter().map(|item| item[key].as_str().unwrap_or_default()).collect()
}

/// A HelmRelease's event as a `generic` Provider passes it on.
fn upgraded(version: &str) -> Value {
    json!({
        "involvedObject": {
            "apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease", "namespace": "apps", "name": "shop",
        },
        "severity": "info", "timestamp": "2026-01-02T03:05:00Z", "reason": "UpgradeSucceeded",
        "message": format!("Helm upgrade succeeded for release apps/shop.v1 with chart shop@{version}"),
        "metadata": {"revision": version, "app-version": "1.0"},
        "reportingController": "helm-controller",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_filtered_and_shown() {
    let (_sink, belfry) = start().await;
    belfry.accept(&event("web", "info", "applied")).await;
    belfry.accept(&event("db", "error", "it failed")).await;
    let forwarded = common::client().post(&belfry.events).header("Gotk-Component", "helm-controller");
    assert_eq!(forwarded.json(&upgraded("6.5.0")).send().await.unwrap().status().as_u16(), 202);
    let mut success = event("db", "info", "it works");
    success["reason"] = json!("ReconciliationSucceeded");
    success["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    success["metadata"]["event.toolkit.fluxcd.io/team"] = json!("shop");
    success["metadata"]["kustomize.toolkit.fluxcd.io/token"] = json!("hidden");
    belfry.accept(&success).await;

    let all = items(&belfry, "/api/v1/events").await;
    assert_eq!(
        each(&all, "reason"),
        ["ReconciliationSucceeded", "UpgradeSucceeded", "HealthCheckFailed", "Progressing"]
    );
    let newest = &all[0];
    let (id, time) = (newest["id"].clone(), newest["time"].clone());
    assert_eq!(
        *newest,
        json!({
            "id": id, "time": time, "object": "Kustomization/flux-system/db", "severity": "info",
            "reason": "ReconciliationSucceeded", "message": "it works", "revision": format!("main@sha1:{COMMIT}"),
            "commit": COMMIT, "change": "recovered", "repeats": 0, "origin": "controller",
            "metadata": {"commit_status": "update", "revision": format!("main@sha1:{COMMIT}"), "team": "shop"},
        })
    );
    assert_eq!((&all[1]["origin"], &all[1]["revision"]), (&json!("forwarded"), &json!("6.5.0")));
    assert_eq!(all[1].get("commit"), None);

    for (filter, count) in [
        ("kind=Kustomization", 3),
        ("kind=Kustomization&name=db", 2),
        ("namespace=apps", 1),
        ("namespace=nowhere", 0),
        ("object=Kustomization/*/db", 2),
        ("object=*/*/*&cluster=", 4),
        ("cluster=prod", 0),
        ("severity=error", 1),
        ("reason=Progressing", 1),
        ("revision=7d8b790", 3),
        ("revision=7D8B790E325F", 3),
        ("revision=7d8b791", 0),
        ("revision=6.5.0", 1),
        ("revision=6.5.1", 0),
        ("since=1h", 4),
        ("until=1h", 0),
        ("since=2026-01-01T00:00:00Z&until=2100-01-01T00:00:00Z", 4),
    ] {
        assert_eq!(items(&belfry, &format!("/api/v1/events?{filter}")).await.len(), count, "{filter}");
    }
    // Page by page it is the same list.
    let (mut cursor, mut paged) = (String::new(), Vec::new());
    loop {
        let (status, page) = ask(&belfry, &format!("/api/v1/events?limit=3{cursor}")).await;
        assert_eq!(status, 200);
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["cursor"].as_i64() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);

    let (status, mut whole) = ask(&belfry, &format!("/api/v1/events/{id}")).await;
    let inner = whole["event"].take();
    assert_eq!((status, &whole["message"]), (200, &json!("it works")));
    assert_eq!(inner["involvedObject"]["uid"], "uid-of-db");
    assert_eq!(inner["metadata"], newest["metadata"], "as a generic Provider would send it");
    assert_eq!(ask(&belfry, "/api/v1/events/17").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_revision_come_in_fluxs_json_oldest_first() {
    let (_sink, belfry) = start().await;
    let whole = ask(&belfry, "/events?revision=7d8b790").await;
    assert_eq!(whole, (200, json!([])));
    for n in 0..150 {
        belfry.accept(&event(&format!("app-{}", n % 7), "info", &format!("step {n}"))).await;
    }
    let mut other = event("app-1", "info", "elsewhere");
    other["metadata"] =
        json!({"kustomize.toolkit.fluxcd.io/revision": "main@sha1:1111111111111111111111111111111111111111"});
    belfry.accept(&other).await;
    let (status, array) = ask(&belfry, &format!("/events?revision=main@sha1:{COMMIT}")).await;
    let array = array.as_array().unwrap();
    assert_eq!((status, array.len()), (200, 150), "more than a page of them");
    let expected: Vec<String> = (0..150).map(|n| format!("step {n}")).collect();
    assert_eq!(each(array, "message"), expected);
    assert_eq!(
        array[0],
        json!({
            "involvedObject": {
                "kind": "Kustomization", "namespace": "flux-system", "name": "app-0", "uid": "uid-of-app-0",
                "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            },
            "severity": "info", "timestamp": "2026-01-02T03:04:05Z", "message": "step 0", "reason": "Progressing",
            "metadata": {"revision": format!("main@sha1:{COMMIT}")}, "reportingController": "kustomize-controller",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_told() {
    let (_sink, belfry) = start().await;
    for (path, parameter, allowed) in [
        ("/events", "revision", "missing"),
        ("/events?revision=", "revision", "is empty"),
        ("/events?revision=x&rev=y", "rev", "there are revision"),
        ("/api/v1/events?limit=0", "limit", "from 1 to 500"),
        ("/api/v1/events?limit=many", "limit", "from 1 to 500"),
        ("/api/v1/events?cursor=x", "cursor", "that a page before gave"),
        ("/api/v1/events?severity=fatal", "severity", "info or error"),
        ("/api/v1/events?since=yesterday", "since", "RFC 3339"),
        ("/api/v1/events?object=web", "object", "KIND/NAMESPACE/NAME"),
        ("/api/v1/events?object=a/b/c&name=c", "object", "without kind, namespace and name"),
        ("/api/v1/events?colour=red", "colour", "there are cluster, object, kind"),
        ("/api/v1/events?kind=a&kind=b", "kind", "duplicate"),
        ("/api/v1/events/x", "id", "is not a number"),
        ("/api/v1/events/stream?since=1h", "since", "there are cluster, object, kind"),
        ("/api/v1/events/stream?after=x", "after", "that a page before gave"),
        ("/api/v1/rollouts?state=done", "state", "none of pending, progressing"),
        ("/api/v1/rollouts?limit=501", "limit", "from 1 to 500"),
        ("/api/v1/deliveries?state=lost", "state", "none of pending, delivered"),
        ("/api/v1/deliveries?provider=slack", "provider", "NAMESPACE/NAME"),
    ] {
        let (status, problem) = ask(&belfry, path).await;
        assert_eq!((status, problem["status"].as_u64()), (400, Some(400)), "{path}: {problem}");
        assert_eq!(problem["parameter"], parameter, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(allowed), "{path}: {problem}");
    }
    for (path, status) in
        [("/", 404), ("/api/v1/nothing", 404), ("/api/v1/rollouts/1", 404), ("/api/v1/deliveries/1", 404)]
    {
        assert_eq!(ask(&belfry, path).await.0, status, "{path}");
    }
    let answer = common::client().delete(format!("{}/api/v1/events", belfry.api)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 405);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
}

/// A stream that is being read.
struct Stream {
    answer: reqwest::Response,
    text: String,
    last_id: Option<String>,
}

impl Stream {
    async fn open(belfry: &Belfry, query: &str, last_id: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("{}/api/v1/events/stream?{query}", belfry.api));
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        let mut stream = Self { answer, text: String::new(), last_id: None };
        assert_eq!(stream.block().await.unwrap(), None, "first it says where it is");
        assert!(stream.last_id.is_some());
        stream
    }

    /// The next block: an event, or a sign of life; no more when the stream is at its end.
    async fn block(&mut self) -> Option<Option<Value>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                self.last_id = field("id: ").or(self.last_id.take());
                return Some(field("data: ").map(|data| serde_json::from_str(&data).unwrap()));
            }
            let chunk = tokio::time::timeout(PATIENCE, self.answer.chunk()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            if let Some(event) = self.block().await.expect("the stream goes on") {
                assert_eq!(event["id"].to_string(), *self.last_id.as_ref().unwrap());
                messages.push(event["message"].as_str().unwrap().to_owned());
            }
        }
        messages
    }
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("step {n}")).collect()
}

async fn post(belfry: &Belfry, range: std::ops::Range<usize>) {
    for message in numbered(range) {
        belfry.accept(&event("app", "info", &message)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_a_crash_without_gap_or_repeat() {
    let (_sink, mut belfry) = start().await;
    post(&belfry, 0..3).await;
    let mut stream = Stream::open(&belfry, "", None).await;
    post(&belfry, 3..6).await;
    belfry.accept(&event("other", "error", "something else")).await;
    assert_eq!(stream.messages(4).await, [numbered(3..6), vec!["something else".into()]].concat());

    belfry.process.kill().unwrap();
    while stream.block().await.is_some() {}
    belfry.process.restart().unwrap();
    belfry.ready().await;
    post(&belfry, 6..9).await;
    let mut stream = Stream::open(&belfry, "object=Kustomization/*/app", stream.last_id.as_deref()).await;
    post(&belfry, 9..100).await;
    assert_eq!(stream.messages(94).await, numbered(6..100));
    let mut stream = Stream::open(&belfry, "severity=error&after=0", None).await;
    assert_eq!(stream.messages(1).await, ["something else"]);
    // With an id from somewhere else it begins now rather than never.
    let mut stream = Stream::open(&belfry, "", Some("9007199254740991")).await;
    post(&belfry, 100..101).await;
    assert_eq!(stream.messages(1).await, numbered(100..101));

    // A stop doesn't wait for those who listen.
    let stopped = belfry.process.terminate(Duration::from_secs(10)).await.unwrap();
    assert!(stopped.success());
    assert_eq!(stream.block().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_shows_nothing_is_alive_and_says_how_far_it_is() {
    let (_sink, belfry) = start().await;
    let mut stream = Stream::open(&belfry, "reason=Nothing", None).await;
    post(&belfry, 0..3).await;
    let newest = items(&belfry, "/api/v1/events?limit=1").await[0]["id"].to_string();
    while stream.last_id.as_ref() != Some(&newest) {
        assert_eq!(stream.block().await.unwrap(), None, "a sign of life");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_a_limit_and_are_given_back() {
    let (_sink, belfry) = start().await;
    let mut streams = Vec::new();
    for _ in 0..belfry_core::limits::STREAMS {
        streams.push(Stream::open(&belfry, "", None).await);
    }
    let (status, problem) = ask(&belfry, "/api/v1/events/stream").await;
    assert_eq!(status, 503);
    assert!(problem["detail"].as_str().unwrap().contains("256 streams are open already"), "{problem}");
    assert_eq!(ask(&belfry, "/api/v1/events").await.0, 200, "what isn't one goes on");
    drop(streams);
    testkit::until("a stream to be free", PATIENCE, async || {
        let (status, _) = ask(&belfry, "/events?revision=7d8b790").await;
        anyhow::ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_and_delivered_again() {
    let (sink, belfry) = start().await;
    sink.answer([Answer::body(422, "text/plain", "not like this")]);
    belfry.accept(&event("app", "error", "it failed")).await;
    let dead = belfry.wait_for("dead", 1).await;
    let id = &dead[0]["id"];
    let (status, whole) = ask(&belfry, &format!("/api/v1/deliveries/{id}")).await;
    assert_eq!((status, &whole["attemptLog"][0]["status"]), (200, &json!(422)));
    let (_, events) = ask(&belfry, &format!("/api/v1/events/{}", dead[0]["event"])).await;
    assert_eq!(events["message"], "it failed");
    assert_eq!(belfry.redeliver(id).await, 202);
    belfry.wait_for("delivered", 1).await;
    assert_eq!(belfry.redeliver(&json!(17)).await, 404);
}

/// What a folder tells of objects, and two Alerts that don't tell of everything.
const FOLDER: &str = "
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: web, namespace: flux-system, labels: {team: shop}}
spec: {suspend: true, path: ./web, sourceRef: {kind: GitRepository, name: fleet}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: errors, namespace: flux-system}
spec:
  providerRef: {name: nobody}
  eventSeverity: error
  eventSources: [{kind: Kustomization, name: '*', matchLabels: {team: shop}}]
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: elsewhere, namespace: flux-system}
spec:
  providerRef: {name: one}
  eventSources: [{kind: Kustomization, name: web, namespace: apps}]
---
";

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_events_and_of_the_index_are_one_list() {
    let sink = Sink::start().unwrap();
    let manifests = format!("{}{FOLDER}", generic("one", &sink.url("/")));
    let belfry = Belfry::start(&manifests, &["--cluster-name", "prod"]).await;
    for name in ["web", "db", "cache"] {
        belfry.accept(&event(name, "info", "applied")).await;
    }
    belfry.accept(&event("db", "error", "it failed")).await;
    assert_eq!(
        common::client()
            .post(&belfry.events)
            .header("Gotk-Component", "x")
            .json(&upgraded("6.5.0"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        202
    );
    let mut objects = items(&belfry, "/api/v1/objects").await;
    assert_eq!(each(&objects, "name"), ["cache", "db", "shop", "web"]);
    assert_eq!(each(&objects, "cluster"), ["prod"; 4]);
    let web = &objects[3];
    assert_eq!((&web["suspended"], &web["indexed"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&web["source"], &web["rollout"]["state"]),
        (&json!("GitRepository/flux-system/fleet"), &json!("progressing"))
    );
    let db = &mut objects[1];
    let rollout = db["rollout"].take();
    assert_eq!(rollout["state"], "failed");
    assert_eq!(
        *db,
        json!({
            "object": "Kustomization/flux-system/db", "cluster": "prod", "group": "kustomize.toolkit.fluxcd.io",
            "kind": "Kustomization", "namespace": "flux-system", "name": "db", "ready": false,
            "reason": "HealthCheckFailed", "message": "it failed", "attempted": format!("main@sha1:{COMMIT}"),
            "suspended": false, "deleting": false, "indexed": false, "rollout": null,
        })
    );
    assert_eq!(objects[2]["live"], "6.5.0");
    for (filter, names) in [
        ("kind=HelmRelease", vec!["shop"]),
        ("ready=false", vec!["db"]),
        ("ready=true", vec!["shop"]),
        ("object=*/flux-system/web", vec!["web"]),
        ("cluster=", vec![]),
        ("cluster=prod&namespace=apps", vec!["shop"]),
    ] {
        assert_eq!(each(&items(&belfry, &format!("/api/v1/objects?{filter}")).await, "name"), names, "{filter}");
    }
    for limit in 1..5 {
        let (mut cursor, mut names) = (String::new(), Vec::new());
        loop {
            let (_, page) = ask(&belfry, &format!("/api/v1/objects?limit={limit}{cursor}")).await;
            let page_items = page["items"].as_array().unwrap();
            assert!(page_items.len() <= limit);
            names.extend(each(page_items, "name").into_iter().map(str::to_owned));
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(names, ["cache", "db", "shop", "web"], "{limit} at a time");
    }
    let (status, problem) = ask(&belfry, "/api/v1/objects?cursor=17").await;
    assert_eq!((status, &problem["parameter"]), (400, &json!("cursor")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_of_an_object_is_explained() {
    let sink = Sink::start().unwrap();
    let belfry = Belfry::start(&format!("{}{FOLDER}", generic("one", &sink.url("/"))), &[]).await;
    belfry.accept(&event("web", "info", "applied")).await;
    belfry.accept(&event("web", "error", "it failed")).await;
    belfry.wait_for("delivered", 2).await;
    let (status, told) = ask(&belfry, "/api/v1/explain?object=Kustomization/flux-system/web").await;
    assert_eq!((status, &told["object"]["rollout"]["state"]), (200, &json!("failed")));
    assert_eq!(
        told["alerts"],
        json!([
            {"name": "flux-system/errors", "provider": "flux-system/nobody", "selects": true, "findings": [
                "Alert/flux-system/errors: spec.providerRef.name: there is no Provider \
                 'nobody' in the namespace 'flux-system': deliveries wait until there is"
            ]},
            {"name": "flux-system/one", "provider": "flux-system/one", "providerType": "generic", "selects": true},
            {"name": "flux-system/elsewhere", "provider": "flux-system/one", "providerType": "generic",
                "selects": false, "whyNot": ["spec.eventSources[0].namespace: selects 'apps'"]},
        ])
    );
    assert_eq!(each(told["events"].as_array().unwrap(), "message"), ["it failed", "applied"]);
    assert_eq!(told["events"][0]["alerts"][0], json!({"name": "flux-system/errors", "tells": true}));
    assert_eq!(
        told["events"][1]["alerts"][0],
        json!({
            "name": "flux-system/errors", "tells": false, "whyNot": ["spec.eventSeverity: only errors are told of"],
        })
    );
    let deliveries = told["deliveries"].as_array().unwrap();
    assert_eq!(each(deliveries, "state").len(), 3, "two went out, and one waits for its Provider");
    let (status, unheard) = ask(&belfry, "/api/v1/explain?object=Kustomization/flux-system/unheard").await;
    assert_eq!((status, &unheard["object"]["indexed"]), (200, &json!(false)));
    let labels = json!(["spec.eventSources[0].matchLabels: the object's labels are not known"]);
    assert_eq!(unheard["alerts"][1]["whyNot"], labels, "{unheard}");
    for object in ["", "Kustomization/flux-system/*", "web"] {
        let (status, problem) = ask(&belfry, &format!("/api/v1/explain?object={object}")).await;
        assert_eq!((status, &problem["parameter"]), (400, &json!("object")), "{object}");
    }
}
