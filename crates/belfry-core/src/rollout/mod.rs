//! Rollouts: one object going to one revision, as a pure state machine over what controllers report and watches see.
//!
//! [`step`] takes an object's [`State`] and one [`Input`], and says what became of its rollouts. Order is that of
//! arrival; the timestamp of an event, in whole seconds, only tells one that comes late from a return to an earlier
//! revision. Knows nothing of Alerts, deliveries, rows, or what others conclude from a rollout.

mod fold;
mod input;
mod owned;
mod packed;
mod place;
mod signal;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fold::step;
pub use input::{Input, Observation, Report, Seen};
pub use owned::{Details, Found, Hints, Sighting};
pub use signal::{end, has_rollouts, is_success};

use crate::{Seq, Time};

/// Rollouts that an object's state holds: the newest, and those before it that a late event may still be about. Each event
/// of the object writes all of them.
pub const KEPT: usize = 4;
/// Bytes kept of a message.
pub const MESSAGE: usize = 512;
/// Bytes kept of any other text that an input brings.
pub const TEXT: usize = 256;
/// The reason of a rollout that ended because its object was deleted.
pub const DELETED: &str = "Deleted";

/// What is known of an object's rollouts: the newest one and a few before it. The default is an object never heard of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// In the order in which they really began, which is not always that of their ids. At most [`KEPT`]; none but the
    /// last is ever open, and none but the last keeps its message. Shared, because every event of an object that has any
    /// takes a copy of them.
    rollouts: Vec<Arc<Rollout>>,
    live: Option<Live>,
    uid: String,
    gone: Option<Gone>,
    /// When an earlier revision succeeded once more although the newest rollout is open, if nothing was heard of the
    /// newest since.
    doubt: Option<Time>,
}

impl State {
    /// The newest rollout.
    pub fn current(&self) -> Option<&Rollout> {
        self.rollouts.last().map(|rollout| &**rollout)
    }

    /// The rollouts that are remembered, in the order in which they began; the newest is the last.
    pub fn rollouts(&self) -> &[Arc<Rollout>] {
        &self.rollouts
    }

    /// The rollout of this id, if it is remembered.
    pub fn rollout(&self, id: Seq) -> Option<&Rollout> {
        self.rollouts.iter().find(|rollout| rollout.id == id).map(|rollout| &**rollout)
    }

    /// What the object runs: the last revision that succeeded, or that a rollback brought back.
    pub fn live(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    fn rollout_mut(&mut self, i: usize) -> &mut Rollout {
        Arc::make_mut(&mut self.rollouts[i])
    }

    /// Whether nothing was ever heard of it.
    pub fn is_unheard(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the object is being deleted, or was, as far as anyone told.
    pub fn is_gone(&self) -> bool {
        self.gone.is_some()
    }
}

/// What an object runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// The revision.
    pub revision: String,
    /// The rollout that brought it, if that is known.
    pub rollout: Option<Seq>,
    /// The event that made it live, or live again.
    pub since: Seq,
}

/// The object is going, or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Gone {
    /// When the success was reported that a deletion ends with, which is none.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    success: Option<Time>,
}

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It waits: for a dependency, or for the next attempt after one that was called off.
    Pending,
    /// It is under way.
    Progressing,
    /// The object is at the revision.
    Succeeded,
    /// An attempt failed and none has succeeded since. Flux tries again, so that it may yet succeed.
    Failed,
    /// Another revision came before it ended; or the object was deleted.
    Superseded,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Pending, Self::Progressing, Self::Succeeded, Self::Failed, Self::Superseded];

    /// Whether it has not ended yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Progressing)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Progressing => "progressing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }

    /// The state that is called so.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word)
    }

    /// How the store spells it.
    pub fn code(self) -> i64 {
        match self {
            Self::Pending => 1,
            Self::Progressing => 2,
            Self::Succeeded => 3,
            Self::Failed => 4,
            Self::Superseded => 5,
        }
    }

    /// What the store spells so.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.code() == code)
    }
}

