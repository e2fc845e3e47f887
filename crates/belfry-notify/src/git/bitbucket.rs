//! `bitbucket`: Bitbucket Cloud. The address names the repository only: the API is always Atlassian's own, or what
//! `BITBUCKET_API_BASE_URL` names, as with the peer.

use belfry_http::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::{
    GitHost, Match, Origin, State, Status, Step,
    address::{self, Address},
    auth::Auth,
    get,
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
    text::cut_words,
};

/// Bitbucket's API.
const API: &str = "https://api.bitbucket.org/2.0";
/// Names another one, for tests and gateways.
const API_VARIABLE: &str = "BITBUCKET_API_BASE_URL";
/// Characters of a name and of a description.
pub(super) const TEXT: usize = 255;

/// Characters of a key ("Ensure this value has at most 40 characters").
pub(super) const KEY: usize = 40;
/// Characters of a link.
pub(super) const LINK: usize = 450;

/// One repository.
struct Bitbucket {
    /// The API's address up to the repository.
    repo: String,
    /// The repository's page.
    page: String,
}

/// The key of a status: for an Alert SHA-1 of its id, as with the peer; a context is one already.
pub(super) fn key(status: &Status) -> String {
    match status.origin {
        Origin::Alert => hash(&status.id),
        Origin::CommitStatus => status.id.clone(),
    }
}

fn hash(id: &str) -> String {
    Sha1::digest(id).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Bitbucket {
    fn at(address: &Address) -> Result<Self, &'static str> {
        let (owner, repo) = address.owner_and_repo()?;
        let api = std::env::var(API_VARIABLE).ok().filter(|api| !api.is_empty()).unwrap_or_else(|| API.into());
        Ok(Self {
            repo: format!("{}/repositories/{owner}/{repo}", api.trim_end_matches('/')),
            page: format!("https://bitbucket.org/{owner}/{repo}"),
        })
    }

    /// A status must lead somewhere.
    fn link<'a>(&'a self, status: &'a Status) -> &'a str {
        match (status.origin, &status.link) {
            (Origin::Alert, _) => "https://bitbucket.org",
            (Origin::CommitStatus, Some(link)) => link,
            (Origin::CommitStatus, None) => &self.page,
        }
    }
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let host = Bitbucket::at(&Address::of(resolved)?).map_err(|what| address::bad(resolved, what))?;
    Statuses::open(resolved, host, auth(resolved)?, false)
}

pub(super) fn host(address: &Address) -> Result<Box<dyn GitHost>, &'static str> {
    Ok(Box::new(Bitbucket::at(address)?))
}

/// A token is `user:password`, or, without a colon, an access token; else user name and password.
pub(super) fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
    match resolved.token()? {
        Some(token) => match token.split_once(':') {
            Some((username, password)) => Auth::basic(username, password),
            None => Auth::token(resolved, "Bearer"),
        },
        None => match resolved.password {
            Some(password) if !resolved.username.is_empty() => Auth::basic(resolved.username, password),
            _ => Err(resolved.missing_token()),
        },
    }
}

pub(super) fn word(state: State) -> &'static str {
    match state {
        State::Pending => "INPROGRESS",
        State::Success => "SUCCESSFUL",
        State::Failure => "FAILED",
        State::Superseded => "STOPPED",
    }
}

impl GitHost for Bitbucket {
    fn fitted(&self, status: Status) -> Status {
        Status {
            name: cut_words(&status.name, TEXT).into_owned(),
            description: cut_words(&status.description, TEXT).into_owned(),
            ..status
        }
    }

    fn read(&self, status: &Status, _: usize) -> Result<Request, Unsent> {
        let url = format!("{}/commit/{}/statuses/build/{}", self.repo, status.sha, key(status));
        get(&url, &HeaderMap::new())
    }

    fn shows(&self, answer: &Response, status: &Status, matching: Match) -> bool {
        let there: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        answer.status.is_success() && matching.with(&there, "/state", word(status.state), status)
    }

    fn post(&self, status: &Status) -> Result<Request, Unsent> {
        #[derive(Serialize)]
        struct Body<'a> {
            key: &'a str,
            url: &'a str,
            state: &'a str,
            name: &'a str,
            description: &'a str,
        }
        let body = Body {
            key: &key(status),
            url: self.link(status),
            state: word(status.state),
            name: &status.name,
            description: &status.description,
        };
        let url = format!("{}/commit/{}/statuses/build", self.repo, status.sha);
        with_json(Method::POST, &url, &HeaderMap::new(), &body)
    }

    fn classify(&self, step: Step, answer: &Response, status: &Status) -> Verdict {
        match (step, answer.status) {
            // No such status yet; when it's the repository that isn't there, writing says so.
            (Step::Read, StatusCode::NOT_FOUND) => Verdict::Taken,
            (Step::Post, StatusCode::NOT_FOUND) if said(answer).contains("ommit not found") => {
                Verdict::Rejected(format!("the repository has no commit {}: {}", status.sha, said(answer)))
            }
            _ => judge(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_peers() {
        for (id, expected) in [
            ("kustomization/gitops-system/0c9c2e41", "c99410a43c260fddd152a40c296bddfa0b8fd879"),
            ("kustomization/app/0c9c2e41", "82265367404ad9d071796a3dd9b07c82d40274be"),
            ("kustomization/namespace-foo-and-service-bar", "12ea142172e98435e16336acbbed8919610922c3"),
        ] {
            assert_eq!(hash(id), expected);
        }
    }
}
