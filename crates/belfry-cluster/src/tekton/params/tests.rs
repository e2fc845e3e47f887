//! Params as users and pipelines write them.

use belfry_core::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// 2026-11-21T09:15:56Z.
const CREATED: Time = Time(1_795_252_556_000_000);

fn read(params: &Value) -> Result<Params, Vec<String>> {
    Params::read(params.as_object().unwrap(), CREATED)
}

fn selector(parts: [&str; 3]) -> Selector {
    let [kind, namespace, name] = parts.map(|part| (part != "*").then(|| part.to_owned()));
    Selector { kind, namespace, name }
}

#[test]
fn every_param_is_understood() {
    let asked = |params: Params| Params { revision: "main".to_owned(), ..params };
    let app = selector(["Kustomization", "flux-system", "app"]);
    for (params, expected) in [
        (json!({}), Params::default()),
        (json!({ "revision": " main\n" }), Params::default()),
        (
            json!({ "objects": ["Kustomization/flux-system/app"] }),
            Params { objects: vec![app.clone()], ..Params::default() },
        ),
        (
            json!({ "objects": "kustomization/flux-system/app , HelmRelease/*/*,," }),
            Params { objects: vec![app.clone(), selector(["HelmRelease", "*", "*"])], ..Params::default() },
        ),
        (
            json!({ "objects": [{ "kind": "Kustomization", "namespace": "flux-system", "name": "app" }, "*/apps/web"] }),
            Params { objects: vec![app.clone(), selector(["*", "apps", "web"])], ..Params::default() },
        ),
        (
            json!({ "objects": [{ "kind": "Kustomization" }] }),
            Params { objects: vec![selector(["Kustomization", "*", "*"])], ..Params::default() },
        ),
        (json!({ "objects": "", "cluster": "", "timeout": "" }), Params::default()),
        (json!({ "objects": [""], "not-before": null }), Params::default()),
        (json!({ "objects": "*/*/a,*/*/a" }), Params { objects: vec![selector(["*", "*", "a"])], ..Params::default() }),
        (
            json!({ "kind": "Kustomization", "namespace": "flux-system", "name": "app" }),
            Params { objects: vec![app], ..Params::default() },
        ),
        (
            json!({ "name": "app", "kind": "*" }),
            Params { objects: vec![selector(["*", "*", "app"])], ..Params::default() },
        ),
        (json!({ "cluster": "prod-1" }), Params { cluster: Some("prod-1".to_owned()), ..Params::default() }),
        (json!({ "on-failure": "wait" }), Params { on_failure: OnFailure::Wait, ..Params::default() }),
        (
            json!({ "on-failure": "fail", "failure-grace": "1m30s" }),
            Params { on_failure: OnFailure::Fail { grace: Duration::from_secs(90) }, ..Params::default() },
        ),
        (json!({ "on-superseded": "succeed" }), Params { on_superseded: OnSuperseded::Succeed, ..Params::default() }),
        (json!({ "on-superseded": "wait" }), Params { on_superseded: OnSuperseded::Wait, ..Params::default() }),
        (json!({ "not-before": "creation" }), Params { not_before: Some(CREATED), ..Params::default() }),
        (
            json!({ "not-before": "10m" }),
            Params { not_before: Some(CREATED.before(Duration::from_secs(600))), ..Params::default() },
        ),
        (
            json!({ "not-before": "2026-11-21T10:15:55.5+01:00" }),
            Params { not_before: Some(CREATED.before(Duration::from_millis(500))), ..Params::default() },
        ),
        (json!({ "timeout": "90m" }), Params { timeout: Some(Duration::from_secs(5400)), ..Params::default() }),
        (json!({ "timeout": "0" }), Params { timeout: Some(Duration::ZERO), ..Params::default() }),
    ] {
        let mut params = params;
        if params.get("revision").is_none() {
            params["revision"] = json!("main");
        }
        let found = read(&params);
        assert_eq!(found, Ok(asked(expected)), "{params}");
        let kept = found.unwrap();
        assert_eq!(Params::read(kept.to_json().as_object().unwrap(), Time(0)), Ok(kept), "{params}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let many: Vec<_> = (0..101).map(|n| format!("*/*/a{n}")).collect();
    let cases = [
        json!({}),
        json!({ "revision": "  \n" }),
        json!({ "revision": 1.2 }),
        json!({ "revision": ["a", "b"] }),
        json!({ "revision": "two words" }),
        json!({ "revision": "$(params.rev)" }),
        json!({ "revision": "x".repeat(513) }),
        json!({ "revision": "a", "color": "red", "Objects": [] }),
        json!({ "revision": "a", "objects": "Kustomization/app" }),
        json!({ "revision": "a", "objects": ["Kustomization//app", "a/b/c/d", 5, { "kind": 1 }, { "x": "y" }] }),
        json!({ "revision": "a", "objects": ["Deployment/apps/web"] }),
        json!({ "revision": "a", "objects": ["Kustomization/apps/.."] }),
        json!({ "revision": "a", "objects": { "kind": "Kustomization" } }),
        json!({ "revision": "a", "objects": "*/*/a", "name": "b" }),
        json!({ "revision": "a", "objects": many }),
        json!({ "revision": "a", "kind": "Pod" }),
        json!({ "revision": "a", "on-failure": "retry" }),
        json!({ "revision": "a", "on-failure": "wait", "failure-grace": "5m" }),
        json!({ "revision": "a", "failure-grace": "5 minutes" }),
        json!({ "revision": "a", "failure-grace": "5minutes" }),
        json!({ "revision": "a", "on-superseded": "ignore" }),
        json!({ "revision": "a", "not-before": "yesterday" }),
        json!({ "revision": "a", "timeout": "-5s" }),
        json!({ "revision": "a", "timeout": 5, "cluster": ["x"] }),
    ];
    let told: Vec<_> = cases.iter().map(|params| read(params).map(drop).unwrap_err().join("; ")).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn an_embedded_spec_is_filled_from_the_params() {
    let params = |params: Value| -> Vec<(String, Value)> {
        params.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let given = |of: Value, spec: Value| Value::Object(given(&params(of), spec.as_object()));
    for (of, spec, expected) in [
        (json!({ "revision": "a", "other": "b" }), json!(null), json!({ "revision": "a", "other": "b" })),
        (json!({ "rev": "a" }), json!({ "revision": "$(params.rev)" }), json!({ "revision": "a" })),
        // The spec comes first, and params that it does not name are there for its variables alone.
        (json!({ "revision": "a", "rev": "b" }), json!({ "revision": "$(params.rev)" }), json!({ "revision": "b" })),
        (json!({ "revision": "a" }), json!({ "name": "app" }), json!({ "name": "app", "revision": "a" })),
        (
            json!({ "apps": ["a", "b"] }),
            json!({ "revision": "x", "objects": "$(params.apps[*])" }),
            json!({ "revision": "x", "objects": ["a", "b"] }),
        ),
        (json!({}), json!({ "revision": "$(params.rev)" }), json!({ "revision": "$(params.rev)" })),
    ] {
        assert_eq!(given(of.clone(), spec.clone()), expected, "{of} {spec}");
    }
}

proptest! {
    #[test]
    fn what_is_read_is_kept_as_it_is(objects in "[a-zK/*, ]{0,30}", before in "[0-9hms.-]{0,8}", timeout in "[0-9]{1,9}(ms|us|m|h)") {
        let params = json!({ "revision": "a", "objects": objects, "not-before": before, "timeout": timeout });
        if let Ok(read) = read(&params) {
            prop_assert_eq!(Params::read(read.to_json().as_object().unwrap(), Time(0)), Ok(read));
        }
    }
}
