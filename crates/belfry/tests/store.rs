//! `belfry store`: a server goes on with what was moved, as if nothing had happened.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{Belfry, PATIENCE, event, generic, on_database};
use serde_json::Value;
use testkit::{Answer, Postgres, Sink, until};

async fn belfry(arguments: &[&str]) -> Output {
    let arguments: Vec<String> = ["store"].iter().chain(arguments).map(|a| (*a).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_belfry")).args(arguments).env_remove("BELFRY_DATABASE_URL").output().unwrap()
    })
    .await
    .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must do what it is asked to; its output.
async fn done(arguments: &[&str]) -> (String, String) {
    let output = belfry(arguments).await;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// Runs a command that must refuse; what it says.
async fn refused(arguments: &[&str]) -> String {
    let output = belfry(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

fn message(n: usize) -> Value {
    event(&format!("app-{}", n % 5), "info", &format!("message {n}"))
}

/// A server that has told one destination of forty events, and waits for another. Killed, with its folder and its manifests.
async fn killed(sink: &Sink) -> (tempfile::TempDir, String) {
    sink.default_answer_on("/down", Answer::Status(503));
    let manifests = generic("fine", &sink.url("/fine")) + &generic("down", &sink.url("/down"));
    let mut server = Belfry::start(&manifests, &[]).await;
    for n in 0..40 {
        server.accept(&message(n)).await;
    }
    server.wait_for("delivered", 40).await;
    server.process.kill().unwrap();
    (server.folder, manifests)
}

/// The server that follows it delivers what waits, in order, and knows what was told before.
async fn goes_on(sink: &Sink, manifests: &str, data: &Path, flags: &[&str]) {
    sink.default_answer_on("/down", Answer::Status(200));
    let (before, fine) = (sink.received_on("/down").len(), sink.received_on("/fine").len());
    let folder = tempfile::tempdir().unwrap();
    // A slow machine must not make it another event.
    let flags = [flags, &["--rate-limit-interval", "1h"]].concat();
    let server = Belfry::start_in(folder, data, manifests, &flags).await;
    assert_eq!(server.post(&message(39)).await, 429, "a repeat");
    server.wait_for("delivered", 80).await;
    let received = sink.received_on("/down").split_off(before);
    for object in 0..5 {
        let of = |body: &Value| body["involvedObject"]["name"] == format!("app-{object}");
        let bodies = received.iter().map(|request| request.json().unwrap()).filter(of);
        let mut messages: Vec<String> = bodies.map(|body| body["message"].as_str().unwrap().to_owned()).collect();
        // The first may have been under way when the process was killed, and told again.
        messages.dedup();
        let expected: Vec<String> = (0..8).map(|n| format!("message {}", 5 * n + object)).collect();
        assert_eq!(messages, expected);
    }
    assert_eq!(sink.received_on("/fine").len(), fine, "told twice");
    server.accept(&message(100)).await;
    server.wait_for("delivered", 82).await;
    assert!(server.deliveries("state=pending").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_backup() {
    let sink = Sink::start().unwrap();
    let (folder, manifests) = killed(&sink).await;
    let (old, new) = (folder.path().join("data"), folder.path().join("new"));
    let (old_name, new_name) = (old.to_str().unwrap(), new.to_str().unwrap());
    let (lines, said) = done(&["export", "--data", old_name]).await;
    let count = lines.lines().count() - 2;
    assert!(said.lines().last().is_some_and(|line| line.starts_with(&format!("{count} rows in "))), "{said}");
    let file = folder.path().join("backup.ndjson");
    fs::write(&file, &lines).unwrap();
    let file = file.to_str().unwrap();

    // Killed half-way: nothing is there, and the second try finds that.
    let mut half = Command::new(env!("CARGO_BIN_EXE_belfry"))
        .args(["store", "import", "--data", new_name, "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    half.stdin.as_mut().unwrap().write_all(&lines.as_bytes()[..lines.len() / 2]).unwrap();
    until("the import to begin", PATIENCE, async || {
        anyhow::ensure!(new.join("belfry.db.part").exists());
        Ok(())
    })
    .await
    .unwrap();
    half.kill().unwrap();
    half.wait().unwrap();
    assert!(new.join("belfry.db.part").exists() && !new.join("belfry.db").exists());
    assert!(refused(&["stats", "--data", new_name]).await.contains("there is no store in"));

    let (_, said) = done(&["import", "--data", new_name, file]).await;
    assert!(said.contains("verifying event: 40 rows") && said.contains("read back and compared"), "{said}");
    assert!(!new.join("belfry.db.part").exists());
    let stats = async |data: &str| -> Value {
        serde_json::from_str(&done(&["stats", "--data", data, "-o", "json"]).await.0).unwrap()
    };
    let (before, mut after) = (stats(old_name).await, stats(new_name).await);
    assert_eq!((&before["events"]["count"], &before["deliveries"]["pending"]), (&40.into(), &40.into()));
    assert_eq!(before["backlog"][0]["provider"], "flux-system/down");
    after["bytes"] = before["bytes"].clone();
    assert_eq!(before, after);
    assert!(refused(&["import", "--data", new_name, file]).await.contains("is not empty"));
    goes_on(&sink, &manifests, &new, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_server() {
    let sink = Sink::start().unwrap();
    let server = Belfry::start(&generic("fine", &sink.url("/")), &[]).await;
    for n in 0..10 {
        server.accept(&message(n)).await;
    }
    server.wait_for("delivered", 10).await;
    let data = server.folder.path().join("data");
    let (data, other) = (data.to_str().unwrap(), server.folder.path().join("other"));
    let other = other.to_str().unwrap();
    let (table, _) = done(&["stats", "--data", data]).await;
    assert!(table.lines().any(|line| line.starts_with("delivered") && line.ends_with("10 deliveries")), "{table}");
    let (lines, _) = done(&["export", "--data", data]).await;
    let in_use = refused(&["migrate", "--from", data, "--to", other]).await;
    assert!(in_use.contains("is in use by another process"), "{in_use}");
    let file = server.folder.path().join("export");
    fs::write(&file, lines).unwrap();
    assert!(
        refused(&["import", "--data", data, file.to_str().unwrap()]).await.contains("is in use by another process")
    );
    done(&["import", "--data", other, file.to_str().unwrap()]).await;
    server.accept(&message(10)).await;
    server.wait_for("delivered", 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_folder_to_a_database_and_back() {
    let Some(postgres) = Postgres::shared() else { return testkit::skip("PostgreSQL is missing") };
    let sink = Sink::start().unwrap();
    let (folder, manifests) = killed(&sink).await;
    let url = postgres.url(&postgres.database().unwrap());
    let (old, back) = (folder.path().join("data"), folder.path().join("back"));
    let (old, back_name) = (old.to_str().unwrap(), back.to_str().unwrap());
    let secret = folder.path().join("url");
    writeln!(File::create(&secret).unwrap(), "{url}").unwrap();
    let (_, said) = done(&["migrate", "--from", old, "--to", secret.to_str().unwrap()]).await;
    assert!(said.contains("verifying delivery: 80 rows"), "{said}");
    // The database goes on, and what it then has comes back.
    let first = folder.path().join("first");
    let mut server = Belfry::start_in(tempfile::tempdir().unwrap(), &first, &manifests, &on_database(&url)).await;
    let in_use = refused(&["migrate", "--from", &url, "--to", back_name]).await;
    assert!(in_use.contains("in use by 1 running replicas"), "{in_use}");
    assert!(done(&["stats", "--database-url", &url]).await.0.contains("1 heard of lately"));
    server.process.terminate(PATIENCE).await.unwrap();
    done(&["migrate", "--from", &url, "--to", back_name]).await;
    goes_on(&sink, &manifests, &back, &[]).await;
    goes_on(&sink, &manifests, &first, &on_database(&url)).await;
}
