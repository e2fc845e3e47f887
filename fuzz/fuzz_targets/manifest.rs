//! Any YAML compiles to a snapshot and findings, and what is in force compiles to itself again.
#![no_main]

use belfry_core::config::{Document, Options, Snapshot, compile};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(values) = serde_saphyr::from_multiple::<Value>(text) else { return };
    let documents: Vec<_> = values.into_iter().map(|value| Document { origin: "fuzz".into(), value }).collect();
    let (snapshot, findings) = compile(&documents, &Snapshot::default(), &Options::default());
    for finding in findings {
        assert!(!finding.to_string().is_empty());
    }
    let kept: Vec<_> =
        snapshot.bodies().into_iter().map(|(_, value)| Document { origin: String::new(), value }).collect();
    assert_eq!(compile(&kept, &Snapshot::default(), &Options::default()).0.bodies(), snapshot.bodies());
});
