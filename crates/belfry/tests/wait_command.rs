//! `belfry wait`, as a pipeline and a person at a terminal meet it, against a server that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;
#[path = "common/pty.rs"]
mod pty;
#[path = "common/script.rs"]
mod script;

use std::{process::Output, time::Duration};

use common::Belfry;
use pty::Pty;
use script::{Script, Step};
use serde_json::{Value, json};
use testkit::{Process, Program, until};

/// Long enough for a slow machine; nothing waits for it when things go well.
const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM: &str = env!("CARGO_BIN_EXE_belfry");
/// What the machine that runs the tests may have set.
const SCRUBBED: [&str; 5] = ["GITHUB_ACTIONS", "BELFRY_TOKEN", "HTTP_PROXY", "http_proxy", "NO_COLOR"];

/// The answer while apps goes from one state to the next.
fn answer(verdict: &str, state: &str, more: &Value) -> Value {
    let mut answer = json!({
        "verdict": verdict, "reason": "Waiting", "revision": "main@sha1:7d8b790e", "timedOut": false,
        "message": format!("Kustomization/flux-system/apps is {state}"),
        "objects": [{"object": "Kustomization/flux-system/apps", "state": state}],
    });
    answer.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    answer
}

fn pending() -> Value {
    answer("pending", "progressing", &json!({}))
}

fn succeeded() -> Value {
    answer("succeeded", "succeeded", &json!({}))
}

fn failed() -> Value {
    let message = "timeout waiting for: [Deployment/apps/podinfo]\n\u{1b}[2J\u{9b}31m::error::owned\n##[add-mask]x";
    let objects = json!([{
        "object": "Kustomization/flux-system/apps", "state": "failed", "reason": "HealthCheckFailed", "message": message,
    }]);
    answer("failed", "failed", &json!({"objects": objects, "message": message}))
}

fn says(verdict: &Value) -> Step {
    Step::stream().event("answer", &pending()).event("verdict", verdict).end()
}

fn arguments(server: &str, more: &[&str]) -> Vec<String> {
    let fixed = [["--server", server], ["--revision", "7d8b790"]];
    let fixed = fixed.iter().filter(|[flag, _]| !more.contains(flag)).flatten();
    ["wait"].iter().chain(fixed).chain(more).map(|one| (*one).to_owned()).collect()
}

