//! Flux events in, never lost, out to real destinations
