//! Durations as Go spells them.
