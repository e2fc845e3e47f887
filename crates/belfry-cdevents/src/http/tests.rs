//! Requests in, events or reasons out.

use ::http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MERGED: &str = "dev.cdevents.change.merged.0.3.0";

fn document() -> Value {
    json!({
        "context": {
            "specversion": "0.5.1", "id": "1", "source": "/flux", "type": MERGED, "timestamp": "2026-03-01T10:00:00Z",
            "chainId": "c",
        },
        "subject": {"id": "50% \"ü\"", "content": {}},
    })
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn of(outgoing: &Outgoing) -> HeaderMap {
    let mut pairs = vec![("content-type", outgoing.content_type)];
    pairs.extend(outgoing.headers.iter().map(|(name, value)| (*name, value.as_str())));
    headers(&pairs)
}

fn read(headers: &HeaderMap, body: &[u8], mode: Mode) -> Result<Vec<CdEvent>, Refused> {
    parse(headers, body, mode, UnknownSchema::Reject)
}

/// `ok`, with the attributes that differ, or why not.
fn said(headers: &HeaderMap, body: &[u8], mode: Mode) -> String {
    match read(headers, body, mode) {
        Ok(events) => {
            let differ: Vec<&str> = events.iter().flat_map(|event| &event.mismatches).map(|a| a.name()).collect();
            format!("{} ok {}", events.len(), differ.join(" ")).trim().to_owned()
        }
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn what_is_sent_is_read() {
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let outgoing = request(&document(), mode);
        let [event] = read(&of(&outgoing), &outgoing.body, Mode::Strict).unwrap().try_into().unwrap();
        assert_eq!(event.data, document());
        assert_eq!((event.id.as_str(), event.source.as_str(), event.event_type.as_str()), ("1", "/flux", MERGED));
        assert_eq!((event.subject.as_str(), event.chain_id.as_deref()), ("50% \"ü\"", Some("c")));
        assert_eq!((event.spec, event.spec_version.as_str()), (Spec::V0_5, "0.5.1"));
        assert_eq!(event.timestamp.as_deref(), Some("2026-03-01T10:00:00Z"));
        assert_eq!(event.envelope_type.as_deref(), Some(MERGED));
        assert!(event.mismatches.is_empty());
        assert!(event.passes(&["dev.cdevents.change.merged"]) && !event.passes(&["dev.cdevents.build"]));
    }
    let binary = request(&document(), ContentMode::Binary);
    let subject = binary.headers.iter().find(|(name, _)| *name == "ce-subject").unwrap();
    assert_eq!(subject.1, "50%25%20%22%C3%BC%22");
}

#[test]
fn binary_mode() {
    let all = of(&request(&document(), ContentMode::Binary));
    let body = document().to_string();
    let mut lines = Vec::new();
    for (name, value) in [
        ("ce-type", Some("other")),
        ("ce-id", Some("other")),
        ("ce-source", Some("")),
        ("ce-subject", Some("50% \"ü\"")),
        ("ce-subject", None),
        ("ce-time", Some("2026-03-01T12:00:00+02:00")),
        ("ce-time", Some("2026-03-01T12:00:00Z")),
        ("ce-time", Some("yesterday")),
        ("ce-time", None),
        ("ce-specversion", Some("0.3")),
        ("ce-specversion", None),
        ("content-type", Some("application/json; charset=utf-8")),
        ("content-type", Some("text/plain")),
        ("content-type", Some("Application/CloudEvents+JSON")),
        ("content-type", None),
    ] {
        let mut changed = all.clone();
        changed.remove(name);
        if let Some(value) = value {
            changed.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        let verdict = |mode| said(&changed, body.as_bytes(), mode);
        lines.push(format!("{name}: {value:?} | {} | {}", verdict(Mode::Default), verdict(Mode::Strict)));
    }
    let bare = |mode| said(&HeaderMap::new(), body.as_bytes(), mode);
    lines.push(format!("no headers | {} | {}", bare(Mode::Default), bare(Mode::Strict)));
    insta::assert_snapshot!("binary_mode", lines.join("\n"));
}

#[test]
fn structured_mode_and_batches() {
    let envelope: Value = serde_json::from_slice(&request(&document(), ContentMode::Structured).body).unwrap();
    let with = |name: &str, value: Value| {
        let mut changed = envelope.clone();
        let members = changed.as_object_mut().unwrap();
        members.remove(name);
        if !value.is_null() {
            members.insert(name.into(), value);
        }
        changed
    };
    let base64 = {
        let text = base64::engine::general_purpose::STANDARD.encode(document().to_string());
        let mut changed = with("data", Value::Null);
        changed["data_base64"] = text.into();
        changed
    };
    let invalid = with("data", json!({"context": {"type": MERGED}, "subject": {}}));
    let table = [
        (STRUCTURED, "as it is", envelope.clone()),
        ("APPLICATION/CloudEvents+JSON; charset=UTF-8", "media type in another case", envelope.clone()),
        (STRUCTURED, "another id", with("id", json!("2"))),
        (STRUCTURED, "no id", with("id", Value::Null)),
        (STRUCTURED, "a number as id", with("id", json!(2))),
        (STRUCTURED, "another type", with("type", json!("other"))),
        (STRUCTURED, "another subject", with("subject", json!("other"))),
        (STRUCTURED, "no subject", with("subject", Value::Null)),
        (STRUCTURED, "another time", with("time", json!("2026-03-01T10:00:01Z"))),
        (STRUCTURED, "no time", with("time", Value::Null)),
        (STRUCTURED, "version 0.3", with("specversion", json!("0.3"))),
        (STRUCTURED, "no version", with("specversion", Value::Null)),
        (STRUCTURED, "no datacontenttype", with("datacontenttype", Value::Null)),
        (STRUCTURED, "XML as datacontenttype", with("datacontenttype", json!("text/xml"))),
        (STRUCTURED, "data as text", with("data", json!(document().to_string()))),
        (STRUCTURED, "data in base64", base64.clone()),
        (STRUCTURED, "data twice", {
            let mut both = base64;
            both["data"] = document();
            both
        }),
        (STRUCTURED, "no data", with("data", Value::Null)),
        (STRUCTURED, "invalid data", invalid.clone()),
        (STRUCTURED, "a list", json!([envelope])),
        (BATCH, "two", json!([envelope, with("id", json!("2"))])),
        (BATCH, "none", json!([])),
        (BATCH, "one of two is invalid", json!([envelope, invalid])),
        (BATCH, "no list", envelope.clone()),
        (BATCH, "too many", Value::Array(vec![json!({}); bounds::BATCH + 1])),
        ("application/json", "an envelope as if it were the document", envelope.clone()),
    ];
    let lines: Vec<String> = table
        .iter()
        .map(|(content_type, name, body)| {
            let headers = headers(&[("content-type", content_type)]);
            let verdict = |mode| said(&headers, body.to_string().as_bytes(), mode);
            format!("{content_type} | {name} | {} | {}", verdict(Mode::Default), verdict(Mode::Strict))
        })
        .collect();
    insta::assert_snapshot!("structured_mode_and_batches", lines.join("\n"));
}

#[test]
fn what_is_no_document_is_refused() {
    let deep = format!("{}{}", "[".repeat(bounds::DEPTH + 1), "]".repeat(bounds::DEPTH + 1));
    let with_depth = document().to_string().replacen("{}", &format!("{{\"repository\":{deep}}}"), 1);
    let event = document().to_string();
    for body in [
        "",
        "null",
        "[]",
        "7",
        "{",
        "not json",
        "\u{feff}{}",
        &format!("{event} x"),
        &format!("{event}\n{event}"),
        &format!("[{event}]"),
        &deep,
        &with_depth,
    ] {
        for mode in [Mode::Default, Mode::Strict] {
            for content_type in ["application/json", STRUCTURED] {
                assert!(read(&headers(&[("content-type", content_type)]), body.as_bytes(), mode).is_err(), "{body}");
            }
        }
    }
    let large = vec![b' '; bounds::BODY + 1];
    assert_eq!(read(&HeaderMap::new(), &large, Mode::Default), Err(Refused::TooLarge));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        body in prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), ".{0,99}".prop_map(String::into_bytes)],
        (name, value) in ("[a-z-]{1,9}", proptest::collection::vec(32u8..127, 0..20)),
        media_type in proptest::sample::select(vec!["", "application/json", STRUCTURED, BATCH]),
    ) {
        let mut all = headers(&[("content-type", media_type)]);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&value)) {
            all.insert(name, value);
        }
        for mode in [Mode::Default, Mode::Strict] {
            let read = read(&all, &body, mode);
            if media_type != BATCH {
                prop_assert!(read.is_err());
            }
        }
    }

    #[test]
    fn a_document_with_bytes_changed_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>(), enveloped in any::<bool>()) {
        let mode = if enveloped { ContentMode::Structured } else { ContentMode::Binary };
        let mut outgoing = request(&document(), mode);
        let at = at.index(outgoing.body.len());
        outgoing.body[at] = byte;
        for mode in [Mode::Default, Mode::Strict] {
            let _ = read(&of(&outgoing), &outgoing.body, mode);
        }
    }

    #[test]
    fn whatever_text_an_attribute_has_it_comes_through(id in ".{1,30}", subject in ".{1,30}") {
        let mut sent = document();
        sent["context"]["id"] = id.clone().into();
        sent["subject"]["id"] = subject.clone().into();
        let outgoing = request(&sent, ContentMode::Binary);
        for (_, value) in &outgoing.headers {
            prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()));
        }
        let read = read(&of(&outgoing), &outgoing.body, Mode::Strict);
        let event = &read.unwrap()[0];
        prop_assert_eq!((&event.id, &event.subject), (&id, &subject));
    }
}
