//! Revision strings of Flux: what they point at, and the commit inside.
