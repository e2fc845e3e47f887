//! What each mode says of small documents: one line for a change to a good one.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Mode, Spec, UnknownSchema,
    validate::{Problem, validate},
    vocabulary::{self, Claimed},
};

fn deployed() -> Value {
    json!({
        "context": {
            "specversion": "0.5.1", "id": "1", "source": "/flux", "type": "dev.cdevents.service.deployed.0.3.0",
            "timestamp": "2026-03-01T10:00:00Z",
        },
        "subject": {"id": "web", "content": {"environment": {"id": "prod"}, "artifactId": "pkg:oci/web@1"}},
    })
}

fn merged_in_0_4() -> Value {
    json!({
        "context": {
            "version": "0.4.1", "id": "1", "source": "/flux", "type": "dev.cdevents.change.merged.0.2.0",
            "timestamp": "2026-03-01T10:00:00Z",
        },
        "subject": {"id": "17", "type": "change", "content": {"repository": {"id": "org/fleet"}}},
    })
}

/// `-` removes, anything else is set.
fn changed(mut document: Value, pointer: &str, value: &Value) -> Value {
    let (outer, name) = pointer.rsplit_once('/').unwrap();
    let members = document.pointer_mut(outer).unwrap().as_object_mut().unwrap();
    if *value == json!("-") {
        members.remove(name);
    } else {
        members.insert(name.into(), value.clone());
    }
    document
}

fn said(document: &Value, mode: Mode) -> String {
    match validate(document, mode, UnknownSchema::Reject) {
        Ok(_) => "ok".into(),
        Err(invalid) => invalid.to_string(),
    }
}

#[test]
fn changes_to_a_good_document() {
    let table = [
        ("/context/id", json!("-")),
        ("/context/id", json!("")),
        ("/context/id", json!(7)),
        ("/context/id", json!(null)),
        ("/context/source", json!("/a b")),
        ("/context/source", json!("/a%zz")),
        ("/context/timestamp", json!("-")),
        ("/context/timestamp", json!("yesterday")),
        ("/context/timestamp", json!("2026-03-01t10:00:00+02:00")),
        ("/context/specversion", json!("99")),
        ("/context/specversion", json!("-")),
        ("/context/version", json!("0.4.1")),
        ("/context/chainId", json!("")),
        ("/context/schemaUri", json!("https://example.com/schema")),
        ("/context/links", json!({})),
        ("/context/links", json!([{"linkType": "PATH", "from": {"contextId": "x"}}])),
        ("/context/links", json!([{"linkType": "PATH"}])),
        ("/context/links", json!([{"linkType": "END"}, {"linkType": "START"}])),
        ("/context/links", json!([{"linkType": "RELATION", "linkKind": "TRIGGER", "target": {"domainId": "x"}}])),
        ("/subject/id", json!("")),
        ("/subject/source", json!("")),
        ("/subject/type", json!("service")),
        ("/subject/content", json!("-")),
        ("/subject/content", json!([])),
        ("/subject/content/artifactId", json!("ghcr.io/org/web:1")),
        ("/subject/content/artifactId", json!("")),
        ("/subject/content/environment", json!({})),
        ("/subject/content/environment", json!({"id": "prod", "name": "Production"})),
        ("/customData", json!({"any": ["thing"]})),
        ("/customData", json!("aGVsbG8=")),
        ("/customData", json!([])),
        ("/unknown", json!(1)),
        ("/context/type", json!("dev.cdevents.service.deployed.0.9.0")),
        ("/context/type", json!("dev.cdevents.Service.deployed.0.3.0")),
        ("/context/type", json!("dev.cdevents.service.deployed")),
        ("/context/type", json!("com.example.deployed")),
        ("/context/type", json!("-")),
    ];
    let lines: Vec<String> = table
        .iter()
        .map(|(pointer, value)| {
            let document = changed(deployed(), pointer, value);
            format!("{pointer}={value} | {} | {}", said(&document, Mode::Default), said(&document, Mode::Strict))
        })
        .collect();
    insta::assert_snapshot!("changes_to_a_good_document", lines.join("\n"));
}

#[test]
fn changes_to_one_of_0_4() {
    let table = [
        ("/subject/type", json!("-")),
        ("/subject/type", json!("branch")),
        ("/subject/content", json!(null)),
        ("/subject/content/repository", json!({"source": "https://example.com"})),
        ("/context/version", json!("0.3.0")),
        ("/context/gitRevision", json!("abc")),
        ("/customDataContentType", json!("application/xml")),
        ("/context/type", json!("dev.cdevents.change.merged.0.3.0")),
    ];
    let lines: Vec<String> = table
        .iter()
        .map(|(pointer, value)| {
            let document = changed(merged_in_0_4(), pointer, value);
            format!("{pointer}={value} | {} | {}", said(&document, Mode::Default), said(&document, Mode::Strict))
        })
        .collect();
    insta::assert_snapshot!("changes_to_one_of_0_4", lines.join("\n"));
}

