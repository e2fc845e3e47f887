//! What git hosts' answers have in common: limits on requests, and conflicts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belfry_http::{Response, StatusCode};

use crate::{
    classify::{by_status, said},
    line::Stop,
    protocol::Verdict,
};

/// The wait where a host says that there were too many requests and not for how long
/// (docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api, "at least one minute").
const AT_LEAST: Duration = Duration::from_secs(60);
/// Below this a time is a number of seconds to wait, above it a time of day.
const TIME_OF_DAY: u64 = 1_000_000_000;

/// By the status, but that a conflict passes, and that a limit on requests isn't a lack of rights.
pub(crate) fn judge(answer: &Response) -> Verdict {
    match answer.status {
        StatusCode::CONFLICT => Verdict::Retry(said(answer)),
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS if is_limit(answer) => {
            Verdict::Retry(format!("limit on requests: {}", said(answer)))
        }
        _ => by_status(answer),
    }
}

/// The end of a conversation by an answer that wasn't taken.
pub(crate) fn stop(answer: Response, verdict: Verdict, now: SystemTime) -> Stop {
    let wait = match verdict {
        Verdict::Retry(_) => wait(&answer, now),
        _ => None,
    };
    Stop::Answered(answer.into(), verdict, wait)
}

/// Goes on only with an answer that was taken.
pub(crate) fn taken(answer: Response, verdict: Verdict, now: SystemTime) -> Result<Response, Stop> {
    if verdict == Verdict::Taken { Ok(answer) } else { Err(stop(answer, verdict, now)) }
}

/// Whether a refusal is one for too many requests. GitHub says 403 for that too, and of its secondary limit not even a
/// header may tell.
fn is_limit(answer: &Response) -> bool {
    answer.status == StatusCode::TOO_MANY_REQUESTS
        || answer.retry_after.is_some()
        || number(answer, REMAINING) == Some(0)
        || said(answer).to_lowercase().contains("secondary rate limit")
}

const REMAINING: [&str; 2] = ["x-ratelimit-remaining", "ratelimit-remaining"];
const RESET: [&str; 2] = ["x-ratelimit-reset", "ratelimit-reset"];

/// How long a host that had too many requests asks to be left alone: `Retry-After`, or the time when its limit is reset
/// (GitHub `x-ratelimit-reset`, GitLab `RateLimit-Reset`).
fn wait(answer: &Response, now: SystemTime) -> Option<Duration> {
    if answer.retry_after.is_some() {
        return answer.retry_after;
    }
    if !matches!(answer.status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let spent = number(answer, REMAINING).is_none_or(|left| left == 0);
    match number(answer, RESET).filter(|_| spent) {
        Some(at) if at >= TIME_OF_DAY => {
            let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Some(Duration::from_secs(at.saturating_sub(now).max(1)))
        }
        Some(seconds) => Some(Duration::from_secs(seconds.max(1))),
        None => (answer.status == StatusCode::FORBIDDEN).then_some(AT_LEAST),
    }
}

fn number(answer: &Response, names: [&str; 2]) -> Option<u64> {
    names.into_iter().find_map(|name| answer.headers.get(name)?.to_str().ok()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use belfry_http::{HeaderName, HeaderValue};

    use super::*;
    use crate::tests::answer;

    fn with(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Response {
        let mut answer = answer(status, body);
        for (name, value) in headers {
            answer.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        answer
    }

    #[test]
    fn limits_are_told_from_missing_rights_and_say_how_long() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let waits = |status, headers: &[(&'static str, &'static str)], body: &str| {
            let answer = with(status, headers, body);
            matches!(judge(&answer), Verdict::Retry(_)).then(|| wait(&answer, now).map(|wait| wait.as_secs()))
        };
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000090")];
        assert_eq!(waits(403, &spent, ""), Some(Some(90)));
        assert_eq!(waits(429, &spent, ""), Some(Some(90)));
        assert_eq!(waits(403, &[("x-ratelimit-remaining", "12"), ("x-ratelimit-reset", "1700000090")], "no"), None);
        assert_eq!(waits(403, &[], r#"{"message":"You have exceeded a secondary rate limit."}"#), Some(Some(60)));
        assert_eq!(waits(429, &[("ratelimit-reset", "1700000030")], ""), Some(Some(30)));
        assert_eq!(waits(429, &[("ratelimit-reset", "1699999999")], ""), Some(Some(1)));
        assert_eq!(waits(429, &[("ratelimit-reset", "17")], ""), Some(Some(17)));
        assert_eq!(waits(429, &[], ""), Some(None));
        assert_eq!(waits(409, &[], ""), Some(None));
        assert_eq!(waits(502, &spent, ""), Some(None));
        let mut asked = with(403, &[], "");
        asked.retry_after = Some(Duration::from_secs(7));
        assert!(matches!(judge(&asked), Verdict::Retry(_)));
        assert_eq!(wait(&asked, now), Some(Duration::from_secs(7)));
        assert!(matches!(judge(&with(403, &[], "Resource not accessible")), Verdict::Misconfigured(_)));
    }
}
