//! Whether the CRDs that the API server serves are ours: an update of Flux puts its own in their place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{Cluster, Error, call};

/// Differences of one CRD that are named.
const NAMED: usize = 10;

impl Cluster {
    /// How the served CRDs differ from `expected`, one sentence each; none when they are the same but for descriptions
    /// and for what the API server fills in.
    ///
    /// # Errors
    /// When the API server does not answer, or forbids it.
    pub async fn crd_differences(&self, expected: &[Value]) -> Result<Vec<String>, Error> {
        let mut differences = Vec::new();
        for ours in expected {
            let name = ours.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            if !call::is_name(name) {
                continue;
            }
            let what = format!("reading the CRD {name}");
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            match call::get(&self.inner.client, &what, &path).await {
                Ok(served) => differences.extend(compare(name, ours, &served)),
                Err(error) if error.is_not_found() => differences.push(format!("{name} is not installed")),
                Err(error) => return Err(error),
            }
        }
        Ok(differences)
    }
}

fn compare(name: &str, ours: &Value, served: &Value) -> Vec<String> {
    let mut found = Found { name, all: Vec::new(), more: 0 };
    let (ours, served) = (&ours["spec"], &served["spec"]);
    for field in ["group", "scope"] {
        found.values(field, &ours[field], &served[field]);
    }
    for field in ["kind", "plural"] {
        found.values(&format!("names.{field}"), &ours["names"][field], &served["names"][field]);
    }
    let (ours, served) = (versions(ours), versions(served));
    for (version, ours) in &ours {
        let Some(served) = served.get(version) else {
            found.add(format!("{version} is not served"));
            continue;
        };
        found.values(&format!("{version} storage"), &ours["storage"], &served["storage"]);
        let flag = |version: &Value| Value::from(version.pointer("/subresources/status").is_some());
        found.values(&format!("{version} status subresource"), &flag(ours), &flag(served));
        let schema = |version: &Value| plain(version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null));
        found.values(version, &schema(ours), &schema(served));
    }
    for version in served.keys().filter(|version| !ours.contains_key(*version)) {
        found.add(format!("{version} is served, which Belfry does not know"));
    }
    found.end()
}

/// The versions that are served, by name.
fn versions(spec: &Value) -> BTreeMap<&str, &Value> {
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let served = versions.iter().filter(|version| version["served"] == true);
    served.filter_map(|version| version["name"].as_str().map(|name| (name, version))).collect()
}

/// A schema without descriptions, in one of the ways to write it. The names in `properties` are names, not keywords.
fn plain(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut plained = Map::new();
    for (keyword, value) in fields {
        let value = match keyword.as_str() {
            "description" | "title" | "example" | "externalDocs" => continue,
            "properties" | "definitions" | "patternProperties" | "dependencies" => {
                let Value::Object(named) = value else { continue };
                Value::Object(named.iter().map(|(name, schema)| (name.clone(), plain(schema))).collect())
            }
            "required" => sorted(value),
            "allOf" | "anyOf" | "oneOf" => {
                let schemas = value.as_array().map(Vec::as_slice).unwrap_or_default();
                schemas.iter().map(plain).collect()
            }
            "items" | "additionalProperties" | "not" => plain(value),
            _ => value.clone(),
        };
        // What is empty or false is what is left out.
        let absent = match &value {
            Value::Null => true,
            Value::Bool(set) => !set && keyword != "additionalProperties",
            Value::Array(values) => values.is_empty(),
            _ => false,
        };
        if !absent && keyword != "default" || keyword == "default" && !value.is_null() {
            plained.insert(keyword.clone(), value);
        }
    }
    Value::Object(plained)
}

fn sorted(values: &Value) -> Value {
    let mut values = values.as_array().cloned().unwrap_or_default();
    values.sort_by_key(ToString::to_string);
    Value::Array(values)
}

struct Found<'a> {
    name: &'a str,
    all: Vec<String>,
    more: usize,
}

impl Found<'_> {
    fn add(&mut self, difference: String) {
        if self.all.len() < NAMED {
            self.all.push(format!("{}: {difference}", self.name));
        } else {
            self.more += 1;
        }
    }

    /// Names the innermost places that differ.
    fn values(&mut self, path: &str, ours: &Value, served: &Value) {
        match (ours, served) {
            (Value::Object(ours), Value::Object(served)) => {
                let mut fields: Vec<&String> = ours.keys().chain(served.keys()).collect();
                fields.sort();
                fields.dedup();
                for field in fields {
                    let inner = if field == "properties" { path.to_owned() } else { format!("{path} {field}") };
                    match (ours.get(field), served.get(field)) {
                        (Some(ours), Some(served)) => self.values(&inner, ours, served),
                        (Some(_), None) => self.add(format!("{inner} is missing")),
                        (None, _) => self.add(format!("{inner} is there, which Belfry does not know")),
                    }
                }
            }
            (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
            (ours, served) if ours == served => {}
            _ => self.add(format!("{path} differs")),
        }
    }

    fn end(mut self) -> Vec<String> {
        if self.more > 0 {
            self.all.push(format!("{}: and {} more", self.name, self.more));
        }
        self.all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(schema: Value) -> Value {
        json!({ "spec": {
            "group": "g", "scope": "Namespaced", "names": { "kind": "Bell", "plural": "bells" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
        }})
    }

    #[test]
    fn descriptions_orders_and_what_is_filled_in_are_no_differences() {
        let ours = definition(json!({
            "type": "object",
            "properties": { "description": { "type": "string", "description": "ours", "maxLength": 5.0 } },
            "required": ["b", "a"],
        }));
        let mut served = definition(json!({
            "type": "object", "description": "theirs",
            "properties": { "description": { "type": "string", "maxLength": 5, "nullable": false } },
            "required": ["a", "b"],
        }));
        served["spec"]["conversion"] = json!({ "strategy": "None" });
        served["spec"]["names"]["listKind"] = json!("BellList");
        served["status"] = json!({});
        assert!(compare("bells.g", &ours, &served).is_empty(), "{:?}", compare("bells.g", &ours, &served));
    }

    #[test]
    fn differences_are_named() {
        let ours =
            definition(json!({ "properties": { "spec": { "properties": { "a": { "enum": ["x", "y"] }, "b": {} } } } }));
        let mut served =
            definition(json!({ "properties": { "spec": { "properties": { "a": { "enum": ["x"] }, "c": {} } } } }));
        assert_eq!(
            compare("bells.g", &ours, &served),
            [
                "bells.g: v1 spec a enum differs",
                "bells.g: v1 spec b is missing",
                "bells.g: v1 spec c is there, which Belfry does not know",
            ]
        );
        served["spec"]["versions"][0]["name"] = json!("v2");
        assert_eq!(
            compare("bells.g", &ours, &served),
            ["bells.g: v1 is not served", "bells.g: v2 is served, which Belfry does not know",]
        );
    }
}
