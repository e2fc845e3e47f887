//! `github`, `githubdispatch`, `githubpullrequestcomment`: GitHub, GitHub Enterprise Server, and tenants of ghe.com.

use belfry_api::Event;
use belfry_core::{go_json, notification::Notification};
use belfry_http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::{
    GitHost, Match, State, Status, Step,
    address::{self, Address},
    app,
    auth::Auth,
    comments::{Comment, CommentHost, Comments},
    get,
    list::{List, Page, text},
    statuses::Statuses,
    verdict::{judge, taken},
    with_bytes,
};
use crate::{
    Misconfigured,
    classify::said,
    line::{Boxed, Conversation, Line, Stop},
    protocol::{Unsent, Verdict},
    settings::Resolved,
    text::{bounded_id, cut, cut_words, fit},
};

/// Characters of a description (GitHub answers 422 "description is too long (maximum is 140 characters)").
pub(super) const DESCRIPTION: usize = 140;
/// Characters of a context (as above, "maximum is 255 characters").
pub(super) const CONTEXT: usize = 255;
/// Characters of an event's type (docs.github.com/en/rest/repos/repos#create-a-repository-dispatch-event).
const EVENT_TYPE: usize = 100;
/// Bytes of such an event's payload and type together: below the 64 KB of the payload.
const DISPATCH: usize = 64_000;

/// One repository.
struct GitHub {
    /// The API's address up to the repository.
    repo: String,
    /// The API's address.
    api: String,
}

impl GitHub {
    fn new(resolved: &Resolved<'_>) -> Result<(Self, Auth), Misconfigured> {
        let address = Address::of(resolved)?;
        let host = Self::at(&address).map_err(|what| address::bad(resolved, what))?;
        let auth = auth(resolved, &address)?;
        Ok((host, auth))
    }

    fn at(address: &Address) -> Result<Self, &'static str> {
        let (owner, repo) = address.owner_and_repo()?;
        let api = api(address);
        Ok(Self { repo: format!("{api}/repos/{owner}/{repo}"), api })
    }
}

pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    Ok(Box::new(GitHub::at(address)?))
}

pub(super) fn auth(resolved: &Resolved<'_>, address: &Address) -> Result<Auth, Misconfigured> {
    app::auth(resolved, &api(address))
}

/// Where the API of a server is: github.com and tenants of ghe.com have a host for it, others a path.
fn api(address: &Address) -> String {
    match address.host.as_str() {
        "github.com" | "www.github.com" => format!("{}://api.github.com", address.scheme),
        host if host.ends_with(".ghe.com") && !host.starts_with("api.") => format!("{}://api.{host}", address.scheme),
        _ => format!("{}/api/v3", address.server()),
    }
}

/// Headers of every request.
pub(crate) fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github.v3+json"));
    headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
    headers
}

/// GitHub's client writes JSON without Go's escapes for HTML.
fn plain_json<T: Serialize>(method: Method, url: &str, body: &T) -> Result<Request, Unsent> {
    let body = serde_json::to_vec(body).map_err(|_| Unsent::Reject("the event can't be written as JSON".into()))?;
    with_bytes(method, url, &headers(), body)
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = GitHub::new(resolved)?;
    Statuses::open(resolved, host, auth, false)
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Success => "success",
        State::Failure => "failure",
        State::Superseded => "error",
    }
}

impl GitHost for GitHub {
    fn fitted(&self, status: Status) -> Status {
        Status {
            description: cut_words(&status.description, DESCRIPTION).into_owned(),
            id: bounded_id(&status.id, CONTEXT).into_owned(),
            ..status
        }
    }

    fn read(&self, status: &Status, _: usize) -> Result<Request, Unsent> {
        get(&format!("{}/commits/{}/statuses?per_page=50", self.repo, status.sha), &headers())
    }

    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let list = List::read(answer);
        let ours = list.newest(|item| text(item, "/context").eq_ignore_ascii_case(&status.id));
        ours.is_some_and(|there| matching.with(there, "/state", word(status.state), status))
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Body<'a> {
            state: &'a str,
            description: &'a str,
            context: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            target_url: Option<&'a str>,
        }
        let (state, target_url) = (word(status.state), status.link.as_deref());
        let body = Body { state, description: &status.description, context: &status.id, target_url };
        plain_json(Method::POST, &format!("{}/statuses/{}", self.repo, status.sha), &body)
    }

    fn classify(&self, _: Step, answer: &Response, status: &Status) -> Verdict {
        let text = said(answer);
        match answer.status {
            StatusCode::UNPROCESSABLE_ENTITY if text.contains("maximum number of statuses") => {
                Verdict::Full(format!("GitHub takes no more than 1000 statuses of one commit and context: {text}"))
            }
            StatusCode::UNPROCESSABLE_ENTITY if text.contains("No commit found") => {
                Verdict::Rejected(format!("the repository has no commit {}: {text}", status.sha))
            }
            _ => judge(answer),
        }
    }
}

