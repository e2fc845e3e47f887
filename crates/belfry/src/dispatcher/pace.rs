//! Deliveries give way: while many senders wait for an answer, deliveries go slower, and catch up once the rush is over.

use std::{
    num::NonZero,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Deliveries a second for each core while they give way: a fiftieth of a core.
const RATE: u32 = 250;

/// When the next delivery may begin while deliveries give way.
#[derive(Debug)]
pub(super) struct Pace {
    next: Mutex<Instant>,
    gap: Duration,
}

impl Pace {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::of(RATE.saturating_mul(u32::try_from(cores).unwrap_or(u32::MAX)))
    }

    fn of(rate: u32) -> Self {
        Self { next: Mutex::new(Instant::now()), gap: Duration::from_secs(1) / rate }
    }

    /// Waits for its turn: first come, first served, whatever the provider.
    pub async fn turn(&self) {
        tokio::time::sleep_until(self.take(Instant::now())).await;
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now);
        *next = turn + self.gap;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_a_gap_apart_and_none_is_saved_up() {
        let (pace, start) = (Pace::of(1_000), Instant::now() + Duration::from_secs(1));
        let after = |now: u64, turn: u64| {
            let millis = Duration::from_millis;
            assert_eq!(pace.take(start + millis(now)), start + millis(turn), "at {now}");
        };
        after(0, 0);
        after(0, 1);
        after(0, 2);
        after(2, 3);
        after(9, 9);
        after(9, 10);
    }
}
