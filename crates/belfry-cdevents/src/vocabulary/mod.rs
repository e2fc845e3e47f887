//! The vocabulary of CDEvents, all supported versions of the spec in one [`table`]: it drives both the validation of
//! what comes in and the construction of what goes out.

pub mod table;

use crate::format::Format;

/// A version of the CDEvents spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spec {
    /// 0.3.0
    V0_3,
    /// 0.4.0 and 0.4.1
    V0_4,
    /// 0.5.0 and 0.5.1
    V0_5,
    /// The draft of 0.6.0
    V0_6,
}

impl Spec {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V0_3, Self::V0_4, Self::V0_5, Self::V0_6];

    /// The newest release of this version, as `context.version` or `context.specversion` names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_3 => "0.3.0",
            Self::V0_4 => "0.4.1",
            Self::V0_5 => "0.5.1",
            Self::V0_6 => "0.6.0-draft",
        }
    }

    /// The member of `context` that holds the version.
    pub const fn version_field(self) -> &'static str {
        match self {
            Self::V0_3 | Self::V0_4 => "version",
            Self::V0_5 | Self::V0_6 => "specversion",
        }
    }

    /// Whether events carry `subject.type`.
    pub const fn has_subject_type(self) -> bool {
        matches!(self, Self::V0_3 | Self::V0_4)
    }
}

/// A subject and the events it has.
#[derive(Debug)]
pub struct Subject {
    /// Its name as `subject.type` spells it; a type string has it in lower case.
    pub name: &'static str,
    /// What `source` must be in the context and in the subject: the schemas of the testing subjects ask for little.
    pub sources: (&'static [Field], &'static [Field]),
    /// Its events.
    pub events: &'static [EventType],
}

/// An event of a subject, over all versions of the spec.
#[derive(Debug)]
pub struct EventType {
    /// The predicate.
    pub predicate: &'static str,
    /// The event's own version in each of [`Spec::ALL`], where it exists.
    pub versions: [Option<&'static str>; 4],
    /// `subject.type` may still be given where the spec no longer has it.
    pub keeps_type: bool,
    /// The members of `subject.content`.
    pub content: &'static [Field],
}

/// A member of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// The first version of the spec that has it.
    pub since: Spec,
    /// The last one.
    pub until: Spec,
}

impl Field {
    /// Whether this version of the spec has it.
    pub fn is_in(&self, spec: Spec) -> bool {
        self.since <= spec && spec <= self.until
    }
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// Any text but the empty one.
    Filled,
    /// Text of a format; `filled` says that it can't be empty even where formats aren't looked at.
    Formatted {
        /// The format.
        format: Format,
        /// It can't be empty.
        filled: bool,
    },
    /// The name of an artifact, by the spec's prose a package URL.
    Artifact {
        /// It can't be empty.
        filled: bool,
    },
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// An object of these members and no others.
    Object(&'static [Field]),
    /// An object of these and any other members.
    Open(&'static [Field]),
    /// One end of a link: `contextId`, or from 0.6 on `domainId`.
    LinkEnd {
        /// `contextId` must be there before 0.6.
        required: bool,
    },
    /// `context`.
    Context,
    /// `subject`.
    Subject,
    /// `context.links`.
    Links,
    /// `context.type`: what selected the rules.
    EventType,
    /// `subject.type`.
    SubjectType,
    /// `subject.id`: filled, and of an artifact its package URL.
    SubjectId,
    /// `subject.content`.
    Content,
    /// `customData`.
    CustomData,
}

/// The rules that one document must follow.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The version of the spec.
    pub spec: Spec,
    /// The event; `None` for a custom one.
    pub event: Option<(&'static Subject, &'static EventType)>,
}

impl Rules {
    /// The `source` of the context, and that of the subject.
    pub(crate) fn sources(&self) -> (&'static [Field], &'static [Field]) {
        self.event.map_or(table::SOURCES, |(subject, _)| subject.sources)
    }

