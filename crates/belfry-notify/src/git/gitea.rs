//! `gitea`, `giteapullrequestcomment`: Gitea and Forgejo.

use belfry_http::{HeaderMap, Method, Request, Response};
use serde::Serialize;
use serde_json::Value;

use super::{
    GitHost, Match, State, Status, Step,
    address::{self, Address},
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
    line::Conversation,
    protocol::{Unsent, Verdict},
    settings::Resolved,
};

/// One repository.
struct Gitea {
    /// The API's address.
    api: String,
    /// The API's address up to the repository.
    repo: String,
}

impl Gitea {
    fn new(resolved: &Resolved<'_>) -> Result<(Self, Auth), Misconfigured> {
        let address = Address::of(resolved)?;
        let host = Self::at(&address).map_err(|what| address::bad(resolved, what))?;
        Ok((host, auth(resolved)?))
    }

    fn at(address: &Address) -> Result<Self, &'static str> {
        let (owner, repo) = address.owner_and_repo()?;
        let api = format!("{}/api/v1", address.server());
        let repo = format!("{api}/repos/{owner}/{repo}");
        Ok(Self { api, repo })
    }
}

pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    Ok(Box::new(Gitea::at(address)?))
}

pub(super) fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
    Auth::token(resolved, "token")
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = Gitea::new(resolved)?;
    Statuses::open(resolved, host, auth, true)
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Superseded => "warning",
    }
}

impl GitHost for Gitea {
    fn read(&self, status: &Status, _: usize) -> Result<Request, Unsent> {
        get(&format!("{}/commits/{}/statuses?limit=50&page=1", self.repo, status.sha), &HeaderMap::new())
    }

    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let list = List::read(answer);
        let ours = list.newest(|item| text(item, "/context") == status.id);
        ours.is_some_and(|there| matching.with(there, "/status", word(status.state), status))
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Body<'a> {
            state: &'a str,
            target_url: &'a str,
            description: &'a str,
            context: &'a str,
        }
        let (state, description, context) = (word(status.state), &*status.description, &*status.id);
        let body = Body { state, target_url: status.link.as_deref().unwrap_or_default(), description, context };
        with_json(Method::POST, &format!("{}/statuses/{}", self.repo, status.sha), &HeaderMap::new(), &body)
    }

    fn classify(&self, _: Step, answer: &Response, _: &Status) -> Verdict {
        judge(answer)
    }
}

pub(crate) fn open_comments(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = Gitea::new(resolved)?;
    Comments::open(resolved, host, auth, "flux-pr-comment-key")
}

impl CommentHost for Gitea {
    fn whoami(&self) -> Result<Request, Unsent> {
        get(&format!("{}/user", self.api), &HeaderMap::new())
    }

    fn me(&self, about: &Value) -> String {
        text(about, "/login").to_owned()
    }

    /// The list of comments comes whole, whatever page is asked for. When that is too much, the timeline, which comes in
    /// pages of up to 50, holds the same comments.
    fn list(&self, number: u64, page: Page) -> Result<Request, Unsent> {
        let what = if page.size == Page::FIRST.size { "comments" } else { "timeline" };
        let Page { size, number: at } = page;
        get(&format!("{}/issues/{number}/{what}?limit={size}&page={at}", self.repo), &HeaderMap::new())
    }

    fn is_last(&self, page: Page, list: &List) -> bool {
        !list.next && (page.size == Page::FIRST.size || (list.items.len() as u64) < page.size)
    }

    fn largest_again(&self) -> u64 {
        10
    }

    fn comment(&self, item: &Value) -> Option<Comment> {
        // A timeline has other things in it.
        let other = item.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "comment");
        if other { None } else { Comment::read(item, "/user/login") }
    }

    fn read(&self, _: u64, id: u64) -> Result<Request, Unsent> {
        get(&format!("{}/issues/comments/{id}", self.repo), &HeaderMap::new())
    }

    fn create(&self, number: u64, body: &Value) -> Result<Request, Unsent> {
        with_json(Method::POST, &format!("{}/issues/{number}/comments", self.repo), &HeaderMap::new(), body)
    }

    fn edit(&self, _: u64, id: u64, body: &Value) -> Result<Request, Unsent> {
        with_json(Method::PATCH, &format!("{}/issues/comments/{id}", self.repo), &HeaderMap::new(), body)
    }
}
