//! The step from one state to the next.

use std::sync::Arc;

use super::{
    DELETED, Input, KEPT, Live, MESSAGE, Phase, Report, Rollout, State, Step, Successor, TEXT, Transition, What, cut,
    input::{Attempt, Heard},
    place::{self, Place},
    signal::{Meaning, Signal, meaning},
    status,
};
use crate::{Seq, Time};

/// Takes in one input. Inputs come in the order of their `seq`; one that says nothing of rollouts changes nothing.
pub fn step(state: &State, input: &Input<'_>) -> Step {
    match input {
        Input::Reported(report) => reported(state, report),
        Input::Observed(observation) => status::observed(state, observation),
    }
}

fn reported(state: &State, report: &Report<'_>) -> Step {
    let mut fold = Fold::new(state, Heard::new(report.seq, report.timestamp, report.reason, report.message));
    let Some(meaning) = meaning(report) else { return fold.done() };
    let attempt = Attempt::of_report(report);
    let reborn = match fold.is_of_another(report.uid) {
        true if fold.is_late() => return fold.done(),
        reborn => reborn,
    };
    if reborn {
        fold.begin_anew(attempt.is_some());
    }
    fold.know(report.uid);
    match (meaning.signal, attempt) {
        (Signal::Deletion, _) => fold.deletion(),
        (Signal::Success, _) if fold.ends_a_deletion() => {}
        (Signal::Rollback { done }, named) => fold.rollback(named.as_ref(), done),
        (Signal::Uninstall { remedy }, named) => fold.uninstall(named.as_ref(), remedy),
        (_, None) => fold.without_revision(meaning),
        (_, Some(attempt)) => {
            fold.state.gone = None;
            fold.with_revision(attempt, meaning);
        }
    }
    fold.done()
}

/// A step in the making.
pub(super) struct Fold<'a> {
    pub state: State,
    pub heard: Heard<'a>,
    about: Option<Seq>,
    transitions: Vec<Transition>,
    changed: Vec<Seq>,
    /// What the state doesn't remember any more.
    forgotten: Vec<Arc<Rollout>>,
    /// Open when its object was found to be another one; still to be told what came of it.
    orphan: Option<Arc<Rollout>>,
}

impl<'a> Fold<'a> {
    pub fn new(state: &State, heard: Heard<'a>) -> Self {
        Self {
            state: state.clone(),
            heard,
            about: None,
            transitions: Vec::new(),
            changed: Vec::new(),
            forgotten: Vec::new(),
            orphan: None,
        }
    }

    pub fn done(mut self) -> Step {
        let known = || self.state.rollouts.iter().chain(&self.forgotten);
        let changed = self.changed.iter().filter_map(|id| known().find(|rollout| rollout.id == *id));
        let changed = changed.map(|rollout| Rollout::clone(rollout)).collect();
        if let Some((_, older)) = self.state.rollouts.split_last_mut() {
            // Nothing asks for them again: what may still happen to these brings words of its own.
            for rollout in older.iter_mut().filter(|rollout| !rollout.message.is_empty()) {
                Arc::make_mut(rollout).message = String::new();
            }
        }
        Step { state: self.state, about: self.about, transitions: self.transitions, changed }
    }

    /// The name was given to another object since.
    pub fn is_of_another(&self, uid: &str) -> bool {
        !uid.is_empty() && !self.state.uid.is_empty() && cut(uid, TEXT) != self.state.uid
    }

    /// Said before, or in the second in which, the newest rollout began.
    pub fn is_late(&self) -> bool {
        self.state.current().is_some_and(|current| self.heard.at <= current.started)
    }

    /// Said before the newest rollout began.
    pub fn precedes(&self) -> bool {
        self.state.current().is_some_and(|current| self.heard.at < current.started)
    }

    pub fn know(&mut self, uid: &str) {
        if self.state.uid.is_empty() {
            self.state.uid = cut(uid, TEXT);
        }
    }

    /// Forgets what was known of another object of this name. `succeeded`: a rollout of this one takes its place.
    pub fn begin_anew(&mut self, succeeded: bool) {
        let old = std::mem::take(&mut self.state);
        self.orphan = old.rollouts.into_iter().next_back().filter(|rollout| rollout.state.is_open());
        if !succeeded {
            self.supersede_orphan(None);
        }
    }

