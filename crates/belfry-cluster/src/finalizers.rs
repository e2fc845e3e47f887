//! The peer holds Providers and Receivers (older ones: Alerts) by a finalizer. With Belfry in its place nobody would let
//! them go. So what is being deleted is released; what lives keeps its finalizer, for it is the peer's to come back to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    Cluster, Error, call,
    error::chain,
    follow::{Change, follow},
    kinds::{ALERT, PROVIDER, RECEIVER},
    outage::Outage,
    seen::{Keep, Seen},
};

const FINALIZER: &str = "finalizers.fluxcd.io";
const JSON_PATCH: &str = "application/json-patch+json";
/// When to try again what failed.
const AGAIN: Duration = Duration::from_secs(30);
const WHAT: &str = "releasing what is being deleted";

impl Cluster {
    /// Takes the finalizer `finalizers.fluxcd.io` off the Providers, Alerts and Receivers that are being deleted. Live
    /// objects are never touched. Only metadata is watched. It ends when the handle is aborted.
    pub fn release_finalizers(&self) -> JoinHandle<()> {
        tokio::spawn(release(self.clone()))
    }
}

/// The path of an object.
type Place = String;

async fn release(cluster: Cluster) {
    let held: Mutex<BTreeMap<Place, Held>> = Mutex::default();
    let changed = Notify::new();
    let lock = || held.lock().unwrap_or_else(PoisonError::into_inner);
    let tell = |resource: &ApiResource, change: Change<Option<Held>>| {
        match change {
            Change::Listed(objects) => {
                for object in objects {
                    let place = place(resource, &object);
                    object.kept.map(|kept| lock().insert(place, kept));
                }
            }
            Change::Applied(object) => {
                let place = place(resource, &object);
                match object.kept {
                    Some(kept) => lock().insert(place, kept),
                    None => lock().remove(&place),
                };
            }
            Change::Removed(object) => drop(lock().remove(&place(resource, &object))),
            Change::Missing => {}
        }
        if !lock().is_empty() {
            changed.notify_one();
        }
    };
    let work = async {
        let mut outage = Outage::default();
        loop {
            if tokio::time::timeout(AGAIN, changed.notified()).await.is_err() && lock().is_empty() {
                continue;
            }
            let now = lock().clone();
            for (place, object) in now {
                if released(&cluster, &place, &object, &mut outage).await {
                    let mut held = lock();
                    // Unless it was seen again meanwhile, otherwise.
                    if held.get(&place) == Some(&object) {
                        held.remove(&place);
                    }
                }
            }
        }
    };
    let (client, watched) = (&cluster.inner.client, &cluster.watched);
    tokio::join!(
        follow(client, watched, &PROVIDER, tell),
        follow(client, watched, &ALERT, tell),
        follow(client, watched, &RECEIVER, tell),
        work
    );
}

fn place(resource: &ApiResource, object: &Seen<Option<Held>>) -> Place {
    let (version, plural) = (&resource.api_version, &resource.plural);
    format!("/apis/{version}/namespaces/{}/{plural}/{}", object.namespace(), object.name())
}

/// Whether nothing is left to do.
async fn released(cluster: &Cluster, place: &str, object: &Held, outage: &mut Outage) -> bool {
    let patch = object.patch();
    match call::send(&cluster.inner.client, WHAT, Method::PATCH, place, Some((JSON_PATCH, &patch))).await {
        Ok(_) => {
            outage.over(WHAT);
            tracing::info!("released {place}, which was being deleted");
            true
        }
        // Gone, or no longer what was seen: then the watch tells of it.
        Err(Error::Refused { code: 404 | 409 | 422, .. }) => true,
        Err(error) => {
            outage.failed(chain(&error));
            false
        }
    }
}

/// An object that is being deleted and that the finalizer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    uid: String,
    /// Where in the list the finalizer stands.
    at: usize,
}

impl Held {
    /// Removes exactly what was seen, or fails.
    fn patch(&self) -> Value {
        let finalizer = format!("/metadata/finalizers/{}", self.at);
        json!([
            { "op": "test", "path": "/metadata/uid", "value": self.uid },
            { "op": "test", "path": finalizer, "value": FINALIZER },
            { "op": "remove", "path": finalizer },
        ])
    }
}

impl Keep for Option<Held> {
    const METADATA_ONLY: bool = true;

    fn keep(object: Value) -> Self {
        let metadata = &object["metadata"];
        metadata["deletionTimestamp"].as_str()?;
        let at = metadata["finalizers"].as_array()?.iter().position(|finalizer| finalizer == FINALIZER)?;
        Some(Held { uid: metadata["uid"].as_str()?.to_owned(), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_being_deleted_and_held_is_released() {
        let object = |deleted: bool, finalizers: &[&str]| {
            let mut object = json!({ "metadata": { "uid": "u", "finalizers": finalizers } });
            if deleted {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Option::<Held>::keep(object)
        };
        assert_eq!(object(false, &[FINALIZER]), None);
        assert_eq!(object(true, &[]), None);
        assert_eq!(object(true, &["other"]), None);
        let held = object(true, &["other", FINALIZER]).unwrap();
        assert_eq!(held.patch()[2], json!({ "op": "remove", "path": "/metadata/finalizers/1" }));
    }
}
