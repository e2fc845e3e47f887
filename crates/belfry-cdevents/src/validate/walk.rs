//! Walks a document along the table. It goes only where the table goes, so its depth is bounded whatever comes in.

use serde_json::{Map, Value};

use super::{Checks, Invalid, Problem, error::quoted, is_custom_data_of};
use crate::{
    Spec,
    format::{self, Format},
    vocabulary::{self, Field, Kind, Rules, table},
};

type Checked = Result<(), Invalid>;

/// Checks a whole document against the rules that its type selected.
pub(super) fn document(document: &Value, rules: Rules, checks: Checks) -> Checked {
    let walk = Walk { rules, checks };
    let members = walk.as_object(document)?;
    walk.members(members, &[table::DOCUMENT])?;
    let Some(data) = members.get("customData").filter(|data| checks.prose && !data.is_null()) else { return Ok(()) };
    let content_type = members.get("customDataContentType").and_then(Value::as_str);
    is_custom_data_of(data, content_type).map_err(|problem| Invalid::at("customData", problem))
}

#[derive(Clone, Copy)]
struct Walk {
    rules: Rules,
    checks: Checks,
}

impl Walk {
    /// An object that has these members, in as many lists as they stand in, and no others.
    fn members(self, object: &Map<String, Value>, lists: &[&'static [Field]]) -> Checked {
        self.known(object, lists)?;
        let known = |name: &str| {
            lists.iter().flat_map(|list| list.iter()).any(|field| field.name == name && field.is_in(self.rules.spec))
        };
        match object.keys().find(|name| !known(name)) {
            Some(name) if !self.checks.lenient => Err(Invalid::at(quoted(name), Problem::Unknown)),
            _ => Ok(()),
        }
    }

    /// An object that has these members, and maybe others.
    fn known(self, object: &Map<String, Value>, lists: &[&'static [Field]]) -> Checked {
        for field in lists.iter().flat_map(|list| list.iter()).filter(|field| field.is_in(self.rules.spec)) {
            self.member(object, field).map_err(|invalid| invalid.within(field.name))?;
        }
        Ok(())
    }

    fn member(self, object: &Map<String, Value>, field: &Field) -> Checked {
        let value = object.get(field.name).filter(|value| !self.counts_as_absent(value, field));
        match value {
            Some(value) => self.value(value, field.kind),
            None if !field.required => Ok(()),
            None if self.checks.lenient => self.absent(field.kind),
            None => Err(Invalid::new(Problem::Missing)),
        }
    }

    /// The peer's parser takes `null`, and an empty text where none is asked for, for nothing.
    fn counts_as_absent(self, value: &Value, field: &Field) -> bool {
        self.checks.lenient
            && match value {
                Value::Null => true,
                Value::String(text) => text.is_empty() && !field.required && !matches!(field.kind, Kind::CustomData),
                _ => false,
            }
    }

    /// Whether something that is asked for may be absent after all: where the peer would fill in an empty text or
    /// object and find it good.
    fn absent(self, kind: Kind) -> Checked {
        match kind {
            Kind::Text | Kind::Formatted { filled: false, .. } | Kind::Artifact { filled: false } => Ok(()),
            Kind::Formatted { format: Format::DateTime, .. } => Ok(()),
            Kind::Content if self.rules.event.is_some() => self.content(&Map::new()),
            _ => Err(Invalid::new(Problem::Missing)),
        }
    }

    fn value(self, value: &Value, kind: Kind) -> Checked {
        match kind {
            Kind::Text => self.text(value, false).map(drop),
            Kind::Filled => self.text(value, true).map(drop),
            Kind::Formatted { format, filled } => self.formatted(value, format, filled),
            Kind::Artifact { filled } => self.artifact(value, filled),
            Kind::OneOf(allowed) => self.one_of(value, allowed),
            Kind::Texts => self.texts(value),
            Kind::Context => self.context(value),
            Kind::Subject => self.subject(value),
            Kind::Object(members) => self.members(self.as_object(value)?, &[members]),
            Kind::Open(members) => self.known(self.as_object(value)?, &[members]),
            Kind::LinkEnd { required } => self.link_end(value, required),
            Kind::Links => self.links(value),
            Kind::EventType => Ok(()),
            Kind::SubjectType => self.subject_type(value),
            Kind::SubjectId => self.subject_id(value),
            Kind::Content => self.content(self.as_object(value)?),
            Kind::CustomData if value.is_object() || value.is_string() => Ok(()),
            Kind::CustomData => Err(Invalid::new(Problem::wrong_type("an object or base64", value))),
        }
    }

    fn as_object(self, value: &Value) -> Result<&Map<String, Value>, Invalid> {
        value.as_object().ok_or_else(|| Invalid::new(Problem::wrong_type("an object", value)))
    }

    fn text(self, value: &Value, filled: bool) -> Result<&str, Invalid> {
        match value.as_str() {
            None => Err(Invalid::new(Problem::wrong_type("a text", value))),
            Some("") if filled => Err(Invalid::new(Problem::Empty)),
            Some(text) => Ok(text),
        }
    }

    fn formatted(self, value: &Value, format: Format, filled: bool) -> Checked {
        let text = self.text(value, filled)?;
        let accepted = match format {
            // What an empty text would do for passes: `uri` in the spec's own words is only a text.
            Format::Uri if self.checks.lenient => true,
            Format::UriReference if self.checks.lenient => {
                format::is_lax_reference(text) || format::is_uri_reference(text)
            }
            _ => format.accepts(text),
        };
        if accepted { Ok(()) } else { Err(Invalid::new(Problem::format(format, text))) }
    }

    /// The peer checks package URLs in content always; the schemas never do.
    fn artifact(self, value: &Value, filled: bool) -> Checked {
        let text = self.text(value, filled)?;
        let checked = self.checks.lenient || self.checks.prose;
        if checked && !text.is_empty() && !format::is_purl(text) {
            return Err(Invalid::new(Problem::format(Format::Purl, text)));
        }
        Ok(())
    }

    fn one_of(self, value: &Value, allowed: &'static [&'static str]) -> Checked {
        let text = self.text(value, false)?;
        if allowed.contains(&text) {
            return Ok(());
        }
        Err(Invalid::new(Problem::NotOneOf { allowed, found: quoted(text) }))
    }

    fn texts(self, value: &Value) -> Checked {
        let items = value.as_array().ok_or_else(|| Invalid::new(Problem::wrong_type("a list of texts", value)))?;
        for (index, item) in items.iter().enumerate().filter(|(_, item)| !(self.checks.lenient && item.is_null())) {
            self.text(item, false).map_err(|invalid| invalid.within(&format!("[{index}]")))?;
        }
        Ok(())
    }

    /// The context's `source` depends on what the event is about.
    fn context(self, value: &Value) -> Checked {
        self.members(self.as_object(value)?, &[table::CONTEXT, self.rules.sources().0])
    }

    /// The subject's `source` depends on what it is, as does whether its `type` is tolerated.
    fn subject(self, value: &Value) -> Checked {
        let keeps_type = self.rules.event.is_some_and(|(_, event)| event.keeps_type);
        let kept = if keeps_type { table::KEPT_TYPE } else { &[] };
        self.members(self.as_object(value)?, &[table::SUBJECT, self.rules.sources().1, kept])
    }

    fn links(self, value: &Value) -> Checked {
        let links = value.as_array().ok_or_else(|| Invalid::new(Problem::wrong_type("a list of links", value)))?;
        for (index, link) in links.iter().enumerate() {
            self.link(link).map_err(|invalid| invalid.within(&format!("[{index}]")))?;
        }
        Ok(())
    }

    fn link(self, value: &Value) -> Checked {
        let link = self.as_object(value)?;
        let at = |problem| Invalid::at("linkType", problem);
        let kind = match link.get("linkType") {
            None => return Err(at(Problem::Missing)),
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(at(Problem::wrong_type("a text", other))),
        };
        match table::LINKS.iter().find(|(name, _)| name == kind) {
            Some((_, members)) => self.members(link, &[members]),
            None => Err(at(Problem::WrongLink(quoted(kind)))),
        }
    }

    fn link_end(self, value: &Value, required: bool) -> Checked {
        let end = self.as_object(value)?;
        let present = |name: &str| end.get(name).filter(|value| !(self.checks.lenient && value.is_null()));
        if let Some(id) = present("contextId") {
            self.text(id, true).map_err(|invalid| invalid.within("contextId"))?;
        }
        if self.rules.spec < Spec::V0_6 {
            let missing = required && present("contextId").is_none();
            return if missing { Err(Invalid::at("contextId", Problem::Missing)) } else { Ok(()) };
        }
        if let Some(id) = present("domainId") {
            let domain = |problem| Invalid::at("domainId", problem);
            let text = self.text(id, false).map_err(|invalid| invalid.within("domainId"))?;
            if !format::is_uri_reference(text) || (!required && !is_domain_id(text)) {
                return Err(domain(Problem::format(Format::UriReference, text)));
            }
        } else if present("contextId").is_none() {
            return Err(Invalid::new(Problem::LooseEnd));
        }
        Ok(())
    }

    fn subject_type(self, value: &Value) -> Checked {
        let text = self.text(value, false)?;
        match self.rules.event {
            Some((subject, _)) if text != subject.name => {
                Err(Invalid::new(Problem::WrongSubject { expected: subject.name, found: quoted(text) }))
            }
            None if !vocabulary::is_custom_subject(text) => {
                Err(Invalid::new(Problem::WrongSubject { expected: "<tool>-<subject>", found: quoted(text) }))
            }
            _ => Ok(()),
        }
    }

    fn subject_id(self, value: &Value) -> Checked {
        let text = self.text(value, true)?;
        if self.checks.prose && self.rules.is_artifact() && !format::is_purl(text) {
            return Err(Invalid::new(Problem::format(Format::Purl, text)));
        }
        Ok(())
    }

    fn content(self, content: &Map<String, Value>) -> Checked {
        match self.rules.event {
            Some((_, event)) => self.members(content, &[event.content]),
            None => Ok(()),
        }
    }
}

/// `cdevents:v0:<provider>:<provider-id>:<namespace>:<groups>:<type>:<resource id>`.
fn is_domain_id(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(8, ':').collect();
    let ["cdevents", "v0", _provider, _provider_id, _namespace, groups, kind, resource] = parts.as_slice() else {
        return false;
    };
    !groups.starts_with('/') && !groups.ends_with('/') && !kind.is_empty() && !resource.is_empty()
}
