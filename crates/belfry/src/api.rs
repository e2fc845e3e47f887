//! The API port: deliveries and Receivers as JSON, and redelivery.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use belfry_core::{ConfigKey, Time, duration};
use belfry_store::{
    AttemptRow, DeliveryQuery, DeliveryRow, DeliveryState, ObjectFilter, RedeliverError, Store, StoreError,
};
use http::{StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tower::ServiceExt as _;

use crate::{dispatcher::now, receivers::Receivers, server::WholeRequest};

/// The API of one process.
#[derive(Clone)]
pub struct Api {
    router: Router,
    token: Option<Arc<SecretString>>,
}

impl Api {
    /// An API over a store. With a token, every request must carry it as a bearer token, but for those from this machine
    /// itself; without one, nobody else is answered.
    pub fn new(store: Store, receivers: Arc<Receivers>, token: Option<SecretString>) -> Self {
        let receivers = Router::new().route("/api/v1/receivers", get(list_receivers)).with_state(receivers);
        let router = Router::new()
            .route("/api/v1/deliveries", get(list))
            .route("/api/v1/deliveries/{id}", get(show))
            .route("/api/v1/deliveries/{id}/redeliver", post(redeliver))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such resource"))
            .with_state(store)
            .merge(receivers);
        Self { router, token: token.map(Arc::new) }
    }

    /// Answers one request.
    pub async fn handle(&self, request: WholeRequest) -> Response {
        if let Err(problem) = self.authorize(&request) {
            return problem.into_response();
        }
        match self.router.clone().oneshot(request.map(Body::from)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn authorize(&self, request: &WholeRequest) -> Result<(), Problem> {
        let headers = request.headers();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if let (Some(token), Some(bearer)) = (&self.token, bearer) {
            return if token.expose_secret().as_bytes().ct_eq(bearer.trim().as_bytes()).into() {
                Ok(())
            } else {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "the bearer token is not the one in --api-token-file"))
            };
        }
        // An IPv4 peer of a socket for both comes as an IPv6 address.
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
        let local = peer.is_some_and(|address| address.is_loopback());
        if !local {
            let message = match self.token {
                Some(_) => "a bearer token is needed",
                None => "only this machine itself is answered; start with --api-token-file to answer others",
            };
            return Err(Problem::new(StatusCode::UNAUTHORIZED, message));
        }
        // A page in a browser on this machine can send requests here too: what it can't do is claim our name.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !is_local(host) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the Host header doesn't name this machine"));
        }
        let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
        let foreign = origin.is_some_and(|origin| {
            !origin.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|origin| origin.as_str() == host))
        });
        if foreign {
            return Err(Problem::new(StatusCode::FORBIDDEN, "the Origin header names another site"));
        }
        Ok(())
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An error as RFC 9457 has it, reduced to what our clients read.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document {
            title: &'static str,
            status: u16,
            detail: String,
        }
        let title = self.status.canonical_reason().unwrap_or_default();
        let body = Json(Document { title, status: self.status.as_u16(), detail: self.detail });
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

fn store_problem(error: StoreError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListParameters {
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
struct List {
    items: Vec<Delivery>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<i64>,
}

/// A delivery as the API shows it. Times are RFC 3339.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
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

async fn list(
    State(store): State<Store>,
    parameters: Result<Query<ListParameters>, QueryRejection>,
) -> Result<Json<List>, Problem> {
    let Query(parameters) = parameters.map_err(|error| bad_request(error.body_text()))?;
    let query = query(parameters, now()).map_err(bad_request)?;
    let page = store.deliveries(query).await.map_err(store_problem)?;
    Ok(Json(List { items: page.items.into_iter().map(Delivery::from).collect(), cursor: page.next }))
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
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

/// `Kind/namespace/name`, each of them possibly `*`.
fn object_filter(value: &str) -> Result<ObjectFilter, String> {
    match value.split('/').collect::<Vec<_>>()[..] {
        [kind, namespace, name] => {
            let (kind, namespace, name) = (any(kind), any(namespace), any(name));
            Ok(ObjectFilter { kind, namespace, name, ..ObjectFilter::default() })
        }
        _ => Err(format!("object: {value:?} is not KIND/NAMESPACE/NAME")),
    }
}

fn any(part: &str) -> Option<String> {
    (part != "*").then(|| part.to_owned())
}

/// A point in time: RFC 3339, or how long ago.
fn point(parameter: &str, text: &str, now: Time) -> Result<Time, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(now.before(ago));
    }
    text.parse::<jiff::Timestamp>()
        .map(|at| Time(at.as_microsecond()))
        .map_err(|_| format!("{parameter}: {text:?} is neither an RFC 3339 time nor a duration such as 1h30m"))
}

async fn show(State(store): State<Store>, Path(id): Path<i64>) -> Result<Response, Problem> {
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

async fn list_receivers(State(receivers): State<Arc<Receivers>>) -> Result<Response, Problem> {
    let items = receivers.view().await.map_err(store_problem)?;
    Ok(Json(json!({ "items": items })).into_response())
}

async fn redeliver(State(store): State<Store>, Path(id): Path<i64>) -> Result<Response, Problem> {
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

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "localhost:9393", "127.0.0.1:9393", "[::1]:9393", "127.8.8.8"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["", "example.com", "localhost.example.com", "10.0.0.1:9393", "[::2]"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
