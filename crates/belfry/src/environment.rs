//! What differs between a cluster and a directory of manifests once both have supplied their documents: where Secrets
//! come from, and where remarks about configuration go.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use belfry_cluster::TriggerError;
use belfry_core::{
    ObjectKey, Time,
    announcement::Announcement,
    notification::{Failure, Outcome},
    secret::SecretData,
};

/// The surroundings that Belfry runs in.
#[async_trait]
pub trait Environment: Send + Sync {
    /// A Secret: `None` where there is none of that name. `fresh` asks past every cache.
    ///
    /// # Errors
    /// When it can't be known now; says why.
    async fn secret(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<SecretData>>, String>;

    /// Says something about a configuration object. Never waits.
    fn announce(&self, announcement: Announcement);

    /// Whether what watches see is of now.
    fn is_current(&self) -> bool {
        true
    }

    /// Asks for the reconciliation of an object; the same `asked` once more changes nothing. `None` where there is no
    /// cluster to ask: the request waits.
    async fn reconcile(&self, object: &ObjectKey, asked: Time) -> Option<Outcome>;
}

/// A directory of manifests: Secrets come from there, and remarks go to the log.
#[derive(Default)]
pub struct Standalone {
    secrets: RwLock<HashMap<(String, String), Arc<SecretData>>>,
    /// The cluster whose objects Receivers reconcile.
    cluster: Option<belfry_cluster::Cluster>,
}

impl Standalone {
    /// A directory whose Receivers reconcile objects of this cluster; of none, their requests wait.
    pub fn new(cluster: Option<belfry_cluster::Cluster>) -> Self {
        Self { secrets: RwLock::default(), cluster }
    }

    /// Replaces all Secrets. One that didn't change stays the same value, so that nothing built from it is built anew.
    pub fn replace_secrets(&self, secrets: HashMap<(String, String), SecretData>) {
        let mut held = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *held);
        for (key, secret) in secrets {
            let same = before.get(&key).filter(|known| known.fingerprint() == secret.fingerprint()).cloned();
            held.insert(key, same.unwrap_or_else(|| Arc::new(secret)));
        }
    }
}

#[async_trait]
impl Environment for Standalone {
    async fn secret(&self, namespace: &str, name: &str, _fresh: bool) -> Result<Option<Arc<SecretData>>, String> {
        let held = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        Ok(held.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    fn announce(&self, announcement: Announcement) {
        let Announcement { object, reason, message, annotations, warning, .. } = announcement;
        if warning {
            tracing::warn!(%object, reason, ?annotations, "{message}");
        } else {
            tracing::info!(%object, reason, ?annotations, "{message}");
        }
    }

    async fn reconcile(&self, object: &ObjectKey, asked: Time) -> Option<Outcome> {
        match &self.cluster {
            Some(cluster) => Environment::reconcile(cluster, object, asked).await,
            None => None,
        }
    }
}

/// A Kubernetes cluster.
#[async_trait]
impl Environment for belfry_cluster::Cluster {
    fn is_current(&self) -> bool {
        self.reachable()
    }

    async fn secret(&self, namespace: &str, name: &str, fresh: bool) -> Result<Option<Arc<SecretData>>, String> {
        Self::secret(self, namespace, name, fresh).await.map_err(|error| error.explain())
    }

    fn announce(&self, announcement: Announcement) {
        tracing::warn!(object = %announcement.object, reason = announcement.reason, "{}", announcement.message);
        Self::announce(self, announcement);
    }

    async fn reconcile(&self, object: &ObjectKey, asked: Time) -> Option<Outcome> {
        Some(match self.request_reconciliation(object, asked).await {
            Ok(()) => Outcome::Delivered,
            Err(TriggerError::Later(why)) => Outcome::Retry(Failure::new(why)),
            Err(TriggerError::Never(why)) => Outcome::Rejected(Failure::new(why)),
        })
    }
}
