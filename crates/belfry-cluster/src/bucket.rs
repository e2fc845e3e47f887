//! A token bucket, as client-go has it: for requests by `--kube-api-qps`, and for Kubernetes Events about one object.

use std::time::Duration;

use tokio::time::Instant;

/// Tokens that come back with time.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    counted: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { tokens: burst, burst, per_second, counted: now }
    }

    /// Takes a token, or says how long it takes until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let gained = now.saturating_duration_since(self.counted).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.counted = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        // A little more than the exact time, or rounding asks again at once.
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second) + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 3, start);
        assert_eq!((0..5).filter(|_| bucket.take(start).is_ok()).count(), 3);
        let wait = bucket.take(start).unwrap_err();
        assert_eq!(wait.as_millis(), 501);
        assert!(bucket.take(start + wait).is_ok());
        assert!(bucket.take(start + wait).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!((0..5).filter(|_| bucket.take(later).is_ok()).count(), 3);
    }
}
