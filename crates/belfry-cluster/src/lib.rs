//! Kubernetes: configuration and Flux objects from watches, Secrets, Kubernetes Events, finalizers, the status of
//! Receivers and CommitStatuses, requests for reconciliation, leadership, and whether the served CRDs are ours.
//!
//! It knows neither HTTP servers nor providers nor the store: it is given functions and gives streams. It compiles no
//! configuration; it supplies the documents that `belfry_core::config::compile` takes. Nothing here needs the API
//! server to be up: what watches goes on trying for ever, and says once per outage that it can't.

mod announce;
mod backoff;
mod bucket;
mod call;
mod commit_statuses;
mod connect;
mod definitions;
mod discover;
mod documents;
mod error;
mod finalizers;
mod follow;
mod kinds;
mod lease;
mod objects;
mod outage;
mod receivers;
mod recorder;
mod reviews;
mod secrets;
mod seen;
mod status;
mod tekton;
mod transport;
mod trigger;

use std::{sync::Arc, time::Duration};

use belfry_core::announcement::Announcement;
use kube::Client;

pub use crate::{
    commit_statuses::{CommitStatusReport, CommitStatusState},
    connect::{Settings, connect},
    error::Error,
    lease::{Candidacy, Leadership, Terms},
    objects::ObjectChange,
    receivers::{ReceiverReport, ReceiverState},
    reviews::{AUDIENCE, Access, User},
    tekton::{Ask, May, Sees, ServiceAccount, TektonSettings},
    trigger::TriggerError,
};

/// The log targets of the Kubernetes client library, which speaks up at every attempt of an outage. Belfry says once
/// what it means, so a log filter does well to switch these off unless somebody debugs.
pub const LIBRARY_LOG_TARGETS: [&str; 2] = ["kube_client", "kube_runtime"];

/// The cluster that Belfry runs in, or that a kubeconfig names. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
    watched: Watched,
}

struct Inner {
    client: Client,
    /// For Leases, which must not wait in line behind anything: it has no `--kube-api-qps`.
    leases: Client,
    reach: Arc<outage::Reach>,
    secrets: secrets::Secrets,
    reviews: reviews::Reviews,
    announcer: announce::Announcer,
    served: trigger::Served,
}

/// What is watched, and how.
#[derive(Clone, Debug)]
struct Watched {
    /// Only this namespace.
    namespace: Option<String>,
    /// How often a kind that is not served is looked for again.
    rediscover: Duration,
}

const REDISCOVER: Duration = Duration::from_secs(30);

impl Cluster {
    fn new(client: Client, leases: Client, namespace: Option<String>, reach: Arc<outage::Reach>) -> Self {
        let secrets = secrets::Secrets::new(client.clone());
        let reviews = reviews::Reviews::new(client.clone());
        let announcer = announce::Announcer::start(client.clone());
        let served = trigger::Served::default();
        let inner = Arc::new(Inner { client, leases, reach, secrets, reviews, announcer, served });
        Self { inner, watched: Watched { namespace, rediscover: REDISCOVER } }
    }

    /// How often the watches that are begun after this look again for a kind whose CRD is missing, rather than every
    /// 30 seconds.
    #[must_use]
    pub fn rediscover_every(mut self, interval: Duration) -> Self {
        self.watched.rediscover = interval;
        self
    }

    /// Whether the last request was answered, whatever the answer; true before the first.
    pub fn reachable(&self) -> bool {
        self.inner.reach.is_up()
    }

    /// Makes a Kubernetes Event of a remark about a configuration object. Never blocks and never fails: it is queued,
    /// and written by one task in the background; what does not fit into the queue, or comes too often about one
    /// object, is left out.
    pub fn announce(&self, announcement: Announcement) {
        self.inner.announcer.announce(announcement);
    }
}
