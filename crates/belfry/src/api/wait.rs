//! `GET /api/v1/wait`: one verdict, once it is final or the time is up, or every step on the way there.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use belfry_core::{
    ObjectKey, Time, duration,
    verdict::{Answer, OnFailure, OnSuperseded, Question, Selector, Verdict},
};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::{sync::watch, time::Instant};

use super::{Caller, Problem, any, bad_request, point};
use crate::{
    dispatcher::now,
    expected_set::{Sees, Unanswered},
    server::stopped,
    waits::Waits,
};

const TIMEOUT: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(3600);
/// A stream that is silent for longer looks dead to proxies.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Bytes of a revision.
const REVISION: usize = 256;
/// Objects that one question names.
const OBJECTS: usize = 100;

/// What waits are made of.
#[derive(Clone)]
pub(super) struct Desk {
    pub waits: Arc<Waits>,
    pub stop: watch::Receiver<bool>,
}

/// The query, read.
#[derive(Debug)]
struct Asked {
    question: Question,
    timeout: Duration,
    /// What nothing goes to isn't waited for.
    unknown_fails: bool,
}

/// An answer, and whether waiting ended before it was final.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "WaitAnswer")]
pub(super) struct Told<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    timed_out: bool,
}

/// One step of a wait.
struct Step {
    answer: Arc<Answer>,
    /// It is the last one.
    ends: bool,
    timed_out: bool,
}

pub(super) async fn wait(
    State(Desk { waits, stop }): State<Desk>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = read(query.as_deref().unwrap_or_default(), now()).map_err(bad_request)?;
    let sees = sees(&caller);
    // What the asker may not see looks like nothing at all; but who asks for that by name is told so.
    for selector in &asked.question.objects {
        forbid(&waits, &caller, &asked.question, selector).await?;
    }
    let steps = steps(&waits, stop, asked, sees).await?;
    let streams = headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept.to_str().is_ok_and(|accept| accept.split(',').any(|kind| kind.trim().starts_with("text/event-stream")))
    });
    if streams {
        let events = steps.map(|step| Ok::<_, Infallible>(event(&step)));
        let stream = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
        // As for nginx: or it would keep the steps to itself.
        return Ok(([("x-accel-buffering", "no")], stream).into_response());
    }
    let mut steps = std::pin::pin!(steps);
    while let Some(step) = steps.next().await {
        if step.ends {
            return Ok(Json(Told { answer: &step.answer, timed_out: step.timed_out }).into_response());
        }
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping; ask again"))
}

fn event(step: &Step) -> Event {
    let told = Told { answer: &step.answer, timed_out: step.timed_out };
    let name = if step.ends { "verdict" } else { "answer" };
    let event = Event::default().event(name);
    // An answer is made of nothing that has no JSON.
    serde_json::to_string(&told)
        .map_or_else(|error| Event::default().event("error").data(error.to_string()), |data| event.data(data))
}

fn sees(caller: &Caller) -> Sees {
    let caller = caller.clone();
    Arc::new(move |object: &ObjectKey| {
        let (caller, object) = (caller.clone(), object.clone());
        async move { caller.may_read(&object).await.map_err(|problem| problem.detail) }.boxed()
    })
}

async fn forbid(waits: &Waits, caller: &Caller, question: &Question, selector: &Selector) -> Result<(), Problem> {
    let Some(object) = waits.object(question, selector) else { return Ok(()) };
    if caller.may_read(&object).await? {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, format!("object: {object} may not be read with these credentials")))
}

