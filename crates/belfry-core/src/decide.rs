//! When an attempt is made again, and when a delivery is given up: the only place that knows about retries.
//!
//! Backoff belongs to the provider, through its [`Circuit`]: after a few failures in a row nothing but single probes go
//! out, at least one every 30 s, and the whole backlog is due again as soon as one is taken. A delivery has a backoff of
//! its own only for the case that its provider accepts others but not it.

use std::time::Duration;

use crate::{
    Time,
    notification::{Failure, Outcome},
};

/// Failures in a row after which a provider counts as down.
const OPEN_AFTER: u32 = 3;
/// The longest pause between two probes of a provider that is down.
const PROBE: Duration = Duration::from_secs(30);
/// How long a probe is for one replica alone, in case that one dies.
pub const PROBE_ALONE: Duration = PROBE;
/// The longest pause between two probes of a provider that must be mended; a change of it probes at once.
const PROBE_MISCONFIGURED: Duration = Duration::from_secs(300);
/// The longest pause between two attempts at one delivery.
const OWN_BACKOFF: Duration = Duration::from_secs(900);
/// By how much less a pause may grow without being worth a word.
const NEAR: Duration = Duration::from_secs(1);
/// The longest `Retry-After` that is obeyed.
const RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How long a delivery may hold up those behind it while its provider takes others.
const HOLDS_LANE: Duration = Duration::from_secs(600);

/// How long a delivery is worth sending, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeLimit {
    /// Chats: one hour.
    Chat,
    /// Incidents and metrics: a day.
    Incident,
    /// Git hosts, CDEvents, generic endpoints and queues: three days.
    Record,
    /// Another Belfry, which is to know all: as long as events are kept.
    Retention,
}

impl AgeLimit {
    /// The limit, if it is one of its own.
    pub fn duration(self) -> Duration {
        let hours = match self {
            Self::Chat => 1,
            Self::Incident => 24,
            Self::Record => 72,
            Self::Retention => return Duration::MAX,
        };
        Duration::from_secs(hours * 3600)
    }
}

/// The delivery at the front of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// When it came into being.
    pub created: Time,
    /// Attempts made so far, without the one that is being decided about.
    pub attempts: u32,
    /// Nothing newer waits in its lane: it tells the object's newest state, which goes out however late.
    pub newest: bool,
}

/// What happens to a delivery after an attempt, or instead of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It reached its destination, or there was nothing to send.
    Settled,
    /// Try again, not before this time.
    Retry {
        /// The time.
        at: Time,
        /// It stands in the way of others that its provider would take: let it wait in a lane of its own.
        step_aside: bool,
    },
    /// Give it up.
    Dead {
        /// Why, for the person who reads it.
        reason: String,
    },
}

/// Whether a delivery is too old to be worth an attempt. The newest of its lane never is.
pub fn expired(head: Head, limit: Duration, now: Time) -> Option<Decision> {
    (!head.newest && now.since(head.created) > limit).then(|| Decision::Dead { reason: expiry(limit) })
}

fn expiry(limit: Duration) -> String {
    format!("expired: not delivered within {} h, and newer events of the object follow it", limit.as_secs() / 3600)
}

/// Decides about a delivery after an attempt. `circuit` already knows the outcome; `chance` is uniform in [0, 1).
pub fn decide(head: Head, limit: Duration, circuit: &Circuit, outcome: &Outcome, now: Time, chance: f64) -> Decision {
    let (failure, longest) = match outcome {
        Outcome::Delivered | Outcome::Skipped(_) => return Decision::Settled,
        Outcome::Rejected(failure) => return Decision::Dead { reason: format!("rejected: {}", failure.error) },
        Outcome::Retry(failure) => (failure, OWN_BACKOFF),
        Outcome::Misconfigured(failure) => (failure, OWN_BACKOFF),
    };
    let takes_others = circuit.accepted_since(head.created);
    let age = now.since(head.created);
    if age > limit && (!head.newest || takes_others) {
        let reason = if takes_others {
            format!("expired after {} attempts, while the provider took others: {}", head.attempts + 1, failure.error)
        } else {
            expiry(limit)
        };
        return Decision::Dead { reason };
    }
    let pause = retry_after(failure).unwrap_or_else(|| backoff(head.attempts, longest, chance));
    Decision::Retry { at: now.after(pause), step_aside: takes_others && age > HOLDS_LANE }
}

