//! Package URLs: the name of what a revision deploys, as consumers join by it.

use std::fmt::Write as _;

use belfry_core::revision::Revision;

/// Where an object's revisions come from: the source that it refers to, or itself when it is a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source<'a> {
    /// Kind of the source: `GitRepository`, `OCIRepository`, `HelmRepository`, `Bucket`.
    pub kind: &'a str,
    /// `spec.url`; of a Bucket, `<endpoint>/<bucket>`.
    pub url: &'a str,
    /// `spec.path` of a Kustomization, or the path of a chart in a repository.
    pub path: Option<&'a str>,
    /// Name of the chart.
    pub chart: Option<&'a str>,
    /// `status.artifact.revision` of the source, for charts that come from a repository.
    pub revision: Option<&'a str>,
    /// URL of the git repository that an artifact's content was made from.
    pub repository: Option<&'a str>,
}

/// What an event says of what is deployed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployed<'a> {
    /// The revision: of a source, or the version of a chart.
    pub revision: &'a str,
    /// It is the version of a chart.
    pub is_chart: bool,
    /// Digest of the chart in an OCI registry.
    pub digest: Option<&'a str>,
    /// What it is called when nothing else is known: the chart as the message names it, or the object.
    pub name: &'a str,
}

/// The package URL of what is deployed. There always is one, if only `pkg:generic/<name>@<revision>`.
pub fn artifact(deployed: Deployed<'_>, source: Option<Source<'_>>) -> String {
    let known =
        source.and_then(|source| if deployed.is_chart { chart(deployed, source) } else { files(deployed, source) });
    known.unwrap_or_else(|| generic(deployed.name, deployed.revision))
}

fn files(deployed: Deployed<'_>, source: Source<'_>) -> Option<String> {
    let revision = Revision::parse(deployed.revision);
    match source.kind {
        "GitRepository" => git(source.url, revision.hash?, source.path),
        "OCIRepository" => {
            oci(source.url.strip_prefix("oci://").unwrap_or(source.url), revision.hash, revision.pointer)
        }
        "Bucket" => {
            let (_, name) = source.url.trim_end_matches('/').rsplit_once('/')?;
            let version = encoded(deployed.revision);
            Some(format!("pkg:generic/{}@{version}?download_url={}", encoded(name), encoded(&without_user(source.url))))
        }
        _ => None,
    }
}

fn chart(deployed: Deployed<'_>, source: Source<'_>) -> Option<String> {
    let version = without_digest(deployed.revision);
    let digest = deployed.digest.map(|digest| digest.strip_prefix("sha256:").unwrap_or(digest));
    let chart = source.chart.unwrap_or(deployed.name);
    match (source.kind, source.url.strip_prefix("oci://")) {
        ("OCIRepository", url) => oci(url.unwrap_or(source.url), digest, Some(version)),
        ("HelmRepository", Some(url)) => oci(&format!("{}/{chart}", url.trim_end_matches('/')), digest, Some(version)),
        ("HelmRepository", None) => {
            let url = encoded(&without_user(source.url));
            Some(format!("{}?download_url={url}&type=helm", generic(chart, version)))
        }
        ("GitRepository", _) => git(source.url, Revision::parse(source.revision?).hash?, source.path),
        _ => None,
    }
}

fn generic(name: &str, revision: &str) -> String {
    let name = if name.is_empty() { "unnamed".into() } else { encoded(name) };
    if revision.is_empty() {
        format!("pkg:generic/{name}")
    } else {
        format!("pkg:generic/{name}@{}", encoded(revision))
    }
}

fn oci(repository: &str, digest: Option<&str>, tag: Option<&str>) -> Option<String> {
    let repository = repository.trim_end_matches('/');
    let name = repository.rsplit('/').next().filter(|name| !name.is_empty())?;
    let mut purl = format!("pkg:oci/{}", encoded(&name.to_lowercase()));
    if let Some(digest) = digest {
        let _ = write!(purl, "@sha256:{}", encoded(digest));
    }
    let _ = write!(purl, "?repository_url={}", encoded(repository));
    if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
        let _ = write!(purl, "&tag={}", encoded(tag));
    }
    Some(purl)
}

fn git(url: &str, sha: &str, path: Option<&str>) -> Option<String> {
    let repository = Repository::parse(url)?;
    let lower = repository.path.to_lowercase();
    let owned = lower.split_once('/').filter(|(owner, name)| !owner.is_empty() && !name.is_empty());
    let sha = encoded(sha);
    let mut purl = match (repository.host.as_str(), owned) {
        ("github.com", Some((owner, name))) => format!("pkg:github/{}/{}@{sha}", encoded(owner), encoded(name)),
        ("bitbucket.org", Some((owner, name))) => format!("pkg:bitbucket/{}/{}@{sha}", encoded(owner), encoded(name)),
        _ => {
            let name = repository.path.rsplit('/').next().filter(|name| !name.is_empty())?;
            let url = encoded(&format!("git+{}", without_user(url)));
            format!("pkg:generic/{}@{sha}?vcs_url={url}%40{sha}", encoded(name))
        }
    };
    let subpath: Vec<String> =
        path.unwrap_or_default().split('/').filter(|part| !matches!(*part, "" | "." | "..")).map(encoded).collect();
    if !subpath.is_empty() {
        let _ = write!(purl, "#{}", subpath.join("/"));
    }
    Some(purl)
}

