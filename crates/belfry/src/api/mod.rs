//! The API port: events, objects, rollouts, deliveries and Receivers as JSON, events as they come, and redelivery.

mod caller;
mod deliveries;
mod events;
mod explain;
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
use http::{StatusCode, Uri, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

pub use caller::Caller;
use parameters::{any, bad_request, point};
pub use problem::Problem;

use crate::{configuration::Configuration, receivers::Receivers, server::WholeRequest, waits::Waits};

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
    /// A bearer token that opens everything.
    pub token: Option<SecretString>,
    /// Turns true when streams are to end.
    pub stopping: watch::Receiver<bool>,
}

/// The API of one process.
#[derive(Clone)]
pub struct Api {
    router: Router,
    token: Option<Arc<SecretString>>,
}

impl Api {
    /// An API over these. With a token, every request must carry it as a bearer token, but for those from this machine
    /// itself; without one, nobody else is answered.
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
        Self { router: router.with_state(shared), token: parts.token.map(Arc::new) }
    }

    /// Answers one request.
    pub async fn handle(&self, request: WholeRequest) -> Response {
        let caller = match self.authorize(&request) {
            Ok(caller) => caller,
            Err(problem) => return problem.into_response(),
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

/// Every route. Those of others are added here.
fn routes() -> Routes {
    Routes::default()
        .get("/openapi.json", openapi::show)
        .get("/events", events::of_revision)
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
        self.api.authorize(&self.request)
    }
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
