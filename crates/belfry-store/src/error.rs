//! What can go wrong.

use std::{io, path::PathBuf};

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data folder {} is in use by another process", folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
    },
    /// A newer version of Belfry wrote it.
    #[error("{} was written by a newer version of Belfry: its schema is {found}, this version knows up to {known}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema that it has.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// A newer version of Belfry changed the schema of a shared database in a way that this version can't live with.
    #[error("a newer version of Belfry uses the database: its schema is {found}, this version knows up to {known}")]
    NewerDatabase {
        /// The schema that it has.
        found: i64,
        /// The newest schema that this version knows.
        known: i64,
    },
    /// It isn't a database of Belfry, or it is damaged.
    #[error("{} is damaged or isn't a database of Belfry ({detail}); move it away to start with an empty one", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the database engine says.
        detail: String,
    },
    /// The file system refuses.
    #[error("can't use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database engine refuses.
    #[error("can't open the store: {0}")]
    Engine(String),
}

/// Why an event was not taken in. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many events wait already.
    #[error("too many events are waiting to be stored")]
    Full,
    /// The store can't write.
    #[error("the store is down: {0}")]
    Down(String),
    /// This event can't be stored, now or later.
    #[error("the event can't be stored: {0}")]
    Invalid(String),
}

/// Why the store can't answer or do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It can't read or write.
    #[error("the store is down: {0}")]
    Down(String),
    /// What is asked for can't be stored, now or later.
    #[error("this can't be stored: {0}")]
    Invalid(String),
}

/// Why a delivery isn't made again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedeliverError {
    /// There is no such delivery, or it was pruned.
    #[error("there is no delivery {0}")]
    Unknown(i64),
    /// It hasn't been settled yet.
    #[error("delivery {0} is still waiting to be made")]
    Pending(i64),
    /// The store can't do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}