/// 1 s, doubled with each attempt up to `longest`, and ±20 % so that what failed together doesn't return together.
fn backoff(attempts: u32, longest: Duration, chance: f64) -> Duration {
    let plain = Duration::from_secs(1 << attempts.min(20)).min(longest);
    plain.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0))
}

fn retry_after(failure: &Failure) -> Option<Duration> {
    failure.retry_after.map(|wait| wait.clamp(Duration::from_secs(1), RETRY_AFTER))
}

/// What a provider's recent answers say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    failures: u32,
    open_until: Option<Time>,
    /// It is open until then because the provider asked for that.
    asked: bool,
    down_since: Option<Time>,
    last_accepted: Option<Time>,
    error: String,
}

/// A circuit that is open, as replicas tell each other of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// When the next probe is due.
    pub until: Time,
    /// Since when attempts fail.
    pub since: Time,
    /// How many failed in a row.
    pub failures: u32,
    /// The provider itself said "not before".
    pub asked: bool,
    /// The last error.
    pub error: String,
}

/// What an outcome did to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing of note.
    None,
    /// The provider counts as down from now on: worth one warning.
    Opened,
    /// It is down still, and asked for a longer pause than was known.
    PutOff,
    /// The provider is back: its whole backlog is due.
    Closed,
}

impl Circuit {
    /// Takes an outcome into account. `chance` is uniform in [0, 1).
    pub fn record(&mut self, outcome: &Outcome, now: Time, chance: f64) -> Turn {
        let (failure, longest) = match outcome {
            // A message that is refused proves that the provider works; one that was skipped proves nothing.
            Outcome::Delivered | Outcome::Rejected(_) => {
                let was_open = self.is_open();
                *self = Self { last_accepted: Some(now), ..Self::default() };
                return if was_open { Turn::Closed } else { Turn::None };
            }
            Outcome::Skipped(_) => return Turn::None,
            Outcome::Retry(failure) => (failure, PROBE),
            Outcome::Misconfigured(failure) => (failure, PROBE_MISCONFIGURED),
        };
        if self.open_until.is_some_and(|until| now < until) && failure.retry_after.is_none() {
            // It was under way with others when the circuit opened: not a failed probe, and no reason for a longer pause.
            return Turn::None;
        }
        self.failures = self.failures.saturating_add(1);
        self.error.clone_from(&failure.error);
        self.down_since.get_or_insert(now);
        let wait = retry_after(failure);
        if self.failures < OPEN_AFTER && wait.is_none() {
            return Turn::None;
        }
        let pause = wait.unwrap_or_else(|| backoff(self.failures.saturating_sub(OPEN_AFTER), longest, chance));
        let (until, before) = (now.after(pause), self.open_until);
        // Attempts that were under way when the provider said "not before" don't bring its time forward.
        if before.is_none_or(|before| before <= until) {
            (self.open_until, self.asked) = (Some(until), wait.is_some());
        }
        match before {
            None => Turn::Opened,
            Some(before) if wait.is_some() && until > before.after(NEAR) => Turn::PutOff,
            Some(_) => Turn::None,
        }
    }

    /// The time of a probe came to no attempt, as all that waits is held back: the next is as far off as after a failure.
    pub fn skip_probe(&mut self, now: Time, chance: f64) {
        if let Some(until) = &mut self.open_until {
            let pause = backoff(self.failures.saturating_sub(OPEN_AFTER), PROBE, chance);
            *until = now.after(pause).max(*until);
        }
    }

    /// What is to be told to other replicas, while it is open.
    pub fn outage(&self) -> Option<Outage> {
        let (failures, asked, error) = (self.failures, self.asked, self.error.clone());
        self.open_until.map(|until| Outage { until, since: self.down_since.unwrap_or(until), failures, asked, error })
    }

