//! The commands that read: events, rollouts, explain, as a person at a terminal and a program in a pipe meet them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use common::{Belfry, PATIENCE, event, generic, program};
use serde_json::Value;
use testkit::Sink;

const COMMIT: &str = "7d8b790e325ffa0885be99788a08f4ae67d382a5";

/// Standard output of a command that must succeed.
async fn told(server: &Belfry, arguments: &[&str]) -> String {
    let output = run(server, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn run(server: &Belfry, arguments: &[&str]) -> std::process::Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let server = server.api.clone();
    tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_belfry"));
        command.args(arguments).args(["--server", &server]).output().unwrap()
    })
    .await
    .unwrap()
}

async fn start(more: &str) -> (Sink, Belfry) {
    let sink = Sink::start().unwrap();
    let server = Belfry::start(&format!("{}{more}", generic("one", &sink.url("/"))), &[]).await;
    (sink, server)
}

/// What differs from run to run, as dots: times and ids.
fn still(text: &str) -> String {
    let digits = |word: &str| word.len() == 16 && word.bytes().all(|b| b.is_ascii_digit());
    let time = |word: &str| word.starts_with("20") && word.ends_with('Z') && !word.starts_with("2026-01-02");
    let same = |word: &str| if digits(word) || time(word) { "·".repeat(word.len()) } else { word.to_owned() };
    let mut stilled = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let bare = word.trim_end_matches([' ', '\n', ':']);
        stilled += &same(bare);
        stilled += &word[bare.len()..];
    }
    stilled
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_rollouts_are_listed_in_every_form() {
    let (_sink, server) = start("").await;
    assert_eq!(told(&server, &["events"]).await, "no events\n");
    assert_eq!(told(&server, &["rollouts"]).await, "no rollouts\n");
    server.accept(&event("web", "info", "Deployment/web created\nService/web \u{1b}[31mcreated")).await;
    server.accept(&event("web", "error", "it failed")).await;
    server.accept(&event("db", "info", "Service/db created")).await;

    let table = told(&server, &["events", "--name", "web"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("ID "), "{table}");
    for part in ["Kustomization/flux-system/web", "HealthCheckFailed", "main@7d8b790e325f", "it failed"] {
        assert!(lines[1].contains(part), "{part}: {table}");
    }
    assert!(lines[2].ends_with("Deployment/web created Service/web [31mcreated"), "{table}");

    let json: Value = serde_json::from_str(&told(&server, &["events", "-o", "json", "--limit", "2"]).await).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let lines = told(&server, &["events", "-o", "ndjson", "--severity", "info"]).await;
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["message"], "Deployment/web created\nService/web \u{1b}[31mcreated");
    let whole = told(&server, &["events", &events[0]["id"].to_string()]).await;
    assert!(whole.contains("\"involvedObject\""), "{whole}");

    let rollouts = told(&server, &["rollouts", "--state", "failed,progressing", "--revision", &COMMIT[..7]]).await;
    assert!(rollouts.contains("failed") && rollouts.contains("progressing") && rollouts.contains("main@7d8b790e325f"));
    let wrong = run(&server, &["rollouts", "--state", "done"]).await;
    assert!(!wrong.status.success());
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("state: \"done\" is none of pending, progressing"), "{error}");
    let json = run(&server, &["events", "--follow", "-o", "json"]).await;
    assert!(String::from_utf8(json.stderr).unwrap().contains("use -o ndjson"));
}

