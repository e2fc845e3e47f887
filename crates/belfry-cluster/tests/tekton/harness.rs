//! A cluster with Tekton's CRDs, and a Belfry that does its runs.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use belfry_cluster::{Leadership, May, Settings, TektonSettings};
use futures::FutureExt as _;
use kube::{
    Api,
    api::{DynamicObject, ListParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::{
    sync::{OnceCell, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::{
    support::{SOON, install_role, objects, settings, shared},
    world::World,
};

pub const OURS: &str = "belfry.dev/v1alpha1";
pub const OLDER: &str = "github.com/janakerman/flux-event-store/v0";

/// The cluster of this test binary with both kinds of runs; `None` where it can't be had.
pub async fn cluster() -> Option<&'static testkit::Cluster> {
    static PREPARED: OnceCell<bool> = OnceCell::const_new();
    let cluster = testkit::Cluster::shared().await?;
    let prepare = async || {
        let Some(definitions) = definitions() else { return false };
        install_role(cluster).await.unwrap();
        for definition in &definitions {
            cluster.apply_yaml(definition).await.unwrap();
        }
        true
    };
    PREPARED.get_or_init(prepare).await.then_some(cluster)
}

/// Tekton's own CRDs of CustomRun and Run.
pub fn definitions() -> Option<[String; 2]> {
    let read = |name: &str| fs::read_to_string(shared("crds").join(name)).ok();
    let found = read("tekton-customrun.yaml").zip(read("tekton-run-v1alpha1.yaml"));
    if found.is_none() {
        testkit::skip("Tekton's CRDs are not beside the project");
    }
    found.map(|(custom, older)| [custom, older])
}

/// What the ServiceAccounts of a test may read.
#[derive(Clone)]
pub enum Readable {
    Everything,
    These(Arc<Mutex<BTreeSet<String>>>),
}

impl Readable {
    pub fn may(self) -> May {
        Arc::new(move |_, object| {
            let may = match (&self, object) {
                (Self::Everything, _) => true,
                (Self::These(these), object) => these.lock().unwrap().contains(&object.to_string()),
            };
            async move { Ok(may) }.boxed()
        })
    }
}

/// A Belfry that does the runs of one namespace.
pub struct Belfry {
    leads: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Belfry {
    pub async fn start(cluster: &testkit::Cluster, namespace: &str, world: &Arc<World>, may: May) -> Self {
        let settings = Settings { watch_namespace: Some(namespace.to_owned()), ..settings(cluster).await };
        let cluster = belfry_cluster::connect(&settings).await.unwrap().rediscover_every(Duration::from_millis(200));
        let (leads, led) = watch::channel(None);
        let led = Leadership::until(led);
        let ask = world.ask();
        let task = tokio::spawn(async move { cluster.run_tekton(TektonSettings::default(), ask, may, led).await });
        let belfry = Self { leads, task };
        belfry.leads(true);
        belfry
    }

    /// Lets it lead, or no longer.
    pub fn leads(&self, leads: bool) {
        self.leads.send_replace(leads.then(|| Instant::now() + Duration::from_secs(3600)));
    }

    /// As when its process ends.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Belfry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs of one namespace, as Tekton and its users see them.
pub struct Runs<'c> {
    pub cluster: &'c testkit::Cluster,
    pub namespace: String,
}

impl Runs<'_> {
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.admin(), &self.namespace, &resource(kind))
    }

    /// Makes a CustomRun that asks for a revision.
    pub async fn create(&self, name: &str, params: Value, more: Value) -> DynamicObject {
        let reference = json!({ "apiVersion": OURS, "kind": "FluxDeploymentWait" });
        self.create_as("CustomRun", name, reference, params, more).await
    }

    pub async fn create_as(
        &self,
        kind: &str,
        name: &str,
        reference: Value,
        params: Value,
        more: Value,
    ) -> DynamicObject {
        let (version, field) = if kind == "Run" { ("v1alpha1", "ref") } else { ("v1beta1", "customRef") };
        let listed = params.as_object().unwrap().iter().map(|(name, value)| json!({ "name": name, "value": value }));
        let mut run = json!({
            "apiVersion": format!("tekton.dev/{version}"), "kind": kind, "metadata": { "name": name },
            "spec": { field: reference, "params": listed.collect::<Vec<_>>() },
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            match field.as_str() {
                "ownerReferences" => run["metadata"][field] = value.clone(),
                _ => run["spec"][field] = value.clone(),
            }
        }
        let run = serde_json::from_value(run).unwrap();
        self.api(kind).create(&PostParams::default(), &run).await.unwrap()
    }

    /// A CustomRun as it is.
    pub async fn get(&self, name: &str) -> Value {
        serde_json::to_value(self.api("CustomRun").get(name).await.unwrap()).unwrap()
    }

    /// Waits for a status that is as wanted, by its condition `Succeeded`.
    pub async fn until(&self, kind: &str, name: &str, status: &str, reason: &str) -> Value {
        let (api, what) = (self.api(kind), format!("{name} is {status}/{reason}"));
        testkit::until(&what, SOON, || async {
            let run = serde_json::to_value(api.get(name).await?)?;
            let condition = &run["status"]["conditions"][0];
            ensure!(condition["status"] == status && condition["reason"] == reason, "{}", run["status"]);
            Ok(run)
        })
        .await
        .unwrap()
    }

    pub async fn custom(&self, name: &str, status: &str, reason: &str) -> Value {
        self.until("CustomRun", name, status, reason).await
    }

    /// The Kubernetes Events about a run, once there is one with that reason.
    pub async fn told(&self, name: &str, reason: &str) -> Vec<Value> {
        let api = objects(self.cluster, &self.namespace, "Event");
        testkit::until(&format!("an Event says {reason} of {name}"), SOON, || async {
            let all = api.list(&ListParams::default()).await?;
            let all = all.items.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
            let mut of: Vec<_> = all.into_iter().filter(|event| event["involvedObject"]["name"] == name).collect();
            of.sort_by_key(|event| event["metadata"]["name"].to_string());
            ensure!(of.iter().any(|event| event["reason"] == reason), "{of:?}");
            Ok(of)
        })
        .await
        .unwrap()
    }
}

pub fn resource(kind: &str) -> ApiResource {
    let (version, plural) = if kind == "Run" { ("v1alpha1", "runs") } else { ("v1beta1", "customruns") };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("tekton.dev", version, kind), plural)
}

/// The shared cluster, a namespace of its own, and a Belfry that may read everything.
pub async fn scene(name: &str) -> Option<(Runs<'static>, Arc<World>, Belfry)> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(name).await.unwrap();
    let world = World::new();
    let belfry = Belfry::start(cluster, &namespace, &world, Readable::Everything.may()).await;
    Some((Runs { cluster, namespace }, world, belfry))
}

/// Waits until so many questions are being listened to.
pub async fn listeners(world: &Arc<World>, count: usize) {
    testkit::until(&format!("{count} are listened to"), SOON, || async {
        ensure!(world.listeners() == count, "{}", world.listeners());
        Ok(())
    })
    .await
    .unwrap();
}

/// A result of a run.
pub fn result<'r>(run: &'r Value, name: &str) -> &'r str {
    let results = run["status"]["results"].as_array().context("no results").unwrap();
    let found = results.iter().find(|result| result["name"] == name);
    found.and_then(|result| result["value"].as_str()).unwrap_or_else(|| panic!("no result {name}: {results:?}"))
}
