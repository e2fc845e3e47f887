//! What a candidate for a Lease does next, and whether it leads: no I/O, no clock, no chance.
//!
//! Why no two lead at a time: a leader's time counts from **before** it sent the renewal that was taken, another's wait
//! from **after** it read it, and the wait is the longer one. Nobody compares clocks with anybody.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long things take in an election. The defaults are those of client-go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a Lease must stay unchanged before another may take it; whole seconds.
    pub lease: Duration,
    /// How long a leader leads after its last renewal; shorter than the Lease by more than clocks may differ in their
    /// speed.
    pub renew_within: Duration,
    /// The pause between two tries.
    pub retry: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_within: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// A Lease's `spec`, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub holder_identity: Option<String>,
    pub lease_duration_seconds: Option<i64>,
    pub acquire_time: Option<String>,
    pub renew_time: Option<String>,
    pub lease_transitions: Option<i64>,
}

/// A Lease as it was read, or as it is after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its `resourceVersion`.
    pub version: String,
    pub spec: Spec,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Read the Lease.
    Read,
    /// Make it, with this `spec`.
    Create(Value),
    /// Change its `spec` if it is still of this version.
    Replace(String, Value),
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The Lease, as it is now.
    Record(Record),
    /// There is none.
    Missing,
    /// It was changed, made or removed by another.
    Conflict,
    /// Unknown: it may have been done, may be done yet, or never.
    Unknown,
}

/// One candidate.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    terms: Terms,
    /// The Lease as it last was, and since when it is known to be so.
    known: Option<(Spec, Instant)>,
    /// Its version, if nothing is known to have changed it.
    version: Option<String>,
    /// Since when it is known to be gone.
    missing: Option<Instant>,
    next: Option<Step>,
    leads_until: Option<Instant>,
    /// Whether a write of ours met another's since the last rest.
    met: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Read,
    Create,
    Replace,
}

impl Candidate {
    pub(super) fn new(identity: String, terms: Terms) -> Self {
        Self {
            identity,
            terms,
            known: None,
            version: None,
            missing: None,
            next: Some(Step::Read),
            leads_until: None,
            met: false,
        }
    }

    /// Whether it leads.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.leads_until.is_some_and(|until| now < until)
    }

    /// Until when it leads, unless it renews the Lease before.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }

    /// The next request; none before it is [woken](Self::wake).
    pub(super) fn next(&self, wall: Timestamp) -> Option<Request> {
        Some(match (self.next?, &self.version) {
            (Step::Create, _) => Request::Create(self.spec(wall)),
            (Step::Replace, Some(version)) => Request::Replace(version.clone(), self.spec(wall)),
            (Step::Read | Step::Replace, _) => Request::Read,
        })
    }

    /// The pause is over.
    pub(super) fn wake(&mut self, now: Instant) {
        self.met = false;
        self.next = Some(if self.leads(now) && self.version.is_some() { Step::Replace } else { Step::Read });
    }

    /// Takes in what came of the [next](Self::next) request, which was sent at `sent`.
    pub(super) fn took(&mut self, sent: Instant, now: Instant, answer: Answer) {
        let writes = matches!(self.next, Some(Step::Create | Step::Replace));
        self.next = match answer {
            Answer::Record(record) if writes => {
                self.know(record, now);
                self.leads_until = Some(sent + self.terms.renew_within);
                None
            }
            Answer::Record(record) => {
                self.know(record, now);
                let (mine, free) = (self.is_mine(), self.is_free(now));
                if !mine {
                    // Also for a leader: somebody has taken it, whatever the time.
                    self.leads_until = None;
                }
                (mine || free).then_some(Step::Replace)
            }
            Answer::Missing => {
                self.version = None;
                // Whoever held it when it was removed may lead for a while yet, and need not be who held it when it was
                // last read. Who never saw one can't know that there was one.
                let since = *self.missing.get_or_insert(now);
                let over = now.saturating_duration_since(since) >= self.terms.lease;
                (self.known.is_none() || self.leads(now) || over).then_some(Step::Create)
            }
            // A leader looks at once whether it still is one; but only once, for somebody may change it all the time.
            Answer::Conflict => {
                self.version = None;
                let again = self.leads(now) && !self.met;
                self.met = true;
                again.then_some(Step::Read)
            }
            Answer::Unknown => {
                self.version = None;
                None
            }
        };
    }

    /// The `spec` that gives the Lease to nobody.
    pub(super) fn released(&self, wall: Timestamp) -> Value {
        let mut spec = self.spec(wall);
        spec["holderIdentity"] = "".into();
        // As client-go has it: nobody has to wait.
        spec["leaseDurationSeconds"] = 1.into();
        spec
    }

    /// Whether the Lease names this candidate, as far as is known.
    pub(super) fn is_mine(&self) -> bool {
        self.known.as_ref().is_some_and(|(spec, _)| spec.holder_identity.as_ref() == Some(&self.identity))
    }

    /// Whether nobody can be leading by it.
    fn is_free(&self, now: Instant) -> bool {
        let Some((spec, since)) = &self.known else { return true };
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        let agreed = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
        now.saturating_duration_since(*since) >= self.terms.lease.max(Duration::from_secs(agreed))
    }

    /// Others may label it as they like: only its `spec` says that the holder is alive.
    pub(super) fn know(&mut self, record: Record, now: Instant) {
        self.version = Some(record.version);
        self.missing = None;
        if self.known.as_ref().is_none_or(|(spec, _)| *spec != record.spec) {
            self.known = Some((record.spec, now));
        }
    }

    /// The `spec` that makes it ours. The times are for people: nobody decides by them.
    fn spec(&self, wall: Timestamp) -> Value {
        let now = format!("{wall:.6}");
        let known = self.known.as_ref().map(|(spec, _)| spec);
        let transitions = known.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let acquired = known.and_then(|spec| spec.acquire_time.clone()).filter(|_| self.is_mine());
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.terms.lease.as_secs(),
            "acquireTime": acquired.unwrap_or_else(|| now.clone()),
            "renewTime": now,
            "leaseTransitions": if known.is_none() || self.is_mine() { transitions } else { transitions.saturating_add(1) },
        })
    }
}

#[cfg(test)]
#[path = "candidate_tests.rs"]
mod tests;
