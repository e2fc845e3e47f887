//! Commit statuses, from events to what a git host shows in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use common::{Belfry, PATIENCE, client};
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use testkit::{port, until};

const FIRST: &str = "7d8b790e325ffa0885be99788a08f4ae67d382a5";
const SECOND: &str = "29d2ac0fb3ac30dd1b5a3c1f6d3a30ab9a5bd0cf";
const THIRD: &str = "836c15b3d0e6d4d3b3a0b1c2d3e4f5a6b7c8d9e0";

/// What GitHub does with commit statuses: the newest of a commit and context is the one that shows.
#[derive(Default)]
struct GitHub {
    /// Repository and commit, context, state, description; in the order in which they were applied.
    statuses: Mutex<Vec<[String; 4]>>,
    requests: AtomicUsize,
    mood: Mutex<Mood>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mood {
    #[default]
    Fine,
    Down,
    /// It takes what is posted, but no sooner than this, and its answer never comes.
    Late(Duration),
}

impl GitHub {
    async fn start() -> (Arc<Self>, String) {
        let host = Arc::new(Self::default());
        let router = Router::new()
            .route("/api/v3/repos/{owner}/{repo}/statuses/{sha}", post(Self::create))
            .route("/api/v3/repos/{owner}/{repo}/commits/{sha}/statuses", get(Self::list))
            .with_state(host.clone());
        let port = port::free().unwrap();
        let listener = port::bind(port).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (host, format!("http://127.0.0.1:{port}"))
    }

