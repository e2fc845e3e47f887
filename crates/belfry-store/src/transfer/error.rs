//! What can go wrong when a store is moved, kept aside, brought back, or looked at.

use std::io;

use crate::{OpenError, engine::EngineError};

/// Why a store was not moved, exported, imported or surveyed. The target is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// One of the two can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no store.
    #[error("there is no store in {0}")]
    Missing(String),
    /// An older version of Belfry wrote it.
    #[error(
        "{site} has the schema {found} of an older version of Belfry, and this one has {known}: let `belfry serve` of this version start on it once, or use the older `belfry`"
    )]
    Older {
        /// Where it is.
        site: String,
        /// The schema that it has.
        found: i64,
        /// The schema of this version.
        known: i64,
    },
    /// A newer version of Belfry wrote it: what this one doesn't know of would be lost.
    #[error(
        "{site} has the schema {found} of a newer version of Belfry, and this one has {known}: use the newer `belfry`"
    )]
    Newer {
        /// Where it is.
        site: String,
        /// The schema that it has.
        found: i64,
        /// The schema of this version.
        known: i64,
    },
    /// A server uses it.
    #[error("{site} is in use by {by}; stop what uses it first")]
    InUse {
        /// Where it is.
        site: String,
        /// Who that is.
        by: String,
    },
    /// The target has something in it already.
    #[error("{site} is not empty: it has rows in {tables}; nothing was written")]
    NotEmpty {
        /// Where it is.
        site: String,
        /// The tables with something in them.
        tables: String,
    },
    /// A line of an export makes no sense.
    #[error("line {line}: {detail}")]
    Line {
        /// Which, counted from 1.
        line: u64,
        /// What is wrong with it.
        detail: String,
    },
    /// An export breaks off.
    #[error("the file breaks off after line {line}: it is not the whole of an export")]
    Truncated {
        /// The last line there is.
        line: u64,
    },
    /// A record can't be part of any store.
    #[error("{0}")]
    Invalid(String),
    /// What was written isn't what was read.
    #[error("{table}: expected {wrote}, found {found}")]
    Different {
        /// The table.
        table: &'static str,
        /// What was to be written.
        wrote: String,
        /// What is there.
        found: String,
    },
    /// The database refuses.
    #[error("{site}: {detail}")]
    Engine {
        /// Where it is.
        site: String,
        /// What it says.
        detail: String,
    },
    /// The file, or the folder, refuses.
    #[error("{what}")]
    Io {
        /// What was to be done.
        what: String,
        /// Why it can't be.
        #[source]
        source: io::Error,
    },
}

impl TransferError {
    pub(crate) fn engine(site: &str, error: &EngineError) -> Self {
        Self::Engine { site: site.to_owned(), detail: error.to_string() }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
