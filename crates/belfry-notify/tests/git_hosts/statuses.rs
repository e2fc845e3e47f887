//! Statuses of commits, on every host.

use std::{process::Command, time::Duration};

use axum::http::Method;
use belfry_core::notification::Outcome;
use belfry_notify::Notifier;

use crate::{
    SHA, event,
    host::{Host, Kept, Trouble},
    notifier, retry, send, states,
};

/// Type, path of the address, and the words for success and failure. Bitbucket Cloud has one address only.
const HOSTS: [(&str, &str, [&str; 2]); 5] = [
    ("github", "foo/bar", ["success", "failure"]),
    ("gitlab", "foo/sub/bar.git", ["success", "failed"]),
    ("gitea", "foo/bar.git", ["success", "failure"]),
    ("bitbucketserver", "ctx/scm/proj/repo.git", ["SUCCESSFUL", "FAILED"]),
    ("azuredevops", "org/proj/_git/repo", ["succeeded", "error"]),
];
/// As an editor leaves it.
const TOKEN: (&str, &str) = ("token", "tok\n");

async fn open(host: &Host, type_: &str) -> Notifier {
    let (_, path, _) = HOSTS.into_iter().find(|(name, ..)| *name == type_).unwrap();
    notifier(type_, &format!("http://{}/{path}", host.serve().await), &[TOKEN])
}

/// Good news twice, bad news twice, good news.
async fn story(notifier: &Notifier) {
    for (severity, reason) in [
        ("info", "ReconciliationSucceeded"),
        ("info", "ReconciliationSucceeded"),
        ("error", "HealthCheckFailed"),
        ("error", "HealthCheckFailed"),
        ("info", "ReconciliationSucceeded"),
    ] {
        assert_eq!(send(notifier, &event(severity, reason)).await, Outcome::Delivered, "{severity}");
    }
}

#[tokio::test]
async fn every_change_is_posted_once() {
    for (type_, _, [good, bad]) in HOSTS {
        let host = Host::default();
        story(&open(&host, type_).await).await;
        assert_eq!(host.states(), [good, bad, good], "{type_}");
        let world = host.world();
        let Kept { sha, description, .. } = &world.statuses[0];
        assert_eq!((sha.as_str(), description.as_str()), (SHA, "reconciliation succeeded"));
        // One read for each event, one write for each change, and nothing else.
        assert_eq!((world.count("GET"), world.count("POST"), world.log.len()), (5, 3, 8), "{type_}");
    }
}

