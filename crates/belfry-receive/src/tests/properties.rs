//! Whatever is sent, nothing panics, and nobody without the credential gets past it.

use proptest::prelude::*;

use super::*;
use crate::{Discovery, Path, keys};

/// Headers that some type looks at.
const HEADERS: [&str; 14] = [
    "authorization",
    "content-type",
    "ce-id",
    "ce-source",
    "ce-type",
    "idempotency-key",
    "x-event-key",
    "x-github-event",
    "x-gitlab-event",
    "x-gitlab-token",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-nexus-webhook-signature",
    "x-signature",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~]{0,40}".prop_map(String::into_bytes),
        "(sha1|sha256|sha512)=[0-9a-fA-F]{0,130}".prop_map(String::into_bytes),
        "Bearer [A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,20}".prop_map(String::into_bytes),
        "[a-z]{1,9}/[a-z+]{1,9}(;[ a-z=\"\\\\]{0,12})?(,[a-z/]{0,9})?".prop_map(String::into_bytes),
        prop::collection::vec(0x80..=0xffu8, 0..20),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = "[{}\\[\\]:,\"a-z0-9 nul]{0,60}".prop_map(String::into_bytes);
    let message = "\\{\"message\":\\{\"data\":\"[A-Za-z0-9+/=]{0,40}\"\\}\\}".prop_map(String::into_bytes);
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), json, message]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_requests_are_refused_where_there_is_a_credential(
        headers in prop::collection::vec((0..HEADERS.len(), value()), 0..6),
        body in body(),
        type_ in 0..RECEIVER_TYPES.len(),
    ) {
        let mut case = Case::of(RECEIVER_TYPES[type_]);
        case.filtered().headers.clear();
        case.spec.events = vec!["push".into()];
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                case.headers.append(HEADERS[name], value);
            }
        }
        case.body = body;
        let _ = keys(&case.spec, &case.inbound());
        let verdict = case.verify();
        if case.credential().is_some() {
            let Verdict::Refused(refused) = &verdict else { panic!("{verdict:?}") };
            prop_assert_eq!(refused.status().as_u16(), 404);
        }
        let printed = format!("{verdict:?}");
        prop_assert!(!printed.contains(TOKEN));
    }

    #[test]
    fn arbitrary_bodies_of_the_right_sender(body in body(), content_type in value(), type_ in 0..RECEIVER_TYPES.len()) {
        let mut case = Case::of(RECEIVER_TYPES[type_]);
        case.filtered().body = body;
        case.sign(TOKEN);
        if let Ok(value) = HeaderValue::from_bytes(&content_type) {
            case.headers.insert("content-type", value);
        }
        match case.verify() {
            Verdict::Refused(refused) => prop_assert_eq!(refused.status().as_u16(), 400),
            Verdict::Accepted(_) | Verdict::CdEvents(_) => {}
            Verdict::Ignored(why) => panic!("{why}"),
        }
    }

    #[test]
    fn arbitrary_documents(document in body(), text in "\\PC{0,80}") {
        let _ = Discovery::parse(ISSUER, &document);
        let _ = Keys::parse(&GOOGLE, KeySource::ALGORITHMS, &document);
        let _ = Path::parse(&text);
    }

    #[test]
    fn every_body_is_taken_with_its_own_signature_only(body in body(), other in body()) {
        for type_ in ["generic-hmac", "github", "bitbucket"] {
            let mut case = Case::of(type_);
            case.body.clone_from(&body);
            case.sign(TOKEN);
            case.accepted();
            case.body.clone_from(&other);
            prop_assert_eq!(matches!(case.verify(), Verdict::Accepted(_)), body == other);
        }
    }
}
