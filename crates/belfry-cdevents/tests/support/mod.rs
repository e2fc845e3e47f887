//! What the tests of several files need: the official schemas beside the project, and Flux events from JSON.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

use std::{fs, path::PathBuf};

use jsonschema::{Registry, Validator};
use serde_json::Value;

/// The data beside the project; it needn't be there.
pub fn shared() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cdevents")
}

/// All JSON files of a folder, in order.
pub fn json_files(folder: PathBuf) -> Vec<Value> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let files = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

/// The official schemas of one version of the spec.
pub struct Official(Vec<(Option<String>, Validator)>);

impl Official {
    /// `None` when they aren't there.
    pub fn read(version: &str) -> Option<Self> {
        let folder = shared().join("schemas").join(version);
        let mut registry = Registry::new();
        for link in json_files(folder.join("links")) {
            registry = registry.add(link["$id"].as_str().unwrap(), link.clone()).unwrap();
        }
        let registry = registry.prepare().unwrap();
        let compile = |schema: Value| {
            let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
            let event_type = schema.pointer("/properties/context/properties/type/enum/0").and_then(Value::as_str);
            (event_type.map(str::to_owned), options.build(&schema).unwrap())
        };
        let schemas: Vec<_> = json_files(folder).into_iter().map(compile).collect();
        (!schemas.is_empty()).then_some(Self(schemas))
    }

    /// Panics when the document isn't valid.
    pub fn hold(&self, document: &Value) {
        let event_type = document["context"]["type"].as_str().unwrap();
        let of_type = |name: &Option<String>| name.as_deref() == Some(event_type);
        let of_type = self.0.iter().find(|(name, _)| of_type(name));
        let custom = || self.0.iter().find(|(name, _)| name.is_none() && event_type.starts_with("dev.cdeventsx."));
        let (_, validator) = of_type.or_else(custom).unwrap_or_else(|| panic!("no schema for {event_type}"));
        let errors: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{document:#}");
    }
}

/// Panics when the crate of the CDEvents project doesn't read the document.
pub fn hold_by_sdk(document: &Value) {
    let read: Result<cdevents_sdk::CDEvent, _> = serde_json::from_value(document.clone());
    assert!(read.is_ok(), "{read:?}\n{document:#}");
}
