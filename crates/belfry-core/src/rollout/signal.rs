//! What a controller means by an event: the rules per kind and reason.

use super::{Phase, Report};
use crate::{Seq, index::Agreement, plan::Candidate};

/// Groups whose objects go to no revision: they fetch, watch or build what others deploy.
const WITHOUT_ROLLOUTS: [&str; 4] = [
    "source.toolkit.fluxcd.io",
    "source.extensions.fluxcd.io",
    "image.toolkit.fluxcd.io",
    "notification.toolkit.fluxcd.io",
];
/// Their kinds, for events that name no group.
const KINDS_WITHOUT_ROLLOUTS: [&str; 14] = [
    "Alert",
    "ArtifactGenerator",
    "Bucket",
    "ExternalArtifact",
    "GitRepository",
    "HelmChart",
    "HelmRepository",
    "ImagePolicy",
    "ImageRepository",
    "ImageUpdateAutomation",
    "OCIRepository",
    "Provider",
    "Receiver",
    "CommitStatus",
];

/// What an event says of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// It waits for something.
    Waits,
    /// It goes on.
    Progress,
    /// The attempt was called off.
    Canceled,
    /// It is done.
    Success,
    /// It went wrong.
    Failure,
    /// Helm went back, or tried to, to the revision that the event names.
    Rollback {
        /// The named revision is live again.
        done: bool,
    },
    /// Helm removed the release, or tried to.
    Uninstall {
        /// Because it could not be installed.
        remedy: bool,
    },
    /// The object is being deleted.
    Deletion,
}

/// A signal and how it comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub signal: Signal,
    /// It may be the first sign of an attempt, and so of a return to an earlier revision; else it always follows one.
    pub begins: bool,
    /// It comes again and again while nothing changes.
    pub periodic: bool,
    /// The object's own status agrees, or nobody watches it.
    pub confirmed: bool,
}

impl Meaning {
    /// What it says of the newest rollout: an end that the object's status doesn't confirm is none yet.
    pub fn now(self) -> Signal {
        match self.signal {
            Signal::Success | Signal::Failure if !self.confirmed => Signal::Progress,
            signal => signal,
        }
    }
}

impl Signal {
    fn begins(self) -> Option<Meaning> {
        Some(Meaning { signal: self, begins: true, periodic: false, confirmed: true })
    }

    fn follows(self) -> Option<Meaning> {
        Some(Meaning { signal: self, begins: false, periodic: false, confirmed: true })
    }

    fn recurs(self) -> Option<Meaning> {
        Some(Meaning { signal: self, begins: true, periodic: true, confirmed: true })
    }
}

/// What an event means; `None` when it says nothing of any rollout.
pub(super) fn meaning(report: &Report<'_>) -> Option<Meaning> {
    let object = report.object;
    let meaning = match object.kind.as_str() {
        _ if !has_rollouts(&object.group, &object.kind) => None,
        // It has no status, so that none agrees is said of events that nobody vouches for.
        "" if report.status == Some(Agreement::Neither) => None,
        _ if report.deleting => Signal::Deletion.follows(),
        "Kustomization" => kustomization(report),
        "HelmRelease" => helm_release(report),
        _ => other(report),
    }?;
    let confirmed = match report.status {
        None => true,
        Some(status) => match meaning.signal {
            Signal::Success => status == Agreement::Ready,
            Signal::Failure => status == Agreement::Failed,
            _ => true,
        },
    };
    Some(Meaning { confirmed, ..meaning })
}

/// Whether objects of this kind go to revisions.
pub fn has_rollouts(group: &str, kind: &str) -> bool {
    !(WITHOUT_ROLLOUTS.contains(&group) || group.is_empty() && KINDS_WITHOUT_ROLLOUTS.contains(&kind))
}

