//! A full disk: 503 rather than a lost event, and all by itself well again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{path::PathBuf, process::Command, time::Duration};

use common::{Belfry, PATIENCE, event, generic};
use testkit::{Sink, until};

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&at).status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else {
        println!(
            "SKIPPED: a_full_disk_refuses_and_recovers, because a small file system can't be mounted here (needs root)"
        );
        return;
    };
    let sink = Sink::start().unwrap();
    sink.stop().await.unwrap();
    let data = disk.0.join("data");
    let belfry = Belfry::start_in(folder, &data, &generic("one", &sink.url("/")), &[]).await;
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();

    let mut accepted = Vec::new();
    let mut refused = 0;
    for i in 0..3000 {
        let message = format!("event {i} {}", "x".repeat(4000));
        match belfry.post(&event(&format!("app-{}", i % 9), "info", &message)).await {
            202 => accepted.push(message),
            503 => refused += 1,
            other => panic!("answered {other}"),
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "the disk never filled up");
    assert!(!accepted.is_empty());
    let ready = common::client().get(format!("{}/readyz", belfry.health)).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 503, "not ready while nothing can be stored");

    std::fs::remove_file(&ballast).unwrap();
    until("the server to be well again", PATIENCE, async || {
        let ready = common::client().get(format!("{}/readyz", belfry.health)).send().await?;
        anyhow::ensure!(ready.status().is_success());
        Ok(())
    })
    .await
    .unwrap();
    let last = "after the disk was full".to_owned();
    belfry.accept(&event("app-0", "info", &last)).await;
    accepted.push(last);
    sink.resume().unwrap();
    sink.wait_for(accepted.len(), Duration::from_secs(120)).await.unwrap();
    let arrived: std::collections::HashSet<String> =
        sink.received().iter().map(|r| r.json().unwrap()["message"].as_str().unwrap().to_owned()).collect();
    let lost = accepted.iter().filter(|message| !arrived.contains(*message)).count();
    assert_eq!(lost, 0, "of {} accepted", accepted.len());
}
