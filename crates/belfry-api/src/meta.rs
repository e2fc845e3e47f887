//! The part of Kubernetes object metadata that configuration rests on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `metadata` of a custom resource, reduced to what Belfry reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name, unique in kind and namespace.
    pub name: String,
    /// Namespace; empty means `default`, as kubectl has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// UID given by the API server; empty for a manifest in a folder.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Counts changes of the spec; 0 for a manifest in a folder.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: i64,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// A custom resource: metadata and spec. Status is written elsewhere and never read back as configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource<S> {
    /// Object metadata.
    pub metadata: Metadata,
    /// Desired state.
    pub spec: S,
}
