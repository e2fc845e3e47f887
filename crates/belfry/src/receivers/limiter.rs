//! How often something may happen: a rate, and a burst that may exceed it for a moment.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use belfry_core::Time;

/// A limit by one point in time: when what has happened so far would have happened at exactly the rate.
#[derive(Debug)]
pub(crate) struct Limiter {
    every: Duration,
    burst: Duration,
    until: Mutex<Time>,
}

impl Limiter {
    /// A limit of so many a second, of which `burst` may come at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self::every(Duration::from_secs(1) / per_second.max(1), burst)
    }

    /// A limit of one in this time, of which `burst` may come at once.
    pub(crate) fn every(every: Duration, burst: u32) -> Self {
        Self { every, burst: every * burst.max(1), until: Mutex::new(Time(i64::MIN)) }
    }

    /// Lets one pass, or says how long it takes until one may.
    pub(crate) fn take(&self, now: Time) -> Result<(), Duration> {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*until).max(now).after(self.every);
        let over = next.since(now.after(self.burst));
        if over.is_zero() {
            *until = next;
            return Ok(());
        }
        Err(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Time(1_000_000_000);
        let limiter = Limiter::new(10, 5);
        assert_eq!((0..20).filter(|_| limiter.take(start).is_ok()).count(), 5);
        let wait = limiter.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        let later = start.after(wait);
        assert!(limiter.take(later).is_ok() && limiter.take(later).is_err());
        let much_later = start.after(Duration::from_secs(60));
        assert_eq!((0..20).filter(|_| limiter.take(much_later).is_ok()).count(), 5);
    }

    #[test]
    fn a_clock_that_goes_back_does_not_shut_it_for_long() {
        let limiter = Limiter::new(1, 1);
        assert!(limiter.take(Time(10_000_000)).is_ok());
        assert_eq!(limiter.take(Time(0)).unwrap_err(), Duration::from_secs(11));
    }
}