    /// Takes in what another replica tells: that the provider is down, or that it no longer is. Who had a message taken
    /// since the other's attempts began to fail knows better, unless the provider asked for a pause, which is for all.
    pub fn hear(&mut self, heard: Option<&Outage>) -> Turn {
        let was_open = self.is_open();
        let Some(heard) = heard else {
            self.reset();
            return if was_open { Turn::Closed } else { Turn::None };
        };
        if !heard.asked && self.accepted_since(heard.since) {
            return Turn::None;
        }
        *self = Self {
            failures: self.failures.max(heard.failures).max(OPEN_AFTER),
            open_until: Some(heard.until),
            asked: heard.asked,
            down_since: Some(heard.since),
            last_accepted: self.last_accepted,
            error: heard.error.clone(),
        };
        if was_open { Turn::None } else { Turn::Opened }
    }

    /// Forgets the failures: something that they may have come from was changed.
    pub fn reset(&mut self) {
        *self = Self { last_accepted: self.last_accepted, ..Self::default() };
    }

    /// Nothing but probes goes out.
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// When the next probe is due, while it is open.
    pub fn probe_at(&self) -> Option<Time> {
        self.open_until
    }

    /// Since when attempts fail, if they do.
    pub fn down_since(&self) -> Option<Time> {
        self.down_since
    }

    /// The last error, while attempts fail.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// Whether the provider took, or refused, some message after this time.
    pub fn accepted_since(&self, time: Time) -> bool {
        self.last_accepted.is_some_and(|at| at > time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Time {
        Time::default().after(Duration::from_secs(seconds))
    }

    fn down() -> Outcome {
        Outcome::Retry(Failure::new("connection refused"))
    }

    fn head(attempts: u32, newest: bool) -> Head {
        Head { created: at(0), attempts, newest }
    }

    #[test]
    fn a_provider_that_is_down_is_probed_at_least_every_30_s_and_closes_with_the_first_success() {
        let mut circuit = Circuit::default();
        assert_eq!(circuit.record(&down(), at(0), 0.5), Turn::None);
        assert_eq!(circuit.record(&down(), at(1), 0.5), Turn::None);
        assert_eq!(circuit.record(&down(), at(3), 0.5), Turn::Opened);
        let mut now = at(3);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let next = circuit.probe_at().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
            assert_eq!(circuit.record(&down(), now, 0.5), Turn::None);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(circuit.down_since(), Some(at(0)));
        assert_eq!(circuit.record(&Outcome::Delivered, now, 0.5), Turn::Closed);
        assert!(!circuit.is_open());
        assert_eq!(circuit.down_since(), None);
    }

    #[test]
    fn attempts_that_fail_together_make_no_longer_pause_than_a_few() {
        let mut circuit = Circuit::default();
        let turns: Vec<Turn> = (0..40).map(|_| circuit.record(&down(), at(5), 0.5)).collect();
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Opened).count(), 1);
        assert_eq!(circuit.probe_at(), Some(at(6)));
        circuit.record(&down(), at(6), 0.5);
        assert_eq!(circuit.probe_at(), Some(at(8)));
    }

    #[test]
    fn retry_after_opens_at_once_and_is_not_shortened_by_stragglers() {
        let mut circuit = Circuit::default();
        let asked = |seconds| {
            Outcome::Retry(Failure { retry_after: Some(Duration::from_secs(seconds)), ..Failure::new("429") })
        };
        assert_eq!(circuit.record(&asked(120), at(0), 0.5), Turn::Opened);
        circuit.record(&down(), at(1), 0.5);
        circuit.record(&asked(5), at(2), 0.5);
        assert_eq!(circuit.probe_at(), Some(at(120)));
        assert_eq!(circuit.record(&asked(1_000_000), at(120), 0.5), Turn::PutOff);
        assert_eq!(circuit.probe_at(), Some(at(120 + 3600)));
    }

