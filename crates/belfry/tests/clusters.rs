//! One Belfry passes its events on to another: everything arrives once and in order, whoever is away or killed meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::ensure;
use common::{Belfry, PATIENCE, alert, client, event, program};
use serde_json::{Value, json};
use testkit::{Answer, Sink, until};

const KEY: &str = "key-of-the-eu-cluster";
const TOKEN: &str = "token-of-the-us-cluster";
const OBJECTS: usize = 20;
const EACH: usize = 25;

/// A server that takes the events of the clusters `eu`, by a key, and `us`, by a token.
async fn hub(manifests: &str, flags: &[&str]) -> Belfry {
    let folder = tempfile::tempdir().unwrap();
    for (name, secret) in [("eu", KEY), ("us", TOKEN)] {
        fs::write(folder.path().join(name), secret).unwrap();
    }
    let access = folder.path().join("access.yaml");
    let clusters = "clusters: [{name: eu, hmacKeyFiles: [eu]}, {name: us, tokenFiles: [us]}]";
    fs::write(&access, clusters).unwrap();
    let (data, access) = (folder.path().join("data"), access.to_str().unwrap().to_owned());
    Belfry::start_in(folder, &data, manifests, &[&["--api-access", &access], flags].concat()).await
}

/// A Provider that passes on to a hub, with an Alert that gives it every Kustomization's events.
fn forward(name: &str, hub: &str, secret: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: flux-system}}
stringData: {{{secret}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: {name}, namespace: flux-system}}
spec: {{type: belfry, address: '{hub}', secretRef: {{name: {name}}}, timeout: 5s}}
---
{}",
        alert(name)
    )
}

fn signed(hub: &Belfry) -> String {
    forward("hub", &format!("{}/events?cluster=eu", hub.api), &format!("hmacKey: \"{KEY}\\n\""))
}

/// All events that a server has, oldest first.
async fn events(belfry: &Belfry) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = belfry.get(&format!("/api/v1/events?limit=500{cursor}")).await;
        let Value::Array(items) = page["items"].take() else { panic!("no list: {page}") };
        all.extend(items);
        match page["cursor"].as_i64() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    all.reverse();
    all
}

/// The messages of each object's events, in their order.
fn by_object(events: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    for event in events {
        objects.entry(text(event, "object")).or_default().push(text(event, "message"));
    }
    objects
}

