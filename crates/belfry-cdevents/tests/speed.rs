//! What reading, validating and filtering one CDEvent of 1 KB costs, next to parsing its JSON alone. Run it by hand:
//! `cargo test --release -p belfry-cdevents --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{hint::black_box, time::Instant};

use belfry_cdevents::{Mode, UnknownSchema, http::parse};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

fn nanoseconds(mut work: impl FnMut()) -> u128 {
    let round = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..10_000).for_each(|_| work());
        start.elapsed().as_nanos() / 10_000
    };
    (0..20).map(|_| round(&mut work)).min().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn one_event_of_a_kilobyte() {
    let link =
        json!({"linkType": "PATH", "from": {"contextId": "5328c37f-bb7e-4bb7-84ea-9f5f85e4a7ce"}, "tags": {"a": "b"}});
    let body = json!({
        "context": {
            "specversion": "0.5.1", "id": "271069a8-fc18-44f1-b38f-9d70a1695819", "source": "https://ci.example.com/events",
            "type": "dev.cdevents.service.deployed.0.3.0", "timestamp": "2026-03-01T10:00:00Z",
            "chainId": "6ca3f9c5-1cef-4ce0-861c-2456a69cf137", "links": [link, link, link],
        },
        "subject": {
            "id": "/prod/apps/web", "source": "https://ci.example.com/events",
            "content": {"environment": {"id": "/prod/eu-1"}, "artifactId": "pkg:oci/web@sha256:0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427"},
        },
        "customData": {"tool": {"build": 17, "branch": "main", "notes": "x".repeat(200)}},
    })
    .to_string();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "271069a8-fc18-44f1-b38f-9d70a1695819"),
        ("ce-source", "https://ci.example.com/events"),
        ("ce-type", "dev.cdevents.service.deployed.0.3.0"),
        ("ce-subject", "/prod/apps/web"),
        ("ce-time", "2026-03-01T10:00:00Z"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let entries = ["dev.cdevents.change.merged", "dev.cdevents.service.deployed"];
    let alone = nanoseconds(|| drop(black_box(serde_json::from_slice::<Value>(black_box(body.as_bytes())))));
    for mode in [Mode::Default, Mode::Strict] {
        let whole = nanoseconds(|| {
            let events = parse(&headers, black_box(body.as_bytes()), mode, UnknownSchema::Reject).unwrap();
            assert!(events[0].passes(&entries));
        });
        println!("{mode:?}: {} bytes, {whole} ns; parsing the JSON alone {alone} ns", body.len());
        assert!(whole < 10_000);
    }
}
