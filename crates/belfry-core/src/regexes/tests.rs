//! What Go says of a pattern and a text, against ours.
use super::*;
#[test]
fn all_names_are_known_to_the_engine() {
    for name in names::all() {
        for pattern in [format!(r"\p{{{name}}}"), format!(r"(?i)\P{{{name}}}")] {
            assert!(compile_one(&pattern).is_ok(), "{pattern}: {:?}", compile_one(&pattern));
        }
    }
}