/// One object going to one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Arrival of the event that opened it.
    pub id: Seq,
    /// The revision, as the controller named it.
    pub revision: String,
    /// The revision that an artifact was made from.
    pub origin_revision: Option<String>,
    /// Hash of the commit.
    pub commit: Option<String>,
    /// Digest of a HelmRelease's values, where the controller itself reported.
    pub token: Option<String>,
    /// Digest of the artifact that a HelmRelease's chart came in.
    pub oci_digest: Option<String>,
    /// Where it stands.
    pub state: Phase,
    /// When it began, by its events' own clock, in whole seconds.
    pub started: Time,
    /// When it came to the state that ended it, by the same clock.
    pub finished: Option<Time>,
    /// When it succeeded for the first time, by the same clock; stays when it fails later.
    pub first_success: Option<Time>,
    /// Attempts made, as far as they were reported.
    pub attempts: u32,
    /// The last reason that says something of its state.
    pub reason: String,
    /// The message that came with it, cut to [`MESSAGE`] bytes.
    pub message: String,
    /// The last event that changed it.
    pub last_event: Seq,
    /// What superseded it; `None` in a superseded one: its object was deleted.
    pub superseded_by: Option<Successor>,
    /// The latest time, by its events' own clock, that something was heard of it.
    pub(crate) heard: Time,
    /// The last attempt is over; the next event of one counts as another.
    pub(crate) rests: bool,
}

/// The rollout that took another one's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Its id.
    #[serde(rename = "i")]
    pub id: Seq,
    /// Its revision.
    #[serde(rename = "r")]
    pub revision: String,
    /// Hash of its commit.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl From<&Rollout> for Successor {
    fn from(rollout: &Rollout) -> Self {
        Self { id: rollout.id, revision: rollout.revision.clone(), commit: rollout.commit.clone() }
    }
}

/// What happened to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It is a new one. If it came into being ended, a second transition says how.
    Opened,
    /// It went from pending to progressing or back.
    Progressed,
    /// It failed, and had not before, or had succeeded since.
    Failed,
    /// It had failed and succeeded.
    Recovered,
    /// It succeeded.
    Succeeded,
    /// Another revision came before it ended, or its object was deleted.
    Superseded,
}

impl What {
    const ALL: [Self; 6] =
        [Self::Opened, Self::Progressed, Self::Failed, Self::Recovered, Self::Succeeded, Self::Superseded];

    /// How the store spells it; `Failed` and `Recovered` are spelled as [`Change`](crate::plan::Change) spells them.
    pub fn code(self) -> i64 {
        match self {
            Self::Failed => 1,
            Self::Recovered => 2,
            Self::Opened => 3,
            Self::Progressed => 4,
            Self::Succeeded => 5,
            Self::Superseded => 6,
        }
    }

    /// What the store spells so.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.code() == code)
    }
}

/// What happened to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which one; it is among those that changed.
    pub rollout: Seq,
    /// What happened.
    pub what: What,
}

/// What one input did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The object's state afterwards.
    pub state: State,
    /// The rollout that the input is about, if any; it need not have changed it.
    pub about: Option<Seq>,
    /// What happened, in the order in which it is to be told.
    pub transitions: Vec<Transition>,
    /// Every rollout that is new or differs from what it was, each once; more than the transitions tell of (a failure
    /// that repeats counts attempts), and also those that the state no longer remembers.
    pub changed: Vec<Rollout>,
}

impl Step {
    /// A rollout that is new or differs, as it is now.
    pub fn changed(&self, id: Seq) -> Option<&Rollout> {
        self.changed.iter().find(|rollout| rollout.id == id)
    }

    /// Whether the input told anything new. What did not only repeats what was known, however it is worded and counted.
    pub fn is_news(&self, before: &State) -> bool {
        let State { live, gone, doubt, .. } = &self.state;
        !self.transitions.is_empty() || *live != before.live || *gone != before.gone || *doubt != before.doubt
    }
}

/// The beginning of a text, not longer than `most` bytes.
pub(crate) fn cut(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}