    /// Something said of a revision.
    fn with_revision(&mut self, attempt: Attempt, meaning: Meaning) {
        let last = self.state.rollouts.len().wrapping_sub(1);
        match place::find(&self.state.rollouts, &attempt, self.heard.at) {
            Place::In(i) => {
                self.about = Some(self.state.rollouts[i].id);
                match i == last {
                    true if self.heard.at < self.state.rollouts[i].started => {}
                    true => {
                        self.learn(i, attempt);
                        self.go_on(meaning);
                    }
                    false => self.tell_late(i, meaning.signal),
                }
            }
            Place::After(i) if self.is_still_of(i, meaning) => {
                self.about = Some(self.state.rollouts[i].id);
                self.tell_late(i, meaning.signal);
            }
            Place::After(_) | Place::Nowhere => self.open(attempt, meaning.now()),
        }
        self.supersede_orphan(None);
    }

    /// Takes over what the events before did not name.
    fn learn(&mut self, i: usize, attempt: Attempt) {
        let Attempt { origin_revision, commit, token, oci_digest, .. } = attempt;
        let known = &self.state.rollouts[i];
        let news = [
            (&known.origin_revision, &origin_revision),
            (&known.commit, &commit),
            (&known.token, &token),
            (&known.oci_digest, &oci_digest),
        ];
        if news.into_iter().any(|(known, named)| known.is_none() && named.is_some()) {
            let rollout = self.state.rollout_mut(i);
            rollout.origin_revision = rollout.origin_revision.take().or(origin_revision);
            rollout.commit = rollout.commit.take().or(commit);
            rollout.token = rollout.token.take().or(token);
            rollout.oci_digest = rollout.oci_digest.take().or(oci_digest);
            self.mark(i);
        }
    }

    /// Whether what was said after the next rollout began belongs to this one nevertheless, and is no return.
    fn is_still_of(&mut self, i: usize, meaning: Meaning) -> bool {
        if !meaning.begins {
            return true;
        }
        let rollout = &self.state.rollouts[i];
        match (rollout.state, meaning.signal) {
            // It went on while the next one began: a slow health check.
            (Phase::Superseded, Signal::Success | Signal::Failure) => true,
            // Its periodic success supersedes nothing, unless it comes again and nothing is heard of the newer one.
            (Phase::Succeeded, Signal::Success) if meaning.periodic && !meaning.confirmed => true,
            (Phase::Succeeded, Signal::Success) if meaning.periodic => {
                let waits = self.state.current().is_some_and(|current| current.state.is_open() && !current.rests);
                match self.state.doubt {
                    _ if !waits => false,
                    Some(before) if before < self.heard.at => false,
                    _ => {
                        self.state.doubt = Some(self.heard.at);
                        true
                    }
                }
            }
            _ => false,
        }
    }

    /// Something said of the newest rollout.
    fn go_on(&mut self, meaning: Meaning) {
        self.state.doubt = None;
        let i = self.state.rollouts.len() - 1;
        let rollout = &self.state.rollouts[i];
        let (phase, rests) = (rollout.state, rollout.rests);
        let another = meaning.begins && rests;
        let late = self.heard.at < rollout.heard;
        match (phase, meaning.now()) {
            // A retry that was overtaken by what came after it: it is over by now.
            (Phase::Succeeded, Signal::Failure) | (Phase::Failed, Signal::Success) if late => {}
            (Phase::Pending | Phase::Progressing, Signal::Waits) => self.note_news(i),
            (Phase::Pending | Phase::Progressing, Signal::Progress) => {
                self.begin_attempt(i, another);
                self.move_to(i, Phase::Progressing);
            }
            (Phase::Pending | Phase::Progressing, Signal::Canceled) => {
                self.state.rollout_mut(i).rests = true;
                self.move_to(i, Phase::Pending);
            }
            (Phase::Failed, Signal::Progress) if another => {
                self.begin_attempt(i, true);
                self.mark(i);
            }
            (Phase::Failed, Signal::Failure) => {
                self.begin_attempt(i, another);
                self.state.rollout_mut(i).rests = true;
                self.note(i);
            }
            (Phase::Succeeded, Signal::Success) => self.live_with(i),
            (_, Signal::Success) => {
                self.begin_attempt(i, another);
                self.end(i, Phase::Succeeded);
                self.live_with(i);
            }
            (_, Signal::Failure) => {
                self.begin_attempt(i, another);
                self.end(i, Phase::Failed);
            }
            _ => {}
        }
    }

    /// Something said of a rollout that isn't the newest any more.
    pub fn tell_late(&mut self, i: usize, signal: Signal) {
        let rollout = &self.state.rollouts[i];
        match (rollout.state, signal) {
            (Phase::Superseded, Signal::Failure) => self.end(i, Phase::Failed),
            (Phase::Superseded, Signal::Success) => {
                self.end(i, Phase::Succeeded);
                self.live_with(i);
            }
            // Not when the failure is known to be the later of the two.
            (Phase::Failed, Signal::Success) if self.heard.at >= rollout.heard => {
                self.end(i, Phase::Succeeded);
                self.live_with(i);
            }
            _ => {}
        }
    }

