//! The pauses between attempts to open a stream.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause that a server may ask for.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so long a stream counts as one that held.
const HELD: Duration = Duration::from_secs(5);

/// Pauses that double up to a longest one, each a little off, so that not all come back at once.
#[derive(Debug)]
pub(in crate::cli) struct Backoff {
    pause: Duration,
    longest: Duration,
}

impl Backoff {
    /// Begins with the shortest; `longest` is not longer than half a minute.
    pub fn new(longest: Duration) -> Self {
        Self { pause: FIRST, longest }
    }

    /// An attempt lasted so long: if its stream held, the pauses begin anew.
    pub fn lasted(&mut self, time: Duration) {
        if time > HELD {
            self.pause = FIRST;
        }
    }

    /// The next pause: what the server asks for, within reason, or our own.
    pub fn next(&mut self, wanted: Option<Duration>) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.longest);
        wanted.map_or_else(|| pause.mul_f64(0.75 + 0.5 * fastrand::f64()), |wanted| wanted.clamp(pause, PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_begin_anew_once_a_stream_held() {
        let (seconds, minute) = (Duration::from_secs, Duration::from_secs(60));
        let mut backoff = Backoff::new(seconds(1));
        for expected in [0.2, 0.4, 0.8, 1.0, 1.0] {
            let pause = backoff.next(None).as_secs_f64() / expected;
            assert!((0.75..=1.25).contains(&pause), "{pause} of {expected}");
        }
        assert_eq!(backoff.next(Some(seconds(7))), seconds(7));
        assert_eq!(backoff.next(Some(minute)), PATIENCE);
        assert_eq!(backoff.next(Some(Duration::ZERO)), seconds(1));
        backoff.lasted(seconds(5));
        assert_eq!(backoff.next(Some(Duration::ZERO)), seconds(1));
        backoff.lasted(seconds(6));
        assert_eq!(backoff.next(Some(Duration::ZERO)), FIRST);
    }
}
