//! What is said about failures: once when they begin, once when they end.

use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// One thing that can fail and be repaired.
#[derive(Debug, Default)]
pub(crate) struct Outage(Option<Instant>);

impl Outage {
    /// It failed. Said aloud only when it didn't fail before.
    pub(crate) fn failed(&mut self, how: impl Display) {
        if self.0.is_some() {
            tracing::debug!("{how}");
            return;
        }
        self.0 = Some(Instant::now());
        tracing::warn!("{how}");
    }

    /// It works.
    pub(crate) fn over(&mut self, what: impl Display) {
        if let Some(since) = self.0.take() {
            tracing::info!("{what}: works again after {:.0?}", since.elapsed());
        }
    }

    /// Whether it fails.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

/// Whether the API server answers at all, as all requests together see it.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<Outage>);

const API_SERVER: &str = "the API server";

impl Reach {
    pub(crate) fn answered(&self) {
        self.outage().over(API_SERVER);
    }

    pub(crate) fn unreachable(&self, why: impl Display) {
        self.outage().failed(format_args!("{API_SERVER} can't be reached: {why}"));
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.outage().is_on()
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
