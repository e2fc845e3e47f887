//! The attributes of a CloudEvent that repeat what the document in it says.

use std::fmt;

use ::http::HeaderMap;
use serde_json::{Map, Value};

use super::Refused;
use crate::validate::{Valid, quoted};

/// An attribute that must equal a member of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `id`
    Id,
    /// `source`
    Source,
    /// `type`
    Type,
    /// `subject`
    Subject,
    /// `time`
    Time,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Id, Self::Source, Self::Type, Self::Subject, Self::Time];

    /// Its name; with `ce-` before it, the name of its header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::Subject => "subject",
            Self::Time => "time",
        }
    }

    /// The member of the document that it must equal.
    pub fn field(self) -> &'static str {
        match self {
            Self::Id => "context.id",
            Self::Source => "context.source",
            Self::Type => "context.type",
            Self::Subject => "subject.id",
            Self::Time => "context.timestamp",
        }
    }

    /// Its header.
    pub fn header(self) -> &'static str {
        match self {
            Self::Id => "ce-id",
            Self::Source => "ce-source",
            Self::Type => "ce-type",
            Self::Subject => "ce-subject",
            Self::Time => "ce-time",
        }
    }

    fn of<'a>(self, document: &Valid<'a>) -> Option<&'a str> {
        match self {
            Self::Id => Some(document.id),
            Self::Source => Some(document.source),
            Self::Type => Some(document.event_type),
            Self::Subject => Some(document.subject),
            Self::Time => document.timestamp,
        }
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The attributes as they came. An empty one is none.
pub(super) struct Envelope([Option<String>; 5]);

impl Envelope {
    pub(super) fn of_headers(headers: &HeaderMap) -> Self {
        Self(Attribute::ALL.map(|attribute| {
            let value = headers.get(attribute.header())?.as_bytes().trim_ascii();
            (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
        }))
    }

    pub(super) fn of_members(item: &Map<String, Value>) -> Result<Self, Refused> {
        let mut attributes = [const { None }; 5];
        for attribute in Attribute::ALL {
            attributes[attribute as usize] = match item.get(attribute.name()) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone()).filter(|text| !text.is_empty()),
                Some(_) => return Err(Refused::NotCloudEvent("an attribute isn't a text")),
            };
        }
        Ok(Self(attributes))
    }

    /// Whether the attribute says what the document says. Headers carry some characters escaped, and not all senders
    /// escape them; times are compared as points in time.
    pub(super) fn check(&self, attribute: Attribute, document: &Valid<'_>) -> Result<(), Refused> {
        let expected = attribute.of(document);
        let Some(found) = self.0[attribute as usize].as_deref() else {
            // A document without a time, which only the default mode takes, has nothing to repeat.
            return if expected.is_none() { Ok(()) } else { Err(Refused::Lacks(attribute)) };
        };
        let Some(expected) = expected else { return Ok(()) };
        let same_time = || {
            let [one, other] = [found, expected].map(|text| text.parse::<jiff::Timestamp>().ok());
            one.is_some() && one == other
        };
        if found == expected || decoded(found) == expected.as_bytes() || (attribute == Attribute::Time && same_time()) {
            return Ok(());
        }
        Err(Refused::Differs { attribute, found: quoted(found), expected: quoted(expected) })
    }

    pub(super) fn into_type(self) -> Option<String> {
        let [_, _, event_type, _, _] = self.0;
        event_type
    }
}

/// The text with its escapes resolved; what isn't an escape stays.
pub(super) fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}
