//! Comments on pull and merge requests: one for each Provider and object, whatever else is on the page.

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use belfry_api::{CommentMode, ProviderSpec};
use belfry_core::{
    notification::{Notification, Outcome},
    secret::SecretData,
};
use belfry_notify::{Notifier, build};

use crate::{
    event,
    host::{Host, Remark, Trouble},
    notifier, send, spec, with_spec,
};

const HOSTS: [(&str, &str, &str); 3] = [
    ("githubpullrequestcomment", "foo/bar", "pr"),
    ("gitlabmergerequestcomment", "foo/sub/bar", "mr"),
    ("giteapullrequestcomment", "foo/bar", "pr"),
];

async fn address(host: &Host, path: &str) -> String {
    format!("http://{}/{path}", host.serve().await)
}

fn open(type_: &str, address: &str) -> Notifier {
    notifier(type_, address, &[("token", "tok")])
}

/// With one comment for all objects.
fn open_table(type_: &str, address: &str) -> Notifier {
    let spec = ProviderSpec { comment: Some(CommentMode::Single), ..spec(type_, address) };
    let secret: SecretData = [("token".to_owned(), b"tok".to_vec())].into_iter().collect();
    with_spec(&spec, &secret, |settings, clients| build(settings, clients).unwrap())
}

fn about(name: &str, message: &str) -> Notification {
    let mut notification = event("error", "BuildFailed");
    notification.event.metadata = [("change_request".to_owned(), "42".to_owned())].into();
    notification.event.involved_object.name = name.into();
    notification.event.message = message.into();
    notification
}

fn marker(what: &str, name: &str) -> String {
    format!("<!-- flux-{what}-comment-key:0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a/Kustomization/apps/{name} -->")
}

fn ours(host: &Host) -> Vec<String> {
    host.world().comments.iter().filter(|remark| remark.author == "me").map(|remark| remark.body.clone()).collect()
}

/// Others' comments: `many` of them, each this long.
fn crowd(host: &Host, many: u64, length: usize) {
    let mut world = host.world();
    for _ in 0..many {
        let id = world.id();
        world.comments.push(Remark { id, author: "somebody".into(), body: "y".repeat(length) });
    }
}

#[tokio::test]
async fn a_second_event_edits_the_first_ones_comment() {
    for (type_, path, what) in HOSTS {
        let host = Host::default();
        let address = address(&host, path).await;
        let hub = open(type_, &address);
        for message in ["first", "second"] {
            assert_eq!(send(&hub, &about("app", message)).await, Outcome::Delivered, "{type_}");
        }
        // After a restart.
        assert_eq!(send(&open(type_, &address), &about("app", "third")).await, Outcome::Delivered);
        assert_eq!(send(&hub, &about("other", "x")).await, Outcome::Delivered);
        let expected = |name: &str, message: &str| {
            format!(
                "{}\n\n## Flux Status\n\n⚠️ Kustomization/apps/{name}\n\n{message}\n\nMetadata:\n",
                marker(what, name)
            )
        };
        assert_eq!(ours(&host), [expected("app", "third"), expected("other", "x")], "{type_}");
        // Who am I: once for each start.
        assert_eq!(host.world().log.iter().filter(|line| line.ends_with("/user")).count(), 2);
    }
}

#[tokio::test]
async fn ours_is_found_on_any_page() {
    for (type_, path, _) in HOSTS {
        for length in [10, 900, 70_000] {
            let host = Host::default();
            let address = address(&host, path).await;
            crowd(&host, if length > 10_000 { 13 } else { 233 }, length);
            assert_eq!(send(&open(type_, &address), &about("app", "first")).await, Outcome::Delivered);
            crowd(&host, 17, length);
            assert_eq!(send(&open(type_, &address), &about("app", "second")).await, Outcome::Delivered);
            assert_eq!(ours(&host).len(), 1, "{type_} {length}");
            assert!(ours(&host)[0].contains("\n\nsecond\n\n"));
        }
    }
}

#[tokio::test]
async fn the_longest_message_still_makes_a_comment_that_is_found_again() {
    for (type_, path, _) in HOSTS {
        let host = Host::default();
        let address = address(&host, path).await;
        for message in ["a<ä".repeat(13_000), "b".repeat(39_000), "short".into()] {
            assert_eq!(send(&open(type_, &address), &about("app", &message)).await, Outcome::Delivered, "{type_}");
        }
        assert_eq!(ours(&host).len(), 1, "{type_}");
        assert!(ours(&host)[0].contains("\n\nshort\n\n"));
    }
}

#[tokio::test]
async fn what_others_write_is_left_alone() {
    for (type_, path, what) in HOSTS {
        let host = Host::default();
        let address = address(&host, path).await;
        let quote = format!("> {}", marker(what, "app"));
        host.world().comments.push(Remark { id: 1000, author: "somebody".into(), body: quote.clone() });
        assert_eq!(send(&open(type_, &address), &about("app", "x")).await, Outcome::Delivered);
        assert_eq!((ours(&host).len(), host.world().comments[0].body.clone()), (1, quote), "{type_}");
    }
}

