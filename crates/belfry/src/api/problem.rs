//! What the API says when it can't answer.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use belfry_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

/// An error as RFC 9457 has it, reduced to what our clients read.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    pub(super) detail: String,
    parameter: Option<String>,
}

/// A problem on the wire, as `application/problem+json`.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document {
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong, for people.
    detail: String,
    /// The parameter or header that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<String>,
}

impl Problem {
    /// A problem of this kind, and what is wrong in particular.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), parameter: None }
    }

    /// A parameter is wrong. Says why, which includes what is allowed.
    pub(super) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, detail: format!("{name}: {why}"), parameter: Some(name.to_owned()) }
    }

    /// There is no such thing; or none that the caller may know of, which is told alike.
    pub(super) fn missing(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {id}"))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, parameter } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let body = Json(Document { title, status: status.as_u16(), detail, parameter });
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
