//! What a run asks for: its params, read once and kept in its status, so that a later change of them, or a restart, makes
//! no other question of it.

use std::{collections::BTreeMap, time::Duration};

use belfry_core::{
    Time, duration,
    verdict::{OnFailure, OnSuperseded, Question, Selector},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::variables;
use crate::{call, kinds::OBJECTS};

/// Bytes of a param's text.
const TEXT: usize = 512;
/// Objects that a run may name.
const OBJECTS_NAMED: usize = 100;
/// Bytes of what is wrong with the params, told in one message.
const TOLD: usize = 100;

const KNOWN: [&str; 11] = [
    "revision",
    "objects",
    "kind",
    "namespace",
    "name",
    "cluster",
    "on-failure",
    "failure-grace",
    "on-superseded",
    "not-before",
    "timeout",
];

/// The params of a run, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) revision: String,
    pub(super) objects: Vec<Selector>,
    pub(super) cluster: Option<String>,
    pub(super) on_failure: OnFailure,
    pub(super) on_superseded: OnSuperseded,
    pub(super) not_before: Option<Time>,
    /// Zero: none.
    pub(super) timeout: Option<Duration>,
}

/// Whether there is such a param.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl Params {
    /// Reads them, or says of each what is wrong with it. `created` is when the run was.
    pub(super) fn read(given: &Map<String, Value>, created: Time) -> Result<Self, Vec<String>> {
        let mut reader = Reader { given, problems: Vec::new() };
        let unknown: Vec<_> = given.keys().filter(|name| !is_known(name)).map(|name| quoted(name)).collect();
        if !unknown.is_empty() {
            let problem = format!("there is no param {}; the params are {}", unknown.join(", "), KNOWN.join(", "));
            reader.problems.push(problem);
        }
        let revision = reader.revision();
        let objects = reader.objects();
        let cluster = reader.text("cluster");
        let grace = reader.duration("failure-grace").unwrap_or_default();
        let on_failure = reader.one_of("on-failure", &[("fail", true), ("wait", false)]);
        if on_failure == Some(false) && !grace.is_zero() {
            reader.problem("failure-grace", "goes with on-failure: fail only");
        }
        let on_failure = if on_failure.unwrap_or(true) { OnFailure::Fail { grace } } else { OnFailure::Wait };
        let ways = [("fail", OnSuperseded::Fail), ("succeed", OnSuperseded::Succeed), ("wait", OnSuperseded::Wait)];
        let on_superseded = reader.one_of("on-superseded", &ways).unwrap_or_default();
        let not_before = reader.not_before(created);
        let timeout = reader.duration("timeout");
        if reader.problems.is_empty() {
            Ok(Self { revision, objects, cluster, on_failure, on_superseded, not_before, timeout })
        } else {
            Err(reader.problems)
        }
    }

    /// As [`Params::read`] reads them, whenever that is.
    pub(super) fn to_json(&self) -> Value {
        let mut params = json!({ "revision": self.revision });
        let mut put = |name: &str, value: Value| params[name] = value;
        if !self.objects.is_empty() {
            put("objects", self.objects.iter().map(written).collect());
        }
        if let Some(cluster) = &self.cluster {
            put("cluster", json!(cluster));
        }
        match self.on_failure {
            OnFailure::Wait => put("on-failure", json!("wait")),
            OnFailure::Fail { grace } if !grace.is_zero() => put("failure-grace", json!(in_seconds(grace))),
            OnFailure::Fail { .. } => {}
        }
        match self.on_superseded {
            OnSuperseded::Fail => {}
            OnSuperseded::Succeed => put("on-superseded", json!("succeed")),
            OnSuperseded::Wait => put("on-superseded", json!("wait")),
        }
        if let Some(at) = self.not_before.and_then(|at| Timestamp::from_microsecond(at.0).ok()) {
            put("not-before", json!(at.to_string()));
        }
        if let Some(timeout) = self.timeout {
            put("timeout", json!(in_seconds(timeout)));
        }
        params
    }

    /// The question that they make, asked at that time.
    pub(super) fn question(&self, asked: Time) -> Question {
        Question {
            revision: self.revision.clone(),
            objects: self.objects.clone(),
            cluster: self.cluster.clone(),
            on_failure: self.on_failure,
            on_superseded: self.on_superseded,
            not_before: self.not_before,
            asked,
        }
    }
}

/// An object as it is written in params.
pub(super) fn written(selector: &Selector) -> String {
    let part = |part: &Option<String>| part.as_deref().unwrap_or("*").to_owned();
    [&selector.kind, &selector.namespace, &selector.name].map(part).join("/")
}

fn in_seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

struct Reader<'p> {
    given: &'p Map<String, Value>,
    problems: Vec<String>,
}

impl<'p> Reader<'p> {
    fn problem(&mut self, name: &str, problem: impl AsRef<str>) {
        self.problems.push(format!("{name}: {}", problem.as_ref()));
    }

    /// A text without the space around it, which results of tasks often end in; `None` for an empty one, which is what a
    /// pipeline passes on of a param that wasn't given to it.
    fn text(&mut self, name: &str) -> Option<String> {
        match self.given.get(name)? {
            Value::Null => None,
            Value::String(text) => self.checked(name, text),
            _ => {
                self.problem(name, "must be a string");
                None
            }
        }
    }

