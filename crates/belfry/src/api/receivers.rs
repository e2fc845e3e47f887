//! Receivers: their paths, and what came in there.

use axum::{Extension, Json, extract::State};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Caller, Problem, Shared};
use crate::receivers::View;

/// All Receivers, in the order of their names.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReceiverList")]
pub(super) struct List {
    items: Vec<View>,
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<List>, Problem> {
    let views = shared.receivers.view().await?;
    let keyed = views.into_iter().map(|view| (shared.config_object(&view.key()), view)).collect();
    let readable = caller.readable(keyed, |(key, _)| key).await?;
    Ok(Json(List { items: readable.into_iter().map(|(_, view)| view).collect() }))
}
