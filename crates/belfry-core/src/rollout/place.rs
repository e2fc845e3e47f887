//! Which rollout something is about: where late events and returns are told apart.

use std::sync::Arc;

use super::{Rollout, input::Attempt};
use crate::Time;

/// Where something belongs in an object's rollouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// To this one.
    In(usize),
    /// After another revision took this one's place: it went on unnoticed, or this is a return to its revision.
    After(usize),
    /// To none that is remembered.
    Nowhere,
}

/// Finds the place of something said at `at`.
///
/// A rollout's time goes from its start, or from that of the one before it, to the start of the next, in whole seconds: a
/// controller ends one attempt and begins the next within a second, while no one goes to a revision and back in one.
pub(super) fn find(rollouts: &[Arc<Rollout>], attempt: &Attempt, at: Time) -> Place {
    let is_time_of = |i: usize| {
        let begun = i == 0 || at >= rollouts[i - 1].started;
        let ended = rollouts.get(i + 1).is_some_and(|next| at > next.started.max(rollouts[i].heard));
        begun && !ended
    };
    let same = attempt.among(rollouts);
    if let Some(i) = same.iter().copied().find(|i| is_time_of(*i)) {
        return Place::In(i);
    }
    match same.into_iter().rev().find(|i| rollouts[*i].started <= at) {
        Some(i) => Place::After(i),
        None => Place::Nowhere,
    }
}

/// Where a rollout that began at `at` stands among the others.
pub(super) fn position(rollouts: &[Arc<Rollout>], at: Time) -> usize {
    rollouts.partition_point(|rollout| rollout.started <= at)
}
