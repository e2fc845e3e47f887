//! One harness over every type: who has the credential is let in, nobody else is, and nothing is said about it.

use http::StatusCode;

use super::*;
use crate::{Reason, check, check_secret, keys, path};

#[test]
fn the_genuine_request_is_taken() {
    for (type_, case) in Case::all() {
        assert_eq!(check(&case.spec), [], "{type_}");
        assert_eq!(check_secret(&case.spec, "ns", case.secret.as_ref()), None, "{type_}");
        match case.verify() {
            Verdict::CdEvents(rules) => {
                assert_eq!((type_, rules), ("cdevents", belfry_api::ReceiverCdEvents::default()));
            }
            verdict => assert!(matches!(verdict, Verdict::Accepted(_)), "{type_}: {verdict:?}"),
        }
    }
}

#[test]
fn which_types_have_a_credential_besides_their_path() {
    let without: Vec<&str> =
        Case::all().filter(|(_, case)| case.credential().is_none()).map(|(type_, _)| type_).collect();
    assert_eq!(without, ["generic", "dockerhub", "quay", "acr", "cdevents"]);
    // For these the path must not be the same with another token.
    for (type_, case) in Case::all() {
        let path_with = |token: &str| path(&case.spec, "ns", "r", Some(&secret(&[("token", token)]))).unwrap();
        assert_eq!(path_with(TOKEN) == path_with("another"), type_ == "generic-oidc", "{type_}");
    }
}

/// Wrong variants of a credential.
fn bent(right: &str) -> Vec<(&'static str, String)> {
    let mut flipped = right.as_bytes().to_vec();
    let last = flipped.len() - 2;
    flipped[last] = if flipped[last] == b'0' { b'1' } else { b'0' };
    let tail = right.split_once('=').map_or(right, |(_, tail)| tail);
    vec![
        ("cut", right[..right.len() - 1].to_owned()),
        ("longer", format!("{right}0")),
        ("doubled", format!("{right}{right}")),
        ("flipped", String::from_utf8(flipped).unwrap()),
        ("the hash alone", right.split_once('=').map_or("x", |(head, _)| head).to_owned()),
        ("of another hash", format!("sha1={tail}")),
        ("of no hash", format!("none={tail}")),
        ("basic", "Basic czNjcjN0LXQwa2Vu".to_owned()),
        ("bearer of nothing", "Bearer".to_owned()),
        ("dots", "Bearer ..".to_owned()),
        ("not ASCII", "\u{e9}\u{e9}".to_owned()),
    ]
}

/// Every way to be refused for the credential must look the same to the sender, and say nothing of any secret.
#[track_caller]
fn refused_quietly(case: &Case, presented: &str, what: &str) {
    let (type_, refused) = (&case.spec.type_, case.refused());
    assert_eq!(refused.status(), StatusCode::NOT_FOUND, "{type_}, {what}: {refused}");
    assert!(!refused.why.is_empty(), "{type_}, {what}");
    let secrets = [TOKEN, EMAIL, AUDIENCE, presented.strip_prefix("Bearer ").unwrap_or(presented)];
    for value in secrets.into_iter().filter(|value| value.len() > 3) {
        let text = format!("{refused} {refused:?} {:?}", case.secret);
        assert!(!text.contains(value), "{type_}, {what}: {text}");
    }
}

