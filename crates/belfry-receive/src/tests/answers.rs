//! Event filters, delivery ids, and what verdicts carry: the peer's own cases, and where Belfry differs.

use http::StatusCode;
use ring::hmac;

use super::*;

#[test]
fn unlisted_events_are_ignored_and_listed_ones_pass() {
    for (type_, header, event, what) in [
        ("github", "x-github-event", "push", "GitHub event"),
        ("gitlab", "x-gitlab-event", "Push Hook", "GitLab event"),
        ("bitbucket", "x-event-key", "repo:refs_changed", "Bitbucket server event"),
    ] {
        let mut case = Case::of(type_);
        for (listed, passes) in [
            (vec![], true),
            (vec![event.to_owned()], true),
            (vec![event.to_uppercase()], true),
            (vec!["other".to_owned(), event.to_owned()], true),
            (vec!["other".to_owned()], false),
            (vec![event[..3].to_owned()], false),
            (vec![String::new()], false),
        ] {
            case.spec.events.clone_from(&listed);
            if passes {
                assert_eq!(case.accepted().event_type.as_deref(), Some(event), "{type_} {listed:?}");
            } else {
                assert_eq!(case.ignored(), format!("the {what} {event:?} is not authorised"), "{listed:?}");
            }
        }
        case.headers.remove(header);
        let refused = case.refused();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(refused.why, format!("the {what} \"\" is not authorised: no {header}"));
        case.spec.events.clear();
        assert_eq!(case.accepted().event_type, None);
    }
}

#[test]
fn events_of_other_types_are_not_filtered() {
    for type_ in ["generic", "generic-hmac", "generic-oidc", "harbor", "dockerhub", "quay", "gcr", "nexus", "acr"] {
        let mut case = Case::of(type_);
        case.spec.events = vec!["nothing".into()];
        case.accepted();
    }
}

#[test]
fn tests_of_the_connection_are_answered_and_trigger_nothing() {
    for (type_, header, event) in
        [("github", "x-github-event", "ping"), ("bitbucket", "x-event-key", "diagnostics:ping")]
    {
        let mut case = Case::of(type_);
        case.set(header, event);
        for listed in [vec![], vec![event.to_owned()], vec!["push".to_owned()]] {
            case.spec.events = listed;
            assert!(case.ignored().ends_with("only tests the connection"), "{type_}");
        }
        case.sign("another");
        assert_eq!(case.refused().status(), StatusCode::NOT_FOUND);
    }
}

#[test]
fn github_takes_the_better_of_two_signatures() {
    let mut case = Case::of("github");
    let sha1 = |body: &[u8]| format!("sha1={}", tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TOKEN, body));
    let right = sha1(&case.body);
    case.set("x-hub-signature", &right);
    case.set("x-hub-signature-256", "sha256=00");
    case.refused();
    case.set("x-hub-signature-256", "");
    case.accepted();
    case.headers.remove("x-hub-signature-256");
    case.accepted();
    case.headers.remove("x-hub-signature");
    assert_eq!(case.refused().why, "the GitHub signature header is invalid, err: missing signature");
    let bitbucket = Case::of("bitbucket");
    let mut unsigned = Case::of("bitbucket");
    unsigned.headers.remove("x-hub-signature");
    bitbucket.accepted();
    assert_eq!(unsigned.refused().why, "the Bitbucket server signature header is invalid, err: missing signature");
}

#[test]
fn github_and_bitbucket_want_json_or_a_form() {
    for type_ in ["github", "bitbucket"] {
        let mut case = Case::of(type_);
        for content_type in ["application/json; charset=utf-8", "application/x-www-form-urlencoded"] {
            case.set("content-type", content_type);
            case.accepted();
        }
        for content_type in ["text/plain", "application/cloudevents+json", "application/json; =", ""] {
            case.set("content-type", content_type);
            assert_eq!(case.refused().status(), StatusCode::BAD_REQUEST, "{content_type}");
        }
        case.headers.remove("content-type");
        assert_eq!(case.refused().status(), StatusCode::BAD_REQUEST);
    }
}

