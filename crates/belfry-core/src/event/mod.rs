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
    revision::Revision,
    rollout::{self, Details, Hints},
};

/// Prefix of metadata that Flux copies from annotations of the object.
pub const ANNOTATION_PREFIX: &str = "event.toolkit.fluxcd.io/";

/// The value that the emitting controller gave for a key, such as `revision`, whatever form the metadata has.
pub fn controller_value<'a>(event: &'a Event, origin: Origin, key: &str) -> Option<&'a str> {
    let metadata = &event.metadata;
    match origin {
        Origin::Forwarded | Origin::Observed => metadata.get(key),
        Origin::Recorder => metadata.get(&format!("{}/{key}", event.involved_object.group())),
    }
    .map(String::as_str)
}

/// Whether metadata keys carry the prefix that a controller's recorder gives them, and a `generic` provider takes away.
pub fn has_prefixes(event: &Event) -> bool {
    let group = event.involved_object.group();
    let prefixed = |key: &String| key.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'));
    !group.is_empty() && event.metadata.keys().any(prefixed)
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
    let object = object(event, cluster);
    let named = Named::of(event, origin);
    let has_rollouts = rollout::has_rollouts(&object.group, &object.kind);
    Candidate {
        origin,
        severity: event.severity.clone(),
        reason: event.reason.clone(),
        revision: named.revision.map(str::to_owned),
        commit: named.commit().map(str::to_owned),
        updates_commit_status: named.commit_status == Some("update"),
        rollout: has_rollouts.then(|| Box::new(named.details(event))),
        dedupe: hash(repeat_key(event, &named, cluster).as_bytes()),
        body_hash: body_hash(cluster, &body),
        sent: None,
        body,
        routes,
        object,
    }
}

/// What the metadata says under the keys that Belfry's rules know; found in one pass, for every event takes it.
#[derive(Default)]
struct Named<'a> {
    revision: Option<&'a str>,
    origin_revision: Option<&'a str>,
    commit: Option<&'a str>,
    /// The same from an annotation of the object, which counts less.
    annotated_commit: Option<&'a str>,
    commit_status: Option<&'a str>,
    token: Option<&'a str>,
    oci_digest: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn of(event: &'a Event, origin: Origin) -> Self {
        let group = event.involved_object.group();
        let mut named = Self::default();
        for (key, value) in &event.metadata {
            let own = match origin {
                Origin::Recorder => key.strip_prefix(group).and_then(|key| key.strip_prefix('/')),
                Origin::Forwarded | Origin::Observed => Some(key.as_str()),
            };
            let slot = match own {
                Some("revision") => &mut named.revision,
                Some("originRevision") => &mut named.origin_revision,
                Some("commit") => &mut named.commit,
                Some("commit_status") => &mut named.commit_status,
                Some("token") => &mut named.token,
                Some("oci-digest") => &mut named.oci_digest,
                None if key.strip_prefix(ANNOTATION_PREFIX) == Some("commit") => &mut named.annotated_commit,
                _ => continue,
            };
            *slot = Some(value);
        }
        named
    }

    /// The hash in the first of `commit`, `originRevision`, `revision` that holds one.
    fn commit(&self) -> Option<&'a str> {
        let texts = [self.commit.or(self.annotated_commit), self.origin_revision, self.revision];
        texts.into_iter().flatten().find_map(|text| Revision::parse(text).whole_hash())
    }

    fn details(&self, event: &Event) -> Details {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Details {
            uid: event.involved_object.uid.clone(),
            message: rollout::cut(&event.message, rollout::MESSAGE),
            timestamp: event.timestamp.map(|at| at.as_second()),
            origin_revision: owned(self.origin_revision),
            token: owned(self.token),
            oci_digest: owned(self.oci_digest),
            hints: Hints::default(),
        }
    }
}

/// The peer's key (its parts joined by `/`), followed by what it leaves out: severity, reason and cluster.
fn repeat_key(event: &Event, named: &Named<'_>, cluster: &str) -> String {
    let mut key = peer_key(event, named);
    let _ = write!(key, "/severity={}/reason={}/cluster={cluster}", event.severity, event.reason);
    key
}

fn peer_key(event: &Event, named: &Named<'_>) -> String {
    let object = &event.involved_object;
    let mut key = format!(
        "event/name={}/namespace={}/kind={}/message={}",
        object.name, object.namespace, object.kind, event.message
    );
    let parts = [("originRevision", named.origin_revision), ("revision", named.revision), ("token", named.token)];
    for (part, value) in parts {
        if let Some(value) = value {
            let _ = write!(key, "/{part}={value}");
        }
    }
    key
}

