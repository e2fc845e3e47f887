//! Whether a document is a CDEvent. `context.type` selects the rules of the [`vocabulary`]; nothing
//! is fetched, changed or kept.
//!
//! *Strict* is the official schema with its formats, and what the spec says in prose about package URLs and
//! `customData`. *Default* takes everything that the schemas without formats take, and what the peer takes: members
//! that nobody knows, and `null` or an empty text, which count as not being there.

mod error;
mod walk;

pub(crate) use error::quoted;
pub use error::{Invalid, Problem};
use serde_json::{Map, Value};

use crate::{
    Spec, format,
    vocabulary::{self, Claimed, Rules},
};

/// How closely documents are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A superset of what the peer and the schemas accept.
    #[default]
    Default,
    /// The spec to the letter.
    Strict,
}

/// What becomes of a document that names a `schemaUri`, which would have to be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownSchema {
    /// It is invalid, as the spec advises.
    #[default]
    Reject,
    /// The extra schema isn't looked at.
    Ignore,
}

/// What a valid document was found to be.
#[derive(Clone, Copy, Debug)]
pub struct Valid<'a> {
    /// The rules that it follows.
    pub rules: Rules,
    /// `context.type`.
    pub event_type: &'a str,
    /// `context.version` or `context.specversion`.
    pub version: &'a str,
    /// `context.id`.
    pub id: &'a str,
    /// `context.source`.
    pub source: &'a str,
    /// `context.timestamp`; the default mode does without.
    pub timestamp: Option<&'a str>,
    /// `context.chainId`.
    pub chain_id: Option<&'a str>,
    /// `subject.id`.
    pub subject: &'a str,
}

/// Validates a document.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn validate(document: &Value, mode: Mode, schemas: UnknownSchema) -> Result<Valid<'_>, Invalid> {
    let checks = match mode {
        Mode::Default => Checks::DEFAULT,
        Mode::Strict => Checks::STRICT,
    };
    check(document, checks, schemas)
}

/// The differences between the modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Members that the spec doesn't know pass; `null`, and an empty text where one isn't asked for, count as absent;
    /// what an empty text would do for, and an empty `content`, may be absent.
    pub lenient: bool,
    /// What the spec says in prose only: package URLs, `customData` by its content type.
    pub prose: bool,
}

impl Checks {
    const DEFAULT: Self = Self { lenient: true, prose: false };
    const STRICT: Self = Self { lenient: false, prose: true };
    /// What the official schemas say and no more; the tests hold the table against them.
    #[cfg(test)]
    pub(crate) const SCHEMA: Self = Self { lenient: false, prose: false };
}

pub(crate) fn check(document: &Value, checks: Checks, schemas: UnknownSchema) -> Result<Valid<'_>, Invalid> {
    let context = document.as_object().ok_or_else(|| Invalid::new(Problem::wrong_type("an object", document)))?;
    let context = context.get("context").ok_or_else(|| Invalid::at("context", Problem::Missing))?;
    let context =
        context.as_object().ok_or_else(|| Invalid::at("context", Problem::wrong_type("an object", context)))?;
    let claimed = Claimed {
        version: context.get("version").and_then(Value::as_str),
        specversion: context.get("specversion").and_then(Value::as_str),
    };
    let rules = rules_of(context, claimed).map_err(|invalid| invalid.within("context"))?;
    walk::document(document, rules, checks).or_else(|invalid| {
        // The draft narrows and widens types of 0.5 without giving them a version of their own.
        let older = Rules { spec: Spec::V0_5, ..rules };
        let shared = rules.spec == Spec::V0_6 && rules.event.is_some_and(|(_, event)| event.versions[2].is_some());
        if shared && walk::document(document, older, checks).is_ok() { Ok(()) } else { Err(invalid) }
    })?;
    let text = |name: &str| context.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(uri) = text("schemaUri").filter(|_| schemas == UnknownSchema::Reject && rules.spec > Spec::V0_3) {
        return Err(Invalid::at("schemaUri", Problem::unknown_schema(uri)).within("context"));
    }
    Ok(Valid {
        rules,
        event_type: text("type").unwrap_or_default(),
        version: text(rules.spec.version_field()).unwrap_or_default(),
        id: text("id").unwrap_or_default(),
        source: text("source").unwrap_or_default(),
        timestamp: text("timestamp"),
        chain_id: text("chainId"),
        subject: document.pointer("/subject/id").and_then(Value::as_str).unwrap_or_default(),
    })
}

fn rules_of(context: &Map<String, Value>, claimed: Claimed<'_>) -> Result<Rules, Invalid> {
    let event_type = match context.get("type") {
        None | Some(Value::Null) => return Err(Invalid::at("type", Problem::Missing)),
        Some(Value::String(text)) => text,
        Some(other) => return Err(Invalid::at("type", Problem::wrong_type("a text", other))),
    };
    vocabulary::rules(event_type, claimed).ok_or_else(|| Invalid::at("type", Problem::unknown_type(event_type)))
}

/// `customData` by its content type: JSON stands there as it is, anything else as base64.
fn is_custom_data_of(data: &Value, content_type: Option<&str>) -> Result<(), Problem> {
    match (data, content_type.is_none_or(is_json)) {
        (Value::Object(_), true) => Ok(()),
        (other, true) => Err(Problem::wrong_type("an object, as its content type is JSON", other)),
        (Value::String(text), false) if format::is_base64(text) => Ok(()),
        (Value::String(text), false) => Err(Problem::format(format::Format::Base64, text)),
        (other, false) => Err(Problem::wrong_type("base64, as its content type isn't JSON", other)),
    }
}

/// `application/json` or `…+json`, whatever its parameters and its case.
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json")
}

#[cfg(test)]
mod tests;
