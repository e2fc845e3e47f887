//! CloudEvents over HTTP as values: [`parse`] takes a request apart, [`request`] puts one together. Binary and
//! structured mode both ways; batches, and bare CDEvents without any `ce-` header, are only ever read.

mod emit;
mod envelope;

use ::http::{HeaderMap, header};
use base64::Engine as _;
pub use emit::{ContentMode, Outgoing, request};
pub use envelope::Attribute;
use serde_json::{Map, Value};

use crate::{
    Invalid, Mode, Spec, UnknownSchema, bounds,
    validate::{is_json, quoted, validate},
};
use envelope::Envelope;

/// A CDEvent that was received, and found valid.
#[derive(Clone, Debug, PartialEq)]
pub struct CdEvent {
    /// `context.id`; with `source` it is unique.
    pub id: String,
    /// `context.source`.
    pub source: String,
    /// `context.type`, such as `dev.cdevents.change.merged.0.3.0`.
    pub event_type: String,
    /// The version of the spec whose rules it follows.
    pub spec: Spec,
    /// `context.version` or `context.specversion` as sent.
    pub spec_version: String,
    /// `context.timestamp` as sent.
    pub timestamp: Option<String>,
    /// `context.chainId`.
    pub chain_id: Option<String>,
    /// `subject.id`.
    pub subject: String,
    /// The type that the envelope gives (`Ce-Type`, or `type` in structured mode): what filters compare.
    pub envelope_type: Option<String>,
    /// Attributes of the envelope that differ from the document or lack. In strict mode only the `id` of a batch's
    /// event can.
    pub mismatches: Vec<Attribute>,
    /// The whole document as it came.
    pub data: Value,
}

impl CdEvent {
    /// Whether a receiver with these `spec.events` lets it pass.
    pub fn passes<S: AsRef<str>>(&self, entries: &[S]) -> bool {
        crate::filter::allows(entries, self.envelope_type.as_deref(), &self.event_type)
    }
}

/// A request that holds no CDEvents, or one that isn't valid. The text says which and why; it repeats little of what
/// was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The body is longer than [`bounds::BODY`].
    #[error("the body has more than {} bytes", bounds::BODY)]
    TooLarge,
    /// A batch of more than [`bounds::BATCH`].
    #[error("the batch has more than {} events", bounds::BATCH)]
    TooMany,
    /// The body, or the data in it, isn't one JSON document.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// What should be an envelope isn't.
    #[error("not a CloudEvent of version 1.0: {0}")]
    NotCloudEvent(&'static str),
    /// Strict mode: the content type of a CDEvent in binary mode.
    #[error("the content type must be application/json, is {0:?}")]
    ContentType(String),
    /// The envelope lacks an attribute that it must have.
    #[error("the CloudEvents attribute {0} is missing")]
    Lacks(Attribute),
    /// The envelope and the document disagree.
    #[error("the CloudEvents attribute {attribute} is {found:?}, but {} is {expected:?}", attribute.field())]
    Differs {
        /// The attribute.
        attribute: Attribute,
        /// What it says.
        found: String,
        /// What the document says.
        expected: String,
    },
    /// The document isn't a CDEvent.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// One event of a batch is refused, and with it the batch.
    #[error("event {index} of the batch: {refused}")]
    InBatch {
        /// Which, counted from 0.
        index: usize,
        /// Why.
        refused: Box<Refused>,
    },
}

/// Reads a request: all of its events, or none.
///
/// # Errors
/// When anything in it isn't a valid CDEvent.
pub fn parse(headers: &HeaderMap, body: &[u8], mode: Mode, schemas: UnknownSchema) -> Result<Vec<CdEvent>, Refused> {
    if body.len() > bounds::BODY {
        return Err(Refused::TooLarge);
    }
    let json =
        |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| Refused::NotJson(error.to_string()));
    let reading = Reading { mode, schemas };
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let document = json(body)?;
    if media_type.eq_ignore_ascii_case(BATCH) {
        let Value::Array(items) = document else { return Err(Refused::NotCloudEvent("a batch is a list")) };
        return reading.batch(items);
    }
    if media_type.eq_ignore_ascii_case(STRUCTURED) && !(mode == Mode::Default && is_bare(&document)) {
        return Ok(vec![reading.enveloped(document, false)?]);
    }
    if mode == Mode::Strict && !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Refused::ContentType(quoted(content_type)));
    }
    Ok(vec![reading.binary(headers, document)?])
}

/// Media type of one event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of a batch.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// The peer never looks at the content type, so a CDEvent with the wrong one must pass.
fn is_bare(document: &Value) -> bool {
    document.get("context").is_some() && document.get("specversion").is_none()
}

#[derive(Clone, Copy)]
struct Reading {
    mode: Mode,
    schemas: UnknownSchema,
}

