//! Receivers in, findings, filters and targets out.

use serde_json::json;

use super::*;
use crate::config::{Document, Snapshot, compile as compile_all};

fn document(spec: Json) -> Document {
    let value = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1",
        "kind": "Receiver",
        "metadata": {"name": "hook", "namespace": "apps", "generation": 3},
        "spec": spec,
    });
    Document { origin: String::new(), value }
}

fn compiled(spec: Json, options: &Options) -> (Arc<ReceiverRule>, Vec<Problem>) {
    let (snapshot, findings) = compile_all(&[document(spec)], &Snapshot::default(), options);
    let rule = snapshot.receiver(&ConfigKey::receiver("apps", "hook")).unwrap().clone();
    (rule, findings.into_iter().filter_map(|finding| finding.problem).collect())
}

fn github(more: &Json) -> Json {
    let mut spec = json!({
        "type": "github", "secretRef": {"name": "hook"}, "resources": [{"kind": "GitRepository", "name": "app"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn oidc(provider: &Json) -> Json {
    let mut whole = json!({"issuerURL": "https://issuer.example", "validations": [
        {"expression": "claims.sub == 'me'", "message": "not me"},
    ]});
    whole.as_object_mut().unwrap().extend(provider.as_object().unwrap().clone());
    json!({"type": "generic-oidc", "resources": [], "oidcProviders": [whole]})
}

fn object(value: Json) -> Map<String, Json> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_good_one_is_in_force_and_survives_being_saved() {
    let (rule, problems) = compiled(github(&json!({"interval": "1h"})), &Options::default());
    assert_eq!(problems, []);
    assert_eq!((rule.flaw.as_ref(), rule.interval, rule.metadata.generation), (None, Duration::from_secs(3600), 3));
    let (snapshot, _) = compile_all(&[document(github(&json!({})))], &Snapshot::default(), &Options::default());
    let saved: Vec<Document> =
        snapshot.bodies().into_iter().map(|(_, value)| Document { origin: String::new(), value }).collect();
    let (again, _) = compile_all(&saved, &Snapshot::default(), &Options::default());
    assert_eq!(again.bodies(), snapshot.bodies());
    assert_eq!(again.receivers().len(), 1);
}

#[test]
fn the_first_problem_is_the_peers_and_nothing_stays_in_force() {
    let options = Options::default();
    for (spec, reason, message) in [
        (
            github(&json!({"resourceFilter": "req.flag"})),
            INVALID_CEL,
            "invalid resourceFilter expression: CEL expression output type mismatch: expected bool, got dyn",
        ),
        (
            github(&json!({"resources": [{"kind": "GitRepository", "name": "app", "filter": "claims.x == 1"}]})),
            INVALID_CEL,
            "invalid filter expression for resources[0] (kind=\"GitRepository\", name=\"app\"): ",
        ),
        (
            github(&json!({"secretRef": null})),
            "ValidationFailed",
            "secretRef is required when type is not generic-oidc",
        ),
        (github(&json!({"interval": "soon"})), "ValidationFailed", "must match "),
        (github(&json!({"type": "forgejo"})), "ValidationFailed", "'forgejo' is not supported"),
        (github(&json!({"resources": [{"name": "app"}]})), "ValidationFailed", "is required"),
        (
            oidc(&json!({"validations": [{"expression": "claims.sub", "message": "m"}]})),
            INVALID_CEL,
            "oidcProviders[0] (issuerURL=\"https://issuer.example\"): invalid expression for validation \"m\": ",
        ),
        (
            oidc(&json!({"variables": [{"name": "v", "expression": "req.x"}]})),
            INVALID_CEL,
            "oidcProviders[0] (issuerURL=\"https://issuer.example\"): invalid expression for variable \"v\": ",
        ),
    ] {
        let before = compile_all(&[document(github(&json!({})))], &Snapshot::default(), &options).0;
        let (snapshot, findings) = compile_all(&[document(spec.clone())], &before, &options);
        let rule = snapshot.receivers().next().unwrap();
        let flaw = rule.flaw.clone().unwrap_or_else(|| panic!("{spec} is taken"));
        assert_eq!(flaw.reason, reason, "{spec}");
        assert!(flaw.message.starts_with(message), "{spec}: {}", flaw.message);
        assert!(!flaw.message.contains("stays in force"));
        assert!(findings.iter().any(|finding| finding.problem.as_ref() == Some(&flaw)), "{findings:?}");
        // It is there all the same, and refused again when it is read from where it was saved.
        let saved: Vec<Document> =
            snapshot.bodies().into_iter().map(|(_, value)| Document { origin: String::new(), value }).collect();
        let (again, _) = compile_all(&saved, &Snapshot::default(), &options);
        assert!(again.receivers().next().unwrap().flaw.is_some(), "{spec}");
    }
}

#[test]
fn an_unchanged_receiver_is_not_compiled_again() {
    let documents = [document(github(&json!({"resourceFilter": "true"})))];
    let (before, _) = compile_all(&documents, &Snapshot::default(), &Options::default());
    let (after, _) = compile_all(&documents, &before, &Options::default());
    assert!(Arc::ptr_eq(before.receivers().next().unwrap(), after.receivers().next().unwrap()));
}

#[test]
fn entries_that_select_nothing_are_warned_of() {
    let resources = json!({"resources": [
        {"kind": "GitRepository", "name": "app", "namespace": "other"},
        {"kind": "Kustomization", "name": "app"},
        {"kind": "GitRepository", "name": "*"},
        {"kind": "GitRepository", "name": "*", "matchLabels": {"a b": "c"}},
        {"kind": "GitRepository", "name": "app"},
    ]});
    let said = |options: &Options| {
        let (rule, problems) = compiled(github(&resources), options);
        assert!(rule.flaw.is_none());
        problems.into_iter().map(|problem| problem.to_string()).collect::<Vec<_>>()
    };
    let rest = [
        "spec.resources[1]: apiVersion must be specified for kind \"Kustomization\"",
        "spec.resources[2]: matchLabels field not set when using wildcard '*' as name",
        "spec.resources[3]: matchLabels: 'a b' is not a label's key",
    ];
    assert_eq!(said(&Options::default()), rest);
    let strict = Options { no_cross_namespace_refs: true, ..Options::default() };
    assert_eq!(said(&strict)[0], "spec.resources[0]: cross-namespace references are not allowed");
    assert_eq!(said(&strict)[1..], rest);
}

#[test]
fn both_filters_must_let_an_object_pass() {
    let spec = github(&json!({
        "resourceFilter": "req.tag.startsWith(res.metadata.name)",
        "resources": [
            {"kind": "ImageRepository", "name": "*", "matchLabels": {"a": "b"}},
            {"kind": "ImageRepository", "name": "*", "matchLabels": {"a": "b"}, "filter": "res.metadata.generation > 1"},
        ],
    }));
    let (rule, problems) = compiled(spec, &Options::default());
    assert_eq!(problems, []);
    let request = Request::new(object(json!({"tag": "app:1.0"})), None);
    let image = |name: &str, generation: i64| {
        json!({
            "apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
            "metadata": {"name": name, "generation": generation},
        })
    };
    assert_eq!(rule.passes(0, &request, &image("app", 1)), Ok(true));
    assert_eq!(rule.passes(1, &request, &image("app", 1)), Ok(false));
    assert_eq!(rule.passes(1, &request, &image("app", 2)), Ok(true));
    assert_eq!(rule.passes(0, &request, &image("other", 2)), Ok(false));
    let error = rule.passes(0, &Request::new(Map::new(), None), &image("app", 1)).unwrap_err();
    assert!(error.starts_with("failed to evaluate filter: ") && error.contains("no such key: tag"), "{error}");
    assert!(rule.filters(0) && rule.filters(1));
    assert!(!compiled(github(&json!({})), &Options::default()).0.filters(0));
}

#[test]
fn an_expression_that_never_ends_is_cut_off() {
    let deep = "req.l.all(a, req.l.all(b, req.l.all(c, req.l.all(d, a + b + c + d > 0.0))))";
    let (rule, _) = compiled(github(&json!({"resourceFilter": deep})), &Options::default());
    let list: Vec<u32> = (1..200).collect();
    let error = rule.passes(0, &Request::new(object(json!({"l": list})), None), &json!({})).unwrap_err();
    assert!(error.contains("cut off"), "{error}");
}

#[test]
fn claims_authorize_by_validations_and_nothing_else() {
    let provider = json!({
        "variables": [
            {"name": "parts", "expression": "claims.repository.split('/')"},
            {"name": "owner", "expression": "vars.parts[0]"},
        ],
        "validations": [
            {"expression": "vars.owner == 'acme'", "message": "wrong owner"},
            {"expression": "claims.ref == 'refs/heads/main'", "message": "wrong branch"},
        ],
    });
    let (rule, problems) = compiled(oidc(&provider), &Options::default());
    assert_eq!(problems, []);
    let check = |claims: Json| rule.check_claims(0, &object(claims));
    assert_eq!(check(json!({"repository": "acme/app", "ref": "refs/heads/main"})), Ok(()));
    assert_eq!(
        check(json!({"repository": "evil/app", "ref": "refs/heads/x"})),
        Err("token validation failed: wrong owner; wrong branch".into())
    );
    let missing = check(json!({"ref": "refs/heads/main"})).unwrap_err();
    assert!(missing.starts_with("failed to evaluate variable \"parts\": "), "{missing}");
    let missing = check(json!({"repository": "acme/app"})).unwrap_err();
    assert!(missing.starts_with("failed to evaluate validation: "), "{missing}");
    assert!(rule.check_claims(1, &Map::new()).is_err());
    assert!(compiled(oidc(&json!({"validations": []})), &Options::default()).0.check_claims(0, &Map::new()).is_err());
}