#[test]
fn a_form_is_signed_as_a_whole_and_not_seen_by_filters() {
    let mut case = Case::of("github");
    case.set("content-type", "application/x-www-form-urlencoded").body("payload=%7B%22action%22%3A%22push%22%7D");
    case.filtered().sign(TOKEN);
    assert!(case.accepted().request.is_empty());
    case.body("payload=%7B%22action%22%3A%22pull%22%7D");
    assert_eq!(case.refused().status(), StatusCode::NOT_FOUND);
}

#[test]
fn delivery_ids() {
    let uuid = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    for (type_, headers, expected) in [
        ("github", vec![("x-github-delivery", uuid)], Some(uuid.to_owned())),
        ("github", vec![("x-github-delivery", ""), ("x-gitea-delivery", uuid)], Some(uuid.to_owned())),
        ("github", vec![("x-github-delivery", ""), ("x-forgejo-delivery", uuid)], Some(uuid.to_owned())),
        ("gitlab", vec![("idempotency-key", uuid), ("x-gitlab-event-uuid", "other")], Some(uuid.to_owned())),
        ("gitlab", vec![("x-gitlab-event-uuid", uuid)], Some(format!("{uuid}:9fb05c402033280ed3a4564b072b443b"))),
        ("gitlab", vec![], None),
        ("bitbucket", vec![("x-request-uuid", uuid)], Some(uuid.to_owned())),
        ("bitbucket", vec![("x-request-id", uuid)], Some(uuid.to_owned())),
        ("nexus", vec![("x-nexus-webhook-delivery", uuid)], Some(uuid.to_owned())),
        ("gcr", vec![], Some("136969346945".to_owned())),
        ("generic", vec![("ce-id", "1"), ("ce-source", "/a")], Some("2:/a1".to_owned())),
        ("generic-hmac", vec![("ce-id", "a1"), ("ce-source", "/")], Some("1:/a1".to_owned())),
        ("harbor", vec![("ce-id", "1"), ("ce-source", "/a")], Some("2:/a1".to_owned())),
        ("generic", vec![("ce-id", "1")], None),
        ("generic", vec![("x-github-delivery", uuid), ("x-request-id", uuid)], None),
        ("dockerhub", vec![], None),
        ("quay", vec![], None),
        ("acr", vec![], None),
    ] {
        let mut case = Case::of(type_);
        for (name, value) in &headers {
            case.set(name, value);
        }
        assert_eq!(case.accepted().delivery_id, expected, "{type_} {headers:?}");
    }
    let mut case = Case::of("github");
    case.set("x-github-delivery", &"x".repeat(5000));
    assert_eq!(case.accepted().delivery_id, None);
    let mut case = Case::of("acr");
    case.body(r#"{"id":"cb8c3971","action":"push"}"#);
    assert_eq!(case.accepted().delivery_id.as_deref(), Some("cb8c3971"));
    case.body(r#"{"id":5}"#);
    assert_eq!(case.accepted().delivery_id, None);
}

#[test]
fn a_cdevent_is_told_by_source_and_id() {
    let document = |id: &str| json!({ "context": { "id": id } }).as_object().unwrap().clone();
    let accepted = |source: &str, id: &str| crate::accepted_cdevent(source, id, "dev.x", "s", document(id));
    assert_eq!(accepted("/a", "1").delivery_id.as_deref(), Some("2:/a1"));
    assert_ne!(accepted("/a", "1").delivery_id, accepted("/", "a1").delivery_id);
    assert_eq!(accepted("/a", "").delivery_id, None);
    assert_eq!(accepted("/a", "1").request["context"]["id"], "1");
    assert_eq!(accepted("/a", "1").claims, None);
}

#[test]
fn the_rules_for_cdevents_are_handed_over() {
    let mut case = Case::of("cdevents");
    let strict = json!({ "validation": "strict", "unknownSchema": "ignore" });
    case.spec.cdevents = Some(serde_json::from_value(strict).unwrap());
    let expected = case.spec.cdevents.unwrap();
    assert_eq!(case.verify(), Verdict::CdEvents(expected));
}
