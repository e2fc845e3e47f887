//! Events as values: reading, metadata, keys.
