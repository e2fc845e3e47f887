//! The API port: deliveries, rollouts and Receivers as JSON, and redelivery.

mod caller;
mod deliveries;
mod rollouts;
mod wait;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use belfry_core::{Time, duration};
use belfry_store::{ObjectFilter, Store, StoreError};
use http::{StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tower::ServiceExt as _;

pub use caller::Caller;

use crate::{receivers::Receivers, server::WholeRequest, waits::Waits};

/// The API of one process.
#[derive(Clone)]
pub struct Api {
    router: Router,
    token: Option<Arc<SecretString>>,
}

impl Api {
    /// An API over a store. With a token, every request must carry it as a bearer token, but for those from this machine
    /// itself; without one, nobody else is answered.
    pub fn new(
        store: Store,
        receivers: Arc<Receivers>,
        waits: Arc<Waits>,
        token: Option<SecretString>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let desk = wait::Desk { waits, stop };
        let waits = Router::new().route("/api/v1/wait", get(wait::wait)).with_state(desk);
        let receivers = Router::new().route("/api/v1/receivers", get(list_receivers)).with_state(receivers);
        let router = Router::new()
            .route("/api/v1/deliveries", get(deliveries::list))
            .route("/api/v1/deliveries/{id}", get(deliveries::show))
            .route("/api/v1/deliveries/{id}/redeliver", post(deliveries::redeliver))
            .route("/api/v1/rollouts", get(rollouts::list))
            .route("/api/v1/rollouts/{id}", get(rollouts::show))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such resource"))
            .with_state(store)
            .merge(receivers)
            .merge(waits);
        Self { router, token: token.map(Arc::new) }
    }

    /// Answers one request.
    pub async fn handle(&self, request: WholeRequest) -> Response {
        let caller = match self.authorize(&request) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
        };
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(caller);
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn authorize(&self, request: &WholeRequest) -> Result<Caller, Problem> {
        let headers = request.headers();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if let (Some(token), Some(bearer)) = (&self.token, bearer) {
            return if token.expose_secret().as_bytes().ct_eq(bearer.trim().as_bytes()).into() {
                Ok(Caller::Everything)
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
        Ok(Caller::Everything)
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

#[cfg(test)]
mod tests {
    use super::*;

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
