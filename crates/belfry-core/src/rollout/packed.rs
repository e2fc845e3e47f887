//! How an object's state is spelled: without what follows from the rest. Each event of an object writes the
//! state, and most rollouts say the same thing several times: their commit stands in their revision, and one event began and ended
//! them.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Gone, Live, Phase, Rollout, State, Successor};
use crate::{Seq, Time, revision::Revision};

/// What is left out, a bit each; what isn't stands in its field, or is absent.
const COMMIT: u8 = 1;
const FINISHED: u8 = 2;
const FIRST_SUCCESS: u8 = 4;
const HEARD: u8 = 8;
const LAST_EVENT: u8 = 16;
const REASON: u8 = 32;
const RESTS: u8 = 64;
/// The most common of reasons.
const USUAL: &str = "ReconciliationSucceeded";

#[derive(Serialize, Deserialize)]
struct Packed<'a> {
    #[serde(rename = "i")]
    id: Seq,
    #[serde(rename = "r")]
    revision: Cow<'a, str>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    origin_revision: Option<Cow<'a, str>>,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    commit: Option<Cow<'a, str>>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    token: Option<Cow<'a, str>>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    oci_digest: Option<Cow<'a, str>>,
    #[serde(rename = "s")]
    state: i64,
    #[serde(rename = "b")]
    started: Time,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    finished: Option<Time>,
    #[serde(rename = "y", default, skip_serializing_if = "Option::is_none")]
    first_success: Option<Time>,
    #[serde(rename = "n", default = "one", skip_serializing_if = "is_one")]
    attempts: u32,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'a, str>>,
    #[serde(rename = "m", default, skip_serializing_if = "str::is_empty")]
    message: Cow<'a, str>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    last_event: Option<Seq>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    superseded_by: Option<Cow<'a, Successor>>,
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    heard: Option<Time>,
    #[serde(rename = "v", default, skip_serializing_if = "std::ops::Not::not")]
    rests: bool,
    #[serde(rename = "q", default)]
    left_out: u8,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// The hash that a rollout's commit most often is.
fn named<'a>(revision: &'a str, origin_revision: Option<&'a str>) -> Option<&'a str> {
    origin_revision.and_then(|origin| Revision::parse(origin).hash).or_else(|| Revision::parse(revision).hash)
}

fn left_out(rollout: &Rollout) -> u8 {
    let commit = rollout.commit.as_deref();
    let follows = [
        (COMMIT, commit.is_some() && commit == named(&rollout.revision, rollout.origin_revision.as_deref())),
        (FINISHED, rollout.finished == Some(rollout.started)),
        (FIRST_SUCCESS, rollout.first_success.is_some() && rollout.first_success == rollout.finished),
        (HEARD, rollout.heard == rollout.finished.unwrap_or(rollout.started)),
        (LAST_EVENT, rollout.last_event == rollout.id),
        (REASON, rollout.reason == USUAL),
        (RESTS, rollout.rests && !rollout.state.is_open()),
    ];
    follows.iter().filter(|(_, follows)| *follows).map(|(bit, _)| bit).sum()
}

