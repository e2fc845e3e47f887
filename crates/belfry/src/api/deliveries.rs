//! Deliveries: listed, shown with their attempts, and put in line again.

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use belfry_core::{ConfigKey, ObjectKey, Time};
use belfry_store::{AttemptRow, DeliveryQuery, DeliveryRow, DeliveryState, RedeliverError, Store};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Caller, Problem,
    parameters::{self, Id, Listed, Objects, Parameters, any, perhaps_point, readable_page},
};
use crate::dispatcher::now;

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParameters {
    /// `pending`, `delivered`, `superseded` or `dead`; a list with commas.
    state: Option<String>,
    /// Only to this Provider: `namespace/name`, either of them possibly `*`.
    provider: Option<String>,
    /// Only those that this Alert caused: `namespace/name`, either of them possibly `*`.
    alert: Option<String>,
    /// Only about objects of this cluster; empty: of the one that has no name.
    cluster: Option<String>,
    /// Only about this object: `Kind/namespace/name`, each of them possibly `*`.
    object: Option<String>,
    /// Created then or later: RFC 3339, or how long ago (`1h30m`).
    since: Option<String>,
    /// Created before then: RFC 3339, or how long ago.
    until: Option<String>,
    /// Goes on where a page ended: its `cursor`.
    #[serde(deserialize_with = "parameters::cursor")]
    cursor: Option<i64>,
    /// How many.
    #[serde(deserialize_with = "parameters::limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

/// A page of deliveries, newest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DeliveryList")]
pub(super) struct List {
    items: Vec<Delivery>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// A delivery. Times are RFC 3339.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    id: i64,
    created: String,
    #[schemars(extend("enum" = ["pending", "delivered", "superseded", "dead"]))]
    state: &'static str,
    /// What it tells of.
    #[schemars(extend("enum" = ["event", "rollout", "trigger"]))]
    kind: &'static str,
    /// `namespace/name`.
    provider: String,
    /// What caused it, an Alert, a CommitStatus or a Receiver: `namespace/name`.
    alert: String,
    /// `Kind/namespace/name`.
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    /// The event, observation or webhook that caused it.
    event: i64,
    severity: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<String>,
    /// The last error, or why it was settled as it was; masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        let name = |key: &ConfigKey| format!("{}/{}", key.namespace, key.name);
        Self {
            id: row.id,
            created: row.created.to_string(),
            state: row.state.as_str(),
            kind: row.kind.as_str(),
            provider: name(&row.provider),
            alert: name(&row.route),
            object: row.object.to_string(),
            cluster: row.object.cluster.clone(),
            event: row.event.0,
            severity: row.severity,
            reason: row.reason,
            revision: row.revision,
            attempts: row.attempts,
            next_attempt: row.next_attempt.map(|at| at.to_string()),
            settled: row.settled.map(|at| at.to_string()),
            detail: row.answer,
        }
    }
}

/// One attempt at a delivery.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    n: u32,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl From<AttemptRow> for Attempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            n: row.n,
            at: row.at.to_string(),
            took_seconds: row.took.map(|took| took.as_secs_f64()),
            status: row.status,
            outcome: row.outcome.as_str(),
            error: row.error,
        }
    }
}

impl Listed for DeliveryRow {
    fn object(&self) -> &ObjectKey {
        &self.object
    }

    fn id(&self) -> i64 {
        self.id
    }
}

