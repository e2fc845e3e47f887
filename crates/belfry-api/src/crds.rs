//! The CustomResourceDefinitions, generated from their types: what a user reads in the types'
//! documentation, what the API server checks and what Belfry checks itself are one thing.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    AlertSpec, COMMIT_STATUS_VERSIONS, CommitStatusSpec, CommitStatusStatus, GROUP, ProviderSpec, ReceiverSpec,
    ReceiverStatus, STORAGE_VERSION,
};

/// The CustomResourceDefinitions of every kind, in the order of their names.
pub fn crds() -> Vec<Value> {
    vec![
        crd("Alert", "alerts", &spec_schema::<AlertSpec>()),
        commit_status_crd(),
        crd("Provider", "providers", &spec_schema::<ProviderSpec>()),
        receiver_crd(),
    ]
}

/// The structural schema of a spec: what Kubernetes takes for `openAPIV3Schema`, without references.
pub fn spec_schema<S: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    structural(&mut schema);
    schema
}

/// Rewrites what schemars says into what Kubernetes takes for structural: one plain type for every value. An optional
/// field is one that may be absent, not one that may be null.
fn structural(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(variants)) = map.remove(word) {
            merge(map, variants);
        }
    }
    for word in ["title", "nullable", "$schema"] {
        map.remove(word);
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let plain = types.iter().find(|name| name.as_str() != Some("null")).cloned();
        map.extend(plain.map(|plain| ("type".to_owned(), plain)));
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(word) {
            structural(inner);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
}

/// Puts variants into their schema: the one beside null, or constants as an enumeration.
fn merge(map: &mut Map<String, Value>, variants: Vec<Value>) {
    let constant = |variant: &Value| {
        let single = variant.get("enum").and_then(Value::as_array).filter(|values| values.len() == 1);
        variant.get("const").or_else(|| single.and_then(|values| values.first())).cloned()
    };
    let constants: Vec<Value> = variants.iter().filter_map(constant).filter(|value| !value.is_null()).collect();
    if !constants.is_empty() {
        map.insert("type".into(), "string".into());
        map.insert("enum".into(), constants.into());
        return;
    }
    for variant in variants {
        if let Value::Object(inner) = variant {
            for (word, value) in inner.into_iter().filter(|(_, value)| value != "null") {
                map.entry(word).or_insert(value);
            }
        }
    }
}

/// The CustomResourceDefinition of Receiver.
pub fn receiver_crd() -> Value {
    let mut schema = object_schema("Receiver", "receivers", &spec_schema::<ReceiverSpec>());
    add_status::<ReceiverStatus>(&mut schema);
    let age_first = [age(), ready("Ready", "status"), ready("Status", "message")];
    definition("Receiver", "receivers", vec![reporting("v1", true, &age_first, &schema)])
}

fn commit_status_crd() -> Value {
    let mut schema = object_schema("CommitStatus", "commitstatuses", &spec_schema::<CommitStatusSpec>());
    add_status::<CommitStatusStatus>(&mut schema);
    let column = |name: &str, path: &str| json!({ "name": name, "type": "string", "jsonPath": path });
    let columns = [
        age(),
        column("Provider", ".spec.providerRef.name"),
        column("Prefix", ".spec.prefix"),
        ready("Ready", "status"),
        ready("Status", "message"),
    ];
    let [stored, other] = COMMIT_STATUS_VERSIONS;
    let versions = [(stored, true), (other, false)].map(|(name, stores)| reporting(name, stores, &columns, &schema));
    definition("CommitStatus", "commitstatuses", versions.into())
}

/// A version of a kind that has conditions.
fn reporting(name: &str, storage: bool, columns: &[Value], schema: &Value) -> Value {
    json!({
        "name": name,
        "served": true,
        "storage": storage,
        "additionalPrinterColumns": columns,
        "schema": { "openAPIV3Schema": schema },
        "subresources": { "status": {} },
    })
}

fn add_status<S: JsonSchema>(schema: &mut Value) {
    schema["properties"]["status"] = spec_schema::<S>();
    // Until it is written for the first time, what is there isn't observed.
    schema["properties"]["status"]["default"] = json!({ "observedGeneration": -1 });
}

fn age() -> Value {
    json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" })
}

fn ready(name: &str, field: &str) -> Value {
    json!({ "name": name, "type": "string", "jsonPath": format!(".status.conditions[?(@.type==\"Ready\")].{field}") })
}

fn crd(kind: &str, plural: &str, spec: &Value) -> Value {
    let schema = object_schema(kind, plural, spec);
    // The stored one first, then from new to old.
    let versions: Vec<Value> = [(STORAGE_VERSION, None), ("v1", None), old("v1beta2", kind), old("v1beta1", kind)]
        .into_iter()
        .map(|(name, warning)| version(name, warning, &schema))
        .collect();
    definition(kind, plural, versions)
}

fn object_schema(kind: &str, plural: &str, spec: &Value) -> Value {
    json!({
        "description": format!("{kind} is the Schema for the {plural} API"),
        "type": "object",
        "properties": {
            "apiVersion": {
                "description": "APIVersion defines the versioned schema of this representation of an object.",
                "type": "string",
            },
            "kind": {
                "description": "Kind is a string value representing the REST resource this object represents.",
                "type": "string",
            },
            "metadata": { "type": "object" },
            "spec": spec,
        },
    })
}

fn definition(kind: &str, plural: &str, versions: Vec<Value>) -> Value {
    let singular = kind.to_lowercase();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            "annotations": { "kustomize.toolkit.fluxcd.io/substitute": "disabled" },
        },
        "spec": {
            "group": GROUP,
            "names": {
                "categories": ["all", "fluxcd", "fluxcd-notifications"],
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
            },
            "scope": "Namespaced",
            // The versions of a kind have one schema, so that changing the apiVersion is all there is to convert.
            "conversion": { "strategy": "None" },
            "versions": versions,
        },
    })
}

/// A version that is served for manifests of old.
fn old(name: &'static str, kind: &str) -> (&'static str, Option<String>) {
    (name, Some(format!("{GROUP}/{name} {kind} is deprecated, use {STORAGE_VERSION}")))
}

fn version(name: &str, warning: Option<String>, schema: &Value) -> Value {
    let mut version = json!({
        "name": name,
        "served": true,
        "storage": name == STORAGE_VERSION,
        "additionalPrinterColumns": [age()],
        "schema": { "openAPIV3Schema": schema },
        "subresources": {},
    });
    if let Some(warning) = warning {
        version["deprecated"] = true.into();
        version["deprecationWarning"] = warning.into();
    }
    version
}