    async fn create(
        State(host): State<Arc<Self>>,
        Path((owner, repo, sha)): Path<(String, String, String)>,
        Json(body): Json<Value>,
    ) -> (StatusCode, Json<Value>) {
        host.requests.fetch_add(1, Ordering::Relaxed);
        let mood = *host.mood.lock().unwrap();
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        let status = [format!("{owner}/{repo}@{sha}"), text("context"), text("state"), text("description")];
        match mood {
            Mood::Fine => host.statuses.lock().unwrap().push(status),
            Mood::Down => return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({}))),
            Mood::Late(wait) => {
                // Not with the connection: the client is gone long before.
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    host.statuses.lock().unwrap().push(status);
                });
                std::future::pending::<()>().await;
            }
        }
        (StatusCode::CREATED, Json(json!({ "id": 1 })))
    }

    async fn list(
        State(host): State<Arc<Self>>,
        Path((owner, repo, sha)): Path<(String, String, String)>,
    ) -> (StatusCode, Json<Value>) {
        host.requests.fetch_add(1, Ordering::Relaxed);
        if *host.mood.lock().unwrap() == Mood::Down {
            return (StatusCode::SERVICE_UNAVAILABLE, Json(json!([])));
        }
        let commit = format!("{owner}/{repo}@{sha}");
        let statuses = host.statuses.lock().unwrap();
        let found = statuses.iter().rev().filter(|[of, ..]| *of == commit);
        let found: Vec<_> = found
            .map(|[_, context, state, description]| {
                json!({ "id": 1, "context": context, "state": state, "description": description })
            })
            .collect();
        (StatusCode::OK, Json(found.into()))
    }

    fn feel(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// What was ever shown under a context, as `commit state`.
    fn story(&self, context: &str) -> Vec<String> {
        let statuses = self.statuses.lock().unwrap();
        let of = statuses.iter().filter(|[_, found, ..]| found == context);
        of.map(|[at, _, state, _]| format!("{} {state}", &at.split('@').nth(1).unwrap()[..4])).collect()
    }

    async fn wait_for(&self, context: &str, last: &str) {
        until(&format!("{context} to be '{last}'"), PATIENCE, async || {
            let story = self.story(context);
            anyhow::ensure!(story.last().is_some_and(|found| found == last), "{story:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

fn manifests(address: &str, prefix: &str, more: &str) -> String {
    format!(
        "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {{name: github, namespace: flux-system}}
spec: {{type: github, address: '{address}', secretRef: {{name: token}}, timeout: 2s}}
---
apiVersion: v1
kind: Secret
metadata: {{name: token, namespace: flux-system}}
stringData: {{token: ghp_secret}}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: CommitStatus
metadata: {{name: all, namespace: flux-system}}
spec:
  providerRef: {{name: github}}
  eventSources: [{{kind: Kustomization, name: '*'}}]
  prefix: {prefix}
  {more}
"
    )
}

/// What kustomize-controller says of `name` at this second.
fn said(name: &str, second: u32, reason: &str, commit: &str, message: &str) -> Value {
    let error = reason.ends_with("Failed");
    let mut event = json!({
        "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "namespace": "flux-system", "name": name, "uid": format!("uid-of-{name}"),
        },
        "severity": if error { "error" } else { "info" },
        "timestamp": format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60),
        "reason": reason,
        "message": message,
        "metadata": {"kustomize.toolkit.fluxcd.io/revision": format!("main@sha1:{commit}")},
        "reportingController": "kustomize-controller",
    });
    if reason == "ReconciliationSucceeded" {
        event["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = "update".into();
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_report_the_same_commit_side_by_side() {
    let (github, at) = GitHub::start().await;
    let dev = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &["--cluster-name", "dev"]).await;
    let prod = Belfry::start(&manifests(&format!("{at}/org/repo"), "prod", ""), &["--cluster-name", "prod"]).await;
    for belfry in [&dev, &prod] {
        belfry.accept(&said("web", 1, "Progressing", FIRST, "Deployment/web created")).await;
    }
    dev.accept(&said("web", 5, "ReconciliationSucceeded", FIRST, "Reconciliation finished")).await;
    prod.accept(&said("web", 9, "HealthCheckFailed", FIRST, "timeout waiting for: Deployment/web")).await;
    github.wait_for("dev/kustomization/flux-system/web", "7d8b success").await;
    github.wait_for("prod/kustomization/flux-system/web", "7d8b failure").await;
    // Nobody else wrote there, and nothing twice.
    let statuses = github.statuses.lock().unwrap().clone();
    assert!(statuses.iter().all(|[of, ..]| *of == format!("org/repo@{FIRST}")));
    let description = statuses.iter().rev().find(|[_, context, ..]| context.starts_with("prod")).unwrap()[3].clone();
    assert_eq!(description, "health check failed: timeout waiting for: Deployment/web");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_of_an_object_is_what_a_person_would_tell() {
    let (github, at) = GitHub::start().await;
    let belfry = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &[]).await;
    let context = "dev/kustomization/flux-system/web";
    // What is said, and what is shown in the end; statuses that a later one overtakes within two seconds are left out.
    let table = [
        (said("web", 1, "DependencyNotReady", FIRST, "dependency 'infra' is not ready"), "7d8b pending"),
        (said("web", 5, "ReconciliationSucceeded", FIRST, "finished in 1s"), "7d8b success"),
        (said("web", 9, "Progressing", SECOND, "Deployment/web configured"), "29d2 pending"),
        (said("web", 19, "HealthCheckFailed", SECOND, "timeout"), "29d2 failure"),
        (said("web", 25, "ReconciliationSucceeded", SECOND, "finished in 2s"), "29d2 success"),
        (said("web", 30, "HealthCheckFailed", SECOND, "it crashes now"), "29d2 failure"),
    ];
    for (event, shown) in &table {
        belfry.accept(event).await;
        github.wait_for(context, shown).await;
    }
    let expected: Vec<_> = table.iter().map(|(_, shown)| (*shown).to_owned()).collect();
    assert_eq!(github.story(context), expected);
    // The old commit fails late; the new one is what runs: nothing changes. Then it is overtaken itself.
    belfry.accept(&said("web", 6, "HealthCheckFailed", FIRST, "late news")).await;
    belfry.accept(&said("web", 40, "Progressing", THIRD, "Deployment/web configured")).await;
    github.wait_for(context, "836c pending").await;
    belfry.accept(&said("web", 50, "Progressing", FIRST, "Deployment/web configured, back again")).await;
    until("the third commit to be superseded, and the first to be on its way", PATIENCE, async || {
        let story = github.story(context);
        let tail: std::collections::BTreeSet<_> = story[expected.len() + 1..].iter().map(String::as_str).collect();
        anyhow::ensure!(tail == ["7d8b pending", "836c error"].into(), "{story:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_already_is_not_posted_again_even_after_a_restart() {
    let (github, at) = GitHub::start().await;
    let mut belfry = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &[]).await;
    let context = "dev/kustomization/flux-system/web";
    belfry.accept(&said("web", 1, "ReconciliationSucceeded", FIRST, "finished in 1s")).await;
    github.wait_for(context, "7d8b success").await;
    for second in 10..15 {
        belfry.accept(&said("web", second, "ReconciliationSucceeded", FIRST, &format!("again {second}"))).await;
    }
    belfry.process.restart().unwrap();
    belfry.ready().await;
    belfry.accept(&said("web", 20, "ReconciliationSucceeded", FIRST, "and again")).await;
    belfry.accept(&said("other", 20, "ReconciliationSucceeded", FIRST, "finished in 1s")).await;
    github.wait_for("dev/kustomization/flux-system/other", "7d8b success").await;
    assert_eq!(github.story(context), ["7d8b success"]);
    assert_eq!(github.requests.load(Ordering::Relaxed), 2, "one request for each state, and nothing read");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_a_kill_and_a_late_request_the_newest_state_shows() {
    let (github, at) = GitHub::start().await;
    let mut belfry = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &[]).await;
    let context = "dev/kustomization/flux-system/web";
    github.feel(Mood::Down);
    belfry.accept(&said("web", 1, "HealthCheckFailed", FIRST, "timeout")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    belfry.accept(&said("web", 9, "ReconciliationSucceeded", FIRST, "finished in 1s")).await;
    belfry.process.restart().unwrap();
    belfry.ready().await;
    // The first request that gets through is taken, only late, and nobody learns of it.
    github.feel(Mood::Late(Duration::from_secs(4)));
    let before = github.requests.load(Ordering::Relaxed);
    until("a request to be under way", PATIENCE, async || {
        anyhow::ensure!(github.requests.load(Ordering::Relaxed) > before);
        Ok(())
    })
    .await
    .unwrap();
    belfry.accept(&said("web", 15, "HealthCheckFailed", FIRST, "it crashes now")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    github.feel(Mood::Fine);
    github.wait_for(context, "7d8b failure").await;
    // The late one comes after the newest, which is posted once more.
    until("what was late to be overwritten", PATIENCE, async || {
        let story = github.story(context);
        anyhow::ensure!(story.len() > 2 && story.iter().any(|shown| shown == "7d8b success"), "{story:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(github.story(context).last().map(String::as_str), Some("7d8b failure"), "{:?}", github.story(context));
}

/// What the recorded stream of a real Flux comes to: `recorded_statuses.txt` beside this file. With `BLESS=1` it is written
/// anew, and wants to be judged.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_end_in_the_statuses_that_a_person_would_expect() {
    let (github, at) = GitHub::start().await;
    let belfry = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &[]).await;
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/events/flux.jsonl");
    for line in std::fs::read_to_string(recorded).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let request = client().post(&belfry.events).header("Gotk-Component", "kustomize-controller");
        let status = request.json(&row["event"]).send().await.unwrap().status();
        assert_eq!(status.as_u16(), 202);
    }
    until("everything to be posted", PATIENCE, async || {
        anyhow::ensure!(belfry.deliveries("state=pending").await.is_empty());
        Ok(())
    })
    .await
    .unwrap();
    let mut last = std::collections::BTreeMap::new();
    for [of, context, state, description] in github.statuses.lock().unwrap().iter() {
        let commit = of.split('@').nth(1).unwrap()[..7].to_owned();
        last.insert((context.clone(), commit), format!("{state}: {description}"));
    }
    let lines = last.iter().map(|((context, commit), shown)| format!("{context} {commit} {shown}\n"));
    let shown: String = lines.collect();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded_statuses.txt");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(file).unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_objects_have_one_status_together_and_sources_say_which_repository() {
    let (github, at) = GitHub::start().await;
    let source = format!(
        "---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {{name: app, namespace: flux-system}}
spec: {{url: '{at}/team/app.git'}}
status: {{artifact: {{revision: 'main@sha1:{FIRST}'}}}}
"
    );
    let kustomization = |name: &str| {
        format!(
            "---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {{name: {name}, namespace: flux-system}}
spec: {{sourceRef: {{kind: GitRepository, name: app}}}}
"
        )
    };
    let objects = source + &["a", "b", "c"].map(kustomization).concat();
    let belfry = Belfry::start(&(manifests(&at, "dev", "aggregate: all") + &objects), &[]).await;
    belfry.accept(&said("a", 1, "ReconciliationSucceeded", FIRST, "")).await;
    github.wait_for("dev", "7d8b pending").await;
    belfry.accept(&said("b", 2, "HealthCheckFailed", FIRST, "timeout")).await;
    github.wait_for("dev", "7d8b failure").await;
    belfry.accept(&said("b", 3, "ReconciliationSucceeded", FIRST, "")).await;
    belfry.accept(&said("c", 3, "ReconciliationSucceeded", FIRST, "")).await;
    github.wait_for("dev", "7d8b success").await;
    let statuses = github.statuses.lock().unwrap().clone();
    assert_eq!(statuses.last().unwrap()[0], format!("team/app@{FIRST}"));
    assert_eq!(statuses.last().unwrap()[3], "3/3 applied");
    assert_eq!(statuses[0][3], "1/3 applied, waiting for Kustomization/flux-system/b");
}

const OBJECTS: usize = 1_000;
const COMMITS: u64 = 50;
const STEPS: u32 = 10;

/// What one object goes through.
struct Life {
    /// Its events, and whether each repeats the one before.
    events: Vec<(Value, bool)>,
    /// By commit, what there is to be shown, in order. Failing in another way is news, too.
    shown: BTreeMap<String, Vec<String>>,
}

/// Made up, the same in each run: commits in order or left out, now and then an earlier one again; failures, recoveries,
/// periodic successes, repeats, and news that change nothing.
fn life(number: usize) -> Life {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let name = format!("o-{number}");
    let hash = |commit: u64| format!("{:040x}", (commit + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let first = random.u64(..COMMITS - u64::from(STEPS) * 2);
    let (mut newest, mut current) = (first, None::<u64>);
    let mut life = Life { events: Vec::new(), shown: BTreeMap::new() };
    for step in 0..STEPS {
        let second = 1 + step * 10;
        if let Some((last, _)) = life.events.last().filter(|_| random.u8(..10) == 0) {
            let mut again = last.clone();
            again["timestamp"] = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60).into();
            life.events.push((again, true));
            continue;
        }
        let (commit, returns) = match current {
            Some(current) if random.u8(..10) < 6 => (current, false),
            Some(current) if current > first && random.u8(..10) == 0 => (current - 1, true),
            _ => (newest + random.u64(1..3), false),
        };
        newest = newest.max(commit);
        let reason = match random.u8(..10) {
            _ if returns => "Progressing",
            0..3 => "Progressing",
            3 => "DependencyNotReady",
            4..7 => "HealthCheckFailed",
            _ => "ReconciliationSucceeded",
        };
        let state = match reason {
            "HealthCheckFailed" => Some(format!("failure, health check failed: step {step}")),
            "ReconciliationSucceeded" => Some("success".to_owned()),
            _ => None,
        };
        life.events.push((said(&name, second, reason, &hash(commit), &format!("step {step}")), false));
        let overtaken = current.replace(commit).filter(|before| *before != commit);
        let state =
            state.or_else(|| (!life.shown.contains_key(&hash(commit)) || returns).then(|| "pending".to_owned()));
        let states = life.shown.entry(hash(commit)).or_default();
        if let Some(state) = state.filter(|state| states.last() != Some(state)) {
            states.push(state);
        }
        let overtaken = overtaken.and_then(|before| life.shown.get_mut(&hash(before)));
        if let Some(states) = overtaken.filter(|states| states.last().is_some_and(|state| state == "pending")) {
            states.push("error".to_owned());
        }
    }
    life
}

/// Posts each object's event of every step, objects side by side.
async fn post_all(belfry: &Belfry, lives: &[Life]) {
    for step in 0..STEPS as usize {
        let posts = lives.iter().map(|life| async move {
            let (event, repeat) = &life.events[step];
            let status = belfry.post(event).await;
            assert!(status == 202 || *repeat && status == 429, "{status}: {event}");
        });
        futures::stream::iter(posts).buffer_unordered(32).for_each(|()| std::future::ready(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_thousand_events_every_commit_shows_how_it_ended() {
    let (github, at) = GitHub::start().await;
    let belfry = Belfry::start(&manifests(&format!("{at}/org/repo"), "dev", ""), &[]).await;
    let lives: Vec<_> = (0..OBJECTS).map(life).collect();
    let commits: BTreeSet<_> = lives.iter().flat_map(|life| life.shown.keys()).collect();
    assert!(commits.len() as u64 > COMMITS / 2, "{}", commits.len());
    post_all(&belfry, &lives).await;
    let changes: usize = lives.iter().flat_map(|life| life.shown.values()).map(Vec::len).sum();
    let wanted: HashMap<_, _> = (0..OBJECTS)
        .flat_map(|number| {
            let context = format!("dev/kustomization/flux-system/o-{number}");
            let of = |(commit, states): (&String, &Vec<_>)| ((context.clone(), commit.clone()), states.clone());
            lives[number].shown.iter().map(of).collect::<Vec<_>>()
        })
        .collect();
    let shown = until("every commit to show how it ended", PATIENCE, async || {
        let mut shown = HashMap::<_, Vec<_>>::new();
        for [of, context, state, description] in github.statuses.lock().unwrap().iter() {
            let commit = of.split('@').nth(1).unwrap().to_owned();
            let state = match state.as_str() {
                "failure" => format!("failure, {description}"),
                state => state.to_owned(),
            };
            shown.entry((context.clone(), commit)).or_default().push(state);
        }
        let last = |of| shown.get(of).and_then(|states| states.last());
        let wrong: Vec<_> = wanted.iter().filter(|(of, states)| last(of) != states.last()).collect();
        let waiting = belfry.deliveries("state=pending").await.len();
        let example = wrong.first().map(|(of, states)| (of, states, shown.get(*of)));
        anyhow::ensure!(wrong.is_empty() && waiting == 0, "{} wrong, such as {example:?}", wrong.len());
        Ok(shown)
    })
    .await
    .unwrap();
    assert_eq!(shown.len(), wanted.len(), "a status nobody asked for");
    for (of, states) in &shown {
        // What one state overtook before it went out is left out; nothing is told twice or out of order.
        let mut told = wanted[of].iter();
        assert!(
            states.iter().all(|state| told.any(|wanted| wanted == state)),
            "{of:?}: {states:?}, not {:?}",
            wanted[of]
        );
    }
    let requests = github.requests.load(Ordering::Relaxed);
    let posted: usize = shown.values().map(Vec::len).sum();
    assert_eq!(requests, posted, "something was read, or refused");
    assert!(requests <= changes, "{requests} requests for {changes} changes");
}
