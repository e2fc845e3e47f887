//! A user's own rules: what becomes of some events, before the profile is asked.

use std::collections::BTreeMap;

use belfry_api::CdEventsRule;
use belfry_cdevents::mapping::{Custom, Version, custom_type};
use belfry_core::{
    cel::{self, Program, Type, Value},
    go_json::Wire,
    notification::Notification,
};
use serde_json::{Map, Value as Json, json};

use crate::{Misconfigured, Reason};

/// Rules of a Provider.
const RULES: usize = 32;
/// Fields that a rule fills.
const FIELDS: usize = 32;
/// Bytes of a subject's id.
const SUBJECT: usize = 2048;
/// Bytes of what an expression puts into a field, about.
const FIELD: usize = 64 * 1024;
/// What expressions speak of.
const VARIABLES: [(&str, Type); 3] = [("event", Type::Object), ("cluster", Type::String), ("live", Type::String)];

/// The rules of a Provider, in their order.
pub(super) struct Rules(Vec<Rule>);

struct Rule {
    when: Program,
    /// `None` drops the event.
    emits: Option<Emits>,
}

struct Emits {
    event_type: String,
    subject: Option<Program>,
    content: BTreeMap<Vec<String>, Program>,
}

/// What the rules say of an event.
#[derive(Debug, PartialEq)]
pub(super) enum Ruling {
    /// None is for it.
    Profile,
    /// It is dropped.
    Drop,
    /// It becomes this.
    Emit(Custom),
}

impl Rules {
    /// Compiles rules, for events of a version of the spec.
    pub(super) fn compile(rules: &[CdEventsRule], version: Version) -> Result<Self, Misconfigured> {
        if rules.len() > RULES {
            return Err(bad("spec.cdevents.rules", &format!("has {} rules; {RULES} are allowed", rules.len())));
        }
        let compiled = rules.iter().enumerate().map(|(index, rule)| {
            let field = |name: &str| format!("spec.cdevents.rules[{index}]{name}");
            let when = expression(&field(".when"), &rule.when, Type::Bool)?;
            let emits = match (&rule.type_, rule.drop) {
                (Some(event_type), false) => Some(Emits::compile(rule, event_type, version, &field)?),
                (None, true) if rule.subject.is_some() || !rule.content.is_empty() => {
                    return Err(bad(&field(""), "drops events, which leaves nothing to have a subject or a content"));
                }
                (None, true) => None,
                (Some(_), true) => {
                    return Err(bad(&field(""), "has a type and drop: true; only one of them is possible"));
                }
                (None, false) => return Err(bad(&field(""), "has neither a type nor drop: true")),
            };
            Ok(Rule { when, emits })
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    /// What becomes of an event; `cluster` is its object's, `live` the revision that its object succeeded with last.
    ///
    /// # Errors
    /// Which expression failed, and why.
    pub(super) fn rule(&self, notification: &Notification, cluster: &str, live: &str) -> Result<Ruling, String> {
        if self.0.is_empty() {
            return Ok(Ruling::Profile);
        }
        let event = Value::typed(&json!(Wire(&notification.event)));
        let variables = [("event", event), ("cluster", Value::from(cluster)), ("live", Value::from(live))];
        for (index, rule) in self.0.iter().enumerate() {
            let failed =
                |what: &str, error: &dyn std::fmt::Display| format!("spec.cdevents.rules[{index}].{what}: {error}");
            if rule.when.evaluate_bool(&variables).map_err(|error| failed("when", &error))? {
                let Some(emits) = &rule.emits else { return Ok(Ruling::Drop) };
                return emits.emit(&variables, &failed).map(Ruling::Emit);
            }
        }
        Ok(Ruling::Profile)
    }
}

impl Emits {
    fn compile(
        rule: &CdEventsRule,
        event_type: &str,
        version: Version,
        field: &dyn Fn(&str) -> String,
    ) -> Result<Self, Misconfigured> {
        let event_type = custom_type(event_type, version).map_err(|error| bad(&field(".type"), &error.to_string()))?;
        let subject =
            rule.subject.as_deref().map(|text| expression(&field(".subject"), text, Type::String)).transpose()?;
        if rule.content.len() > FIELDS {
            let message = format!("has {} fields; {FIELDS} are allowed", rule.content.len());
            return Err(bad(&field(".content"), &message));
        }
        let mut content = BTreeMap::new();
        for (name, text) in &rule.content {
            let place = field(&format!(".content[{name}]"));
            let path: Vec<String> = name.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                return Err(bad(&place, "is not a path of fields, such as environment.id"));
            }
            if (1..path.len()).any(|length| rule.content.contains_key(&path[..length].join("."))) {
                return Err(bad(&place, "is filled by another expression already, together with all that it holds"));
            }
            content.insert(path, expression(&place, text, Type::Dyn)?);
        }
        Ok(Self { event_type, subject, content })
    }

    fn emit(
        &self,
        variables: &[(&str, Value)],
        failed: &dyn Fn(&str, &dyn std::fmt::Display) -> String,
    ) -> Result<Custom, String> {
        let subject = self.subject.as_ref().map(|program| {
            let id = program.evaluate_string(variables).map_err(|error| failed("subject", &error))?;
            match id.len() {
                0..=SUBJECT => Ok(id),
                bytes => Err(failed("subject", &format!("gives {bytes} bytes; {SUBJECT} are allowed"))),
            }
        });
        let mut content = Map::new();
        for (path, program) in &self.content {
            let at = |error: &dyn std::fmt::Display| failed(&format!("content[{}]", path.join(".")), error);
            let value = program.evaluate(variables).map_err(|error| at(&error))?;
            if let Some(value) = value.to_json(FIELD).map_err(|error| at(&error))? {
                put(&mut content, path, value);
            }
        }
        Ok(Custom { event_type: self.event_type.clone(), subject: subject.transpose()?, content: content.into() })
    }
}

/// Puts a value where its path leads. No path leads through another one's value.
fn put(content: &mut Map<String, Json>, path: &[String], value: Json) {
    match path {
        [] => {}
        [last] => {
            content.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = content.entry(first.clone()).or_insert_with(|| json!({}));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

fn expression(field: &str, text: &str, result: Type) -> Result<Program, Misconfigured> {
    cel::compile(text, &VARIABLES, result).map_err(|error| bad(field, &error.to_string()))
}

fn bad(field: &str, message: &str) -> Misconfigured {
    Misconfigured::new(Reason::CdEvents, format!("{field}: {message}"))
}
