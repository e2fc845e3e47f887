//! Reading an Event as leniently as the peer does: keys in any case, unknown keys kept, null for any field, and no field
//! required; but nothing of a wrong type, and nothing behind the end.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use belfry_api::{Event, ObjectReference};
use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// A body that is not an Event.
#[derive(Debug, thiserror::Error)]
#[error("not a Flux event: {0}")]
pub struct BadEvent(String);

/// Reads the body of a POST.
///
/// # Errors
/// When it isn't a JSON object (or `null`, an event without any field) with the types of an Event; the message names the
/// field and the position.
pub fn read(body: &[u8]) -> Result<Event, BadEvent> {
    match serde_json::from_slice::<Option<Wire<Event>>>(body) {
        Ok(event) => Ok(event.map(|wire| wire.0).unwrap_or_default()),
        // Read again, with the path this time: it costs too much to track for every event that is well-formed.
        Err(error) => {
            let mut json = serde_json::Deserializer::from_slice(body);
            Err(BadEvent(match serde_path_to_error::deserialize::<_, Option<Wire<Event>>>(&mut json) {
                Err(located) if located.path().iter().next().is_some() => located.to_string(),
                _ => error.to_string(),
            }))
        }
    }
}

/// A type of `belfry-api` as it stands on the wire.
struct Wire<T>(T);

impl<'de> Deserialize<'de> for Wire<Event> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = Wire<Event>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut event = Event::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match key.folded(EVENT_KEYS) {
                "involvedObject" => {
                    if let Some(object) = map.next_value::<Option<Wire<ObjectReference>>>()? {
                        event.involved_object = object.0;
                    }
                }
                "severity" => set(&mut map, &mut event.severity)?,
                "timestamp" => event.timestamp = timestamp(map.next_value::<Option<Key<'de>>>()?)?,
                "message" => set(&mut map, &mut event.message)?,
                "reason" => set(&mut map, &mut event.reason)?,
                "metadata" => {
                    let pairs = map.next_value::<Option<BTreeMap<String, Option<String>>>>()?.unwrap_or_default();
                    event.metadata = pairs.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect();
                }
                "reportingController" => set(&mut map, &mut event.reporting_controller)?,
                "reportingInstance" => set(&mut map, &mut event.reporting_instance)?,
                _ => {
                    let value = map.next_value::<Value>()?;
                    event.extra.insert(key.0.into_owned(), value);
                }
            }
        }
        Ok(Wire(event))
    }
}

impl<'de> Deserialize<'de> for Wire<ObjectReference> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Wire<ObjectReference>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object reference")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = ObjectReference::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let field = match key.folded(OBJECT_KEYS) {
                "kind" => &mut object.kind,
                "namespace" => &mut object.namespace,
                "name" => &mut object.name,
                "uid" => &mut object.uid,
                "apiVersion" => &mut object.api_version,
                "resourceVersion" => &mut object.resource_version,
                "fieldPath" => &mut object.field_path,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            set(&mut map, field)?;
        }
        Ok(Wire(object))
    }
}

const EVENT_KEYS: &[&str] = &[
    "involvedObject",
    "severity",
    "timestamp",
    "message",
    "reason",
    "metadata",
    "reportingController",
    "reportingInstance",
];

const OBJECT_KEYS: &[&str] = &["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];

/// A string that is borrowed from the body where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl Key<'_> {
    /// The one of `names` that this key is, whatever its case.
    fn folded<'a>(&'a self, names: &[&'a str]) -> &'a str {
        names.iter().find(|name| name.eq_ignore_ascii_case(&self.0)).copied().unwrap_or(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

fn set<'de, A: MapAccess<'de>>(map: &mut A, field: &mut String) -> Result<(), A::Error> {
    if let Some(text) = map.next_value::<Option<String>>()? {
        *field = text;
    }
    Ok(())
}

/// Go's zero time stands for "none", as it does for the peer.
fn timestamp<E: serde::de::Error>(text: Option<Key<'_>>) -> Result<Option<Timestamp>, E> {
    let Some(Key(text)) = text else { return Ok(None) };
    let at: Timestamp = text.parse().map_err(|e| E::custom(format_args!("timestamp {text:?}: {e}")))?;
    Ok((at.as_second() != GO_ZERO).then_some(at))
}

/// 0001-01-01T00:00:00Z in seconds since the Unix epoch.
const GO_ZERO: i64 = -62_135_596_800;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whatever_the_peer_accepts_is_accepted() {
        for body in ["null", "{}", " { } ", r#"{"metadata":null,"involvedObject":null,"severity":null}"#] {
            assert_eq!(read(body.as_bytes()).unwrap(), Event::default(), "{body}");
        }
        let event = read(
            br#"{"INVOLVEDOBJECT":{"Kind":"K","apiversion":"g/v1","new":1},"Timestamp":"2022-09-30T06:40:29.5+02:00",
                "severity":"whatever","metadata":{"a":"\u0041"},"action":"x","relatedObject":{"kind":"Pod"}}"#,
        )
        .unwrap();
        assert_eq!(event.involved_object.kind, "K");
        assert_eq!(event.involved_object.group(), "g");
        assert_eq!(event.timestamp.unwrap().to_string(), "2022-09-30T04:40:29.5Z");
        assert_eq!(event.metadata["a"], "A");
        assert_eq!(event.extra["relatedObject"]["kind"], "Pod");
        assert_eq!(read(br#"{"timestamp":"0001-01-01T00:00:00Z"}"#).unwrap().timestamp, None);
    }

    #[test]
    fn what_is_refused_is_named() {
        let table = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("[]", "invalid type: sequence, expected a JSON object at line 1 column 0"),
            ("{} x", "trailing characters at line 1 column 4"),
            (r#"{"severity":1}"#, "severity: invalid type: integer `1`, expected a string at line 1 column 13"),
            (r#"{"metadata":{"a":{"b":1}}}"#, "metadata.a: invalid type: map, expected a string at line 1 column 17"),
            (r#"{"involvedObject":{"kind":[]}}"#, "involvedObject.kind: invalid type: sequence, expected a string"),
            (r#"{"timestamp":"yesterday"}"#, "timestamp \"yesterday\""),
        ];
        for (body, expected) in table {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&body);
        }

        #[test]
        fn what_is_written_reads_back(message in ".*", key in ".*", value in ".*", unix in 0i64..4_000_000_000) {
            let event = Event {
                message, metadata: [(key, value)].into(), timestamp: Timestamp::from_second(unix).ok(), ..Event::default()
            };
            prop_assert_eq!(read(&crate::go_json::event(&event)).unwrap(), event);
        }
    }
}
