//! The fake host: one server that speaks every API, what it keeps, and the trouble that it is told to make.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use crate::{apps, forges, tls};

/// A status of a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub sha: String,
    pub id: String,
    pub state: String,
    pub description: String,
    pub name: String,
    pub genre: String,
}

/// A comment on request 42.
#[derive(Clone, Debug, PartialEq)]
pub struct Remark {
    pub id: u64,
    pub author: String,
    pub body: String,
}

/// What the next request with this method gets instead of its answer.
pub struct Trouble {
    pub method: Method,
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    /// It is done all the same, and nobody is told in time.
    pub done_late: bool,
    /// It isn't done yet either: it is still on its way when the next one is.
    pub held: bool,
}

/// Everything that it knows.
#[derive(Default)]
pub struct World {
    /// Method, path and query of every request.
    pub log: Vec<String>,
    /// Oldest first.
    pub statuses: Vec<Kept>,
    pub comments: Vec<Remark>,
    pub trouble: VecDeque<Trouble>,
    /// Requests that are on their way, and arrive right behind the next one that writes.
    pub held: Vec<Call>,
    pub app: apps::App,
    pub next: u64,
}

impl World {
    pub fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Requests by what their lines begin with.
    pub fn count(&self, start: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(start)).count()
    }
}

/// One request.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    }

    /// With the slashes that it stands for.
    pub fn unescaped(&self, name: &str) -> String {
        self.query(name).unwrap_or_default().replace("%2F", "/")
    }

    pub fn number(&self, name: &str, otherwise: usize) -> usize {
        self.query(name).map_or(otherwise, |value| value.parse().unwrap())
    }

    pub fn text(&self, key: &str) -> String {
        self.body[key].as_str().unwrap_or_default().to_owned()
    }
}

/// JSON with a status.
pub fn answer(status: u16, body: Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::from_u16(status).unwrap(), json, body.to_string()).into_response()
}

/// A page of a list, with a link to the next one.
pub fn page(call: &Call, items: Vec<Value>, size: usize) -> Response {
    let at = call.number("page", 1);
    let shown: Vec<Value> = items.iter().skip((at - 1) * size).take(size).cloned().collect();
    let mut response = answer(200, shown.into());
    if items.len() > at * size {
        let link = HeaderValue::from_str(&format!("<http://host{}?page={}>; rel=\"next\"", call.path, at + 1)).unwrap();
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

#[derive(Clone, Default)]
pub struct Host(Arc<Mutex<World>>);

impl Host {
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn router(&self) -> Router {
        Router::new().fallback(handle).with_state(self.clone())
    }

    pub async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    }

    /// The same over TLS; with the certificate to trust.
    pub async fn serve_tls(&self) -> (SocketAddr, String) {
        let (listener, at, certificate) = tls::listen().await;
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (at, certificate)
    }

    /// Makes trouble for the next request with this method.
    pub fn trouble(&self, method: Method, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let trouble = Trouble { method, status, headers, body: body.into(), done_late: false, held: false };
        self.world().trouble.push_back(trouble);
    }

    /// The next request that writes is late: whoever sent it doesn't wait so long.
    pub fn hold(&self) {
        let trouble = Trouble {
            method: Method::POST,
            status: 504,
            headers: vec![],
            body: "".into(),
            done_late: false,
            held: true,
        };
        self.world().trouble.push_back(trouble);
    }

    /// The states of all statuses, oldest first.
    pub fn states(&self) -> Vec<String> {
        self.world().statuses.iter().map(|status| status.state.clone()).collect()
    }
}

async fn handle(State(host): State<Host>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let call = Call { method, path: uri.path().to_owned(), uri, headers, body };
    let trouble = {
        let mut world = host.world();
        world.log.push(format!("{} {}", call.method, call.uri));
        match world.trouble.front() {
            Some(trouble) if trouble.method == call.method => world.trouble.pop_front(),
            _ => None,
        }
    };
    let Some(trouble) = trouble else {
        let world = &mut host.world();
        let answer = forges::answer_to(&call, world);
        if call.method == Method::POST {
            for late in std::mem::take(&mut world.held) {
                forges::answer_to(&late, world);
            }
        }
        return answer;
    };
    if trouble.held {
        host.world().held.push(call);
        tokio::time::sleep(Duration::from_secs(60)).await;
        return answer(504, Value::Null);
    }
    if trouble.done_late {
        forges::answer_to(&call, &mut host.world());
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let mut response = (StatusCode::from_u16(trouble.status).unwrap(), trouble.body).into_response();
    for (name, value) in trouble.headers {
        response.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
    }
    response
}