    fn checked(&mut self, name: &str, text: &str) -> Option<String> {
        let text = text.trim();
        if let Some(variable) = variables::unresolved(text) {
            self.problem(name, format!("the variable {} has no value", quoted(variable)));
        } else if text.len() > TEXT {
            self.problem(name, format!("is longer than {TEXT} bytes"));
        } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.problem(name, format!("{} has space within", quoted(text)));
        } else {
            return (!text.is_empty()).then(|| text.to_owned());
        }
        None
    }

    fn revision(&mut self) -> String {
        let wrong = self.problems.len();
        let revision = self.text("revision");
        if revision.is_none() && self.problems.len() == wrong {
            let problem = if self.given.contains_key("revision") { "is empty" } else { "is missing" };
            self.problem("revision", problem);
        }
        revision.unwrap_or_default()
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        duration::parse(&text).map_err(|error| self.problem(name, shortened(&error.to_string()))).ok()
    }

    fn one_of<T: Copy>(&mut self, name: &str, allowed: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = allowed.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = allowed.iter().map(|(word, _)| *word).collect();
            self.problem(name, format!("{} is none of {}", quoted(&text), words.join(", ")));
        }
        found
    }

    fn not_before(&mut self, created: Time) -> Option<Time> {
        let text = self.text("not-before")?;
        if text == "creation" {
            return Some(created);
        }
        if let Ok(at) = text.parse::<Timestamp>() {
            return Some(Time(at.as_microsecond()));
        }
        match duration::parse(&text) {
            Ok(before) => Some(created.before(before)),
            Err(_) => {
                let problem = format!("{} is no RFC 3339 time, no duration and not creation", quoted(&text));
                self.problem("not-before", problem);
                None
            }
        }
    }

    fn objects(&mut self) -> Vec<Selector> {
        let single = ["kind", "namespace", "name"].map(|name| self.text(name).filter(|text| text != "*"));
        let mut found = Vec::new();
        let listed = self.list();
        if listed.len() > OBJECTS_NAMED {
            self.problem("objects", format!("names more than {OBJECTS_NAMED} objects"));
            return found;
        }
        for item in listed {
            let text;
            let parts = match &item {
                Value::String(item) => {
                    let Some(checked) = self.checked("objects", item) else { continue };
                    text = checked;
                    three(&text)
                }
                Value::Object(item) => fields(item),
                _ => None,
            };
            let Some(parts) = parts else {
                let item = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                self.problem("objects", format!("{} is not Kind/namespace/name", quoted(&item)));
                continue;
            };
            self.select("objects", parts.map(|part| (part != "*").then(|| part.to_owned())), &mut found);
        }
        if single.iter().any(Option::is_some) {
            if !found.is_empty() {
                self.problem("objects", "goes without kind, namespace and name");
            }
            self.select("kind, namespace, name", single, &mut found);
        }
        found
    }

    fn list(&mut self) -> Vec<Value> {
        match self.given.get("objects") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| json!(item)).collect()
            }
            // One empty text: a list that wasn't given.
            Some(Value::Array(items)) => items.iter().filter(|item| **item != "").cloned().collect(),
            Some(_) => {
                self.problem("objects", "must be a list of Kind/namespace/name, or such with commas between");
                Vec::new()
            }
        }
    }

    fn select(&mut self, param: &str, [kind, namespace, name]: [Option<String>; 3], found: &mut Vec<Selector>) {
        let mut selector = Selector { kind: None, namespace, name };
        if let Some(kind) = kind {
            let Some(known) = OBJECTS.iter().find(|known| known.name.eq_ignore_ascii_case(&kind)) else {
                let kinds: Vec<_> = OBJECTS.iter().map(|kind| kind.name).collect();
                let problem = format!("the kind {} is none of {}", quoted(&kind), kinds.join(", "));
                return self.problem(param, problem);
            };
            selector.kind = Some(known.name.to_owned());
        }
        for part in [&selector.namespace, &selector.name].into_iter().flatten() {
            if !call::is_name(part) {
                return self.problem(param, format!("{} can't be a name", quoted(part)));
            }
        }
        if !found.contains(&selector) {
            found.push(selector);
        }
    }
}

fn three(text: &str) -> Option<[&str; 3]> {
    let parts: Vec<_> = text.split('/').collect();
    <[&str; 3]>::try_from(parts).ok().filter(|parts| parts.iter().all(|part| !part.is_empty()))
}

/// An object as an embedded spec may have it: with its kind, namespace and name apart.
fn fields(item: &Map<String, Value>) -> Option<[&str; 3]> {
    let names = ["kind", "namespace", "name"];
    if item.is_empty() || item.keys().any(|key| !names.contains(&key.as_str())) {
        return None;
    }
    let part = |name: &str| item.get(name).map_or(Some("*"), Value::as_str).filter(|part| !part.is_empty());
    Some([part(names[0])?, part(names[1])?, part(names[2])?])
}

/// What a user wrote, told back to them.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD)]
}

/// What a run gives: the params, or the embedded spec with its variables resolved, and those params that it leaves out.
pub(super) fn given(params: &[(String, Value)], spec: Option<&Map<String, Value>>) -> Map<String, Value> {
    let Some(spec) = spec else { return params.iter().cloned().collect() };
    let by_name: BTreeMap<&str, &Value> = params.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let Value::Object(mut given) = variables::resolve(Value::Object(spec.clone()), &by_name) else {
        return Map::new();
    };
    for (name, value) in params.iter().filter(|(name, _)| is_known(name)) {
        given.entry(name.clone()).or_insert_with(|| value.clone());
    }
    given
}

#[cfg(test)]
mod tests;
