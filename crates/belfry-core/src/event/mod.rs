//! Events as values: reading what was posted, what its metadata says, and under which key it counts as a repeat.

mod metadata;
mod read;

use std::fmt::Write as _;

use belfry_api::Event;
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use metadata::{Combined, combine};
pub use read::{BadEvent, read};

use crate::{
    ObjectKey,
    plan::{Candidate, Origin, RouteRef},
};

/// Prefix of metadata that Flux copies from annotations of the object.
pub const ANNOTATION_PREFIX: &str = "event.toolkit.fluxcd.io/";

/// The value that the emitting controller gave for a key, such as `revision`, whatever form the metadata has.
pub fn controller_value<'a>(event: &'a Event, origin: Origin, key: &str) -> Option<&'a str> {
    let metadata = &event.metadata;
    match origin {
        Origin::Forwarded => metadata.get(key),
        Origin::Recorder => metadata.get(&format!("{}/{key}", event.involved_object.group())),
    }
    .map(String::as_str)
}

/// Whether the event is a Kustomization's "update the commit status" success.
pub fn updates_commit_status(event: &Event, origin: Origin) -> bool {
    controller_value(event, origin, "commit_status") == Some("update")
}

/// The object that an event is about. `cluster` is Belfry's own name for where it came from.
pub fn object(event: &Event, cluster: &str) -> ObjectKey {
    let object = &event.involved_object;
    ObjectKey {
        cluster: cluster.to_owned(),
        group: object.group().to_owned(),
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
}

/// An event that was read, with the routes that it may take, as the store takes it in.
pub fn candidate(event: &Event, origin: Origin, cluster: &str, body: Bytes, routes: Vec<RouteRef>) -> Candidate {
    Candidate {
        object: object(event, cluster),
        origin,
        severity: event.severity.clone(),
        reason: event.reason.clone(),
        revision: controller_value(event, origin, "revision").map(str::to_owned),
        updates_commit_status: updates_commit_status(event, origin),
        dedupe: hash(repeat_key(event, origin, cluster).as_bytes()),
        body_hash: hash(&body),
        body,
        routes,
    }
}

/// The peer's key (its parts joined by `/`), followed by what it leaves out: severity, reason and cluster.
fn repeat_key(event: &Event, origin: Origin, cluster: &str) -> String {
    let mut key = peer_key(event, origin);
    let _ = write!(key, "/severity={}/reason={}/cluster={cluster}", event.severity, event.reason);
    key
}

fn peer_key(event: &Event, origin: Origin) -> String {
    let object = &event.involved_object;
    let mut key = format!(
        "event/name={}/namespace={}/kind={}/message={}",
        object.name, object.namespace, object.kind, event.message
    );
    for part in ["originRevision", "revision", "token"] {
        if let Some(value) = controller_value(event, origin, part) {
            let _ = write!(key, "/{part}={value}");
        }
    }
    key
}

fn hash(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(metadata: &str) -> Event {
        let body = format!(
            r#"{{"involvedObject":{{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","name":"n","namespace":"ns"}},
                "severity":"info","message":"msg","metadata":{metadata}}}"#
        );
        read(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_peers_repeat_keys() {
        let prefixed = r#"{"kustomize.toolkit.fluxcd.io/originRevision":"o","kustomize.toolkit.fluxcd.io/revision":"r",
            "kustomize.toolkit.fluxcd.io/token":"t","kustomize.toolkit.fluxcd.io/digest":"d","revision":"x"}"#;
        let table = [
            ("null", Origin::Recorder, "1ff27bf725f012fe0a95385c37c4ceb059f489b4a09a01b8794b75161694f217"),
            (
                r#"{"revision":"r"}"#,
                Origin::Forwarded,
                "8d47a2258c10d6604e3815362480e607cce584a278eda324ac9eb7138148f400",
            ),
            (prefixed, Origin::Recorder, "2366becf201a26d5598f1ef719b341d038c04f63cc1c8edd15d2a11552a93107"),
        ];
        for (metadata, origin, expected) in table {
            let digest = Sha256::digest(peer_key(&event(metadata), origin));
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{metadata}");
        }
    }

    #[test]
    fn severity_reason_and_cluster_are_part_of_our_key() {
        let plain = event("null");
        let failed = Event { severity: "error".into(), ..plain.clone() };
        let other_reason = Event { reason: "BuildFailed".into(), ..plain.clone() };
        let key = |event, cluster| candidate(event, Origin::Recorder, cluster, Bytes::new(), Vec::new()).dedupe;
        let keys = [key(&plain, ""), key(&failed, ""), key(&other_reason, ""), key(&plain, "prod")];
        for (i, one) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(one));
        }
    }
}
