//! What a watch saw of an object's status: it makes up for events that were lost, and never undoes what events told.

use super::{
    Observation, Phase, Seen, State, Step,
    fold::Fold,
    input::{Attempt, Heard},
    place::{self, Place},
    signal::{Signal, has_rollouts, is_success},
};

/// The reason of a rollout that a watch found done.
const READY: &str = "Ready";

pub(super) fn observed(state: &State, seen: &Observation<'_>) -> Step {
    let (reason, message) = match seen.seen {
        Seen::Failed { reason, message } => (reason, message),
        Seen::Ready | Seen::Gone => (READY, ""),
    };
    // A deletion happens when it is seen, whenever the condition changed last.
    let timestamp = seen.timestamp.filter(|_| seen.seen != Seen::Gone);
    let mut fold = Fold::new(state, Heard::new(seen.seq, timestamp, reason, message));
    if !has_rollouts(&seen.object.group, &seen.object.kind) {
        return fold.done();
    }
    let attempt = Attempt::of_observation(seen);
    if fold.is_of_another(seen.uid) {
        // An old object's end, or its state, says nothing of the new one; nor does the new one's before it did something.
        if fold.is_late() || seen.seen == Seen::Gone || attempt.is_none() {
            return fold.done();
        }
        fold.begin_anew(true);
    }
    fold.know(seen.uid);
    let signal = match seen.seen {
        Seen::Ready => Signal::Success,
        Seen::Failed { .. } => Signal::Failure,
        Seen::Gone => {
            fold.deletion();
            return fold.done();
        }
    };
    if let Some(attempt) = attempt {
        status(&mut fold, attempt, signal);
    }
    fold.supersede_orphan(None);
    fold.done()
}

fn status(fold: &mut Fold<'_>, attempt: Attempt, signal: Signal) {
    let rollouts = &fold.state.rollouts;
    let place = place::find(rollouts, &attempt, fold.at());
    let Some(current) = rollouts.last() else {
        return fold.open(attempt, signal);
    };
    let newest = rollouts.len() - 1;
    match place {
        Place::In(i) if i == newest => {
            let open = current.state.is_open() && fold.at() >= current.started;
            match signal {
                Signal::Success if open || (current.state == Phase::Failed && fold.at() >= current.heard) => {
                    if is_success(&current.reason) {
                        // The event came before the status that confirms it, and says more.
                        fold.speak_as(i);
                    }
                    fold.end(i, Phase::Succeeded);
                    fold.live_with(i);
                }
                Signal::Failure if open => fold.end(i, Phase::Failed),
                _ => {}
            }
        }
        Place::In(_) => {}
        // Only what is sure to be later than all that events told of the newest: a status is seen late.
        Place::After(_) | Place::Nowhere if fold.at() > current.heard => fold.open(attempt, signal),
        Place::After(_) | Place::Nowhere => {}
    }
}
