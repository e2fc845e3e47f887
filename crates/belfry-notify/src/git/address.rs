//! Addresses of repositories, in every form in which git takes them.

use crate::{Misconfigured, Reason, settings::Resolved, text};

/// Hosts whose SSH stands on a name of its own, and the name that answers HTTPS.
const SSH_HOSTS: [(&str, &str); 5] = [
    ("ssh.github.com:443", "github.com"),
    ("altssh.gitlab.com:443", "gitlab.com"),
    ("altssh.bitbucket.org:443", "bitbucket.org"),
    ("ssh.dev.azure.com", "dev.azure.com"),
    ("vs-ssh.visualstudio.com", "dev.azure.com"),
];

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host, with its port if it names one.
    pub(crate) host: String,
    /// Path without a slash in front, without a slash or `.git` at the end, not percent-encoded.
    pub(crate) path: String,
}

/// An address taken apart, with or without a path.
pub(crate) struct Parts {
    /// It is spoken to over SSH.
    pub(crate) ssh: bool,
    /// Where it is; the path may be empty.
    pub(crate) address: Address,
}

impl Parts {
    /// Takes an address apart: `https://host/a/b.git`, `ssh://git@host/a/b`, `git@host:a/b.git`. User names and passwords
    /// are left out; everything but `http` becomes `https`, with the port that it has.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.contains(char::is_control) {
            return Err("holds control characters: write it on one line");
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest.to_owned()),
            None => ("ssh", scp(text).ok_or(EXAMPLES)?),
        };
        let (scheme, ssh) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", false),
            "https" | "git" | "git+https" => ("https", false),
            "ssh" | "git+ssh" | "ssh+git" => ("https", true),
            _ => return Err("has a scheme other than https, http and ssh"),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_lowercase();
        let host = if ssh { host.strip_suffix(":22").unwrap_or(&host).to_owned() } else { host };
        let host = SSH_HOSTS.iter().find(|(ssh, _)| *ssh == host).map_or(host, |(_, https)| (*https).to_owned());
        let path = path.trim_matches('/');
        let path = text::percent_decode(path.strip_suffix(".git").unwrap_or(path));
        let valid_host = format!("{scheme}://{host}/").parse::<belfry_http::Url>().is_ok_and(|url| url.has_host());
        if host.is_empty() || !valid_host {
            return Err(EXAMPLES);
        }
        if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("has an empty part, '.' or '..' in its path");
        }
        if path.contains(char::is_control) {
            return Err("holds control characters in its path");
        }
        Ok(Self { ssh, address: Address { scheme, host, path } })
    }
}

impl Address {
    /// The address of a repository (see [`Parts::parse`]).
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let address = Parts::parse(text)?.address;
        if address.path.is_empty() { Err(EXAMPLES) } else { Ok(address) }
    }

    /// The Provider's.
    pub(crate) fn of(resolved: &Resolved<'_>) -> Result<Self, Misconfigured> {
        if resolved.address.is_empty() {
            let text = format!("an address is missing: set spec.address, or {}", resolved.place_for("address"));
            return Err(Misconfigured::new(Reason::Address, text));
        }
        Self::parse(resolved.address).map_err(|what| bad(resolved, what))
    }

    /// `https://host`.
    pub(crate) fn server(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// `owner` and `repo`, each percent-encoded, and nothing else.
    pub(crate) fn owner_and_repo(&self) -> Result<(String, String), &'static str> {
        match self.path.split_once('/') {
            Some((owner, repo)) if !repo.contains('/') => Ok((text::path_escape(owner), text::path_escape(repo))),
            _ => Err("must name one repository, like https://host/owner/repo"),
        }
    }
}

const EXAMPLES: &str = "is not the address of a repository: it must be like https://host/owner/repo, \
                        ssh://git@host/owner/repo or git@host:owner/repo";

/// What is wrong with the address, and where it stands.
pub(crate) fn bad(resolved: &Resolved<'_>, what: &str) -> Misconfigured {
    Misconfigured::new(Reason::Address, format!("{} {what}", resolved.place_of("address")))
}

/// `git@host:path` as `git@host/path`.
fn scp(text: &str) -> Option<String> {
    let host_ends = text.find(']').unwrap_or(0);
    let colon = host_ends + text.get(host_ends..)?.find(':')?;
    let (host, path) = (&text[..colon], &text[colon + 1..]);
    (!host.is_empty() && !host.contains('/') && !path.is_empty()).then(|| format!("{host}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_the_peer_takes() {
        for (text, server, path) in [
            ("https://github.com/foo/bar", "https://github.com", "foo/bar"),
            ("https://example.com/foo/bar", "https://example.com", "foo/bar"),
            ("https://gitlab.com/foo/bar.git", "https://gitlab.com", "foo/bar"),
            ("git@gitlab.com:foo/bar.git", "https://gitlab.com", "foo/bar"),
            ("ssh://git@github.com/stefanprodan/podinfo", "https://github.com", "stefanprodan/podinfo"),
            ("https://gitlab.com/foo/bar/foo.git", "https://gitlab.com", "foo/bar/foo"),
            ("ssh://git@host:2222/foo/bar", "https://host:2222", "foo/bar"),
            ("http://h:3000//foo/bar.git", "http://h:3000", "foo/bar"),
            ("https://user:pw@host/foo/bar", "https://host", "foo/bar"),
            ("https://org@dev.azure.com/org/My%20Project/_git/r", "https://dev.azure.com", "org/My Project/_git/r"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.server().as_str(), address.path.as_str()), (server, path), "{text}");
        }
    }

    #[test]
    fn forms_beyond_the_peers() {
        for (text, server, path) in [
            ("https://user:p@w@host/foo/bar.git/", "https://host", "foo/bar"),
            ("ssh://git@ssh.github.com:443/foo/bar.git", "https://github.com", "foo/bar"),
            ("git@ssh.dev.azure.com:v3/org/proj/repo", "https://dev.azure.com", "v3/org/proj/repo"),
            ("git@[::1]:foo/bar", "https://[::1]", "foo/bar"),
            ("GIT@GitLab.com:Foo/Bar", "https://gitlab.com", "Foo/Bar"),
            ("https://host/foo/bar?ref=main#x", "https://host", "foo/bar"),
            ("git+ssh://git@host/foo/bar", "https://host", "foo/bar"),
            ("ssh://git@host:22/foo/bar", "https://host", "foo/bar"),
            ("org@vs-ssh.visualstudio.com:v3/org/proj/repo", "https://dev.azure.com", "v3/org/proj/repo"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.server().as_str(), address.path.as_str()), (server, path), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "foo/bar",
            "/foo/bar",
            "ssh://git@abc.com",
            "https://host",
            "https:///foo/bar",
            "ftp://host/foo/bar",
            "file:///foo/bar",
            "https://bad host/foo/bar",
            "https://host/foo/../bar",
            "https://host/foo//bar",
            "https://host/foo/%2e%2e",
            "https://host/a\nb/c",
            "https://host/foo/b%0aar",
            "https://host/foo/.git",
            "git@host:",
            ":foo/bar",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_repository_and_nothing_else() {
        let pair = |text| Address::parse(text).unwrap().owner_and_repo();
        assert_eq!(pair("https://h/foo/b%20r").unwrap(), ("foo".into(), "b%20r".into()));
        assert!(pair("https://h/foo/bar/baz").is_err() && pair("https://h/foo").is_err());
    }
}
