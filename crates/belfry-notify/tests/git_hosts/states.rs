//! States of commits on every host: one request each, and the truth again after an attempt of unknown outcome.

use std::time::Duration;

use axum::http::Method;
use belfry_core::notification::Outcome;
use belfry_notify::{Attempted, CommitState, Known, Repository, Status, StatusNotifier, fit};

use crate::{
    SHA,
    host::{Host, Kept, Trouble},
    retry, with_settings,
};

/// Type, path of the Provider's address below which all is, the source, and the words for the four states.
const HOSTS: [(&str, &str, &str, [&str; 4]); 5] = [
    ("github", "", "foo/bar", ["pending", "success", "failure", "error"]),
    ("gitlab", "", "foo/sub/bar.git", ["pending", "success", "failed", "canceled"]),
    ("gitea", "", "foo/bar.git", ["pending", "success", "failure", "warning"]),
    ("bitbucketserver", "ctx", "ctx/scm/proj/repo.git", ["INPROGRESS", "SUCCESSFUL", "FAILED", "CANCELLED"]),
    ("azuredevops", "", "org/proj/_git/repo", ["pending", "succeeded", "failed", "notApplicable"]),
];
const CONTEXT: &str = "flux/kustomization/apps/app";
const STATES: [CommitState; 4] =
    [CommitState::Pending, CommitState::Success, CommitState::Failure, CommitState::Superseded { by: None }];

/// A Provider that names its host only, and what is posted for a source there.
struct Poster {
    notifier: StatusNotifier,
    repository: Repository,
}

impl Poster {
    async fn new(host: &Host, type_: &str) -> Self {
        let (_, below, source, _) = HOSTS.into_iter().find(|(name, ..)| *name == type_).unwrap();
        let at = host.serve().await;
        Self::at(type_, &format!("http://{at}/{below}"), &format!("http://{at}/{source}"), "tok\n")
    }

    fn at(type_: &str, address: &str, source: &str, token: &str) -> Self {
        with_settings(type_, address, &[("token", token)], |settings, clients| Self {
            notifier: StatusNotifier::new(settings, clients).unwrap(),
            repository: Repository::from_source(settings, source, &[]).unwrap(),
        })
    }

    fn status(&self, state: &CommitState) -> Status {
        Status {
            repository: self.repository.clone(),
            commit: SHA.into(),
            context: CONTEXT.into(),
            state: state.clone(),
            superseded_as: None,
            description: format!("{state:?}").to_lowercase(),
            target_url: None,
        }
    }

    async fn post(&self, state: &CommitState, known: Known) -> Attempted {
        self.notifier.post(&self.status(state), known).await
    }

    async fn posted(&self, state: &CommitState, known: Known) {
        assert_eq!(self.post(state, known).await.outcome, Outcome::Delivered, "{:?} {state:?}", self.notifier);
    }

    /// An attempt that nobody waits for to its end.
    async fn given_up(&self, state: &CommitState) {
        let attempt = self.post(state, Known::Sure);
        assert!(tokio::time::timeout(Duration::from_millis(300), attempt).await.is_err(), "{:?}", self.notifier);
    }
}

fn kept(id: &str, state: &str) -> Kept {
    Kept {
        sha: SHA.into(),
        id: id.into(),
        state: state.into(),
        description: "x".into(),
        name: String::new(),
        genre: "fluxcd".into(),
    }
}

#[tokio::test]
async fn every_state_is_one_request() {
    for (type_, .., words) in HOSTS {
        let host = Host::default();
        let poster = Poster::new(&host, type_).await;
        for state in &STATES {
            poster.posted(state, Known::Sure).await;
        }
        assert_eq!(host.states(), words, "{type_}");
        let world = host.world();
        assert_eq!((world.count("POST"), world.log.len()), (4, 4), "{type_}: {:?}", world.log);
        assert!(world.statuses.iter().all(|there| there.id == CONTEXT && there.sha == SHA), "{:?}", world.statuses);
    }
}

/// Held by `statuses::bitbucket_cloud_too`, in a process with the address in its environment.
pub async fn bitbucket_cloud() {
    let poster = Poster::at("bitbucket", "", "ssh://git@bitbucket.org/foo/bar.git", "access");
    for state in &STATES {
        poster.posted(state, Known::Sure).await;
        poster.posted(state, Known::Unsure).await;
    }
    let unknown = Status { commit: "0".repeat(40), ..poster.status(&CommitState::Success) };
    let attempted = poster.notifier.post(&unknown, Known::Sure).await;
    assert!(matches!(attempted.outcome, Outcome::Rejected(_)), "{attempted:?}");
}

