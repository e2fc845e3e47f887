//! The Tekton custom task `FluxDeploymentWait`: a run waits until a revision is live.
//!
//! `plan` has the rules, as a function of values; a task per run carries them out. Nothing is polled: what is asked comes
//! as a stream, and runs by a watch. All that a restart needs stands in the run's status.

mod inquiry;
mod params;
mod plan;
mod results;
mod run;
mod status;
mod task;
mod variables;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use belfry_core::{
    ObjectKey, Time,
    verdict::{Answer, Question},
};
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use kube::core::ApiResource;
use tokio::{sync::watch, task::AbortHandle};

use self::{
    run::{Ours, Run},
    task::{Shared, attend},
};
use crate::{
    Cluster, Error, Leadership,
    announce::Announcer,
    follow::{Change, follow},
    kinds::{CUSTOM_RUN, Kind, RUN},
    outage::Outage,
    seen::Seen,
};

/// Answers a question: at once from what is known, then once per change, until the stream is dropped. Only objects count
/// that may be seen.
pub type Ask = Arc<dyn Fn(Question, Sees) -> BoxStream<'static, Arc<Answer>> + Send + Sync>;

/// Whether an object may be seen, or why that can't be known now.
pub type Sees = Arc<dyn Fn(&ObjectKey) -> BoxFuture<'static, Result<bool, String>> + Send + Sync>;

/// Whether a ServiceAccount may get an object. The one without a name stands for what events without an object tell.
pub type May = Arc<dyn Fn(ServiceAccount, ObjectKey) -> BoxFuture<'static, Result<bool, Error>> + Send + Sync>;

/// A ServiceAccount on whose behalf a run asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Namespace: the run's.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What can be set about the custom task.
#[derive(Clone, Debug)]
pub struct TektonSettings {
    /// The name of the cluster that the runs are in.
    pub cluster_name: Arc<str>,
    /// How long a run may take that says nothing of it.
    pub timeout: Duration,
    /// The same of one that belongs to a PipelineRun, which has its own timeouts and cancels the run then.
    pub pipeline_timeout: Duration,
}

impl Default for TektonSettings {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { cluster_name: "".into(), timeout: hour, pipeline_timeout: 24 * hour }
    }
}

impl Cluster {
    /// Does the runs of `FluxDeploymentWait`, of Tekton's `CustomRun` and of the older `Run`, wherever the API server
    /// serves them, while this process leads.
    ///
    /// It ends when it is dropped, or when this process can't come to lead any more. What it leaves behind goes on where it
    /// is, here or elsewhere.
    pub async fn run_tekton(&self, settings: TektonSettings, ask: Ask, may: May, mut leadership: Leadership) {
        let announcer = Announcer::start(self.inner.client.clone());
        let outage = Mutex::new(Outage::default());
        let shared = Arc::new(Shared { cluster: self.clone(), announcer, settings, ask, may, outage });
        while leadership.becomes(true).await {
            tokio::select! {
                ((), ()) = async { tokio::join!(serve(&shared, &CUSTOM_RUN), serve(&shared, &RUN)) } => {}
                true = leadership.becomes(false) => {}
            }
        }
    }
}

fn now() -> Time {
    Time(Timestamp::now().as_microsecond())
}

/// Looks after the runs of one kind. Those that are looked after are left where they are when it is dropped.
async fn serve(shared: &Arc<Shared>, kind: &Kind) {
    let mut runs = Runs { shared, attended: HashMap::new() };
    let cluster = &shared.cluster;
    follow(&cluster.inner.client, &cluster.watched, kind, |resource, change: Change<Ours>| match change {
        Change::Listed(all) => {
            let places: HashSet<_> = all.iter().map(place).collect();
            runs.attended.retain(|place, _| places.contains(place));
            all.into_iter().for_each(|run| runs.see(resource, run));
        }
        Change::Applied(run) => runs.see(resource, run),
        Change::Removed(run) => drop(runs.attended.remove(&place(&run))),
        Change::Missing => runs.attended.clear(),
    })
    .await;
}

/// Namespace and name.
type Place = (String, String);

fn place(run: &Seen<Ours>) -> Place {
    (run.namespace().to_owned(), run.name().to_owned())
}

struct Runs<'s> {
    shared: &'s Arc<Shared>,
    attended: HashMap<Place, Attended>,
}

impl Runs<'_> {
    fn see(&mut self, resource: &ApiResource, seen: Seen<Ours>) {
        let place = place(&seen);
        let Some(run) = seen.kept.0.map(Arc::new) else {
            self.attended.remove(&place);
            return;
        };
        if let Some(attended) = self.attended.get(&place).filter(|attended| attended.uid == run.uid) {
            attended.seen.send_replace(run.clone());
            // Perhaps it is done by its own task, which is about to tell of it: that one ends by itself.
            if run.is_done()
                && let Some(attended) = self.attended.remove(&place)
            {
                attended.release();
            }
            return;
        }
        // One of another UID is another run, whatever its name.
        self.attended.remove(&place);
        if !run.is_done() {
            let path = format!("/apis/{}/namespaces/{}/{}/{}", resource.api_version, place.0, resource.plural, place.1);
            let (sender, seen) = watch::channel(run.clone());
            let task = tokio::spawn(attend(self.shared.clone(), path, seen));
            let task = Some(task.abort_handle());
            self.attended.insert(place, Attended { uid: run.uid.clone(), seen: sender, task });
        }
    }
}

/// A run that is being looked after, for as long as this is held.
struct Attended {
    uid: String,
    seen: watch::Sender<Arc<Run>>,
    task: Option<AbortHandle>,
}

impl Attended {
    /// Lets it come to its end.
    fn release(mut self) {
        self.task = None;
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
