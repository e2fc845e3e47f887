//! Webhooks as the store takes them in and tells of them.

use std::sync::Arc;

use belfry_core::{ConfigKey, ObjectKey, Seq, Time};
use tokio::sync::oneshot;

use crate::{
    Refused, Store, StoreError,
    clean::{clean_object, clean_text, cut},
    queue::Job,
};

/// Bytes kept of a delivery id or an event type.
const WORD: usize = 256;
/// Bytes kept of a reason.
const REASON: usize = 512;

/// A webhook, and what it asks for.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The Receiver that took it.
    pub receiver: Arc<ConfigKey>,
    /// When it came.
    pub at: Time,
    /// The sender's own id of it, if it names one.
    pub delivery_id: Option<String>,
    /// What came of it. A repeat is found out by the store.
    pub verdict: HookVerdict,
    /// Why it was ignored or refused; masked.
    pub reason: String,
    /// What it tells of, as its source calls that: `push`.
    pub event: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// The objects that are to be reconciled, if it is accepted.
    pub triggers: Vec<TriggerRef>,
}

/// An object that is to be reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerRef {
    /// The object.
    pub object: ObjectKey,
}

/// What came of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookVerdict {
    /// It is genuine, and triggers what it names.
    Accepted,
    /// It is genuine, and was filtered out.
    Ignored,
    /// It isn't genuine, or can't be told to be.
    Refused,
    /// It is genuine, and came before.
    Repeat,
}

impl HookVerdict {
    const ALL: [Self; 4] = [Self::Accepted, Self::Ignored, Self::Refused, Self::Repeat];

    /// The verdict in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
            Self::Repeat => "repeat",
        }
    }

    pub(crate) fn code(self) -> i64 {
        match self {
            Self::Accepted => 1,
            Self::Ignored => 2,
            Self::Refused => 3,
            Self::Repeat => 4,
        }
    }

    pub(crate) fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.code() == code)
    }
}

/// What became of a webhook. When this is answered, the record and the triggers are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Its record.
    pub seq: Seq,
    /// The one that it repeats: it triggered nothing.
    pub repeat_of: Option<Seq>,
    /// Triggers that were added.
    pub new: u32,
    /// Objects that had one waiting, which does for this webhook too.
    pub merged: u32,
}

/// A webhook as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRow {
    /// Its number, which is when it was recorded.
    pub seq: Seq,
    /// The Receiver that took it.
    pub receiver: Arc<ConfigKey>,
    /// When it came.
    pub at: Time,
    /// The sender's own id of it.
    pub delivery_id: Option<String>,
    /// What came of it.
    pub verdict: HookVerdict,
    /// Why.
    pub reason: String,
    /// What it tells of.
    pub event: String,
    /// Bytes of its body.
    pub bytes: u64,
    /// Objects that it asked to reconcile.
    pub resources: u32,
    /// How many of them had a trigger waiting already.
    pub merged: u32,
}

impl Store {
    /// Takes a webhook in: one commit for its record and a trigger for each object that has none waiting. A genuine one
    /// whose delivery id came to the same Receiver within [`belfry_core::limits::HOOK_REPEAT`] is recorded as a repeat, and triggers
    /// nothing.
    pub async fn hook(&self, mut hook: Hook) -> Result<Hooked, Refused> {
        hook.delivery_id = hook.delivery_id.filter(|id| !id.is_empty());
        for (text, most) in hook
            .delivery_id
            .iter_mut()
            .chain([&mut hook.event])
            .map(|text| (text, WORD))
            .chain([(&mut hook.reason, REASON)])
        {
            clean_text(text);
            cut(text, most);
        }
        hook.triggers.iter_mut().for_each(|trigger| clean_object(&mut trigger.object));
        let (reply, answer) = oneshot::channel();
        self.push(Job::Hook(Box::new(hook), reply))?;
        answer.await.unwrap_or_else(|_| Err(Refused::Down("it is closed".into())))
    }

    /// The webhooks that are kept of this Receiver, or of all, newest first.
    pub async fn hooks(&self, receiver: Option<&ConfigKey>, limit: u32) -> Result<Vec<HookRow>, StoreError> {
        let receiver = receiver.cloned();
        self.read(move |reader| reader.hooks(receiver.as_ref(), limit)).await
    }
}