    /// Something said without a revision: it is about the rollout in progress.
    fn without_revision(&mut self, meaning: Meaning) {
        let Some(current) = self.state.current() else { return };
        if !current.state.is_open() || self.precedes() || meaning.signal == Signal::Success {
            return;
        }
        self.about = Some(current.id);
        self.go_on(meaning);
    }

    /// Opens a rollout; before others, when it began before them.
    pub fn open(&mut self, attempt: Attempt, signal: Signal) {
        let mut position = place::position(&self.state.rollouts, self.heard.at);
        if signal == Signal::Canceled && self.is_late() {
            // Called off for the very one that is the newest.
            position = position.min(self.state.rollouts.len() - 1);
        }
        let late = position < self.state.rollouts.len();
        if late && position == 0 && self.state.rollouts.len() >= KEPT {
            return;
        }
        let rollout = Arc::new(self.rollout(attempt, signal));
        self.about = Some(rollout.id);
        let successor = Successor::from(&*rollout);
        self.supersede_orphan(Some(successor.clone()));
        if !late {
            self.state.doubt = None;
            self.supersede(Some(successor));
        }
        self.state.rollouts.insert(position, rollout);
        self.transition(position, What::Opened);
        match signal {
            Signal::Success => {
                self.end(position, Phase::Succeeded);
                self.live_with(position);
            }
            Signal::Failure => self.end(position, Phase::Failed),
            _ if late => {
                let next = self.state.rollouts.get(position + 1).map(|next| Successor::from(&**next));
                self.state.rollout_mut(position).superseded_by = next;
                self.end(position, Phase::Superseded);
            }
            _ => self.mark(position),
        }
        if self.state.rollouts.len() > KEPT {
            self.forgotten.push(self.state.rollouts.remove(0));
        }
    }

    fn rollout(&self, attempt: Attempt, signal: Signal) -> Rollout {
        let Attempt { revision, origin_revision, commit, token, oci_digest } = attempt;
        let waits = signal == Signal::Waits;
        Rollout {
            id: self.heard.seq,
            revision,
            origin_revision,
            commit,
            token,
            oci_digest,
            state: if waits || signal == Signal::Canceled { Phase::Pending } else { Phase::Progressing },
            started: self.heard.at,
            finished: None,
            first_success: None,
            attempts: u32::from(!waits),
            reason: cut(&self.heard.reason, TEXT),
            message: cut(&self.heard.message, MESSAGE),
            last_event: self.heard.seq,
            superseded_by: None,
            heard: self.heard.at,
            rests: waits || signal == Signal::Canceled,
        }
    }

    /// Helm went back to `named`: what it went back from has failed, and the other has not newly succeeded.
    fn rollback(&mut self, named: Option<&Attempt>, done: bool) {
        let rollouts = &self.state.rollouts;
        let attempted = place::position(rollouts, self.heard.at).checked_sub(1);
        let current = !self.precedes();
        let is_named = |i: usize| named.is_some_and(|named| named.is(&rollouts[i]));
        let attempted = attempted.filter(|i| !is_named(*i));
        if let Some(named) = named.filter(|_| done && current) {
            let brought = (0..rollouts.len()).rev().filter(|i| Some(*i) != attempted).find(|i| is_named(*i));
            let rollout = brought.map(|i| rollouts[i].id);
            self.state.live = Some(Live { revision: named.revision.clone(), rollout, since: self.heard.seq });
        }
        if let Some(i) = attempted {
            self.fail(i);
        }
    }

    /// Helm removed the release: to mend an installation that failed, or because the object goes.
    fn uninstall(&mut self, named: Option<&Attempt>, remedy: bool) {
        if self.precedes() {
            return;
        }
        self.state.live = None;
        let Some(current) = self.state.current() else { return };
        match named.is_none_or(|named| named.is(current)) {
            true if remedy => self.fail(self.state.rollouts.len() - 1),
            _ if remedy => {}
            _ => self.end_by_deletion(),
        }
    }

    fn fail(&mut self, i: usize) {
        let rollout = &self.state.rollouts[i];
        self.about = Some(rollout.id);
        let newest = i + 1 == self.state.rollouts.len();
        match rollout.state {
            Phase::Failed => {}
            Phase::Succeeded if !newest => {}
            _ => self.end(i, Phase::Failed),
        }
    }

    /// The object goes: its open rollout ends, and the success that is reported last is none.
    pub fn deletion(&mut self) {
        if self.precedes() {
            return;
        }
        self.state.gone.get_or_insert_default();
        self.state.live = None;
        self.end_by_deletion();
    }

    fn end_by_deletion(&mut self) {
        self.about = self.state.current().map(|current| current.id);
        self.heard.reason = DELETED.into();
        self.supersede(None);
    }