/// kustomize-controller takes the reason from the Ready condition of the moment, whatever the event is about.
fn kustomization(report: &Report<'_>) -> Option<Meaning> {
    let error = is_error(report);
    match report.reason {
        "DependencyNotReady" => Signal::Waits.begins(),
        "HealthCheckCanceled" => Signal::Canceled.follows(),
        // The last sign of an attempt but for its success: a slow one must not look like another attempt.
        "Progressing" if report.message.starts_with("Health check passed") => Signal::Progress.follows(),
        "Progressing" => Signal::Progress.begins(),
        // A deletion that could not prune; the condition still tells of the last success.
        "ReconciliationSucceeded" if error => Signal::Deletion.follows(),
        "ReconciliationSucceeded" if report.updates_commit_status => Signal::Success.recurs(),
        _ if error => Signal::Failure.begins(),
        // While it reconciles, the reason is Progressing: with any other one, it was deleted and pruned.
        "info" => Signal::Progress.begins(),
        _ if is_prune_notice(report.message) => Signal::Deletion.follows(),
        _ => Signal::Progress.begins(),
    }
}

/// `Kind/namespace/name deleted`, a line each; the first is sure to be whole.
fn is_prune_notice(message: &str) -> bool {
    message.lines().next().is_some_and(|line| line.trim_end().ends_with(" deleted"))
}

/// helm-controller names what it did, and reports nothing when there was nothing to do.
fn helm_release(report: &Report<'_>) -> Option<Meaning> {
    match report.reason {
        "InstallSucceeded" | "UpgradeSucceeded" if report.tests_decide == Some(true) => Signal::Progress.begins(),
        "InstallSucceeded" | "UpgradeSucceeded" => Signal::Success.begins(),
        "TestSucceeded" => Signal::Success.follows(),
        "TestFailed" if report.tests_decide == Some(false) => None,
        "TestFailed" => Signal::Failure.follows(),
        "RollbackSucceeded" => Signal::Rollback { done: true }.follows(),
        "RollbackFailed" => Signal::Rollback { done: false }.follows(),
        "UninstallSucceeded" => Signal::Uninstall { remedy: report.message.contains("remediation") }.follows(),
        // Only ever a second misfortune: of a remedy, or of a deletion.
        "UninstallFailed" => None,
        "DriftDetected" | "DriftCorrected" | "DriftCorrectionFailed" => None,
        "DependencyNotReady" => Signal::Waits.begins(),
        "HealthCheckCanceled" => Signal::Canceled.follows(),
        "Progressing" => Signal::Progress.begins(),
        _ if is_error(report) => Signal::Failure.begins(),
        "PendingRelease" => Signal::Progress.begins(),
        "ReconciliationSucceeded" => Signal::Success.recurs(),
        _ => None,
    }
}

/// Kinds that Flux doesn't know, and the unnamed object.
fn other(report: &Report<'_>) -> Option<Meaning> {
    match report.reason {
        "DependencyNotReady" => Signal::Waits.begins(),
        "HealthCheckCanceled" => Signal::Canceled.follows(),
        "Progressing" => Signal::Progress.begins(),
        _ if is_error(report) => Signal::Failure.begins(),
        "ReconciliationSucceeded" => Signal::Success.recurs(),
        "InstallSucceeded" | "UpgradeSucceeded" => Signal::Success.begins(),
        "TestSucceeded" => Signal::Success.follows(),
        "RollbackSucceeded" | "UninstallSucceeded" => None,
        _ if report.updates_commit_status => Signal::Success.recurs(),
        _ => Signal::Progress.begins(),
    }
}

/// How a rollout ends by what an event says of it, if its object's status agrees.
pub fn end(candidate: &Candidate) -> Option<Phase> {
    let report = candidate.rollout.as_deref()?.report(candidate, Seq(0));
    match meaning(&report)?.signal {
        Signal::Success => Some(Phase::Succeeded),
        Signal::Failure => Some(Phase::Failed),
        _ => None,
    }
}

/// Whether success is reported with this reason.
pub fn is_success(reason: &str) -> bool {
    matches!(reason, "ReconciliationSucceeded" | "InstallSucceeded" | "UpgradeSucceeded" | "TestSucceeded")
}

/// Controllers always say how severe it is. Events without are posted by hand or by the older event store's clients, and
/// the reason tells.
fn is_error(report: &Report<'_>) -> bool {
    report.severity == "error" || report.severity.is_empty() && report.reason.ends_with("Failed")
}