#[test]
fn custom_data_is_what_its_content_type_says() {
    for (data, content_type, strict) in [
        (json!({"a": 1}), None, true),
        (json!({"a": 1}), Some("Application/JSON; charset=utf-8"), true),
        (json!({"a": 1}), Some("application/vnd.a+json"), true),
        (json!({"a": 1}), Some("application/xml"), false),
        (json!("PGEvPg=="), Some("application/xml"), true),
        (json!("<a/>"), Some("application/xml"), false),
        (json!("PGEvPg=="), None, false),
    ] {
        let mut document = changed(deployed(), "/customData", &data);
        if let Some(content_type) = content_type {
            document = changed(document, "/customDataContentType", &content_type.into());
        }
        assert_eq!(said(&document, Mode::Default), "ok");
        assert_eq!(said(&document, Mode::Strict) == "ok", strict, "{data} {content_type:?}");
    }
}

#[test]
fn a_schema_is_never_fetched() {
    let document = changed(deployed(), "/context/schemaUri", &json!("https://example.com/schema"));
    for mode in [Mode::Default, Mode::Strict] {
        let rejected = validate(&document, mode, UnknownSchema::Reject).unwrap_err();
        assert_eq!(rejected.path, "context.schemaUri");
        assert!(matches!(rejected.problem, Problem::UnknownSchema(_)));
        assert!(validate(&document, mode, UnknownSchema::Ignore).is_ok());
    }
}

#[test]
fn the_package_url_of_an_artifact_is_its_id() {
    let published = |id: &str| {
        let document = changed(deployed(), "/context/type", &json!("dev.cdevents.artifact.published.0.3.0"));
        changed(changed(document, "/subject/content", &json!({})), "/subject/id", &json!(id))
    };
    assert_eq!(said(&published("pkg:oci/web@1"), Mode::Strict), "ok");
    assert_eq!(said(&published("web"), Mode::Default), "ok");
    assert!(said(&published("web"), Mode::Strict).starts_with("subject.id: must be a package URL"));
}

#[test]
fn the_type_selects_the_version_of_the_spec() {
    let of = |event_type: &str, version: Option<&str>, specversion: Option<&str>| {
        vocabulary::rules(event_type, Claimed { version, specversion }).map(|rules| rules.spec)
    };
    for (event_type, version, specversion, expected) in [
        ("dev.cdevents.change.merged.0.1.2", Some("9"), None, Some(Spec::V0_3)),
        ("dev.cdevents.change.merged.0.2.0", None, Some("0.5.1"), Some(Spec::V0_4)),
        ("dev.cdevents.change.merged.0.3.0", Some("0.4.1"), None, Some(Spec::V0_5)),
        ("dev.cdevents.change.merged.0.3.0", None, Some("0.6.0-draft"), Some(Spec::V0_6)),
        ("dev.cdevents.change.created.0.3.0", None, None, Some(Spec::V0_4)),
        ("dev.cdevents.approval.created.0.1.0", None, None, Some(Spec::V0_6)),
        ("dev.cdeventsx.k8s-thing.done.0.1.0", Some("0.4.1"), None, Some(Spec::V0_4)),
        ("dev.cdeventsx.k8s-Thing.done.0.1.0", None, Some("0.5.0"), Some(Spec::V0_5)),
        ("dev.cdeventsx.k8s-thing.done.0.10.0", None, None, None),
        ("dev.cdeventsx.k8s.done.0.1.0", None, None, None),
        ("dev.cdeventsx.k8s-thing2.done.0.1.0", None, None, None),
        ("dev.cdeventsx.k8s-thing.done.0.1.0.0", None, None, None),
        ("dev.cdevents.change.merged.0.1.0", None, None, None),
        ("", None, None, None),
    ] {
        assert_eq!(of(event_type, version, specversion), expected, "{event_type}");
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,9}".prop_map(Value::from),
        Just(json!("dev.cdevents.change.merged.0.3.0")),
    ];
    let names = prop_oneof![
        proptest::sample::select(vec!["context", "subject", "type", "id", "links", "content", "customData", "from"])
            .prop_map(str::to_owned),
        ".{0,4}",
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_document_holds_the_answer_is_short(value in values(), at in 0usize..6) {
        let pointers = ["/context", "/context/type", "/context/links", "/subject", "/subject/content", "/customData"];
        for document in [value.clone(), changed(deployed(), pointers[at], &value)] {
            for mode in [Mode::Default, Mode::Strict] {
                if let Err(invalid) = validate(&document, mode, UnknownSchema::Ignore) {
                    prop_assert!(invalid.to_string().len() < 2000);
                }
            }
        }
    }

    #[test]
    fn what_is_strictly_valid_is_valid(value in values(), at in 0usize..4) {
        let pointers = ["/context/links", "/subject/content/environment", "/subject/id", "/customData"];
        let document = changed(deployed(), pointers[at], &value);
        if validate(&document, Mode::Strict, UnknownSchema::Ignore).is_ok() {
            prop_assert_eq!(said(&document, Mode::Default), "ok");
        }
    }
}