fn hash(bytes: &[u8]) -> u64 {
    short(Sha256::digest(bytes).as_slice())
}

/// The same bytes from another cluster are another event.
fn body_hash(cluster: &str, body: &[u8]) -> u64 {
    if cluster.is_empty() {
        return hash(body);
    }
    let parts = Sha256::new().chain_update(cluster).chain_update([0]).chain_update(body);
    short(parts.finalize().as_slice())
}

fn short(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
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
            let event = event(metadata);
            let digest = Sha256::digest(peer_key(&event, &Named::of(&event, origin)));
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

    #[test]
    fn the_same_bytes_of_two_clusters_are_two_events() {
        let hash = |cluster, body: &'static str| {
            candidate(&event("null"), Origin::Recorder, cluster, Bytes::from_static(body.as_bytes()), Vec::new())
                .body_hash
        };
        assert_eq!(hash("eu", "{}"), hash("eu", "{}"));
        for (cluster, body) in [("", "{}"), ("us", "{}"), ("eu", "{ }"), ("e", "u{}")] {
            assert_ne!(hash("eu", "{}"), hash(cluster, body), "{cluster} {body}");
        }
    }

    #[test]
    fn only_prefixes_of_its_own_group_tell_an_event_of_a_recorder() {
        for (metadata, expected) in [
            ("null", false),
            (r#"{"revision":"r"}"#, false),
            (r#"{"kustomize.toolkit.fluxcd.io/revision":"r"}"#, true),
            (r#"{"event.toolkit.fluxcd.io/team":"web"}"#, false),
            (r#"{"kustomize.toolkit.fluxcd.io.evil/revision":"r"}"#, false),
        ] {
            assert_eq!(has_prefixes(&event(metadata)), expected, "{metadata}");
        }
        let unnamed = read(br#"{"metadata":{"/revision":"r"}}"#).unwrap();
        assert!(!has_prefixes(&unnamed));
    }

    #[test]
    fn what_a_rollout_needs_is_found_in_either_form() {
        let (commit, digest) = ("a".repeat(40), "b".repeat(64));
        let recorded = event(&format!(
            r#"{{"kustomize.toolkit.fluxcd.io/revision":"latest@sha256:{digest}",
                "kustomize.toolkit.fluxcd.io/originRevision":"main@sha1:{commit}","kustomize.toolkit.fluxcd.io/token":"t",
                "kustomize.toolkit.fluxcd.io/oci-digest":"d","source.toolkit.fluxcd.io/revision":"not its own",
                "event.toolkit.fluxcd.io/revision":"an annotation's","revision":"no prefix"}}"#
        ));
        let candidate = |event: &Event, origin| candidate(event, origin, "", Bytes::new(), Vec::new());
        let taken = candidate(&recorded, Origin::Recorder);
        assert_eq!(taken.revision, Some(format!("latest@sha256:{digest}")));
        assert_eq!(taken.commit.as_deref(), Some(&*commit));
        let details = taken.rollout.unwrap();
        assert_eq!(details.origin_revision, Some(format!("main@sha1:{commit}")));
        assert_eq!((details.token.as_deref(), details.oci_digest.as_deref()), (Some("t"), Some("d")));
        let own = "c".repeat(40);
        for (metadata, origin, expected) in [
            (format!(r#"{{"commit":"{own}","originRevision":"main@sha1:{commit}"}}"#), Origin::Forwarded, &own),
            (
                format!(
                    r#"{{"event.toolkit.fluxcd.io/commit":"{own}",
                    "kustomize.toolkit.fluxcd.io/revision":"main@sha1:{commit}"}}"#
                ),
                Origin::Recorder,
                &own,
            ),
            (
                format!(
                    r#"{{"event.toolkit.fluxcd.io/commit":"{own}","kustomize.toolkit.fluxcd.io/commit":"{commit}"}}"#
                ),
                Origin::Recorder,
                &commit,
            ),
        ] {
            let commit = candidate(&event(&metadata), origin).commit;
            assert_eq!(commit.as_ref(), Some(expected), "{metadata}");
        }
        let mut source = event("null");
        source.involved_object.kind = "GitRepository".into();
        source.involved_object.api_version = "source.toolkit.fluxcd.io/v1".into();
        assert!(candidate(&source, Origin::Recorder).rollout.is_none());
    }
}
