//! Regular expressions with Go's semantics.
