//! `azuredevops`: Azure DevOps Services and Server. The peer's library asks the server where its API is; this is the place
//! that Microsoft documents (learn.microsoft.com/en-us/rest/api/azure/devops/git/statuses), and what the server answers.

use belfry_http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

use super::{
    GitHost, Match, Origin, State, Status, Step,
    address::{self, Address},
    auth::Auth,
    get,
    list::{List, text},
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
    text::path_escape,
};

/// One repository.
struct AzureDevOps {
    /// The API's address up to the repository.
    repo: String,
}

/// `org/project/_git/repo`; also what the host itself hands out: `v3/org/project/repo` over SSH, `org/_git/repo` for a
/// repository that is called like its project, and the organisation as a host name.
fn parse(address: &Address) -> Result<AzureDevOps, &'static str> {
    let parts: Vec<String> = address.path.split('/').map(path_escape).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let own_host = address.host.ends_with(".visualstudio.com");
    let (base, project, repo) = match parts[..] {
        ["v3", org, project, repo] => (format!("/{org}"), project, repo),
        [org, project, "_git", repo] => (format!("/{org}"), project, repo),
        [project, "_git", repo] if own_host => (String::new(), project, repo),
        [org, "_git", repo] => (format!("/{org}"), repo, repo),
        _ => return Err("must name one repository, like https://dev.azure.com/org/project/_git/repo"),
    };
    Ok(AzureDevOps { repo: format!("{}{base}/{project}/_apis/git/repositories/{repo}", address.server()) })
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let host = parse(&Address::of(resolved)?).map_err(|what| address::bad(resolved, what))?;
    Statuses::open(resolved, host, auth(resolved)?, false)
}

pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    Ok(Box::new(parse(address)?))
}

pub(super) fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
    match resolved.token()? {
        Some(token) => Auth::basic("", token),
        None if resolved.spec().service_account_name.is_some() => {
            let text =
                "workload identity is not supported by this version of Belfry: name a Secret with the key 'token'";
            Err(Misconfigured::new(Reason::Token, text))
        }
        None => Err(resolved.missing_token()),
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json;api-version=6.0"));
    // Or a wrong token is answered with a page to sign in at.
    headers.insert("x-tfs-fedauthredirect", HeaderValue::from_static("Suppress"));
    headers
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Success => "succeeded",
        State::Failure => "error",
        State::Superseded => "notApplicable",
    }
}

/// The word for a status. The peer says `error` for what failed; the word for that is `failed`.
fn word_of(status: &Status) -> &'static str {
    match (status.origin, status.state) {
        (Origin::CommitStatus, State::Failure) => "failed",
        _ => word(status.state),
    }
}

/// Statuses on a page.
const PAGE: usize = 50;

fn is(item: &Value, status: &Status) -> bool {
    text(item, "/context/name") == status.id && text(item, "/context/genre") == genre(status)
}

fn genre(status: &Status) -> String {
    status.summary.as_ref().map_or_else(|| "fluxcd".into(), |summary| format!("fluxcd:{summary}"))
}

impl AzureDevOps {
    fn statuses(&self, status: &Status) -> String {
        format!("{}/commits/{}/statuses", self.repo, status.sha)
    }
}

impl GitHost for AzureDevOps {
    /// For a CommitStatus only the newest of each name, in pages, for a commit may have more names than one answer holds.
    fn read(&self, status: &Status, skip: usize) -> Result<Request, Unsent> {
        let query = match status.origin {
            Origin::Alert => String::new(),
            Origin::CommitStatus => format!("?latestOnly=true&top={PAGE}&skip={skip}"),
        };
        get(&format!("{}{query}", self.statuses(status)), &headers())
    }

    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let list = List::inside(answer);
        // Where a long one was cut off, nobody knows on which side the newest is; unless there is one of each name.
        (list.complete || status.origin == Origin::CommitStatus)
            && list
                .newest(|item| is(item, status))
                .is_some_and(|there| matching.with(there, "/state", word_of(status), status))
    }

    fn further(&self, answer: &Response, status: &Status, skipped: usize) -> Option<usize> {
        let list = List::inside(answer);
        let last = list.items.is_empty() || (list.complete && list.items.len() < PAGE);
        let found = list.items.iter().any(|item| is(item, status));
        (!last && !found).then(|| skipped + list.items.len())
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Context<'a> {
            genre: String,
            name: &'a str,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            context: Context<'a>,
            description: &'a str,
            state: &'a str,
            #[serde(rename = "targetUrl", skip_serializing_if = "Option::is_none")]
            target_url: Option<&'a str>,
        }
        let context = Context { genre: genre(status), name: &status.id };
        let (state, target_url) = (word_of(status), status.link.as_deref());
        let body = Body { context, description: &status.description, state, target_url };
        let mut headers = headers();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
        with_json(Method::POST, &self.statuses(status), &headers, &body)
    }

    fn classify(&self, _: Step, answer: &Response, status: &Status) -> Verdict {
        let text = said(answer);
        match answer.status {
            // A page to sign in at.
            StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::FOUND => {
                Verdict::Misconfigured("the token is not accepted".into())
            }
            StatusCode::NOT_FOUND
                if ["CommitDoesNotExist", "UnresolvableToCommit"].iter().any(|t| text.contains(t)) =>
            {
                Verdict::Rejected(format!("the repository has no commit {}: {text}", status.sha))
            }
            _ => judge(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_address() {
        let repo = |text: &str| parse(&Address::parse(text).unwrap()).map(|host| host.repo).ok();
        let expected = Some("https://dev.azure.com/org/proj/_apis/git/repositories/repo".to_owned());
        assert_eq!(repo("https://dev.azure.com/org/proj/_git/repo"), expected);
        assert_eq!(repo("https://org@dev.azure.com/org/proj/_git/repo"), expected);
        assert_eq!(repo("git@ssh.dev.azure.com:v3/org/proj/repo"), expected);
        let spaces = "https://dev.azure.com/org/My%20Proj/_apis/git/repositories/repo";
        assert_eq!(repo("https://dev.azure.com/org/My%20Proj/_git/repo").unwrap(), spaces);
        let same = "https://dev.azure.com/org/repo/_apis/git/repositories/repo";
        assert_eq!(repo("https://dev.azure.com/org/_git/repo").unwrap(), same);
        let own = "https://org.visualstudio.com/proj/_apis/git/repositories/repo";
        assert_eq!(repo("https://org.visualstudio.com/proj/_git/repo").unwrap(), own);
        assert_eq!(repo("https://dev.azure.com/foo/bar/baz"), None);
    }
}
