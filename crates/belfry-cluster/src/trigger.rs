//! Asking Flux to reconcile an object: one annotation on it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use belfry_core::{ObjectKey, Time};
use http::Method;
use kube::core::ApiResource;
use serde_json::json;
use tokio::time::Instant;

use crate::{Cluster, Error, call, discover::find};

const MERGE_PATCH: &str = "application/merge-patch+json";
/// The annotation that asks for a reconciliation.
const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";
/// How long it is known where a kind is served.
const KNOWN: Duration = Duration::from_secs(600);

/// Where kinds are served, by group and name.
pub(crate) type Served = Mutex<HashMap<(String, String), (Instant, ApiResource)>>;

/// Why an object can't be asked for its reconciliation.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// Now, or as far as is known: asking again later may help without anybody doing anything.
    #[error("{0}")]
    Later(String),
    /// Ever, unless somebody changes something.
    #[error("{0}")]
    Never(String),
}

impl Cluster {
    /// Writes the annotation `reconcile.fluxcd.io/requestedAt` on an object. The same `at` once more changes nothing, so
    /// that a crash between the write and its record has no consequence.
    ///
    /// # Errors
    /// When it can't be written, now or ever: the object or its kind doesn't exist, or the API server forbids it.
    pub async fn request_reconciliation(&self, object: &ObjectKey, at: Time) -> Result<(), TriggerError> {
        let what = format!("asking for the reconciliation of {object}");
        // They go into a path, and come from whoever may write a Receiver.
        if [&object.group, &object.namespace, &object.name].into_iter().any(|name| !call::is_name(name)) {
            return Err(TriggerError::Never(format!("{what}: no object can have that group and name")));
        }
        let resource = self.served(object).await?;
        let (version, plural) = (&resource.api_version, &resource.plural);
        let path = format!("/apis/{version}/namespaces/{}/{plural}/{}", object.namespace, object.name);
        let at = jiff::Timestamp::from_microsecond(at.0).map_or_else(|_| at.0.to_string(), |at| format!("{at:.6}"));
        let patch = json!({ "metadata": { "annotations": { REQUESTED_AT: at } } });
        let sent = call::send(&self.inner.client, &what, Method::PATCH, &path, Some((MERGE_PATCH, &patch))).await;
        sent.map(drop).map_err(|error| {
            if error.is_not_found() {
                // Perhaps its kind is no longer served there.
                self.inner.served.lock().unwrap_or_else(PoisonError::into_inner).remove(&place(object));
            }
            told(&error)
        })
    }

    async fn served(&self, object: &ObjectKey) -> Result<ApiResource, TriggerError> {
        let place = place(object);
        let lock = || self.inner.served.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&place).filter(|(at, _)| at.elapsed() < KNOWN).map(|(_, resource)| resource.clone());
        if let Some(known) = known {
            return Ok(known);
        }
        match find(&self.inner.client, &object.group, &object.kind, None).await.map_err(|error| told(&error))? {
            Some(resource) => {
                lock().insert(place, (Instant::now(), resource.clone()));
                Ok(resource)
            }
            None => {
                let (kind, group) = (&object.kind, &object.group);
                Err(TriggerError::Never(format!("the API server doesn't serve {kind} of {group:?}")))
            }
        }
    }
}

fn place(object: &ObjectKey) -> (String, String) {
    (object.group.clone(), object.kind.clone())
}

fn told(error: &Error) -> TriggerError {
    match error {
        // A token that ran out, or that was revoked, is replaced; what the role lacks isn't.
        Error::Forbidden { code: 403, .. } => TriggerError::Never(error.explain()),
        Error::Refused { code, .. } if *code != 0 && *code != 409 => TriggerError::Never(error.explain()),
        _ => TriggerError::Later(error.explain()),
    }
}
