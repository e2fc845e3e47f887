//! What is known of CommitStatuses, for whoever writes their statuses in a cluster: how they compiled, what was posted of
//! them since the start, and what was not and why. In memory; what an object's status said before is taken over by the
//! one who writes it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_api::{CommitStatusSpec, GROUP, Metadata, POSTED_CONTEXTS, PostedStatus};
use belfry_cluster::{CommitStatusReport, CommitStatusState};
use belfry_core::{
    ConfigKey, ObjectKey, Time,
    commit_status::State,
    config::{CommitStatusRule, Document, Finding, Problem},
};
use jiff::Timestamp;
use serde::Deserialize as _;
use tokio::sync::watch;

/// Refusals that are told of one CommitStatus, the latest.
const REFUSALS: usize = 5;
/// Objects of one CommitStatus of which is remembered whether they name a commit.
const OBJECTS: usize = 1_000;
/// Bytes of a context, and of why it was refused.
const TEXT: usize = 512;

/// What is to be said, of all CommitStatuses.
pub type Reports = Arc<Vec<Arc<CommitStatusReport>>>;

/// A context of a commit.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Context.
    pub context: String,
    /// Commit.
    pub commit: String,
    /// What it shows, or should.
    pub state: State,
}

/// What is known of CommitStatuses.
#[derive(Default)]
pub struct StatusBoard {
    known: Mutex<BTreeMap<ConfigKey, Known>>,
    reports: watch::Sender<Reports>,
}

#[derive(Default)]
struct Known {
    uid: Arc<str>,
    /// `None` until the API server has told of it: then only what was learnt is known.
    compiled: Option<Compiled>,
    learnt: Learnt,
    /// What was said last.
    report: Option<Arc<CommitStatusReport>>,
}

struct Compiled {
    generation: i64,
    suspended: bool,
    problems: Vec<Problem>,
}

/// What came of posting since the start.
#[derive(Default)]
struct Learnt {
    /// Something did.
    anything: bool,
    /// The latest first.
    posted: Vec<PostedStatus>,
    /// Contexts that were refused, and haven't been posted since, with what is to be said; the latest first.
    refused: Vec<(String, String)>,
    commits: BTreeMap<String, bool>,
}

impl StatusBoard {
    /// What is to be said, whenever that changes. Nothing is remembered before somebody wants to know.
    pub fn reports(&self) -> watch::Receiver<Reports> {
        self.reports.subscribe()
    }

    /// Takes in a complete configuration, and what was found about it.
    pub fn configured(&self, documents: &[Document], findings: &[Finding]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *known);
        for (key, uid, mut compiled) in documents.iter().filter_map(read) {
            let of_it = findings.iter().filter(|finding| finding.object.as_ref() == Some(&key));
            compiled.problems = of_it.filter_map(|finding| finding.problem.clone()).collect();
            let same = before.remove(&key).filter(|known| known.uid == uid);
            let mut entry = same.unwrap_or_else(|| Known { uid, ..Known::default() });
            entry.compiled = Some(compiled);
            entry.renew(&key);
            known.insert(key, entry);
        }
        self.publish(&known);
    }

    /// A status was posted.
    pub fn posted(&self, rule: &CommitStatusRule, shown: &Shown, at: Time) {
        let context = cut(&shown.context);
        let posted = PostedStatus {
            context: context.clone(),
            commit: shown.commit.clone(),
            state: shown.state.as_str().to_owned(),
            time: Timestamp::from_microsecond(at.0).map(|at| format!("{at:.0}")).unwrap_or_default(),
        };
        self.learn(rule, |learnt| {
            learnt.anything = true;
            learnt.refused.retain(|(known, _)| *known != context);
            learnt.posted.retain(|known| known.context != context);
            learnt.posted.insert(0, posted);
            learnt.posted.truncate(POSTED_CONTEXTS);
            true
        });
    }

    /// A status was given up. `shown` is unknown when not even its context could be told; then it is the object's.
    pub fn refused(&self, rule: &CommitStatusRule, shown: Option<&Shown>, object: &ObjectKey, why: &str) {
        let context = cut(&shown.map_or_else(|| name(object), |shown| shown.context.clone()));
        let commit = shown.and_then(|shown| shown.commit.get(..12)).map(|commit| format!(" at {commit}"));
        let remark = cut(&format!("'{context}'{} was refused: {why}", commit.unwrap_or_default()));
        self.learn(rule, |learnt| {
            learnt.anything = true;
            learnt.refused.retain(|(known, _)| *known != context);
            learnt.refused.insert(0, (context, remark));
            learnt.refused.truncate(REFUSALS);
            true
        });
    }

    /// Whether the rollout of an object names a commit.
    pub fn names_commit(&self, rule: &CommitStatusRule, object: &ObjectKey, does: bool) {
        self.learn(rule, |learnt| {
            let object = name(object);
            if learnt.commits.get(&object) == Some(&does) {
                return false;
            }
            learnt.commits.insert(object, does);
            if learnt.commits.len() > OBJECTS {
                learnt.commits.pop_first();
            }
            true
        });
    }

    /// Takes in what was learnt of a CommitStatus, and says so if it is news.
    fn learn(&self, rule: &CommitStatusRule, learn: impl FnOnce(&mut Learnt) -> bool) {
        if self.reports.receiver_count() == 0 {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry((*rule.key).clone()).or_default();
        if entry.uid != rule.uid {
            // Of one that was deleted since, or of one that the API server has yet to tell of.
            if entry.compiled.is_some() {
                return;
            }
            *entry = Known { uid: rule.uid.clone(), ..Known::default() };
        }
        if learn(&mut entry.learnt) {
            entry.renew(&rule.key);
            self.publish(&known);
        }
    }

    fn publish(&self, known: &BTreeMap<ConfigKey, Known>) {
        let reports: Vec<_> = known.values().filter_map(|known| known.report.clone()).collect();
        self.reports.send_if_modified(|current| {
            let changed = **current != reports;
            if changed {
                *current = Arc::new(reports);
            }
            changed
        });
    }
}

