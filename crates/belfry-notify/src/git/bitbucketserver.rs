//! `bitbucketserver`: Bitbucket Server and Data Center.

use belfry_http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Url};
use serde::Serialize;
use serde_json::Value;

use super::{
    GitHost, Match, Origin, State, Status, Step,
    address::{Address, bad},
    auth::Auth,
    bitbucket::{TEXT, key},
    get,
    list::text,
    statuses::Statuses,
    verdict::judge,
    with_json,
};
use crate::{
    Misconfigured, Reason,
    classify::said,
    line::Conversation,
    protocol::{Unsent, Verdict},
    settings::Resolved,
    text::{cut_words, path_escape, percent_decode, query_escape},
};

/// One repository.
struct BitbucketServer {
    /// The API's address up to the repository.
    repo: String,
    /// Where an Alert's status leads: the clone address, as with the peer.
    link: String,
    /// The repository's page.
    page: String,
}

/// Takes the clone address apart: `https://host/<context>/scm/<project>/<repository>.git`.
fn parse(mut url: Url) -> Result<BitbucketServer, &'static str> {
    const NONE: &str = "is not an http or https clone address: it must be like https://host/scm/project/repo.git";
    // The status shows the address to everybody.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    let (context, id) = path.rsplit_once("/scm/").ok_or(NONE)?;
    let id = id.strip_suffix(".git").unwrap_or(id);
    let parts: Vec<String> = id.split('/').map(|part| path_escape(&percent_decode(part))).collect();
    let [project, repo] = &parts[..] else { return Err(NONE) };
    if project.is_empty() || repo.is_empty() {
        return Err(NONE);
    }
    let link = url.to_string();
    url.set_path("");
    let server = url.as_str().trim_end_matches('/');
    let path = format!("projects/{project}/repos/{repo}");
    let page = format!("{server}{context}/{path}");
    Ok(BitbucketServer { repo: format!("{server}{context}/rest/api/latest/{path}"), link, page })
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let host = parse(resolved.url()?).map_err(|what| bad(resolved, what))?;
    Statuses::open(resolved, host, auth(resolved)?, false)
}

/// The repository at `<context>/scm/<project>/<repository>`.
pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    let path: Vec<String> = address.path.split('/').map(path_escape).collect();
    let url = format!("{}/{}", address.server(), path.join("/")).parse().map_err(|_| "is not a URL")?;
    Ok(Box::new(parse(url)?))
}

pub(super) fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
    Ok(match (resolved.token()?, resolved.password) {
        (Some(_), _) => Auth::token(resolved, "Bearer")?,
        (None, Some(password)) if !resolved.username.is_empty() => Auth::basic(resolved.username, password)?,
        _ => {
            let text =
                format!("there is neither a token nor a user name with a password: {}", resolved.place_for("token"));
            return Err(Misconfigured::new(Reason::Credentials, text));
        }
    })
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-atlassian-token", HeaderValue::from_static("no-check"));
    headers.insert("x-requested-with", HeaderValue::from_static("XMLHttpRequest"));
    headers
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "INPROGRESS",
        State::Success => "SUCCESSFUL",
        State::Failure => "FAILED",
        State::Superseded => "CANCELLED",
    }
}

impl BitbucketServer {
    fn builds(&self, status: &Status) -> String {
        format!("{}/commits/{}/builds", self.repo, status.sha)
    }
}

impl GitHost for BitbucketServer {
    fn fitted(&self, status: Status) -> Status {
        let name = format!("{} [{}]", status.name, status.description);
        Status {
            name: cut_words(&name, TEXT).into_owned(),
            description: cut_words(&status.description, TEXT).into_owned(),
            ..status
        }
    }

    fn read(&self, status: &Status, _: usize) -> Result<Request, Unsent> {
        get(&format!("{}?key={}", self.builds(status), query_escape(&key(status))), &headers())
    }

    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let there: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        answer.status.is_success()
            && text(&there, "/key") == key(status)
            && matching.with(&there, "/state", word(status.state), status)
            && (matching == Match::State || text(&there, "/name") == status.name)
    }

    /// Before 8.0 it had no word for what was given up ("CANCELLED" is none of its states).
    fn instead(&self, answer: &Response, status: &Status) -> Option<State> {
        (answer.status == StatusCode::BAD_REQUEST && status.state == State::Superseded).then_some(State::Failure)
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Body<'a> {
            description: &'a str,
            key: &'a str,
            name: &'a str,
            /// What required builds are chosen by.
            #[serde(skip_serializing_if = "Option::is_none")]
            parent: Option<&'a str>,
            state: &'a str,
            url: &'a str,
        }
        let key = key(status);
        let (parent, url) = match status.origin {
            Origin::Alert => (None, &self.link),
            Origin::CommitStatus => (Some(key.as_str()), status.link.as_ref().unwrap_or(&self.page)),
        };
        let body = Body {
            description: &status.description,
            key: &key,
            name: &status.name,
            parent,
            state: word(status.state),
            url,
        };
        with_json(Method::POST, &self.builds(status), &headers(), &body)
    }

    fn classify(&self, step: Step, answer: &Response, status: &Status) -> Verdict {
        match (step, answer.status) {
            (_, StatusCode::NOT_FOUND) if said(answer).contains("NoSuchCommit") => {
                Verdict::Rejected(format!("the repository has no commit {}: {}", status.sha, said(answer)))
            }
            // No such build yet.
            (Step::Read, StatusCode::NOT_FOUND) => Verdict::Taken,
            _ => judge(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_last_scm_is_the_context() {
        for context in ["", "context1/", "context1/context2/context3/", "scm/", "scm/context2/scm/"] {
            let address = format!("https://u:p@example.com:7990/{context}scm/projectfoo/repobar.git");
            let host = parse(address.parse().unwrap()).unwrap();
            let expected =
                format!("https://example.com:7990/{context}rest/api/latest/projects/projectfoo/repos/repobar");
            assert_eq!(host.repo, expected);
            assert_eq!(host.link, address.replace("u:p@", ""));
        }
        for bad in ["https://example.com/projectfoo/repobar.git", "https://h/scm/a/b/invalid.git", "https://h/scm/a"] {
            assert!(parse(bad.parse().unwrap()).is_err(), "{bad}");
        }
    }
}
