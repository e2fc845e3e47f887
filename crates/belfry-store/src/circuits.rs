//! What replicas on one database tell each other beside the log: which destinations are down, whose turn it is to probe
//! them, and passing words. A store that nobody shares tells nobody anything.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use belfry_core::{Time, decide::Outage};
use tokio::sync::broadcast;

use crate::{
    Store, StoreError,
    clean::{clean_text, cut},
    types::DestId,
};

/// Bytes of an error that the others are told.
const ERROR: usize = 1024;

/// Whether a destination that is down may be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Now, by this replica.
    Ours,
    /// Not before this time: another one is at it, or knows that it is too soon.
    NotBefore(Time),
}

/// A circuit as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// How often it was changed: what was read late is told by this from what is new.
    pub turn: i64,
    /// `None` while the destination takes messages.
    pub outage: Option<Outage>,
}

/// What is known of circuits that another replica, or this one, told of.
#[derive(Debug, Default)]
pub(crate) struct Known {
    circuits: HashMap<DestId, Told>,
    /// Those that others changed since somebody asked.
    news: HashSet<DestId>,
}

impl Known {
    /// Takes in what this replica told.
    pub fn told(&mut self, dest: DestId, told: Told) {
        self.take(dest, told);
    }

    /// Takes in what others told; says whether it is news.
    pub fn heard(&mut self, dest: DestId, told: Told) -> bool {
        let news = self.take(dest, told);
        if news {
            self.news.insert(dest);
        }
        news
    }

    fn take(&mut self, dest: DestId, told: Told) -> bool {
        let new = self.circuits.get(&dest).is_none_or(|known| known.turn < told.turn);
        if new {
            self.circuits.insert(dest, told);
        }
        new
    }

    /// The destinations that are known to be down.
    pub fn open(&self) -> Vec<i64> {
        self.circuits.iter().filter(|(_, told)| told.outage.is_some()).map(|(dest, _)| dest.0).collect()
    }
}

impl Store {
    /// Tells the other replicas that a destination is down, or, by `None`, that it takes messages again. `probed`: this was
    /// found by the probe that [`Store::take_probe`] granted. Says what all of them together know now; `None` also while
    /// that can't be told.
    pub async fn share_circuit(&self, dest: DestId, outage: Option<Outage>, probed: bool) -> Option<Outage> {
        let outage = outage.map(|mut outage| {
            clean_text(&mut outage.error);
            cut(&mut outage.error, ERROR);
            outage
        });
        let told = self.read(move |reader| reader.share_circuit(dest, outage.as_ref(), probed)).await;
        match told {
            Ok(told) => {
                let told = told?;
                self.shared().circuits().told(dest, told.clone());
                told.outage
            }
            Err(error) => {
                tracing::debug!(dest = dest.0, %error, "the other replicas couldn't be told of a circuit");
                None
            }
        }
    }

    /// Asks for the probe that is due at a destination that is down. Once granted it is for no other replica until this one
    /// shares what came of it, or [`PROBE_ALONE`](belfry_core::decide::PROBE_ALONE) is over.
    pub async fn take_probe(&self, dest: DestId) -> Result<Probe, StoreError> {
        self.read(move |reader| reader.take_probe(dest)).await
    }

    /// What other replicas told of a destination: that it is down.
    pub fn outage(&self, dest: DestId) -> Option<Outage> {
        self.shared().circuits().circuits.get(&dest).and_then(|told| told.outage.clone())
    }

    /// What other replicas told since this was asked last; [`Store::woken`] says when there is something.
    pub fn heard_circuits(&self) -> Vec<(DestId, Option<Outage>)> {
        let mut known = self.shared().circuits();
        let news = std::mem::take(&mut known.news);
        news.into_iter().map(|dest| (dest, known.circuits.get(&dest).and_then(|told| told.outage.clone()))).collect()
    }

    /// Says something to the other replicas: who listens just then hears it, and nobody keeps it. What is too long is not said.
    pub async fn tell(&self, words: String) {
        if self.replicas() > 1
            && let Err(error) = self.read(move |reader| reader.tell(&words)).await
        {
            tracing::debug!(%error, "the other replicas couldn't be told");
        }
    }

    /// What the other replicas say from now on.
    pub fn told(&self) -> broadcast::Receiver<Arc<str>> {
        self.shared().words.subscribe()
    }

    /// How many replicas use the database, this one among them.
    pub fn replicas(&self) -> u32 {
        self.shared().replicas.load(Relaxed).max(1)
    }
}
