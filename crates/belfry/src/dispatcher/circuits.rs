//! What a destination's answers say about it, here and over all replicas: who is down is sent nothing but a probe, by one
//! replica at a time, and all go on once it is back.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_core::{
    ConfigKey, Time,
    decide::{Circuit, Outage, Turn},
    limits,
    notification::Outcome,
};
use belfry_store::{DestId, Probe};

use super::Shared;

/// When to ask again whose the probe is, if that can't be said.
const AGAIN: Duration = Duration::from_secs(1);

/// A Provider as the dispatcher knows it.
pub struct Destination {
    /// Its number in the store.
    pub id: DestId,
    /// Its name.
    pub key: Arc<ConfigKey>,
    circuit: Mutex<Circuit>,
    /// The probe that is due is this replica's, and no attempt was made yet.
    probing: AtomicBool,
    /// Its last failure was one that only a change of the configuration mends.
    pub(super) misconfigured: AtomicBool,
    /// Its Secrets are to be read anew: the last answer said that the credentials are wrong.
    pub(super) refresh: AtomicBool,
    /// Deliveries of it wait for a suspended or missing Alert.
    pub(super) holds: AtomicBool,
}

impl Destination {
    /// One that was not sent to yet; what other replicas found counts.
    pub(super) fn new(id: DestId, key: &Arc<ConfigKey>, outage: Option<&Outage>) -> Self {
        let mut circuit = Circuit::default();
        circuit.hear(outage);
        Self {
            id,
            key: key.clone(),
            circuit: Mutex::new(circuit),
            probing: AtomicBool::new(false),
            misconfigured: AtomicBool::new(false),
            refresh: AtomicBool::new(false),
            holds: AtomicBool::new(false),
        }
    }

    /// Its circuit.
    pub fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self) {
        self.holds.store(true, Relaxed);
    }

    pub(super) fn take_refresh(&self) -> bool {
        self.refresh.swap(false, Relaxed)
    }

    pub(super) fn is_probing(&self) -> bool {
        self.probing.load(Relaxed)
    }
}

impl Shared {
    /// Lanes of one destination that this replica may drain at a time: its share of what all may.
    pub(super) fn width(&self) -> u32 {
        limits::PROVIDER_CONCURRENCY.div_ceil(self.store.replicas())
    }

    /// Lets the circuit know of an outcome, and the other replicas of what that changes.
    pub(super) async fn learn(&self, dest: &Destination, outcome: &Outcome, now: Time) -> Turn {
        let turn = dest.circuit().record(outcome, now, fastrand::f64());
        let probed = dest.probing.swap(false, Relaxed);
        if probed || turn != Turn::None {
            self.share(dest, probed).await;
        }
        if turn == Turn::Closed {
            self.store.wake(dest.id).await;
        }
        turn
    }

    /// Tells the other replicas how the circuit stands, and takes in what they know.
    pub(super) async fn share(&self, dest: &Destination, probed: bool) {
        let outage = dest.circuit().outage();
        if let Some(known) = self.store.share_circuit(dest.id, outage, probed).await {
            dest.circuit().hear(Some(&known));
        }
    }

    /// Takes in what other replicas told; says of which destinations.
    pub(super) fn hear(&self) -> Vec<DestId> {
        let destinations = self.destinations.read().unwrap_or_else(PoisonError::into_inner);
        let mut heard = Vec::new();
        for (id, outage) in self.store.heard_circuits() {
            heard.push(id);
            let Some(dest) = destinations.get(&id) else { continue };
            let turn = dest.circuit().hear(outage.as_ref());
            match (turn, outage) {
                (Turn::Opened, Some(Outage { error, .. })) => {
                    tracing::info!(provider = %dest.key, error, "another replica found that the provider is down");
                }
                (Turn::Closed, _) => tracing::info!(provider = %dest.key, "another replica found the provider back"),
                _ => {}
            }
        }
        heard
    }

    /// Asks whether the probe that is due is for this replica.
    pub(super) async fn begin_probe(&self, dest: &Destination) -> Probe {
        if dest.is_probing() {
            return Probe::Ours;
        }
        let probe = self.store.take_probe(dest.id).await.unwrap_or_else(|error| {
            tracing::debug!(provider = %dest.key, %error, "can't ask whose the probe is");
            Probe::NotBefore(self.now().after(AGAIN))
        });
        dest.probing.store(probe == Probe::Ours, Relaxed);
        probe
    }

    /// Gives a probe back that came to no attempt: nothing could be claimed, or what was is held back.
    pub(super) async fn end_probe(&self, dest: &Destination) {
        if dest.probing.swap(false, Relaxed) {
            dest.circuit().skip_probe(self.now(), fastrand::f64());
            self.share(dest, true).await;
        }
    }
}
