//! Following one kind for ever: finding its version, listing it, watching it, and beginning anew when that ends.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    core::ApiResource,
    runtime::watcher::{self, Event, watcher},
};

use crate::{
    Error, Watched,
    backoff::Backoff,
    call,
    discover::discover,
    error::chain,
    kinds::Kind,
    outage::Outage,
    seen::{Keep, Seen},
};

/// What happened to the objects of a kind.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// These are all.
    Listed(Vec<Seen<T>>),
    /// One is new or changed.
    Applied(Seen<T>),
    /// One is gone.
    Removed(Seen<T>),
    /// The kind is not served, so there are none.
    Missing,
}

/// Objects on one page of a list: what is in memory as a whole at a time.
const PAGE: u32 = 100;
/// How long a list may be silent.
const LIST_SILENCE: Duration = Duration::from_secs(60);

/// Follows `kind` and tells of it. Ends only by being dropped.
pub(crate) async fn follow<T: Keep>(
    client: &Client,
    watched: &Watched,
    kind: &Kind,
    mut tell: impl FnMut(&ApiResource, Change<T>),
) {
    let mut follower = Follower {
        what: format!("watching {} of {}", kind.name, kind.group),
        outage: Outage::default(),
        backoff: Backoff::new(),
        listed: false,
        denied: 0,
    };
    // What to say of a kind that has never been found.
    let mut resource = ApiResource {
        group: kind.group.to_owned(),
        version: String::new(),
        api_version: kind.group.to_owned(),
        kind: kind.name.to_owned(),
        plural: String::new(),
    };
    loop {
        match discover(client, kind).await {
            Ok(Some(found)) => {
                resource = found;
                follower.denied = 0;
                follower.watch(client, watched, &resource, &mut tell).await;
            }
            Ok(None) => {
                if !kind.optional {
                    follower.outage.failed(format_args!("{}: its CRD is not installed", follower.what));
                }
                follower.denied += 1;
                // Of what was there it takes two denials, some time apart, to believe that it is gone.
                if !follower.listed || follower.denied > 1 {
                    follower.listed = false;
                    tell(&resource, Change::Missing);
                }
                tokio::time::sleep(watched.rediscover).await;
            }
            Err(error) => follower.failed(&error).await,
        }
    }
}

struct Follower {
    what: String,
    outage: Outage,
    backoff: Backoff,
    /// It was listed, and not found missing since.
    listed: bool,
    /// How often in a row it was not served.
    denied: u32,
}

impl Follower {
    /// Watches until the resource is no longer served or a list gets stuck.
    async fn watch<T: Keep>(
        &mut self,
        client: &Client,
        watched: &Watched,
        resource: &ApiResource,
        tell: &mut impl FnMut(&ApiResource, Change<T>),
    ) {
        let api = match &watched.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        };
        let mut events = pin!(watcher(api, watcher::Config::default().page_size(PAGE)));
        let mut list = Vec::new();
        let mut listing = true;
        loop {
            let patience = if listing { LIST_SILENCE } else { Duration::MAX };
            let event = match tokio::time::timeout(patience, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(late) => {
                    return self.failed(&Error::Unavailable { what: self.what.clone(), source: late.into() }).await;
                }
            };
            match event {
                Ok(Event::Init) => {
                    listing = true;
                    list.clear();
                }
                Ok(Event::InitApply(object)) => list.push(object),
                Ok(Event::InitDone) => {
                    listing = false;
                    self.listed = true;
                    self.works();
                    tell(resource, Change::Listed(std::mem::take(&mut list)));
                }
                Ok(Event::Apply(object)) => {
                    self.works();
                    tell(resource, Change::Applied(object));
                }
                Ok(Event::Delete(object)) => {
                    self.works();
                    tell(resource, Change::Removed(object));
                }
                Err(error) => {
                    let error = call::doubted(client, self.meant(error)).await;
                    self.failed(&error).await;
                    if error.is_not_found() {
                        return;
                    }
                }
            }
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        self.outage.over(&self.what);
    }

    fn meant(&self, error: watcher::Error) -> Error {
        let what = self.what.clone();
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Error::from_kube(what, error),
            watcher::Error::WatchError(status) => Error::from_kube(what, kube::Error::Api(status)),
            other @ watcher::Error::NoResourceVersion => Error::Unavailable { what, source: other.into() },
        }
    }

    /// Says so, once per outage, and waits. What no request gets through is said once for all.
    async fn failed(&mut self, error: &Error) {
        match error {
            Error::Unavailable { .. } => tracing::debug!("{}", chain(error)),
            // A watch's version that is too old is everyday life.
            Error::Refused { code: 404 | 410, .. } => tracing::debug!("{}", chain(error)),
            _ => self.outage.failed(chain(error)),
        }
        self.backoff.wait().await;
    }
}