async fn wait_for_events(belfry: &Belfry, count: usize) -> Vec<Value> {
    until(&format!("{count} events"), PATIENCE * 2, async || {
        let known = events(belfry).await;
        ensure!(known.len() >= count, "{} are there", known.len());
        Ok(known)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_cut_off_catches_up_in_order_and_nothing_comes_twice() {
    let mut hub = hub("", &[]).await;
    let mut leaf = Belfry::start(&signed(&hub), &["--cluster-name", "not what counts"]).await;
    // One comes while all is well, the others while the hub is away.
    leaf.accept(&event("first", "info", "first")).await;
    wait_for_events(&hub, 1).await;
    hub.process.kill().unwrap();
    for n in 0..EACH {
        let objects = (0..OBJECTS).map(|object| {
            let event =
                event(&format!("app-{object:02}"), if n % 2 == 0 { "info" } else { "error" }, &format!("{n:02}"));
            let leaf = &leaf;
            async move { leaf.accept(&event).await }
        });
        futures::future::join_all(objects).await;
    }
    hub.process.restart().unwrap();
    hub.ready().await;
    // Both are killed in the middle of it.
    for part in 1..=4 {
        wait_for_events(&hub, OBJECTS * EACH * part / 6).await;
        let one = if part % 2 == 0 { &mut hub } else { &mut leaf };
        one.process.restart().unwrap();
        one.ready().await;
    }
    let arrived = wait_for_events(&hub, OBJECTS * EACH + 1).await;
    until("nothing to be left", PATIENCE, async || {
        ensure!(leaf.deliveries("state=pending").await.is_empty(), "some is");
        Ok(())
    })
    .await
    .unwrap();
    assert!(leaf.deliveries("state=dead").await.is_empty());
    let arrived = if arrived.len() == OBJECTS * EACH + 1 { events(&hub).await } else { arrived };
    assert_eq!(arrived.len(), OBJECTS * EACH + 1, "something came twice");
    assert!(arrived.iter().all(|event| event["cluster"] == "eu" && event["origin"] == "controller"));
    let expected: Vec<String> = (0..EACH).map(|n| format!("{n:02}")).collect();
    for (object, messages) in by_object(&arrived) {
        assert!(messages == expected || messages == ["first"], "{object}: {messages:?}");
    }
    // What is known over there of the rollouts is what is known here.
    let phase = |rollouts: Value| rollouts["items"][0]["state"].as_str().unwrap().to_owned();
    let path = "/api/v1/rollouts?object=Kustomization/flux-system/app-07";
    let known = [phase(leaf.get(path).await), phase(hub.get(&format!("{path}&cluster=eu")).await)];
    assert_eq!(known[0], known[1]);

    // What is sent again, however it comes to that, is the same event.
    let delivered = leaf.deliveries("state=delivered&object=Kustomization/flux-system/first").await.remove(0);
    assert_eq!(leaf.redeliver(&delivered["id"]).await, 202);
    until("the repeat to be counted", PATIENCE, async || {
        let known = hub.get("/api/v1/events?object=Kustomization/flux-system/first").await;
        let repeats = known["items"][0]["repeats"].as_i64();
        ensure!(repeats >= Some(1) && known["items"].as_array().map(Vec::len) == Some(1), "{known}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_its_metadata_comes_with_it_and_equal_bodies_are_two_events() {
    let hub = hub("", &[]).await;
    let address = format!("{}/?cluster=us", hub.api);
    let leaf =
        Belfry::start(&forward("hub", &address, &format!("token: {TOKEN}")), &["--rate-limit-interval", "1s"]).await;
    // Without any metadata of its own nothing but the leaf can tell how it came.
    let mut bare = event("bare", "info", "bare");
    bare["metadata"] = json!({"event.toolkit.fluxcd.io/team": "shop", "team": "not said by its controller"});
    leaf.accept(&bare).await;
    let known = wait_for_events(&hub, 1).await;
    assert_eq!(known[0]["metadata"], json!({"team": "shop"}));
    let request = client().post(&leaf.events).header("Gotk-Component", "x").json(&event("passed", "info", "passed"));
    assert_eq!(request.send().await.unwrap().status(), 202);
    let known = wait_for_events(&hub, 2).await;
    assert_eq!((&known[1]["origin"], &known[1]["cluster"]), (&json!("forwarded"), &json!("us")));

    // The same is said again and again, slowly; all of it arrives at once.
    let post = |id: &'static str| {
        let request =
            client().post(format!("{}/events", hub.api)).bearer_auth(TOKEN).json(&event("slow", "info", "same"));
        async move { request.header("Belfry-Event-Id", id).send().await.unwrap().status().as_u16() }
    };
    for id in ["1", "2", "1", "3", "2"] {
        assert_eq!(post(id).await, 202);
    }
    assert_eq!(wait_for_events(&hub, 5).await.len(), 5);
    assert_eq!(post("not an id").await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_have_statuses_of_their_own_on_a_commit() {
    let sink = Sink::start().unwrap();
    sink.default_answer(Answer::body(201, "application/json", "{}"));
    let manifests = format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: git, namespace: flux-system}}
stringData: {{token: t}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: git, namespace: flux-system}}
spec: {{type: github, address: '{}', secretRef: {{name: git}}}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {{name: every, namespace: flux-system}}
spec: {{providerRef: {{name: git}}, prefix: fleet, eventSources: [{{kind: Kustomization, name: '*'}}]}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {{name: eu, namespace: flux-system}}
spec:
  providerRef: {{name: git}}
  prefix: all-of-eu
  aggregate: all
  eventSources: [{{kind: Kustomization, name: '*', cluster: eu}}]
",
        sink.url("/org/repo"),
    );
    let hub = hub(&manifests, &["--cluster-name", "here"]).await;
    let mut success = event("app", "info", "done");
    success["reason"] = json!("ReconciliationSucceeded");
    success["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
    hub.accept(&success).await;
    let posted = || -> BTreeSet<(String, String)> {
        let statuses = sink.received().into_iter().filter(|request| request.path.contains("/statuses/"));
        let text = |status: &Value, field: &str| status[field].as_str().unwrap().to_owned();
        statuses.map(|request| request.json().unwrap()).map(|s| (text(&s, "context"), text(&s, "state"))).collect()
    };
    let wait_for = async |expected: &[(&str, &str)]| {
        let expected = expected.iter().map(|(context, state)| ((*context).to_owned(), (*state).to_owned())).collect();
        until("the statuses", PATIENCE, async || {
            let posted = posted();
            ensure!(posted == expected, "{posted:?}");
            Ok(())
        })
        .await
        .unwrap();
    };
    let here = ("fleet/kustomization/flux-system/app", "success");
    wait_for(&[here]).await;
    // The same object of two other clusters, of which one has failed.
    let request = client().post(format!("{}/events", hub.api)).bearer_auth(TOKEN).json(&success);
    assert_eq!(request.send().await.unwrap().status(), 202);
    let mut leaf = Belfry::start(&signed(&hub), &[]).await;
    leaf.accept(&event("app", "error", "failed")).await;
    let us = ("fleet/us/kustomization/flux-system/app", "success");
    let eu = [("fleet/eu/kustomization/flux-system/app", "failure"), ("all-of-eu", "failure")];
    wait_for(&[here, us, eu[0], eu[1]]).await;
    leaf.process.kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_back_is_refused() {
    let [one, other] = [hub("", &["--cluster-name", "one"]).await, hub("", &["--cluster-name", "other"]).await];
    one.write("forward.yaml", &signed(&other));
    other.write("forward.yaml", &forward("back", &one.api, &format!("token: {TOKEN}")));
    until("both to know where to", PATIENCE, async || {
        for belfry in [&one, &other] {
            let known = belfry.get("/api/v1/explain?object=Kustomization/flux-system/app").await;
            ensure!(known.to_string().contains("hub") || known.to_string().contains("back"), "{known}");
        }
        Ok(())
    })
    .await
    .unwrap();
    one.accept(&event("app", "info", "round and round")).await;
    let dead = other.wait_for("dead", 1).await;
    assert!(dead[0].to_string().contains("this event was here before"), "{}", dead[0]);
    assert_eq!(events(&one).await.len(), 1);
    let there = events(&other).await;
    assert_eq!((there.len(), &there[0]["cluster"]), (1, &json!("eu")));
    // To oneself is the shortest ring.
    let this = hub("", &[]).await;
    this.write("forward.yaml", &forward("self", &this.api, &format!("token: {TOKEN}")));
    until("it to know where to", PATIENCE, async || {
        let known = this.get("/api/v1/explain?object=Kustomization/flux-system/app").await;
        ensure!(known.to_string().contains("self"), "{known}");
        Ok(())
    })
    .await
    .unwrap();
    this.accept(&event("app", "info", "to and fro")).await;
    this.wait_for("dead", 1).await;
    assert_eq!(events(&this).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_are_taken() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/clusters");
    let folder = tempfile::tempdir().unwrap();
    for name in ["prod-eu", "prod-us", "prod-us-next"] {
        fs::write(folder.path().join(format!("{name}.key")), format!("{name}-key-0123456789")).unwrap();
    }
    let access = folder.path().join("access.yaml");
    fs::copy(format!("{examples}/access.yaml"), &access).unwrap();
    for manifests in ["hub.yaml", "leaf.yaml"] {
        let check = ["check", "--runtime-namespace", "flux-system", "--api-access", access.to_str().unwrap()];
        let mut process = program().args(check).arg(format!("{examples}/{manifests}")).spawn().unwrap();
        let ended = process.wait(PATIENCE).await.unwrap();
        let said = process.lines().join("\n");
        assert!(ended.success() && !said.contains("error:") && !said.contains("warning:"), "{manifests}: {said}");
    }
}