impl Known {
    fn renew(&mut self, key: &ConfigKey) {
        let Some(compiled) = &self.compiled else { return };
        let learnt = &self.learnt;
        let conflict = compiled.problems.iter().find(|problem| problem.reason == CONFLICT);
        self.report = Some(Arc::new(CommitStatusReport {
            key: key.clone(),
            uid: self.uid.clone(),
            generation: compiled.generation,
            state: state(compiled, learnt),
            conflict: conflict.map(|problem| problem.message.clone()),
            posted: learnt.posted.clone(),
            commits: learnt.commits.clone(),
        }));
    }
}

/// Another CommitStatus writes the same contexts.
const CONFLICT: &str = "ContextConflict";

fn state(compiled: &Compiled, learnt: &Learnt) -> CommitStatusState {
    let failed = |problem: &Problem| CommitStatusState::Failed { reason: problem.reason, message: problem.to_string() };
    let mut problems = compiled.problems.iter();
    if let Some(problem) = problems.clone().find(|problem| problem.refused) {
        return failed(problem);
    }
    if compiled.suspended {
        return CommitStatusState::Suspended;
    }
    if let Some(problem) = problems.find(|problem| problem.field == "spec.providerRef.name") {
        return failed(problem);
    }
    let warnings = compiled.problems.iter().filter(|problem| problem.reason != CONFLICT).map(ToString::to_string);
    let refused = learnt.refused.iter().map(|(_, remark)| remark.clone());
    let remarks: Vec<String> = warnings.chain(refused).collect();
    CommitStatusState::Ready { remarks: (learnt.anything || !remarks.is_empty()).then_some(remarks) }
}

/// A CommitStatus among documents.
fn read(document: &Document) -> Option<(ConfigKey, Arc<str>, Compiled)> {
    let value = &document.value;
    let ours = value["apiVersion"].as_str().is_some_and(|version| version.split('/').next() == Some(GROUP));
    if value["kind"] != "CommitStatus" || !ours {
        return None;
    }
    let metadata = Metadata::deserialize(&value["metadata"]).ok()?;
    let suspended = CommitStatusSpec::deserialize(&value["spec"]).is_ok_and(|spec| spec.suspend);
    let key = ConfigKey::commit_status(&metadata.namespace, &metadata.name);
    let compiled = Compiled { generation: metadata.generation, suspended, problems: Vec::new() };
    Some((key, metadata.uid.as_str().into(), compiled))
}

fn name(object: &ObjectKey) -> String {
    format!("{}/{}/{}", object.kind, object.namespace, object.name)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT)].to_owned()
}

#[cfg(test)]
mod tests;
