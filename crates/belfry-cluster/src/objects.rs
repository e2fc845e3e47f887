//! The feed of the object index: Flux objects of every kind that an Alert may name, trimmed as soon as they are read.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use belfry_core::index::IndexedObject;
use futures::future::join_all;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::{
    Cluster,
    follow::{Change, follow},
    kinds::OBJECTS,
    seen::Keep,
};

/// What becomes of the object index.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "made, handed over and gone; never kept in numbers")]
pub enum ObjectChange {
    /// These are all objects of the kind, as a watch that starts anew finds them; none when it is not served.
    Replace(&'static str, Vec<IndexedObject>),
    /// An object is new or changed.
    Apply(IndexedObject),
    /// An object is gone.
    Remove {
        /// Kind.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
    },
    /// Every kind that is served has been listed. Comes once.
    Synced,
}

impl Cluster {
    /// Tells `apply` of the Flux objects in the cluster: of the twelve kinds that an Alert may name, each in the
    /// version that the API server prefers. A kind whose CRD is missing has no objects, and is looked for again every 30
    /// seconds (see [`Cluster::rediscover_every`]).
    ///
    /// `apply` is called by one task, never twice at a time; it must not block. It ends when the handle is aborted.
    pub fn watch_objects(&self, apply: impl Fn(ObjectChange) + Send + Sync + 'static) -> JoinHandle<()> {
        tokio::spawn(feed(self.clone(), apply))
    }
}

async fn feed(cluster: Cluster, apply: impl Fn(ObjectChange) + Send + Sync) {
    let unknown: Mutex<HashSet<&str>> = Mutex::new(OBJECTS.iter().map(|kind| kind.name).collect());
    let known = |kind: &str| {
        let mut unknown = unknown.lock().unwrap_or_else(PoisonError::into_inner);
        if unknown.remove(kind) && unknown.is_empty() {
            apply(ObjectChange::Synced);
        }
    };
    let follows = OBJECTS.iter().map(|kind| {
        let (apply, known) = (&apply, &known);
        let mut empty = false;
        follow(&cluster.inner.client, &cluster.watched, kind, move |_, change: Change<Trimmed>| {
            let missing = matches!(change, Change::Missing);
            match change {
                Change::Listed(objects) => {
                    let objects = objects.into_iter().filter_map(|object| object.kept.0).collect();
                    apply(ObjectChange::Replace(kind.name, objects));
                }
                Change::Applied(object) => {
                    if let Some(object) = object.kept.0 {
                        apply(ObjectChange::Apply(object));
                    }
                }
                Change::Removed(object) => apply(ObjectChange::Remove {
                    kind: kind.name,
                    namespace: object.namespace().to_owned(),
                    name: object.name().to_owned(),
                }),
                // Said once, not each time that it is looked for in vain.
                Change::Missing if empty => {}
                Change::Missing => apply(ObjectChange::Replace(kind.name, Vec::new())),
            }
            empty = missing;
            known(kind.name);
        })
    });
    join_all(follows).await;
}

/// An object as the index holds it; `None` when it has no kind or name.
#[derive(Clone, Debug)]
struct Trimmed(Option<IndexedObject>);

impl Keep for Trimmed {
    const METADATA_ONLY: bool = false;

    fn keep(object: Value) -> Self {
        Self(IndexedObject::trim(&object))
    }
}
