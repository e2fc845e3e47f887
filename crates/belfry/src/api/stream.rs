//! Events as they come, as server-sent events. Fed by the head of the log and queries in the order of arrival: no gap, no
//! repeat, and who comes back with `Last-Event-ID` goes on where it was.

use std::time::Duration;

use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use belfry_core::{Seq, limits};
use belfry_store::{EventQuery, Store};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Caller, Problem, Session, Shared,
    events::{Item, Severity},
    parameters::{self, Objects, Parameters},
    tail::{Outlet, Tail},
};
use crate::server::Lasting;

/// Time between two looks at the log: while much comes, one look serves many events.
const PACE: Duration = Duration::from_millis(50);
/// Where a reader was when its connection broke, as browsers send it.
const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Query parameters of the stream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StreamParameters {
    /// Only of this cluster; empty: of the one that has no name.
    cluster: Option<String>,
    /// `Kind/namespace/name`, each of them possibly `*`; instead of kind, namespace and name.
    object: Option<String>,
    /// Only about objects of this kind.
    kind: Option<String>,
    /// Only about objects of this namespace.
    namespace: Option<String>,
    /// Only about objects of this name.
    name: Option<String>,
    /// Only of this revision or commit: as Flux writes it, or the first 7 digits of its hash or more.
    #[serde(deserialize_with = "parameters::filled")]
    revision: Option<String>,
    /// Only of this severity.
    severity: Option<Severity>,
    /// Only with this reason.
    #[serde(deserialize_with = "parameters::filled")]
    reason: Option<String>,
    /// Begins after the event of this id; with neither this nor the header `Last-Event-ID`, which counts more, it begins
    /// now.
    #[serde(deserialize_with = "parameters::cursor")]
    after: Option<i64>,
}

impl StreamParameters {
    fn query(self) -> Result<EventQuery, Problem> {
        let Self { cluster, object, kind, namespace, name, revision, severity, reason, after: _ } = self;
        Ok(EventQuery {
            object: Objects { cluster, object, kind, namespace, name }.filter()?,
            severity: severity.map(|severity| severity.as_str().to_owned()),
            reason,
            revision,
            ..EventQuery::default()
        })
    }
}

pub(super) async fn stream(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
    Parameters(given): Parameters<StreamParameters>,
) -> Result<Response, Problem> {
    let head = shared.store.head();
    let now = *head.borrow();
    let after = match last_event_id(&headers)?.or(given.after).map(Seq) {
        None => now,
        Some(after) if after <= now => after,
        Some(after) => after.min(newest(&shared.store).await?.max(now)),
    };
    let query = given.query()?;
    let (outlet, body) = Outlet::open(&shared)?;
    let tail = Tail::new(shared.store.clone(), caller, query, after);
    tokio::spawn(feed(tail, head, session, outlet));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Or nginx holds back what comes until it is worth its while.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((Extension(Lasting), headers, body).into_response())
}

/// The newest event of the log itself. Another replica may have shown what this one's head has yet to reach. An id beyond
/// that is not of this log: waiting for the log to get there would hide everything until then.
async fn newest(store: &Store) -> Result<Seq, Problem> {
    let query = EventQuery { observations: true, limit: 1, ..EventQuery::default() };
    Ok(store.events(query).await?.items.first().map_or(Seq(0), |row| row.seq))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|id| *id >= 0);
    id.map(Some).ok_or_else(|| Problem::parameter(LAST_EVENT_ID, "is not the id of an event"))
}

/// Hands on what comes until the reader leaves, takes nothing, may no longer read, or the process stops.
async fn feed(mut tail: Tail, mut head: watch::Receiver<Seq>, session: Session, mut outlet: Outlet) {
    let mut recheck = interval(limits::STREAM_RECHECK);
    recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
    recheck.reset();
    // At once, so that who is cut off before the first event knows where it was.
    if !outlet.send(alive(tail.at())).await {
        return;
    }
    let mut spoke = Instant::now();
    loop {
        let looked = Instant::now();
        let last = *head.borrow_and_update();
        if tail.at() < last {
            let piece = match tail.next(last).await {
                Ok(rows) => Bytes::from(rows.iter().flat_map(|row| message(&Item::read(row).0)).collect::<Vec<u8>>()),
                Err(problem) => return outlet.fail(&problem),
            };
            let is_told = !piece.is_empty();
            if is_told && !outlet.send(piece).await {
                return;
            }
            if is_told {
                spoke = Instant::now();
            }
        }
        if spoke.elapsed() >= limits::HEARTBEAT {
            if !outlet.send(alive(tail.at())).await {
                return;
            }
            spoke = Instant::now();
        }
        let due = spoke + limits::HEARTBEAT;
        let behind = tail.at() < last;
        tokio::select! {
            biased;
            () = outlet.ended() => return,
            _ = recheck.tick() => match session.caller().await {
                Ok(caller) => tail.set_caller(caller),
                Err(problem) => return outlet.fail(&problem),
            },
            () = async {}, if behind => {}
            changed = head.changed(), if !behind => {
                if changed.is_err() {
                    return;
                }
                sleep_until(looked + PACE).await;
            }
            () = sleep_until(due) => {}
        }
    }
}

/// An event as a reader gets it. JSON has no line breaks.
fn message(item: &Item) -> Vec<u8> {
    let data = serde_json::to_string(item).unwrap_or_default();
    format!("id: {}\ndata: {data}\n\n", item.id()).into_bytes()
}

/// A comment, and where the reader is: with a filter that lets little through it need not look through the same again.
fn alive(at: Seq) -> Bytes {
    Bytes::from(format!(": alive\nid: {}\n\n", at.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_reader_was_is_a_number_or_nothing() {
        let headers = |text: &'static str| {
            HeaderMap::from_iter([(header::HeaderName::from_static("last-event-id"), HeaderValue::from_static(text))])
        };
        assert_eq!(last_event_id(&HeaderMap::new()).unwrap(), None);
        assert_eq!(last_event_id(&headers("")).unwrap(), None);
        assert_eq!(last_event_id(&headers("17")).unwrap(), Some(17));
        for bad in ["-1", "x", "1.5", "99999999999999999999"] {
            assert!(last_event_id(&headers(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn signs_of_life_say_where_the_reader_is() {
        assert_eq!(alive(Seq(7)), ": alive\nid: 7\n\n");
    }
}
