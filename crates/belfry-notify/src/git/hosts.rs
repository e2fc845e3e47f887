//! The git hosts that take statuses of commits, and what there is to know about each before a repository is.

use super::{GitHost, address::Address, auth::Auth, azuredevops, bitbucket, bitbucketserver, gitea, github, gitlab};
use crate::{Misconfigured, settings::Resolved};

/// Characters that we keep to where a host documents no limit: more is of no use on a page.
const UNDOCUMENTED: usize = 255;
/// The same for links.
const LINK: usize = 2048;

/// A git host that takes statuses of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// GitHub, GitHub Enterprise.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, Forgejo.
    Gitea,
    /// Bitbucket Cloud.
    Bitbucket,
    /// Bitbucket Server and Data Center.
    BitbucketServer,
    /// Azure DevOps.
    AzureDevOps,
}

/// How much a host takes, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of a context.
    pub context: usize,
    /// Of a description.
    pub description: usize,
    /// Of the name beside a context that had to be shortened.
    pub name: usize,
    /// Of a link; what is longer is left out.
    pub link: usize,
}

impl Host {
    /// Every host.
    pub const ALL: [Self; 6] =
        [Self::GitHub, Self::GitLab, Self::Gitea, Self::Bitbucket, Self::BitbucketServer, Self::AzureDevOps];

    /// The host of a provider type, if that is one that takes statuses.
    pub fn of(provider_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.provider_type() == provider_type)
    }

    /// The provider type.
    pub fn provider_type(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Bitbucket => "bitbucket",
            Self::BitbucketServer => "bitbucketserver",
            Self::AzureDevOps => "azuredevops",
        }
    }

    /// How much it takes.
    pub fn limits(self) -> Limits {
        let undocumented = Limits { context: UNDOCUMENTED, description: UNDOCUMENTED, name: UNDOCUMENTED, link: LINK };
        match self {
            Self::GitHub => Limits { context: github::CONTEXT, description: github::DESCRIPTION, ..undocumented },
            Self::GitLab => {
                Limits { context: gitlab::TEXT, description: gitlab::TEXT, link: gitlab::TEXT, ..undocumented }
            }
            Self::Bitbucket => Limits {
                context: bitbucket::KEY,
                description: bitbucket::TEXT,
                name: bitbucket::TEXT,
                link: bitbucket::LINK,
            },
            Self::BitbucketServer => Limits {
                context: bitbucket::TEXT,
                description: bitbucket::TEXT,
                name: bitbucket::TEXT,
                link: bitbucket::LINK,
            },
            Self::Gitea | Self::AzureDevOps => undocumented,
        }
    }

    /// Where it stands when a Provider has no address; Gitea and Bitbucket Server stand nowhere in particular.
    pub(super) fn public(self) -> Option<&'static str> {
        match self {
            Self::GitHub => Some("https://github.com"),
            Self::GitLab => Some("https://gitlab.com"),
            Self::Bitbucket => Some("https://bitbucket.org"),
            Self::AzureDevOps => Some("https://dev.azure.com"),
            Self::Gitea | Self::BitbucketServer => None,
        }
    }

    /// What writes statuses of a repository's commits.
    pub(super) fn open(self, repository: &Address) -> Result<Box<dyn GitHost>, &'static str> {
        match self {
            Self::GitHub => github::host(repository),
            Self::GitLab => gitlab::host(repository),
            Self::Gitea => gitea::host(repository),
            Self::Bitbucket => bitbucket::host(repository),
            Self::BitbucketServer => bitbucketserver::host(repository),
            Self::AzureDevOps => azuredevops::host(repository),
        }
    }

    /// What requests to it prove themselves with; of the address only the host counts.
    pub(super) fn auth(self, resolved: &Resolved<'_>, site: &Address) -> Result<Auth, Misconfigured> {
        match self {
            Self::GitHub => github::auth(resolved, site),
            Self::GitLab => gitlab::auth(resolved),
            Self::Gitea => gitea::auth(resolved),
            Self::Bitbucket => bitbucket::auth(resolved),
            Self::BitbucketServer => bitbucketserver::auth(resolved),
            Self::AzureDevOps => azuredevops::auth(resolved),
        }
    }
}
