//! The metadata that a destination sees: Flux RFC-0008's four sources in their order of precedence.

use std::collections::BTreeMap;

use belfry_api::{AlertSpec, Event};

use super::ANNOTATION_PREFIX;
use crate::plan::Origin;

const ANNOTATIONS: &str = "involved object annotations";
const EVENT_METADATA: &str = "Alert object .spec.eventMetadata";
const SUMMARY: &str = "Alert object .spec.summary";
const CONTROLLER: &str = "involved object controller metadata";

/// Metadata without prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// What destinations see.
    pub metadata: BTreeMap<String, String>,
    /// Keys that more than one source gave, each with the names of its sources in rising precedence, joined by `, `.
    pub conflicts: BTreeMap<String, String>,
}

/// Combines the metadata of an event and of the Alert that selects it, lowest precedence first: the object's
/// annotations, `spec.eventMetadata`, `spec.summary`, the controller's own. What a `generic` provider passed on was
/// combined before, and counts as the controller's.
pub fn combine(event: &Event, origin: Origin, alert: &AlertSpec) -> Combined {
    let group = event.involved_object.group();
    let mut combined = Combined::default();
    let mut sources: BTreeMap<String, &'static str> = BTreeMap::new();
    let mut add = |key: &str, value: &str, source: &'static str| {
        if let Some(before) = sources.insert(key.to_owned(), source) {
            combined
                .conflicts
                .entry(key.to_owned())
                .and_modify(|names| {
                    names.push_str(", ");
                    names.push_str(source);
                })
                .or_insert_with(|| format!("{before}, {source}"));
        }
        combined.metadata.insert(key.to_owned(), value.to_owned());
    };
    if origin == Origin::Recorder {
        for (key, value) in &event.metadata {
            if let Some(key) = key.strip_prefix(ANNOTATION_PREFIX) {
                add(key, value, ANNOTATIONS);
            }
        }
    }
    for (key, value) in &alert.event_metadata {
        add(key, value, EVENT_METADATA);
    }
    if let Some(summary) = alert.summary.as_deref().filter(|summary| !summary.is_empty()) {
        add("summary", summary, SUMMARY);
    }
    for (key, value) in &event.metadata {
        let key = match origin {
            Origin::Forwarded | Origin::Observed => Some(key.as_str()),
            Origin::Recorder => key.strip_prefix(group).and_then(|key| key.strip_prefix('/')).filter(|key| passes(key)),
        };
        if let Some(key) = key {
            add(key, value, CONTROLLER);
        }
    }
    combined
}

/// Keys that are between Flux's own controllers: dropped on arrival by the peer, or after its test for repeats.
fn passes(key: &str) -> bool {
    !key.eq_ignore_ascii_case("checksum") && !key.eq_ignore_ascii_case("digest") && key != "token"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(metadata: &[(&str, &str)], alert: &[(&str, &str)], summary: Option<&str>, origin: Origin) -> Combined {
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut event = Event { metadata: pairs(metadata), ..Event::default() };
        event.involved_object.api_version = "kustomize.toolkit.fluxcd.io/v1".into();
        let alert =
            AlertSpec { event_metadata: pairs(alert), summary: summary.map(str::to_owned), ..AlertSpec::default() };
        combine(&event, origin, &alert)
    }

    #[test]
    fn the_controller_wins_over_the_alert_and_the_alert_over_annotations() {
        let all = combined(
            &[
                ("kustomize.toolkit.fluxcd.io/revision", "main@sha1:abc"),
                ("kustomize.toolkit.fluxcd.io/token", "t"),
                ("kustomize.toolkit.fluxcd.io/checksum", "c"),
                ("kustomize.toolkit.fluxcd.io/Digest", "d"),
                ("kustomize.toolkit.fluxcd.io/aa/bb", "deep"),
                ("source.toolkit.fluxcd.io/revision", "dropped"),
                ("plain", "dropped"),
                ("event.toolkit.fluxcd.io/foo", "bar"),
            ],
            &[("env", "e"), ("revision", "mine"), ("summary", "x")],
            Some("sum"),
            Origin::Recorder,
        );
        insta::assert_json_snapshot!((all.metadata, all.conflicts), @r#"
        [
          {
            "aa/bb": "deep",
            "env": "e",
            "foo": "bar",
            "revision": "main@sha1:abc",
            "summary": "sum"
          },
          {
            "revision": "Alert object .spec.eventMetadata, involved object controller metadata",
            "summary": "Alert object .spec.eventMetadata, Alert object .spec.summary"
          }
        ]
        "#);
    }

    #[test]
    fn what_was_passed_on_keeps_its_keys() {
        let all = combined(
            &[("revision", "main@sha1:abc"), ("env", "theirs"), ("change_request", "17")],
            &[("env", "ours"), ("team", "web")],
            None,
            Origin::Forwarded,
        );
        insta::assert_json_snapshot!(all.metadata, @r#"
        {
          "change_request": "17",
          "env": "theirs",
          "revision": "main@sha1:abc",
          "team": "web"
        }
        "#);
    }

    #[test]
    fn nothing_combined_is_nothing() {
        assert_eq!(combined(&[("x", "y")], &[], None, Origin::Recorder), Combined::default());
    }
}
