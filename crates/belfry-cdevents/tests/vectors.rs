//! The vectors of `data/cdevents/index.json`, in both modes. They stand beside the project, not in it.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{fs, path::PathBuf};

use belfry_cdevents::{
    Mode, UnknownSchema,
    http::{Refused, parse},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

fn shared() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cdevents")
}

/// What becomes of one vector: accepted means that something would be triggered.
fn accepted(vector: &Value, mode: Mode, schemas: UnknownSchema) -> Result<bool, Refused> {
    let mut headers = HeaderMap::new();
    for (name, value) in vector["request"]["headers"].as_object().unwrap() {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_str().unwrap().as_bytes()).unwrap());
    }
    let body = fs::read(shared().join(vector["file"].as_str().unwrap())).unwrap();
    let entries: Vec<&str> =
        vector["request"]["receiverEvents"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    let events = parse(&headers, &body, mode, schemas)?;
    Ok(events.iter().any(|event| event.passes(&entries)))
}

#[test]
fn every_vector_gets_its_verdict_in_both_modes() {
    let Ok(index) = fs::read(shared().join("index.json")) else {
        println!("SKIPPED: the vectors beside the project are missing");
        return;
    };
    let index: Value = serde_json::from_slice(&index).unwrap();
    let mut wrong = Vec::new();
    for (name, mode) in [("default", Mode::Default), ("strict", Mode::Strict)] {
        let mut checked = 0;
        for vector in index["vectors"].as_array().unwrap() {
            let rejecting = accepted(vector, mode, UnknownSchema::Reject);
            let ignoring = accepted(vector, mode, UnknownSchema::Ignore);
            let right = match vector["recommended"][name].as_str().unwrap() {
                "accept" => rejecting == Ok(true),
                "reject" => rejecting != Ok(true),
                "reject-unknown-schemaUri" => rejecting != Ok(true) && ignoring == Ok(true),
                "either" => true,
                other => panic!("a verdict that is new: {other}"),
            };
            checked += 1;
            if !right {
                wrong.push(format!("{name} {}: {rejecting:?}, ignoring {ignoring:?}", vector["id"]));
            }
        }
        println!("{name}: {checked} vectors");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
