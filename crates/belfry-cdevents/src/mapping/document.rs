//! Documents from drafts: the version of the spec, ids, chain, links and `customData` are the same for all profiles.

use belfry_core::go_json::Wire;
use serde_json::{Map, Value, json};

use super::{
    Custom, Emission, Unmappable, Version, identity,
    story::{Story, cut},
};
use crate::{
    Mode, Spec, UnknownSchema, bounds,
    validate::validate,
    vocabulary::{self, CUSTOM, STANDARD},
};

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It worked.
    Success,
    /// It was tried and didn't work.
    Failure,
    /// It was given up for something newer.
    Cancel,
    /// It couldn't be tried.
    Error,
}

impl Outcome {
    /// The word for it. Up to 0.4, tests pass and fail.
    fn word(self, subject: &str, spec: Spec) -> &'static str {
        match (self, subject.starts_with("test") && spec <= Spec::V0_4) {
            (Self::Success, true) => "pass",
            (Self::Failure, true) => "fail",
            (Self::Success, false) => "success",
            (Self::Failure, false) => "failure",
            (Self::Cancel, _) => "cancel",
            (Self::Error, _) => "error",
        }
    }
}

/// What a profile wants to say, in no version of the spec yet.
#[derive(Debug)]
pub(super) struct Draft {
    what: What,
    subject_id: String,
    content: Value,
    outcome: Option<Outcome>,
    /// What tells it from others of its type that the same Flux event becomes.
    part: Option<String>,
}

#[derive(Debug)]
enum What {
    Standard { subject: &'static str, predicate: &'static str },
    Custom(&'static str),
}

impl Draft {
    pub fn new(subject: &'static str, predicate: &'static str, subject_id: String, content: Value) -> Self {
        Self { what: What::Standard { subject, predicate }, subject_id, content, outcome: None, part: None }
    }

