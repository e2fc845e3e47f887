//! What a Receiver's status says.

use belfry_cluster::{ReceiverReport, ReceiverState};

use super::doors::{Door, DoorState};

/// What is to be written into the status; `None` while nothing is known for sure.
pub(super) fn report(door: &Door) -> Option<ReceiverReport> {
    let state = match &door.state {
        DoorState::Open(path) => ReceiverState::Ready { path: path.as_str().to_owned() },
        DoorState::Suspended(_) => ReceiverState::Suspended,
        DoorState::Flawed(problem) => {
            ReceiverState::Stalled { reason: problem.reason, message: problem.message.clone() }
        }
        DoorState::NoToken(problem) => {
            ReceiverState::NoToken { reason: problem.reason, message: problem.message.clone() }
        }
        DoorState::Unknown(_) => return None,
    };
    let rule = &door.rule;
    Some(ReceiverReport {
        key: (*rule.key).clone(),
        uid: rule.uid.clone(),
        generation: rule.metadata.generation,
        interval: rule.spec.interval.clone(),
        requested_at: rule.metadata.annotations.get(REQUESTED_AT).cloned(),
        state,
    })
}

/// The annotation that asks for a reconciliation.
pub(super) const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

impl DoorState {
    /// Whether it takes webhooks.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Why it doesn't; what is to be known of it otherwise. A word, and words.
    pub(super) fn words(&self) -> (&'static str, String) {
        match self {
            Self::Open(_) => ("Succeeded", "takes webhooks".to_owned()),
            Self::Suspended(_) => ("Suspended", "the receiver is suspended".to_owned()),
            Self::Flawed(problem) | Self::NoToken(problem) => (problem.reason, problem.message.clone()),
            Self::Unknown(why) => ("SecretUnknown", format!("its Secret can't be read: {why}")),
        }
    }
}
