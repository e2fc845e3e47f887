//! What is wrong with a document, and where.

use std::fmt;

use serde_json::Value;

use crate::{bounds, format::Format};

/// A document that isn't a CDEvent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Where: the members from the outside in, such as `subject.content.environment.id`; empty for the document itself.
    pub path: String,
    /// What.
    pub problem: Problem,
}

impl Invalid {
    pub(crate) fn new(problem: Problem) -> Self {
        Self { path: String::new(), problem }
    }

    pub(crate) fn at(name: impl Into<String>, problem: Problem) -> Self {
        Self { path: name.into(), problem }
    }

    /// The same, seen from outside the member `name`.
    pub(crate) fn within(mut self, name: &str) -> Self {
        if !self.path.is_empty() && !self.path.starts_with('[') {
            self.path.insert(0, '.');
        }
        self.path.insert_str(0, name);
        self
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

/// What is wrong. What the sender wrote is repeated in part only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A member that must be there isn't.
    #[error("is missing")]
    Missing,
    /// A text that must not be empty is.
    #[error("is empty")]
    Empty,
    /// A value of another type.
    #[error("must be {expected}, is {found}")]
    WrongType {
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A text without the format that it must have.
    #[error("must be {format}, is {found:?}")]
    WrongFormat {
        /// The format.
        format: Format,
        /// What it is.
        found: String,
    },
    /// A text that is none of the words that it may be.
    #[error("must be one of {}, is {found:?}", allowed.join(", "))]
    NotOneOf {
        /// The words.
        allowed: &'static [&'static str],
        /// What it is.
        found: String,
    },
    /// A `subject.type` that doesn't belong to the event.
    #[error("must be {expected:?}, is {found:?}")]
    WrongSubject {
        /// What the event is about.
        expected: &'static str,
        /// What it says it is about.
        found: String,
    },
    /// A link of a type that can't be embedded.
    #[error("must be END, PATH or RELATION, is {0:?}")]
    WrongLink(String),
    /// A link's end that names nothing.
    #[error("names neither contextId nor domainId")]
    LooseEnd,
    /// A member that the spec doesn't know.
    #[error("is not a member in this version of the spec")]
    Unknown,
    /// A type that isn't in the vocabulary.
    #[error("{0:?} is not a type of CDEvents 0.3, 0.4, 0.5 or 0.6, nor a custom one")]
    UnknownType(String),
    /// An extra schema, which would have to be fetched.
    #[error("schema {0:?} is not known here and is never fetched")]
    UnknownSchema(String),
}

impl Problem {
    pub(crate) fn wrong_type(expected: &'static str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Self::WrongType { expected, found }
    }

    pub(crate) fn format(format: Format, found: &str) -> Self {
        Self::WrongFormat { format, found: quoted(found) }
    }

    pub(crate) fn unknown_type(found: &str) -> Self {
        Self::UnknownType(quoted(found))
    }

    pub(crate) fn unknown_schema(found: &str) -> Self {
        Self::UnknownSchema(quoted(found))
    }
}

/// The beginning of what a sender wrote.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(bounds::QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
