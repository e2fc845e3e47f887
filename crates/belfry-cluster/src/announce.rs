//! Announcements become Kubernetes Events: queued by whoever has something to say, written by one task.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use belfry_core::announcement::Announcement;
use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel, error::TrySendError},
    time::Instant,
};

use crate::{
    Error,
    backoff::Backoff,
    call,
    error::chain,
    outage::Outage,
    recorder::{Entry, Note, Recorder, Write},
};

/// Announcements that wait to be written.
const QUEUE: usize = 1024;
/// How long one is worth being tried: an Event about longer ago helps nobody.
const WORTH: Duration = Duration::from_secs(600);
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Where announcements go in.
pub(crate) struct Announcer {
    queue: Sender<Queued>,
    left_out: Arc<AtomicU64>,
}

struct Queued {
    note: Note,
    at: Timestamp,
    queued: Instant,
}

impl Announcer {
    /// Starts the task that writes. It ends after the last announcer is dropped and the queue is empty.
    pub(crate) fn start(client: Client) -> Self {
        let (sender, queue) = channel(QUEUE);
        let left_out = Arc::new(AtomicU64::new(0));
        let writer =
            Writer { client, recorder: Recorder::default(), outage: Outage::default(), left_out: left_out.clone() };
        tokio::spawn(writer.run(queue));
        Self { queue: sender, left_out }
    }

    pub(crate) fn announce(&self, announcement: Announcement) {
        self.note(announcement.into());
    }

    pub(crate) fn note(&self, note: Note) {
        let queued = Queued { note, at: Timestamp::now(), queued: Instant::now() };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(queued) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Writer {
    client: Client,
    recorder: Recorder,
    outage: Outage,
    left_out: Arc<AtomicU64>,
}

const WHAT: &str = "writing Kubernetes Events";

impl Writer {
    async fn run(mut self, mut queue: Receiver<Queued>) {
        while let Some(queued) = queue.recv().await {
            let Some(entry) = self.recorder.take_in(&queued.note, queued.at, Instant::now()) else {
                tracing::debug!(object = %queued.note.about, "too many Kubernetes Events about one object");
                continue;
            };
            self.write(&entry, queued.queued).await;
            let left_out = self.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                tracing::warn!(left_out, "more announcements than could be written as Kubernetes Events");
            }
        }
    }

    /// Tries until it is written, refused, or no longer worth it.
    async fn write(&mut self, entry: &Entry, queued: Instant) {
        let mut backoff = Backoff::new();
        loop {
            match self.send(entry).await {
                Ok(()) => return self.outage.over(WHAT),
                Err(error) => {
                    self.outage.failed(chain(&error));
                    if !error.is_unavailable() || queued.elapsed() > WORTH {
                        return self.recorder.forget(entry);
                    }
                }
            }
            backoff.wait().await;
        }
    }

    async fn send(&mut self, entry: &Entry) -> Result<(), Error> {
        let folder = format!("/api/v1/namespaces/{}/events", entry.namespace);
        if let Write::Bump(patch) = &entry.write {
            let path = format!("{folder}/{}", entry.name);
            match self.request(Method::PATCH, &path, MERGE_PATCH, patch).await {
                // Events don't live long.
                Err(error) if error.is_not_found() => {}
                done => return done,
            }
        }
        match self.request(Method::POST, &folder, "application/json", &entry.event).await {
            // An attempt whose answer got lost.
            Err(Error::Refused { code: 409, .. }) => Ok(()),
            done => done,
        }
    }

    async fn request(&self, method: Method, path: &str, kind: &'static str, body: &Value) -> Result<(), Error> {
        call::send(&self.client, WHAT, method, path, Some((kind, body))).await.map(drop)
    }
}
