//! Any header is a token whose keys are asked for, or a refusal; any document is a set of keys, or none.
#![no_main]

use belfry_api::{OidcProvider, ReceiverSpec};
use belfry_receive::{Discovery, Inbound, KeySource, Keys, keys};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const ISSUER: &str = "https://issuer.example";

fuzz_target!(|input: &[u8]| {
    let spec = ReceiverSpec {
        type_: "generic-oidc".to_owned(),
        oidc_providers: vec![OidcProvider { issuer_url: ISSUER.to_owned(), ..OidcProvider::default() }],
        ..ReceiverSpec::default()
    };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", input].concat()) {
        headers.insert("authorization", value);
        if let Ok(Some(source)) = keys(&spec, &Inbound { headers: &headers, body: b"" }) {
            assert_eq!(source, KeySource::Issuer(ISSUER.to_owned()));
        }
    }
    let _ = Discovery::parse(ISSUER, input);
    let _ = Keys::parse(&KeySource::Issuer(ISSUER.to_owned()), KeySource::ALGORITHMS, input);
});
