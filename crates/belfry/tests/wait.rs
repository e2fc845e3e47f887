//! Waits for verdicts at a real server without a cluster, where events decide.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use common::{Belfry, PATIENCE};
use futures::future::join_all;
use serde_json::{Value, json};
use testkit::until;

const A: &str = "main@sha1:a000000000000000000000000000000000000000";
const B: &str = "main@sha1:b000000000000000000000000000000000000000";
const C: &str = "main@sha1:c000000000000000000000000000000000000000";

/// A client whose requests may wait.
fn patient() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE * 2).build().unwrap()
}

/// Reports of Kustomizations, each a second after the one before.
struct Controller<'a> {
    belfry: &'a Belfry,
    second: std::cell::Cell<u32>,
}

impl<'a> Controller<'a> {
    fn of(belfry: &'a Belfry) -> Self {
        Self { belfry, second: std::cell::Cell::new(0) }
    }

    async fn says(&self, name: &str, reason: &str, revision: &str) {
        self.belfry.accept(&self.event(name, reason, revision)).await;
    }

    /// From another cluster.
    async fn says_from(&self, cluster: &str, name: &str, reason: &str, revision: &str) {
        let post = patient().post(format!("{}/events", self.belfry.api)).bearer_auth(token(cluster));
        let answer = post.json(&self.event(name, reason, revision)).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }

    fn event(&self, name: &str, reason: &str, revision: &str) -> Value {
        let second = self.second.replace(self.second.get() + 1);
        let mut event = json!({
            "involvedObject": {
                "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization", "namespace": "apps",
                "name": name, "uid": name,
            },
            "severity": if reason.ends_with("Failed") { "error" } else { "info" },
            "timestamp": format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60),
            "reason": reason, "message": format!("{reason} in step {second}"),
            "metadata": {"kustomize.toolkit.fluxcd.io/revision": revision},
            "reportingController": "kustomize-controller",
        });
        if reason == "ReconciliationSucceeded" {
            event["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = json!("update");
        }
        event
    }
}

fn token(cluster: &str) -> String {
    format!("token-of-the-{cluster}-cluster")
}

async fn ask(belfry: &Belfry, query: &str) -> Value {
    let answer = patient().get(format!("{}/api/v1/wait?{query}", belfry.api)).send().await.unwrap();
    answer.json().await.unwrap()
}

