//! The other commands, as a person at a terminal meets them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{fs, process::Output};

use common::{Belfry, event, generic};
use testkit::{Answer, Sink};

async fn belfry(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        std::process::Command::new(env!("CARGO_BIN_EXE_belfry")).args(arguments).output().unwrap()
    })
    .await
    .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_file_document_field_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fs::write(folder.path().join("good.yaml"), generic("one", "http://127.0.0.1:1/")).unwrap();
    let good = belfry(&["check", path]).await;
    assert!(good.status.success(), "{}", text(&good.stdout));
    assert!(text(&good.stdout).ends_with(
        "1 Provider, 1 Alert, 0 CommitStatuses and 0 Receivers in force, 0 Secrets, 0 errors, 0 warnings\n"
    ));

    let bad = "kind: ConfigMap
apiVersion: v1
---
apiVersion: notification.toolkit.fluxcd.io/v1beta3
kind: Alert
metadata: {name: bad, namespace: apps}
spec: {providerRef: {name: nobody}, eventSources: [{kind: Kustomization, name: x}, {kind: Deployment, name: y}]}
---
apiVersion: notification.toolkit.fluxcd.io/v1beta1
kind: Alert
metadata: {name: old, namespace: apps}
spec: {providerRef: {name: nobody}, eventSources: [{kind: Kustomization, name: x}], inclusionList: ['(']}
";
    let receivers = "apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: filter, namespace: apps}
spec: {type: github, secretRef: {name: nowhere}, resources: [], resourceFilter: 'req.x'}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: entry, namespace: apps}
spec: {type: github, secretRef: {name: nowhere}, resources: [{kind: Kustomization, name: x}]}
---
apiVersion: v1
kind: Secret
metadata: {name: empty, namespace: apps}
stringData: {token: ''}
---
apiVersion: notification.toolkit.fluxcd.io/v1
kind: Receiver
metadata: {name: token, namespace: apps}
spec: {type: generic, secretRef: {name: empty}, resources: []}
";
    fs::write(folder.path().join("receivers.yaml"), receivers).unwrap();
    fs::write(folder.path().join("bad.yaml"), bad).unwrap();
    fs::write(folder.path().join("worse.yaml"), "a: b\n  c: [\n").unwrap();
    let output = belfry(&["check", path]).await;
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}");
    let line = |parts: &[&str]| {
        assert!(out.lines().any(|line| parts.iter().all(|part| line.contains(part))), "no line with {parts:?}:\n{out}");
    };
    line(&["error", "bad.yaml", "document 2", "Alert/apps/bad", "spec.eventSources[1].kind", "Deployment"]);
    line(&["error", "worse.yaml", "line"]);
    line(&["error", "Receiver/apps/filter", "spec.resourceFilter", "output type mismatch", "[InvalidCELExpression]"]);
    line(&["warning", "Receiver/apps/entry", "spec.resources[0]", "apiVersion must be specified"]);
    line(&["warning", "Receiver/apps/entry", "spec.secretRef", "no manifest holds the Secret apps/nowhere"]);
    line(&["error", "Receiver/apps/token", "'token' is empty"]);
    line(&["warning", "Alert/apps/old", "nobody"]);
    line(&["warning", "Alert/apps/old", "failed to compile inclusion regex: ("]);

    let missing = belfry(&["check", "/nowhere/at/all"]).await;
    assert!(!missing.status.success());
    assert!(text(&missing.stderr).contains("/nowhere/at/all doesn't exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_are_printed() {
    let output = belfry(&["crds"]).await;
    let out = text(&output.stdout);
    assert!(output.status.success());
    assert_eq!(out.matches("kind: CustomResourceDefinition").count(), 4, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_listed_shown_and_redelivered() {
    let sink = Sink::start().unwrap();
    sink.answer([Answer::body(422, "text/plain", "not like this")]);
    let server = Belfry::start(&generic("one", &sink.url("/")), &[]).await;
    server.accept(&event("app", "error", "it failed")).await;
    let dead = server.wait_for("dead", 1).await;
    let id = dead[0]["id"].to_string();
    let api = ["--server", &server.api];

    let list = belfry(&[&["deliveries", "--state", "dead"][..], &api].concat()).await;
    let out = text(&list.stdout);
    assert!(out.starts_with("ID ") && out.contains(&id) && out.contains("not like this"), "{out}");
    let none =
        belfry(&[&["deliveries", "--state", "pending", "--object", "Kustomization/*/app"][..], &api].concat()).await;
    assert_eq!(text(&none.stdout), "no deliveries\n");
    let one = belfry(&[&["deliveries", &id][..], &api].concat()).await;
    assert!(text(&one.stdout).contains("\"attemptLog\""), "{}", text(&one.stdout));
    let wrong = belfry(&[&["deliveries", "--state", "lost"][..], &api].concat()).await;
    assert!(text(&wrong.stderr).contains("none of pending, delivered, superseded, dead"), "{}", text(&wrong.stderr));

    let again = belfry(&[&["redeliver", &id, "12345"][..], &api].concat()).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stdout).contains(&format!("delivery {id} goes out again as ")));
    assert!(text(&again.stderr).contains("there is no delivery 12345"));
    server.wait_for("delivered", 1).await;

    let nobody = belfry(&["deliveries", "--server", "http://127.0.0.1:9"]).await;
    assert!(text(&nobody.stderr).contains("can't reach http://127.0.0.1:9"), "{}", text(&nobody.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_posts_a_recording_to_any_address() {
    let sink = Sink::start().unwrap();
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/events/flux.jsonl");
    let output = belfry(&["replay", recording, "--to", &sink.url("/")]).await;
    assert!(text(&output.stdout).contains("141 accepted, 0 repeats, 0 refused"), "{}", text(&output.stdout));
    assert_eq!(sink.received().len(), 141);
    assert_eq!(sink.received()[0].header("gotk-component"), "kustomize-controller");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_loses_nothing() {
    let output = belfry(&["demo", "--once"]).await;
    let out = text(&output.stdout);
    assert!(output.status.success(), "{out}{}", text(&output.stderr));
    assert!(out.contains("attempts were refused") && out.contains("none was lost"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_say_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for (arguments, expected) in [
        (
            &["serve", "--config", path, "--feature-gates", "Telepathy=true"][..],
            "there is no feature gate \"Telepathy\"",
        ),
        (&["serve", "--config", path, "--rate-limit-interval", "5 minutes"], "--rate-limit-interval"),
        (
            &["serve", "--config", path, "--data", path, "--events-addr", "nonsense"],
            "--events-addr: can't listen on nonsense",
        ),
        (
            &[
                "serve",
                "--config",
                path,
                "--data",
                path,
                "--events-addr",
                "127.0.0.1:0",
                "--receiverAddr",
                "127.0.0.1:0",
                "--api-addr",
                "0.0.0.0:0",
            ],
            "--api-token-file",
        ),
    ] {
        let output = belfry(arguments).await;
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
}
