//! What answers mean, unless a provider knows better.

use belfry_core::notification::{Failure, Outcome};
use belfry_http::{Error, ErrorKind, Response, StatusCode};

use crate::{protocol::Verdict, secrecy::Secrecy};

/// By the status alone.
pub(crate) fn by_status(answer: &Response) -> Verdict {
    let said = said(answer);
    match answer.status {
        status if status.is_success() => Verdict::Taken,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Verdict::Retry(said),
        StatusCode::NOT_IMPLEMENTED => Verdict::Rejected(said),
        status if status.is_server_error() => Verdict::Retry(said),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED => Verdict::Misconfigured(said),
        status if status.is_redirection() => {
            Verdict::Rejected(format!("the redirect was not followed, put the final address into the Provider {said}"))
        }
        _ => Verdict::Rejected(said),
    }
}

/// The body as text.
pub(crate) fn said(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The outcome for an answer and what it means.
pub(crate) fn answered(answer: &Response, verdict: Verdict, secrecy: &Secrecy) -> Outcome {
    let failure = |said: &str| {
        let status = answer.status;
        let said = secrecy.excerpt(said);
        let error = if said.is_empty() { format!("answered {status}") } else { format!("answered {status}: {said}") };
        // Behind a gateway that failed, or an answer that broke off, the request may have been acted on.
        let unknown = !answer.complete || (status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE);
        Failure { status: Some(status.as_u16()), retry_after: answer.retry_after, unknown, ..Failure::new(error) }
    };
    match verdict {
        Verdict::Taken => Outcome::Delivered,
        Verdict::Retry(said) => Outcome::Retry(failure(&said)),
        Verdict::Misconfigured(said) => Outcome::Misconfigured(failure(&said)),
        Verdict::Rejected(said) | Verdict::Full(said) => {
            Outcome::Rejected(Failure { unknown: false, ..failure(&said) })
        }
    }
}

/// The outcome when there is no answer.
pub(crate) fn unanswered(error: &Error, secrecy: &Secrecy) -> Outcome {
    let failure = Failure { unknown: error.unknown(), ..Failure::new(secrecy.mask(&error.to_string())) };
    match error.kind {
        ErrorKind::BadUrl | ErrorKind::Refused | ErrorKind::Tls => Outcome::Misconfigured(failure),
        ErrorKind::Dns | ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Closed => Outcome::Retry(failure),
    }
}
