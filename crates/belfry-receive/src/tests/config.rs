//! What must be mended, in the peer's words; paths; expressions.

use belfry_api::{OidcProvider, OidcVariable};

use super::*;
use belfry_core::config::receiver::{Evaluated, expressions};

use crate::{Path, Problem, TOKEN_NOT_FOUND, check, check_secret, path};

#[test]
fn digests_are_the_peers() {
    for (token, name, namespace, digest) in [
        ("token", "test-receiver", "default", "c0546ea4a2a81aacb29ba4f488ccf72a588f481b7418f33a1747e7c8a0991eec"),
        ("tok\n", "a", "b", "7f684c754a2b56980c1bec7b0262fab359dd31314a937f7c7f36f882f0ed487a"),
        ("test-token", "rcvr", "ns", "5460a1a1bc92ca1f1e4ea7705a948d52cc5a297f346784e4ee68ef9dd8f448d7"),
        (
            "test-token",
            "receiver-secret",
            "my-namespace",
            "106120121d366c2f67e93200f6c1dbe938235eb588daa5e8c0516d3a77ac1dee",
        ),
        (
            "test-token",
            "gcr-secret",
            "my-namespace",
            "6d6c55e9affb9d1e0d101ce604ae4270880ec1ff24d1bd2d928fcd64243d21a4",
        ),
    ] {
        let secret = secret(&[("token", token)]);
        for (type_, case) in Case::all().filter(|(type_, _)| *type_ != "generic-oidc") {
            let path = path(&case.spec, namespace, name, Some(&secret)).unwrap();
            assert_eq!(path.as_str(), format!("/hook/{digest}"), "{type_}: the type is no part of it");
        }
    }
    let oidc = Case::of("generic-oidc");
    let path = path(&oidc.spec, "default", "generic-oidc-receiver", None).unwrap();
    assert_eq!(path.as_str(), "/hook/4399e88762a0abe9a87e588d0c42b27f13ac7a4fb04bb1ed28be8cb4b2fb4f31");
}

#[test]
fn only_the_path_itself_is_one() {
    let digest = "c0546ea4a2a81aacb29ba4f488ccf72a588f481b7418f33a1747e7c8a0991eec";
    let right = Path::parse(&format!("/hook/{digest}")).unwrap();
    let case = Case::of("generic");
    let secret = secret(&[("token", "token")]);
    assert!(path(&case.spec, "default", "test-receiver", Some(&secret)).unwrap() == right);
    for target in [
        format!("/hook/{digest}?x=1"),
        format!("/hook/{digest}/"),
        format!("/hook/{}", digest.to_uppercase()),
        format!("/hook/%63{}", &digest[1..]),
        format!("//hook/{digest}"),
        format!("http://h/hook/{digest}"),
        format!("/hook/{}", &digest[1..]),
        format!("/hook/{digest}0"),
        format!("/{digest}"),
        "/hook/".to_owned(),
        String::new(),
    ] {
        assert!(Path::parse(&target).is_none(), "{target}");
    }
}

fn messages(spec: &ReceiverSpec) -> Vec<String> {
    check(spec).into_iter().map(|problem| problem.message).collect()
}

#[test]
fn the_rules_between_fields() {
    let mut oidc = Case::of("generic-oidc").spec;
    oidc.secret_ref = Some(LocalObjectReference { name: "hook".into() });
    assert_eq!(messages(&oidc), ["secretRef cannot be set when type is generic-oidc"]);
    oidc.oidc_providers.clear();
    assert_eq!(
        messages(&oidc),
        [
            "generic-oidc receiver requires at least one oidcProvider",
            "secretRef cannot be set when type is generic-oidc",
        ]
    );
    let providers = Case::of("generic-oidc").spec.oidc_providers;
    for (type_, case) in Case::all().filter(|(type_, _)| *type_ != "generic-oidc") {
        let mut spec = case.spec;
        spec.secret_ref = None;
        assert_eq!(messages(&spec), ["secretRef is required when type is not generic-oidc"], "{type_}");
        spec.oidc_providers.clone_from(&providers);
        assert_eq!(messages(&spec).len(), 2, "{type_}");
        assert_eq!(messages(&spec)[0], "oidcProviders can only be set when type is generic-oidc");
    }
    let mut unknown = Case::of("generic").spec;
    unknown.type_ = "Github".into();
    assert_eq!(
        check(&unknown),
        [Problem {
            field: "spec.type".into(),
            reason: "ValidationFailed",
            refused: true,
            message: r#"receiver type "Github" not supported"#.into(),
        }]
    );
}