#[tokio::test(flavor = "multi_thread")]
async fn following_survives_the_server() {
    let (_sink, mut server) = start("").await;
    let post = async |server: &Belfry, range: std::ops::Range<usize>| {
        for n in range {
            server.accept(&event("web", "info", &format!("step {n}"))).await;
        }
    };
    post(&server, 0..5).await;
    let arguments = ["events", "--follow", "-o", "ndjson", "--limit", "3", "--name", "web", "--server", &server.api];
    let mut follower = program().args(arguments).spawn().unwrap();
    follower.wait_for_line("step 4", PATIENCE).await.unwrap();
    server.accept(&event("db", "info", "somebody else's")).await;
    post(&server, 5..8).await;
    follower.wait_for_line("step 7", PATIENCE).await.unwrap();
    server.process.kill().unwrap();
    follower.wait_for_line("trying again", PATIENCE).await.unwrap();
    server.process.restart().unwrap();
    server.ready().await;
    post(&server, 8..20).await;
    follower.wait_for_line("step 19", PATIENCE).await.unwrap();
    let events = follower.lines().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let messages: Vec<String> = events.map(|event| event["message"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<String> = (2..20).map(|n| format!("step {n}")).collect();
    assert_eq!(messages, expected);
    assert!(follower.is_running().unwrap());
}

const ALERTS: &str = "
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: chat, namespace: flux-system}
spec: {type: slack, address: 'http://127.0.0.1:1/'}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: chat, namespace: flux-system}
spec:
  providerRef: {name: chat}
  eventSeverity: error
  exclusionList: ['waiting.*']
  eventSources: [{kind: Kustomization, name: web}]
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: team, namespace: flux-system}
spec:
  providerRef: {name: nobody}
  eventSources: [{kind: Kustomization, name: web, matchLabels: {team: shop}}]
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: web, namespace: flux-system, labels: {team: db}}
spec: {suspend: true, path: ./web, sourceRef: {kind: GitRepository, name: fleet}}
---
";

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_who_tells_and_who_does_not() {
    let (_sink, server) = start(ALERTS).await;
    server.accept(&event("web", "info", "Service/web created")).await;
    server.accept(&event("web", "error", "waiting for Deployment/web")).await;
    server.wait_for("delivered", 2).await;
    let page = told(&server, &["explain", "Kustomization/flux-system/web"]).await;
    insta::assert_snapshot!(still(&page));
    let json: Value =
        serde_json::from_str(&told(&server, &["explain", "Kustomization/flux-system/web", "-o", "json"]).await)
            .unwrap();
    assert_eq!(json["alerts"].as_array().unwrap().len(), 3);
    let unheard = told(&server, &["explain", "HelmRelease/apps/shop"]).await;
    assert!(unheard.contains("no Alert and no CommitStatus selects it, or comes close"), "{unheard}");
    assert!(unheard.ends_with("no events\n\nno deliveries\n"), "{unheard}");
    let wrong = run(&server, &["explain", "web"]).await;
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("object: \"web\" is not KIND/NAMESPACE/NAME"));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_judges_as_the_gates_say() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Provider
metadata: {name: git, namespace: apps}
spec: {type: github, address: 'https://github.com/o/r'}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: git, namespace: apps}
spec: {providerRef: {name: git}, eventSources: [{kind: Kustomization, name: '*'}]}
";
    std::fs::write(folder.path().join("it.yaml"), manifest).unwrap();
    let check = async |flags: &[&str]| {
        let arguments: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let path = folder.path().to_owned();
        let output = tokio::task::spawn_blocking(move || {
            std::process::Command::new(env!("CARGO_BIN_EXE_belfry")).arg("check").arg(path).args(arguments).output()
        });
        let output = output.await.unwrap().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = check(&[]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(&["--feature-gates", "AlertCommitStatus=false"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("[CommitStatusNeeded]") && said.contains("1 Provider, 0 Alerts"), "{said}");
    let (code, said) = check(&["--feature-gates", "Telepathy=true"]).await;
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("there is no feature gate \"Telepathy\""), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_what_each_route_takes() {
    let (_sink, server) = start("").await;
    let document = server.get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let parameters = operations["get"]["parameters"].as_array().into_iter().flatten();
        let mut described: Vec<&str> = parameters
            .filter(|parameter| parameter["in"] == "query")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        if described.is_empty() {
            continue;
        }
        let problem = server.get(&format!("{path}?colour=red")).await;
        let detail = problem["detail"].as_str().unwrap();
        let (_, taken) = detail.split_once("there are ").unwrap_or_else(|| panic!("{path}: {detail}"));
        let mut taken: Vec<&str> = taken.split([',', ' ']).filter(|word| !matches!(*word, "" | "and" | "or")).collect();
        taken.sort_unstable();
        described.sort_unstable();
        assert_eq!(described, taken, "{path}");
        checked += 1;
    }
    assert!(checked >= 8, "{checked}");
    assert!(document["components"]["schemas"]["Event"]["properties"]["id"].is_object());
}
