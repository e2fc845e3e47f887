//! The table says of every document what the official schemas say: of the examples of the spec, of documents made from
//! the schemas, and of thousands of mutations of both. The schemas stand beside the project, not in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use jsonschema::{Registry, Validator};
use serde_json::{Map, Value, json};

use crate::{
    Spec,
    validate::{Checks, Invalid, walk},
    vocabulary::{self, Claimed, Field, Rules, table},
};

fn shared() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cdevents")
}

fn json_files(folder: &Path) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

/// The schemas of one version of the spec, by the type that they are for; the custom one has none.
struct Schemas {
    spec: Spec,
    events: Vec<(Option<String>, Value, Validator)>,
}

impl Schemas {
    fn read(spec: Spec) -> Self {
        let folder = shared().join("schemas").join(spec.as_str());
        let id = |schema: &Value| schema["$id"].as_str().unwrap().to_owned();
        let links = json_files(&folder.join("links"));
        let mut registry = Registry::new();
        for link in &links {
            registry = registry.add(id(link), link.clone()).unwrap();
        }
        let registry = registry.prepare().unwrap();
        let compile = |schema: Value| {
            let validator =
                jsonschema::options().with_registry(&registry).should_validate_formats(true).build(&schema).unwrap();
            let event_type = schema.pointer("/properties/context/properties/type/enum/0").and_then(Value::as_str);
            (event_type.map(str::to_owned), schema, validator)
        };
        Self { spec, events: json_files(&folder).into_iter().map(compile).collect() }
    }

    /// The rules of the table for a type, in this version and no other.
    fn rules(&self, event_type: Option<&str>) -> Rules {
        match event_type {
            None => Rules { spec: self.spec, event: None },
            Some(event_type) => {
                let rules =
                    vocabulary::rules(event_type, Claimed { version: None, specversion: Some(self.spec.as_str()) });
                rules
                    .filter(|rules| rules.spec == self.spec)
                    .unwrap_or_else(|| panic!("{event_type} isn't in the table"))
            }
        }
    }
}

/// A document with everything that a schema knows.
fn sample(schema: &Value) -> Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        assert_eq!(reference, "links/embeddedlinksarray");
        return json!([
            {"linkType": "END", "from": {"contextId": "a"}, "tags": {"b": "c"}},
            {"linkType": "PATH", "from": {"contextId": "a"}, "tags": {}},
            {"linkType": "RELATION", "linkKind": "TRIGGER", "target": {"contextId": "a"}, "tags": {}},
        ]);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(choice).and_then(|choices| choices.get(0)) {
            return sample(first);
        }
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        return if pattern.contains("cdeventsx") {
            json!("dev.cdeventsx.tool-thing.done.0.1.0")
        } else {
            json!("tool-thing")
        };
    }
    match (schema["type"].as_str(), schema.get("format").and_then(Value::as_str)) {
        (Some("array"), _) => json!([sample(&schema["items"])]),
        (Some("object") | None, _) => {
            let empty = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
            properties.iter().map(|(name, schema)| (name.clone(), sample(schema))).collect::<Map<_, _>>().into()
        }
        (_, Some("uri")) => json!("https://example.org/a"),
        (_, Some("uri-reference")) => json!("/a"),
        (_, Some("date-time")) => json!("2026-03-01T10:00:00Z"),
        _ => json!("text"),
    }
}

/// Every place in a document, from the outside in.
fn places(document: &Value) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(place) = open.pop() {
        let value = place.iter().try_fold(document, |value, name| match value {
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            other => other.get(name),
        });
        let names: Vec<String> = match value {
            Some(Value::Object(members)) => members.keys().cloned().collect(),
            Some(Value::Array(items)) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => Vec::new(),
        };
        open.extend(names.into_iter().map(|name| place.iter().cloned().chain([name]).collect()));
        all.push(place);
    }
    all
}

fn at<'a>(document: &'a mut Value, place: &[String]) -> &'a mut Value {
    place.iter().fold(document, |value, name| match value {
        Value::Array(items) => &mut items[name.parse::<usize>().unwrap()],
        other => &mut other[name.as_str()],
    })
}

/// What may stand anywhere instead of what stands there.
fn replacements() -> Vec<Value> {
    let texts = [
        "",
        "text",
        "a b",
        "/a",
        "https://example.org/a",
        "urn:a:b",
        "http://[::1",
        "/%zz",
        "1:2",
        "pass",
        "success",
        "failure",
        "other",
        "low",
        "report",
        "PATH",
        "RELATION",
        "START",
        "2026-03-01T10:00:00Z",
        "2026-03-01t10:00:00.5+02:00",
        "2026-03-01",
        "2026-02-30T10:00:00Z",
        "2016-12-31T23:59:60Z",
        "pkg:oci/name@1",
        "change",
        "testCaseRun",
        "tool-thing",
        "9-x",
        "cdevents:v0:github::org:repo:commit:abc",
        "cdevents:v0:github::org:/repo:commit:abc",
        "aGVsbG8=",
    ];
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!(1.5),
        json!([]),
        json!(["text"]),
        json!([1]),
        json!({}),
        json!({"id": "x"}),
    ];
    texts.into_iter().map(Value::from).chain(others).collect()
}