    /// Whether a success is the one that a deletion ends with. There is but one: after another, the object lives on.
    fn ends_a_deletion(&mut self) -> bool {
        let Some(gone) = &mut self.state.gone else { return false };
        let first = *gone.success.get_or_insert(self.heard.at);
        self.heard.at <= first
    }

    /// Ends the newest rollout if it is open.
    fn supersede(&mut self, by: Option<Successor>) {
        let Some(i) = self.state.rollouts.len().checked_sub(1) else { return };
        if self.state.rollouts[i].state.is_open() {
            self.state.rollout_mut(i).superseded_by = by;
            self.end(i, Phase::Superseded);
        }
    }

    pub fn supersede_orphan(&mut self, by: Option<Successor>) {
        let Some(rollout) = self.orphan.take() else { return };
        if by.is_none() {
            self.heard.reason = DELETED.into();
        }
        let state = std::mem::take(&mut self.state);
        self.state.rollouts.push(rollout);
        self.supersede(by);
        self.forgotten.append(&mut self.state.rollouts);
        self.state = state;
    }

    /// Brings a rollout to a state in which it may stay, and tells it.
    pub fn end(&mut self, i: usize, phase: Phase) {
        let at = self.heard.at;
        let rollout = self.state.rollout_mut(i);
        let what = match phase {
            Phase::Succeeded if rollout.state == Phase::Failed => What::Recovered,
            Phase::Succeeded => What::Succeeded,
            Phase::Failed => What::Failed,
            _ => What::Superseded,
        };
        rollout.state = phase;
        rollout.finished = Some(at.max(rollout.started));
        rollout.rests = true;
        match phase {
            // It keeps the words of its last own event, but for a deletion.
            Phase::Superseded if rollout.superseded_by.is_some() => self.mark(i),
            Phase::Superseded => self.note(i),
            _ => {
                rollout.superseded_by = None;
                rollout.attempts = rollout.attempts.max(1);
                if phase == Phase::Succeeded {
                    rollout.first_success.get_or_insert(at);
                }
                self.note(i);
            }
        }
        self.transition(i, what);
    }

    fn move_to(&mut self, i: usize, phase: Phase) {
        let before = std::mem::replace(&mut self.state.rollout_mut(i).state, phase);
        self.note_news(i);
        if before != phase {
            self.note(i);
            self.transition(i, What::Progressed);
        }
    }

    fn begin_attempt(&mut self, i: usize, another: bool) {
        if another {
            let rollout = self.state.rollout_mut(i);
            rollout.attempts = rollout.attempts.saturating_add(1);
            rollout.rests = false;
            self.mark(i);
        }
    }

    /// Success of a rollout makes it live, unless a later one is.
    pub fn live_with(&mut self, i: usize) {
        let rollouts = &self.state.rollouts;
        let live = self.state.live.as_ref();
        let later = live.and_then(|live| live.rollout).and_then(|id| rollouts.iter().position(|r| r.id == id));
        let unknown = i + 1 < rollouts.len() && live.is_some_and(|live| live.rollout.is_none());
        if later.is_none_or(|later| later < i) && !unknown {
            let Rollout { id, revision, .. } = &*rollouts[i];
            self.state.live = Some(Live { revision: revision.clone(), rollout: Some(*id), since: self.heard.seq });
        }
    }

    /// From now on says what the rollout's last event said.
    pub fn speak_as(&mut self, i: usize) {
        let Rollout { reason, message, .. } = &*self.state.rollouts[i];
        (self.heard.reason, self.heard.message) = (reason.clone().into(), message.clone().into());
    }

    /// Takes over the words, if they are new.
    fn note_news(&mut self, i: usize) {
        let rollout = &self.state.rollouts[i];
        if rollout.reason != cut(&self.heard.reason, TEXT) || rollout.message != cut(&self.heard.message, MESSAGE) {
            self.note(i);
        }
    }

    fn note(&mut self, i: usize) {
        let rollout = self.state.rollout_mut(i);
        rollout.reason = cut(&self.heard.reason, TEXT);
        rollout.message = cut(&self.heard.message, MESSAGE);
        rollout.heard = rollout.heard.max(self.heard.at);
        self.mark(i);
    }

    /// The rollout changed.
    fn mark(&mut self, i: usize) {
        let rollout = self.state.rollout_mut(i);
        rollout.last_event = self.heard.seq;
        let id = rollout.id;
        self.changed.retain(|changed| *changed != id);
        self.changed.push(id);
    }

    fn transition(&mut self, i: usize, what: What) {
        let rollout = self.state.rollouts[i].id;
        self.about.get_or_insert(rollout);
        self.transitions.push(Transition { rollout, what });
    }

    pub fn at(&self) -> Time {
        self.heard.at
    }
}
