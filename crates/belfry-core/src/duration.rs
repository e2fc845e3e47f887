//! Durations as Go's `time.ParseDuration` reads them, for values that cannot be negative: timeouts and intervals in
//! manifests, and flags.

use std::time::Duration;

/// A text that isn't a duration, or not one that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// It isn't a row of numbers with units.
    #[error("'{0}' is not a duration; write it like 300ms, 15s or 1m30s")]
    Malformed(String),
    /// A number without a unit.
    #[error("a unit is missing in the duration '{0}'; write it like 300ms, 15s or 1m30s")]
    MissingUnit(String),
    /// A unit that doesn't exist.
    #[error("unknown unit '{unit}' in the duration '{text}'; the units are ns, us, ms, s, m, h")]
    UnknownUnit {
        /// The whole text.
        text: String,
        /// What stands where a unit should.
        unit: String,
    },
    /// Below zero.
    #[error("the duration '{0}' is negative")]
    Negative(String),
    /// More than 63 bits of nanoseconds, about 292 years.
    #[error("the duration '{0}' is too long")]
    TooLong(String),
}

/// Nanoseconds above which Go gives up.
const MAX: u64 = i64::MAX as u64;

/// Reads a duration: `1m30s`, `1.5h`, `300ms`, `0`.
///
/// # Errors
/// When Go would refuse it, or when it is negative.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let malformed = || BadDuration::Malformed(text.to_owned());
    let too_long = || BadDuration::TooLong(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(malformed());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, fraction, tail) = number(rest).ok_or_else(malformed)?;
        let digits = rest[..rest.len() - tail.len()].trim_matches('.');
        if digits.is_empty() {
            return Err(malformed());
        }
        let unit = &tail[..tail.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(tail.len())];
        let nanos = match unit {
            "" => return Err(BadDuration::MissingUnit(text.to_owned())),
            "ns" => 1,
            // The micro sign and the Greek letter both.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(BadDuration::UnknownUnit { text: text.to_owned(), unit: unit.to_owned() }),
        };
        let part = part(whole, fraction, nanos).filter(|part| *part <= MAX).ok_or_else(too_long)?;
        total = total.checked_add(part).filter(|total| *total <= MAX).ok_or_else(too_long)?;
        rest = &tail[unit.len()..];
    }
    if negative && total > 0 {
        return Err(BadDuration::Negative(text.to_owned()));
    }
    Ok(Duration::from_nanos(total))
}

/// The digits before and after the point, and what follows them; `None` when the whole part has too many.
fn number(text: &str) -> Option<(Option<u64>, &str, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, tail) = text.split_at(digits(text));
    let (fraction, tail) = match tail.strip_prefix('.') {
        Some(after) => after.split_at(digits(after)),
        None => ("", tail),
    };
    let whole = if whole.is_empty() { Some(0) } else { whole.parse().ok() };
    Some((whole, fraction, tail))
}

/// A number times a unit in nanoseconds; what is less than a nanosecond is cut off. The fraction goes through a float,
/// as in Go, so that the last digits agree.
fn part(whole: Option<u64>, fraction: &str, nanos: u64) -> Option<u64> {
    let (mut digits, mut scale) = (0u64, 1f64);
    for digit in fraction.bytes().map(|digit| u64::from(digit - b'0')) {
        if digits > MAX / 10 {
            break;
        }
        digits = digits * 10 + digit;
        scale *= 10.0;
    }
    let below = (digits as f64 * (nanos as f64 / scale)) as u64;
    whole?.checked_mul(nanos)?.checked_add(below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("-0s", 0),
            ("0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("300ms", 300_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1h15m30.918273645s", 4_530_918_273_645),
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.9999999999999999999s", 1_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("10μs", 10_000),
            ("7ns", 7),
            ("1s1s", 2_000_000_000),
            ("9223372036854775807ns", i64::MAX as u64),
            ("0.100000000000000000000h", 360_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, error) in [
            ("", "'' is not a duration; write it like 300ms, 15s or 1m30s"),
            ("s", "'s' is not a duration; write it like 300ms, 15s or 1m30s"),
            (".s", "'.s' is not a duration; write it like 300ms, 15s or 1m30s"),
            (" 1s", "' 1s' is not a duration; write it like 300ms, 15s or 1m30s"),
            ("15", "a unit is missing in the duration '15'; write it like 300ms, 15s or 1m30s"),
            ("1s5", "a unit is missing in the duration '1s5'; write it like 300ms, 15s or 1m30s"),
            ("1d", "unknown unit 'd' in the duration '1d'; the units are ns, us, ms, s, m, h"),
            ("1 s", "unknown unit ' s' in the duration '1 s'; the units are ns, us, ms, s, m, h"),
            ("-5s", "the duration '-5s' is negative"),
            ("3000000h", "the duration '3000000h' is too long"),
            ("99999999999999999999s", "the duration '99999999999999999999s' is too long"),
        ] {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(error.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.nuµmsh ]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn hours_minutes_seconds_add_up(h in 0u64..1000, m in 0u64..600, ms in 0u64..100_000) {
            let expected = Duration::from_secs(h * 3600 + m * 60) + Duration::from_millis(ms);
            prop_assert_eq!(parse(&format!("{h}h{m}m{ms}ms")), Ok(expected));
            prop_assert_eq!(parse(&format!("{h}h{m}m{}.{:03}s", ms / 1000, ms % 1000)), Ok(expected));
        }
    }
}
