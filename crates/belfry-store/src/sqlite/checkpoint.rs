//! Checkpoints: copying the write-ahead log into the database, off the writer's path.
//!
//! While the writer goes on, the log is never copied to its end, so it can't be begun anew and grows, until SQLite's own
//! backstop has the writer copy and flush all that is left. So when the log is long, and what was copied of it is flushed, the
//! writer is asked to copy the little that came meanwhile.

use std::{
    fs::File,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use rusqlite::Connection;

use super::schema::BACKSTOP;
use crate::engine::{EngineError, Result};

/// Pages of a log that is worth to be begun anew.
const LONG: i64 = BACKSTOP as i64 / 2;

pub(super) struct Checkpoints {
    /// The file of the database. Stays open as long as there are connections: closing it would release their locks.
    database: File,
    commits: AtomicU64,
    copied: AtomicU64,
    nearly: AtomicBool,
}

/// Pages in the log, and how many of them are copied.
pub(super) struct Log {
    pub pages: i64,
    pub copied: i64,
}

impl Checkpoints {
    pub fn new(database: File) -> Self {
        Self { database, commits: AtomicU64::new(1), copied: AtomicU64::new(0), nearly: AtomicBool::new(false) }
    }

    /// Something was committed, or given back.
    pub fn committed(&self) {
        self.commits.fetch_add(1, Relaxed);
    }

    /// Copies what was committed since it was last done; beside the writer, on a connection of its own.
    pub fn copy(&self, connection: &Connection) -> Result<()> {
        let commits = self.commits.load(Relaxed);
        if self.copied.load(Relaxed) == commits {
            return Ok(());
        }
        let log = checkpoint(connection)?;
        if log.pages >= LONG {
            // SQLite flushes only what it copied to the end.
            let flushed = self.database.sync_data();
            flushed.map_err(|error| EngineError::Down(format!("the database can't be flushed: {error}")))?;
            // What came meanwhile; what comes from now on is for the writer.
            checkpoint(connection)?;
            self.nearly.store(true, SeqCst);
        }
        self.copied.store(commits, Relaxed);
        Ok(())
    }

    /// For the writer, after a commit: copies the rest, if that is little. The next transaction begins the log anew then,
    /// unless somebody still reads what is in it.
    pub fn finish(&self, connection: &Connection) -> Result<()> {
        if self.nearly.swap(false, SeqCst) { checkpoint(connection).map(drop) } else { Ok(()) }
    }
}

/// Copies as much as can be copied without waiting for anyone.
pub(super) fn checkpoint(connection: &Connection) -> Result<Log> {
    let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?;
    Ok(statement.query_row([], |row| Ok(Log { pages: row.get(1)?, copied: row.get(2)? }))?)
}
