//! Which repository a status belongs to. The Provider's address says at which host, and may say which repository; if it
//! doesn't, the URL of a source does. Whoever may write a source's URL chooses among the repositories of that host, no
//! more: nothing is ever sent to a host that the URL names.

use std::fmt;

use belfry_http::Url;

use super::{
    address::{Address, Parts, bad},
    hosts::Host,
};
use crate::{Misconfigured, Reason, Settings, registry, settings::Resolved};

/// One repository at the host of one Provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repository {
    pub(super) host: Host,
    pub(super) address: Address,
}

/// Why there is no repository to post to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRepository {
    /// The Provider must be mended first.
    #[error(transparent)]
    Provider(#[from] Misconfigured),
    /// The source's URL is none of a repository.
    #[error("the source's URL {0}")]
    Source(&'static str),
    /// The source is somewhere else.
    #[error("the source is at '{source_host}', and the Provider's token is only for '{provider_host}'")]
    OtherHost {
        /// Where the source is.
        source_host: String,
        /// Where the Provider is.
        provider_host: String,
    },
    /// The list of repositories doesn't have it.
    #[error("the repository '{0}' is not among those that are allowed")]
    NotAllowed(String),
}

impl Repository {
    /// The repository of the Provider's address; where that names only a host, or nothing, the one of the source's URL.
    /// `allowed` narrows what that may be: `owner/repo`, or `owner/*` for all below; when it is empty, everything is.
    ///
    /// # Errors
    /// When the Provider's address can't be used, or the source's URL names no repository, or one elsewhere.
    pub fn from_source(settings: &Settings<'_>, source_url: &str, allowed: &[String]) -> Result<Self, NoRepository> {
        let of_provider = |error: Misconfigured| error.of(settings.provider);
        let resolved = Resolved::new(settings).map_err(of_provider)?;
        let site = Site::of(&resolved).map_err(of_provider)?;
        let repository = match &site.repository {
            Some(repository) => repository.clone(),
            None => site.repository_of(source_url)?,
        };
        let name = repository.name();
        if !allowed.is_empty() && !allowed.iter().any(|entry| allows(entry, &name)) {
            return Err(NoRepository::NotAllowed(name));
        }
        Ok(repository)
    }

    /// The name that people know it by: `owner/repo`, `group/subgroup/project`, `org/project/repo`.
    pub fn name(&self) -> String {
        let path = &self.address.path;
        match self.host {
            Host::AzureDevOps => path.split('/').filter(|part| *part != "_git").collect::<Vec<_>>().join("/"),
            Host::BitbucketServer => {
                format!("/{path}").rsplit_once("/scm/").map_or_else(|| path.clone(), |(_, name)| name.to_owned())
            }
            _ => path.clone(),
        }
    }
}

impl fmt::Display for Repository {
    /// `github.com/owner/repo`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address.host, self.name())
    }
}

/// Whether an entry of a list means a repository. Hosts don't tell capitals from small letters in names.
fn allows(entry: &str, name: &str) -> bool {
    let entry = entry.trim().trim_matches('/');
    match entry.strip_suffix("/*") {
        Some(owner) => {
            let start = name.get(..owner.len()).is_some_and(|start| start.eq_ignore_ascii_case(owner));
            start && name.as_bytes().get(owner.len()) == Some(&b'/')
        }
        None => entry.strip_suffix(".git").unwrap_or(entry).eq_ignore_ascii_case(name),
    }
}

/// What a Provider's address says.
pub(super) struct Site {
    pub(super) host: Host,
    /// Where it is, without the repository. With Bitbucket Server the path is the one below which it lives.
    pub(super) server: Address,
    pub(super) repository: Option<Repository>,
}

impl Site {
    pub(super) fn of(resolved: &Resolved<'_>) -> Result<Self, Misconfigured> {
        let type_ = &resolved.spec().type_;
        let Some(host) = Host::of(type_) else {
            registry::entry(type_)?;
            let text = format!("type '{type_}' takes no statuses of commits: name a Provider of a git host");
            return Err(Misconfigured::new(Reason::UnsupportedType, text));
        };
        let text = match (resolved.address, host.public()) {
            ("", Some(public)) => public,
            ("", None) => {
                let text = format!(
                    "type '{type_}' needs the address of its server: set spec.address, or {}",
                    resolved.place_for("address")
                );
                return Err(Misconfigured::new(Reason::Address, text));
            }
            (address, _) => address,
        };
        let Parts { ssh, mut address } = Parts::parse(text).map_err(|what| bad(resolved, what))?;
        if host == Host::BitbucketServer && ssh {
            return Err(bad(resolved, "is not an http or https address: it must be like https://host"));
        }
        if host == Host::GitHub && address.host == "www.github.com" {
            address.host = "github.com".into();
        }
        let only_host = match host {
            Host::BitbucketServer => !below_scm(&address.path),
            _ => address.path.is_empty(),
        };
        if only_host {
            return Ok(Self { host, server: address, repository: None });
        }
        host.open(&address).map_err(|what| bad(resolved, what))?;
        let site = Self { host, server: Address { path: String::new(), ..address.clone() }, repository: None };
        let named = Parts { ssh, address };
        // However it is written, it is one repository.
        let path = (host == Host::AzureDevOps).then(|| site.azure(&named).ok()).flatten();
        let address = Address { path: path.unwrap_or(named.address.path), ..site.server.clone() };
        Ok(Self { repository: Some(Repository { host, address }), ..site })
    }

