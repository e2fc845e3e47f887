//! The two suppliers of configuration. Both hand complete sets of documents to one [`Configuration`], and save what
//! compiled, so that a start without the API server has something to go by.

use std::{path::PathBuf, sync::Arc, time::Duration};

use belfry_cluster::{Cluster, ObjectChange};
use belfry_core::{
    config::{Document, Finding},
    index::{IndexedObject, ObjectIndex},
};
use belfry_store::Store;
use futures::StreamExt as _;
use tokio::sync::{Notify, watch};

use crate::{
    configuration::Configuration,
    environment::Standalone,
    manifests::{self, Loaded},
    observer::Observer,
    server::stopped,
    status_board::StatusBoard,
    waits::Waits,
};

/// How often directories are looked at for changes. Polling, since a ConfigMap mount changes by swapping links.
const POLL: Duration = Duration::from_secs(1);

/// How long events wait, at the start, for the Flux objects whose labels may select them.
const INDEX: Duration = Duration::from_secs(5);

/// Puts documents in force and saves them. What was found about them.
async fn apply(configuration: &Configuration, store: &Store, documents: &[Document]) -> Vec<Finding> {
    let (snapshot, findings) = configuration.apply(documents);
    if let Err(error) = store.config_changed(snapshot.bodies()).await {
        tracing::warn!(%error, "can't save the configuration; it is in force all the same");
    }
    findings
}

/// Configuration from directories of manifests.
pub struct Directories {
    paths: Vec<PathBuf>,
    loaded: Loaded,
    fingerprint: u64,
    told: Vec<String>,
}

impl Directories {
    /// Nothing read yet.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, loaded: Loaded::default(), fingerprint: 0, told: Vec::new() }
    }

    /// Reads the directories once and puts what they hold in force.
    pub async fn load(&mut self, configuration: &Configuration, environment: &Standalone, store: &Store) {
        self.fingerprint = manifests::fingerprint(&self.paths);
        self.loaded = manifests::load(&self.paths, &self.loaded);
        let problems: Vec<String> = self.loaded.problems.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::error!("configuration refused: {problem}");
        }
        self.told = problems;
        environment.replace_secrets(self.loaded.secrets.clone());
        configuration.update_index(|index| {
            *index = ObjectIndex::default();
            self.loaded.objects.iter().cloned().for_each(|object: IndexedObject| index.apply(object));
        });
        configuration.set_synced();
        configuration.set_indexed();
        apply(configuration, store, &self.loaded.documents).await;
        tracing::info!(
            documents = self.loaded.documents.len(),
            secrets = self.loaded.secrets.len(),
            objects = self.loaded.objects.len(),
            problems = self.told.len(),
            "configuration loaded"
        );
    }

    /// Reads them again whenever something in them changes.
    pub async fn watch(
        mut self,
        configuration: Arc<Configuration>,
        environment: Arc<Standalone>,
        store: Store,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stopped(&mut stop) => return,
            }
            if manifests::fingerprint(&self.paths) != self.fingerprint {
                self.load(&configuration, &environment, &store).await;
            }
        }
    }
}

/// Who is told of what a cluster's watches see.
pub struct Listeners {
    /// Of Flux objects.
    pub observer: Arc<Observer>,
    /// Of Flux objects, too: what waits for them.
    pub waits: Arc<Waits>,
    /// Of CommitStatuses.
    pub board: Arc<StatusBoard>,
}

/// Follows a cluster's configuration and objects until `stop`.
pub async fn follow(
    cluster: Arc<Cluster>,
    configuration: Arc<Configuration>,
    store: Store,
    listeners: Listeners,
    mut stop: watch::Receiver<bool>,
) {
    let Listeners { observer, waits, board } = listeners;
    // Until the API server answers, what it said last counts.
    match store.saved_config().await {
        Ok(saved) if !saved.is_empty() => {
            let documents: Vec<Document> =
                saved.into_iter().map(|(_, value)| Document { origin: "saved".into(), value }).collect();
            tracing::info!(objects = documents.len(), "starting with the configuration that was in force before");
            configuration.apply(&documents);
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "can't read the saved configuration"),
    }
    let synced = Arc::new(Notify::new());
    let (index, told, sees) = (configuration.clone(), synced.clone(), observer.clone());
    let _objects = cluster.watch_objects(move |change| match change {
        ObjectChange::Synced => {
            index.set_synced();
            index.with_index(|index| sees.synced(index));
            told.notify_one();
        }
        change => index.update_index(|index| {
            sees.see(index, &change);
            waits.see(&change);
            apply_change(index, change);
        }),
    });
    let _finalizers = cluster.release_finalizers();
    let mut documents = std::pin::pin!(cluster.config());
    let mut indexed = std::pin::pin!(tokio::time::timeout(INDEX, synced.notified()));
    loop {
        tokio::select! {
            _ = &mut indexed, if !configuration.is_indexed() => configuration.set_indexed(),
            Some(documents) = documents.next() => {
                let findings = apply(&configuration, &store, &documents).await;
                board.configured(&documents, &findings);
                configuration.with_index(|index| observer.configured(index));
            }
            () = stopped(&mut stop) => return,
        }
    }
}

fn apply_change(index: &mut ObjectIndex, change: ObjectChange) {
    match change {
        ObjectChange::Replace(kind, objects) => index.replace(kind, objects),
        ObjectChange::Apply(object) => index.apply(object),
        ObjectChange::Remove { kind, namespace, name } => index.remove(kind, &namespace, &name),
        ObjectChange::Synced => {}
    }
}