#[test]
fn a_missing_or_wrong_credential_is_refused() {
    for (type_, mut case) in Case::all() {
        let Some(header) = case.credential() else { continue };
        let right = case.headers[header].to_str().unwrap().to_owned();
        case.headers.remove(header);
        refused_quietly(&case, &right, "missing");
        for (what, wrong) in bent(&right).into_iter().chain([("empty", String::new())]) {
            case.headers.insert(header, HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
            refused_quietly(&case, &wrong, what);
        }
        case.set(header, "wrong").headers.append(header, HeaderValue::from_str(&right).unwrap());
        refused_quietly(&case, "wrong", "the right one second");
        case.headers.insert(header, HeaderValue::from_str(&right).unwrap());
        assert!(matches!(case.verify(), Verdict::Accepted(_)), "{type_}: the right one again");
    }
}

#[test]
fn another_receivers_credential_is_refused() {
    for (type_, mut case) in Case::all().filter(|(_, case)| case.credential().is_some()) {
        match type_ {
            "generic-oidc" => case.bearer(&Issuer::new("key-1").token(&claims())),
            "gcr" => case.bearer(&Issuer::new("iap").token(&google_claims())),
            _ => case.sign("another"),
        };
        refused_quietly(&case, "another", "another's");
        assert_eq!(case.refused().reason, Reason::Credential, "{type_}");
    }
}

#[test]
fn a_changed_body_is_refused_where_bodies_are_signed() {
    for type_ in ["generic-hmac", "github", "bitbucket", "nexus"] {
        let mut case = Case::of(type_);
        for change in [r#"{"action":"PUSH"}"#, "", " null", "null "] {
            case.body(change);
            refused_quietly(&case, "", "changed body");
        }
    }
}

#[test]
fn without_a_usable_secret_nobody_is_let_in() {
    for (type_, mut case) in Case::all() {
        if type_ == "generic-oidc" {
            continue;
        }
        let other = ("email", EMAIL);
        for (what, secret) in [
            ("no Secret", None),
            ("no token", Some(secret(&[other]))),
            ("empty token", Some(secret(&[("token", ""), other, ("audience", AUDIENCE)]))),
        ] {
            case.secret = secret;
            assert!(check_secret(&case.spec, "ns", case.secret.as_ref()).is_some(), "{type_}, {what}");
            assert!(path(&case.spec, "ns", "r", case.secret.as_ref()).is_err(), "{type_}, {what}");
            // What the peer lets in: a credential made with nothing.
            case.sign("");
            assert_eq!(case.refused().reason, Reason::NotReady, "{type_}, {what}");
            refused_quietly(&case, "", what);
            if let Some(header) = case.credential() {
                case.headers.remove(header);
                refused_quietly(&case, "", what);
            }
        }
    }
    for missing in ["email", "audience"] {
        for value in [None, Some("")] {
            let mut case = Case::of("gcr");
            let pairs = [("token", TOKEN), ("email", EMAIL), ("audience", AUDIENCE)];
            let pairs: Vec<(&str, &str)> = pairs
                .into_iter()
                .filter_map(|(key, right)| if key == missing { Some((key, value?)) } else { Some((key, right)) })
                .collect();
            case.secret = Some(secret(&pairs));
            assert_eq!(case.refused().reason, Reason::NotReady, "gcr without {missing}");
            assert!(check_secret(&case.spec, "ns", case.secret.as_ref()).unwrap().message.contains(missing));
        }
    }
}

#[test]
fn suspended_and_unknown_receivers_take_nothing() {
    for (type_, mut case) in Case::all() {
        case.spec.suspend = true;
        refused_quietly(&case, "", "suspended");
        assert_eq!(case.refused().reason, Reason::NotReady, "{type_}");
        assert!(keys(&case.spec, &case.inbound()).is_err(), "{type_}");
    }
    let mut case = Case::of("generic");
    case.spec.type_ = "foo".into();
    assert_eq!(case.refused().why, r#"receiver type "foo" not supported"#);
    refused_quietly(&case, "", "unknown type");
}

/// Nobody learns whether a body can be read, or an event is listed, without the credential.
#[test]
fn bodies_and_events_are_looked_at_after_verification_only() {
    for (type_, mut case) in Case::all().filter(|(_, case)| case.credential().is_some()) {
        case.filtered();
        case.spec.events = vec!["nothing".into()];
        case.body("{").set("content-type", "text/nonsense; =");
        case.sign("another");
        if let Some(header) = case.credential().filter(|_| matches!(type_, "gcr" | "generic-oidc")) {
            case.headers.remove(header);
        }
        refused_quietly(&case, "another", "unreadable and unverified");
    }
}

#[test]
fn nothing_that_is_secret_prints() {
    let case = Case::of("gcr");
    let path = path(&case.spec, "ns", "r", case.secret.as_ref()).unwrap();
    assert_eq!(format!("{path:?}"), "/hook/*****");
    assert_eq!(format!("{:?}", case.keys.unwrap()), format!("Keys(1 of {GOOGLE_IAP:?})"));
}
