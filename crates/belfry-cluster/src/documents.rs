//! Providers, Alerts, CommitStatuses and Receivers as documents: the complete list of all, anew with each change.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use belfry_core::config::Document;
use futures::{Stream, StreamExt, stream};
use kube::core::ApiResource;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    Cluster,
    follow::{Change, follow},
    kinds::{ALERT, COMMIT_STATUS, PROVIDER, RECEIVER},
    seen::{Keep, Seen},
};

/// Changes that come this close are one.
const TOGETHER: Duration = Duration::from_millis(50);

impl Cluster {
    /// All Providers, Alerts, CommitStatuses and Receivers, whenever they change: first when all are completely known, then the complete
    /// list again after each change (changes within 50 ms are one). A slow reader gets the newest list, not each.
    ///
    /// It never ends, whatever becomes of the API server; while the CRD of Providers or Alerts is missing there is no
    /// complete list. Objects come as they are, malformed or not, without `status`, `managedFields`, `resourceVersion` and kubectl's copy of
    /// the last applied manifest; a change of only those is none.
    ///
    /// Watches begin at once, so it needs a tokio runtime; they end when the stream is dropped.
    pub fn config(&self) -> impl Stream<Item = Arc<Vec<Document>>> + Send + use<> {
        let (sender, receiver) = watch::channel(None);
        let task = Guard(tokio::spawn(supply(self.clone(), sender)));
        stream::unfold((receiver, task), |(mut receiver, task)| async move {
            receiver.changed().await.ok()?;
            let list: Option<Arc<Vec<Document>>> = receiver.borrow_and_update().clone();
            Some((list, (receiver, task)))
        })
        .filter_map(std::future::ready)
    }
}

/// Ends a task with whoever needs it.
struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn supply(cluster: Cluster, sender: watch::Sender<Option<Arc<Vec<Document>>>>) {
    let known = Mutex::new(Documents::default());
    let changed = Notify::new();
    let tell = |resource: &ApiResource, change: Change<Manifest>| {
        known.lock().unwrap_or_else(PoisonError::into_inner).take_in(resource, change);
        changed.notify_one();
    };
    let publish = async {
        loop {
            changed.notified().await;
            tokio::time::sleep(TOGETHER).await;
            if let Some(list) = known.lock().unwrap_or_else(PoisonError::into_inner).news() {
                sender.send_replace(Some(list));
            }
        }
    };
    let (client, watched) = (&cluster.inner.client, &cluster.watched);
    tokio::join!(
        follow(client, watched, &PROVIDER, tell),
        follow(client, watched, &ALERT, tell),
        follow(client, watched, &COMMIT_STATUS, tell),
        follow(client, watched, &RECEIVER, tell),
        publish
    );
}

/// A configuration object without what is no configuration.
#[derive(Clone, Debug)]
struct Manifest(Value);

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Keep for Manifest {
    const METADATA_ONLY: bool = false;

    fn keep(mut object: Value) -> Self {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
            if annotations.is_some_and(|annotations| {
                annotations.remove(LAST_APPLIED);
                annotations.is_empty()
            }) {
                metadata.remove("annotations");
            }
        }
        Self(object)
    }
}

/// The documents of all kinds, in order of kind, namespace and name.
#[derive(Default)]
struct Documents {
    list: Arc<Vec<Document>>,
    /// The kinds that are completely known.
    complete: BTreeSet<String>,
    /// It is not what was given out last.
    changed: bool,
}

impl Documents {
    /// The list, if all kinds are completely known and something changed since it was given out.
    fn news(&mut self) -> Option<Arc<Vec<Document>>> {
        let complete =
            [&PROVIDER, &ALERT, &COMMIT_STATUS, &RECEIVER].iter().all(|kind| self.complete.contains(kind.name));
        let news = complete && std::mem::take(&mut self.changed);
        news.then(|| self.list.clone())
    }

    fn take_in(&mut self, resource: &ApiResource, change: Change<Manifest>) {
        self.changed |= match change {
            Change::Listed(objects) => self.replace(resource, objects),
            Change::Applied(object) => self.apply(document(resource, object)),
            Change::Removed(object) => self.remove(&(&resource.kind, object.namespace(), object.name())),
            // Who deletes the CRD deletes the objects, and the watch has told of each. That there is no list of a
            // kind is no reason to forget it.
            // Without Receivers, or with Flux's CRDs alone, there is still something to deliver.
            Change::Missing => {
                let spared = [RECEIVER.name, COMMIT_STATUS.name].contains(&resource.kind.as_str());
                spared && self.complete.insert(resource.kind.clone())
            }
        };
    }

    fn replace(&mut self, resource: &ApiResource, objects: Vec<Seen<Manifest>>) -> bool {
        let first = self.complete.insert(resource.kind.clone());
        let others = self.list.iter().filter(|known| known.value["kind"] != resource.kind.as_str()).cloned();
        let mut list: Vec<Document> = others.collect();
        list.extend(objects.into_iter().map(|object| document(resource, object)));
        list.sort_by(|a, b| key(&a.value).cmp(&key(&b.value)));
        if !first && list == *self.list {
            return false;
        }
        self.list = Arc::new(list);
        true
    }

    fn apply(&mut self, document: Document) -> bool {
        match self.find(&key(&document.value)) {
            Ok(at) if self.list[at] == document => return false,
            // Copied only while a reader still holds the list.
            Ok(at) => Arc::make_mut(&mut self.list)[at] = document,
            Err(at) => Arc::make_mut(&mut self.list).insert(at, document),
        }
        true
    }

    fn remove(&mut self, key: &Key<'_>) -> bool {
        let found = self.find(key);
        if let Ok(at) = found {
            Arc::make_mut(&mut self.list).remove(at);
        }
        found.is_ok()
    }

    fn find(&self, wanted: &Key<'_>) -> Result<usize, usize> {
        self.list.binary_search_by(|known| key(&known.value).cmp(wanted))
    }
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn key(object: &Value) -> Key<'_> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

fn document(resource: &ApiResource, object: Seen<Manifest>) -> Document {
    let mut value = object.kept.0;
    if let Some(fields) = value.as_object_mut() {
        // Lists of built-in kinds leave these out; those of a CRD carry them.
        fields.entry("kind").or_insert_with(|| resource.kind.as_str().into());
        fields.entry("apiVersion").or_insert_with(|| resource.api_version.as_str().into());
    }
    Document { origin: String::new(), value }
}