    /// Whether the subject is an artifact.
    pub(crate) fn is_artifact(&self) -> bool {
        self.event.is_some_and(|(subject, _)| subject.name == "artifact")
    }
}

/// Prefix of the types of the spec.
pub const STANDARD: &str = "dev.cdevents.";
/// Prefix of the types that tools make up.
pub const CUSTOM: &str = "dev.cdeventsx.";

/// The rules for a document of this type that claims this version of the spec in its context. The type alone decides,
/// but for types that two versions of the spec share.
pub fn rules(event_type: &str, version: Claimed<'_>) -> Option<Rules> {
    if is_custom(event_type) {
        return Some(Rules { spec: version.custom(), event: None });
    }
    let (subject, rest) = event_type.strip_prefix(STANDARD)?.split_once('.')?;
    let (predicate, own) = rest.split_once('.')?;
    let (subject, event) = find(subject, predicate)?;
    let mut specs =
        Spec::ALL.into_iter().zip(event.versions).filter(|(_, version)| *version == Some(own)).map(|(spec, _)| spec);
    let first = specs.next()?;
    let spec = specs.find(|_| version.is_draft()).unwrap_or(first);
    Some(Rules { spec, event: Some((subject, event)) })
}

/// The version of the spec that a context claims to follow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claimed<'a> {
    /// `context.version`.
    pub version: Option<&'a str>,
    /// `context.specversion`.
    pub specversion: Option<&'a str>,
}

impl Claimed<'_> {
    fn is_draft(&self) -> bool {
        self.specversion.is_some_and(|version| version.starts_with("0.6"))
    }

    /// Custom types have no version of their own that would tell.
    fn custom(&self) -> Spec {
        match (self.version, self.specversion) {
            (Some(_), None) => Spec::V0_4,
            _ if self.is_draft() => Spec::V0_6,
            _ => Spec::V0_5,
        }
    }
}

/// The full type of an event in a version of the spec, such as `dev.cdevents.change.merged.0.3.0`.
pub fn full_type(subject: &str, predicate: &str, spec: Spec) -> Option<String> {
    let (subject, event) = find(subject, predicate)?;
    let version = event.versions[spec as usize]?;
    Some(format!("{STANDARD}{}.{predicate}.{version}", subject.name.to_ascii_lowercase()))
}

/// The event of a subject, whatever the case of the subject's name.
pub fn find(subject: &str, predicate: &str) -> Option<(&'static Subject, &'static EventType)> {
    let subject = table::SUBJECTS.iter().find(|known| is_lower_case_of(subject, known.name))?;
    let event = subject.events.iter().find(|event| event.predicate == predicate)?;
    Some((subject, event))
}

fn is_lower_case_of(lower: &str, name: &str) -> bool {
    lower.len() == name.len() && lower.bytes().zip(name.bytes()).all(|(l, n)| l == n.to_ascii_lowercase())
}

/// `dev.cdeventsx.<tool>-<subject>.<predicate>.M.m.p`, with one digit for each part of the version.
pub fn is_custom(event_type: &str) -> bool {
    let Some(rest) = event_type.strip_prefix(CUSTOM) else { return false };
    let parts: Vec<&str> = rest.splitn(6, '.').collect();
    let [name, predicate, version @ ..] = parts.as_slice() else { return false };
    let digits =
        version.len() == 3 && version.iter().all(|part| part.len() == 1 && part.as_bytes()[0].is_ascii_digit());
    digits && is_custom_subject(name) && is_word(predicate, u8::is_ascii_alphabetic)
}

/// `<tool>-<subject>`, as `subject.type` of a custom event.
pub fn is_custom_subject(name: &str) -> bool {
    name.split_once('-').is_some_and(|(tool, subject)| {
        is_word(tool, u8::is_ascii_alphanumeric) && is_word(subject, u8::is_ascii_alphabetic)
    })
}

fn is_word(text: &str, allowed: fn(&u8) -> bool) -> bool {
    !text.is_empty() && text.as_bytes().iter().all(allowed)
}
