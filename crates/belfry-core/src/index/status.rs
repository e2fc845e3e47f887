//! What an object's own status decides about the revision that it goes to.

use jiff::Timestamp;

use super::{Condition, IndexedObject};
use crate::{Time, revision};

const HELM: &str = "helm.toolkit.fluxcd.io";
const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io";
/// Reasons of a Ready condition that is False, and of a controller that waits or has called an attempt off.
const UNDECIDED: [&str; 5] =
    ["DependencyNotReady", "HealthCheckCanceled", "Progressing", "ProgressingWithRetry", "SourceNotReady"];

/// The artifact could not be fetched or has no such path; the revision isn't attempted then.
const ARTIFACT_FAILED: &str = "ArtifactFailed";

/// What a status decides about a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'a> {
    /// As the object names it.
    pub revision: &'a str,
    /// The one that its artifact was made from.
    pub origin: Option<&'a str>,
    /// `None`: it is applied.
    pub failure: Option<&'a Condition>,
}

/// What a status says of one revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Nothing, or something of another one.
    Neither,
    /// It is applied.
    Ready,
    /// It could not be applied.
    Failed,
}

impl IndexedObject {
    /// Whether it is of a kind that goes to revisions, and says in its status to which.
    pub fn tells_revisions(&self) -> bool {
        matches!((self.group.as_str(), self.kind.as_str()), (KUSTOMIZE, "Kustomization") | (HELM, "HelmRelease"))
    }

    /// What its status decides, once that is about its generation and the controller is not in the middle of something.
    /// `source` is what it is made from.
    pub fn decided<'a>(&'a self, source: Option<&'a Self>) -> Option<Decided<'a>> {
        if self.deleting || !self.tells_revisions() {
            return None;
        }
        let ready = self.ready.as_ref().filter(|ready| ready.observed_generation == self.generation)?;
        let given = |revision: &'a Option<String>| revision.as_deref().filter(|revision| !revision.is_empty());
        let attempted = given(&self.attempted_revision);
        match ready.status.as_str() {
            // helm-controller names no revision but the attempted one, which is the installed one once it is ready.
            "True" if self.group == HELM => Some(Decided { revision: attempted?, origin: None, failure: None }),
            "True" => {
                let origin = given(&self.applied_origin_revision);
                Some(Decided { revision: given(&self.applied_revision)?, origin, failure: None })
            }
            "False" if !UNDECIDED.contains(&ready.reason.as_str()) => {
                // The artifact of a HelmRepository is its index.
                let source = source.filter(|source| source.kind != "HelmRepository");
                let held = source.and_then(|source| given(&source.artifact_revision));
                let first = if ready.reason == ARTIFACT_FAILED { held } else { attempted };
                let revision = first.or(attempted).or(held)?;
                let origin = source.and_then(|source| given(&source.artifact_origin_revision));
                Some(Decided { revision, origin: origin.filter(|_| held == Some(revision)), failure: Some(ready) })
            }
            _ => None,
        }
    }

    /// What its status says of a revision, or of whichever one it goes to.
    pub fn agreement(&self, asked: Option<&str>, source: Option<&Self>) -> Agreement {
        let Some(Decided { revision, origin, failure }) = self.decided(source) else { return Agreement::Neither };
        let named = [Some(revision), origin].into_iter().flatten();
        match (asked.is_none_or(|asked| named.into_iter().any(|named| revision::same(named, asked))), failure) {
            (false, _) => Agreement::Neither,
            (true, None) => Agreement::Ready,
            (true, Some(_)) => Agreement::Failed,
        }
    }

    /// Whether a source's artifact is a revision, or was made from it.
    pub fn holds(&self, asked: &str) -> bool {
        let held = [&self.artifact_revision, &self.artifact_origin_revision].into_iter().flatten();
        held.into_iter().any(|held| revision::same(held, asked))
    }
}

impl Condition {
    /// When its status changed last.
    pub fn changed(&self) -> Option<Time> {
        self.last_transition_time.parse::<Timestamp>().ok().map(|at| Time(at.as_microsecond()))
    }
}
