//! JSON exactly as Go's encoder writes it.