fn problem(error: Unanswered) -> Problem {
    let status = match error {
        Unanswered::TooWide => StatusCode::BAD_REQUEST,
        Unanswered::Store(_) | Unanswered::Permission(_) | Unanswered::Full => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

/// Everything there is to tell, up to the verdict, or to the end of the time. Ends without one when the process stops.
async fn steps(
    waits: &Arc<Waits>,
    stop: watch::Receiver<bool>,
    asked: Asked,
    sees: Sees,
) -> Result<impl Stream<Item = Step> + Send + use<>, Problem> {
    struct Under<S> {
        answers: S,
        stop: watch::Receiver<bool>,
        deadline: Instant,
        last: Option<Arc<Answer>>,
        over: bool,
    }
    let unknown_fails = asked.unknown_fails;
    // Before anything is promised it is known whether there is an answer at all.
    let answers = Box::pin(waits.ask_now(asked.question, sees).await.map_err(problem)?);
    let deadline = Instant::now() + asked.timeout;
    let under = Under { answers, stop, deadline, last: None, over: false };
    Ok(stream::unfold(under, move |mut under| async move {
        if under.over {
            return None;
        }
        let step = tokio::select! {
            biased;
            answer = under.answers.next() => {
                let answer = answer?;
                let ends = answer.verdict.is_final() || (unknown_fails && answer.verdict == Verdict::Unknown);
                Step { answer, ends, timed_out: false }
            }
            () = stopped(&mut under.stop) => return None,
            () = tokio::time::sleep_until(under.deadline), if under.last.is_some() => {
                Step { answer: under.last.clone()?, ends: true, timed_out: true }
            }
        };
        under.last = Some(step.answer.clone());
        under.over = step.ends;
        Some((step, under))
    }))
}

fn read(query: &str, now: Time) -> Result<Asked, String> {
    let mut question = Question { asked: now, ..Question::default() };
    let (mut timeout, mut unknown_fails) = (TIMEOUT, false);
    let (mut waits_on_failure, mut grace) = (false, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let value = value.trim();
        let span =
            || duration::parse(value).map_err(|_| format!("{name}: {value:?} is not a duration such as 1h30m or 90s"));
        match &*name {
            "revision" => value.clone_into(&mut question.revision),
            "object" => question.objects.push(selector(value)?),
            "cluster" => question.cluster = Some(value.to_owned()),
            "timeout" => timeout = span()?,
            "on-failure" => waits_on_failure = one_of(&name, value, [("fail", false), ("wait", true)])?,
            "failure-grace" => grace = Some(span()?),
            "on-superseded" => {
                let words =
                    [("fail", OnSuperseded::Fail), ("succeed", OnSuperseded::Succeed), ("wait", OnSuperseded::Wait)];
                question.on_superseded = one_of(&name, value, words)?;
            }
            "not-before" => question.not_before = Some(point(&name, value, now)?),
            "asked" => question.asked = point(&name, value, now)?.min(now).max(now.before(LONGEST)),
            "unknown" => unknown_fails = one_of(&name, value, [("fail", true), ("wait", false)])?,
            _ => {
                return Err(format!(
                    "{name}: no such parameter; there are revision, object, cluster, timeout, on-failure, failure-grace, \
                     on-superseded, not-before, asked and unknown"
                ));
            }
        }
    }
    match question.revision.len() {
        0 => {
            return Err(
                "revision: which one? A commit hash of at least 7 digits, main@sha1:…, a chart version, …".into()
            );
        }
        length if length > REVISION => return Err(format!("revision: longer than {REVISION} bytes")),
        _ => {}
    }
    if question.objects.len() > OBJECTS {
        return Err(format!("object: more than {OBJECTS} are named"));
    }
    if timeout > LONGEST {
        return Err("timeout: at most 1h; ask again for longer".into());
    }
    question.on_failure = match (waits_on_failure, grace) {
        (true, Some(_)) => return Err("failure-grace: makes sense with on-failure=fail only".into()),
        (true, None) => OnFailure::Wait,
        (false, grace) => OnFailure::Fail { grace: grace.unwrap_or_default() },
    };
    Ok(Asked { question, timeout, unknown_fails })
}

/// `Kind/namespace/name`, each of them possibly `*`.
fn selector(value: &str) -> Result<Selector, String> {
    match value.split('/').collect::<Vec<_>>()[..] {
        [kind, namespace, name] if ![kind, namespace, name].contains(&"") => {
            Ok(Selector { kind: any(kind), namespace: any(namespace), name: any(name) })
        }
        _ => Err(format!("object: {value:?} is not KIND/NAMESPACE/NAME")),
    }
}

fn one_of<T: Copy, const N: usize>(name: &str, value: &str, words: [(&str, T); N]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
    found.ok_or_else(|| format!("{name}: {value:?} is none of {}", words.map(|(word, _)| word).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_is_wrong_with_it() {
        for (query, expected) in [
            ("", "revision: which one? A commit hash of at least 7 digits, main@sha1:…, a chart version, …"),
            (
                "revision=%20",
                "revision: which one? A commit hash of at least 7 digits, main@sha1:…, a chart version, …",
            ),
            ("revision=a&object=Kustomization/a", "object: \"Kustomization/a\" is not KIND/NAMESPACE/NAME"),
            ("revision=a&object=/a/b", "object: \"/a/b\" is not KIND/NAMESPACE/NAME"),
            ("revision=a&timeout=2h", "timeout: at most 1h; ask again for longer"),
            ("revision=a&timeout=soon", "timeout: \"soon\" is not a duration such as 1h30m or 90s"),
            ("revision=a&on-failure=ignore", "on-failure: \"ignore\" is none of fail, wait"),
            ("revision=a&on-superseded=x", "on-superseded: \"x\" is none of fail, succeed, wait"),
            ("revision=a&on-failure=wait&failure-grace=1s", "failure-grace: makes sense with on-failure=fail only"),
            ("revision=a&unknown=1", "unknown: \"1\" is none of fail, wait"),
            (
                "revision=a&not-before=monday",
                "not-before: \"monday\" is neither an RFC 3339 time nor a duration such as 1h30m",
            ),
        ] {
            assert_eq!(read(query, Time(0)).unwrap_err(), expected, "{query}");
        }
        assert!(read("revision=a&colour=red", Time(0)).unwrap_err().starts_with("colour: no such parameter"));
        assert!(read(&format!("revision={}", "a".repeat(257)), Time(0)).is_err());
    }

    #[test]
    fn a_query_is_read_whole() {
        let query = "revision=main%40sha1%3Aabc&object=Kustomization/apps/web&object=HelmRelease/*/shop&cluster=prod&timeout=90s\
                     &failure-grace=30s&on-superseded=wait&not-before=1h&unknown=fail";
        let now = Time(7_200_000_000);
        let Asked { question, timeout, unknown_fails } = read(query, now).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let expected = Question {
            revision: "main@sha1:abc".into(),
            objects: vec![
                Selector { kind: some("Kustomization"), namespace: some("apps"), name: some("web") },
                Selector { kind: some("HelmRelease"), namespace: None, name: some("shop") },
            ],
            cluster: some("prod"),
            on_failure: OnFailure::Fail { grace: Duration::from_secs(30) },
            on_superseded: OnSuperseded::Wait,
            not_before: Some(Time(3_600_000_000)),
            asked: now,
        };
        assert_eq!(question, expected);
        assert_eq!((timeout, unknown_fails), (Duration::from_secs(90), true));
    }
}
