//! The Receiver's CRD says what the peer's says, and its types read what users write.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use belfry_api::{CdEventsSchema, CdEventsValidation, ReceiverSpec, ReceiverStatus, receiver_crd};
use serde_json::{Value, json};

/// What ours has and the peer's lacks.
const ALLOWED_DIFFERENCES: &[&str] = &["/properties/spec/properties/cdevents"];

/// Takes out what may differ from the peer's: descriptions, and the order of what is required.
fn normal(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("description");
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.sort_by_key(Value::to_string);
    }
    for word in ["items", "additionalProperties"] {
        map.get_mut(word).into_iter().for_each(normal);
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    properties.into_iter().flat_map(|properties| properties.values_mut()).for_each(normal);
}

fn compare(path: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(our_map), Value::Object(their_map)) => {
            let keys: BTreeSet<&String> = our_map.keys().chain(their_map.keys()).collect();
            keys.into_iter().for_each(|key| compare(&format!("{path}/{key}"), &ours[key], &theirs[key], differences));
        }
        _ if ours != theirs => differences.push(path.to_owned()),
        _ => {}
    }
}

#[test]
fn it_is_the_peers_with_one_more_field() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/crds/notification.toolkit.fluxcd.io_receivers.yaml");
    let Ok(text) = fs::read_to_string(&path) else {
        println!("SKIPPED: {} is not there to compare with", path.display());
        return;
    };
    let (ours, theirs) = (receiver_crd(), serde_saphyr::from_multiple::<Value>(&text).unwrap().remove(0));
    let version = |crd: &Value| {
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array).unwrap().clone();
        assert_eq!(versions.len(), 1);
        versions[0].clone()
    };
    let (our_version, their_version) = (version(&ours), version(&theirs));
    let schema = |version: &Value| {
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        normal(&mut schema);
        schema
    };
    let mut differences = Vec::new();
    compare("", &schema(&our_version), &schema(&their_version), &mut differences);
    assert_eq!(differences, ALLOWED_DIFFERENCES);
    for field in ["name", "additionalPrinterColumns", "served", "storage", "subresources"] {
        assert_eq!(our_version[field], their_version[field], "{field}");
    }
    for field in ["/spec/group", "/spec/names", "/spec/scope", "/metadata/name"] {
        assert_eq!(ours.pointer(field), theirs.pointer(field), "{field}");
    }
}

#[test]
fn every_schema_has_one_type_and_a_description() {
    fn walk(path: &str, schema: &Value) {
        assert!(schema["type"].is_string(), "{path} has no type");
        for word in ["x-kubernetes-preserve-unknown-fields", "$ref", "nullable", "anyOf", "oneOf"] {
            assert!(schema.get(word).is_none(), "{path} has {word}");
        }
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            assert!(name == "metadata" || inner["description"].is_string(), "{path}.{name} has no description");
            walk(&format!("{path}.{name}"), inner);
        }
        for word in ["items", "additionalProperties"] {
            schema.get(word).into_iter().for_each(|inner| walk(&format!("{path}.{word}"), inner));
        }
    }
    walk("", receiver_crd().pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap());
}

#[test]
fn what_users_write_is_read() {
    let spec: ReceiverSpec = serde_json::from_value(json!({
        "type": "cdevents",
        "events": ["dev.cdevents.change.merged"],
        "secretRef": { "name": "hook" },
        "resourceFilter": "true",
        "resources": [{ "kind": "GitRepository", "name": "*", "matchLabels": { "app": "podinfo" }, "filter": "false" }],
        "cdevents": { "validation": "strict" },
    }))
    .unwrap();
    assert_eq!(spec.interval, "10m");
    assert_eq!(spec.resources[0].filter.as_deref(), Some("false"));
    let cdevents = spec.cdevents.unwrap();
    assert_eq!((cdevents.validation, cdevents.unknown_schema), (CdEventsValidation::Strict, CdEventsSchema::Reject));

    let oidc: ReceiverSpec = serde_json::from_value(json!({
        "type": "generic-oidc",
        "resources": [],
        "oidcProviders": [
            { "issuerURL": "https://issuer.example", "validations": [{ "expression": "true", "message": "m" }] },
        ],
    }))
    .unwrap();
    assert_eq!(oidc.oidc_providers[0].audience(), "notification-controller");
    let written = serde_json::to_value(&oidc).unwrap();
    assert_eq!(written["oidcProviders"][0]["issuerURL"], "https://issuer.example");
    assert!(written.get("secretRef").is_none() && written.get("suspend").is_none());

    let status: ReceiverStatus = serde_json::from_value(json!({ "observedGeneration": -1 })).unwrap();
    assert_eq!(status, ReceiverStatus { observed_generation: Some(-1), ..ReceiverStatus::default() });
}
