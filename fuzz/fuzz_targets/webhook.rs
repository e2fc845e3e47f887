//! Any body from the right sender is taken, ignored or refused, whatever the type; the same from anybody else is refused
//! for its credential alone.
#![no_main]

use belfry_api::{LocalObjectReference, RECEIVER_TYPES, ReceiverSpec};
use belfry_core::{Time, secret::SecretData};
use belfry_receive::{Given, Inbound, Reason, Verdict, keys, no_claims, verify};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ring::hmac;

const TOKEN: &str = "token";

fn tag(algorithm: hmac::Algorithm, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, TOKEN.as_bytes()), body);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn credential(type_: &str, body: &[u8]) -> Option<(&'static str, String)> {
    let sha256 = || format!("sha256={}", tag(hmac::HMAC_SHA256, body));
    Some(match type_ {
        "generic-hmac" => ("x-signature", sha256()),
        "github" => ("x-hub-signature-256", sha256()),
        "bitbucket" => ("x-hub-signature", sha256()),
        "gitlab" => ("x-gitlab-token", TOKEN.to_owned()),
        "harbor" => ("authorization", TOKEN.to_owned()),
        "nexus" => ("x-nexus-webhook-signature", tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, body)),
        _ => return None,
    })
}

fuzz_target!(|input: (u8, bool, &str, &[u8])| {
    let (number, filtered, content_type, body) = input;
    let type_ = RECEIVER_TYPES[usize::from(number) % RECEIVER_TYPES.len()];
    let spec = ReceiverSpec {
        type_: type_.to_owned(),
        secret_ref: Some(LocalObjectReference { name: "s".into() }),
        resource_filter: filtered.then(|| "true".to_owned()),
        ..ReceiverSpec::default()
    };
    let pairs = ["token", "email", "audience"].map(|key| (key.to_owned(), TOKEN.as_bytes().to_vec()));
    let secret: SecretData = pairs.into_iter().collect();
    let given = Given { secret: Some(&secret), keys: None, claims: &no_claims, now: Time(0) };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert("content-type", value);
    }
    let _ = keys(&spec, &Inbound { headers: &headers, body });
    let Some((name, value)) = credential(type_, body) else {
        let _ = verify(&spec, &Inbound { headers: &headers, body }, &given);
        return;
    };
    let stranger = verify(&spec, &Inbound { headers: &headers, body }, &given);
    assert!(matches!(stranger, Verdict::Refused(refused) if refused.reason == Reason::Credential));
    let Ok(value) = HeaderValue::from_str(&value) else { return };
    headers.insert(name, value);
    match verify(&spec, &Inbound { headers: &headers, body }, &given) {
        Verdict::Refused(refused) => assert_eq!(refused.reason, Reason::Payload, "{refused}"),
        Verdict::Accepted(_) | Verdict::Ignored(_) | Verdict::CdEvents(_) => {}
    }
});
