//! Tests of what a wait looks like.
