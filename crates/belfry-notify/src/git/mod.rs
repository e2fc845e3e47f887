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
pub(crate) mod commit_status;
pub(crate) mod context;
mod event;
pub(crate) mod gitea;
pub(crate) mod github;
pub(crate) mod gitlab;
pub(crate) mod hosts;
mod list;
pub(crate) mod repository;
mod statuses;
mod table;
mod verdict;

use belfry_core::go_json;
use belfry_http::{HeaderMap, Method, Request, Response, Url, header};
use serde::Serialize;
use serde_json::Value;

use crate::protocol::{Unsent, Verdict};

/// What a commit is told about one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Where it leads.
    pub(crate) link: Option<String>,
    /// Who asks for it.
    pub(crate) origin: Origin,
}

/// Who asks for a status, which decides about its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An Alert: everything is as with the peer.
    Alert,
    /// A CommitStatus: the id is a context that people read.
    CommitStatus,
}

/// How much of a status must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// State and description.
    Whole,
    /// The state: what decides about merging. A host may keep a description otherwise than it was given.
    State,
}

impl Match {
    /// Whether what is there says `word`, which stands at `at`, and as much as is asked for.
    fn with(self, there: &Value, at: &str, word: &str, status: &Status) -> bool {
        let described = || list::text(there, "/description") == status.description;
        list::text(there, at) == word && (self == Self::State || described())
    }
}

/// A git host that takes statuses of the commits of one repository.
pub(crate) trait GitHost: Send + Sync {
    /// The status as this host would keep it: no text beyond its limits.
    fn fitted(&self, status: Status) -> Status {
        status
    }

    /// Asks for the statuses that a commit has under an id, but for the first `skip`, of which it is known that they
    /// are others.
    fn read(&self, status: &Status, skip: usize) -> Result<Request, Unsent>;

    /// Whether the answer to that shows this very status.
    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool;

    /// How many to skip next, when the answer may have ended before the status. The newest come first elsewhere: what
    /// isn't there is old, and may as well be written anew.
    fn further(&self, _answer: &Response, _status: &Status, _skipped: usize) -> Option<usize> {
        None
    }

    /// Writes a status.
    fn post(&self, status: &Status) -> Result<Request, Unsent>;

    /// The state to write instead, when the answer says that the host has no word for this one.
    fn instead(&self, _answer: &Response, _status: &Status) -> Option<State> {
        None
    }

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
pub(crate) mod tests {
    use super::*;

    /// A status as a CommitStatus has it.
    pub(crate) fn status(id: &str) -> Status {
        Status {
            sha: "5394cb7f48332b2de7c17dd8b8384bbc84b7e738".into(),
            id: id.into(),
            state: State::Success,
            name: id.into(),
            description: "applied".into(),
            summary: None,
            link: None,
            origin: Origin::CommitStatus,
        }
    }

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