/// A Git repository, the same whichever way it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Host, with its port where it is reached over HTTP.
    pub host: String,
    /// Path without slashes around it and without `.git`.
    pub path: String,
}

impl Repository {
    /// The repository at `https://…`, `ssh://git@…` or `git@host:path`.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, authority, path) = match url.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/')?;
                (scheme, authority, path)
            }
            None => {
                let (authority, path) = url.split_once(':')?;
                ("ssh", authority, path)
            }
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = if scheme == "ssh" { host.split(':').next().unwrap_or_default() } else { host };
        let path = path.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let host = host.to_lowercase();
        (!host.is_empty() && !path.is_empty()).then(|| Self { host, path: path.to_owned() })
    }

    /// Its address for everyone.
    pub fn url(&self) -> String {
        format!("{}{}", self.root(), self.path)
    }

    /// The address of its host.
    pub fn root(&self) -> String {
        format!("https://{}/", self.host)
    }
}

/// The chart version without the beginning of a digest that helm-controller adds to it.
pub fn without_digest(version: &str) -> &str {
    let is_digest = |digest: &str| digest.len() == 12 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    version.rsplit_once('+').filter(|(_, digest)| is_digest(digest)).map_or(version, |(version, _)| version)
}

/// The URL without a user and a password.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let host = rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host);
    format!("{scheme}://{host}{}", &rest[end..])
}

/// As the package URL spec asks: everything is escaped but letters, digits, `.-_~` and `:`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::is_purl;

    const SHA: &str = "1eabc9a41ca088515cab83f1cce49eb43e84b67f";

    #[test]
    fn every_source_has_its_package_url() {
        let git = format!("main@sha1:{SHA}");
        let digest = "0b31b1c02ff458ad9b7b81cbdf8f028bd54699fa151f221d1e8de6817db93427";
        let oci = format!("latest@sha256:{digest}");
        let bucket = format!("sha256:{digest}");
        let files = |revision| Deployed { revision, name: "apps", ..Deployed::default() };
        let chart = |revision| Deployed { revision, name: "podinfo", is_chart: true, digest: None };
        let from = |kind, url| Some(Source { kind, url, ..Source::default() });
        let git_chart = Source {
            path: Some("charts/a"),
            revision: Some(&git),
            ..from("GitRepository", "https://github.com/Org/Fleet").unwrap()
        };
        let under = Source {
            path: Some("./clusters/prod/"),
            ..from("GitRepository", "ssh://git@github.com:22/Org/Fleet.git").unwrap()
        };
        let table: Vec<(Deployed<'_>, Option<Source<'_>>, String)> = vec![
            (
                files(&git),
                from("GitRepository", "https://github.com/Org/Fleet.git"),
                format!("pkg:github/org/fleet@{SHA}"),
            ),
            (files(&git), Some(under), format!("pkg:github/org/fleet@{SHA}#clusters/prod")),
            (
                files(&git),
                from("GitRepository", "https://bitbucket.org/Org/Fleet"),
                format!("pkg:bitbucket/org/fleet@{SHA}"),
            ),
            (
                files(&git),
                from("GitRepository", "https://me:secret@git.example.com/grp/sub/Fleet.git"),
                format!(
                    "pkg:generic/Fleet@{SHA}?vcs_url=git%2Bhttps:%2F%2Fgit.example.com%2Fgrp%2Fsub%2FFleet.git%40{SHA}"
                ),
            ),
            (
                files(&oci),
                from("OCIRepository", "oci://ghcr.io/org/Manifests"),
                format!("pkg:oci/manifests@sha256:{digest}?repository_url=ghcr.io%2Forg%2FManifests&tag=latest"),
            ),
            (
                files(&bucket),
                from("Bucket", "https://minio.example.com/fleet"),
                format!("pkg:generic/fleet@sha256:{digest}?download_url=https:%2F%2Fminio.example.com%2Ffleet"),
            ),
            (
                chart("6.6.0+0b31b1c02ff4"),
                from("OCIRepository", "oci://ghcr.io/charts/podinfo"),
                "pkg:oci/podinfo?repository_url=ghcr.io%2Fcharts%2Fpodinfo&tag=6.6.0".into(),
            ),
            (
                chart("6.6.0"),
                from("HelmRepository", "oci://ghcr.io/charts/"),
                "pkg:oci/podinfo?repository_url=ghcr.io%2Fcharts%2Fpodinfo&tag=6.6.0".into(),
            ),
            (
                chart("6.6.0+build"),
                from("HelmRepository", "https://example.com/charts"),
                "pkg:generic/podinfo@6.6.0%2Bbuild?download_url=https:%2F%2Fexample.com%2Fcharts&type=helm".into(),
            ),
            (chart("6.6.0"), Some(git_chart), format!("pkg:github/org/fleet@{SHA}#charts/a")),
            (chart("6.6.0"), None, "pkg:generic/podinfo@6.6.0".into()),
            (files(&git), None, format!("pkg:generic/apps@main%40sha1:{SHA}")),
            (files(""), from("GitRepository", "nonsense"), "pkg:generic/apps".into()),
            (Deployed::default(), None, "pkg:generic/unnamed".into()),
        ];
        for (deployed, source, expected) in table {
            let purl = artifact(deployed, source);
            assert_eq!(purl, expected);
            assert!(is_purl(&purl), "{purl}");
        }
    }
}