/// Starts workflows: a `repository_dispatch` event with the Flux event as its payload.
struct Dispatch {
    host: GitHub,
    auth: Auth,
}

pub(crate) fn open_dispatch(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = GitHub::new(resolved)?;
    Ok(Box::new(Dispatch { host, auth }))
}

impl Dispatch {
    async fn tell(&self, notification: &Notification, line: &Line<'_>) -> Result<(), Stop> {
        #[derive(Serialize)]
        struct Body<'a> {
            event_type: &'a str,
            client_payload: go_json::Wire<'a>,
        }
        let event = &notification.event;
        let object = &event.involved_object;
        let event_type = format!("{}/{}.{}", object.kind, object.name, object.namespace);
        let body = fit(DISPATCH, &event.message, |message| {
            let event = Event { message: message.to_owned(), ..event.clone() };
            go_json::to_vec(&Body { event_type: &cut(&event_type, EVENT_TYPE), client_payload: go_json::Wire(&event) })
        });
        let request = with_bytes(Method::POST, &format!("{}/dispatches", self.host.repo), &headers(), body)?;
        let answer = self.auth.send(request, line).await?;
        let verdict = judge(&answer);
        taken(answer, verdict, line.now()).map(drop)
    }
}

impl Conversation for Dispatch {
    fn hold<'a>(&'a self, notification: &'a Notification, line: &'a Line<'a>) -> Boxed<'a, Result<(), Stop>> {
        Box::pin(self.tell(notification, line))
    }
}

pub(crate) fn open_comments(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let (host, auth) = GitHub::new(resolved)?;
    Comments::open(resolved, host, auth, "flux-pr-comment-key")
}

impl CommentHost for GitHub {
    fn whoami(&self) -> Result<Request, Unsent> {
        get(&format!("{}/user", self.api), &headers())
    }

    fn me(&self, about: &Value) -> String {
        text(about, "/login").to_owned()
    }

    fn list(&self, number: u64, page: Page) -> Result<Request, Unsent> {
        let at = if page == Page::FIRST { String::new() } else { format!("&page={}", page.number) };
        let repo = &self.repo;
        let size = page.size;
        let url = format!("{repo}/issues/{number}/comments?direction=asc{at}&per_page={size}&sort=created");
        get(&url, &headers())
    }

    fn comment(&self, item: &Value) -> Option<Comment> {
        Comment::read(item, "/user/login")
    }

    fn read(&self, _: u64, id: u64) -> Result<Request, Unsent> {
        get(&format!("{}/issues/comments/{id}", self.repo), &headers())
    }

    fn create(&self, number: u64, body: &Value) -> Result<Request, Unsent> {
        plain_json(Method::POST, &format!("{}/issues/{number}/comments", self.repo), body)
    }

    fn edit(&self, _: u64, id: u64, body: &Value) -> Result<Request, Unsent> {
        plain_json(Method::PATCH, &format!("{}/issues/comments/{id}", self.repo), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_server_has_its_api() {
        for (address, expected) in [
            ("https://github.com/foo/bar", "https://api.github.com"),
            ("git@github.com:foo/bar.git", "https://api.github.com"),
            ("https://octocorp.ghe.com/foo/bar", "https://api.octocorp.ghe.com"),
            ("https://github.example.com/foo/bar", "https://github.example.com/api/v3"),
            ("http://ghe.local:8080/foo/bar", "http://ghe.local:8080/api/v3"),
            ("https://notghe.com/foo/bar", "https://notghe.com/api/v3"),
        ] {
            assert_eq!(api(&Address::parse(address).unwrap()), expected, "{address}");
        }
    }
}
