//! Someone whom the cluster knows: what they may see is what its own rules let them.

use std::{fmt, sync::Arc};

use belfry_cluster::{Access as Permission, Cluster, Error, User};
use belfry_core::{ConfigKey, ConfigKind, ObjectKey};
use secrecy::{ExposeSecret as _, SecretString};

use super::Denied;

/// The group of the resource that stands for a cluster as a whole. There is no such object, only rules about it.
const CLUSTERS: &str = "belfry.dev";
/// What the local cluster is called in rules if it has no name.
pub(super) const LOCAL: &str = "local";

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
        may_get(&self.cluster, &self.local, &user, object).await.map_err(|error| unasked(&error))
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
        self.allows(&user, Permission { verb: "update", group, resource, namespace, name }).await
    }

    /// Whether events may be posted for the local cluster.
    ///
    /// # Errors
    /// When the token is no longer good, or the API server can't be asked.
    pub(super) async fn may_post(&self) -> Result<bool, Denied> {
        let user = self.user().await?;
        self.may_with_cluster(&user, "create", &self.local).await
    }

    async fn user(&self) -> Result<User, Denied> {
        match self.cluster.review_token(self.token.expose_secret()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(Denied::Unauthorized("the bearer token is no longer good".to_owned())),
            Err(error) => Err(unasked(&error)),
        }
    }

    async fn may_with_cluster(&self, user: &User, verb: &str, cluster: &str) -> Result<bool, Denied> {
        self.allows(user, with_cluster(verb, cluster)).await
    }

    async fn allows(&self, user: &User, permission: Permission<'_>) -> Result<bool, Denied> {
        self.cluster.allows(user, permission).await.map_err(|error| unasked(&error))
    }
}

/// Whether a user may get an object by the rules of the local cluster. What other clusters tell, and events without an
/// object, are for who may get the cluster as a whole.
///
/// # Errors
/// When the API server can't be asked.
pub async fn may_get(cluster: &Cluster, local: &str, user: &User, object: &ObjectKey) -> Result<bool, Error> {
    if object.cluster != local || object.kind.is_empty() {
        return cluster.allows(user, with_cluster("get", &object.cluster)).await;
    }
    let ObjectKey { group, namespace, name, .. } = object;
    let resource = plural(&object.kind);
    let named = Permission { verb: "get", group, resource: &resource, namespace, name };
    // Whoever may get all of them, or all of a namespace, is asked about once and not for each object.
    for permission in [Permission { namespace: "", name: "", ..named }, Permission { name: "", ..named }, named] {
        if cluster.allows(user, permission).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn with_cluster<'a>(verb: &'a str, cluster: &'a str) -> Permission<'a> {
    let name = if cluster.is_empty() { LOCAL } else { cluster };
    Permission { verb, group: CLUSTERS, resource: "clusters", namespace: "", name }
}

pub(super) fn unasked(error: &belfry_cluster::Error) -> Denied {
    if !error.is_unavailable() {
        tracing::error!("can't ask who may use the API: {}", error.explain());
    }
    Denied::Unavailable("the API server can't be asked who you are and what you may read".to_owned())
}

/// The resource of a kind, by the rule that names every resource of Flux. A wrong guess is a resource that nobody was
/// given rights to.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    let vowel_before_y = ["ay", "ey", "iy", "oy", "uy"].iter().any(|end| kind.ends_with(end));
    match kind.strip_suffix('y') {
        Some(stem) if !vowel_before_y => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| kind.ends_with(end)) => kind + "es",
        _ => kind + "s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_their_resources() {
        for (kind, resource) in [
            ("Alert", "alerts"),
            ("ArtifactGenerator", "artifactgenerators"),
            ("Bucket", "buckets"),
            ("Canary", "canaries"),
            ("CommitStatus", "commitstatuses"),
            ("ExternalArtifact", "externalartifacts"),
            ("FluxInstance", "fluxinstances"),
            ("Gateway", "gateways"),
            ("GitRepository", "gitrepositories"),
            ("HelmChart", "helmcharts"),
            ("HelmRelease", "helmreleases"),
            ("HelmRepository", "helmrepositories"),
            ("ImagePolicy", "imagepolicies"),
            ("ImageRepository", "imagerepositories"),
            ("ImageUpdateAutomation", "imageupdateautomations"),
            ("Ingress", "ingresses"),
            ("Kustomization", "kustomizations"),
            ("OCIRepository", "ocirepositories"),
            ("Provider", "providers"),
            ("Receiver", "receivers"),
            ("ResourceSet", "resourcesets"),
            ("Terraform", "terraforms"),
        ] {
            assert_eq!(plural(kind), resource);
        }
    }
}