/// What `bitbucket_cloud` leaves behind.
pub fn assert_bitbucket_cloud(host: &Host) {
    let world = host.world();
    let key = fit(CONTEXT, belfry_notify::Host::Bitbucket);
    let ours: Vec<&Kept> = world.statuses.iter().filter(|there| there.id == key).collect();
    assert!(ours.iter().all(|there| there.name == CONTEXT), "{ours:?}");
    let states: Vec<&str> = ours.iter().map(|there| there.state.as_str()).collect();
    assert_eq!(states, ["INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED"]);
}

#[tokio::test]
async fn what_was_taken_unseen_is_not_posted_again() {
    for (type_, .., words) in HOSTS {
        for (state, word) in STATES.iter().zip(words) {
            let host = Host::default();
            let poster = Poster::new(&host, type_).await;
            let trouble = Trouble {
                method: Method::POST,
                status: 200,
                headers: vec![],
                body: "".into(),
                done_late: true,
                held: false,
            };
            host.world().trouble.push_back(trouble);
            poster.given_up(state).await;
            poster.posted(state, Known::Unsure).await;
            assert_eq!(host.states(), [word], "{type_}");
            assert_eq!(host.world().log.len(), 2, "{type_}");
        }
    }
}

#[tokio::test]
async fn what_was_lost_is_posted_and_seen() {
    for (type_, .., words) in HOSTS {
        let host = Host::default();
        let poster = Poster::new(&host, type_).await;
        poster.posted(&CommitState::Pending, Known::Sure).await;
        host.trouble(Method::POST, 502, &[], "gateway");
        let failure = retry(poster.post(&CommitState::Success, Known::Sure).await.outcome);
        assert!(failure.unknown, "{type_}");
        poster.posted(&CommitState::Success, Known::Unsure).await;
        assert_eq!(host.states(), [words[0], words[1]], "{type_}");
        // Post, post, and then read, post, read.
        assert_eq!(host.world().log.len(), 5, "{type_}");
    }
}

#[tokio::test]
async fn what_arrives_late_does_not_have_the_last_word() {
    for (type_, .., [pending, success, failure, _]) in HOSTS {
        let host = Host::default();
        let poster = Poster::new(&host, type_).await;
        let late = if type_ == "gitlab" { (CommitState::Failure, failure) } else { (CommitState::Pending, pending) };
        host.hold();
        poster.given_up(&late.0).await;
        // It arrives right behind this one.
        let failed = retry(poster.post(&CommitState::Success, Known::Unsure).await.outcome);
        assert!(failed.unknown, "{type_}: {failed:?}");
        assert_eq!(failed.error, "the host took the status, and doesn't show it", "{type_}");
        assert_eq!(host.states(), [success, late.1], "{type_}");
        poster.posted(&CommitState::Success, Known::Unsure).await;
        assert_eq!(host.states(), [success, late.1, success], "{type_}");
    }
}

