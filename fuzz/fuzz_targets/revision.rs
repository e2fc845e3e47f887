//! Any two texts are revisions, and comparing them goes both ways.
#![no_main]

use belfry_core::revision::{Revision, same};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pair: (&str, &str)| {
    let (a, b) = pair;
    assert!(same(a, a));
    assert_eq!(same(a, b), same(b, a));
    let revision = Revision::parse(a);
    for part in [revision.pointer, revision.hash].into_iter().flatten() {
        assert!(a.contains(part));
    }
});
