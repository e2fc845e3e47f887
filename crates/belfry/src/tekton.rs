//! The Tekton custom task: runs ask as everybody does who waits, and see what their ServiceAccounts may get.

use std::{sync::Arc, time::Duration};

use belfry_cluster::{Access, Ask, Cluster, Error, May, Sees, ServiceAccount, TektonSettings, User};
use belfry_core::{ObjectKey, verdict::Question};
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;

use crate::{server::stopped, waits::Waits};

/// How long a run waits for its turn when there are too many waits.
const TURN: Duration = Duration::from_secs(10);
/// The group of the resource that stands for a cluster as a whole. There is no such object, only rules about it.
const CLUSTERS: &str = "belfry.dev";
/// What the local cluster is called in rules if it has no name.
const LOCAL: &str = "local";

/// Does the runs of the cluster until `stop`.
pub async fn run(cluster: Arc<Cluster>, waits: Arc<Waits>, settings: TektonSettings, mut stop: watch::Receiver<bool>) {
    let local = settings.cluster_name.clone();
    let (leads, led) = watch::channel(true);
    let asked = cluster.clone();
    let may: May = Arc::new(move |account, object| {
        let (cluster, local) = (asked.clone(), local.clone());
        async move { may_get(&cluster, &local, &account, &object).await }.boxed()
    });
    let runs = cluster.run_tekton(settings, ask(waits), may, led);
    stopped(&mut stop).await;
    leads.send_replace(false);
    drop(leads);
    let _ = runs.await;
}

fn ask(waits: Arc<Waits>) -> Ask {
    Arc::new(move |question: Question, sees: Sees| {
        let waits = waits.clone();
        let answers = async move {
            loop {
                match waits.ask(question.clone(), sees.clone()) {
                    Ok(answers) => return answers,
                    Err(error) => tracing::warn!(%error, "a Tekton run waits for its turn"),
                }
                tokio::time::sleep(TURN).await;
            }
        };
        stream::once(answers).flatten().boxed()
    })
}

/// Whether a ServiceAccount may get an object by the cluster's own rules. What other clusters tell, and events without
/// an object, are for who may get the cluster as a whole.
async fn may_get(cluster: &Cluster, local: &str, who: &ServiceAccount, object: &ObjectKey) -> Result<bool, Error> {
    let user = User::service_account(&who.namespace, &who.name);
    let ObjectKey { group, namespace, name, .. } = object;
    if object.cluster != local || object.kind.is_empty() {
        let name = if object.cluster.is_empty() { LOCAL } else { &object.cluster };
        let access = Access { verb: "get", group: CLUSTERS, resource: "clusters", namespace: "", name };
        return cluster.allows(&user, access).await;
    }
    let resource = resource(&object.kind);
    let named = Access { verb: "get", group, resource: &resource, namespace, name };
    // Whoever may get all of them, or all of a namespace, is asked about once and not for each object.
    for access in [Access { namespace: "", name: "", ..named }, Access { name: "", ..named }, named] {
        if cluster.allows(&user, access).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The resource of one of Flux's kinds. A wrong guess is a resource that nobody was given rights to.
fn resource(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => kind + "s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_their_resources() {
        for (kind, expected) in [
            ("Bucket", "buckets"),
            ("GitRepository", "gitrepositories"),
            ("HelmRelease", "helmreleases"),
            ("ImagePolicy", "imagepolicies"),
            ("Kustomization", "kustomizations"),
            ("OCIRepository", "ocirepositories"),
        ] {
            assert_eq!(resource(kind), expected);
        }
    }
}