impl Reading {
    fn batch(self, items: Vec<Value>) -> Result<Vec<CdEvent>, Refused> {
        if items.len() > bounds::BATCH {
            return Err(Refused::TooMany);
        }
        let read = |(index, item)| {
            self.enveloped(item, true).map_err(|refused| Refused::InBatch { index, refused: Box::new(refused) })
        };
        items.into_iter().enumerate().map(read).collect()
    }

    /// An envelope around a document. Nobody has sent these to the peer, so the envelope is held to its own rules. The
    /// CDEvents binding doesn't know batches: there the `id` may be one that the batch gave.
    fn enveloped(self, item: Value, in_batch: bool) -> Result<CdEvent, Refused> {
        let Value::Object(mut item) = item else { return Err(Refused::NotCloudEvent("an event is an object")) };
        if item.get("specversion").and_then(Value::as_str) != Some("1.0") {
            return Err(Refused::NotCloudEvent("its specversion isn't 1.0"));
        }
        let envelope = Envelope::of_members(&item)?;
        let named = item.get("datacontenttype").filter(|value| !value.is_null());
        let named = named.map(|value| value.as_str().ok_or(Refused::NotCloudEvent("datacontenttype isn't a text")));
        if let Some(content_type) = named.transpose()?.filter(|text| self.mode == Mode::Strict && !is_json(text)) {
            return Err(Refused::ContentType(quoted(content_type)));
        }
        let document = data(&mut item)?;
        let rules =
            Agreement { required: &[Attribute::Id, Attribute::Source, Attribute::Type], free: &[Attribute::Time] };
        self.event(envelope, document, rules, in_batch)
    }

    /// A document with or without attributes in headers: the peer looks at none but the type, and that only to filter.
    fn binary(self, headers: &HeaderMap, document: Value) -> Result<CdEvent, Refused> {
        let version = headers.get("ce-specversion").map(|value| value.as_bytes().trim_ascii());
        if self.mode == Mode::Strict {
            match version {
                None => return Err(Refused::NotCloudEvent("it has no Ce-Specversion")),
                Some(b"1.0") => {}
                Some(_) => return Err(Refused::NotCloudEvent("its Ce-Specversion isn't 1.0")),
            }
        }
        self.event(Envelope::of_headers(headers), document, Agreement { required: &[], free: &Attribute::ALL }, false)
    }

    fn event(self, envelope: Envelope, document: Value, lenient: Agreement, free_id: bool) -> Result<CdEvent, Refused> {
        let valid = validate(&document, self.mode, self.schemas)?;
        let agreement = if self.mode == Mode::Strict { Agreement::STRICT } else { lenient };
        let mut mismatches = Vec::new();
        for attribute in Attribute::ALL {
            match envelope.check(attribute, &valid) {
                Ok(()) => {}
                Err(Refused::Lacks(_)) if !agreement.required.contains(&attribute) => mismatches.push(attribute),
                Err(Refused::Differs { .. })
                    if agreement.free.contains(&attribute) || (free_id && attribute == Attribute::Id) =>
                {
                    mismatches.push(attribute);
                }
                Err(refused) => return Err(refused),
            }
        }
        Ok(CdEvent {
            id: valid.id.to_owned(),
            source: valid.source.to_owned(),
            event_type: valid.event_type.to_owned(),
            spec: valid.rules.spec,
            spec_version: valid.version.to_owned(),
            timestamp: valid.timestamp.map(str::to_owned),
            chain_id: valid.chain_id.map(str::to_owned),
            subject: valid.subject.to_owned(),
            envelope_type: envelope.into_type(),
            mismatches,
            data: document,
        })
    }
}

/// How far an envelope must agree with its document.
#[derive(Clone, Copy)]
struct Agreement {
    /// Attributes that it must have.
    required: &'static [Attribute],
    /// Attributes that may differ. Of enveloped events that is the time: some producers give that of sending.
    free: &'static [Attribute],
}

impl Agreement {
    const STRICT: Self = Self { required: &Attribute::ALL, free: &[] };
}

/// The document in an envelope: as it is, as a text, or in base64.
fn data(item: &mut Map<String, Value>) -> Result<Value, Refused> {
    let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| Refused::NotJson(error.to_string()));
    match (item.remove("data"), item.remove("data_base64")) {
        (Some(_), Some(_)) => Err(Refused::NotCloudEvent("it has both data and data_base64")),
        (Some(Value::String(text)), None) => parsed(text.as_bytes()),
        (Some(value), None) => Ok(value),
        (None, Some(Value::String(text))) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            parsed(&bytes.map_err(|_| Refused::NotCloudEvent("data_base64 isn't base64"))?)
        }
        (None, Some(_)) => Err(Refused::NotCloudEvent("data_base64 isn't a text")),
        (None, None) => Err(Refused::NotCloudEvent("it has no data")),
    }
}

#[cfg(test)]
mod tests;
