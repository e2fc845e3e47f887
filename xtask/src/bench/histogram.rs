//! Times, counted in buckets that are 3 % wide.

use std::time::Duration;

/// Buckets for every power of two.
const FINE: u64 = 32;

/// How often which time was taken.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// By bucket of microseconds; as many as were needed.
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let bucket = bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if self.buckets.len() <= bucket {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(took);
    }

    /// Takes in what another one counted.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The time that this share of all took at most, in milliseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return (upper(bucket as u64) as f64 / 1e3).min(self.max());
            }
        }
        0.0
    }

    /// The longest time, in milliseconds.
    pub fn max(&self) -> f64 {
        self.max.as_secs_f64() * 1e3
    }
}

fn bucket(micros: u64) -> usize {
    let exponent = u64::from(micros.max(1).ilog2());
    let bucket = match exponent.checked_sub(FINE.ilog2().into()) {
        None => micros,
        Some(shift) => (shift + 1) * FINE + ((micros >> shift) & (FINE - 1)),
    };
    bucket as usize
}

/// The last microsecond of a bucket.
fn upper(bucket: u64) -> u64 {
    match (bucket / FINE).checked_sub(1) {
        None => bucket,
        Some(shift) => ((FINE + bucket % FINE + 1) << shift) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_a_bucket_that_ends_close_above_it() {
        let mut last = 0;
        for micros in (0..5000).chain([123_456, 9_999_999, u64::from(u32::MAX)]) {
            let end = upper(bucket(micros) as u64);
            assert!(end >= micros && end - micros <= micros / FINE, "{micros} {end}");
            assert!(bucket(micros) >= last);
            last = bucket(micros);
        }
    }

    #[test]
    fn quantiles() {
        let mut one = Histogram::default();
        assert_eq!(one.quantile(0.5), 0.0);
        for millis in 1..=100 {
            one.record(Duration::from_millis(millis));
        }
        let mut both = one.clone();
        both.add(&one);
        for (share, millis) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = both.quantile(share);
            assert!(found >= millis && found <= millis * 1.04, "{share}: {found}");
        }
        assert_eq!(both.max(), 100.0);
    }
}
