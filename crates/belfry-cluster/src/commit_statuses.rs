//! What CommitStatuses say of themselves: conditions, what was posted last, and which objects name no commit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use belfry_api::{CommitStatusStatus, POSTED_CONTEXTS, PostedStatus};
use belfry_core::ConfigKey;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    kinds::{COMMIT_STATUS, Kind},
    status::{Report, condition, set},
};

/// The conditions that are ours to write.
const OWNED: [&str; 2] = ["Ready", "Conflict"];
/// Objects without a commit that are named.
const WITHOUT_COMMIT: usize = 20;
/// What is said when there is nothing to say.
const IN_FORCE: &str = "Rollouts are shown as commit statuses";

/// What is to be said of a CommitStatus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitStatusReport {
    /// The CommitStatus.
    pub key: ConfigKey,
    /// Its UID.
    pub uid: Arc<str>,
    /// The generation that was looked at.
    pub generation: i64,
    /// How it is.
    pub state: CommitStatusState,
    /// Another one writes the same contexts: which, and what to do about it.
    pub conflict: Option<String>,
    /// What was posted since the start, the latest first. What its status says of other contexts stays, as far as there
    /// is room.
    pub posted: Vec<PostedStatus>,
    /// Whether objects name a commit, as far as that was heard since the start, by kind/namespace/name. What its status
    /// says of others stays.
    pub commits: BTreeMap<String, bool>,
}

/// How a CommitStatus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitStatusState {
    /// It is in force.
    Ready {
        /// What is nevertheless to be said, such as what a git host refused; none: nothing. `None` as a whole while
        /// nothing was heard of it since the start: what its status says of this generation stays.
        remarks: Option<Vec<String>>,
    },
    /// It is suspended: the conditions stay as they are.
    Suspended,
    /// It posts nothing, or not what is written.
    Failed {
        /// One word.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl Report for Arc<CommitStatusReport> {
    type Status = CommitStatusStatus;
    const WHAT: &'static str = "writing the status of CommitStatuses";
    const GATHER: Duration = Duration::from_secs(1);

    fn kind() -> &'static Kind {
        &COMMIT_STATUS
    }

    fn key(&self) -> &ConfigKey {
        &self.key
    }

    fn uid(&self) -> &str {
        &self.uid
    }

    fn generation(&self) -> i64 {
        self.generation
    }

    fn next(&self, seen: &CommitStatusStatus, now: Timestamp) -> CommitStatusStatus {
        let mut status = seen.clone();
        status.posted = posted(&self.posted, &seen.posted);
        status.without_commit = without_commit(&self.commits, &seen.without_commit);
        let ready = match &self.state {
            CommitStatusState::Suspended => return status,
            CommitStatusState::Failed { reason, message } => ("False", *reason, message.clone()),
            CommitStatusState::Ready { remarks } => ("True", "Succeeded", self.message(remarks.as_deref(), seen)),
        };
        let (word, reason, message) = ready;
        set(&mut status.conditions, condition(self.generation, "Ready", word, reason, &message), now);
        match &self.conflict {
            Some(message) => {
                let conflict = condition(self.generation, "Conflict", "True", "ContextConflict", message);
                set(&mut status.conditions, conflict, now);
            }
            None => status.conditions.retain(|condition| condition.type_ != "Conflict"),
        }
        status.conditions.sort_by_key(|condition| OWNED.iter().position(|owned| *owned == condition.type_));
        status.observed_generation = Some(self.generation);
        status
    }

    fn fields(status: &CommitStatusStatus) -> Value {
        json!({
            "conditions": status.conditions,
            "observedGeneration": status.observed_generation,
            "posted": (!status.posted.is_empty()).then_some(&status.posted),
            "withoutCommit": (!status.without_commit.is_empty()).then_some(&status.without_commit),
        })
    }
}

impl CommitStatusReport {
    fn message(&self, remarks: Option<&[String]>, seen: &CommitStatusStatus) -> String {
        match remarks {
            Some([]) => IN_FORCE.to_owned(),
            Some(remarks) => format!("{IN_FORCE}; {}", remarks.join("; ")),
            None => {
                let said = seen.conditions.iter().find(|known| {
                    let ours = known.type_ == "Ready" && known.status == "True" && known.message.starts_with(IN_FORCE);
                    ours && known.observed_generation == Some(self.generation)
                });
                said.map_or_else(|| IN_FORCE.to_owned(), |known| known.message.clone())
            }
        }
    }
}

/// What was posted since the start, and before under other contexts: the latest of it.
fn posted(since: &[PostedStatus], before: &[PostedStatus]) -> Vec<PostedStatus> {
    let is_new = |known: &&PostedStatus| since.iter().all(|posted| posted.context != known.context);
    let mut all: Vec<PostedStatus> = since.iter().chain(before.iter().filter(is_new)).cloned().collect();
    // Times of one form, in UTC: they sort as texts do.
    all.sort_by(|a, b| b.time.cmp(&a.time));
    all.truncate(POSTED_CONTEXTS);
    all
}

