//! What the rules of a Kubernetes cluster let its users see: the same for who asks the API and for a Tekton run.

use belfry_cluster::{Access as Permission, Cluster, Error, User};
use belfry_core::ObjectKey;

/// The group of the resource that stands for a cluster as a whole. There is no such object, only rules about it.
const CLUSTERS: &str = "belfry.dev";
/// What the local cluster is called in rules if it has no name.
pub(super) const LOCAL: &str = belfry_core::config::LOCAL;

/// Whether a user may see what is known of an object: who may get it. What other clusters tell, and events without an
/// object, are for who may get the cluster as a whole. `local` is the name of the local cluster.
///
/// # Errors
/// When the API server can't be asked.
pub async fn may_get(cluster: &Cluster, user: &User, local: &str, object: &ObjectKey) -> Result<bool, Error> {
    if object.cluster != local || object.kind.is_empty() {
        return cluster.allows(user, of_cluster("get", &object.cluster)).await;
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

/// Doing something with a cluster as a whole.
pub(super) fn of_cluster<'a>(verb: &'a str, cluster: &'a str) -> Permission<'a> {
    let name = if cluster.is_empty() { LOCAL } else { cluster };
    Permission { verb, group: CLUSTERS, resource: "clusters", namespace: "", name }
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
