//! One run, from when it is seen until it is done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Ask, May, ServiceAccount, TektonSettings,
    inquiry::{Asker, Inquiry},
    now,
    plan::{Clock, Heard, Remark, Step, plan},
    run::Run,
};
use crate::{
    Cluster, Error,
    announce::Announcer,
    backoff::Backoff,
    call,
    error::chain,
    outage::Outage,
    recorder::{About, Note},
};

const MERGE_PATCH: &str = "application/merge-patch+json";
const WHAT: &str = "writing the status of Tekton runs";
/// What Kubernetes Events about runs call their author.
const COMPONENT: &str = "belfry";
/// The longest sleep: the clock that timeouts are counted by may be set meanwhile.
const LONGEST: Duration = Duration::from_secs(600);

/// What all runs share.
pub(super) struct Shared {
    pub(super) cluster: Cluster,
    /// One of its own: many runs must not stand in the way of what is told of Alerts and Providers.
    pub(super) announcer: Announcer,
    pub(super) settings: TektonSettings,
    pub(super) ask: Ask,
    pub(super) may: May,
    pub(super) outage: Mutex<Outage>,
}

/// Looks after a run until it is done. `path` is that of the object, `seen` what the watch sees of it.
pub(super) async fn attend(shared: Arc<Shared>, path: String, mut seen: watch::Receiver<Arc<Run>>) {
    let mut run = seen.borrow_and_update().clone();
    let since = now();
    let (mut inquiry, mut heard, mut told): (Option<Inquiry>, Option<Heard>, _) = (None, None, None);
    let mut backoff = Backoff::new();
    loop {
        match plan(&run, heard.as_ref(), Clock { now: now(), since, told }, &shared.settings) {
            Step::Done => return,
            Step::Write { status, remark } => match shared.write(&path, &run, status).await {
                Some(written) => {
                    backoff.reset();
                    told = heard.is_some().then(now);
                    shared.tell(&run, remark);
                    run = Arc::new(written);
                }
                // Refused, or it is no longer what was looked at: then the watch tells of it.
                None => tokio::select! {
                    () = newer(&mut seen, &mut run) => {}
                    () = backoff.wait() => {}
                },
            },
            Step::Wait { question, until } => {
                let inquiry = match &mut inquiry {
                    Some(inquiry) if *inquiry.question() == question => inquiry,
                    other => {
                        heard = None;
                        other.insert(Inquiry::new(shared.asker(&run), question))
                    }
                };
                let left = until.map_or(LONGEST, |until| until.since(now()).min(LONGEST));
                tokio::select! {
                    biased;
                    () = newer(&mut seen, &mut run) => {}
                    next = inquiry.next() => heard = Some(next),
                    () = tokio::time::sleep(left) => {}
                }
            }
        }
    }
}

/// Waits for a later version of the run.
async fn newer(seen: &mut watch::Receiver<Arc<Run>>, run: &mut Arc<Run>) {
    loop {
        if seen.changed().await.is_err() {
            return std::future::pending().await;
        }
        let next = seen.borrow_and_update().clone();
        // What was written comes back through the watch, and what was there before it may come late.
        if next.version != run.version && !next.is_older_than(run) {
            *run = next;
            return;
        }
    }
}

impl Shared {
    fn asker(&self, run: &Run) -> Asker {
        Asker {
            ask: self.ask.clone(),
            may: self.may.clone(),
            account: ServiceAccount { namespace: run.namespace.clone(), name: run.service_account.clone() },
            cluster: self.settings.cluster_name.clone(),
        }
    }

    /// Writes the status of the run as it was looked at: of no other of its name, and of none that was changed, ended or
    /// cancelled since.
    async fn write(&self, path: &str, run: &Run, status: Value) -> Option<Run> {
        let patch = json!({ "metadata": { "uid": run.uid, "resourceVersion": run.version }, "status": status });
        let client = &self.cluster.inner.client;
        let path = format!("{path}/status");
        let sent = call::send(client, WHAT, Method::PATCH, &path, Some((MERGE_PATCH, &patch))).await;
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match sent {
            Ok(object) => {
                outage.over(WHAT);
                Run::read(object)
            }
            Err(Error::Refused { code: 404 | 409, .. }) => None,
            Err(error) => {
                outage.failed(chain(&error));
                None
            }
        }
    }

    fn tell(&self, run: &Run, remark: Remark) {
        self.announcer.note(Note {
            about: About {
                api_version: run.api_version().to_owned(),
                kind: run.kind(),
                namespace: run.namespace.clone(),
                name: run.name.clone(),
                uid: run.uid.clone(),
            },
            component: COMPONENT,
            warning: remark.warning,
            reason: remark.reason,
            message: remark.message,
            annotations: Default::default(),
        });
    }
}
