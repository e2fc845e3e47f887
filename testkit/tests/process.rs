//! Processes, with a shell in the place of the program under test.
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::{os::unix::process::ExitStatusExt as _, process::Command, time::Duration};

use testkit::{Answer, Process, Program, Sink};

const SOON: Duration = Duration::from_secs(5);

fn shell(script: &str) -> Process {
    Program::new("sh").args(["-c", script]).spawn().unwrap()
}

fn check(holds: bool, else_that: &'static str) -> anyhow::Result<()> {
    holds.then_some(()).ok_or(anyhow::Error::msg(else_that))
}

#[tokio::test]
async fn output_is_seen_by_line_in_its_order_and_kept_in_a_file() {
    let script = r#"echo "$GREETING"; echo warned >&2; printf 'no end of line'; exit 3"#;
    let mut process = Program::new("sh").arg("-c").arg(script).env("GREETING", "ready").spawn().unwrap();
    assert_eq!(process.wait_for_line("warn", SOON).await.unwrap(), "warned");
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
    assert_eq!(process.lines(), ["ready", "warned", "no end of line"]);
    assert_eq!(std::fs::read_to_string(process.output_path()).unwrap(), "ready\nwarned\nno end of line");
    assert!(!process.is_running().unwrap());
    assert!(process.id().is_err());
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3), "it can be asked again");
}

#[tokio::test]
async fn waiting_for_a_line_ends_with_the_process_and_says_what_it_said() {
    let mut process = shell("echo 'cannot open the store'; exit 1");
    let error = process.wait_for_line("ready", SOON).await.unwrap_err().to_string();
    assert!(error.contains(r#"a line with "ready": the process ended first, with exit status: 1"#), "{error}");
    assert!(error.contains("cannot open the store"), "{error}");
}

#[tokio::test]
async fn waiting_for_http_is_waiting_for_200() {
    let sink = Sink::start().unwrap();
    sink.answer_on("/readyz", [Answer::Status(503), Answer::Close, Answer::body(200, "text/plain", "ok")]);
    let mut process = shell("exec sleep 60");
    assert_eq!(process.wait_for_http(&sink.url("/readyz"), SOON).await.unwrap(), "ok");
    assert_eq!(sink.received_on("/readyz").len(), 3);

    sink.default_answer(Answer::Hang);
    let error = process.wait_for_http(&sink.url("/never"), Duration::from_millis(100)).await.unwrap_err();
    assert!(error.to_string().contains("not within 100ms"), "{error}");
}

#[tokio::test]
async fn terminate_lets_the_program_end_and_kill_does_not() {
    let script = r#"trap "echo bye; exit 7" TERM; echo ready; while :; do sleep 0.01; done"#;
    let mut process = shell(script);
    process.wait_for_line("ready", SOON).await.unwrap();
    assert_eq!(process.terminate(SOON).await.unwrap().code(), Some(7));
    assert_eq!(process.lines(), ["ready", "bye"]);

    process.restart().unwrap();
    process.wait_for_line("ready", SOON).await.unwrap();
    process.kill().unwrap();
    process.kill().unwrap();
    assert_eq!(process.lines(), ["ready"]);
    assert_eq!(process.wait(SOON).await.unwrap().signal(), Some(9));
    assert_eq!(std::fs::read_to_string(process.output_path()).unwrap(), "ready\nbye\nready\n");
    assert!(process.terminate(SOON).await.is_err());
}

#[tokio::test]
async fn a_frozen_process_says_nothing_until_it_is_thawed() {
    let mut process = shell("while :; do echo tick; sleep 0.01; done");
    process.wait_for_line("tick", SOON).await.unwrap();
    process.freeze().unwrap();
    // The state of the process says so, once the signal has arrived.
    let stat = format!("/proc/{}/stat", process.id().unwrap());
    let stopped = || {
        let stat = std::fs::read_to_string(&stat);
        async move { check(stat?.contains(") T "), "it runs") }
    };
    testkit::until("it is stopped", SOON, stopped).await.unwrap();
    assert!(process.is_running().unwrap());
    process.thaw().unwrap();
    let lines = process.lines().len();
    let more = || {
        let now = process.lines().len();
        async move { check(now > lines + 1, "no more lines") }
    };
    testkit::until("it goes on", SOON, more).await.unwrap();
}

#[tokio::test]
async fn memory_is_that_of_the_process() {
    // By its first line it is what it stays: what is executed next begins with no peak.
    let mut process = shell("echo up; while :; do sleep 1; done");
    process.wait_for_line("up", SOON).await.unwrap();
    let (now, peak) = (process.rss_kib().unwrap(), process.peak_rss_kib().unwrap());
    assert!((100..100_000).contains(&now) && now <= peak, "{now} of {peak} KiB");
}

fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_dropped_process_has_ended_and_left_nothing() {
    let process = shell("exec sleep 60");
    let (pid, folder) = (process.id().unwrap(), process.folder().to_owned());
    assert!(runs(pid) && folder.is_dir());
    drop(process);
    assert!(!runs(pid) && !folder.exists());
}

/// Runs this test binary again, as a test process that is killed before it can drop anything.
#[tokio::test]
async fn a_process_does_not_outlive_a_killed_test_process() {
    const INNER: &str = "TESTKIT_INNER";
    if std::env::var_os(INNER).is_some() {
        let process = shell("exec sleep 60");
        println!("pid {} in {}", process.id().unwrap(), process.folder().display());
        let ended = Command::new("sh").args(["-c", "kill -9 $PPID"]).status();
        unreachable!("{ended:?}, and {} lives", process.id().unwrap());
    }
    let this = std::env::current_exe().unwrap();
    let mut inner = Program::new(this)
        .args(["--exact", "a_process_does_not_outlive_a_killed_test_process", "--nocapture"])
        .env(INNER, "1")
        .spawn()
        .unwrap();
    let line = inner.wait_for_line("pid ", SOON).await.unwrap();
    // The test runner may have begun the line.
    let (pid, folder) = line.split_once("pid ").and_then(|(_, rest)| rest.split_once(" in ")).unwrap();
    let pid = pid.parse().unwrap();
    assert_eq!(inner.wait(SOON).await.unwrap().signal(), Some(9));
    let gone = || async {
        check(!runs(pid), "it lives")?;
        check(!std::path::Path::new(folder).exists(), "its folder stands")
    };
    testkit::until("the watchdog has killed it", SOON, gone).await.unwrap();
}
