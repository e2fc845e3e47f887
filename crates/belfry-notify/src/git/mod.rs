//! Git hosts. A host is a pure pair again, requests and what their answers mean, one file each; the steps between (who
//! am I, what is there, is it the same, then write) stand once, in [`statuses`] and [`comments`].
//!
//! An answer is read up to a bound (`belfry_core::limits::ANSWER_READ`), so lists are read as far as they came: see
//! [`list`].

mod address;
mod app;
mod auth;
pub(crate) mod azuredevops;
pub(crate) mod bitbucket;
pub(crate) mod bitbucketserver;
mod comments;
mod event;
pub(crate) mod gitea;
pub(crate) mod github;
pub(crate) mod gitlab;
mod list;
mod statuses;
mod verdict;

use belfry_core::go_json;
use belfry_http::{HeaderMap, Method, Request, Response, Url, header};
use serde::Serialize;

use crate::protocol::{Unsent, Verdict};

/// What a commit is told about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "an Alert's events never end with the commit's replacement"))]
pub(crate) enum State {
    /// It is under way.
    Pending,
    /// It is live.
    Success,
    /// It failed.
    Failure,
    /// A newer commit took its place before it was live.
    Superseded,
}

/// A commit's status, in no host's words yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// The commit: 40 hex digits.
    pub(crate) sha: String,
    /// Tells it from other statuses of the commit.
    pub(crate) id: String,
    /// The state.
    pub(crate) state: State,
    /// The object, for people: `kustomization/app`.
    pub(crate) name: String,
    /// What happened, for people.
    pub(crate) description: String,
    /// What the metadata calls a summary, for hosts that show statuses in groups.
    pub(crate) summary: Option<String>,
}

/// A git host that takes statuses of the commits of one repository.
pub(crate) trait GitHost: Send + Sync {
    /// The status as this host would keep it: no text beyond its limits.
    fn fitted(&self, status: Status) -> Status {
        status
    }

    /// Asks for the statuses that a commit has under an id.
    fn read(&self, status: &Status) -> Result<Request, Unsent>;

    /// Whether the answer to that shows this very status.
    fn shows(&self, answer: &Response, status: &Status) -> bool;

    /// Writes a status.
    fn post(&self, status: &Status) -> Result<Request, Unsent>;

    /// What the answer to either means; `status` is what was to be written.
    fn classify(&self, step: Step, answer: &Response, status: &Status) -> Verdict;
}

/// Which of its requests a host has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The one that reads.
    Read,
    /// The one that writes.
    Post,
}

/// A request without a body.
fn get(url: &str, headers: &HeaderMap) -> Result<Request, Unsent> {
    let url: Url = url.parse().map_err(|_| Unsent::Reject("the event doesn't fit into a URL".into()))?;
    Ok(Request { method: Method::GET, url, headers: headers.clone(), body: Vec::new().into() })
}

/// A request with a body of JSON as Go writes it.
fn with_json<T: Serialize>(method: Method, url: &str, headers: &HeaderMap, body: &T) -> Result<Request, Unsent> {
    with_bytes(method, url, headers, go_json::to_vec(body))
}

/// A request with a body that is JSON.
fn with_bytes(method: Method, url: &str, headers: &HeaderMap, body: Vec<u8>) -> Result<Request, Unsent> {
    let mut request = Request { method, body: body.into(), ..get(url, headers)? };
    let json = header::HeaderValue::from_static("application/json");
    request.headers.entry(header::CONTENT_TYPE).or_insert(json);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_its_words() {
        let words = |word: fn(State) -> &'static str| {
            [State::Pending, State::Success, State::Failure, State::Superseded].map(word).join(" ")
        };
        assert_eq!(words(github::word), "pending success failure error");
        assert_eq!(words(gitlab::word), "pending success failed canceled");
        assert_eq!(words(gitea::word), "pending success failure warning");
        assert_eq!(words(bitbucket::word), "INPROGRESS SUCCESSFUL FAILED STOPPED");
        assert_eq!(words(bitbucketserver::word), "INPROGRESS SUCCESSFUL FAILED CANCELLED");
        assert_eq!(words(azuredevops::word), "pending succeeded error notApplicable");
    }
}
