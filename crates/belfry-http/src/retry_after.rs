//! `Retry-After`, in both of its forms.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};

/// How long the header asks to wait: seconds, or the time until an HTTP date (zero when that has passed). `None` for
/// anything else.
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX / 4)));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates() {
        let now = "1994-11-06T08:49:37Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert!(seconds("99999999999999999999999").is_some_and(|s| s > 1 << 50));
        for nonsense in ["", "soon", "-5", "1.5", "0x10"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }
}
