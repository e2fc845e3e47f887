//! Inputs in the form in which they wait to be taken in, and in which observations are logged.

use serde::{Deserialize, Serialize};

use super::{Observation, Report, Seen, has_rollouts};
use crate::{ObjectKey, Seq, index::Agreement, plan::Candidate};

/// What an event says of its object's rollouts, beside what the fold asks of every event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// UID of the object; empty when it wasn't named.
    pub uid: String,
    /// The beginning of its message: [`MESSAGE`](super::MESSAGE) bytes.
    pub message: String,
    /// `timestamp` as seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    /// `originRevision`.
    pub origin_revision: Option<String>,
    /// `token`: digest of a HelmRelease's values.
    pub token: Option<String>,
    /// `oci-digest`.
    pub oci_digest: Option<String>,
    /// What was known of the object when the event came.
    pub hints: Hints,
}

/// What was known of an object when an event of it came, and the event doesn't say. It is logged with the event: a replay
/// must not ask again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Whether tests decide about a HelmRelease, where that is known.
    pub tests_decide: Option<bool>,
    /// The object is known to carry a deletion timestamp.
    pub deleting: bool,
    /// What the object's own status said of the event's revision, where a watch sees it.
    pub status: Option<Agreement>,
}

impl Hints {
    /// How the store spells them; `None` when nothing is known.
    pub fn code(self) -> Option<i64> {
        let tests = match self.tests_decide {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        };
        let status = match self.status {
            None => 0,
            Some(Agreement::Neither) => 1,
            Some(Agreement::Ready) => 2,
            Some(Agreement::Failed) => 3,
        };
        Some(tests | i64::from(self.deleting) << 2 | status << 3).filter(|code| *code != 0)
    }

    /// What the store spells so.
    pub fn from_code(code: Option<i64>) -> Self {
        let code = code.unwrap_or_default();
        let tests_decide = match code & 3 {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        };
        let status = match code >> 3 & 3 {
            1 => Some(Agreement::Neither),
            2 => Some(Agreement::Ready),
            3 => Some(Agreement::Failed),
            _ => None,
        };
        Self { tests_decide, deleting: code & 4 != 0, status }
    }
}

impl Details {
    /// What the candidate that these belong to reports.
    pub(crate) fn report<'a>(&'a self, candidate: &'a Candidate, seq: Seq) -> Report<'a> {
        Report {
            seq,
            object: &candidate.object,
            uid: &self.uid,
            severity: &candidate.severity,
            reason: &candidate.reason,
            message: &self.message,
            timestamp: self.timestamp,
            revision: candidate.revision.as_deref(),
            origin_revision: self.origin_revision.as_deref(),
            commit: candidate.commit.as_deref(),
            updates_commit_status: candidate.updates_commit_status,
            token: self.token.as_deref(),
            oci_digest: self.oci_digest.as_deref(),
            tests_decide: self.hints.tests_decide,
            deleting: self.hints.deleting,
            status: self.hints.status,
        }
    }
}

/// What a watch saw of an object's status, once its Ready condition is about its generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sighting {
    /// What was seen.
    #[serde(skip)]
    pub object: ObjectKey,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The Ready condition's `lastTransitionTime` as seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// Ready: the revision that was applied. Failed: the one that was attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The origin revision that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_revision: Option<String>,
    /// The commit that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// How it was found.
    pub found: Found,
}

/// How a watch found an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// `Ready=True`.
    Ready,
    /// `Ready=False`, and the controller is not in the middle of something.
    Failed {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// It carries a deletion timestamp, or is no more.
    Gone,
}

impl Sighting {
    /// Whether it can say anything of a rollout at all.
    pub fn matters(&self) -> bool {
        has_rollouts(&self.object.group, &self.object.kind)
    }

    /// As the state machine takes it.
    pub fn observation(&self, seq: Seq) -> Observation<'_> {
        let seen = match &self.found {
            Found::Ready => Seen::Ready,
            Found::Failed { reason, message } => Seen::Failed { reason, message },
            Found::Gone => Seen::Gone,
        };
        Observation {
            seq,
            object: &self.object,
            uid: &self.uid,
            timestamp: self.timestamp,
            revision: self.revision.as_deref(),
            origin_revision: self.origin_revision.as_deref(),
            commit: self.commit.as_deref(),
            seen,
        }
    }

    /// How the log tells of it in the columns of an event: severity and reason.
    pub fn words(&self) -> (&'static str, &str) {
        match &self.found {
            Found::Ready => ("info", "Ready"),
            Found::Failed { reason, .. } => ("error", reason),
            Found::Gone => ("info", super::DELETED),
        }
    }

    /// Reads the body of a logged one.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn read(object: ObjectKey, body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body).map(|sighting| Self { object, ..sighting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_read_back() {
        for tests_decide in [None, Some(false), Some(true)] {
            for deleting in [false, true] {
                for status in [None, Some(Agreement::Neither), Some(Agreement::Ready), Some(Agreement::Failed)] {
                    let hints = Hints { tests_decide, deleting, status };
                    assert_eq!(Hints::from_code(hints.code()), hints);
                }
            }
        }
        assert_eq!(Hints::default().code(), None);
    }

    #[test]
    fn what_is_logged_reads_back() {
        let object = ObjectKey { kind: "Kustomization".into(), name: "app".into(), ..ObjectKey::default() };
        let failed = Found::Failed { reason: "HealthCheckFailed".into(), message: "not \"ready\"".into() };
        for found in [Found::Ready, failed, Found::Gone] {
            let seen = Sighting {
                object: object.clone(),
                uid: "u".into(),
                timestamp: Some(7),
                revision: Some("main@sha1:aaaaaaa".into()),
                origin_revision: None,
                commit: None,
                found,
            };
            let body = serde_json::to_vec(&seen).unwrap();
            assert_eq!(Sighting::read(object.clone(), &body).unwrap(), seen);
        }
        let ready = Sighting::read(object, br#"{"found":"ready"}"#).unwrap();
        insta::assert_json_snapshot!(ready, @r#"
        {
          "found": "ready"
        }
        "#);
    }
}
