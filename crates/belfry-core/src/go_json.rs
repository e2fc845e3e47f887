//! JSON exactly as Go's `encoding/json` writes it. Signatures over a body, and ids derived from it, come out the same
//! as the peer's only if every byte does.

use std::io;

use belfry_api::{Event, ObjectReference};
use serde::{Serialize, ser::SerializeMap};
use serde_json::ser::Formatter;

/// The value as compact JSON in Go's spelling: `<`, `>`, `&`, U+2028 and U+2029 are escaped, and whole floats have no
/// fraction. A value that JSON can't express (a map whose keys aren't text) comes out as `null`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Go)) {
        Ok(()) => out,
        Err(_) => b"null".to_vec(),
    }
}

/// An event as the body of a POST: keys in the order of the peer's type, what is empty left out as there, the time in
/// UTC and whole seconds (`null` without one), and keys that this version doesn't know at the end, in their order.
pub fn event(event: &Event) -> Vec<u8> {
    to_vec(&Wire(event))
}

/// An event that serialises as [`event`] writes it, for bodies that contain one.
pub struct Wire<'a>(pub &'a Event);

impl Serialize for Wire<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("involvedObject", &Reference(&event.involved_object))?;
        map.serialize_entry("severity", &event.severity)?;
        map.serialize_entry("timestamp", &event.timestamp.map(seconds))?;
        map.serialize_entry("message", &event.message)?;
        map.serialize_entry("reason", &event.reason)?;
        if !event.metadata.is_empty() {
            map.serialize_entry("metadata", &event.metadata)?;
        }
        map.serialize_entry("reportingController", &event.reporting_controller)?;
        if !event.reporting_instance.is_empty() {
            map.serialize_entry("reportingInstance", &event.reporting_instance)?;
        }
        for (key, value) in &event.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// RFC 3339 in UTC and whole seconds, as every time on Flux's wire.
pub fn seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

struct Reference<'a>(&'a ObjectReference);

impl Serialize for Reference<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let object = self.0;
        let pairs = [
            ("kind", &object.kind),
            ("namespace", &object.namespace),
            ("name", &object.name),
            ("uid", &object.uid),
            ("apiVersion", &object.api_version),
            ("resourceVersion", &object.resource_version),
            ("fieldPath", &object.field_path),
        ];
        serializer.collect_map(pairs.into_iter().filter(|(_, value)| !value.is_empty()))
    }
}

struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut written = 0;
        for (at, c) in fragment.char_indices() {
            if matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                writer.write_all(&fragment.as_bytes()[written..at])?;
                write!(writer, "\\u{:04x}", u32::from(c))?;
                written = at + c.len_utf8();
            }
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            let text = if text.contains("e-") { text } else { text.replace('e', "e+") };
            return writer.write_all(text.as_bytes());
        }
        write!(writer, "{value}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;

    fn text(value: &serde_json::Value) -> String {
        String::from_utf8(to_vec(value)).unwrap()
    }

    #[test]
    fn text_is_escaped_as_in_go() {
        assert_eq!(text(&json!("<a href=\"x\">&\\/</a>")), r#""\u003ca href=\"x\"\u003e\u0026\\/\u003c/a\u003e""#);
        assert_eq!(text(&json!("\u{2028}é\u{2029}💣")), "\"\\u2028é\\u2029💣\"");
        assert_eq!(
            text(&json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}")),
            "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\u{7f}\""
        );
        assert_eq!(text(&json!({"a<b": ["&"]})), r#"{"a\u003cb":["\u0026"]}"#);
    }

    #[test]
    fn numbers_are_written_as_in_go() {
        let written = |value: f64| String::from_utf8(to_vec(&value)).unwrap();
        assert_eq!(written(1.0), "1");
        assert_eq!(written(0.1), "0.1");
        assert_eq!(written(1e20), "100000000000000000000");
        assert_eq!(written(1e21), "1e+21");
        assert_eq!(written(-1.5e-7), "-1.5e-7");
        assert_eq!(written(0.0), "0");
    }

    #[test]
    fn an_empty_event_has_the_keys_that_the_peer_always_writes() {
        assert_eq!(
            String::from_utf8(event(&Event::default())).unwrap(),
            r#"{"involvedObject":{},"severity":"","timestamp":null,"message":"","reason":"","reportingController":""}"#
        );
    }

    #[test]
    fn times_are_in_utc_and_whole_seconds_and_unknown_keys_come_last() {
        let mut sample = Event {
            timestamp: "2022-09-30T06:40:29.923456+02:00".parse().ok(),
            reporting_instance: "pod".into(),
            ..Event::default()
        };
        sample.extra.insert("zz".into(), json!("<"));
        let written = String::from_utf8(event(&sample)).unwrap();
        assert!(written.contains(r#""timestamp":"2022-09-30T04:40:29Z""#), "{written}");
        assert!(written.ends_with(r#""reportingInstance":"pod","zz":"\u003c"}"#), "{written}");
    }

    /// HMAC-SHA256 by hand, for this crate has no need of it otherwise.
    fn hmac(key: &[u8], message: &[u8]) -> String {
        let mut block = [0u8; 64];
        block[..key.len()].copy_from_slice(key);
        let inner = Sha256::new().chain_update(block.map(|b| b ^ 0x36)).chain_update(message).finalize();
        let outer = Sha256::new().chain_update(block.map(|b| b ^ 0x5c)).chain_update(inner).finalize();
        outer.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_give_the_peers_signatures() {
        let webapp = Event {
            involved_object: ObjectReference {
                kind: "GitRepository".into(),
                namespace: "gitops-system".into(),
                name: "webapp".into(),
                ..ObjectReference::default()
            },
            severity: "info".into(),
            timestamp: jiff::Timestamp::from_second(1_664_520_029).ok(),
            message: "message".into(),
            reason: "reason".into(),
            metadata: [("test".into(), "metadata".into())].into(),
            reporting_controller: "source-controller".into(),
            reporting_instance: "source-controller-xyz".into(),
            ..Event::default()
        };
        assert_eq!(
            hmac(b"7152fed34dd6149a7c75a276c510da27cb6f82b0", &event(&webapp)),
            "65b018549b1254e7226d1c08f9567ee45bc9de0fc4e7b1a40253f9a018b08be7"
        );

        let mut probe = Event {
            involved_object: ObjectReference {
                kind: "Kustomization".into(),
                namespace: "apps".into(),
                name: "app".into(),
                uid: "7d0cdc51-ddcf-4743-b223-83ca5c699632".into(),
                api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
                resource_version: "123".into(),
                ..ObjectReference::default()
            },
            severity: "info".into(),
            timestamp: jiff::Timestamp::from_second(1_664_520_029).ok(),
            message: "line1 <b>&x</b>\nline2".into(),
            reason: "HealthCheckFailed".into(),
            metadata: [
                ("revision".into(), "main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738".into()),
                ("summary".into(), "sum:mary".into()),
            ]
            .into(),
            reporting_controller: "kustomize-controller".into(),
            reporting_instance: "kustomize-controller-abc".into(),
            ..Event::default()
        };
        assert_eq!(event(&probe).len(), 522);
        assert_eq!(hmac(b"key", &event(&probe)), "99e55dabad94559d9513b4024891f56caf698573840d2e6dc6bc812c168f0af9");
        probe.severity = "error".into();
        assert_eq!(hmac(b"key", &event(&probe)), "3561363818fe3c229a194ab01c885a73621b5d848ffdab6be08e00a97e96441f");
    }
}
