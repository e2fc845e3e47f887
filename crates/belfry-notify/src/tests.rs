//! Shared by the tests of this crate, and the harness that runs over every provider type.

mod leaks;
mod peer;
pub(crate) mod script;
mod sending;
mod settings;
mod snapshots;
mod states;

use std::sync::Arc;

use belfry_api::{Event, LocalObjectReference, ObjectReference, ProviderSpec};
use belfry_core::{
    ConfigKey, Seq, Time,
    notification::{Notification, Recorded},
    passed::Passed,
    plan::Origin,
    secret::SecretData,
};
use belfry_http::{Clients, Environment, HeaderMap, Response, StatusCode};

use crate::{Misconfigured, Notifier, Settings, StatusNotifier, build};

thread_local! {
    /// One for each test: connections belong to its runtime.
    static CLIENTS: Arc<Clients> = Arc::new(Clients::with_environment(Environment::default()));
}

/// The UID of the Provider in what was recorded of the peer.
const PROVIDER_UID: &str = "0c9c2e41-d2f9-4f9b-9c41-bebc1984d67a";

/// An answer with a body.
pub(crate) fn answer(status: u16, body: &str) -> Response {
    Response {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
        complete: true,
        retry_after: None,
    }
}

/// The event that what was recorded of the peer is about.
pub(crate) fn probe(severity: &str) -> Notification {
    let text = str::to_owned;
    let event = Event {
        involved_object: ObjectReference {
            kind: text("Kustomization"),
            namespace: text("apps"),
            name: text("app"),
            uid: text("7d0cdc51-ddcf-4743-b223-83ca5c699632"),
            api_version: text("kustomize.toolkit.fluxcd.io/v1"),
            resource_version: text("123"),
            ..ObjectReference::default()
        },
        severity: text(severity),
        timestamp: jiff::Timestamp::from_second(1_664_520_029).ok(),
        message: text("line1 <b>&x</b>\nline2"),
        reason: text("HealthCheckFailed"),
        metadata: [
            (text("revision"), text("main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738")),
            (text("summary"), text("sum:mary")),
        ]
        .into(),
        reporting_controller: text("kustomize-controller"),
        reporting_instance: text("kustomize-controller-abc"),
        ..Event::default()
    };
    Notification {
        object: belfry_core::event::object(&event, ""),
        event,
        seq: Seq(1),
        delivery: 1,
        alert: ConfigKey::alert("ns", "al"),
        alert_uid: "aaaa-bbbb".into(),
        provider_uid: PROVIDER_UID.into(),
        source: None,
        change: None,
        memo: Vec::new(),
        commit_status_id: None,
        recorded: recorded(),
    }
}

/// It as a Belfry passes it on.
fn recorded() -> Recorded {
    let via = vec!["5f2d8c01aa".to_owned(), "9b1e77c4d0".to_owned()];
    Recorded {
        id: "9b1e77c4d0-1767323045000001".into(),
        body: br#"{"involvedObject" : {"kind":"Kustomization"},"x":1}"#.as_slice().into(),
        passed: Passed { form: Some(Origin::Recorder), via, ..Passed::default() },
        at: Time(1_767_323_045_999_999),
    }
}

/// The same event with what makes it one for this type of Provider.
pub(crate) fn probe_for(type_: &str, severity: &str) -> Notification {
    let mut notification = probe(severity);
    let metadata = &mut notification.event.metadata;
    if type_.ends_with("comment") {
        metadata.insert("change_request".into(), "42".into());
    } else if crate::registry::is_git(type_) && type_ != "githubdispatch" {
        metadata.insert("commit_status".into(), "update".into());
    } else if type_ == "cdevents" && severity == "info" {
        metadata.insert("commit_status".into(), "update".into());
        notification.event.reason = "ReconciliationSucceeded".into();
    }
    notification
}

/// A Secret.
pub(crate) fn secret(pairs: &[(&str, &str)]) -> SecretData {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

/// A Provider and what it names.
#[derive(Clone, Default)]
pub(crate) struct Case {
    pub(crate) spec: ProviderSpec,
    pub(crate) secret: Option<SecretData>,
    pub(crate) proxy_secret: Option<SecretData>,
    pub(crate) cert_secret: Option<SecretData>,
}

impl Case {
    pub(crate) fn new(type_: &str, address: &str) -> Self {
        let address = (!address.is_empty()).then(|| address.to_owned());
        Self { spec: ProviderSpec { type_: type_.to_owned(), address, ..ProviderSpec::default() }, ..Self::default() }
    }

    pub(crate) fn channel(mut self, channel: &str) -> Self {
        self.spec.channel = Some(channel.to_owned());
        self
    }

    pub(crate) fn username(mut self, username: &str) -> Self {
        self.spec.username = Some(username.to_owned());
        self
    }

    pub(crate) fn secret(mut self, pairs: &[(&str, &str)]) -> Self {
        self.spec.secret_ref = Some(LocalObjectReference { name: "creds".into() });
        self.secret = Some(secret(pairs));
        self
    }

    pub(crate) fn proxy_secret(mut self, pairs: &[(&str, &str)]) -> Self {
        self.spec.proxy_secret_ref = Some(LocalObjectReference { name: "proxy".into() });
        self.proxy_secret = Some(secret(pairs));
        self
    }

    pub(crate) fn cert_secret(mut self, pairs: &[(&str, &str)]) -> Self {
        self.spec.cert_secret_ref = Some(LocalObjectReference { name: "tls".into() });
        self.cert_secret = Some(secret(pairs));
        self
    }

    pub(crate) fn build(&self) -> Result<Notifier, Misconfigured> {
        self.with_settings(|settings| CLIENTS.with(|clients| build(settings, clients)))
    }

    pub(crate) fn status_notifier(&self) -> Result<StatusNotifier, Misconfigured> {
        self.with_settings(|settings| CLIENTS.with(|clients| StatusNotifier::new(settings, clients)))
    }

    pub(crate) fn with_settings<T>(&self, then: impl FnOnce(&Settings<'_>) -> T) -> T {
        let provider = ConfigKey::provider("apps", "p");
        let settings = Settings {
            provider: &provider,
            spec: &self.spec,
            secret: self.secret.as_ref(),
            proxy_secret: self.proxy_secret.as_ref(),
            cert_secret: self.cert_secret.as_ref(),
            cluster: "prod-eu",
        };
        then(&settings)
    }
}
