//! The receivers' port: webhooks are verified, filtered, and made durable as triggers before they are answered 200.
//!
//! What somebody without the credential can learn here is nothing: a path that nobody has, a wrong credential, and a
//! Receiver that is suspended or not ready are answered 404 alike. What they can cost is bounded: no body is read for an
//! unknown path, nothing is stored and no line of the log written for each refused request.

mod answer;
mod doors;
mod keys;
mod ledger;
mod limiter;
mod select;
mod state;
mod view;

use std::sync::Arc;

use arc_swap::ArcSwap;
use belfry_core::limits;
use belfry_http::Clients;
use belfry_store::Store;
use tokio::sync::{Semaphore, watch};

use belfry_cluster::ReceiverReport;

pub use self::{answer::Port, view::View};
pub(crate) use self::{keys::KeyRings, limiter::Limiter};

use self::{doors::Doors, ledger::Ledger};
use crate::{configuration::Configuration, environment::Environment, metrics::Metrics};

/// Everything that taking webhooks in needs, and what is known of the Receivers.
pub struct Receivers {
    store: Store,
    configuration: Arc<Configuration>,
    environment: Arc<dyn Environment>,
    metrics: Arc<Metrics>,
    /// `--cluster-name`.
    cluster: String,
    /// The object index holds every object that there is.
    index_is_complete: bool,
    doors: ArcSwap<Doors>,
    ledger: Ledger,
    keys: KeyRings,
    verifiers: Semaphore,
    reports: watch::Sender<Arc<Vec<ReceiverReport>>>,
}

/// What [`Receivers`] are made of.
pub struct Parts {
    /// Where triggers are kept.
    pub store: Store,
    /// Which Receivers there are.
    pub configuration: Arc<Configuration>,
    /// Where their Secrets come from.
    pub environment: Arc<dyn Environment>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The way to the public keys of tokens' issuers.
    pub clients: Arc<Clients>,
    /// `--cluster-name`.
    pub cluster: String,
    /// The object index is a cluster's: what isn't in it doesn't exist.
    pub index_is_complete: bool,
}

impl Receivers {
    /// No doors yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            store: parts.store,
            configuration: parts.configuration,
            environment: parts.environment,
            metrics: parts.metrics,
            cluster: parts.cluster,
            index_is_complete: parts.index_is_complete,
            doors: ArcSwap::default(),
            ledger: Ledger::default(),
            keys: KeyRings::new(parts.clients),
            verifiers: Semaphore::new(limits::HOOK_VERIFIERS),
            reports: watch::Sender::default(),
        })
    }

    /// What is to be said in the status of each Receiver, anew with each change.
    pub fn reports(&self) -> watch::Receiver<Arc<Vec<ReceiverReport>>> {
        self.reports.subscribe()
    }
}
