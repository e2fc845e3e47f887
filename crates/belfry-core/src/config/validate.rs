//! What an API server checks against the CRDs, for manifests that meet none: the same schemas, walked here. Unlike an
//! API server it takes a null for an absent field, and says of an unknown field that it is ignored.

use std::{collections::BTreeMap, sync::LazyLock};

use belfry_api::{AlertSpec, ProviderSpec, spec_schema};
use regex::Regex;
use serde_json::Value;

use super::Problem;
use crate::{ConfigKind, regexes};

/// Reason of a field that breaks the schema.
pub(super) const INVALID: &str = "ValidationFailed";
/// Reason of a field that doesn't exist.
const UNKNOWN_FIELD: &str = "UnknownField";

static PROVIDER: LazyLock<Schema> = LazyLock::new(|| Schema::read(&spec_schema::<ProviderSpec>()));
static ALERT: LazyLock<Schema> = LazyLock::new(|| Schema::read(&spec_schema::<AlertSpec>()));

/// Checks a spec against its kind's schema, and takes nulls and unknown fields out of it.
pub(super) fn spec(kind: ConfigKind, spec: &mut Value) -> Vec<Problem> {
    let mut walk = Walk { path: "spec".into(), problems: Vec::new() };
    match kind {
        ConfigKind::Provider => {
            walk.value(&PROVIDER, spec);
            commit_status_expr(spec, &mut walk.problems);
        }
        ConfigKind::Alert => walk.value(&ALERT, spec),
        ConfigKind::CommitStatus | ConfigKind::Receiver | ConfigKind::Cluster => {}
    }
    walk.problems
}

/// The one rule that takes two fields. As in CEL's `has()`, presence counts, not content.
fn commit_status_expr(spec: &Value, problems: &mut Vec<Problem>) {
    let type_ = spec.get("type").and_then(Value::as_str).unwrap_or_default();
    if spec.get("commitStatusExpr").is_some() && !belfry_api::COMMIT_STATUS_TYPES.contains(&type_) {
        problems.push(Problem::refusal("spec.commitStatusExpr", INVALID, belfry_api::COMMIT_STATUS_MESSAGE));
    }
}

/// A structural schema, as far as ours go.
#[derive(Debug, Default)]
struct Schema {
    kind: Kind,
    allowed: Vec<String>,
    length: (usize, usize),
    pattern: Option<(String, Regex)>,
}

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Anything,
    Text,
    Truth,
    List(Box<Schema>),
    Map(Box<Schema>),
    Object {
        properties: BTreeMap<String, Schema>,
        required: Vec<String>,
    },
}

impl Schema {
    fn read(schema: &Value) -> Self {
        let texts = |word: &str| -> Vec<String> {
            let values = schema.get(word).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let number = |word: &str| schema.get(word).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let inner = |word: &str| Box::new(schema.get(word).map_or_else(Self::default, Self::read));
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => Kind::Text,
            Some("boolean") => Kind::Truth,
            Some("array") => Kind::List(inner("items")),
            Some("object") if schema.get("additionalProperties").is_some() => Kind::Map(inner("additionalProperties")),
            Some("object") => {
                let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
                Kind::Object {
                    properties: properties.map(|(name, schema)| (name.clone(), Self::read(schema))).collect(),
                    required: texts("required"),
                }
            }
            _ => Kind::Anything,
        };
        Self {
            kind,
            allowed: texts("enum"),
            length: (number("minLength").unwrap_or(0), number("maxLength").unwrap_or(usize::MAX)),
            pattern: schema
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|pattern| Some((pattern.to_owned(), regexes::compile_one(pattern).ok()?))),
        }
    }
}

struct Walk {
    path: String,
    problems: Vec<Problem>,
}

impl Walk {
    fn refuse(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::refusal(&self.path, INVALID, message));
    }

    /// Goes one step down, and comes back.
    fn at(&mut self, step: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        visit(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Schema, value: &mut Value) {
        match (&schema.kind, value) {
            (Kind::Anything, _) | (Kind::Truth, Value::Bool(_)) => {}
            (Kind::Text, Value::String(text)) => self.text(schema, text),
            (Kind::List(inner), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.at(&format!("[{index}]"), |walk| walk.value(inner, item));
                }
            }
            (Kind::Map(inner), Value::Object(map)) => {
                map.retain(|_, value| !value.is_null());
                for (key, value) in map {
                    self.at(&format!("[{key}]"), |walk| walk.value(inner, value));
                }
            }
            (Kind::Object { properties, required }, Value::Object(map)) => {
                map.retain(|_, value| !value.is_null());
                for name in required.iter().filter(|name| !map.contains_key(name.as_str())) {
                    self.at(&format!(".{name}"), |walk| walk.refuse("is required"));
                }
                map.retain(|name, value| {
                    let known = properties.get(name);
                    self.at(&format!(".{name}"), |walk| match known {
                        Some(schema) => walk.value(schema, value),
                        None => {
                            let message = "is not a field of this kind, and is ignored";
                            walk.problems.push(Problem::warning(&walk.path, UNKNOWN_FIELD, message));
                        }
                    });
                    known.is_some()
                });
            }
            (kind, value) => self.refuse(format!("must be {}, not {}", wanted(kind), given(value))),
        }
    }

    fn text(&mut self, schema: &Schema, text: &str) {
        let (min, max) = schema.length;
        let length = text.chars().count();
        if length < min {
            self.refuse(format!("must have at least {min} character{}", if min == 1 { "" } else { "s" }));
        } else if length > max {
            self.refuse(format!("must have at most {max} characters, and has {length}"));
        } else if !schema.allowed.is_empty() && !schema.allowed.iter().any(|allowed| allowed == text) {
            self.refuse(format!("'{text}' is not supported, use one of {}", schema.allowed.join(", ")));
        } else if let Some((pattern, _)) = schema.pattern.as_ref().filter(|(_, regex)| !regex.is_match(text)) {
            // Without the text: a proxy's address may hold a password.
            self.refuse(format!("must match {pattern}"));
        }
    }
}

fn wanted(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Truth => "true or false",
        Kind::List(_) => "a list",
        Kind::Map(_) | Kind::Object { .. } => "a map",
        Kind::Anything => "anything",
    }
}

fn given(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false (put it in quotes to make it text)",
        Value::Number(_) => "a number (put it in quotes to make it text)",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
