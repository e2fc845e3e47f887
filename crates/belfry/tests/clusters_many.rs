//! Many clusters into one: each one's events in their order, to its own destination, whatever becomes of the others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::ensure;
use common::{Belfry, PATIENCE, client, event};
use testkit::{Answer, Sink, until};

/// How many clusters there are unless this variable says otherwise.
const CLUSTERS: usize = 200;
const VARIABLE: &str = "BELFRY_TEST_CLUSTERS";
const OBJECTS: usize = 50;
/// Events of each object.
const EACH: usize = 2;
/// The one whose destination never answers, for as long as it takes.
const STUCK: usize = 3;

fn clusters() -> usize {
    std::env::var(VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(CLUSTERS)
}

fn token(cluster: usize) -> String {
    format!("token-of-cluster-{cluster:04}")
}

/// For each cluster a Provider, and an Alert that selects by cluster.
fn manifests(sink: &Sink, count: usize) -> String {
    let mut all = String::new();
    for n in 0..count {
        let address = sink.url(&format!("/c{n}"));
        write!(
            all,
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: c{n}, namespace: flux-system}}
spec: {{type: generic, address: '{address}', timeout: 10m}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {{name: c{n}, namespace: flux-system}}
spec:
  providerRef: {{name: c{n}}}
  eventSources: [{{kind: Kustomization, name: '*', cluster: c{n}}}]
---
"
        )
        .unwrap();
    }
    all
}

async fn start(sink: &Sink, count: usize) -> Belfry {
    let folder = tempfile::tempdir().unwrap();
    let mut access = "clusters:\n".to_owned();
    for n in 0..count {
        fs::write(folder.path().join(format!("c{n}")), token(n)).unwrap();
        writeln!(access, "- {{name: c{n}, tokenFiles: [c{n}]}}").unwrap();
    }
    let file = folder.path().join("access.yaml");
    fs::write(&file, access).unwrap();
    let (data, file) = (folder.path().join("data"), file.to_str().unwrap().to_owned());
    Belfry::start_in(folder, &data, &manifests(sink, count), &["--api-access", &file, "--cluster-name", "hub"]).await
}

/// Posts what a cluster has to say, an object after the other; all of it must be taken.
async fn say(url: String, cluster: usize) {
    let client = client();
    for n in 0..EACH {
        for object in 0..OBJECTS {
            // The same everywhere, but for the id: nothing but the credential tells the clusters apart.
            let event = event(&format!("app-{object}"), "info", &format!("{n}"));
            let request = client.post(&url).bearer_auth(token(cluster)).json(&event);
            let request = request.header("Belfry-Event-Id", format!("{object}-{n}"));
            assert_eq!(request.send().await.unwrap().status(), 202, "cluster {cluster}");
        }
    }
}

/// What a destination got: for each object the messages in their order.
fn received(sink: &Sink, cluster: usize) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in sink.received_on(&format!("/c{cluster}")) {
        let event = request.json().unwrap();
        let name = event["involvedObject"]["name"].as_str().unwrap().to_owned();
        objects.entry(name).or_default().push(event["message"].as_str().unwrap().to_owned());
    }
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn none_disturbs_another() {
    let count = clusters();
    let sink = Sink::start().unwrap();
    sink.default_answer_on(&format!("/c{STUCK}"), Answer::Hang);
    let belfry = start(&sink, count).await;
    let url = format!("{}/events", belfry.api);
    let mut senders = tokio::task::JoinSet::new();
    for cluster in 0..count {
        senders.spawn(say(url.clone(), cluster));
    }
    // One who isn't known, from the same address.
    let stranger = {
        let url = url.clone();
        tokio::spawn(async move {
            let client = client();
            let mut answers = Vec::new();
            for n in 0..60 {
                let request =
                    client.post(&url).bearer_auth("token-of-nobody-here").json(&event("app-0", "info", &n.to_string()));
                answers.push(request.send().await.unwrap().status().as_u16());
            }
            answers
        })
    };
    while let Some(ended) = senders.join_next().await {
        ended.unwrap();
    }
    let answers = stranger.await.unwrap();
    assert!(answers[0] == 401 && answers.iter().all(|answer| matches!(answer, 401 | 429)), "{answers:?}");

    // All destinations but one get everything while that one has answered nothing yet.
    let whole: BTreeMap<String, Vec<String>> =
        (0..OBJECTS).map(|object| (format!("app-{object}"), (0..EACH).map(|n| n.to_string()).collect())).collect();
    for cluster in (0..count).filter(|cluster| *cluster != STUCK) {
        let arrived = sink.wait_for_on(&format!("/c{cluster}"), OBJECTS * EACH, PATIENCE * 2).await.unwrap();
        assert_eq!(arrived.len(), OBJECTS * EACH, "cluster {cluster}");
        assert_eq!(received(&sink, cluster), whole, "cluster {cluster}");
    }
    let stuck = received(&sink, STUCK);
    assert!(!stuck.is_empty() && stuck.values().all(|messages| *messages == ["0"]), "{stuck:?}");

    // What is known of a cluster is what it said.
    for cluster in [0, STUCK, count - 1] {
        let list = belfry.get(&format!("/api/v1/rollouts?limit=500&cluster=c{cluster}")).await;
        let items = list["items"].as_array().unwrap();
        assert!(items.len() == OBJECTS && items.iter().all(|item| item["cluster"] == format!("c{cluster}")), "{list}");
    }
    until("the deliveries of all others to be made", PATIENCE, async || {
        let pending = belfry.deliveries("state=pending").await;
        let provider = format!("c{STUCK}");
        let others = pending.iter().filter(|delivery| !delivery["provider"].to_string().contains(&provider)).count();
        ensure!(others == 0, "{others} wait");
        Ok(())
    })
    .await
    .unwrap();
}
