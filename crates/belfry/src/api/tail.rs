//! Reading on in the log for one caller, and handing on what was read to a reader who may be slow: a page is held at a
//! time, and nothing for one who takes nothing.

use std::{io, sync::Arc};

use axum::body::Body;
use belfry_core::{Seq, Time, limits, revision};
use belfry_store::{EventQuery, EventRow, Store};
use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

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
        let query =
            EventQuery { after: Some(self.at), until: Some(Time(last.0.saturating_add(1))), ..self.query.clone() };
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
        Self::of(&shared.streams, shared.stopping.clone())
    }

    fn of(streams: &Arc<Semaphore>, stopping: watch::Receiver<bool>) -> Result<(Self, Body), Problem> {
        let permit = Arc::clone(streams).try_acquire_owned().map_err(|_| {
            let detail = format!("{} streams are open already, which is the most: try again later", limits::STREAMS);
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let (out, mut taken) = mpsc::channel(1);
        let body = Body::from_stream(stream::poll_fn(move |context| taken.poll_recv(context)));
        Ok((Self { out, stopping, _permit: permit }, body))
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;

    fn one() -> (Arc<Semaphore>, watch::Sender<bool>, Outlet, Body) {
        let (stop, stopping) = watch::channel(false);
        let streams = Arc::new(Semaphore::new(1));
        let (outlet, body) = Outlet::of(&streams, stopping).unwrap();
        (streams, stop, outlet, body)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut_off() {
        let (streams, _stop, mut outlet, mut body) = one();
        assert!(Outlet::of(&streams, watch::channel(false).1).is_err(), "there is but one");
        assert!(outlet.send(Bytes::from_static(b"one")).await);
        let begun = Instant::now();
        assert!(!outlet.send(Bytes::from_static(b"two")).await);
        assert_eq!(begun.elapsed(), limits::STREAM_STALL);
        drop(outlet);
        assert_eq!(streams.available_permits(), 1);
        let rest = async { body.frame().await.map(|frame| frame.unwrap().into_data().unwrap()) };
        assert_eq!(rest.await, Some(Bytes::from_static(b"one")), "what it was sent it can have");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_reader_and_with_the_process() {
        let (_streams, stop, mut outlet, body) = one();
        drop(body);
        outlet.ended().await;
        assert!(!outlet.send(Bytes::new()).await);
        drop(stop);

        let (_streams, stop, mut outlet, _body) = one();
        stop.send_replace(true);
        outlet.ended().await;
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off_does_not_look_whole() {
        let (_streams, _stop, outlet, mut body) = one();
        outlet.fail(&Problem::new(StatusCode::SERVICE_UNAVAILABLE, "down"));
        assert!(body.frame().await.unwrap().is_err());
    }
}
