//! Reading on in the log for one caller, and handing on what was read to a reader who may be slow: a page is held at a
//! time, and nothing for one who takes nothing.

use std::{io, sync::Arc};

use axum::body::Body;
use belfry_core::{Seq, Time, limits, revision};
use belfry_store::{EventQuery, EventRow, Store};
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::{Caller, Problem, Shared, events::Item, parameters::Listed as _};
use crate::server::stopped;

/// Events in the order of their arrival, from some place in the log on.
pub(super) struct Tail {
    store: Store,
    caller: Caller,
    query: EventQuery,
    at: Seq,
}

impl Tail {
    /// What this query selects, after this event.
    pub(super) fn new(store: Store, caller: Caller, query: EventQuery, at: Seq) -> Self {
        Self { store, caller, query, at }
    }

    /// How far it has read.
    pub(super) fn at(&self) -> Seq {
        self.at
    }

    /// Who reads from now on.
    pub(super) fn set_caller(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// Some of the events up to this one, or all: then it is how far it has read.
    pub(super) async fn next(&mut self, last: Seq) -> Result<Vec<EventRow>, Problem> {
        let query = EventQuery {
            after: Some(self.at),
            until: Some(Time(last.0.saturating_add(1))),
            limit: limits::STREAM_PAGE,
            ..self.query.clone()
        };
        let page = self.store.events(query).await?;
        let mut rows = self.caller.readable(page.items, EventRow::object).await?;
        if let Some(wanted) = &self.query.revision {
            rows.retain(|row| is_of(row, wanted));
        }
        self.at = page.next.map_or(last, Seq);
        Ok(rows)
    }
}

/// Whether an event is of a revision; the store tells by the first digits of a hash.
pub(super) fn is_of(row: &EventRow, wanted: &str) -> bool {
    let named = row.revision.as_deref().is_some_and(|named| revision::same(named, wanted));
    named || Item::read(row).0.commit().is_some_and(|commit| revision::same(commit, wanted))
}

/// Where a reader gets what is sent. One of few: it is given back when this is dropped.
pub(super) struct Outlet {
    out: mpsc::Sender<io::Result<Bytes>>,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Outlet {
    /// One, with the body that its reader is answered with.
    pub(super) fn open(shared: &Shared) -> Result<(Self, Body), Problem> {
        let permit = Arc::clone(&shared.streams).try_acquire_owned().map_err(|_| {
            let detail = format!("{} streams are open already, which is the most: try again later", limits::STREAMS);
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let (out, mut taken) = mpsc::channel(1);
        let body = Body::from_stream(stream::poll_fn(move |context| taken.poll_recv(context)));
        Ok((Self { out, stopping: shared.stopping.clone(), _permit: permit }, body))
    }

    /// Whether it went out; if not, the stream is at its end: the reader left, or takes nothing, or the process stops.
    pub(super) async fn send(&mut self, piece: Bytes) -> bool {
        tokio::select! {
            sent = self.out.send_timeout(Ok(piece), limits::STREAM_STALL) => sent.is_ok(),
            () = stopped(&mut self.stopping) => false,
        }
    }

    /// Cuts the answer off, so that its reader notices.
    pub(super) fn fail(self, problem: &Problem) {
        tracing::debug!(?problem, "an answer could not be completed");
        let _ = self.out.try_send(Err(io::Error::other("cut off")));
    }

    /// Returns once nobody reads any more, or the process stops.
    pub(super) async fn ended(&mut self) {
        tokio::select! {
            () = self.out.closed() => {}
            () = stopped(&mut self.stopping) => {}
        }
    }
}
