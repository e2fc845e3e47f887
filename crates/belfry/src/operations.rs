//! The metrics and health ports.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use belfry_store::Store;
use http::{HeaderValue, Method, Response, StatusCode, header};

use crate::{
    configuration::Configuration,
    dispatcher::{Shared, now},
    metrics::{Backlog, Metrics, Readings},
    server::{WholeRequest, empty},
    waits::Waits,
};

/// What the metrics and health ports tell about.
pub struct Operations {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The store.
    pub store: Store,
    /// What is in force.
    pub configuration: Arc<Configuration>,
    /// The destinations and their circuits.
    pub dispatch: Arc<Shared>,
    /// Who waits for verdicts.
    pub waits: Arc<Waits>,
}

impl Operations {
    /// Answers on the metrics port.
    pub async fn metrics(&self, request: WholeRequest) -> Response<Body> {
        if request.method() != Method::GET || request.uri().path() != "/metrics" {
            return empty(StatusCode::NOT_FOUND);
        }
        let text = self.metrics.render(&self.readings());
        let mut response = Response::new(Body::from(text));
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// Answers on the health port: `/healthz` while the process works, `/readyz` when it can take in events.
    pub async fn health(&self, request: WholeRequest) -> Response<Body> {
        let problem = match request.uri().path() {
            "/healthz" => None,
            "/readyz" if !self.configuration.is_loaded() => Some("no configuration is loaded yet".to_owned()),
            "/readyz" => self.store.health().err().map(|error| format!("the store can't write: {error}")),
            _ => return empty(StatusCode::NOT_FOUND),
        };
        let mut response = Response::new(Body::from(problem.clone().unwrap_or_else(|| "ok".into()) + "\n"));
        if problem.is_some() {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }

    fn readings(&self) -> Readings {
        let stats = self.store.stats();
        let destinations = self.dispatch.destinations();
        let backlogs = destinations
            .into_iter()
            .map(|destination| {
                let pending = stats.pending.get(&destination.id);
                Backlog {
                    namespace: destination.key.namespace.to_string(),
                    provider: destination.key.name.to_string(),
                    pending: pending.map_or(0, |pending| pending.count),
                    oldest: pending.map_or(Duration::ZERO, |pending| now().since(pending.oldest)),
                    down: destination.circuit().is_open(),
                }
            })
            .collect();
        Readings { waits: self.waits.count(), stats, refused_objects: self.configuration.refused(), backlogs }
    }
}
