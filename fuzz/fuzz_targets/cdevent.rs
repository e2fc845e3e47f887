//! Any body is a batch of CDEvents or a refusal, in both modes; what strict mode takes, the other takes too.
#![no_main]

use belfry_cdevents::{
    Mode, UnknownSchema,
    http::{BATCH, STRUCTURED, parse},
};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (form, ignore, body) = input;
    let mut headers = HeaderMap::new();
    let content_type = ["application/json", STRUCTURED, BATCH][usize::from(form) % 3];
    headers.insert("content-type", HeaderValue::from_static(content_type));
    let schemas = if ignore { UnknownSchema::Ignore } else { UnknownSchema::Reject };
    let lenient = parse(&headers, body, Mode::Default, schemas);
    if parse(&headers, body, Mode::Strict, schemas).is_ok() {
        assert!(lenient.is_ok());
    }
});
