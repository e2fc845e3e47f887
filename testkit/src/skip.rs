//! Tests whose partner is not on this machine.

use std::io::Write as _;

/// Set to `1` where a missing partner is a failure: on CI.
const REQUIRE: &str = "BELFRY_REQUIRE_CLUSTER";

/// Says loudly that the running test is skipped, and why. The caller then returns from its test.
///
/// # Panics
/// Where `BELFRY_REQUIRE_CLUSTER=1` says that nothing may be skipped.
pub fn skip(because: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os(REQUIRE).is_none_or(|value| value != "1"), "{test}: {REQUIRE}=1, but {because}");
    // Not `eprintln!`: what a passing test prints is not shown.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test} because {because}");
}
