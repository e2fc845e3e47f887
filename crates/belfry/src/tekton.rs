//! The Tekton custom task: runs ask as everybody does who waits, and see what their ServiceAccounts may get.

use std::{sync::Arc, time::Duration};

use belfry_cluster::{Ask, Cluster, Leadership, May, Sees, TektonSettings, User};
use belfry_core::verdict::Question;
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::{access::rights, waits::Waits};

/// How long a run waits for its turn when there are too many waits.
const TURN: Duration = Duration::from_secs(10);

/// Does the runs of the cluster while this process leads.
pub async fn run(cluster: Arc<Cluster>, waits: Arc<Waits>, settings: TektonSettings, leadership: Leadership) {
    let local = settings.cluster_name.clone();
    let asked = cluster.clone();
    let may: May = Arc::new(move |account, object| {
        let (cluster, local) = (asked.clone(), local.clone());
        async move {
            let user = User::service_account(&account.namespace, &account.name);
            rights::may_get(&cluster, &user, &local, &object).await
        }
        .boxed()
    });
    cluster.run_tekton(settings, ask(waits), may, leadership).await;
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