#[test]
fn the_rules_for_oidc_providers() {
    let valid = Case::of("generic-oidc").spec.oidc_providers.remove(0);
    let with = |change: &dyn Fn(&mut OidcProvider)| {
        let mut spec = Case::of("generic-oidc").spec;
        change(&mut spec.oidc_providers[0]);
        let problems = check(&spec);
        assert_eq!(problems.len(), 1, "{problems:?}");
        (problems[0].field.clone(), problems[0].message.clone())
    };
    let at = |text: &str| format!(r#"oidcProviders[0] (issuerURL="{ISSUER}"): {text}"#);
    let field = |text: &str| format!("spec.oidcProviders[0].{text}");
    assert_eq!(
        with(&|provider| provider.issuer_url.clear()),
        (field("issuerURL"), "oidcProviders[0]: issuerURL is required".to_owned())
    );
    assert_eq!(
        with(&|provider| provider.issuer_url = "ftp://x".into()).1,
        "oidcProviders[0]: issuerURL \"ftp://x\" must start with http:// or https://"
    );
    let (place, message) = with(&|provider| provider.validations.clear());
    assert_eq!(place, field("validations"));
    assert!(message.starts_with(&at("at least one validation is required; ")));
    let variable = |name: &str, expression: &str| OidcVariable { name: name.into(), expression: expression.into() };
    assert_eq!(
        with(&|provider| provider.variables = vec![variable("", "1")]),
        (field("variables[0].name"), at("variables[0]: name is required"))
    );
    assert_eq!(
        with(&|provider| provider.variables = vec![variable("x", "")]),
        (field("variables[0].expression"), at(r#"variables[0] (name="x"): expression is required"#))
    );
    assert_eq!(
        with(&|provider| provider.validations[0].expression.clear()),
        (field("validations[0].expression"), at("validations[0]: expression is required"))
    );
    assert_eq!(
        with(&|provider| provider.validations[0].message.clear()),
        (field("validations[0].message"), at("validations[0]: message is required"))
    );
    let mut spec = Case::of("generic-oidc").spec;
    spec.oidc_providers = vec![valid.clone(), valid];
    assert_eq!(messages(&spec), [format!(r#"oidcProviders[1]: duplicate issuerURL "{ISSUER}""#)]);
    spec.oidc_providers[1].issuer_url.push('/');
    assert_eq!(check(&spec), []);
}

#[test]
fn the_secret_must_have_what_the_type_needs() {
    let case = Case::of("gcr");
    let message = |pairs: Option<&[(&str, &str)]>| {
        let secret = pairs.map(secret);
        let problem = check_secret(&case.spec, "apps", secret.as_ref()).unwrap();
        assert_eq!((problem.reason, problem.field.as_str()), (TOKEN_NOT_FOUND, "spec.secretRef"));
        problem.message
    };
    assert_eq!(message(None), "unable to read token from secret 'apps/hook' error: Secret \"hook\" not found");
    assert_eq!(message(Some(&[])), "invalid 'apps/hook' secret data: required fields 'token'");
    assert_eq!(message(Some(&[("token", "x")])), "invalid 'apps/hook' secret data: required fields 'email'");
    assert_eq!(
        message(Some(&[("token", "x"), ("email", "y")])),
        "invalid 'apps/hook' secret data: required fields 'audience'"
    );
    assert_eq!(
        message(Some(&[("token", "")])),
        "invalid 'apps/hook' secret data: 'token' is empty, which would let everybody in"
    );
    // White space is what the peer takes, byte by byte.
    let blank = secret(&[("token", "\n")]);
    assert_eq!(check_secret(&Case::of("github").spec, "apps", Some(&blank)), None);
    assert_eq!(check_secret(&Case::of("generic-oidc").spec, "apps", None), None);
}

#[test]
fn expressions_come_in_the_peers_order() {
    let mut spec = Case::of("generic-oidc").spec;
    spec.resource_filter = Some("a".into());
    spec.resources[0].filter = Some("b".into());
    spec.oidc_providers[0].variables = vec![OidcVariable { name: "v".into(), expression: "c".into() }];
    spec.oidc_providers[0].validations[0].expression = "d".into();
    let found: Vec<(String, &str, Evaluated, String)> =
        expressions(&spec).into_iter().map(|e| (e.field, e.source, e.evaluated, e.invalid)).collect();
    let text = str::to_owned;
    let oidc = format!(r#"oidcProviders[0] (issuerURL="{ISSUER}"): invalid expression for "#);
    assert_eq!(
        found,
        [
            (
                text("spec.resourceFilter"),
                "a",
                Evaluated::Filter { claims: true },
                text("invalid resourceFilter expression: ")
            ),
            (
                text("spec.resources[0].filter"),
                "b",
                Evaluated::Filter { claims: true },
                text(r#"invalid filter expression for resources[0] (kind="GitRepository", name="webapp"): "#),
            ),
            (
                text("spec.oidcProviders[0].variables[0].expression"),
                "c",
                Evaluated::Variable,
                format!(r#"{oidc}variable "v": "#)
            ),
            (
                text("spec.oidcProviders[0].validations[0].expression"),
                "d",
                Evaluated::Validation,
                format!(r#"{oidc}validation "never": "#),
            ),
        ]
    );
    let mut github = Case::of("github").spec;
    github.resource_filter = Some(String::new());
    github.resources[0].filter = Some("true".into());
    let found = expressions(&github);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].evaluated, Evaluated::Filter { claims: false });
}
