//! Leadership against the real API server: one leads, and another once it is dead, cut off, or gone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::{
    future::pending,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use belfry_cluster::{Candidacy, Leadership, Settings, Terms};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject},
};
use proxy::Proxy;
use serde_json::{Value, json};
use support::{NAMESPACE, cluster, merge, objects, settings};
use testkit::until;
use tokio::{runtime::Runtime, sync::oneshot};

/// A lease may have to run out several times on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Quick ones, but not so quick that a slow machine changes leaders by itself.
const TERMS: Terms =
    Terms { lease: Duration::from_secs(6), renew_within: Duration::from_secs(4), retry: Duration::from_millis(300) };

/// A process that stands for election, as far as it can be one: a runtime of its own.
struct Replica {
    runtime: Option<Runtime>,
    leads: Leadership,
    stop: Option<oneshot::Sender<()>>,
}

impl Replica {
    async fn start(kubeconfig: &Path, candidacy: Candidacy) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let settings = Settings { kubeconfig: Some(kubeconfig.to_owned()), ..Settings::default() };
        let (stop, stopped) = oneshot::channel::<()>();
        let leads = runtime.spawn(async move {
            let belfry = belfry_cluster::connect(&settings).await.unwrap();
            let stopped = async move {
                // Who is killed doesn't stop.
                if stopped.await.is_err() {
                    pending::<()>().await;
                }
            };
            belfry.lead(candidacy, stopped)
        });
        Self { leads: leads.await.unwrap(), runtime: Some(runtime), stop: Some(stop) }
    }

    fn leads(&self) -> bool {
        self.leads.holds()
    }

    async fn comes_to_lead(&self) {
        self.becomes(true).await;
    }

    async fn becomes(&self, leads: bool) {
        assert!(tokio::time::timeout(PATIENCE, self.leads.clone().becomes(leads)).await.unwrap());
    }

    /// All of it is gone at once.
    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// As at SIGTERM.
    async fn end(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.leads.clone().ended()).await.unwrap();
        assert!(!self.leads());
    }

    /// As under a processor limit, or SIGSTOP: nothing of it runs until the end that is given.
    fn freeze(&self) -> std::sync::mpsc::Sender<()> {
        let (end, ended) = std::sync::mpsc::channel();
        // It has one thread, and this takes it.
        self.runtime.as_ref().unwrap().spawn(async move { ended.recv() });
        end
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // A runtime can't be dropped among tasks.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Looks all the time whether two lead.
struct Guard {
    both: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Guard {
    fn over(replicas: &[&Replica]) -> Self {
        let leads: Vec<_> = replicas.iter().map(|one| one.leads.clone()).collect();
        let both = Arc::new(AtomicBool::new(false));
        let found = both.clone();
        let task = tokio::spawn(async move {
            loop {
                // In the order in which they were begun: the one that loses it says so before the other has it.
                if leads.iter().filter(|leads| leads.holds()).count() > 1 {
                    found.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Self { both, task }
    }

    fn never(self) {
        self.task.abort();
        assert!(!self.both.load(Ordering::Relaxed), "two lead at a time");
    }
}

async fn lease(api: &Api<DynamicObject>) -> Value {
    api.get("work").await.unwrap().data["spec"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_another_when_it_is_dead_or_done() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("lease").await.unwrap();
    let kubeconfig = cluster.admin_kubeconfig().unwrap();
    let api = objects(cluster, &namespace, "Lease");
    let candidacy = |identity: &str| Candidacy { terms: TERMS, ..Candidacy::new(&namespace, "work", identity) };

    let mut first = Replica::start(&kubeconfig, candidacy("first")).await;
    first.comes_to_lead().await;
    let made = lease(&api).await;
    assert_eq!((&made["holderIdentity"], &made["leaseDurationSeconds"]), (&json!("first"), &json!(6)));
    let mut second = Replica::start(&kubeconfig, candidacy("second")).await;
    let guard = Guard::over(&[&first, &second]);

    // Whoever labels it disturbs nothing, and the label stays.
    let renewed = async || {
        let before = lease(&api).await["renewTime"].clone();
        until("it to be renewed", PATIENCE, async || {
            let now = lease(&api).await;
            ensure!(now["renewTime"] != before && now["holderIdentity"] == "first", "{now}");
            Ok(())
        })
        .await
        .unwrap();
    };
    merge(&api, "work", json!({"metadata": {"labels": {"team": "ops"}}})).await;
    renewed().await;
    assert_eq!(api.get("work").await.unwrap().metadata.labels.unwrap()["team"], "ops");
    assert!(!second.leads());

    first.kill();
    // That too is told, for whatever is left of the process.
    first.becomes(false).await;
    second.comes_to_lead().await;
    guard.never();
    assert_eq!(lease(&api).await["holderIdentity"], "second");

    // Its own end lets others in, and is known to be over.
    second.end().await;
    let free = lease(&api).await;
    assert_eq!((&free["holderIdentity"], &free["leaseDurationSeconds"]), (&json!(""), &json!(1)));
    let third = Replica::start(&kubeconfig, candidacy("third")).await;
    third.comes_to_lead().await;
    assert!(lease(&api).await["leaseTransitions"].as_i64() >= Some(2));

    // A Lease that is deleted is made again.
    api.delete("work", &DeleteParams::default()).await.unwrap();
    until("it to be there again", PATIENCE, async || {
        ensure!(api.get_opt("work").await?.is_some_and(|lease| lease.data["spec"]["holderIdentity"] == "third"));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_knows_before_another_leads() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("lease").await.unwrap();
    let kubeconfig = cluster.kubeconfig_for(&namespace, "someone").await.unwrap();
    cluster
        .apply_yaml(&format!(
            "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: all, namespace: {namespace}}},
               roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}},
               subjects: [{{kind: ServiceAccount, name: someone, namespace: {namespace}}}]}}"
        ))
        .await
        .unwrap();
    let proxy = Proxy::to(&cluster.url()).await;
    let candidacy = |identity: &str| Candidacy { terms: TERMS, ..Candidacy::new(&namespace, "work", identity) };
    let first = Replica::start(&proxy.kubeconfig(&kubeconfig, &cluster.url()), candidacy("first")).await;
    first.comes_to_lead().await;
    let second = Replica::start(&kubeconfig, candidacy("second")).await;
    let guard = Guard::over(&[&first, &second]);

    proxy.cut();
    second.comes_to_lead().await;
    assert!(!first.leads());
    // What was under way comes through now, and takes nothing from anybody.
    proxy.mend();
    let api = objects(cluster, &namespace, "Lease");
    let renewed = lease(&api).await["renewTime"].clone();
    until("it to be renewed", PATIENCE, async || {
        let now = lease(&api).await;
        ensure!(now["renewTime"] != renewed && now["holderIdentity"] == "second", "{now}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!first.leads());
    guard.never();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_run_does_not_lead_when_it_is() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("lease").await.unwrap();
    let kubeconfig = cluster.admin_kubeconfig().unwrap();
    let candidacy = |identity: &str| Candidacy { terms: TERMS, ..Candidacy::new(&namespace, "work", identity) };
    let first = Replica::start(&kubeconfig, candidacy("first")).await;
    first.comes_to_lead().await;
    let second = Replica::start(&kubeconfig, candidacy("second")).await;
    let guard = Guard::over(&[&first, &second]);
    let frozen = first.freeze();
    second.comes_to_lead().await;
    // Nobody could say so, and yet it is known.
    assert!(!first.leads());
    frozen.send(()).unwrap();
    first.becomes(false).await;
    guard.never();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_suffices_for_the_lease_of_its_name() {
    let Some(cluster) = cluster().await else { return };
    let kubeconfig = settings(cluster).await.kubeconfig.unwrap();
    // The usual terms: they need no outage to be tested.
    let mut belfry = Replica::start(&kubeconfig, Candidacy::new(NAMESPACE, "belfry", "pod-1")).await;
    belfry.comes_to_lead().await;
    belfry.end().await;
    let api = objects(cluster, NAMESPACE, "Lease");
    assert_eq!(api.get("belfry").await.unwrap().data["spec"]["holderIdentity"], "");
}
