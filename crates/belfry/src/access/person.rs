//! Someone whom the cluster knows: what they may see is what its own rules let them.

use std::{fmt, sync::Arc};

use belfry_cluster::{Access as Permission, Cluster, User};
use belfry_core::{ConfigKey, ConfigKind, ObjectKey};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Denied, rights};

/// A user of the Kubernetes API, by a token that may end or be revoked meanwhile.
#[derive(Clone)]
pub struct Person {
    cluster: Arc<Cluster>,
    token: Arc<SecretString>,
    /// The name of the local cluster.
    local: Arc<str>,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person")
    }
}

impl Person {
    pub(super) fn new(cluster: Arc<Cluster>, token: &str, local: Arc<str>) -> Self {
        Self { cluster, token: Arc::new(token.into()), local }
    }

    /// Whether what is known of an object may be read.
    ///
    /// # Errors
    /// When the token is no longer good, or the API server can't be asked.
    pub async fn may_read(&self, object: &ObjectKey) -> Result<bool, Denied> {
        let user = self.user().await?;
        rights::may_get(&self.cluster, &user, &self.local, object).await.map_err(|error| unasked(&error))
    }

    /// Whether a delivery that this object caused may be put in line again.
    ///
    /// # Errors
    /// When the token is no longer good, or the API server can't be asked.
    pub async fn may_redeliver(&self, route: &ConfigKey) -> Result<bool, Denied> {
        let resource = match route.kind {
            ConfigKind::Alert => "alerts",
            ConfigKind::CommitStatus => "commitstatuses",
            ConfigKind::Receiver => "receivers",
            ConfigKind::Provider | ConfigKind::Cluster => return Ok(false),
        };
        let (group, namespace, name) = (belfry_api::GROUP, &*route.namespace, &*route.name);
        let user = self.user().await?;
        let permission = Permission { verb: "update", group, resource, namespace, name };
        self.cluster.allows(&user, permission).await.map_err(|error| unasked(&error))
    }

    /// Whether events may be posted for the local cluster.
    ///
    /// # Errors
    /// When the token is no longer good, or the API server can't be asked.
    pub(super) async fn may_post(&self) -> Result<bool, Denied> {
        let user = self.user().await?;
        let permission = rights::of_cluster("create", &self.local);
        self.cluster.allows(&user, permission).await.map_err(|error| unasked(&error))
    }

    async fn user(&self) -> Result<User, Denied> {
        match self.cluster.review_token(self.token.expose_secret()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(Denied::Unauthorized("the bearer token is no longer good".to_owned())),
            Err(error) => Err(unasked(&error)),
        }
    }
}

pub(super) fn unasked(error: &belfry_cluster::Error) -> Denied {
    if !error.is_unavailable() {
        tracing::error!("can't ask who may use the API: {}", error.explain());
    }
    Denied::Unavailable("the API server can't be asked who you are and what you may read".to_owned())
}