fn without_commit(since: &BTreeMap<String, bool>, before: &[String]) -> Vec<String> {
    let before = before.iter().filter(|object| !since.contains_key(*object));
    let since = since.iter().filter(|(_, has)| !**has).map(|(object, _)| object);
    let mut all: Vec<String> = before.chain(since).cloned().collect();
    all.sort();
    all.dedup();
    all.truncate(WITHOUT_COMMIT);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: CommitStatusState) -> CommitStatusReport {
        CommitStatusReport {
            key: ConfigKey::commit_status("apps", "git"),
            uid: "u".into(),
            generation: 2,
            state,
            conflict: None,
            posted: Vec::new(),
            commits: BTreeMap::new(),
        }
    }

    fn shown(context: &str, commit: &str, second: u8) -> PostedStatus {
        PostedStatus {
            context: context.into(),
            commit: commit.into(),
            state: "success".into(),
            time: format!("2026-01-01T00:00:{second:02}Z"),
        }
    }

    fn next(report: CommitStatusReport, seen: &CommitStatusStatus, second: i64) -> CommitStatusStatus {
        Arc::new(report).next(seen, Timestamp::from_second(second).unwrap())
    }

    fn words(status: &CommitStatusStatus) -> Vec<String> {
        let all = status.conditions.iter();
        all.map(|c| format!("{}={} {} {} {}", c.type_, c.status, c.reason, c.last_transition_time, c.message)).collect()
    }

    #[test]
    fn a_restart_takes_over_what_the_status_says() {
        let seen = CommitStatusStatus {
            posted: vec![shown("b", "1", 9), shown("a", "1", 5)],
            without_commit: vec!["HelmRelease/apps/x".into(), "HelmRelease/apps/y".into()],
            ..CommitStatusStatus::default()
        };
        let quiet = report(CommitStatusState::Ready { remarks: None });
        let after = next(quiet.clone(), &seen, 0);
        assert_eq!((&after.posted, &after.without_commit), (&seen.posted, &seen.without_commit));
        let heard = CommitStatusReport {
            posted: vec![shown("a", "2", 7)],
            commits: [("HelmRelease/apps/x".to_owned(), true), ("HelmRelease/apps/a".to_owned(), false)].into(),
            ..quiet
        };
        let after = next(heard.clone(), &seen, 0);
        assert_eq!(after.posted, [shown("b", "1", 9), shown("a", "2", 7)]);
        assert_eq!(after.without_commit, ["HelmRelease/apps/a", "HelmRelease/apps/y"]);
        assert_eq!(next(heard, &after, 60), after, "what is said already is not written again");
    }

    #[test]
    fn lists_are_bounded_and_the_latest_stay() {
        let many = CommitStatusReport {
            posted: (0..30).rev().map(|i| shown(&format!("c{i}"), "1", i)).collect(),
            commits: (0..30).map(|i| (format!("HelmRelease/apps/{i}"), false)).collect(),
            ..report(CommitStatusState::Ready { remarks: None })
        };
        let after = next(many, &CommitStatusStatus::default(), 0);
        assert_eq!((after.posted.len(), after.without_commit.len()), (POSTED_CONTEXTS, WITHOUT_COMMIT));
        assert_eq!((&*after.posted[0].context, &*after.posted[POSTED_CONTEXTS - 1].context), ("c29", "c10"));
    }

    #[test]
    fn conditions_follow_what_is_found() {
        let ready = |remarks| report(CommitStatusState::Ready { remarks });
        let refused = || Some(vec!["the git host refused x".to_owned()]);
        let first = next(ready(refused()), &CommitStatusStatus::default(), 0);
        let epoch = "1970-01-01T00:00:00Z";
        let said = format!("Ready=True Succeeded {epoch} {IN_FORCE}; the git host refused x");
        assert_eq!(words(&first), [&*said]);
        assert_eq!(first.observed_generation, Some(2));
        // After a restart nothing is known yet.
        assert_eq!(words(&next(ready(None), &first, 5)), [&*said]);
        let edited = CommitStatusReport { generation: 3, ..ready(None) };
        assert_eq!(words(&next(edited, &first, 5)), [format!("Ready=True Succeeded {epoch} {IN_FORCE}")]);
        let fixed = next(ready(Some(Vec::new())), &first, 5);
        assert_eq!(words(&fixed), [format!("Ready=True Succeeded {epoch} {IN_FORCE}")]);

        let failed = CommitStatusState::Failed { reason: "ProviderNotFound", message: "no such".into() };
        let conflict = Some("CommitStatus/apps/other writes the same".to_owned());
        let failed = next(CommitStatusReport { conflict, ..report(failed) }, &fixed, 6);
        let late = "1970-01-01T00:00:06Z";
        assert_eq!(
            words(&failed),
            [
                format!("Ready=False ProviderNotFound {late} no such"),
                format!("Conflict=True ContextConflict {late} CommitStatus/apps/other writes the same"),
            ]
        );
        let endless = report(CommitStatusState::Ready { remarks: Some(vec!["€".repeat(40_000)]) });
        assert!(next(endless, &failed, 7).conditions[0].message.len() <= 4096);
        assert_eq!(next(report(CommitStatusState::Suspended), &failed, 7), failed);
        assert_eq!(
            words(&next(ready(None), &failed, 8)),
            [format!("Ready=True Succeeded 1970-01-01T00:00:08Z {IN_FORCE}")]
        );
    }
}
