//! What Belfry says about its own configuration objects: Kubernetes Events in a cluster, log lines elsewhere.

use std::{collections::BTreeMap, sync::Arc};

use crate::ConfigKey;

/// One remark about one configuration object. Masked: fit for everyone who may read Kubernetes Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The object, such as an Alert.
    pub object: ConfigKey,
    /// Its UID; empty outside a cluster.
    pub uid: Arc<str>,
    /// `Warning` rather than `Normal`.
    pub warning: bool,
    /// One CamelCase word, as the peer has it: `NotificationDispatchFailed`, `MetadataAppendFailed`, …
    pub reason: &'static str,
    /// What happened.
    pub message: String,
    /// Annotations of the Kubernetes Event.
    pub annotations: BTreeMap<String, String>,
}
