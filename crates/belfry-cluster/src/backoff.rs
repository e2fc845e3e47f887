//! How long to wait after a failure: longer each time, never long enough that a recovery goes unnoticed.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Doubling delays with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next delay: between half of the step and the whole.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        step / 2 + (step / 2).mul_f64(share())
    }

    /// Waits for the next delay.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.delay()).await;
    }
}

/// Somewhere between 0 and 1. Each hasher is seeded anew: random enough to keep things from coming all at the same moment.
pub(crate) fn share() -> f64 {
    f64::from(u16::try_from(RandomState::new().hash_one(()) % 1000).unwrap_or_default()) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::new();
        for step in [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000] {
            let delay = backoff.delay().as_millis();
            assert!((step / 2..=step).contains(&delay), "{delay} of {step}");
        }
        backoff.reset();
        assert!(backoff.delay() <= FIRST);
    }
}
