//! A document with everything that the table knows of an event, for every event in every version: strictly valid, and
//! read by the crate of the CDEvents project.

use serde_json::{Map, Value, json};

use crate::{
    Mode, Spec, UnknownSchema,
    format::Format,
    validate::validate,
    vocabulary::{Field, Kind, full_type, table},
};

fn sample(kind: Kind, spec: Spec) -> Value {
    match kind {
        Kind::Text | Kind::Filled | Kind::SubjectId => json!("pkg:oci/web@1"),
        Kind::Artifact { .. } => json!("pkg:oci/web@1"),
        Kind::Formatted { format: Format::DateTime, .. } => json!("2026-03-01T10:00:00Z"),
        Kind::Formatted { .. } => json!("https://example.com/a"),
        Kind::OneOf(words) => words[0].into(),
        Kind::Texts => json!(["a", "b"]),
        Kind::Object(members) | Kind::Open(members) => object(members, spec, true).into(),
        Kind::LinkEnd { .. } => json!({"contextId": "a"}),
        Kind::Links => {
            let link = |(name, members): &(&str, &'static [Field])| {
                let mut link = object(members, spec, true);
                link.insert("linkType".into(), (*name).into());
                Value::from(link)
            };
            table::LINKS.iter().map(link).collect()
        }
        Kind::Context | Kind::Subject | Kind::Content | Kind::EventType | Kind::SubjectType | Kind::CustomData => {
            unreachable!("these are put together by hand")
        }
    }
}

/// An object with all of its members, or only with those that it must have.
fn object(members: &'static [Field], spec: Spec, whole: bool) -> Map<String, Value> {
    let made = members.iter().filter(|field| field.is_in(spec) && (whole || field.required));
    made.map(|field| (field.name.to_owned(), sample(field.kind, spec))).collect()
}

fn documents(whole: bool) -> Vec<(Spec, Value)> {
    let mut all = Vec::new();
    for spec in Spec::ALL {
        let events =
            table::SUBJECTS.iter().flat_map(|subject| subject.events.iter().map(move |event| (subject, event)));
        for (subject, event) in events {
            let name = subject.name.to_ascii_lowercase();
            let Some(event_type) = full_type(&name, event.predicate, spec) else { continue };
            let plain: Map<_, _> = table::CONTEXT
                .iter()
                .filter(|field| field.is_in(spec) && (whole || field.required) && field.name != "type")
                .filter(|field| field.name != "schemaUri")
                .map(|field| (field.name.to_owned(), sample(field.kind, spec)))
                .collect();
            let mut document = json!({
                "context": plain,
                "subject": {"id": "pkg:oci/web@1", "content": object(event.content, spec, whole)},
            });
            document["context"]["type"] = event_type.into();
            document["context"]["source"] = "/a".into();
            document["context"][spec.version_field()] = spec.as_str().into();
            if spec.has_subject_type() {
                document["subject"]["type"] = subject.name.into();
            }
            if whole {
                document["subject"]["source"] = "/a".into();
                document["customData"] = json!({"a": 1});
            }
            all.push((spec, document));
        }
    }
    all
}

#[test]
fn every_event_of_the_table_is_valid_and_read_by_others() {
    let documents: Vec<_> = [true, false].into_iter().flat_map(documents).collect();
    assert_eq!(documents.len(), 2 * (39 + 45 + 45 + 48));
    for (spec, document) in documents {
        for mode in [Mode::Strict, Mode::Default] {
            let valid =
                validate(&document, mode, UnknownSchema::Reject).unwrap_or_else(|e| panic!("{e}\n{document:#}"));
            assert_eq!(valid.rules.spec, spec, "{document:#}");
        }
        let read: Result<cdevents_sdk::CDEvent, _> = serde_json::from_value(document.clone());
        assert!(read.is_ok(), "{read:?}\n{document:#}");
    }
}

#[test]
fn what_an_event_must_have_it_must_have() {
    for (_, document) in documents(false) {
        let content = document["subject"]["content"].as_object().unwrap().clone();
        for name in content.keys() {
            let mut less = document.clone();
            less["subject"]["content"].as_object_mut().unwrap().remove(name);
            let invalid = validate(&less, Mode::Strict, UnknownSchema::Reject).unwrap_err();
            assert_eq!(invalid.path, format!("subject.content.{name}"));
        }
    }
}
