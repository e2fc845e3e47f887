//! `bitbucket`: Bitbucket Cloud. The address names the repository only: the API is always Atlassian's own, or what
//! `BITBUCKET_API_BASE_URL` names, as with the peer.

use belfry_http::{HeaderMap, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

use super::{
    GitHost, State, Status, Step,
    address::{self, Address},
    auth::Auth,
    get,
    list::text,
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

/// One repository.
struct Bitbucket {
    /// The API's address up to the repository.
    repo: String,
}

/// A key of at most 40 characters for a status: SHA-1 of its id.
pub(super) fn key(id: &str) -> String {
    Sha1::digest(id).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured> {
    let address = Address::of(resolved)?;
    let (owner, repo) = address.owner_and_repo().map_err(|what| address::bad(resolved, what))?;
    let api = std::env::var(API_VARIABLE).ok().filter(|api| !api.is_empty()).unwrap_or_else(|| API.into());
    let host = Bitbucket { repo: format!("{}/repositories/{owner}/{repo}", api.trim_end_matches('/')) };
    Statuses::open(resolved, host, auth(resolved)?, false)
}

/// A token is `user:password`, or, without a colon, an access token; else user name and password.
fn auth(resolved: &Resolved<'_>) -> Result<Auth, Misconfigured> {
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

    fn read(&self, status: &Status) -> Result<Request, Unsent> {
        let url = format!("{}/commit/{}/statuses/build/{}", self.repo, status.sha, key(&status.id));
        get(&url, &HeaderMap::new())
    }

    fn shows(&self, answer: &Response, status: &Status) -> bool {
        let there: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        answer.status.is_success()
            && text(&there, "/state") == word(status.state)
            && text(&there, "/description") == status.description
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
            key: &key(&status.id),
            url: "https://bitbucket.org",
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
            assert_eq!(key(id), expected);
        }
    }
}
