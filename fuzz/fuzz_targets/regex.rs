//! Any text is a pattern or a refusal, and a pattern can be searched for.
#![no_main]

use belfry_core::regexes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    match regexes::compile_one(pattern) {
        Ok(regex) => {
            regex.is_match(text);
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
});
