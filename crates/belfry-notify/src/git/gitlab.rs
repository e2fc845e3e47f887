//! `gitlab`, `gitlabmergerequestcomment`: GitLab, gitlab.com or self-managed.

use belfry_http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::{
    GitHost, Match, Origin, State, Status, Step,
    address::Address,
    auth::Auth,
    comments::{Comment, CommentHost, Comments},
    get,
    list::{List, Page, text},
    statuses::Statuses,
    verdict::judge,
    with_json,
};
use crate::{
    Misconfigured,
    classify::said,
    line::Conversation,
    protocol::{Unsent, Verdict},
    settings::Resolved,
    text::{bounded_id, cut_words, path_escape, query_escape},
};

/// Characters of a description and of a name (GitLab answers 400 "is too long (maximum is 255 characters)").
pub(super) const TEXT: usize = 255;

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// One project.
struct GitLab {
    /// The API's address.
    api: String,
    /// The API's address up to the project.
    project: String,
}

impl GitLab {
    fn new(resolved: &Resolved<'_>) -> Result<(Self, Auth), Misconfigured> {
        Ok((Self::at(&Address::of(resolved)?), auth(resolved)?))
    }

    fn at(address: &Address) -> Self {
        let api = format!("{}/api/v4", address.server());
        // A whole path with its groups, or a number.
        let project = format!("{api}/projects/{}", path_escape(&address.path));
        Self { api, project }
    }
}

pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    Ok(Box::new(GitLab::at(address)))
}

pub(super) fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
    Auth::private(resolved, PRIVATE_TOKEN)
}

fn headers() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))])
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = GitLab::new(resolved)?;
    Statuses::open(resolved, host, auth, false)
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Success => "success",
        State::Failure => "failed",
        State::Superseded => "canceled",
    }
}

impl GitHost for GitLab {
    fn fitted(&self, status: Status) -> Status {
        Status {
            description: cut_words(&status.description, TEXT).into_owned(),
            id: bounded_id(&status.id, TEXT).into_owned(),
            ..status
        }
    }

    fn read(&self, status: &Status, _: usize) -> Result<Request, Unsent> {
        let name = query_escape(&status.id);
        get(&format!("{}/repository/commits/{}/statuses?name={name}", self.project, status.sha), &headers())
    }

    /// GitLab lists one status of each name and reference, the newest. For an Alert any of them counts, as with the peer.
    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let list = List::read(answer);
        let ours = |item: &Value| text(item, "/sha") == status.sha && text(item, "/name") == status.id;
        let same = |there: &Value| matching.with(there, "/status", word(status.state), status);
        match status.origin {
            Origin::Alert => list.items.iter().any(|there| ours(there) && same(there)),
            // The description of what is under way can't be changed (see `classify`), nor can it be less under way.
            Origin::CommitStatus => list.newest(ours).is_some_and(|there| {
                same(there)
                    || (status.state == State::Pending && matches!(text(there, "/status"), "pending" | "running"))
            }),
        }
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Body<'a> {
            state: &'a str,
            name: &'a str,
            description: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            target_url: Option<&'a str>,
        }
        let (state, target_url) = (word(status.state), status.link.as_deref());
        let body = Body { state, name: &status.id, description: &status.description, target_url };
        with_json(Method::POST, &format!("{}/statuses/{}", self.project, status.sha), &headers(), &body)
    }

    fn classify(&self, _: Step, answer: &Response, status: &Status) -> Verdict {
        let text = said(answer);
        match answer.status {
            StatusCode::BAD_REQUEST if text.contains("Cannot transition status") => {
                let at = stuck_at(&text);
                // What is under way can't be begun again: to be pending is as good as to run.
                let under_way = status.state == State::Pending && matches!(at, Some("pending" | "running"));
                if at == Some(word(status.state)) || under_way {
                    Verdict::Taken
                } else {
                    Verdict::Rejected(format!("GitLab allows no way from the status it has to the new one: {text}"))
                }
            }
            StatusCode::NOT_FOUND
                if ["Commit Not Found", "commit Not Found"].iter().any(|what| text.contains(what)) =>
            {
                Verdict::Rejected(format!("the project has no commit {}, or no branch with it: {text}", status.sha))
            }
            _ => judge(answer),
        }
    }
}

/// The state in `Cannot transition status via :run from :running (…)`.
fn stuck_at(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once(" from :")?;
    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

pub(crate) fn open_comments(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = GitLab::new(resolved)?;
    Comments::open(resolved, host, auth, "flux-mr-comment-key")
}

impl GitLab {
    fn notes(&self, number: u64) -> String {
        format!("{}/merge_requests/{number}/notes", self.project)
    }
}

impl CommentHost for GitLab {
    fn whoami(&self) -> Result<Request, Unsent> {
        get(&format!("{}/user", self.api), &headers())
    }

    fn me(&self, about: &Value) -> String {
        text(about, "/username").to_owned()
    }

    fn list(&self, number: u64, page: Page) -> Result<Request, Unsent> {
        let at = if page == Page::FIRST { String::new() } else { format!("&page={}", page.number) };
        let (notes, size) = (self.notes(number), page.size);
        get(&format!("{notes}?order_by=created_at{at}&per_page={size}&sort=asc"), &headers())
    }

    fn comment(&self, item: &Value) -> Option<Comment> {
        Comment::read(item, "/author/username")
    }

    fn read(&self, number: u64, id: u64) -> Result<Request, Unsent> {
        get(&format!("{}/{id}", self.notes(number)), &headers())
    }

    fn create(&self, number: u64, body: &Value) -> Result<Request, Unsent> {
        with_json(Method::POST, &self.notes(number), &headers(), body)
    }

    fn edit(&self, number: u64, id: u64, body: &Value) -> Result<Request, Unsent> {
        with_json(Method::PUT, &format!("{}/{id}", self.notes(number)), &headers(), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_that_a_status_is_stuck_at() {
        let said = r#"{"message":"Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}"#;
        assert_eq!(stuck_at(said), Some("pending"));
        assert_eq!(stuck_at("Cannot transition status"), None);
    }
}
