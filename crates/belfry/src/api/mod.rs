//! The API port: events, objects, rollouts, deliveries and Receivers as JSON, events as they come, and redelivery.

mod caller;
mod deliveries;
mod events;
mod explain;
mod intake;
mod objects;
mod openapi;
mod parameters;
mod problem;
mod receivers;
mod rollouts;
mod stream;
mod tail;
mod wait;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, FromRef},
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use belfry_core::{ConfigKey, ObjectKey, limits};
use belfry_store::Store;
use http::{Method, StatusCode};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

pub use caller::Caller;
use parameters::{any, bad_request, point};
pub use problem::Problem;

use crate::{
    access::Access, configuration::Configuration, intake::Intake, receivers::Receivers, server::WholeRequest,
    waits::Waits,
};

/// What the API tells about.
pub struct Parts {
    /// The log and the deliveries.
    pub store: Store,
    /// What is in force.
    pub configuration: Arc<Configuration>,
    /// The Receivers.
    pub receivers: Arc<Receivers>,
    /// Who answers whether a revision is live.
    pub waits: Arc<Waits>,
    /// `--cluster-name`: that of the objects in the index and of the configuration.
    pub cluster: String,
    /// Who may see and do what.
    pub access: Arc<Access>,
    /// Takes events in.
    pub intake: Arc<Intake>,
    /// Turns true when streams are to end.
    pub stopping: watch::Receiver<bool>,
}

/// The API of one process.
#[derive(Clone)]
pub struct Api {
    router: Router,
    access: Arc<Access>,
    intake: Arc<Intake>,
}

impl Api {
    /// An API over these, for those whom its `access` knows.
    pub fn new(parts: Parts) -> Self {
        let Routes { router, listed } = routes();
        let shared = Shared(Arc::new(Inner {
            store: parts.store,
            configuration: parts.configuration,
            receivers: parts.receivers,
            waits: parts.waits,
            cluster: parts.cluster,
            stopping: parts.stopping,
            streams: Arc::new(Semaphore::new(limits::STREAMS)),
            routes: listed,
        }));
        Self { router: router.with_state(shared), access: parts.access, intake: parts.intake }
    }

    /// Answers one request.
    pub async fn handle(&self, request: WholeRequest) -> Response {
        // Who sends events has credentials of another kind than who reads.
        if request.method() == Method::POST && request.uri().path() == "/events" {
            return intake::post(&self.access, &self.intake, request).await;
        }
        let caller = match self.access.caller(&request).await {
            Ok(caller) => caller,
            Err(denied) => return denied.into_response(),
        };
        let session = Session::new(self.clone(), &request);
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(session);
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Every route. Those of others are added here.
fn routes() -> Routes {
    Routes::default()
        .get("/openapi.json", openapi::show)
        .get("/events", events::of_revision)
        .before(("post", "/events"))
        .get("/api/v1/events", events::list)
        .get("/api/v1/events/stream", stream::stream)
        .get("/api/v1/events/{id}", events::show)
        .get("/api/v1/objects", objects::list)
        .get("/api/v1/explain", explain::explain)
        .get("/api/v1/wait", wait::wait)
        .get("/api/v1/rollouts", rollouts::list)
        .get("/api/v1/rollouts/{id}", rollouts::show)
        .get("/api/v1/deliveries", deliveries::list)
        .get("/api/v1/deliveries/{id}", deliveries::show)
        .post("/api/v1/deliveries/{id}/redeliver", deliveries::redeliver)
        .get("/api/v1/receivers", receivers::list)
        .end()
}

/// Routes, and a list of them.
#[derive(Default)]
struct Routes {
    router: Router<Shared>,
    /// Method and path of each.
    listed: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn get<T: 'static>(mut self, path: &'static str, handler: impl Handler<T, Shared>) -> Self {
        self.listed.push(("get", path));
        Self { router: self.router.route(path, get(handler)), ..self }
    }

    fn post<T: 'static>(mut self, path: &'static str, handler: impl Handler<T, Shared>) -> Self {
        self.listed.push(("post", path));
        Self { router: self.router.route(path, post(handler)), ..self }
    }

    /// One that is answered before requests come here.
    fn before(mut self, route: (&'static str, &'static str)) -> Self {
        self.listed.push(route);
        self
    }

    /// With an answer for everything else.
    fn end(self) -> Self {
        let nothing = async || Problem::new(StatusCode::NOT_FOUND, "no such resource; /openapi.json lists them");
        let method = async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "not with this method");
        Self { router: self.router.fallback(nothing).method_not_allowed_fallback(method), ..self }
    }
}

/// What handlers share.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    store: Store,
    configuration: Arc<Configuration>,
    receivers: Arc<Receivers>,
    waits: Arc<Waits>,
    cluster: String,
    stopping: watch::Receiver<bool>,
    /// Permits for streams.
    streams: Arc<Semaphore>,
    routes: Vec<(&'static str, &'static str)>,
}

impl Inner {
    /// A configuration object as one that may be read or not.
    fn config_object(&self, key: &ConfigKey) -> ObjectKey {
        ObjectKey {
            cluster: self.cluster.clone(),
            group: belfry_api::GROUP.to_owned(),
            kind: key.kind.as_str().to_owned(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }
}

impl std::ops::Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl FromRef<Shared> for wait::Desk {
    fn from_ref(shared: &Shared) -> Self {
        Self { waits: shared.waits.clone(), stop: shared.stopping.clone() }
    }
}

impl FromRef<Shared> for Store {
    fn from_ref(shared: &Shared) -> Self {
        shared.store.clone()
    }
}

/// By whom a request was sent, to ask again for as long as its answer goes on.
#[derive(Clone)]
struct Session {
    api: Api,
    /// Without its body.
    request: Arc<WholeRequest>,
}

impl Session {
    fn new(api: Api, request: &WholeRequest) -> Self {
        let mut head = WholeRequest::default();
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        if let Some(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            head.extensions_mut().insert(*peer);
        }
        Self { api, request: Arc::new(head) }
    }

    /// Who it is now.
    async fn caller(&self) -> Result<Caller, Problem> {
        Ok(self.api.access.caller(&self.request).await?)
    }
}
