//! Bodies: which are taken, what is read of them, and what filters see.

use http::StatusCode;
use ring::hmac;

use super::*;

#[test]
fn what_the_decoders_take() {
    let nested = "[".repeat(100_000);
    for (type_, taken, refused) in [
        (
            "dockerhub",
            vec!["{}", "null", "{} garbage", r#"{"push_data":null}"#, r#"{"other":[1]}"#],
            vec![
                "",
                "[]",
                "1",
                "{",
                r#"{"push_data":1}"#,
                r#"{"push_data":{"tag":1}}"#,
                r#"{"repository":"x"}"#,
                &nested,
            ],
        ),
        (
            "quay",
            vec!["{}", "null", "{} garbage", r#"{"updated_tags":[]}"#, r#"{"updated_tags":[null,"a"]}"#],
            vec!["", "[]", r#"{"docker_url":{}}"#, r#"{"updated_tags":"a"}"#, r#"{"updated_tags":[1]}"#, &nested],
        ),
        (
            "acr",
            vec!["{}", "null", "{} garbage", r#"{"target":{}}"#],
            vec!["", "[]", r#"{"action":1}"#, r#"{"target":[]}"#, r#"{"target":{"tag":false}}"#, &nested],
        ),
        (
            "nexus",
            vec!["{}", "null", r#"{"action":null}"#],
            vec!["", "[]", "{} garbage", r#"{"action":1}"#, r#"{"repositoryName":[]}"#, &nested],
        ),
        ("generic", vec!["", "garbage", "[]"], vec![]),
        ("generic-hmac", vec!["", "garbage", "null"], vec![]),
        ("gitlab", vec!["", "garbage"], vec![]),
        ("harbor", vec!["", "garbage"], vec![]),
        ("github", vec!["", "garbage"], vec![]),
        ("bitbucket", vec!["", "garbage"], vec![]),
    ] {
        let mut case = Case::of(type_);
        for body in taken {
            case.body(body).sign(TOKEN);
            case.accepted();
        }
        for body in refused {
            case.body(body).sign(TOKEN);
            let refused = case.refused();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{type_} {body:.40}");
            assert!(
                refused.why.starts_with("cannot decode ") && refused.why.contains(" webhook payload: "),
                "{refused}"
            );
            assert!(refused.why.len() < 200, "{refused}");
        }
    }
}

#[test]
fn what_a_payload_is_about() {
    for (type_, expected, event) in [
        ("dockerhub", Some("org/repo for tag v1.0"), None),
        ("quay", Some("docker.io for tag v0.0.1"), None),
        ("acr", Some("hello-world for tag 1.0"), Some("push")),
        ("nexus", Some("npm"), Some("CREATED")),
        ("gcr", Some("eu.gcr.io/p/app@sha256:6ec1 for tag eu.gcr.io/p/app1:v1.2.3"), Some("INSERT")),
        ("github", None, Some("push")),
        ("generic", None, None),
    ] {
        let accepted = Case::of(type_).accepted();
        assert_eq!(accepted.subject.as_deref(), expected, "{type_}");
        assert_eq!(accepted.event_type.as_deref(), event, "{type_}");
    }
    let mut case = Case::of("dockerhub");
    case.body(r#"{"push_data":{"tag":"a\nb"},"repository":{"repo_url":"\u001b[31m"}}"#);
    assert_eq!(case.accepted().subject.as_deref(), Some(r"\u{1b}[31m for tag a\nb"));
}

#[test]
fn the_vector_of_nexus() {
    let mut case = Case::of("nexus");
    case.secret = Some(secret(&[("token", "token")]));
    let right = "1f908c5acad8f3a7e7b76f1579e428243f5c05bc";
    case.set("x-nexus-webhook-signature", right);
    case.accepted();
    for wrong in [right.to_uppercase(), format!("sha1={right}"), format!("{right} ")] {
        case.headers.insert("x-nexus-webhook-signature", HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
        assert_eq!(case.refused().why, "invalid Nexus signature");
    }
    case.headers.remove("x-nexus-webhook-signature");
    assert_eq!(case.refused().why, "the Nexus signature is missing from header");
}

/// What the peer's own tests filter by, type by type.
#[test]
fn filters_see_the_body() {
    for (type_, body, pointer, expected) in [
        ("github", r#"{"action":"push"}"#, "/action", "push"),
        ("gitlab", r#"{"action":"push"}"#, "/action", "push"),
        ("bitbucket", r#"{"action":"push"}"#, "/action", "push"),
        (
            "generic",
            r#"{"tag":"us-east1-docker.pkg.dev/p/r/hello-world:1.1"}"#,
            "/tag",
            "us-east1-docker.pkg.dev/p/r/hello-world:1.1",
        ),
        ("generic-hmac", r#"{"a":{"b":"c"}}"#, "/a/b", "c"),
        ("generic-oidc", r#"{"a":"b"}"#, "/a", "b"),
        ("quay", r#"{"docker_url":"docker.io"}"#, "/docker_url", "docker.io"),
        ("harbor", r#"{"events":[{"full_name":"prj/repo1"}]}"#, "/events/0/full_name", "prj/repo1"),
        (
            "dockerhub",
            r#"{"push_data":{"tag":"test-org/test-repo:v1.0"}}"#,
            "/push_data/tag",
            "test-org/test-repo:v1.0",
        ),
        ("nexus", r#"{"repositoryName":"npm-proxy"}"#, "/repositoryName", "npm-proxy"),
        ("acr", r#"{"target":{"repository":"hello-world"}}"#, "/target/repository", "hello-world"),
    ] {
        let mut case = Case::of(type_);
        case.body(body).sign(TOKEN);
        assert!(case.accepted().request.is_empty(), "{type_}: nothing is parsed that nobody looks at");
        case.filtered();
        let seen = |case: &Case| Value::Object(case.accepted().request);
        assert_eq!(seen(&case).pointer(pointer).unwrap(), expected, "{type_}");
        case.spec.resource_filter = Some(String::new());
        assert!(case.accepted().request.is_empty(), "{type_}: an empty filter is none");
        case.spec.resource_filter = None;
        case.spec.resources[0].filter = Some("true".into());
        assert_eq!(seen(&case).pointer(pointer).unwrap(), expected, "{type_}");
        if !matches!(type_, "github" | "bitbucket") {
            case.set("content-type", "application/cloudevents+json");
            assert!(case.accepted().request.is_empty(), "{type_}: only application/json counts");
        }
    }
}

#[test]
fn filters_need_an_object() {
    for (body, refused) in [("null", false), ("{}", false), ("[]", true), ("1", true), ("", true), ("{", true)] {
        let mut case = Case::of("generic");
        case.body(body);
        case.accepted();
        case.filtered();
        if refused {
            assert_eq!(case.refused().status(), StatusCode::BAD_REQUEST, "{body}");
            assert!(case.refused().why.starts_with("failed to parse request body as JSON: "), "{body}");
        } else {
            case.accepted();
        }
        case.set("content-type", "text/plain");
        assert!(case.accepted().request.is_empty());
    }
}

#[test]
fn filters_of_gcr_see_the_event_inside() {
    let mut case = Case::of("gcr");
    case.filtered();
    let accepted = case.accepted();
    assert_eq!(
        Value::Object(accepted.request),
        json!({
            "action": "INSERT", "digest": "eu.gcr.io/p/app@sha256:6ec1", "tag": "eu.gcr.io/p/app1:v1.2.3",
        })
    );
    assert_eq!(accepted.claims, None);
    case.pushed(r#"{"action":"DELETE","more":1}"#);
    assert_eq!(Value::Object(case.accepted().request), json!({ "action": "DELETE", "digest": "", "tag": "" }));
    case.set("content-type", "text/plain");
    assert!(case.accepted().request.is_empty());
}

#[test]
fn what_gcr_does_not_take() {
    let mut case = Case::of("gcr");
    for (body, why) in [
        ("", "payload: "),
        ("[]", "payload: it is not an object"),
        (r#"{"message":1}"#, "payload: 'message' is not an object"),
        (r#"{"message":{"data":1}}"#, "payload: 'data' is not a string"),
        (r#"{"message":{"data":"%"}}"#, "body: 'data' is not base64"),
        (r#"{"message":{}}"#, "body: "),
        ("{}", "body: "),
    ] {
        case.body(body);
        assert_eq!(case.refused().status(), StatusCode::BAD_REQUEST);
        assert!(case.refused().why.starts_with(&format!("cannot decode GCR webhook {why}")), "{}", case.refused());
    }
    for event in ["", "[]", r#"{"action":1}"#, r#"{"tag":[]}"#, "{} garbage"] {
        case.pushed(event);
        assert!(case.refused().why.starts_with("cannot decode GCR webhook body: "), "{}", case.refused());
    }
    case.pushed("null");
    case.accepted();
}

#[test]
fn signatures_with_every_hash() {
    for (name, algorithm) in
        [("sha1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), ("sha256", hmac::HMAC_SHA256), ("sha512", hmac::HMAC_SHA512)]
    {
        let mut case = Case::of("generic-hmac");
        case.body("any\0thing");
        case.set("x-signature", &format!("{name}={}", tag(algorithm, TOKEN, &case.body.clone())));
        case.accepted();
    }
    let mut case = Case::of("generic-hmac");
    case.headers.remove("x-signature");
    assert_eq!(case.refused().why, "unable to validate HMAC signature: missing signature");
}
