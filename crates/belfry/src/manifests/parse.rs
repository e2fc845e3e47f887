//! The text of one file into objects.

use std::{borrow::Cow, path::Path};

use belfry_core::{config::Document, index::IndexedObject};
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Localizer, Location, Options, Spanned};

use super::{Contents, FileProblem, origin, secret};

/// Nodes of a YAML file, and those that its aliases may add: bounds for files that grow when they are read.
const NODES: usize = 250_000;
const REPLAYED: usize = 20_000;
/// Lists within lists.
const NESTED_LISTS: usize = 4;

/// API groups of Flux's own objects, whose fields the object index keeps.
const FLUX_GROUPS: [&str; 5] = [
    "source.toolkit.fluxcd.io",
    "source.extensions.fluxcd.io",
    "kustomize.toolkit.fluxcd.io",
    "helm.toolkit.fluxcd.io",
    "image.toolkit.fluxcd.io",
];

/// Where a document stands.
#[derive(Clone)]
struct Place<'a> {
    path: &'a Path,
    document: usize,
    line: Option<u64>,
    /// The item of a `List`.
    item: String,
}

impl Place<'_> {
    fn problem(&self, field: impl Into<String>, reason: impl Into<String>) -> FileProblem {
        let problem = FileProblem::of_file(self.path, reason);
        FileProblem {
            document: Some(self.document),
            line: self.line,
            field: self.item.clone() + &field.into(),
            ..problem
        }
    }

    fn origin(&self) -> String {
        let origin = origin(&self.path.display().to_string(), Some(self.document), self.line);
        if self.item.is_empty() { origin } else { format!("{origin}, {}", self.item.trim_end_matches('.')) }
    }
}

/// Reads a file. What is wrong with single objects goes into `problems`.
///
/// # Errors
/// When the file as a whole cannot be parsed.
pub(super) fn file(path: &Path, text: &str, problems: &mut Vec<FileProblem>) -> Result<Contents, FileProblem> {
    let values = if path.extension().is_some_and(|extension| extension == "json") {
        json(path, text)?
    } else {
        yaml(path, text)?
    };
    let mut contents = Contents::default();
    // Kustomize lets its own file go without a kind.
    let kustomization = path.file_stem().is_some_and(|stem| stem == "kustomization");
    for (index, (value, line)) in values.into_iter().enumerate() {
        let place = Place { path, document: index + 1, line, item: String::new() };
        contents.add(value, place, kustomization, 0, problems);
    }
    Ok(contents)
}

/// The documents of a YAML file with the line that each begins at. Those that hold nothing are left out.
fn yaml(path: &Path, text: &str) -> Result<Vec<(Value, Option<u64>)>, FileProblem> {
    let mut values: Vec<(Value, Option<u64>)> = Vec::new();
    let mut input = text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes();
    for document in serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut input, options()) {
        match document {
            Ok(document) if document.value.is_null() => {}
            Ok(document) => values.push((document.value, known(document.referenced))),
            Err(error) => {
                let line = error.location().and_then(known);
                let reason = error.render_with_formatter(&serde_saphyr::UserMessageFormatter.with_localizer(&Plain));
                let problem = FileProblem::of_file(path, format!("is not valid YAML: {reason}"));
                return Err(FileProblem { document: Some(values.len() + 1), line, ..problem });
            }
        }
    }
    Ok(values)
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: NODES, },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED, },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // An excerpt of the file may show a Secret.
        with_snippet: false,
    }
}

fn known(location: Location) -> Option<u64> {
    Some(location.line()).filter(|line| *line > 0)
}

/// Messages without their place, which is told apart.
struct Plain;

impl Localizer for Plain {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }
}

fn json(path: &Path, text: &str) -> Result<Vec<(Value, Option<u64>)>, FileProblem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter() {
        match value {
            Ok(Value::Null) => {}
            Ok(value) => values.push((value, None)),
            Err(error) => {
                let problem = FileProblem::of_file(path, format!("is not valid JSON: {error}"));
                let line = u64::try_from(error.line()).ok();
                return Err(FileProblem { document: Some(values.len() + 1), line, ..problem });
            }
        }
    }
    Ok(values)
}

impl Contents {
    fn add(
        &mut self,
        value: Value,
        place: Place<'_>,
        kustomization: bool,
        depth: usize,
        problems: &mut Vec<FileProblem>,
    ) {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
            if !kustomization {
                let field = if text("apiVersion").is_none() { "apiVersion" } else { "kind" };
                problems.push(place.problem(field, "is required"));
            }
            return;
        };
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if kind.ends_with("List") && value.get("items").is_some_and(Value::is_array) {
            if depth == NESTED_LISTS {
                problems.push(place.problem("items", "lists are nested too deeply"));
                return;
            }
            let Some(Value::Array(items)) = value.get("items").cloned() else { return };
            for (index, item) in items.into_iter().enumerate() {
                let place = Place { item: format!("{}items[{index}].", place.item), ..place.clone() };
                self.add(item, place, false, depth + 1, problems);
            }
        } else if group == belfry_api::GROUP {
            self.documents.push(Document { origin: place.origin(), value });
        } else if api_version == "v1" && kind == "Secret" {
            let mut report = |field: String, reason: &str| problems.push(place.problem(field, reason));
            match secret::read(&value, &mut report) {
                None => {}
                Some((key, Some(data))) => self.secrets.push((key, data)),
                Some((key, None)) => self.bad_secrets.push(key),
            }
        } else if FLUX_GROUPS.contains(&group) {
            match IndexedObject::trim(&value) {
                Some(object) => self.objects.push(object),
                None => problems.push(place.problem("metadata.name", "is required")),
            }
        }
    }
}