pub(super) async fn list(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<List>, Problem> {
    let (limit, cursor) = (given.limit, given.cursor);
    let query = query(given, now())?;
    let page = readable_page(&caller, cursor, limit, |cursor, limit| {
        let (store, query) = (store.clone(), DeliveryQuery { cursor, limit, ..query.clone() });
        async move { store.deliveries(query).await }
    })
    .await?;
    Ok(Json(List { items: page.items.into_iter().map(Delivery::from).collect(), cursor: page.next }))
}

fn query(given: ListParameters, now: Time) -> Result<DeliveryQuery, Problem> {
    let states = given.state.iter().flat_map(|list| list.split(',')).map(|word| {
        DeliveryState::parse(word).ok_or_else(|| {
            Problem::parameter("state", format!("{word:?} is none of pending, delivered, superseded, dead"))
        })
    });
    let states = states.collect::<Result<_, _>>()?;
    let (provider_namespace, provider) = split("provider", given.provider)?;
    let (alert_namespace, alert) = split("alert", given.alert)?;
    Ok(DeliveryQuery {
        states,
        provider_namespace,
        provider,
        alert_namespace,
        alert,
        object: Objects { cluster: given.cluster, object: given.object, ..Objects::default() }.filter()?,
        since: perhaps_point("since", given.since.as_deref(), now)?,
        until: perhaps_point("until", given.until.as_deref(), now)?,
        ..DeliveryQuery::default()
    })
}

/// `namespace/name`, either of them `*`.
fn split(parameter: &str, value: Option<String>) -> Result<(Option<String>, Option<String>), Problem> {
    let Some(value) = value else { return Ok((None, None)) };
    let (namespace, name) = value
        .split_once('/')
        .ok_or_else(|| Problem::parameter(parameter, format!("{value:?} is not NAMESPACE/NAME")))?;
    Ok((any(namespace), any(name)))
}

/// A delivery with its attempts.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WholeDelivery")]
pub(super) struct Whole {
    #[serde(flatten)]
    delivery: Delivery,
    /// Its attempts, the first one first.
    attempt_log: Vec<Attempt>,
}

/// The delivery, if the caller may know of it.
async fn find(store: &Store, caller: &Caller, id: i64) -> Result<DeliveryRow, Problem> {
    let query = DeliveryQuery { id: Some(id), ..DeliveryQuery::default() };
    let found = caller.readable(store.deliveries(query).await?.items, DeliveryRow::object).await?;
    found.into_iter().next().ok_or_else(|| Problem::missing("delivery", id))
}

pub(super) async fn show(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
) -> Result<Json<Whole>, Problem> {
    let delivery = find(&store, &caller, id).await?.into();
    let attempt_log = store.attempts(id).await?.into_iter().map(Attempt::from).collect();
    Ok(Json(Whole { delivery, attempt_log }))
}

/// What became of a request to deliver again.
#[derive(Serialize, JsonSchema)]
pub(super) struct Redelivered {
    /// The new delivery.
    id: i64,
}

pub(super) async fn redeliver(
    State(store): State<Store>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let row = find(&store, &caller, id).await?;
    if !caller.may_redeliver(&row.route).await? {
        let detail = format!("to deliver {id} again takes the permission to update {}", row.route);
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let redelivered = store.redeliver(id).await.map_err(|error| match error {
        RedeliverError::Unknown(_) => Problem::missing("delivery", id),
        RedeliverError::Pending(_) => Problem::new(StatusCode::CONFLICT, error.to_string()),
        RedeliverError::Store(error) => error.into(),
    })?;
    Ok((StatusCode::ACCEPTED, Json(Redelivered { id: redelivered.delivery })).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_say_what_is_wrong_with_them() {
        let parameters =
            |name: &str, value: &str| -> ListParameters { serde_json::from_value(json!({name: value})).unwrap() };
        for (name, value, expected) in [
            ("state", "lost", r#"state: \"lost\" is none of pending, delivered, superseded, dead"#),
            ("provider", "slack", r#"provider: \"slack\" is not NAMESPACE/NAME"#),
            ("object", "a/b", r#"object: \"a/b\" is not KIND/NAMESPACE/NAME"#),
            ("since", "monday", "is neither an RFC 3339 time nor a duration such as 1h30m"),
        ] {
            let problem = format!("{:?}", query(parameters(name, value), Time(0)).unwrap_err());
            assert!(problem.contains(expected), "{problem}");
        }
        let query = query(parameters("since", "1h"), Time(7_200_000_000)).unwrap();
        assert_eq!(query.since, Some(Time(3_600_000_000)));
    }
}
