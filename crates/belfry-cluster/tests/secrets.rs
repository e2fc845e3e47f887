//! Secrets from a real API server; what needs a clock is beside the code.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use kube::api::DeleteParams;
use support::{allowed, belfry, cluster, objects, secret, token};

#[tokio::test]
async fn a_secret_is_remembered_until_it_is_asked_for_anew() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("secrets").await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    secret(cluster, &namespace, "chat", "first").await;

    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap().as_deref(), Some("first"));
    secret(cluster, &namespace, "chat", "second").await;
    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap().as_deref(), Some("first"));
    assert_eq!(token(&belfry, &namespace, "chat", true).await.unwrap().as_deref(), Some("second"));
    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap().as_deref(), Some("second"));

    objects(cluster, &namespace, "Secret").delete("chat", &DeleteParams::default()).await.unwrap();
    assert_eq!(token(&belfry, &namespace, "chat", true).await.unwrap(), None);
    assert_eq!(token(&belfry, &namespace, "chat", false).await.unwrap(), None);
}

#[tokio::test]
async fn a_name_leads_nowhere_but_to_that_secret() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("names").await.unwrap();
    let other = cluster.namespace("names").await.unwrap();
    secret(cluster, &other, "chat", "not yours").await;
    let belfry = belfry(cluster, &namespace).await;
    for name in [format!("../../{other}/secrets/chat"), "chat?watch=true".into(), String::new(), "..".into()] {
        assert_eq!(token(&belfry, &namespace, &name, true).await.unwrap(), None, "{name}");
    }
    // The way that the first of them would have gone is open.
    allowed(&belfry, &other).await;
    assert_eq!(token(&belfry, &other, "chat", true).await.unwrap().as_deref(), Some("not yours"));
}
