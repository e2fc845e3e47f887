//! The generated CRDs: that the files in `config/crd` are up to date, and that they say what the peer's say.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{fs, path::PathBuf};

use belfry_api::crds;
use serde_json::Value;

fn name(crd: &Value) -> String {
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    format!("{}_{}.yaml", text("/spec/group"), text("/spec/names/plural"))
}

fn file(folder: &str, crd: &Value) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder).join(name(crd))
}

/// The CRD as YAML, as `kubectl apply` takes it.
fn yaml(crd: &Value) -> String {
    format!("---\n{}", serde_saphyr::to_string(crd).unwrap())
}

#[test]
fn crds_in_the_folder_are_up_to_date() {
    for crd in crds() {
        let (path, expected) = (file("config/crd", &crd), yaml(&crd));
        assert_eq!(serde_saphyr::from_str::<Value>(&expected).unwrap(), crd, "written and read again");
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "{} is out of date: run this test with UPDATE=1", path.display());
    }
}

/// Calls `visit` with every schema and its path, in order.
fn schemas(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    for (name, inner) in properties {
        schemas(inner, &format!("{path}.{name}"), visit);
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(word) {
            schemas(inner, &format!("{path}.{word}"), visit);
        }
    }
}

fn version<'c>(crd: &'c Value, name: &str) -> &'c Value {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array).unwrap();
    versions.iter().find(|version| version["name"] == name).unwrap()
}

/// The name of the version that is stored.
fn stored(crd: &Value) -> &str {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array).unwrap();
    versions.iter().find(|version| version["storage"] == true).unwrap()["name"].as_str().unwrap()
}

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

/// What ours have and the peer's lack.
fn is_allowed(difference: &str) -> bool {
    [
        // Belfry keeps trying for hours: how long is worth it is the Alert's to say.
        "/properties/spec/properties/maxAge: ",
        // A type of Provider that the peer doesn't have.
        "/properties/spec/properties/cdevents: ",
        // A choice that the peer doesn't give.
        "/properties/spec/properties/comment: ",
        "/properties/spec/properties/type/enum",
        // Another cluster than the local one.
        "/properties/spec/properties/eventSources/items/properties/cluster: ",
    ]
    .iter()
    .any(|allowed| difference.starts_with(allowed))
}

#[test]
fn the_stored_version_is_the_peers() {
    for ours in crds() {
        let path = file("../shared/data/crds", &ours);
        let Ok(text) = fs::read_to_string(&path) else {
            println!("SKIPPED: {} is not there to compare with", path.display());
            continue;
        };
        let theirs: Value = serde_saphyr::from_multiple(&text).unwrap().remove(0);
        let stored = stored(&ours);
        let (our_version, their_version) = (version(&ours, stored), version(&theirs, stored));
        let schema = |version: &Value| {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            normal(&mut schema);
            schema
        };
        let mut differences = Vec::new();
        compare("", &schema(our_version), &schema(their_version), &mut differences);
        differences.retain(|difference| !is_allowed(difference));
        assert_eq!(differences, [""; 0], "{}", name(&ours));

        for field in ["additionalPrinterColumns", "served", "storage", "subresources"] {
            assert_eq!(our_version[field], their_version[field], "{field}");
        }
        for field in ["/spec/group", "/spec/names", "/spec/scope", "/metadata/name"] {
            assert_eq!(ours.pointer(field), theirs.pointer(field), "{field}");
        }
        let substitute = "/metadata/annotations/kustomize.toolkit.fluxcd.io~1substitute";
        assert_eq!(ours.pointer(substitute), theirs.pointer(substitute));
    }
}

fn compare(path: &str, ours: &Value, theirs: &Value, differences: &mut Vec<String>) {
    if let (Value::Object(our_map), Value::Object(their_map)) = (ours, theirs) {
        let keys: std::collections::BTreeSet<&String> = our_map.keys().chain(their_map.keys()).collect();
        for key in keys {
            compare(&format!("{path}/{key}"), &ours[key], &theirs[key], differences);
        }
    } else if ours != theirs {
        differences.push(format!("{path}: {ours} instead of {theirs}"));
    }
}

#[test]
fn every_version_is_structural_and_prunes_what_it_does_not_know() {
    for crd in crds() {
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array).unwrap();
        let named: Vec<_> = versions.iter().map(|v| (v["name"].as_str().unwrap(), v["storage"] == true)).collect();
        let expected: &[_] = match stored(&crd) {
            "v1" => &[("v1", true)],
            "v1beta1" => &[("v1beta1", true), ("v1beta3", false)],
            _ => &[("v1beta3", true), ("v1", false), ("v1beta2", false), ("v1beta1", false)],
        };
        assert_eq!(named, expected);
        for version in versions {
            let name = version["name"].as_str().unwrap();
            assert_eq!(version["served"], true);
            let old = expected.len() > 2 && matches!(name, "v1beta1" | "v1beta2");
            assert_eq!(version["deprecated"] == true, old, "{name}");
            assert_eq!(version["deprecationWarning"].is_string(), version["deprecated"] == true, "{name}");
            schemas(&version["schema"]["openAPIV3Schema"], "", &mut |path, schema| {
                assert!(schema["type"].is_string(), "{path} has no type");
                // A field that is gone, such as the status of old, is dropped by the API server only without these.
                for word in
                    ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "$ref", "nullable"]
                {
                    assert!(schema.get(word).is_none(), "{path} has {word}");
                }
                assert!(
                    schema["additionalProperties"].is_null() || schema["additionalProperties"].is_object(),
                    "{path}"
                );
                let described =
                    path.is_empty() || path == ".metadata" || path.contains("items") || path.contains("Properties");
                assert!(described || schema["description"].is_string(), "{path} has no description");
            });
        }
    }
}