#[tokio::test]
async fn gitlab_is_asked_for_nothing_that_it_can_not_do() {
    let host = Host::default();
    let poster = Poster::new(&host, "gitlab").await;
    // To be pending twice is to be pending; what was said of it first stays.
    poster.posted(&CommitState::Pending, Known::Sure).await;
    poster.posted(&CommitState::Pending, Known::Sure).await;
    let other = Status { description: "other".into(), ..poster.status(&CommitState::Pending) };
    assert_eq!(poster.notifier.post(&other, Known::Unsure).await.outcome, Outcome::Delivered);
    assert_eq!(host.states(), ["pending"]);
    // Somebody else's client with the same token said that it runs.
    host.world().statuses.push(kept(CONTEXT, "running"));
    poster.posted(&CommitState::Pending, Known::Sure).await;
    poster.posted(&CommitState::Pending, Known::Unsure).await;
    // From there, and from every end, to every end, and to a new beginning.
    for state in [2, 1, 3, 1, 2, 0, 3].map(|at: usize| &STATES[at]) {
        poster.posted(state, Known::Sure).await;
    }
    let expected = ["pending", "running", "failed", "success", "canceled", "success", "failed", "pending", "canceled"];
    assert_eq!(host.states(), expected);
    host.trouble(Method::POST, 400, &[], r#"{"message":"Cannot transition status via :drop from :manual (x)"}"#);
    let attempted = poster.post(&CommitState::Failure, Known::Sure).await;
    let Outcome::Rejected(failure) = attempted.outcome else { panic!("{attempted:?}") };
    assert!(failure.error.contains("allows no way from the status it has"), "{}", failure.error);
    assert!(!attempted.ends_context);
}

#[tokio::test]
async fn a_full_context_is_over() {
    let host = Host::default();
    let poster = Poster::new(&host, "github").await;
    let others = std::iter::repeat_with(|| kept(CONTEXT, "success")).take(1000);
    host.world().statuses.extend(others);
    for known in [Known::Sure, Known::Unsure] {
        let attempted = poster.post(&CommitState::Failure, known).await;
        assert!(attempted.ends_context && attempted.status == Some(422), "{attempted:?}");
        let Outcome::Rejected(failure) = attempted.outcome else { panic!("{known:?}") };
        assert!(failure.error.contains("no more than 1000 statuses of one commit and context"), "{}", failure.error);
    }
    // Another 422 is about this one status only.
    let unknown = Status { commit: "0".repeat(40), ..poster.status(&CommitState::Success) };
    let attempted = poster.notifier.post(&unknown, Known::Sure).await;
    assert!(!attempted.ends_context && matches!(attempted.outcome, Outcome::Rejected(_)), "{attempted:?}");
}

#[tokio::test]
async fn limits_and_conflicts_pass() {
    let soon = (jiff::Timestamp::now().as_second() + 90).to_string();
    for (type_, ..) in HOSTS {
        let host = Host::default();
        let poster = Poster::new(&host, type_).await;
        let attempt = async |status, headers: &[(&'static str, &str)], known| {
            let method = if known == Known::Sure { Method::POST } else { Method::GET };
            host.trouble(method, status, headers, "not now");
            let failure = retry(poster.post(&CommitState::Success, known).await.outcome);
            (failure.status, failure.retry_after.map(|wait| wait.as_secs()), failure.unknown)
        };
        for known in [Known::Sure, Known::Unsure] {
            assert_eq!(attempt(409, &[], known).await, (Some(409), None, false), "{type_}");
            assert_eq!(attempt(429, &[("retry-after", "17")], known).await, (Some(429), Some(17), false), "{type_}");
            assert_eq!(attempt(503, &[("retry-after", "9")], known).await, (Some(503), Some(9), false), "{type_}");
            let (_, wait, _) = attempt(429, &[("ratelimit-reset", &soon)], known).await;
            assert!(wait.is_some_and(|wait| (80..=90).contains(&wait)), "{type_}: {wait:?}");
            let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", soon.as_str())];
            let (_, wait, _) = attempt(403, &spent, known).await;
            assert!(wait.is_some_and(|wait| (80..=90).contains(&wait)), "{type_}: {wait:?}");
        }
        assert!(host.states().is_empty());
        poster.posted(&CommitState::Success, Known::Sure).await;
    }
}

#[tokio::test]
async fn what_must_be_mended_is_told_from_what_will_never_be_taken() {
    for (type_, below, source, _) in HOSTS {
        let host = Host::default();
        let at = host.serve().await;
        let poster = |source: &str, token| {
            Poster::at(type_, &format!("http://{at}/{below}"), &format!("http://{at}/{source}"), token)
        };
        let outcome = async |poster: Poster, known| poster.post(&CommitState::Success, known).await.outcome;
        for known in [Known::Sure, Known::Unsure] {
            let wrong = outcome(poster(source, "wrong"), known).await;
            assert!(matches!(&wrong, Outcome::Misconfigured(failure) if failure.status == Some(401)), "{wrong:?}");
        }
        let elsewhere = source.replace("foo", "other").replace("proj", "other");
        let missing = outcome(poster(&elsewhere, "tok"), Known::Sure).await;
        assert!(matches!(&missing, Outcome::Misconfigured(failure) if failure.status == Some(404)), "{missing:?}");
        assert!(host.states().is_empty());
    }
}

#[tokio::test]
async fn others_statuses_hide_nothing() {
    for (type_, .., [_, good, ..]) in HOSTS {
        let host = Host::default();
        let poster = Poster::new(&host, type_).await;
        poster.posted(&CommitState::Success, Known::Sure).await;
        let others = (0..120).map(|at| kept(&format!("other/{at}"), "failure"));
        host.world().statuses.extend(others);
        poster.posted(&CommitState::Success, Known::Unsure).await;
        let ours = host.world().statuses.iter().filter(|there| there.id == CONTEXT && there.state == good).count();
        // Where the list is long it is cheaper to say it again than to read it all.
        assert_eq!(ours, if matches!(type_, "github" | "gitea") { 2 } else { 1 }, "{type_}");
    }
}
