//! Names of what events are about and of what configures Belfry.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A Flux object: what an event is about. The API version is not part of it, only the group. All fields empty: the one
/// unnamed object, to which events without `involvedObject` belong.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// Cluster that the object lives in; empty for the local one. Comes only from `--cluster-name` or from the
    /// credential that an event came with.
    pub cluster: String,
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// Kind of a configuration object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigKind {
    /// Where deliveries go.
    Provider,
    /// Which events go where.
    Alert,
    /// Which rollouts are told to which git host.
    CommitStatus,
    /// What takes webhooks in.
    Receiver,
    /// The cluster that Belfry runs in, as the destination of triggers. There is no such manifest.
    Cluster,
}

impl ConfigKind {
    const ALL: [Self; 5] = [Self::Provider, Self::Alert, Self::CommitStatus, Self::Receiver, Self::Cluster];

    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "Provider",
            Self::Alert => "Alert",
            Self::CommitStatus => "CommitStatus",
            Self::Receiver => "Receiver",
            Self::Cluster => "Cluster",
        }
    }

    /// The kind that manifests spell so.
    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == kind)
    }
}

/// A configuration object: a Provider (what deliveries call their destination), a route, or a Receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigKey {
    /// Kind.
    pub kind: ConfigKind,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ConfigKey {
    /// The key of a Provider.
    pub fn provider(namespace: &str, name: &str) -> Self {
        Self { kind: ConfigKind::Provider, namespace: namespace.into(), name: name.into() }
    }

    /// The key of an Alert.
    pub fn alert(namespace: &str, name: &str) -> Self {
        Self { kind: ConfigKind::Alert, namespace: namespace.into(), name: name.into() }
    }

    /// The key of a CommitStatus.
    pub fn commit_status(namespace: &str, name: &str) -> Self {
        Self { kind: ConfigKind::CommitStatus, namespace: namespace.into(), name: name.into() }
    }

    /// The key of a Receiver.
    pub fn receiver(namespace: &str, name: &str) -> Self {
        Self { kind: ConfigKind::Receiver, namespace: namespace.into(), name: name.into() }
    }

    /// The one destination of triggers.
    pub fn cluster() -> Self {
        Self { kind: ConfigKind::Cluster, namespace: "".into(), name: "local".into() }
    }
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}
