//! Tests: what expressions come to, beside what cel-go says of them; what holds for all of them; what they may cost.

mod api;
mod budget;
mod conformance;
mod properties;

use super::{Value, types::Ty};

/// The variables of the tests: a body as it comes from a socket, where every number is a double, and an object as
/// Kubernetes holds it, where whole numbers are integers.
fn variables() -> [(&'static str, Value); 2] {
    let req = serde_json::json!({
        "action": "push", "n": 5, "f": 1.5, "flag": true, "nothing": null, "tags": ["v1.2.3", "latest"],
        "repo": {"name": "podinfo", "stars": 7, "some.dot": "d"}, "list": [1, 2, 3], "mixed": [1, "a", null],
        "empty": {}, "big": 1e300, "numbers": {"1": "one"},
    });
    let obj = serde_json::json!({
        "kind": "Kustomization",
        "metadata": {
            "name": "app", "namespace": "apps", "generation": 3,
            "labels": {"team": "web", "app.kubernetes.io/name": "x"},
        },
        "spec": {"suspend": false, "ratio": 0.5, "items": [1, 2]},
    });
    [("req", Value::from(&req)), ("obj", Value::typed(&obj))]
}

/// What [`variables`] are declared as.
fn declared() -> [(&'static str, Ty); 2] {
    ["req", "obj"].map(|name| (name, Ty::map(Ty::String, Ty::Dyn)))
}