/// The verdict and what it says.
async fn verdict(belfry: &Belfry, query: &str) -> String {
    let answer = ask(belfry, query).await;
    let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    let timed_out = if answer["timedOut"] == true { " (timed out)" } else { "" };
    format!("{}{timed_out}: {}", word("verdict"), word("message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_the_question_counts() {
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    flux.says("web", "Progressing", A).await;
    flux.says("web", "ReconciliationSucceeded", A).await;
    flux.says("shop", "Progressing", A).await;
    flux.says("shop", "HealthCheckFailed", A).await;
    let web = "object=Kustomization/apps/web";
    let live = "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded: ReconciliationSucceeded in step 1";
    assert_eq!(verdict(&belfry, &format!("revision=a000000&{web}")).await, live);
    assert_eq!(
        verdict(&belfry, "revision=a000000").await,
        "failed: Kustomization/apps/shop failed: HealthCheckFailed: HealthCheckFailed in step 3"
    );
    let unheard = format!("revision={B}");
    assert_eq!(
        verdict(&belfry, &format!("{unheard}&unknown=fail")).await,
        format!("unknown: nothing that is known goes to {B}")
    );
    assert_eq!(
        verdict(&belfry, &format!("{unheard}&timeout=1s")).await,
        format!("unknown (timed out): nothing that is known goes to {B}")
    );
    assert_eq!(
        verdict(&belfry, &format!("{unheard}&timeout=1s&{web}")).await,
        format!("pending (timed out): waiting for Kustomization/apps/web (it runs {A})")
    );
    // The records outlive what the object runs.
    flux.says("web", "ReconciliationSucceeded", B).await;
    assert_eq!(
        verdict(&belfry, &format!("revision=a000000&{web}")).await,
        "succeeded: Kustomization/apps/web is live: ReconciliationSucceeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_what_others_had_before() {
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    for name in ["a", "b", "c"] {
        flux.says(name, "ReconciliationSucceeded", A).await;
    }
    // It left before, and isn't waited for.
    flux.says("c", "ReconciliationSucceeded", C).await;
    flux.says("a", "ReconciliationSucceeded", B).await;
    let answer = ask(&belfry, "revision=b000000&timeout=1s").await;
    assert_eq!(answer["verdict"], "pending");
    assert_eq!(answer["message"], format!("1 of 2 objects are live; waiting for Kustomization/apps/b (it runs {A})"));
    let waiting = verdict(&belfry, "revision=b000000");
    let (told, ()) = tokio::join!(waiting, async {
        waits(&belfry, 1).await;
        flux.says("b", "Progressing", B).await;
        flux.says("b", "ReconciliationSucceeded", B).await;
    });
    assert_eq!(told, "succeeded: all 2 objects are live");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_others_of_the_clusters_that_the_commit_came_to() {
    let folder = tempfile::tempdir().unwrap();
    let clusters = ["eu", "us"].map(|name| {
        std::fs::write(folder.path().join(name), token(name)).unwrap();
        format!("{{name: {name}, tokenFiles: [{name}]}}")
    });
    let access = folder.path().join("access.yaml");
    std::fs::write(&access, format!("clusters: [{}]", clusters.join(", "))).unwrap();
    let (data, access) = (folder.path().join("data"), access.to_str().unwrap().to_owned());
    let belfry = Belfry::start_in(folder, &data, "", &["--api-access", &access, "--cluster-name", "hub"]).await;
    let flux = Controller::of(&belfry);
    for name in ["a", "b"] {
        flux.says(name, "ReconciliationSucceeded", A).await;
        flux.says_from("eu", name, "ReconciliationSucceeded", A).await;
        flux.says_from("us", name, "ReconciliationSucceeded", A).await;
    }
    let progress = async || verdict(&belfry, "revision=b000000&timeout=0s").await;
    flux.says_from("us", "a", "ReconciliationSucceeded", B).await;
    assert!(progress().await.contains(": 1 of 2 objects are live"), "{}", progress().await);
    flux.says_from("eu", "b", "ReconciliationSucceeded", B).await;
    assert!(progress().await.contains(": 2 of 4 objects are live"), "{}", progress().await);
    flux.says_from("us", "b", "ReconciliationSucceeded", B).await;
    flux.says_from("eu", "a", "ReconciliationSucceeded", B).await;
    assert_eq!(progress().await, "succeeded: all 4 objects are live");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_what_goes_to_a_revision_is_no_answer() {
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    for chunk in (0..2_000).collect::<Vec<_>>().chunks(100) {
        let names: Vec<String> = chunk.iter().map(|n| format!("app-{n}")).collect();
        join_all(names.iter().map(|name| flux.says(name, "ReconciliationSucceeded", A))).await;
    }
    assert_eq!(verdict(&belfry, "revision=a000000&timeout=0s").await, "succeeded: all 2000 objects are live");
    flux.says("web", "HealthCheckFailed", A).await;
    let url = format!("{}/api/v1/wait?revision=a000000&timeout=0s", belfry.api);
    let answer = patient().get(url).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let text = answer.text().await.unwrap();
    assert!(text.contains("more than 2000 objects go to this revision"), "{text}");
    let named = verdict(&belfry, "revision=a000000&timeout=0s&object=Kustomization/apps/app-7").await;
    assert!(named.starts_with("succeeded: Kustomization/apps/app-7 is live"), "{named}");
}

/// Waits until so many wait.
async fn waits(belfry: &Belfry, count: usize) {
    until("the wait to have begun", PATIENCE, async || {
        let text = common::client().get(&belfry.metrics).send().await?.text().await?;
        let line = text.lines().find_map(|line| line.strip_prefix("belfry_waits "));
        let waiting: usize = line.unwrap_or("0").parse()?;
        anyhow::ensure!(waiting >= count, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_every_step_and_ends_with_the_verdict() {
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    let url = format!("{}/api/v1/wait?revision={B}&object=Kustomization/apps/web&on-failure=wait", belfry.api);
    let request = patient().get(url).header("accept", "text/event-stream");
    let mut response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let mut steps = Vec::new();
    for said in ["", "Progressing", "HealthCheckFailed", "ReconciliationSucceeded"] {
        if !said.is_empty() {
            flux.says("web", said, B).await;
        }
        let step = next_event(&mut response, &mut text).await.unwrap();
        steps.push(step);
    }
    assert_eq!(next_event(&mut response, &mut text).await, None);
    let steps: Vec<_> = steps
        .iter()
        .map(|(name, data)| format!("{name} {} {}", data["verdict"], data["objects"][0]["state"]))
        .collect();
    assert_eq!(
        steps,
        [
            r#"answer "pending" "pending""#,
            r#"answer "pending" "progressing""#,
            r#"answer "pending" "failed""#,
            r#"verdict "succeeded" "succeeded""#
        ]
    );
}

/// Reads the next server-sent event.
async fn next_event(response: &mut reqwest::Response, text: &mut String) -> Option<(String, Value)> {
    loop {
        if let Some((event, rest)) = text.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *text = rest;
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(data) = field("data: ") {
                return Some((field("event: ").unwrap(), serde_json::from_str(&data).unwrap()));
            }
            continue;
        }
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap()?).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_revision_that_comes_after_the_question_supersedes_one_that_was_never_seen() {
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    flux.says("web", "ReconciliationSucceeded", A).await;
    let query = format!("revision={B}&object=Kustomization/apps/web");
    let (told, ()) = tokio::join!(verdict(&belfry, &query), async {
        waits(&belfry, 1).await;
        // What it runs already says nothing.
        flux.says("web", "ReconciliationSucceeded", A).await;
        flux.says("web", "ReconciliationSucceeded", C).await;
    });
    assert_eq!(told, format!("superseded: Kustomization/apps/web was superseded by {C}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wait_at_once() {
    const WAITS: usize = 1_000;
    let belfry = Belfry::start("", &[]).await;
    let flux = Controller::of(&belfry);
    flux.says("web", "Progressing", A).await;
    let client = patient();
    let url = format!("{}/api/v1/wait?revision={A}&object=Kustomization/apps/web", belfry.api);
    let asking = (0..WAITS).map(|_| client.get(&url).send());
    let (answers, ()) = tokio::join!(join_all(asking), async {
        waits(&belfry, WAITS).await;
        flux.says("web", "ReconciliationSucceeded", A).await;
    });
    for answer in answers {
        let answer: Value = answer.unwrap().json().await.unwrap();
        assert_eq!(answer["verdict"], "succeeded");
    }
    waits_none(&belfry).await;
}

async fn waits_none(belfry: &Belfry) {
    until("nobody to wait", PATIENCE, async || {
        let text = common::client().get(&belfry.metrics).send().await?.text().await?;
        anyhow::ensure!(text.lines().any(|line| line == "belfry_waits 0"), "someone waits");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_server() {
    let mut belfry = Belfry::start("", &[]).await;
    let url = format!("{}/api/v1/wait?revision={A}", belfry.api);
    let asking = tokio::spawn(patient().get(url).send());
    waits(&belfry, 1).await;
    belfry.process.terminate(PATIENCE).await.expect("it stops while someone waits");
    assert_eq!(asking.await.unwrap().unwrap().status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_question_is_told_what_is_wrong_with_it() {
    let belfry = Belfry::start("", &[]).await;
    for (query, parameter) in [("", "revision"), ("revision=a&object=x", "object"), ("revision=a&color=red", "color")] {
        let answer = patient().get(format!("{}/api/v1/wait?{query}", belfry.api)).send().await.unwrap();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("{parameter}: ")), "{problem}");
    }
}
