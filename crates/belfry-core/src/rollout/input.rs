//! What the state machine takes in: what a controller reported, or what a watch saw.

use std::{borrow::Cow, sync::Arc};

use super::{Rollout, TEXT, cut};
use crate::{ObjectKey, Seq, Time, index::Agreement, revision::Revision};

/// One thing learnt about an object.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// An event.
    Reported(Report<'a>),
    /// What a watch saw of the object's status. It may confirm or end a rollout, and tell of one that no event told of,
    /// but never opens one that has ended.
    Observed(Observation<'a>),
}

/// What an event says, without the prefixes of metadata keys.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Its arrival.
    pub seq: Seq,
    /// What it is about.
    pub object: &'a ObjectKey,
    /// UID of the object; empty when it wasn't named.
    pub uid: &'a str,
    /// Severity as sent.
    pub severity: &'a str,
    /// Reason as sent.
    pub reason: &'a str,
    /// Message as sent.
    pub message: &'a str,
    /// `timestamp` as seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// `revision`.
    pub revision: Option<&'a str>,
    /// `originRevision`.
    pub origin_revision: Option<&'a str>,
    /// The hash in the first of `commit`, `originRevision` and `revision` that holds one.
    pub commit: Option<&'a str>,
    /// It carries `commit_status: update`.
    pub updates_commit_status: bool,
    /// `token`: digest of a HelmRelease's values.
    pub token: Option<&'a str>,
    /// `oci-digest`.
    pub oci_digest: Option<&'a str>,
    /// Whether tests decide about a HelmRelease (they are enabled, and their failures not ignored), where that is known.
    pub tests_decide: Option<bool>,
    /// The object is known to carry a deletion timestamp.
    pub deleting: bool,
    /// What the object's own status says of the revision, where a watch sees it: then an end that it doesn't confirm is
    /// none yet.
    pub status: Option<Agreement>,
}

/// What a watch saw of an object's status, once the condition's `observedGeneration` is the object's generation.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Its arrival.
    pub seq: Seq,
    /// What was seen.
    pub object: &'a ObjectKey,
    /// Its UID.
    pub uid: &'a str,
    /// The Ready condition's `lastTransitionTime` as seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// Ready: the revision that was applied. Failed: the one that was attempted.
    pub revision: Option<&'a str>,
    /// The origin revision that belongs to it.
    pub origin_revision: Option<&'a str>,
    /// The commit that belongs to it.
    pub commit: Option<&'a str>,
    /// How the object is.
    pub seen: Seen<'a>,
}

/// How a watch found an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// `Ready=True`.
    Ready,
    /// `Ready=False`, and the controller is not in the middle of something.
    Failed {
        /// The condition's reason.
        reason: &'a str,
        /// The condition's message.
        message: &'a str,
    },
    /// It carries a deletion timestamp, or is no more.
    Gone,
}

/// When and with which words something was learnt.
#[derive(Clone)]
pub(super) struct Heard<'a> {
    pub seq: Seq,
    /// By the clock of who said it, in whole seconds, but never later than its arrival: a clock that was ahead for a
    /// while must not make all that comes after it late.
    pub at: Time,
    pub reason: Cow<'a, str>,
    pub message: Cow<'a, str>,
}

impl<'a> Heard<'a> {
    pub fn new(seq: Seq, timestamp: Option<i64>, reason: &'a str, message: &'a str) -> Self {
        const SECOND: i64 = 1_000_000;
        let arrived = seq.0.div_euclid(SECOND);
        let at = timestamp.map_or(arrived, |second| second.min(arrived));
        Self { seq, at: Time(at.saturating_mul(SECOND)), reason: reason.into(), message: message.into() }
    }
}

/// What an object goes to: a revision, and what tells apart the attempts at one chart version. Bounded.
pub(super) struct Attempt {
    pub revision: String,
    pub origin_revision: Option<String>,
    pub commit: Option<String>,
    pub token: Option<String>,
    pub oci_digest: Option<String>,
}

impl Attempt {
    /// `None` without a revision.
    pub fn of_report(report: &Report<'_>) -> Option<Self> {
        let Report { revision, origin_revision, commit, token, oci_digest, .. } = *report;
        Self::new(revision, origin_revision, commit, token, oci_digest)
    }

    /// `None` without a revision.
    pub fn of_observation(seen: &Observation<'_>) -> Option<Self> {
        Self::new(seen.revision, seen.origin_revision, seen.commit, None, None)
    }

    fn new(
        revision: Option<&str>,
        origin_revision: Option<&str>,
        commit: Option<&str>,
        token: Option<&str>,
        oci_digest: Option<&str>,
    ) -> Option<Self> {
        let kept = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(|text| cut(text, TEXT));
        Some(Self {
            revision: kept(revision)?,
            origin_revision: kept(origin_revision),
            commit: kept(commit),
            token: kept(token),
            oci_digest: kept(oci_digest),
        })
    }

    /// Whether a rollout goes to the same, as far as both sides name things.
    pub fn is(&self, rollout: &Rollout) -> bool {
        self.is_as(Revision::parse(&self.revision), rollout)
    }

    /// Which of these go to the same.
    pub fn among(&self, rollouts: &[Arc<Rollout>]) -> Vec<usize> {
        let revision = Revision::parse(&self.revision);
        rollouts.iter().enumerate().filter(|(_, rollout)| self.is_as(revision, rollout)).map(|(i, _)| i).collect()
    }

    fn is_as(&self, revision: Revision<'_>, rollout: &Rollout) -> bool {
        let agree = |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
        revision.is_same(&self.revision, &rollout.revision)
            && agree(&self.token, &rollout.token)
            && agree(&self.oci_digest, &rollout.oci_digest)
    }
}
