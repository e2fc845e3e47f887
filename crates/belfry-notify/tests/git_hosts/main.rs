//! Git hosts over real sockets, against a host that keeps the promises of their APIs: credentials, limits, pages,
//! conflicts, and statuses that can't be changed any more.
#![allow(clippy::unwrap_used, reason = "a test that can't go on may as well panic")]

mod apps;
mod comments;
mod forges;
mod host;
mod states;
mod statuses;
mod tls;

use std::sync::Arc;

use belfry_api::{Event, LocalObjectReference, ObjectReference, ProviderSpec};
use belfry_core::{
    ConfigKey, ObjectKey, Seq,
    notification::{Failure, Notification, Outcome, Recorded},
    secret::SecretData,
};
use belfry_http::{Clients, Environment};
use belfry_notify::{Notifier, Settings, build};

/// The commit that events are about.
const SHA: &str = "5394cb7f48332b2de7c17dd8b8384bbc84b7e738";

/// An event of a Kustomization that says how a commit fares.
fn event(severity: &str, reason: &str) -> Notification {
    let pairs = [("revision", format!("main@sha1:{SHA}")), ("commit_status", "update".into())];
    let event = Event {
        involved_object: ObjectReference {
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "app".into(),
            ..ObjectReference::default()
        },
        severity: severity.into(),
        message: "message".into(),
        reason: reason.into(),
        metadata: pairs.map(|(key, value)| (key.to_owned(), value)).into(),
        reporting_controller: "kustomize-controller".into(),
        ..Event::default()
    };
    Notification {
        event,
        object: ObjectKey::default(),
        seq: Seq(1),
        delivery: 1,
        alert: ConfigKey::alert("apps", "alert"),
        alert_uid: "".into(),
        provider_uid: "0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a".into(),
        source: None,
        change: None,
        memo: Vec::new(),
        commit_status_id: None,
        recorded: Recorded::default(),
    }
}

/// The notifier of a Provider.
fn notifier(type_: &str, address: &str, secret: &[(&str, &str)]) -> Notifier {
    with_settings(type_, address, secret, |settings, clients| build(settings, clients).unwrap())
}

/// What a Provider gives, with connections of its own.
fn with_settings<T>(
    type_: &str,
    address: &str,
    secret: &[(&str, &str)],
    then: impl FnOnce(&Settings<'_>, &Arc<Clients>) -> T,
) -> T {
    let secret: SecretData = secret.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
    let spec = spec(type_, address);
    with_spec(&spec, &secret, then)
}

fn spec(type_: &str, address: &str) -> ProviderSpec {
    ProviderSpec {
        type_: type_.into(),
        address: Some(address.into()),
        secret_ref: Some(LocalObjectReference { name: "creds".into() }),
        timeout: Some("5s".into()),
        ..ProviderSpec::default()
    }
}

fn with_spec<T>(spec: &ProviderSpec, secret: &SecretData, then: impl FnOnce(&Settings<'_>, &Arc<Clients>) -> T) -> T {
    let provider = ConfigKey::provider("apps", "hub");
    let settings = Settings {
        provider: &provider,
        spec,
        secret: Some(secret),
        proxy_secret: None,
        cert_secret: None,
        cluster: "",
    };
    then(&settings, &Arc::new(Clients::with_environment(Environment::default())))
}

async fn send(notifier: &Notifier, notification: &Notification) -> Outcome {
    notifier.send(notification).await.outcome
}

fn retry(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Retry(failure) => failure,
        other => panic!("{other:?}"),
    }
}
