//! The API port: deliveries, rollouts and Receivers as JSON, and redelivery.

mod caller;
mod deliveries;
mod intake;
mod rollouts;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use belfry_core::{Time, duration};
use belfry_store::{ObjectFilter, Store, StoreError};
use http::{Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tower::ServiceExt as _;

pub use caller::Caller;

use crate::{access::Access, intake::Intake, receivers::Receivers, server::WholeRequest};

/// The API of one process.
#[derive(Clone)]
pub struct Api {
    router: Router,
    access: Arc<Access>,
    intake: Arc<Intake>,
}

impl Api {
    /// An API over a store, for those whom `access` knows.
    pub fn new(store: Store, receivers: Arc<Receivers>, access: Arc<Access>, intake: Arc<Intake>) -> Self {
        let receivers = Router::new().route("/api/v1/receivers", get(list_receivers)).with_state(receivers);
        let router = Router::new()
            .route("/api/v1/deliveries", get(deliveries::list))
            .route("/api/v1/deliveries/{id}", get(deliveries::show))
            .route("/api/v1/deliveries/{id}/redeliver", post(deliveries::redeliver))
            .route("/api/v1/rollouts", get(rollouts::list))
            .route("/api/v1/rollouts/{id}", get(rollouts::show))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such resource"))
            .with_state(store)
            .merge(receivers);
        Self { router, access, intake }
    }

    /// Answers one request.
    pub async fn handle(&self, request: WholeRequest) -> Response {
        if request.method() == Method::POST && request.uri().path() == "/events" {
            return intake::post(&self.access, &self.intake, request).await;
        }
        let caller = match self.access.caller(&request).await {
            Ok(caller) => caller,
            Err(denied) => return denied.into_response(),
        };
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(caller);
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// An error as RFC 9457 has it, reduced to what our clients read.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    /// A problem of this kind, and what is wrong in particular.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
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

async fn list_receivers(State(receivers): State<Arc<Receivers>>) -> Result<Response, Problem> {
    let items = receivers.view().await.map_err(store_problem)?;
    Ok(Json(json!({ "items": items })).into_response())
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
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
