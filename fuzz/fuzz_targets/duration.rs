//! Any text is a duration or a refusal; a duration has no more than Go's 63 bits of nanoseconds.
#![no_main]

use belfry_core::duration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(duration) = duration::parse(text) {
        assert!(duration.as_nanos() <= i64::MAX as u128);
    }
});
