//! `POST /events`: events from elsewhere, by the credential of the cluster that they are of.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::Problem;
use crate::{
    access::Access,
    intake::{Intake, Taken, Way},
    server::{WholeRequest, empty},
};

pub(super) async fn post(access: &Access, intake: &Intake, request: WholeRequest) -> Response {
    let sender = match access.sender(&request).await {
        Ok(sender) => sender,
        Err(denied) => return denied.into_response(),
    };
    let (identity, passed) = match sender.says(&request) {
        Ok(said) => said,
        Err(why) => return Problem::new(StatusCode::BAD_REQUEST, why).into_response(),
    };
    match intake.take(request, Way::Api { cluster: &sender.cluster, identity, passed: &passed }).await {
        // Who posts here would try again after 429, and complain.
        Taken::Stored | Taken::Repeat(_) => empty(StatusCode::ACCEPTED),
        Taken::Invalid(why) => Problem::new(StatusCode::BAD_REQUEST, why).into_response(),
        Taken::Ring(why) => Problem::new(StatusCode::CONFLICT, why).into_response(),
        Taken::Busy => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no events can be stored now; try again");
            let mut response = problem.into_response();
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
    }
}
