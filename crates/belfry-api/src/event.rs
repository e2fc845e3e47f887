//! The Event, `event.toolkit.fluxcd.io/v1beta1` (github.com/fluxcd/pkg/apis/event) and its successor `v1`: the body
//! that Flux controllers POST and that `generic` providers pass on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// One report of a Flux controller about one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The Flux object that the event is about.
    pub involved_object: ObjectReference,
    /// `info` or `error`; the wire allows any string.
    pub severity: String,
    /// When the controller saw it, in whole seconds on the wire; `None` where absent, null or Go's zero time.
    pub timestamp: Option<Timestamp>,
    /// Human-readable text, nominally at most 39,000 characters.
    pub message: String,
    /// Machine-readable reason in CamelCase.
    pub reason: String,
    /// Free-form pairs, with prefixed keys as controllers send them or stripped ones as `generic` providers do.
    pub metadata: BTreeMap<String, String>,
    /// Name of the controller, such as `kustomize-controller`.
    pub reporting_controller: String,
    /// Host name of the controller's pod.
    pub reporting_instance: String,
    /// Keys that this version doesn't know (`v1` adds `action` and `relatedObject`), kept as they came.
    pub extra: Map<String, Value>,
}

/// A core/v1 ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectReference {
    /// Kind, such as `Kustomization`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Group and version, such as `kustomize.toolkit.fluxcd.io/v1`.
    pub api_version: String,
    /// Version of the object as read at the start of the reconciliation.
    pub resource_version: String,
    /// Part of the object, hardly ever set.
    pub field_path: String,
}

impl ObjectReference {
    /// The API group in `apiVersion`; empty for the core group and for an absent apiVersion.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}
