//! Configuration as a pure function: documents in, a snapshot and findings out.