impl Serialize for Rollout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let left_out = left_out(self);
        let stands = |bit| left_out & bit == 0;
        Packed {
            id: self.id,
            revision: Cow::Borrowed(&self.revision),
            origin_revision: self.origin_revision.as_deref().map(Cow::Borrowed),
            commit: self.commit.as_deref().map(Cow::Borrowed).filter(|_| stands(COMMIT)),
            token: self.token.as_deref().map(Cow::Borrowed),
            oci_digest: self.oci_digest.as_deref().map(Cow::Borrowed),
            state: self.state.code(),
            started: self.started,
            finished: self.finished.filter(|_| stands(FINISHED)),
            first_success: self.first_success.filter(|_| stands(FIRST_SUCCESS)),
            attempts: self.attempts,
            reason: stands(REASON).then_some(Cow::Borrowed(&self.reason)),
            message: Cow::Borrowed(&self.message),
            last_event: stands(LAST_EVENT).then_some(self.last_event),
            superseded_by: self.superseded_by.as_ref().map(Cow::Borrowed),
            heard: stands(HEARD).then_some(self.heard),
            rests: self.rests && stands(RESTS),
            left_out,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rollout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let packed = Packed::deserialize(deserializer)?;
        let follows = |bit| packed.left_out & bit != 0;
        let commit = match follows(COMMIT) {
            true => named(&packed.revision, packed.origin_revision.as_deref()).map(str::to_owned),
            false => packed.commit.map(Cow::into_owned),
        };
        let finished = if follows(FINISHED) { Some(packed.started) } else { packed.finished };
        let state = Phase::from_code(packed.state)
            .ok_or_else(|| serde::de::Error::custom(format_args!("no phase has the code {}", packed.state)))?;
        Ok(Self {
            id: packed.id,
            commit,
            state,
            started: packed.started,
            finished,
            first_success: if follows(FIRST_SUCCESS) { finished } else { packed.first_success },
            heard: packed.heard.or(finished).unwrap_or(packed.started),
            last_event: packed.last_event.unwrap_or(packed.id),
            revision: packed.revision.into_owned(),
            origin_revision: packed.origin_revision.map(Cow::into_owned),
            token: packed.token.map(Cow::into_owned),
            oci_digest: packed.oci_digest.map(Cow::into_owned),
            attempts: packed.attempts,
            reason: if follows(REASON) { USUAL.into() } else { packed.reason.unwrap_or_default().into_owned() },
            message: packed.message.into_owned(),
            superseded_by: packed.superseded_by.map(Cow::into_owned),
            rests: packed.rests || follows(RESTS),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PackedState<'a> {
    #[serde(rename = "r", default, skip_serializing_if = "<[_]>::is_empty")]
    rollouts: Cow<'a, [Arc<Rollout>]>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    live: Option<PackedLive<'a>>,
    #[serde(rename = "u", default, skip_serializing_if = "str::is_empty")]
    uid: Cow<'a, str>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    doubt: Option<Time>,
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { rollouts, live, uid, gone, doubt } = self;
        PackedState {
            rollouts: Cow::Borrowed(rollouts),
            live: live.as_ref().map(|live| PackedLive::new(live, rollouts)),
            uid: Cow::Borrowed(uid),
            gone: gone.clone(),
            doubt: *doubt,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PackedState { rollouts, live, uid, gone, doubt } = PackedState::deserialize(deserializer)?;
        let live = live.and_then(|live| live.unpack(&rollouts));
        Ok(Self { rollouts: rollouts.into_owned(), live, uid: uid.into_owned(), gone, doubt })
    }
}

/// How a state spells what its object runs: without the revision, if that is the newest rollout's.
#[derive(Serialize, Deserialize)]
struct PackedLive<'a> {
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    revision: Option<Cow<'a, str>>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    rollout: Option<Seq>,
    #[serde(rename = "e")]
    since: Seq,
}

impl<'a> PackedLive<'a> {
    fn new(live: &'a Live, rollouts: &[Arc<Rollout>]) -> Self {
        let Live { revision, rollout, since } = live;
        let newest = rollouts.last().filter(|newest| Some(newest.id) == *rollout && newest.revision == *revision);
        match newest {
            Some(_) => Self { revision: None, rollout: None, since: *since },
            None => Self { revision: Some(Cow::Borrowed(revision)), rollout: *rollout, since: *since },
        }
    }

    /// `None` if it is the newest rollout's, and there is none.
    fn unpack(self, rollouts: &[Arc<Rollout>]) -> Option<Live> {
        let Self { revision, rollout, since } = self;
        let Some(revision) = revision else {
            let newest = rollouts.last()?;
            return Some(Live { revision: newest.revision.clone(), rollout: Some(newest.id), since });
        };
        Some(Live { revision: revision.into_owned(), rollout, since })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{option, prelude::*};

    use super::*;

    /// Few values, so that they often coincide.
    fn rollouts() -> impl Strategy<Value = Rollout> {
        let hash = prop_oneof![Just("0123456789012345678901234567890123456789"), Just("abcdef1"), Just("")];
        let text = prop_oneof![Just(""), Just("main"), Just("1.2.3+abcdef1")];
        let revision = (text, hash.clone()).prop_map(|(name, hash)| format!("{name}@sha1:{hash}")).boxed();
        let time = || (0_i64..3).prop_map(Time);
        let times = (time(), option::of(time()), option::of(time()), time());
        let successor =
            (0_i64..3, revision.clone()).prop_map(|(id, revision)| Successor { id: Seq(id), revision, commit: None });
        let texts = (revision.clone(), option::of(revision), option::of(hash.prop_map(str::to_owned)));
        let rest = (0_i64..3, 0_i64..3, 1_i64..6, any::<u32>(), option::of(successor), any::<bool>());
        (texts, times, rest).prop_map(
            |(
                (revision, origin_revision, commit),
                (started, finished, first_success, heard),
                (id, last, state, attempts, superseded_by, rests),
            )| Rollout {
                id: Seq(id),
                revision,
                origin_revision,
                token: commit.clone(),
                oci_digest: None,
                message: commit.clone().unwrap_or_default(),
                commit,
                state: Phase::from_code(state).unwrap(),
                started,
                finished,
                first_success,
                attempts,
                reason: if last == 1 { "BuildFailed" } else { USUAL }.into(),
                last_event: Seq(last),
                superseded_by,
                heard,
                rests,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_is_lost(rollout in rollouts()) {
            let text = serde_json::to_string(&rollout).unwrap();
            prop_assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout, "{}", text);
        }

        #[test]
        fn what_runs_is_known_again(
            (known, of, id, since) in (proptest::collection::vec(rollouts(), 0..3), rollouts(), option::of(0_i64..3), 0_i64..3)
        ) {
            let newest = known.last().filter(|_| since > 0).map(|newest| newest.revision.clone());
            let live = Live { revision: newest.unwrap_or(of.revision), rollout: id.map(Seq), since: Seq(since) };
            let known: Vec<Arc<Rollout>> = known.into_iter().map(Arc::new).collect();
            let text = serde_json::to_string(&PackedLive::new(&live, &known)).unwrap();
            let packed: PackedLive<'_> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(packed.unpack(&known), Some(live), "{}", text);
        }
    }
}
