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
use belfry_store::Store;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

/// Refusals that are told of one CommitStatus, the latest.
const REFUSALS: usize = 5;
/// Objects of one CommitStatus of which is remembered whether they name a commit.
const OBJECTS: usize = 1_000;
/// Bytes of a context, and of why it was refused.
const TEXT: usize = 512;

/// Notes for other replicas that wait to be passed on.
const NOTES: usize = 1024;

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
pub struct StatusBoard {
    known: Mutex<BTreeMap<ConfigKey, Known>>,
    reports: watch::Sender<Reports>,
    /// What became of statuses here, for other replicas.
    notes: broadcast::Sender<Note>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self { known: Mutex::default(), reports: watch::Sender::default(), notes: broadcast::Sender::new(NOTES) }
    }
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

/// What one replica tells the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    key: ConfigKey,
    uid: Arc<str>,
    news: News,
}

/// What became of a status.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum News {
    /// It was posted.
    Posted(PostedStatus),
    /// It was given up.
    Refused { context: String, remark: String },
    /// Whether its object names a commit.
    Commit { object: String, does: bool },
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
        let posted = PostedStatus {
            context: cut(&shown.context),
            commit: shown.commit.clone(),
            state: shown.state.as_str().to_owned(),
            time: Timestamp::from_microsecond(at.0).map(|at| format!("{at:.0}")).unwrap_or_default(),
        };
        self.learn(rule, News::Posted(posted));
    }

    /// A status was given up. `shown` is unknown when not even its context could be told; then it is the object's.
    pub fn refused(&self, rule: &CommitStatusRule, shown: Option<&Shown>, object: &ObjectKey, why: &str) {
        let context = cut(&shown.map_or_else(|| name(object), |shown| shown.context.clone()));
        let commit = shown.and_then(|shown| shown.commit.get(..12)).map(|commit| format!(" at {commit}"));
        let remark = cut(&format!("'{context}'{} was refused: {why}", commit.unwrap_or_default()));
        self.learn(rule, News::Refused { context, remark });
    }

    /// Whether the rollout of an object names a commit.
    pub fn names_commit(&self, rule: &CommitStatusRule, object: &ObjectKey, does: bool) {
        self.learn(rule, News::Commit { object: name(object), does });
    }

    /// Takes in what became of a CommitStatus's statuses here, and tells the other replicas if it is news.
    fn learn(&self, rule: &CommitStatusRule, news: News) {
        let note = Note { key: (*rule.key).clone(), uid: rule.uid.clone(), news };
        if self.reports.receiver_count() > 0 && self.take_in(&note) {
            // Without anybody to pass it on there is nobody to tell.
            let _ = self.notes.send(note);
        }
    }

    /// Takes in what became of a CommitStatus's statuses, wherever; whether it is news.
    fn take_in(&self, note: &Note) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(note.key.clone()).or_default();
        if entry.uid != note.uid {
            // Of one that was deleted since, or of one that the API server has yet to tell of.
            if entry.compiled.is_some() {
                return false;
            }
            *entry = Known { uid: note.uid.clone(), ..Known::default() };
        }
        let news = entry.learnt.take_in(&note.news);
        if news {
            entry.renew(&note.key);
            self.publish(&known);
        }
        news
    }

    /// Keeps the boards of all replicas alike: whichever comes to write the statuses knows what the others posted. What is
    /// said while one of them doesn't hear is lost to it, until more becomes of that context.
    pub async fn share(self: Arc<Self>, store: Store) {
        let (mut notes, mut told) = (self.notes.subscribe(), store.told());
        loop {
            tokio::select! {
                note = notes.recv() => match note {
                    Ok(note) => store.tell(serde_json::to_string(&note).unwrap_or_default()).await,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                words = told.recv() => match words.as_deref().map(serde_json::from_str::<Note>) {
                    Ok(Ok(note)) => {
                        self.take_in(&note);
                    }
                    // Said by another version.
                    Ok(Err(error)) => tracing::debug!(%error, "another replica said what can't be read"),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
            }
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

impl Learnt {
    /// Whether it is news.
    fn take_in(&mut self, news: &News) -> bool {
        match news {
            News::Posted(posted) => {
                let of_it = |known: &PostedStatus| known.context == posted.context;
                if self.posted.iter().any(|known| of_it(known) && known.time > posted.time) {
                    return false;
                }
                self.anything = true;
                self.refused.retain(|(known, _)| *known != posted.context);
                self.posted.retain(|known| !of_it(known));
                self.posted.insert(0, posted.clone());
                self.posted.truncate(POSTED_CONTEXTS);
            }
            News::Refused { context, remark } => {
                self.anything = true;
                self.refused.retain(|(known, _)| known != context);
                self.refused.insert(0, (context.clone(), remark.clone()));
                self.refused.truncate(REFUSALS);
            }
            News::Commit { object, does } => {
                if self.commits.get(object) == Some(does) {
                    return false;
                }
                self.commits.insert(object.clone(), *does);
                if self.commits.len() > OBJECTS {
                    self.commits.pop_first();
                }
            }
        }
        true
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