    pub fn custom(event_type: &'static str, subject_id: String, content: Value) -> Self {
        Self { what: What::Custom(event_type), subject_id, content, outcome: None, part: None }
    }

    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    pub fn of_part(mut self, part: &str) -> Self {
        self.part = Some(part.to_owned());
        self
    }
}

/// Makes a document of what a profile wants to say.
pub(super) fn finish(story: &Story<'_>, draft: Draft) -> Result<Emission, Unmappable> {
    let spec = story.options.version.spec();
    let Draft { what, subject_id, mut content, outcome, part } = draft;
    let (event_type, named) = match what {
        What::Custom(event_type) => (Some(event_type.to_owned()), Some(event_type.to_owned())),
        What::Standard { subject, predicate } => {
            (vocabulary::full_type(subject, predicate, spec), vocabulary::full_type(subject, predicate, Spec::V0_5))
        }
    };
    let Some((event_type, named)) = event_type.zip(named) else {
        let event_type = match what {
            What::Custom(event_type) => event_type.to_owned(),
            What::Standard { subject, predicate } => format!("{STANDARD}{subject}.{predicate}"),
        };
        return Err(Unmappable::NoSuchType { event_type, version: spec.as_str() });
    };
    let mut flux = flux(story);
    if let (Some(outcome), What::Standard { subject, .. }) = (outcome, &what) {
        let word = outcome.word(subject, spec).into();
        // No version has an outcome for builds.
        let place = if *subject == "build" { flux.as_object_mut() } else { content.as_object_mut() };
        place.map(|members| members.insert("outcome".into(), word));
    }
    let name = match part {
        Some(part) => format!("{named}\n{part}"),
        None => named,
    };
    sealed(story, &event_type, &name, subject_id, content, flux)
}

/// Makes a document of what a user's rule wants to say.
pub(super) fn finish_custom(story: &Story<'_>, custom: Custom) -> Result<Emission, Unmappable> {
    let Custom { event_type, subject, content } = custom;
    let full = full_type(&event_type, story.options.version)?;
    let subject = subject.unwrap_or_else(|| story.service.clone());
    // Rules may make more than one event of a type; what they say is what tells them apart.
    let name = format!("{full}\n{subject}\n{content}");
    sealed(story, &full, &name, subject, content, flux(story))
}

/// The type that a user's rule means, with its version.
pub(super) fn full_type(event_type: &str, version: Version) -> Result<String, Unmappable> {
    let spec = version.spec();
    let full = match event_type.strip_prefix(STANDARD) {
        None => vocabulary::is_custom(event_type).then(|| event_type.to_owned()),
        Some(rest) => {
            let mut parts = rest.splitn(3, '.');
            let full = parts.next().zip(parts.next()).and_then(|(s, p)| vocabulary::full_type(s, p, spec));
            full.filter(|full| parts.next().is_none() || *full == event_type)
        }
    };
    full.ok_or_else(|| Unmappable::NoSuchType { event_type: event_type.to_owned(), version: spec.as_str() })
}

fn sealed(
    story: &Story<'_>,
    event_type: &str,
    name: &str,
    subject_id: String,
    content: Value,
    flux: Value,
) -> Result<Emission, Unmappable> {
    let spec = story.options.version.spec();
    let revision = story.revision.unwrap_or_default();
    let (uid, reason) = (story.uid(), story.reason());
    let id = identity::id(&format!("{}\n{uid}\n{reason}\n{}\n{revision}\n{name}", story.cluster, story.time));
    let source = story.options.source.clone().unwrap_or_else(|| format!("/flux/{}", segment(story.cluster)));
    let mut context = json!({
        "id": id,
        "source": source,
        "type": event_type,
        "timestamp": story.time,
        "chainId": story.chain(),
    });
    context[spec.version_field()] = spec.as_str().into();
    let links = links(story);
    if !links.is_empty() {
        context["links"] = links.into();
    }
    let mut subject = json!({"id": subject_id, "content": content});
    if spec.has_subject_type() {
        subject["type"] = subject_type(event_type).into();
    }
    let document = json!({"context": context, "subject": subject, "customData": {"flux": flux}});
    match validate(&document, Mode::Strict, UnknownSchema::Reject) {
        Ok(_) => Ok(Emission { id, event_type: event_type.to_owned(), document }),
        Err(invalid) => Err(Unmappable::Invalid { event_type: event_type.to_owned(), invalid }),
    }
}

/// `subject.type`: what the vocabulary calls the subject, or how a custom type names it.
fn subject_type(event_type: &str) -> &str {
    let first = |rest: &'_ str| rest.find('.').unwrap_or(rest.len());
    match (event_type.strip_prefix(CUSTOM), event_type.strip_prefix(STANDARD)) {
        (Some(rest), _) => &rest[..first(rest)],
        (_, Some(rest)) => {
            let known = vocabulary::table::SUBJECTS.iter().find(|s| s.name.eq_ignore_ascii_case(&rest[..first(rest)]));
            known.map_or("", |subject| subject.name)
        }
        _ => "",
    }
}

/// Links always carry tags: some readers refuse those without.
fn links(story: &Story<'_>) -> Vec<Value> {
    let filled = |id: &&str| !id.is_empty();
    let cause = story
        .facts
        .cause
        .filter(filled)
        .map(|id| json!({"linkType": "RELATION", "linkKind": "TRIGGER", "target": {"contextId": id}, "tags": {}}));
    let previous = story.facts.previous.filter(filled);
    let previous = previous.map(|id| json!({"linkType": "PATH", "from": {"contextId": id}, "tags": {}}));
    cause.into_iter().chain(previous).collect()
}

/// The Flux event for `customData`.
fn flux(story: &Story<'_>) -> Value {
    let mut event = serde_json::to_value(Wire(story.reported.event)).unwrap_or_default();
    let message = &story.reported.event.message;
    if story.options.omit_messages {
        event["message"] = "".into();
    } else if message.len() > bounds::CUSTOM_MESSAGE {
        event["message"] = cut(message, bounds::CUSTOM_MESSAGE).into();
    }
    Map::from_iter([("cluster".to_owned(), story.cluster.into()), ("event".to_owned(), event)]).into()
}

/// A name as a part of a path.
fn segment(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    name.chars().map(|c| if fits(c) { c } else { '-' }).collect()
}
