//! Deliveries: listed, shown with their attempts, and put in line again.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use belfry_core::{ConfigKey, Time};
use belfry_store::{AttemptRow, DeliveryQuery, DeliveryRow, DeliveryState, RedeliverError, Store};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Problem, any, bad_request, object_filter, point, store_problem};
use crate::dispatcher::now;

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParameters {
    state: Option<String>,
    provider: Option<String>,
    alert: Option<String>,
    object: Option<String>,
    since: Option<String>,
    until: Option<String>,
    cursor: Option<i64>,
    limit: Option<u32>,
}

/// A page of deliveries.
#[derive(Serialize)]
pub(super) struct List {
    items: Vec<Delivery>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// A delivery as the API shows it. Times are RFC 3339.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    id: i64,
    created: String,
    state: &'static str,
    /// `event`, `rollout` or `trigger`.
    kind: &'static str,
    /// `namespace/name`.
    provider: String,
    /// `namespace/name`.
    alert: String,
    /// `Kind/namespace/name`.
    object: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
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

/// One attempt as the API shows it.
#[derive(Serialize)]
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

pub(super) async fn list(
    State(store): State<Store>,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Json<List>, Problem> {
    let Query(parameters) = parameters.map_err(|error| bad_request(error.body_text()))?;
    let query = query(parameters, now()).map_err(bad_request)?;
    let page = store.deliveries(query).await.map_err(store_problem)?;
    Ok(Json(List { items: page.items.into_iter().map(Delivery::from).collect(), cursor: page.next }))
}

fn query(parameters: ListParameters, now: Time) -> Result<DeliveryQuery, String> {
    let states = parameters.state.iter().flat_map(|list| list.split(',')).map(|word| {
        DeliveryState::parse(word)
            .ok_or_else(|| format!("state: {word:?} is none of pending, delivered, superseded, dead"))
    });
    let (provider_namespace, provider) = split("provider", parameters.provider)?;
    let (alert_namespace, alert) = split("alert", parameters.alert)?;
    let time = |name: &str, value: Option<String>| value.map(|text| point(name, &text, now)).transpose();
    Ok(DeliveryQuery {
        states: states.collect::<Result<_, _>>()?,
        provider_namespace,
        provider,
        alert_namespace,
        alert,
        object: parameters.object.map(|object| object_filter(&object)).transpose()?.unwrap_or_default(),
        since: time("since", parameters.since)?,
        until: time("until", parameters.until)?,
        cursor: parameters.cursor,
        limit: parameters.limit.unwrap_or_default(),
        ..DeliveryQuery::default()
    })
}

/// `namespace/name`, either of them `*`.
fn split(parameter: &str, value: Option<String>) -> Result<(Option<String>, Option<String>), String> {
    let Some(value) = value else { return Ok((None, None)) };
    let (namespace, name) =
        value.split_once('/').ok_or_else(|| format!("{parameter}: {value:?} is not NAMESPACE/NAME"))?;
    Ok((any(namespace), any(name)))
}

pub(super) async fn show(State(store): State<Store>, Path(id): Path<i64>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Detailed {
        #[serde(flatten)]
        delivery: Delivery,
        #[serde(rename = "attemptLog")]
        attempt_log: Vec<Attempt>,
    }
    let query = DeliveryQuery { id: Some(id), ..DeliveryQuery::default() };
    let page = store.deliveries(query).await.map_err(store_problem)?;
    let Some(row) = page.items.into_iter().next() else {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no delivery {id}")));
    };
    let attempts = store.attempts(id).await.map_err(store_problem)?;
    let attempt_log = attempts.into_iter().map(Attempt::from).collect();
    Ok(Json(Detailed { delivery: row.into(), attempt_log }).into_response())
}

pub(super) async fn redeliver(State(store): State<Store>, Path(id): Path<i64>) -> Result<Response, Problem> {
    let redelivered = store.redeliver(id).await.map_err(|error| match error {
        RedeliverError::Unknown(_) => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
        RedeliverError::Pending(_) => Problem::new(StatusCode::CONFLICT, error.to_string()),
        RedeliverError::Store(error) => store_problem(error),
    })?;
    Ok((StatusCode::ACCEPTED, Json(json!({"id": redelivered.delivery}))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_say_what_is_wrong_with_them() {
        let parameters =
            |name: &str, value: &str| -> ListParameters { serde_json::from_value(json!({name: value})).unwrap() };
        for (name, value, expected) in [
            ("state", "lost", "state: \"lost\" is none of pending, delivered, superseded, dead"),
            ("provider", "slack", "provider: \"slack\" is not NAMESPACE/NAME"),
            ("object", "a/b", "object: \"a/b\" is not KIND/NAMESPACE/NAME"),
            ("since", "monday", "since: \"monday\" is neither an RFC 3339 time nor a duration such as 1h30m"),
        ] {
            assert_eq!(query(parameters(name, value), Time(0)).unwrap_err(), expected);
        }
        let query = query(parameters("since", "1h"), Time(7_200_000_000)).unwrap();
        assert_eq!(query.since, Some(Time(3_600_000_000)));
    }
}