fn mutations(document: &Value, replacements: &[Value]) -> Vec<Value> {
    let mut all = vec![document.clone()];
    for place in places(document) {
        for replacement in replacements {
            let mut changed = document.clone();
            *at(&mut changed, &place) = replacement.clone();
            all.push(changed);
        }
        if let Some((last, outer)) = place.split_last() {
            let mut changed = document.clone();
            match at(&mut changed, outer) {
                Value::Object(members) => drop(members.remove(last)),
                Value::Array(items) => drop(items.remove(last.parse().unwrap())),
                _ => unreachable!("a place lies in an object or a list"),
            }
            all.push(changed);
        }
        for member in [
            "unknown",
            "type",
            "uri",
            "url",
            "source",
            "domainId",
            "contextId",
            "linkKind",
            "version",
            "specversion",
            "outcome",
        ] {
            let mut changed = document.clone();
            if let Value::Object(members) = at(&mut changed, &place) {
                for value in
                    [json!("text"), json!("https://example.org/a"), json!("cdevents:v0:a:b:c:d:e:f"), json!({})]
                {
                    members.insert(member.into(), value);
                    all.push(document.clone());
                    let last = all.len() - 1;
                    *at(&mut all[last], &place) = Value::Object(members.clone());
                }
            }
        }
    }
    // The type is what selects a schema: it is no part of what the two must agree on.
    let selects = |document: &Value| document.pointer("/context/type").cloned();
    let selected = selects(document);
    all.retain(|changed| selects(changed).is_none() || selects(changed) == selected);
    all
}

/// What the table says when a document is held against rules that it didn't select itself.
fn check_as(document: &Value, rules: Rules) -> Result<(), Invalid> {
    walk::document(document, rules, Checks::SCHEMA)
}

fn names(fields: &[Field], spec: Spec) -> BTreeSet<&str> {
    fields.iter().filter(|field| field.is_in(spec)).map(|field| field.name).collect()
}

#[test]
fn the_table_agrees_with_the_official_schemas() {
    if !shared().join("schemas").exists() {
        println!("SKIPPED: the official schemas beside the project are missing");
        return;
    }
    for spec in Spec::ALL {
        let schemas = Schemas::read(spec);
        let mut examples = json_files(&shared().join("conformance").join(spec.as_str()));
        let (mut checked, mut valid) = (0, 0);
        for (event_type, schema, validator) in &schemas.events {
            let rules = schemas.rules(event_type.as_deref());
            if let Some((_, event)) = rules.event {
                let known =
                    schema.pointer("/properties/subject/properties/content/properties").unwrap().as_object().unwrap();
                assert_eq!(names(event.content, spec), known.keys().map(String::as_str).collect(), "{event_type:?}");
            }
            let of_type = |example: &Value| match event_type {
                Some(event_type) => example["context"]["type"] == event_type.as_str(),
                None => example["context"]["type"].as_str().is_some_and(vocabulary::is_custom),
            };
            let mut documents = mutations(&sample(schema), &replacements());
            for example in examples.extract_if(.., |example| of_type(example)) {
                documents.extend(mutations(&example, &[json!(null), json!(7), json!(""), json!([]), json!({})]));
            }
            for document in documents {
                let ours = check_as(&document, rules);
                let theirs = validator.is_valid(&document);
                checked += 1;
                valid += usize::from(theirs);
                assert_eq!(ours.is_ok(), theirs, "{}: {ours:?}\n{document}", spec.as_str());
            }
        }
        assert!(examples.is_empty(), "examples without a schema: {examples:?}");
        println!("{}: {} schemas, {checked} documents, {valid} valid", spec.as_str(), schemas.events.len());
    }
}

#[test]
fn the_table_has_no_event_that_the_schemas_lack() {
    if !shared().join("schemas").exists() {
        println!("SKIPPED: the official schemas beside the project are missing");
        return;
    }
    for spec in Spec::ALL {
        let schemas = Schemas::read(spec);
        let theirs: BTreeSet<&str> =
            schemas.events.iter().filter_map(|(event_type, ..)| event_type.as_deref()).collect();
        let ours: BTreeSet<String> = table::SUBJECTS
            .iter()
            .flat_map(|subject| subject.events.iter().map(move |event| (subject, event)))
            .filter_map(|(subject, event)| {
                vocabulary::full_type(&subject.name.to_ascii_lowercase(), event.predicate, spec)
            })
            .collect();
        assert_eq!(ours.iter().map(String::as_str).collect::<BTreeSet<_>>(), theirs, "{}", spec.as_str());
    }
}