#[test]
fn bitbucket_cloud_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let host = Host::default();
    let at = runtime.block_on(host.serve());
    // Its API's address comes from the environment, so the notifier is in a process of its own.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["statuses::bitbucket_cloud_in_another_process", "--exact", "--ignored"])
        .env("BITBUCKET_API_BASE_URL", format!("http://{at}/2.0/"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(host.states()[..4], ["SUCCESSFUL", "FAILED", "SUCCESSFUL", "FAILED"]);
    states::assert_bitbucket_cloud(&host);
    assert_eq!(host.world().statuses[0].id, "82265367404ad9d071796a3dd9b07c82d40274be");
}

#[tokio::test]
#[ignore = "run by bitbucket_cloud_too, with the address in its environment"]
async fn bitbucket_cloud_in_another_process() {
    let open = |token| notifier("bitbucket", "git@bitbucket.org:foo/bar.git", &[("token", token)]);
    story(&open("user:pass")).await;
    // A repository's access token.
    assert_eq!(send(&open("access"), &event("error", "x")).await, Outcome::Delivered);
    assert!(matches!(send(&open("user:wrong"), &event("error", "x")).await, Outcome::Misconfigured(_)));
    let mut unknown = event("error", "x");
    unknown.event.metadata.insert("revision".into(), format!("main@sha1:{}", "0".repeat(40)));
    let Outcome::Rejected(failure) = send(&open("access"), &unknown).await else { panic!() };
    assert!(failure.error.contains("the repository has no commit 0000"), "{}", failure.error);
    states::bitbucket_cloud().await;
}

#[tokio::test]
async fn what_the_credentials_open_and_what_not() {
    for (type_, path, ..) in HOSTS {
        let host = Host::default();
        let at = host.serve().await;
        let wrong = notifier(type_, &format!("http://{at}/{path}"), &[("token", "wrong")]);
        let Outcome::Misconfigured(failure) = send(&wrong, &event("info", "x")).await else { panic!("{type_}") };
        assert_eq!(failure.status, Some(401), "{type_}");
        let elsewhere = path.replace("foo", "other").replace("proj", "other");
        let missing = notifier(type_, &format!("http://{at}/{elsewhere}"), &[("token", "tok")]);
        let Outcome::Misconfigured(failure) = send(&missing, &event("info", "x")).await else { panic!("{type_}") };
        assert_eq!(failure.status, Some(404), "{type_}");
        assert!(host.states().is_empty());
    }
    let host = Host::default();
    let address = format!("http://{}/ctx/scm/proj/repo.git", host.serve().await);
    let pair = notifier("bitbucketserver", &address, &[("username", "user"), ("password", "pass")]);
    assert_eq!(send(&pair, &event("info", "x")).await, Outcome::Delivered);
}

#[tokio::test]
async fn trouble_passes_and_the_state_arrives() {
    for (type_, _, [good, _]) in HOSTS {
        let host = Host::default();
        let notifier = open(&host, type_).await;
        for method in [Method::GET, Method::POST] {
            for status in [409, 429, 500, 502, 503] {
                host.trouble(method.clone(), status, &[], "not now");
                let failure = retry(send(&notifier, &event("info", "x")).await);
                assert_eq!(failure.status, Some(status), "{type_}");
            }
        }
        assert_eq!(send(&notifier, &event("info", "x")).await, Outcome::Delivered);
        assert_eq!(host.states(), [good], "{type_}");
    }
}

#[tokio::test]
async fn limits_are_kept_for_as_long_as_the_host_says() {
    let soon = (jiff::Timestamp::now().as_second() + 90).to_string();
    let wait = async |type_, status, headers: &[(&'static str, &str)], body| {
        let host = Host::default();
        let notifier = open(&host, type_).await;
        host.trouble(Method::POST, status, headers, body);
        retry(send(&notifier, &event("info", "x")).await).retry_after.map(|wait| wait.as_secs())
    };
    let close = |wait: Option<u64>| wait.is_some_and(|wait| (80..=90).contains(&wait));
    let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", soon.as_str())];
    assert!(close(wait("github", 403, &spent, "API rate limit exceeded").await));
    assert!(close(wait("github", 429, &spent, "").await));
    assert_eq!(wait("github", 403, &[("retry-after", "17")], "").await, Some(17));
    assert_eq!(wait("github", 403, &[], "You have exceeded a secondary rate limit").await, Some(60));
    assert!(close(wait("gitlab", 429, &[("ratelimit-reset", &soon)], "Retry later").await));
    assert_eq!(wait("azuredevops", 429, &[("retry-after", "30")], "").await, Some(30));
    let host = Host::default();
    let notifier = open(&host, "github").await;
    host.trouble(Method::POST, 403, &[("x-ratelimit-remaining", "4999")], "Resource not accessible by integration");
    assert!(matches!(send(&notifier, &event("info", "x")).await, Outcome::Misconfigured(_)));
}

#[tokio::test]
async fn what_a_host_will_never_take_is_said_plainly() {
    let host = Host::default();
    let notifier = open(&host, "github").await;
    let full = Kept {
        sha: "elsewhere".into(),
        id: "kustomization/app/0c9c2e41".into(),
        state: "success".into(),
        description: "x".into(),
        name: String::new(),
        genre: String::new(),
    };
    host.world().statuses = vec![full; 1000];
    let Outcome::Rejected(failure) = send(&notifier, &event("info", "x")).await else { panic!() };
    assert!(failure.error.contains("no more than 1000 statuses of one commit and context"), "{}", failure.error);

    for type_ in ["github", "gitlab", "bitbucketserver"] {
        let host = Host::default();
        let notifier = open(&host, type_).await;
        let mut unknown = event("info", "x");
        unknown.event.metadata.insert("revision".into(), format!("main@sha1:{}", "0".repeat(40)));
        let Outcome::Rejected(failure) = send(&notifier, &unknown).await else { panic!("{type_}") };
        assert!(failure.error.contains("has no commit 0000"), "{}", failure.error);
    }
    let mut chart = event("error", "x");
    chart.event.metadata.insert("revision".into(), "6.5.0".into());
    let Outcome::Rejected(failure) = send(&notifier, &chart).await else { panic!() };
    assert_eq!(failure.error, "failed to extract commit hash from '6.5.0' revision");
}

#[tokio::test]
async fn gitlabs_refusal_to_go_nowhere_is_no_failure() {
    let host = Host::default();
    let notifier = open(&host, "gitlab").await;
    let stuck = |at: &str| format!(r#"{{"message":"Cannot transition status via :run from :{at} (Reason(s): x)"}}"#);
    host.trouble(Method::POST, 400, &[], &stuck("success"));
    assert_eq!(send(&notifier, &event("info", "x")).await, Outcome::Delivered);
    host.trouble(Method::POST, 400, &[], &stuck("skipped"));
    let Outcome::Rejected(failure) = send(&notifier, &event("info", "x")).await else { panic!() };
    assert!(failure.error.contains("allows no way from the status it has"), "{}", failure.error);
    // From under way to an end is always allowed.
    let kept = Kept {
        sha: SHA.into(),
        id: "kustomization/app/0c9c2e41".into(),
        state: "running".into(),
        description: "x".into(),
        name: String::new(),
        genre: String::new(),
    };
    host.world().statuses.push(kept);
    assert_eq!(send(&notifier, &event("error", "x")).await, Outcome::Delivered);
    assert_eq!(host.states(), ["running", "failed"]);
}

#[tokio::test]
async fn a_post_that_was_taken_late_is_not_made_twice() {
    for (type_, _, [good, _]) in HOSTS {
        let host = Host::default();
        let notifier = open(&host, type_).await;
        let late = Trouble {
            method: Method::POST,
            status: 200,
            headers: vec![],
            body: "".into(),
            done_late: true,
            held: false,
        };
        host.world().trouble.push_back(late);
        let attempt = tokio::time::timeout(Duration::from_millis(500), send(&notifier, &event("info", "x"))).await;
        assert!(attempt.is_err(), "{type_}");
        assert_eq!(send(&notifier, &event("info", "x")).await, Outcome::Delivered);
        assert_eq!(host.states(), [good], "{type_}");
    }
}

#[tokio::test]
async fn an_ssh_address_leads_to_the_api_over_https() {
    let host = Host::default();
    let (at, certificate) = host.serve_tls().await;
    let secret = [("token", "tok"), ("ca.crt", certificate.as_str())];
    for (type_, path) in
        [("github", "foo/bar"), ("gitlab", "foo/sub/bar"), ("gitea", "foo/bar"), ("azuredevops", "org/proj/_git/repo")]
    {
        let notifier = notifier(type_, &format!("ssh://git@{at}/{path}.git"), &secret);
        assert_eq!(send(&notifier, &event("info", "x")).await, Outcome::Delivered, "{type_}");
        host.world().statuses.clear();
    }
    assert_eq!(host.world().count("POST"), 4);
    let untrusted = notifier("github", &format!("ssh://git@{at}/foo/bar"), &[("token", "tok")]);
    assert!(matches!(send(&untrusted, &event("info", "x")).await, Outcome::Misconfigured(_)));
}

#[tokio::test]
async fn progress_is_told_to_gitea_only() {
    for (type_, ..) in HOSTS {
        let host = Host::default();
        let notifier = open(&host, type_).await;
        let outcome = send(&notifier, &event("info", "Progressing")).await;
        if type_ == "gitea" {
            assert_eq!((outcome, host.states()), (Outcome::Delivered, vec!["pending".to_owned()]));
        } else {
            assert!(matches!(outcome, Outcome::Skipped(_)) && host.world().log.is_empty(), "{type_}");
        }
    }
}

#[tokio::test]
async fn events_of_no_commit_ask_nothing() {
    let host = Host::default();
    let notifier = open(&host, "github").await;
    let mut plain = event("info", "ReconciliationSucceeded");
    plain.event.metadata.remove("commit_status");
    assert!(matches!(send(&notifier, &plain).await, Outcome::Skipped(_)));
    assert!(host.world().log.is_empty());
    plain.event.metadata.insert("commit".into(), SHA.into());
    plain.commit_status_id = Some("prod/app".into());
    assert_eq!(send(&notifier, &plain).await, Outcome::Delivered);
    assert_eq!(host.world().statuses[0].id, "prod/app");
}

#[tokio::test]
async fn azure_devops_groups_by_summary() {
    let host = Host::default();
    let notifier = open(&host, "azuredevops").await;
    let mut notification = event("info", "x");
    notification.event.metadata.insert("summary".into(), "prod".into());
    assert_eq!(send(&notifier, &notification).await, Outcome::Delivered);
    assert_eq!(host.world().statuses[0].genre, "fluxcd:prod");
    host.trouble(Method::GET, 203, &[], "<html>Sign in</html>");
    assert!(matches!(send(&notifier, &notification).await, Outcome::Misconfigured(_)));
}
