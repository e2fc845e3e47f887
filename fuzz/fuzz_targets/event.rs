//! Any body is an event or a refusal, and an event can be matched.
#![no_main]

use belfry_core::{
    config::{Document, Options, Snapshot, compile},
    event,
    index::ObjectIndex,
};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

thread_local! {
    static SNAPSHOT: Snapshot = {
        let kinds = ["Kustomization", "HelmRelease"];
        let sources: Vec<_> = kinds.iter().map(|kind| json!({"kind": kind, "name": "*", "namespace": "*"})).collect();
        let value = json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Alert",
            "metadata": {"name": "all", "namespace": "flux-system"},
            "spec": {"providerRef": {"name": "p"}, "eventSources": sources, "exclusionList": [r"^\w+\b"]},
        });
        let options = Options { runtime_namespace: "flux-system".into(), ..Options::default() };
        compile(&[Document { origin: String::new(), value }], &Snapshot::default(), &options).0
    };
}

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = event::read(body) {
        SNAPSHOT.with(|snapshot| snapshot.routes(&event, &ObjectIndex::default()));
    }
});
