//! The Tekton custom task: runs ask as everybody does who waits, and see what their ServiceAccounts may get.

use std::{sync::Arc, time::Duration};

use belfry_cluster::{Ask, Candidacy, Cluster, Leadership, May, Sees, TektonSettings, User};
use belfry_core::verdict::Question;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::watch;

use crate::{access::rights, server::stopped, waits::Waits};

/// How long a run waits for its turn when there are too many waits.
const TURN: Duration = Duration::from_secs(10);

/// Does the runs of the cluster until `stop`; with an election, while this process leads. Where two do so for a moment
/// no harm is done: a status is written only as it was looked at.
pub async fn run(
    cluster: Arc<Cluster>,
    waits: Arc<Waits>,
    settings: TektonSettings,
    election: Option<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
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
    let (says, leads) = watch::channel(election.is_none());
    tokio::select! {
        () = cluster.run_tekton(settings, ask(waits), may, leads) => {}
        () = follow(election, &says) => {}
        () = stopped(&mut stop) => {}
    }
}

/// Passes on whether this process leads, until the election is over.
async fn follow(election: Option<Leadership>, says: &watch::Sender<bool>) {
    let Some(mut election) = election else { return std::future::pending().await };
    while election.becomes(true).await {
        says.send_replace(true);
        election.becomes(false).await;
        says.send_replace(false);
    }
}

/// Stands for election, where replicas share the work.
pub fn stand(cluster: &Cluster, namespace: &str, mut stop: watch::Receiver<bool>) -> Leadership {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "belfry".to_owned());
    let identity = format!("{host}_{:016x}", fastrand::u64(..));
    cluster.lead(Candidacy::new(namespace, "belfry", identity), async move { stopped(&mut stop).await })
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
