//! Events: listed, shown, and in Flux's own JSON for a revision.

use std::collections::BTreeMap;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use belfry_api::{AlertSpec, Event};
use belfry_core::{
    ObjectKey, Seq,
    event::{self, combine},
    go_json::{self, Wire},
    plan::{Change, Origin},
    revision,
    rollout::{Found, Sighting},
};
use belfry_store::{EventQuery, EventRow, Store};
use bytes::Bytes;
use http::header;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Caller, Problem, Shared,
    parameters::{self, Id, Listed, Objects, Parameters, perhaps_point, readable_page},
    tail::{Outlet, Tail, is_of},
};
use crate::{dispatcher::now, server::Lasting};

/// A severity to filter by.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something was done, or is under way.
    Info,
    /// Something failed.
    Error,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Error => "error",
        }
    }
}

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParameters {
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
    /// Arrived then or later: RFC 3339, or how long ago (`1h30m`).
    since: Option<String>,
    /// Arrived before then: RFC 3339, or how long ago.
    until: Option<String>,
    /// How many.
    #[serde(deserialize_with = "parameters::limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
    /// Goes on where a page ended: its `cursor`.
    #[serde(deserialize_with = "parameters::cursor")]
    cursor: Option<i64>,
}

impl ListParameters {
    fn query(self) -> Result<EventQuery, Problem> {
        let now = now();
        let (since, until) =
            (perhaps_point("since", self.since.as_deref(), now)?, perhaps_point("until", self.until.as_deref(), now)?);
        let Self { cluster, object, kind, namespace, name, .. } = self;
        Ok(EventQuery {
            object: Objects { cluster, object, kind, namespace, name }.filter()?,
            severity: self.severity.map(|severity| severity.as_str().to_owned()),
            reason: self.reason,
            revision: self.revision,
            since,
            until,
            ..EventQuery::default()
        })
    }
}

/// A page of events, newest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventList")]
pub(super) struct List {
    items: Vec<Item>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// An event. Times are RFC 3339.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Event")]
pub(super) struct Item {
    /// Its place in the log; events that came later have greater ones.
    id: i64,
    /// When it arrived.
    time: String,
    /// `Kind/namespace/name`.
    object: String,
    /// Absent where the cluster has no name.
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    /// `info` or `error`, as a rule.
    severity: String,
    reason: String,
    message: String,
    /// The revision that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    /// The hash of the commit that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    /// Its metadata without prefixes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    /// What it changed about its object: `failed` or `recovered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["failed", "recovered"]))]
    change: Option<&'static str>,
    /// How often it was repeated since.
    repeats: u64,
    /// `controller`: straight from Flux; `forwarded`: passed on by a `generic` Provider; `observed`: not an event, but what
    /// a watch saw of the object's status.
    #[schemars(extend("enum" = ["controller", "forwarded", "observed"]))]
    origin: &'static str,
}

impl Item {
    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// The hash of the commit that it is about.
    pub(super) fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// The row as it is shown; with it, the event with metadata as a `generic` Provider would send it.
    pub(super) fn read(row: &EventRow) -> (Self, Option<Event>) {
        let event = flux_event(row);
        let (message, commit) = match &event {
            Some(event) => (event.message.clone(), revision::commit(&event.metadata).map(str::to_owned)),
            None => seen(row),
        };
        let item = Self {
            id: row.seq.0,
            time: row.seq.time().to_string(),
            object: row.object.to_string(),
            cluster: row.object.cluster.clone(),
            severity: row.severity.clone(),
            reason: row.reason.clone(),
            message,
            revision: row.revision.clone(),
            commit,
            metadata: event.as_ref().map(|event| event.metadata.clone()).unwrap_or_default(),
            change: row.change.map(|change| match change {
                Change::Failed => "failed",
                Change::Recovered => "recovered",
            }),
            repeats: row.repeats,
            origin: match row.origin {
                Origin::Recorder => "controller",
                Origin::Forwarded => "forwarded",
                Origin::Observed => "observed",
            },
        };
        (item, event)
    }
}

impl Listed for EventRow {
    fn object(&self) -> &ObjectKey {
        &self.object
    }

