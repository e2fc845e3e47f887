//! Rollouts: which object went to which revision, when, and what came of it.

use axum::{Extension, Json, extract::State};
use belfry_core::{ObjectKey, Seq, rollout::Phase};
use belfry_store::{RolloutQuery, RolloutRow, Store};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Caller, Problem,
    parameters::{self, Id, Listed, Objects, Parameters, readable_page},
};

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParameters {
    /// Only of this cluster; empty: of the one that has no name.
    cluster: Option<String>,
    /// `Kind/namespace/name`, each of them possibly `*`; instead of the next three.
    object: Option<String>,
    /// Only of objects of this kind.
    kind: Option<String>,
    /// Only of objects of this namespace.
    namespace: Option<String>,
    /// Only of objects of this name.
    name: Option<String>,
    /// Only to this revision or commit: as Flux writes it, or the first 7 digits of its hash or more.
    #[serde(deserialize_with = "parameters::filled")]
    revision: Option<String>,
    /// `pending`, `progressing`, `succeeded`, `failed` or `superseded`; a list with commas.
    state: Option<String>,
    /// Goes on where a page ended: its `cursor`.
    #[serde(deserialize_with = "parameters::cursor")]
    cursor: Option<i64>,
    /// How many.
    #[serde(deserialize_with = "parameters::limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

/// A page of rollouts, newest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RolloutList")]
pub(super) struct List {
    items: Vec<Rollout>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// One object going to one revision. Times are RFC 3339; but for the id they are by the events' own clock.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rollout {
    id: i64,
    /// `Kind/namespace/name`.
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    revision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[schemars(extend("enum" = ["pending", "progressing", "succeeded", "failed", "superseded"]))]
    state: &'static str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_success: Option<String>,
    attempts: u32,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<Successor>,
}

/// What superseded a rollout.
#[derive(Serialize, JsonSchema)]
struct Successor {
    id: i64,
    revision: String,
}

impl From<RolloutRow> for Rollout {
    fn from(row: RolloutRow) -> Self {
        Self {
            id: row.id.0,
            object: row.object.to_string(),
            cluster: row.object.cluster.clone(),
            revision: row.revision,
            origin_revision: row.origin_revision,
            commit: row.commit,
            state: row.state.as_str(),
            started: row.started.to_string(),
            finished: row.finished.map(|at| at.to_string()),
            first_success: row.first_success.map(|at| at.to_string()),
            attempts: row.attempts,
            reason: row.reason,
            message: row.message,
            superseded_by: row.superseded_by.map(|next| Successor { id: next.id.0, revision: next.revision }),
        }
    }
}

impl Listed for RolloutRow {
    fn object(&self) -> &ObjectKey {
        &self.object
    }

    fn id(&self) -> i64 {
        self.id.0
    }
}

pub(super) async fn list(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<List>, Problem> {
    let (limit, cursor) = (given.limit, given.cursor);
    let query = query(given)?;
    let page = readable_page(&caller, cursor, limit, |cursor, limit| {
        let (store, query) = (store.clone(), RolloutQuery { cursor, limit, ..query.clone() });
        async move { store.rollouts(query).await }
    })
    .await?;
    Ok(Json(List { items: page.items.into_iter().map(Rollout::from).collect(), cursor: page.next }))
}

fn query(given: ListParameters) -> Result<RolloutQuery, Problem> {
    let states = given.state.iter().flat_map(|list| list.split(',')).map(|word| {
        Phase::parse(word).ok_or_else(|| {
            let why = format!("{word:?} is none of pending, progressing, succeeded, failed, superseded");
            Problem::parameter("state", why)
        })
    });
    let states = states.collect::<Result<_, _>>()?;
    let ListParameters { cluster, object, kind, namespace, name, revision, .. } = given;
    let object = Objects { cluster, object, kind, namespace, name }.filter()?;
    Ok(RolloutQuery { object, revision, states, ..RolloutQuery::default() })
}

pub(super) async fn show(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
) -> Result<Json<Rollout>, Problem> {
    let missing = || Problem::missing("rollout", id);
    let row = store.rollout(Seq(id)).await?.ok_or_else(missing)?;
    if caller.may_read(&row.object).await? { Ok(Json(row.into())) } else { Err(missing()) }
}
