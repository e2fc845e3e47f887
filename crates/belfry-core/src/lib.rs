//! Belfry's rules as values: events, configuration, matching, the fold, retry decisions
