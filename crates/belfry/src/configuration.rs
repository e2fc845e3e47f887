//! The configuration in force: compiled documents and the object index, swapped as a whole, read without waiting.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use belfry_api::Event;
use belfry_core::{
    ConfigKey, ObjectKey,
    config::{self, Document, Finding, Matched, Options, Snapshot},
    index::{ObjectIndex, Source},
    plan::RouteRef,
    rollout::Hints,
};
use tokio::sync::watch;

/// Reason of the note that an Alert selects by labels, and those of an object aren't known.
const SOURCE_UNKNOWN: &str = "SourceFetchFailed";

/// Configuration that can be replaced while events come in.
pub struct Configuration {
    options: Options,
    snapshot: ArcSwap<Snapshot>,
    index: RwLock<ObjectIndex>,
    compiled: AtomicBool,
    indexed: AtomicBool,
    synced: AtomicBool,
    refused: AtomicUsize,
    told: Mutex<HashSet<String>>,
    findings: ArcSwap<Vec<Finding>>,
    cluster: String,
    watches: bool,
    version: watch::Sender<u64>,
}

impl Configuration {
    /// Nothing yet: not even an empty configuration.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            snapshot: ArcSwap::default(),
            index: RwLock::default(),
            compiled: AtomicBool::new(false),
            indexed: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            told: Mutex::default(),
            findings: ArcSwap::default(),
            cluster: String::new(),
            watches: false,
            version: watch::Sender::new(0),
        }
    }

    /// Of the cluster of this name; `watches`: watches feed its object index, not manifests in a folder.
    #[must_use]
    pub fn of(mut self, cluster: &str, watches: bool) -> Self {
        (self.cluster, self.watches) = (cluster.to_owned(), watches);
        self
    }

    /// Puts a complete set of documents in force and tells the log what is new about them. An object that doesn't compile
    /// keeps its last good version.
    pub fn apply(&self, documents: &[Document]) -> (Arc<Snapshot>, Vec<Finding>) {
        let (snapshot, findings) = config::compile(documents, &self.snapshot.load(), &self.options);
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(snapshot.clone());
        self.compiled.store(true, Ordering::Release);
        self.tell(&findings);
        let problems = findings.iter().filter(|finding| finding.problem.is_some());
        self.findings.store(Arc::new(problems.cloned().collect()));
        self.version.send_modify(|version| *version += 1);
        (snapshot, findings)
    }

    /// Says each finding once, until it has gone away.
    fn tell(&self, findings: &[Finding]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = HashSet::new();
        let mut refused = 0;
        for finding in findings {
            let Some(problem) = &finding.problem else { continue };
            refused += usize::from(problem.refused);
            let line = finding.to_string();
            if !told.contains(&line) {
                if problem.refused {
                    tracing::error!(reason = problem.reason, "configuration refused: {line}");
                } else {
                    tracing::warn!(reason = problem.reason, "configuration: {line}");
                }
            }
            still.insert(line);
        }
        self.refused.store(refused, Ordering::Relaxed);
        *told = still;
    }

    /// A configuration, even an empty one, is in force.
    pub fn is_compiled(&self) -> bool {
        self.compiled.load(Ordering::Acquire)
    }

    /// The object index was complete once. Unlike [`Self::is_indexed`] this is never said for want of patience.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// The object index is complete.
    pub fn set_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// A configuration, even an empty one, is in force, and the objects that it may select by labels are known.
    pub fn is_loaded(&self) -> bool {
        self.is_compiled() && self.is_indexed()
    }

    /// The object index is as complete as it gets.
    pub fn is_indexed(&self) -> bool {
        self.indexed.load(Ordering::Acquire)
    }

    /// The object index is as complete as it gets; events need not wait for it.
    pub fn set_indexed(&self) {
        self.indexed.store(true, Ordering::Release);
    }

    /// How many objects are not in force as written.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// What is in force now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// What is wrong with it, object by object.
    pub fn findings(&self) -> Arc<Vec<Finding>> {
        self.findings.load_full()
    }

    /// What it is compiled against.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Changes with each configuration.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The routes that an event of a cluster may take.
    pub fn routes(&self, event: &Event, cluster: &str) -> Matched {
        let mut matched = self.with_index_of(cluster, |index| self.snapshot.load().routes(event, cluster, index));
        if cluster != self.cluster {
            // That its labels aren't known is no fault of any Alert.
            matched.notes.retain(|note| note.reason != SOURCE_UNKNOWN);
        }
        matched
    }

    /// Looks at the object index, which nobody can change meanwhile.
    pub fn with_index<T>(&self, look: impl FnOnce(&ObjectIndex) -> T) -> T {
        look(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The CommitStatuses that select an object.
    pub fn status_routes(&self, object: &ObjectKey) -> Vec<RouteRef> {
        self.with_index_of(&object.cluster, |index| self.snapshot.load().status_routes(object, index))
    }

    /// Whether a CommitStatus selects an object.
    pub fn shows(&self, status: &ConfigKey, object: &ObjectKey) -> bool {
        self.with_index_of(&object.cluster, |index| self.snapshot.load().shows(status, object, index))
    }

    /// The URL of the git repository that an object comes from, if it is known.
    pub fn source_url(&self, object: &ObjectKey) -> Option<String> {
        self.with_index_of(&object.cluster, |index| {
            index.repository_url(&object.kind, &object.namespace, &object.name).map(str::to_owned)
        })
    }

    /// Where an object gets its revisions from, if it is known.
    pub fn source(&self, object: &ObjectKey) -> Option<Source> {
        self.with_index_of(&object.cluster, |index| index.source(&object.kind, &object.namespace, &object.name))
    }

    /// Of other clusters nothing is indexed, and an object of the same name here has other labels and another source.
    fn with_index_of<T>(&self, cluster: &str, look: impl FnOnce(&ObjectIndex) -> T) -> T {
        if cluster == self.cluster { look(&self.read_index()) } else { look(&ObjectIndex::default()) }
    }

    fn read_index(&self) -> RwLockReadGuard<'_, ObjectIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an object that an event of it doesn't say. The revision is the one that the event names.
    pub fn hints(&self, object: &ObjectKey, revision: Option<&str>) -> Hints {
        if object.cluster != self.cluster {
            return Hints::default();
        }
        let index = self.read_index();
        let known = index.get(&object.kind, &object.namespace, &object.name);
        let watched = known.filter(|known| known.tells_revisions() && self.watched().is_some() && self.is_synced());
        Hints {
            tests_decide: known.filter(|known| known.kind == "HelmRelease").map(|known| known.tests_decide),
            deleting: known.is_some_and(|known| known.deleting),
            status: watched.map(|known| known.agreement(revision, index.source_of(known))),
        }
    }

    /// The name of the cluster whose objects the index holds.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The name of that cluster, if watches feed the index, status and all.
    pub fn watched(&self) -> Option<&str> {
        self.watches.then_some(&self.cluster)
    }

    /// Changes the object index.
    pub fn update_index(&self, change: impl FnOnce(&mut ObjectIndex)) {
        change(&mut self.index.write().unwrap_or_else(PoisonError::into_inner));
    }
}
