//! The object index: the one trimmed picture of Flux objects. Watches, or manifests in a folder, feed it.

mod source;
mod status;

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::{Value, json};
pub use source::Source;
pub use status::{Agreement, Decided};

use crate::ObjectKey;

/// The few fields of a Flux object that Belfry's rules need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IndexedObject {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations, without kubectl's copy of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// When it was created, as the API server writes it; empty for a manifest in a folder.
    pub created: String,
    /// `spec.suspend`.
    pub suspended: bool,
    /// A HelmRelease's tests run, and their failures count: `spec.test.enable` without `spec.test.ignoreFailures`.
    pub tests_decide: bool,
    /// It carries a deletion timestamp.
    pub deleting: bool,
    /// `spec.sourceRef`, `spec.chartRef` or the chart's `sourceRef`: what it is made from.
    pub source: Option<SourceReference>,
    /// `spec.path` of a Kustomization.
    pub path: Option<String>,
    /// The chart that a HelmRelease or HelmChart names.
    pub chart: Option<String>,
    /// `spec.url` of a source; of a Bucket, its endpoint and name.
    pub url: Option<String>,
    /// `status.artifact.revision` of a source.
    pub artifact_revision: Option<String>,
    /// `status.artifact.metadata`'s origin revision (`org.opencontainers.image.revision`).
    pub artifact_origin_revision: Option<String>,
    /// Where the content of a source's artifact comes from (`org.opencontainers.image.source`).
    pub artifact_origin_url: Option<String>,
    /// `status.lastAppliedRevision`.
    pub applied_revision: Option<String>,
    /// `status.lastAppliedOriginRevision`.
    pub applied_origin_revision: Option<String>,
    /// `status.lastAttemptedRevision`.
    pub attempted_revision: Option<String>,
    /// Its Ready condition.
    pub ready: Option<Condition>,
}

impl IndexedObject {
    /// Its name in the local cluster.
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            cluster: String::new(),
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// A reference to a source object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SourceReference {
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name.
    #[serde(default)]
    pub name: String,
    /// Namespace; the referring object's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// A status condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// Reason.
    #[serde(default)]
    pub reason: String,
    /// Message.
    #[serde(default)]
    pub message: String,
    /// The generation that it tells of.
    #[serde(default)]
    pub observed_generation: i64,
    /// When its status changed last, as the controller wrote it.
    #[serde(default)]
    pub last_transition_time: String,
}