    /// The repository of a source at this site.
    fn repository_of(&self, source_url: &str) -> Result<Repository, NoRepository> {
        let odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
        if source_url.contains(odd) {
            return Err(NoRepository::Source("holds white space or a backslash"));
        }
        let source = Parts::parse(source_url).map_err(NoRepository::Source)?;
        let path = match self.host {
            Host::AzureDevOps => self.azure(&source)?,
            _ => {
                self.meets(&source)?;
                self.path(&source).ok_or(NoRepository::Source(NONE))?
            }
        };
        let address = Address { path, ..self.server.clone() };
        self.host.open(&address).map_err(|_| NoRepository::Source(NONE))?;
        Ok(Repository { host: self.host, address })
    }

    /// The source must be at the same host. Over HTTP at the same port too; a port of SSH says nothing.
    fn meets(&self, source: &Parts) -> Result<(), NoRepository> {
        let same = match (place(&self.server), place(&source.address)) {
            (Some((ours, port)), Some((theirs, other))) => ours == theirs && (source.ssh || port == other),
            _ => false,
        };
        if same { Ok(()) } else { Err(self.elsewhere(source)) }
    }

    fn elsewhere(&self, source: &Parts) -> NoRepository {
        NoRepository::OtherHost { source_host: source.address.host.clone(), provider_host: self.server.host.clone() }
    }

    /// The path at this site of what a source's URL names, in the form of a Provider's address.
    fn path(&self, source: &Parts) -> Option<String> {
        let path = &source.address.path;
        let parts: Vec<&str> = path.split('/').collect();
        match self.host {
            // Where GitLab's own pages begin.
            Host::GitLab => (parts.len() >= 2 && !parts.contains(&"-")).then(|| path.clone()),
            Host::BitbucketServer => {
                let context = &self.server.path;
                let below = if context.is_empty() { "scm/".to_owned() } else { format!("{context}/scm/") };
                let id = if source.ssh { path } else { path.strip_prefix(&below)? };
                (id.split('/').count() == 2).then(|| format!("{below}{id}"))
            }
            _ => (parts.len() == 2).then(|| path.clone()),
        }
    }

    /// Azure DevOps has two names for one organisation, `dev.azure.com/org` and `org.visualstudio.com`, and the token
    /// goes to that of the Provider.
    fn azure(&self, source: &Parts) -> Result<String, NoRepository> {
        let Some((ours, theirs)) = organisation(&self.server.host).zip(organisation(&source.address.host)) else {
            self.meets(source)?;
            return Ok(source.address.path.clone());
        };
        let none = || NoRepository::Source(NONE);
        let parts: Vec<&str> = source.address.path.split('/').collect();
        let parts = match (theirs, &parts[..]) {
            (Organisation::Named(_), ["DefaultCollection", rest @ ..]) => rest,
            (_, parts) => parts,
        };
        let (org, project, repo) = match (theirs, parts) {
            (Organisation::InPath, ["v3", org, project, repo]) if source.ssh => (*org, *project, *repo),
            (Organisation::InPath, [org, project, "_git", repo]) => (*org, *project, *repo),
            (Organisation::InPath, [org, "_git", repo]) => (*org, *repo, *repo),
            (Organisation::Named(org), [project, "_git", repo]) => (org, *project, *repo),
            (Organisation::Named(org), ["_git", repo]) => (org, *repo, *repo),
            _ => return Err(none()),
        };
        match ours {
            Organisation::InPath => Ok(format!("{org}/{project}/_git/{repo}")),
            Organisation::Named(ours) if ours.eq_ignore_ascii_case(org) => Ok(format!("{project}/_git/{repo}")),
            Organisation::Named(_) => Err(self.elsewhere(source)),
        }
    }
}

const NONE: &str = "names no repository of such a host";

/// Where the organisation stands in an address of Azure DevOps Services.
#[derive(Clone, Copy)]
enum Organisation<'a> {
    InPath,
    Named(&'a str),
}

/// `None`: it is a server of somebody's own.
fn organisation(host: &str) -> Option<Organisation<'_>> {
    match host.strip_suffix(".visualstudio.com") {
        _ if host == "dev.azure.com" => Some(Organisation::InPath),
        Some(org) if !org.is_empty() && !org.contains('.') => Some(Organisation::Named(org)),
        _ => None,
    }
}

fn below_scm(path: &str) -> bool {
    format!("/{path}/").contains("/scm/")
}

/// Host and port as a client would understand them: small letters, punycode, one form of IP addresses, and no port
/// where it is the scheme's own.
fn place(address: &Address) -> Option<(String, Option<u16>)> {
    let url: Url = format!("{}/", address.server()).parse().ok()?;
    let host = url.host_str()?;
    let host = if host == "www.github.com" { "github.com" } else { host };
    Some((host.to_owned(), url.port()))
}

#[cfg(test)]
mod tests;
