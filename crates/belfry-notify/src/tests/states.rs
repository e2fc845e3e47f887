//! What every git host is sent for every state of a commit, for the reader and against change; and what leaks from it.

use std::fmt::Write;

use belfry_core::notification::Outcome;
use belfry_http::{Error, ErrorKind, Method, Request, Response};

use super::{
    Case, answer,
    script::{Script, polite, run},
};
use crate::{Attempted, CommitState, Host, Known, Repository, Status, StatusNotifier, SupersededAs};

const COMMIT: &str = "5394cb7f48332b2de7c17dd8b8384bbc84b7e738";
const NEXT: &str = "0e6e2a9a9b1c8f7d6e5f4a3b2c1d0e9f8a7b6c5d";
const CONTEXT: &str = "flux/prod-eu-1/kustomization/flux-system/apps";

/// A Provider that names its host only, and a source there.
fn case(host: Host) -> (Case, &'static str) {
    let (address, source) = match host {
        Host::GitHub => ("", "ssh://git@github.com/foo/bar"),
        Host::GitLab => ("", "https://gitlab.com/foo/sub/bar.git"),
        Host::Gitea => ("http://gitea.svc:3000", "http://gitea.svc:3000/foo/bar"),
        Host::Bitbucket => ("", "git@bitbucket.org:foo/bar.git"),
        Host::BitbucketServer => ("https://bb.example/ctx", "ssh://git@bb.example:7999/proj/repo.git"),
        Host::AzureDevOps => ("", "git@ssh.dev.azure.com:v3/org/proj/repo"),
    };
    (Case::new(host.provider_type(), address).secret(&[("token", "user:token-0123456789")]), source)
}

fn open(host: Host, state: CommitState) -> (StatusNotifier, Status) {
    let (case, source) = case(host);
    let status = Status {
        repository: case.with_settings(|settings| Repository::from_source(settings, source, &[])).unwrap(),
        commit: COMMIT.into(),
        context: CONTEXT.into(),
        state,
        superseded_as: None,
        description: "Applied revision: main@sha1:5394cb7f".into(),
        target_url: Some("https://belfry.example/rollouts/12".into()),
    };
    (case.status_notifier().unwrap(), status)
}

fn post(notifier: &StatusNotifier, status: &Status, known: Known, script: &Script<'_>) -> Attempted {
    run(notifier.post_over(script, status, known))
}

/// All requests of an attempt when each is taken and nothing is there yet.
fn sent(notifier: &StatusNotifier, status: &Status, known: Known) -> Vec<Request> {
    let script = Script::new(|_, request| Ok(polite(request)));
    post(notifier, status, known, &script);
    script.sent()
}

fn body(notifier: &StatusNotifier, status: &Status) -> serde_json::Value {
    let requests = sent(notifier, status, Known::Sure);
    assert_eq!(requests.len(), 1, "no read on the normal path");
    serde_json::from_slice(&requests[0].body).unwrap()
}

