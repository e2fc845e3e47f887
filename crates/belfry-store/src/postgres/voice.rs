//! What a replica tells the others of what it committed. They take it as a hint to look sooner than they would, so it is said
//! beside the writer, and not for each of many commits.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::types::DestId;

/// Destinations that a notification names; more are all.
const NAMED: usize = 200;

/// What is still to be said.
#[derive(Debug, Default)]
struct News {
    /// The last event.
    event: i64,
    /// Destinations that others may look at.
    dests: BTreeSet<DestId>,
}

#[derive(Debug)]
pub(super) struct Voice {
    name: String,
    news: Mutex<Option<News>>,
    /// Wakes who says it.
    pub nudge: Notify,
}

impl Voice {
    pub fn new() -> Self {
        Self { name: format!("{:016x}", fastrand::u64(..)), news: Mutex::default(), nudge: Notify::new() }
    }

    /// Marks what this process says on the channel.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn news(&self) -> MutexGuard<'_, Option<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has this said soon. `event` is the last one.
    pub fn say(&self, event: i64, dests: impl IntoIterator<Item = DestId>) {
        let mut news = self.news();
        let silent = news.is_none();
        let said = news.get_or_insert_default();
        said.event = said.event.max(event);
        said.dests.extend(dests);
        drop(news);
        if silent {
            self.nudge.notify_one();
        }
    }

    pub fn has_news(&self) -> bool {
        self.news().is_some()
    }

    /// What is to be said now: who speaks, the last event, destinations.
    pub fn take(&self) -> Option<String> {
        let News { event, dests } = self.news().take()?;
        let named: Vec<String> = dests.iter().map(|dest| dest.0.to_string()).collect();
        let named = if named.len() > NAMED { "*".to_owned() } else { named.join(",") };
        Some(format!("{}:{event}:{named}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_gathered_until_they_are_said() {
        let voice = Voice::new();
        assert_eq!(voice.take(), None);
        voice.say(7, [DestId(2), DestId(1)]);
        voice.say(5, [DestId(2)]);
        assert!(voice.has_news());
        assert_eq!(voice.take(), Some(format!("{}:7:1,2", voice.name())));
        assert!(!voice.has_news() && voice.take().is_none());
        voice.say(8, (0..1000).map(DestId));
        assert_eq!(voice.take(), Some(format!("{}:8:*", voice.name())));
    }
}