    #[test]
    fn replicas_agree_on_who_is_down_and_until_when() {
        let mut one = Circuit::default();
        for second in 1..=3 {
            one.record(&down(), at(second), 0.5);
        }
        let outage = one.outage().unwrap();
        assert_eq!((outage.until, outage.since, outage.failures, outage.asked), (at(4), at(1), 3, false));
        let mut other = Circuit::default();
        other.record(&Outcome::Delivered, at(0), 0.5);
        assert_eq!(other.hear(Some(&outage)), Turn::Opened);
        assert_eq!(
            (other.outage(), other.down_since(), other.error()),
            (Some(outage), Some(at(1)), "connection refused")
        );
        // Its probe fails, and the first one's comes later, however near its own backoff was.
        assert_eq!(other.record(&down(), at(4), 0.5), Turn::None);
        assert_eq!(one.hear(other.outage().as_ref()), Turn::None);
        assert_eq!((one.probe_at(), one.failures), (Some(at(6)), 4));
        assert_eq!(one.record(&Outcome::Delivered, at(6), 0.5), Turn::Closed);
        assert_eq!((other.hear(None), other.hear(None)), (Turn::Closed, Turn::None));
        assert!(!other.is_open() && other.down_since().is_none());
        // That another heard a yes is no news of what this one's provider took.
        assert!(!other.accepted_since(at(5)));
    }

    #[test]
    fn who_gets_through_does_not_stop_for_who_does_not_but_a_pause_that_was_asked_for_is_for_all() {
        let mut through = Circuit::default();
        through.record(&Outcome::Delivered, at(10), 0.5);
        let outage = Outage { until: at(12), since: at(9), failures: 3, asked: false, error: "no route".into() };
        assert_eq!(through.hear(Some(&outage)), Turn::None);
        assert!(!through.is_open());
        assert_eq!(through.hear(Some(&Outage { since: at(10), ..outage.clone() })), Turn::Opened);
        through.record(&Outcome::Delivered, at(13), 0.5);
        assert_eq!(through.hear(Some(&Outage { asked: true, until: at(90), ..outage })), Turn::Opened);
        assert_eq!(through.probe_at(), Some(at(90)));
    }

    #[test]
    fn a_probe_without_an_attempt_is_followed_by_a_pause() {
        let mut circuit = Circuit::default();
        circuit.skip_probe(at(1), 0.5);
        assert_eq!(circuit, Circuit::default());
        for second in [0, 1, 2, 3, 5] {
            circuit.record(&down(), at(second), 0.5);
        }
        assert_eq!(circuit.probe_at(), Some(at(9)));
        circuit.skip_probe(at(9), 0.5);
        assert_eq!(circuit.probe_at(), Some(at(13)));
    }

    #[test]
    fn old_deliveries_expire_but_for_the_newest() {
        let circuit = Circuit::default();
        assert_eq!(expired(head(0, true), HOUR, at(10 * 3600)), None);
        assert!(matches!(expired(head(0, false), HOUR, at(3601)), Some(Decision::Dead { .. })));
        assert_eq!(expired(head(0, false), HOUR, at(3600)), None);
        assert!(matches!(decide(head(9, true), HOUR, &circuit, &down(), at(7200), 0.5), Decision::Retry { .. }));
        assert!(matches!(decide(head(9, false), HOUR, &circuit, &down(), at(7200), 0.5), Decision::Dead { .. }));
    }

    #[test]
    fn a_message_that_its_provider_alone_refuses_steps_aside_and_ends() {
        let mut circuit = Circuit::default();
        circuit.record(&Outcome::Delivered, at(60), 0.5);
        let after = |seconds| decide(head(3, true), HOUR, &circuit, &down(), at(seconds), 0.5);
        assert_eq!(after(100), Decision::Retry { at: at(108), step_aside: false });
        assert_eq!(after(601), Decision::Retry { at: at(609), step_aside: true });
        assert!(matches!(after(3601), Decision::Dead { reason } if reason.contains("connection refused")));
    }

    #[test]
    fn what_is_final_is_final_at_once() {
        let refused = Outcome::Rejected(Failure { status: Some(400), ..Failure::new("400 Bad Request: no thanks") });
        assert_eq!(
            decide(head(0, true), HOUR, &Circuit::default(), &refused, at(0), 0.5),
            Decision::Dead { reason: "rejected: 400 Bad Request: no thanks".into() }
        );
        let skipped = Outcome::Skipped("nothing to say");
        assert_eq!(decide(head(0, true), HOUR, &Circuit::default(), &skipped, at(0), 0.5), Decision::Settled);
    }
}