fn written(out: &mut String, request: &Request) {
    writeln!(out, "{} {}", request.method, request.url).unwrap();
    for (name, value) in &request.headers {
        writeln!(out, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    if !request.body.is_empty() {
        writeln!(out, "\n{}", String::from_utf8_lossy(&request.body)).unwrap();
    }
    out.push('\n');
}

#[test]
fn every_host_and_every_state() {
    let states = [
        CommitState::Pending,
        CommitState::Success,
        CommitState::Failure,
        CommitState::Superseded { by: Some(NEXT.into()) },
    ];
    for host in Host::ALL {
        let mut out = String::new();
        for (at, state) in states.iter().enumerate() {
            let (notifier, status) = open(host, state.clone());
            writeln!(out, "#### {state:?}").unwrap();
            let requests = sent(&notifier, &status, Known::Sure);
            assert_eq!(requests.len(), 1, "no read on the normal path");
            if at == 0 {
                written(&mut out, &requests[0]);
            } else {
                writeln!(out, "{}\n", String::from_utf8_lossy(&requests[0].body)).unwrap();
            }
        }
        let (notifier, status) = open(host, CommitState::Success);
        writeln!(out, "#### unsure: what is read before and after").unwrap();
        written(&mut out, &sent(&notifier, &status, Known::Unsure)[0]);
        insta::assert_snapshot!(format!("state-{}", host.provider_type()), out);
    }
}

#[test]
fn superseded_is_shown_as_told() {
    let words = |superseded_as| {
        let word = |host| {
            let (notifier, status) = open(host, CommitState::Superseded { by: None });
            let body = body(&notifier, &Status { superseded_as, ..status });
            assert_eq!(body["description"], "superseded: Applied revision: main@sha1:5394cb7f");
            body["state"].as_str().unwrap().to_owned()
        };
        Host::ALL.map(word).join(" ")
    };
    assert_eq!(words(None), "error canceled warning STOPPED CANCELLED notApplicable");
    assert_eq!(words(Some(SupersededAs::Failure)), "failure failed failure FAILED FAILED failed");
    assert_eq!(words(Some(SupersededAs::Success)), "success success success SUCCESSFUL SUCCESSFUL succeeded");
    assert_eq!(words(Some(SupersededAs::Pending)), "pending pending pending INPROGRESS INPROGRESS pending");
}

/// The tables in the documentation are those of the code.
#[test]
fn the_documentation_has_the_words_and_the_limits() {
    let text = include_str!("../../../../docs/commit-status.md");
    let row = |name: &str| -> Vec<&str> {
        let line = text.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap();
        line.trim_matches('|').split('|').skip(1).map(str::trim).collect()
    };
    let order = [Host::GitHub, Host::GitLab, Host::Gitea, Host::Bitbucket, Host::BitbucketServer, Host::AzureDevOps];
    for (name, state) in [
        ("pending", CommitState::Pending),
        ("success", CommitState::Success),
        ("failure", CommitState::Failure),
        ("superseded", CommitState::Superseded { by: None }),
    ] {
        for (host, cell) in order.into_iter().zip(row(name)) {
            let (notifier, status) = open(host, state.clone());
            let word = body(&notifier, &status)["state"].as_str().unwrap().to_owned();
            assert!(cell.starts_with(&format!("`{word}`")), "{host:?} {name}: {cell}, and it is {word}");
        }
    }
    let number = |cell: &str| -> usize {
        let digits: String =
            cell.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
        digits.parse().unwrap()
    };
    let limits = |name: &str| row(name).into_iter().map(number).collect::<Vec<_>>();
    assert_eq!(limits("context"), order.map(|host| host.limits().context));
    assert_eq!(limits("description"), order.map(|host| host.limits().description));
    assert_eq!(limits("link"), order.map(|host| host.limits().link));
}

#[test]
fn limits_hold_and_what_matters_stays() {
    for host in Host::ALL {
        let (notifier, status) = open(host, CommitState::Superseded { by: Some(NEXT.into()) });
        let limits = host.limits();
        let long = Status {
            context: format!("flux/{}", "x".repeat(400)),
            description: "wörd \n".repeat(200),
            target_url: Some(format!("https://belfry.example/{}", "x".repeat(3000))),
            ..status
        };
        let body = body(&notifier, &long);
        let text = |at: &str| body.pointer(at).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let context = ["/context/name", "/context", "/name", "/key"].map(text);
        let hashed = |text: &&String| text.contains('~') || host == Host::Bitbucket;
        let context = context.iter().rev().find(hashed).unwrap();
        assert_eq!(context.chars().count(), limits.context, "{host:?}");
        let description = text("/description");
        assert!(description.starts_with("superseded by 0e6e2a9a9b1c: wörd wörd"), "{description}");
        assert!(description.ends_with("wörd…") && description.chars().count() <= limits.description, "{description}");
        assert!(!body.to_string().contains("belfry.example/xxx"), "{body}");
        if matches!(host, Host::Bitbucket | Host::BitbucketServer) {
            assert_eq!(text("/name").chars().count(), limits.name);
            assert!(!text("/url").is_empty(), "a status must lead somewhere: {body}");
        }
    }
}

#[test]
fn links_give_nothing_away() {
    for link in ["javascript:alert(1)", "https://user:pass@belfry.example/", "not a link", "ftp://x", ""] {
        let (notifier, status) = open(Host::GitHub, CommitState::Success);
        let body = body(&notifier, &Status { target_url: Some(link.into()), ..status });
        assert!(body.get("target_url").is_none(), "{link}: {body}");
    }
}

#[test]
fn what_can_not_be_posted_asks_nothing() {
    let (notifier, status) = open(Host::GitHub, CommitState::Success);
    let outcome = |status: &Status| {
        let script = Script::new(|_, request| Ok(polite(request)));
        let attempted = post(&notifier, status, Known::Unsure, &script);
        assert!(script.sent().is_empty());
        attempted.outcome
    };
    for commit in ["", "5394cb7", "main", &format!("{COMMIT}0"), &COMMIT.replace('5', "/")] {
        assert!(
            matches!(outcome(&Status { commit: commit.into(), ..status.clone() }), Outcome::Rejected(_)),
            "{commit}"
        );
    }
    assert!(matches!(outcome(&Status { context: " \n".into(), ..status.clone() }), Outcome::Rejected(_)));
    // Made for another host, or for the repository that the Provider named before.
    let (_, elsewhere) = open(Host::GitLab, CommitState::Success);
    assert!(matches!(outcome(&elsewhere), Outcome::Misconfigured(_)));
    let moved = Case::new("github", "https://ghe.example").secret(&[("token", "t")]).status_notifier().unwrap();
    let script = Script::new(|_, request| Ok(polite(request)));
    let Outcome::Misconfigured(failure) = post(&moved, &status, Known::Sure, &script).outcome else { panic!() };
    assert_eq!(failure.error, "the Provider's address is another one now: 'github.com/foo/bar' is not there");
    let named =
        Case::new("github", "https://github.com/foo/other").secret(&[("token", "t")]).status_notifier().unwrap();
    assert!(matches!(post(&named, &status, Known::Sure, &script).outcome, Outcome::Misconfigured(_)));
    assert!(script.sent().is_empty());
}

#[test]
fn hashes_of_either_kind_in_either_case() {
    let (notifier, status) = open(Host::Gitea, CommitState::Success);
    let sha256 = format!("{COMMIT}{}", &COMMIT[..24]).to_uppercase();
    let request = sent(&notifier, &Status { commit: sha256.clone(), ..status }, Known::Sure).remove(0);
    assert!(request.url.path().ends_with(&format!("/statuses/{}", sha256.to_lowercase())), "{}", request.url);
}

#[test]
fn an_old_bitbucket_server_has_no_word_for_superseded() {
    let (notifier, status) = open(Host::BitbucketServer, CommitState::Superseded { by: None });
    let old = |_, request: &Request| {
        let knows = !String::from_utf8_lossy(&request.body).contains("CANCELLED");
        Ok(if knows { answer(204, "") } else { answer(400, "not one of INPROGRESS, SUCCESSFUL, FAILED") })
    };
    let script = Script::new(old);
    assert_eq!(post(&notifier, &status, Known::Sure, &script).outcome, Outcome::Delivered);
    let bodies: Vec<String> = script.sent().iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert!(bodies.len() == 2 && bodies[1].contains(r#""state":"FAILED""#), "{bodies:?}");
    // Another 400 is what it says.
    let script = Script::new(|_, _| Ok(answer(400, "no")));
    assert!(matches!(post(&notifier, &status, Known::Sure, &script).outcome, Outcome::Rejected(_)));
    assert_eq!(script.sent().len(), 2);
}

#[test]
fn azure_devops_is_read_to_the_end() {
    let (notifier, status) = open(Host::AzureDevOps, CommitState::Success);
    let others = |count: usize| -> Vec<String> {
        (0..count)
            .map(|at| format!(r#"{{"id":{at},"state":"failed","context":{{"name":"x{at}","genre":"fluxcd"}}}}"#))
            .collect()
    };
    let ours = format!(
        r#"{{"id":200,"state":"succeeded","description":"{}","context":{{"name":"{CONTEXT}","genre":"fluxcd"}}}}"#,
        status.description
    );
    let pages = |request: &Request| -> Response {
        match request.url.query().unwrap() {
            query if query.ends_with("skip=0") => answer(200, &format!(r#"{{"value":[{}]}}"#, others(50).join(","))),
            // Cut off in the middle of an element.
            query if query.ends_with("skip=50") => {
                answer(200, &format!(r#"{{"value":[{},{{"id":"#, others(20).join(",")))
            }
            query if query.ends_with("skip=70") => answer(200, &format!(r#"{{"value":[{ours}]}}"#)),
            query => panic!("{query}"),
        }
    };
    let script = Script::new(|_, request| Ok(pages(request)));
    assert_eq!(post(&notifier, &status, Known::Unsure, &script).outcome, Outcome::Delivered);
    assert!(script.sent().iter().all(|request| request.method == Method::GET));
}

#[test]
fn no_secret_comes_back() {
    let secrets = ["token-0123456789", "user:token", "dXNlcjp0b2tlbi0wMTIzNDU2Nzg5", "OnVzZXI6dG9rZW4tMDEyMzQ1Njc4OQ"];
    let tight = |host: Host, text: &str| {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{host:?}: {text}");
    };
    for host in Host::ALL {
        let (notifier, status) = open(host, CommitState::Failure);
        tight(host, &format!("{notifier:?} {status:?}"));
        for step in 0..3 {
            for code in [400, 401, 403, 422, 500] {
                let script = Script::new(|at, request| {
                    let echo = || request.headers.values().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
                    Ok(if at == step { answer(code, &echo().collect::<Vec<_>>().join(" ")) } else { polite(request) })
                });
                let attempted = post(&notifier, &status, Known::Unsure, &script);
                assert!(!matches!(attempted.outcome, Outcome::Delivered), "{host:?} {step} {code}");
                tight(host, &format!("{attempted:?}"));
            }
            let error = Error { kind: ErrorKind::Timeout, host: "h".into(), detail: secrets[0].into(), sent: true };
            let script = Script::new(|at, request| if at == step { Err(error.clone()) } else { Ok(polite(request)) });
            tight(host, &format!("{:?}", post(&notifier, &status, Known::Unsure, &script)));
        }
    }
}