    fn id(&self) -> i64 {
        self.seq.0
    }
}

/// The event as Flux's JSON has it, with metadata as a `generic` Provider would send it; `None` for an observation.
fn flux_event(row: &EventRow) -> Option<Event> {
    if row.origin == Origin::Observed {
        return None;
    }
    let mut event = event::read(&row.body).ok()?;
    event.metadata = combine(&event, row.origin, &AlertSpec::default()).metadata;
    Some(event)
}

/// Message and commit of what a watch saw.
fn seen(row: &EventRow) -> (String, Option<String>) {
    let Ok(sighting) = serde_json::from_slice::<Sighting>(&row.body) else { return Default::default() };
    let message = match sighting.found {
        Found::Failed { message, .. } => message,
        Found::Ready | Found::Gone => String::new(),
    };
    (message, sighting.commit)
}

pub(super) async fn list(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<List>, Problem> {
    let (limit, cursor) = (given.limit, given.cursor);
    let query = given.query()?;
    let page = readable_page(&caller, cursor, limit, |cursor, limit| {
        let (store, query) = (store.clone(), EventQuery { cursor, limit, ..query.clone() });
        async move {
            let wanted = query.revision.clone();
            let mut page = store.events(query).await?;
            page.items.retain(|row| wanted.as_deref().is_none_or(|wanted| is_of(row, wanted)));
            Ok(page)
        }
    })
    .await?;
    Ok(Json(List { items: page.items.iter().map(|row| Item::read(row).0).collect(), cursor: page.next }))
}

/// One event, whole.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WholeEvent")]
pub(super) struct Whole<'a> {
    #[serde(flatten)]
    item: Item,
    /// The event in Flux's JSON, as a `generic` Provider would send it; absent for an observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    event: Option<Wire<'a>>,
}

pub(super) async fn show(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let missing = || Problem::missing("event", id);
    let row = store.event(Seq(id)).await?.ok_or_else(missing)?;
    if !caller.may_read(&row.object).await? {
        return Err(missing());
    }
    let (item, event) = Item::read(&row);
    Ok(Json(Whole { item, event: event.as_ref().map(Wire) }).into_response())
}

/// Query parameters of the events of a revision.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionParameters {
    /// A revision or commit: as Flux writes it, or the first 7 digits of its hash or more.
    #[serde(deserialize_with = "parameters::filled")]
    #[schemars(required, with = "String")]
    revision: Option<String>,
}

/// All events of a revision as one array, which is sent piece by piece: there is no telling how long it gets.
pub(super) async fn of_revision(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<RevisionParameters>,
) -> Result<Response, Problem> {
    let query = EventQuery { revision: given.revision, ..EventQuery::default() };
    let mut tail = Tail::new(shared.store.clone(), caller, query, Seq(0));
    let last = *shared.store.head().borrow();
    let (outlet, body) = Outlet::open(&shared)?;
    // What can be refused is refused before the answer begins.
    let first = tail.next(last).await?;
    tokio::spawn(send_array(tail, first, last, outlet));
    Ok((Extension(Lasting), [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn send_array(mut tail: Tail, mut rows: Vec<EventRow>, last: Seq, mut outlet: Outlet) {
    let mut separator: &[u8] = b"[";
    loop {
        let mut piece = Vec::new();
        for event in rows.iter().filter_map(flux_event) {
            piece.extend_from_slice(separator);
            piece.extend(go_json::event(&event));
            separator = b",";
        }
        let is_last = tail.at() >= last;
        if is_last {
            piece.extend_from_slice(if separator == b"[" { b"[]" } else { b"]" });
        }
        if !outlet.send(Bytes::from(piece)).await || is_last {
            return;
        }
        rows = match tail.next(last).await {
            Ok(rows) => rows,
            // The answer stays without its end, so that nobody takes it for whole.
            Err(problem) => return outlet.fail(&problem),
        };
    }
}
