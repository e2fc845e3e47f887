//! Tables of it.