impl IndexedObject {
    /// Takes the needed fields out of a whole object; `None` when it has no kind or name.
    pub fn trim(object: &Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let flag = |pointer: &str| object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        let source = ["/spec/sourceRef", "/spec/chartRef", "/spec/chart/spec/sourceRef"]
            .iter()
            .find_map(|pointer| object.pointer(pointer))
            .and_then(|value| SourceReference::deserialize(value).ok());
        let ready = object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .and_then(|conditions| conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready")))
            .and_then(|condition| Condition::deserialize(condition).ok());
        let map = |pointer: &str| -> BTreeMap<String, String> {
            object.pointer(pointer).and_then(|map| BTreeMap::deserialize(map).ok()).unwrap_or_default()
        };
        let mut annotations = map("/metadata/annotations");
        annotations.remove(LAST_APPLIED);
        Some(Self {
            group: text("/apiVersion")?.split_once('/').map_or_else(String::new, |(group, _)| group.to_owned()),
            kind: text("/kind")?,
            namespace: text("/metadata/namespace").unwrap_or_else(|| "default".into()),
            name: text("/metadata/name")?,
            uid: text("/metadata/uid").unwrap_or_default(),
            generation: object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
            labels: map("/metadata/labels"),
            annotations,
            created: text("/metadata/creationTimestamp").unwrap_or_default(),
            suspended: flag("/spec/suspend"),
            tests_decide: flag("/spec/test/enable") && !flag("/spec/test/ignoreFailures"),
            deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
            source,
            path: text("/spec/path"),
            chart: text("/spec/chart/spec/chart").or_else(|| text("/spec/chart")),
            url: text("/spec/url").or_else(|| {
                let scheme = if flag("/spec/insecure") { "http" } else { "https" };
                Some(format!("{scheme}://{}/{}", text("/spec/endpoint")?, text("/spec/bucketName")?))
            }),
            artifact_revision: text("/status/artifact/revision"),
            artifact_origin_revision: object
                .pointer("/status/artifact/metadata")
                .and_then(|metadata| metadata.get("org.opencontainers.image.revision"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            artifact_origin_url: object
                .pointer("/status/artifact/metadata")
                .and_then(|metadata| metadata.get("org.opencontainers.image.source"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            applied_revision: text("/status/lastAppliedRevision"),
            applied_origin_revision: text("/status/lastAppliedOriginRevision"),
            attempted_revision: text("/status/lastAttemptedRevision"),
            ready,
        })
    }
}

/// The annotation in which kubectl keeps a second copy of the manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl IndexedObject {
    /// What a Receiver's filters see of it: API version, kind and metadata, what is empty left out.
    pub fn metadata(&self, version: &str) -> Value {
        let mut metadata = serde_json::Map::new();
        for (name, text) in [
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("uid", &self.uid),
            ("creationTimestamp", &self.created),
        ] {
            if !text.is_empty() {
                metadata.insert(name.to_owned(), text.as_str().into());
            }
        }
        if self.generation != 0 {
            metadata.insert("generation".to_owned(), self.generation.into());
        }
        for (name, map) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !map.is_empty() {
                metadata.insert(name.to_owned(), json!(map));
            }
        }
        let api_version = if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) };
        json!({ "apiVersion": api_version, "kind": self.kind, "metadata": metadata })
    }
}

/// Flux objects of the local cluster by kind, namespace and name.
#[derive(Clone, Debug, Default)]
pub struct ObjectIndex {
    objects: HashMap<String, HashMap<(String, String), IndexedObject>>,
}

impl ObjectIndex {
    /// The object of this kind, namespace and name.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&IndexedObject> {
        self.objects.get(kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The objects of this kind, namespace and API group that carry all of these labels, in the order of their names.
    pub fn labelled(
        &self,
        kind: &str,
        group: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<&IndexedObject> {
        let of_kind = self.objects.get(kind).into_iter().flat_map(HashMap::values);
        let mut found: Vec<&IndexedObject> = of_kind
            .filter(|object| object.namespace == namespace && object.group == group)
            .filter(|object| labels.iter().all(|(key, value)| object.labels.get(key) == Some(value)))
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// All objects, in no order.
    pub fn all(&self) -> impl Iterator<Item = &IndexedObject> {
        self.objects.values().flat_map(HashMap::values)
    }

    /// The objects of a kind, in no order.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &IndexedObject> {
        self.objects.get(kind).into_iter().flat_map(HashMap::values)
    }

    /// The source that an object is made from.
    pub fn source_of(&self, object: &IndexedObject) -> Option<&IndexedObject> {
        let source = object.source.as_ref()?;
        self.get(&source.kind, source.namespace.as_deref().unwrap_or(&object.namespace), &source.name)
    }

    /// The URL of the git repository that an object comes from: its source's, or the one that its source's artifact was
    /// made from.
    pub fn repository_url(&self, kind: &str, namespace: &str, name: &str) -> Option<&str> {
        let mut object = self.get(kind, namespace, name)?;
        // A HelmRelease has a HelmChart, and that a source.
        for _ in 0..3 {
            match object.kind.as_str() {
                "GitRepository" => return object.url.as_deref(),
                _ if object.artifact_origin_url.is_some() => return object.artifact_origin_url.as_deref(),
                _ => object = self.source_of(object)?,
            }
        }
        None
    }

    /// Adds or replaces an object.
    pub fn apply(&mut self, object: IndexedObject) {
        let key = (object.namespace.clone(), object.name.clone());
        self.objects.entry(object.kind.clone()).or_default().insert(key, object);
    }

    /// Removes an object.
    pub fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        if let Some(objects) = self.objects.get_mut(kind) {
            objects.remove(&(namespace.to_owned(), name.to_owned()));
        }
    }

    /// Replaces all objects of a kind, as a watch that starts anew does.
    pub fn replace(&mut self, kind: &str, objects: impl IntoIterator<Item = IndexedObject>) {
        let objects = objects.into_iter().map(|o| ((o.namespace.clone(), o.name.clone()), o)).collect();
        self.objects.insert(kind.to_owned(), objects);
    }

    /// How many objects it holds.
    pub fn len(&self) -> usize {
        self.objects.values().map(HashMap::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