/// Runs it to its end.
async fn wait(server: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = std::process::Command::new(PROGRAM);
    command.args(arguments(server, more)).env_remove("BELFRY_TOKEN_FILE").env_remove("BELFRY_GITHUB_OIDC");
    command.envs(SCRUBBED.map(|name| (name, ""))).envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Runs it beside the test.
fn start(server: &str, more: &[&str]) -> Process {
    let program = SCRUBBED.iter().fold(Program::new(PROGRAM), |program, name| program.env(name, ""));
    program.args(arguments(server, more)).spawn().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A log without what depends on the machine: ports and times.
fn log(text: &str, server: &str) -> String {
    let line = |line: &str| match line.split_once("] ") {
        Some((clock, rest)) if clock.starts_with('[') => format!("[time] {rest}"),
        _ => line
            .split(" after ")
            .enumerate()
            .map(|(index, part)| match (index, part.split_once(": ")) {
                (1, Some((_, rest))) => format!(" after TIME: {rest}"),
                _ => part.to_owned(),
            })
            .collect(),
    };
    text.replace(server, "SERVER").lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_say_what_came_of_it() {
    let pending = answer("pending", "progressing", &json!({"timedOut": true}));
    let unknown = answer("unknown", "pending", &json!({"objects": []}));
    let superseded = answer("superseded", "superseded", &json!({"supersededBy": "main@sha1:ffff"}));
    let brief = &["--timeout", "0"][..];
    for (steps, more, code, said) in [
        (vec![says(&succeeded())], &[][..], 0, "succeeded after"),
        (vec![says(&failed())], &[], 1, "failed after"),
        (vec![says(&superseded)], &[], 2, "superseded after"),
        (vec![says(&pending)], brief, 3, "timed out after"),
        (vec![says(&unknown)], &[], 4, "not tracked after"),
        (vec![Step::problem("400 Bad Request", "object: \"x\" is not KIND/NAMESPACE/NAME")], &[], 64, "is not KIND"),
        (vec![Step::problem("401 Unauthorized", "a bearer token is needed")], &[], 77, "a bearer token is needed"),
        (vec![Step::problem("403 Forbidden", "not yours\u{1b}[2J")], &[], 77, "belfry: not yours [2J\n"),
        (vec![Step::answer("404 Not Found", "text/html", "<html>")], &[], 69, "answered 404 Not Found"),
        (vec![Step::answer("200 OK", "text/html", "<html>")], &[], 69, "answered something that is not expected"),
        (
            vec![Step::head("308 Permanent Redirect", "text/html", "location: https://belfry.example/")],
            &[],
            69,
            "give --server the address that answers",
        ),
        (vec![], brief, 69, "no answer within 0s: can't reach"),
        (vec![], &["--timeout", "soon"], 64, "--timeout"),
        (vec![], &["--on-failure", "panic"], 64, "[possible values: fail, wait]"),
        (vec![], &["--not-before", "monday"], 64, "neither an RFC 3339 time nor a duration"),
        (vec![], &["--revision", ""], 64, "a value is required for '--revision"),
        (vec![], &["--token-file", "/nowhere/at/all"], 64, "can't read /nowhere/at/all"),
        (vec![], &["--server", "belfry:9393"], 64, "names no host"),
    ] {
        let script = Script::start(steps);
        let output = wait(&script.url(), more, &[]).await;
        let all = out(&output) + &err(&output);
        assert_eq!(output.status.code(), Some(code), "{more:?} {said}: {all}");
        assert!(all.contains(said), "{said}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_tells_what_changed() {
    let script = Script::start([Step::stream()
        .event("answer", &pending())
        .event("answer", &pending())
        .piece("event: something-newer\ndata: x\n\n")
        .event("verdict", &failed())
        .end()]);
    let output = wait(&script.url(), &[], &[("GITHUB_ACTIONS", "true")]).await;
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!("log", log(&out(&output), &script.url()));
    assert_eq!(err(&output), "");

    let script = Script::start([says(&failed())]);
    let output = wait(&script.url(), &[], &[]).await;
    assert!(!out(&output).contains("\n::"), "{}", out(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_the_answer_alone() {
    let script = Script::start([says(&failed())]);
    let output = wait(&script.url(), &["-o", "json"], &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_str::<Value>(&out(&output)).unwrap(), failed());
    assert!(!out(&output).chars().any(|c| c.is_control() && c != '\n') && !out(&output).contains("##"));
    assert!(err(&output).contains("failed after"), "{}", err(&output));

    // The server is gone at the timeout: what is known is said, and that it isn't the end.
    let script = Script::start([Step::stream().event("answer", &pending())]);
    let output = wait(&script.url(), &["-o", "json", "--timeout", "1s"], &[]).await;
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let printed: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(printed, answer("pending", "progressing", &json!({"timedOut": true})));
    assert!(err(&output).contains("the last answer may be old"), "{}", err(&output));

    let script = Script::start([Step::problem("401 Unauthorized", "no")]);
    let output = wait(&script.url(), &["-o", "json"], &[]).await;
    assert_eq!((out(&output).as_str(), err(&output).lines().last()), ("", Some("belfry: no")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_opened_again_with_the_same_question() {
    let half = serde_json::to_string(&succeeded()).unwrap();
    let script = Script::start([
        Step::problem("503 Service Unavailable", "no configuration is loaded yet"),
        Step::answer("502 Bad Gateway", "text/html", "<html>"),
        // Cut in the middle of an event, which would be the verdict.
        Step::stream().event("answer", &pending()).piece(&format!("event: verdict\ndata: {}", &half[..half.len() - 9])),
        // Whole, but without the end of the event; then the proper end of the answer.
        Step::stream().event("answer", &pending()).piece(&format!("event: verdict\ndata: {half}\n")).end(),
        Step::stream().event("answer", &pending()).piece("event: verdict\ndata: {\"verdict\": \"nonsense\"}\n\n").end(),
        Step::stream().piece("event: answer\ndata: garbage\n\n").end(),
        // A proxy before a server that restarts.
        Step::answer("404 Not Found", "text/plain", "default backend"),
        says(&succeeded()),
    ]);
    let flags =
        ["--object", "Kustomization/*/apps", "--cluster", "edge", "--not-before", "10m", "--failure-grace", "30s"];
    let output = wait(&script.url(), &flags, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}{}", out(&output), err(&output));
    let away = out(&output).lines().filter(|line| line.contains("trying again")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(away.len(), 2, "{away:?}");
    assert!(away[0].contains("no configuration is loaded yet") && away[1].contains("can't be read"), "{away:?}");

    let queries = script.queries();
    assert_eq!(queries.len(), 8);
    let value = |query: &[(String, String)], name: &str| {
        query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let same = |query: &[(String, String)]| {
        ["revision", "object", "cluster", "on-failure", "failure-grace", "on-superseded", "unknown"]
            .map(|name| value(query, name))
    };
    let expected = ["7d8b790", "Kustomization/*/apps", "edge", "fail", "30000ms", "fail", "wait"];
    let millis =
        |query: &[(String, String)], name: &str| value(query, name).strip_suffix("ms").unwrap().parse::<u64>().unwrap();
    assert_eq!(value(&queries[0], "asked"), "");
    assert!(millis(&queries[0], "timeout") <= 300_000);
    for pair in queries.windows(2) {
        assert_eq!((same(&pair[0]), same(&pair[1])), (expected.map(str::to_owned), expected.map(str::to_owned)));
        let [timeouts, starts] = ["timeout", "not-before"].map(|name| [millis(&pair[0], name), millis(&pair[1], name)]);
        assert!(timeouts[1] < timeouts[0] && starts[1] > starts[0], "{pair:?}");
        // But for what is rounded off.
        assert!((timeouts[0] + starts[0]).abs_diff(timeouts[1] + starts[1]) <= 1, "the same start: {pair:?}");
    }
    assert!(queries[1..].iter().all(|query| value(query, "asked") == value(&queries[1], "asked")));
    assert!(script.requests().iter().all(|request| request.contains("accept: text/event-stream")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_awaited() {
    let mut script = Script::start([Step::stream().event("answer", &pending()).hold(), says(&succeeded())]);
    let mut process = start(&script.url(), &[]);
    process.wait_for_line("apps  progressing", PATIENCE).await.unwrap();
    script.stop().await;
    process.wait_for_line("can't reach", PATIENCE).await.unwrap();
    script.resume();
    assert_eq!(process.wait(PATIENCE).await.unwrap().code(), Some(0), "{:?}", process.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn permission_may_end_in_between() {
    let script = Script::start([
        Step::stream().event("answer", &pending()).end(),
        Step::problem("403 Forbidden", "you may not read Kustomization/flux-system/apps"),
    ]);
    let output = wait(&script.url(), &[], &[]).await;
    assert_eq!(output.status.code(), Some(77), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_shorter_limit_is_asked_again() {
    let limited = answer("pending", "progressing", &json!({"timedOut": true}));
    let script = Script::start([
        says(&limited),
        says(&answer("unknown", "pending", &json!({"timedOut": true}))),
        says(&succeeded()),
    ]);
    let output = wait(&script.url(), &["--timeout", "3h"], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert_eq!(script.queries().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_presented_and_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let mut script = Script::start([Step::stream().event("answer", &pending()).hold(), says(&succeeded())]);
    let mut process = start(&script.url(), &["--token-file", file.to_str().unwrap()]);
    process.wait_for_line("progressing", PATIENCE).await.unwrap();
    std::fs::write(&file, "two\n").unwrap();
    script.stop().await;
    script.resume();
    assert_eq!(process.wait(PATIENCE).await.unwrap().code(), Some(0));
    let bearer = |request: &String| {
        request.lines().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!(script.requests().iter().map(bearer).collect::<Vec<_>>(), ["Bearer one", "Bearer two"]);

    let script = Script::start([says(&succeeded())]);
    let output = wait(&script.url(), &[], &[("BELFRY_TOKEN", "three")]).await;
    assert_eq!((output.status.code(), bearer(&script.requests()[0]).as_str()), (Some(0), "Bearer three"));

    // GitHub's tokens live for minutes: each connection gets its own.
    let token =
        |value: &str| Step::answer("200 OK", "application/json", &json!({"value": value, "count": 1}).to_string());
    let github = Script::start([token("a.b.c"), token("d.e.f")]);
    let script = Script::start([Step::stream().event("answer", &pending()).end(), says(&succeeded())]);
    let url = format!("{}/token?api-version=2", github.url());
    let environment = [("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "job")];
    let output = wait(&script.url(), &["--github-oidc", "belfry"], &environment).await;
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(script.requests().iter().map(bearer).collect::<Vec<_>>(), ["Bearer a.b.c", "Bearer d.e.f"]);
    let asked = github.requests();
    assert!(asked.iter().all(|request| request.starts_with("GET /token?api-version=2&audience=belfry ")), "{asked:?}");
    assert!(asked.iter().all(|request| bearer(request) == "Bearer job"));

    let output = wait(&script.url(), &["--github-oidc", "belfry"], &[]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).contains("id-token: write"), "{}", err(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_drawn_over_and_left_sane() {
    let objects =
        json!([{"object": "Kustomization/flux-system/größe", "state": "progressing", "message": "\u{1b}[2J"}]);
    let stream = || Step::stream().event("answer", &answer("pending", "progressing", &json!({"objects": objects})));
    let script = Script::start([stream().hold()]);
    let mut terminal = Pty::run(PROGRAM, &arguments(&script.url(), &[]), &[("LANG", "C.UTF-8"), ("NO_COLOR", "")]);
    // Drawn by an answer, and at least once more by the clock.
    until("it to be drawn twice", PATIENCE, async || {
        let text = terminal.text();
        anyhow::ensure!(text.matches("\x1b[33m● Kustomization/flux-system/größe").count() >= 2, "{text:?}");
        Ok(())
    })
    .await
    .unwrap();
    terminal.interrupt();
    assert_eq!(terminal.wait(PATIENCE).await, Some(130));
    let text = terminal.text();
    assert!(text.ends_with("belfry: interrupted; what Flux does goes on\r\n"), "{text:?}");
    // Nothing but colours, the end of a line or of the screen, and the way up.
    let known = |rest: &str| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        rest.starts_with('[') && matches!(&rest[end..=end], "m" | "K" | "J" | "A") && &rest[..=end] != "[2J"
    };
    assert!(text.split('\x1b').skip(1).all(known), "{text:?}");

    let script = Script::start([stream().event("verdict", &succeeded()).end()]);
    let environment = [("LANG", "C"), ("LC_ALL", ""), ("LC_CTYPE", ""), ("NO_COLOR", "1")];
    let mut terminal = Pty::run(PROGRAM, &arguments(&script.url(), &[]), &environment);
    assert_eq!(terminal.wait(PATIENCE).await, Some(0));
    let text = terminal.text();
    assert!(text.is_ascii() && !text.contains("\x1b[3"), "{text:?}");
    assert!(text.contains("* Kustomization/flux-system/gr??e"), "{text:?}");

    let script = Script::start([says(&succeeded())]);
    let mut terminal = Pty::run(PROGRAM, &arguments(&script.url(), &[]), &[("TERM", "dumb")]);
    assert_eq!(terminal.wait(PATIENCE).await, Some(0));
    assert!(!terminal.text().contains('\x1b'), "{:?}", terminal.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_server_may_be_killed_in_between() {
    let mut belfry = Belfry::start("", &[]).await;
    let event = |reason: &str| {
        let mut event = common::event("app", "info", &format!("{reason} of app"));
        event["reason"] = reason.into();
        if reason == "ReconciliationSucceeded" {
            event["metadata"]["kustomize.toolkit.fluxcd.io/commit_status"] = "update".into();
        }
        event
    };
    let flags = ["--object", "Kustomization/flux-system/app", "--timeout", "10m"];
    let mut process = start(&belfry.api, &flags);
    belfry.accept(&event("Progressing")).await;
    process.wait_for_line("Kustomization/flux-system/app  progressing", PATIENCE).await.unwrap();
    belfry.process.kill().unwrap();
    process.wait_for_line("trying again", PATIENCE).await.unwrap();
    belfry.process.restart().unwrap();
    belfry.ready().await;
    belfry.accept(&event("ReconciliationSucceeded")).await;
    assert_eq!(process.wait(PATIENCE).await.unwrap().code(), Some(0), "{:?}", process.lines());

    // What is already so is said at once, also of what failed or was never heard of.
    let output = wait(&belfry.api, &flags, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    let output = wait(&belfry.api, &["--revision", "abcdef0", "--unknown", "fail"], &[]).await;
    assert_eq!(output.status.code(), Some(4), "{}", out(&output));
    let output = wait(&belfry.api, &["--object", "Kustomization/app"], &[]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(err(&output).contains("is not KIND/NAMESPACE/NAME"), "{}", err(&output));
    let output = wait(&belfry.api, &["--revision", "abcdef0", flags[0], flags[1], "--timeout", "0"], &[]).await;
    assert_eq!(output.status.code(), Some(3), "{}", out(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_for_the_server_is_taken() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/ci/access.yaml");
    let belfry = Belfry::start("", &["--api-access", example]).await;
    // The issuers aren't asked for the sake of a token that names neither.
    let output = wait(&belfry.api, &["--timeout", "0"], &[("BELFRY_TOKEN", "e30.e30.e30")]).await;
    assert_eq!(output.status.code(), Some(77), "{}{}", out(&output), err(&output));
}
