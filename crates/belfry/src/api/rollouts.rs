//! Rollouts: which object went to which revision, when, and what came of it.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use belfry_core::{Seq, rollout::Phase};
use belfry_store::{RolloutQuery, RolloutRow, Store};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Problem, bad_request, object_filter, store_problem};

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parameters {
    object: Option<String>,
    cluster: Option<String>,
    revision: Option<String>,
    state: Option<String>,
    cursor: Option<i64>,
    limit: Option<u32>,
}

/// A page of rollouts, newest first.
#[derive(Serialize)]
pub(super) struct List {
    items: Vec<Rollout>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// A rollout as the API shows it. Times are RFC 3339.
#[derive(Serialize)]
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
#[derive(Serialize)]
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

pub(super) async fn list(
    State(store): State<Store>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<List>, Problem> {
    let Query(parameters) = parameters.map_err(|error| bad_request(error.body_text()))?;
    let query = query(parameters).map_err(bad_request)?;
    let page = store.rollouts(query).await.map_err(store_problem)?;
    Ok(Json(List { items: page.items.into_iter().map(Rollout::from).collect(), cursor: page.next }))
}

fn query(parameters: Parameters) -> Result<RolloutQuery, String> {
    let states = parameters.state.iter().flat_map(|list| list.split(',')).map(|word| {
        Phase::parse(word)
            .ok_or_else(|| format!("state: {word:?} is none of pending, progressing, succeeded, failed, superseded"))
    });
    let mut object = parameters.object.map(|object| object_filter(&object)).transpose()?.unwrap_or_default();
    object.cluster = parameters.cluster;
    Ok(RolloutQuery {
        object,
        revision: parameters.revision,
        states: states.collect::<Result<_, _>>()?,
        cursor: parameters.cursor,
        limit: parameters.limit.unwrap_or_default(),
    })
}

pub(super) async fn show(State(store): State<Store>, Path(id): Path<i64>) -> Result<Json<Rollout>, Problem> {
    let rollout = store.rollout(Seq(id)).await.map_err(store_problem)?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, format!("there is no rollout {id}"));
    rollout.map(|row| Json(row.into())).ok_or_else(missing)
}