#[tokio::test]
async fn a_deleted_comment_is_written_again() {
    for (type_, path, _) in HOSTS {
        let host = Host::default();
        let hub = open(type_, &address(&host, path).await);
        assert_eq!(send(&hub, &about("app", "first")).await, Outcome::Delivered);
        host.world().comments.clear();
        assert_eq!(send(&hub, &about("app", "second")).await, Outcome::Delivered);
        assert_eq!(ours(&host).len(), 1, "{type_}");
    }
}

#[tokio::test]
async fn many_at_once_still_make_one_comment_each() {
    for (type_, path, _) in HOSTS {
        let host = Host::default();
        let hub = Arc::new(open(type_, &address(&host, path).await));
        let tasks: Vec<_> = (0..24)
            .map(|i| {
                let hub = hub.clone();
                tokio::spawn(async move { send(&hub, &about(&format!("app-{}", i % 3), "x")).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Outcome::Delivered, "{type_}");
        }
        assert_eq!(ours(&host).len(), 3, "{type_}");
    }
}

#[tokio::test]
async fn events_of_no_request_say_nothing() {
    for (type_, path, _) in HOSTS {
        let host = Host::default();
        let hub = open(type_, &address(&host, path).await);
        let mut notification = about("app", "x");
        notification.event.metadata.clear();
        assert!(matches!(send(&hub, &notification).await, Outcome::Skipped(_)));
        notification.event.metadata.insert("change_request".into(), "x1".into());
        assert!(matches!(send(&hub, &notification).await, Outcome::Rejected(_)));
        assert!(host.world().log.is_empty(), "{type_}");
    }
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_is_searched_for_before_another() {
    for (type_, path, _) in HOSTS {
        for open in [open, open_table] {
            let host = Host::default();
            let address = address(&host, path).await;
            let hub = open(type_, &address);
            let method = Method::POST;
            let late = Trouble { method, status: 201, headers: vec![], body: "".into(), done_late: true, held: false };
            host.world().trouble.push_back(late);
            let first = about("app", "first");
            assert!(tokio::time::timeout(Duration::from_secs(1), send(&hub, &first)).await.is_err(), "{type_}");
            assert_eq!(ours(&host).len(), 1, "it was done");
            assert_eq!(send(&hub, &about("app", "second")).await, Outcome::Delivered, "{type_}");
            assert_eq!(ours(&host).len(), 1, "{type_}");
            assert!(ours(&host)[0].contains("second"));
        }
    }
}

fn rows(host: &Host) -> Vec<String> {
    let [table] = &ours(host)[..] else { panic!("{:?}", ours(host)) };
    table.lines().filter(|line| line.starts_with("| Kustomization")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_table_has_a_row_for_each_object() {
    for (type_, path, what) in HOSTS {
        let host = Host::default();
        let address = address(&host, path).await;
        crowd(&host, 120, 10);
        let hub = open_table(type_, &address);
        for (name, message) in [("web", "first"), ("api", "no | such"), ("web", "second")] {
            assert_eq!(send(&hub, &about(name, message)).await, Outcome::Delivered, "{type_}");
        }
        let row = |name: &str, message: &str| {
            format!("| Kustomization/apps/{name} | ⚠\u{fe0f} build failed | – | {message} |")
        };
        assert_eq!(rows(&host), [row("api", r"no \| such"), row("web", "second")], "{type_}");
        let marker = format!("<!-- flux-{what}-comment-key:0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a/objects -->");
        assert!(ours(&host)[0].starts_with(&marker), "{type_}");
        // The same once more is read, and not written; neither is it searched for again.
        let before = host.world().log.len();
        assert_eq!(send(&hub, &about("web", "second")).await, Outcome::Delivered);
        assert_eq!(host.world().log.len(), before + 1, "{type_}");
        // What another wrote meanwhile stays, also after a restart.
        let other = open_table(type_, &address);
        assert_eq!(send(&other, &about("new", "x")).await, Outcome::Delivered);
        assert_eq!(send(&hub, &about("api", "y")).await, Outcome::Delivered);
        assert_eq!(rows(&host), [row("api", "y"), row("new", "x"), row("web", "second")], "{type_}");
        // Deleted: it begins anew.
        host.world().comments.clear();
        assert_eq!(send(&hub, &about("api", "z")).await, Outcome::Delivered);
        assert_eq!(rows(&host), [row("api", "z")], "{type_}");
    }
}

#[tokio::test]
async fn many_at_once_lose_no_row_even_while_the_provider_changes() {
    for (type_, path, _) in HOSTS {
        let host = Host::default();
        let address = address(&host, path).await;
        // The Provider as it was, and as it is now.
        let hubs = [Arc::new(open_table(type_, &address)), Arc::new(open_table(type_, &address))];
        let tasks: Vec<_> = (0..24)
            .map(|i| {
                let hub = hubs[i % 2].clone();
                tokio::spawn(async move { send(&hub, &about(&format!("app-{i:02}"), "x")).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Outcome::Delivered, "{type_}");
        }
        assert_eq!(rows(&host).len(), 24, "{type_}");
    }
}
