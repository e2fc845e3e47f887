//! One file a provider type. What a destination limits stands in its file, with where that is documented; what is
//! longer is cut with an ellipsis, and what isn't is sent byte for byte as the peer sends it.

pub(crate) mod alertmanager;
pub(crate) mod belfry;
pub(crate) mod cdevents;
pub(crate) mod datadog;
pub(crate) mod discord;
pub(crate) mod generic;
pub(crate) mod googlechat;
pub(crate) mod grafana;
pub(crate) mod incidentio;
pub(crate) mod lark;
pub(crate) mod matrix;
pub(crate) mod msteams;
pub(crate) mod opsgenie;
pub(crate) mod otel;
pub(crate) mod pagerduty;
pub(crate) mod rocket;
pub(crate) mod sentry;
pub(crate) mod slack;
pub(crate) mod telegram;
pub(crate) mod webex;
pub(crate) mod zoom;
pub(crate) mod zulip;

use belfry_core::go_json;
use belfry_http::{HeaderValue, Request, Url, header};
use serde::Serialize;

const JSON: &str = "application/json";

/// A POST of JSON as Go writes it.
fn post<T: Serialize>(url: &Url, body: &T) -> Request {
    post_bytes(url, go_json::to_vec(body))
}

/// A POST of bytes that are JSON.
fn post_bytes(url: &Url, body: Vec<u8>) -> Request {
    Request::post(url.clone(), JSON, body)
}

/// The request with this authorization, if there is one.
fn authorized(mut request: Request, authorization: Option<&HeaderValue>) -> Request {
    if let Some(value) = authorization {
        request.headers.insert(header::AUTHORIZATION, value.clone());
    }
    request
}

/// Whether an event counts as an error: everything else, known or not, is good news.
fn is_error(event: &belfry_api::Event) -> bool {
    event.severity == "error"
}
