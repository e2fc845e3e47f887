//! Flushing the write-ahead log, beside the connection that writes it.
//!
//! The writer commits with `synchronous=NORMAL`: SQLite then flushes the log only before it copies it into the database. What
//! `FULL` does beyond that is an `fdatasync` of the log within each commit, which is done here after it instead, before anyone
//! is answered (<https://www.sqlite.org/pragma.html#pragma_synchronous>, <https://www.sqlite.org/wal.html>).

use std::{
    fs::{File, OpenOptions},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use super::{SqliteWriter, checkpoint::checkpoint, schema::Place};
use crate::engine::{EngineError, Flusher, Result};

pub(super) struct SqliteFlusher {
    log: File,
    doubt: Arc<AtomicBool>,
}

impl SqliteFlusher {
    fn open(place: &Place, doubt: Arc<AtomicBool>) -> std::io::Result<Self> {
        // The name of the log has to be on disk too. No lock hangs on these files: closing them releases none.
        File::open(place.folder())?.sync_all()?;
        Ok(Self { log: OpenOptions::new().read(true).write(true).open(place.log())?, doubt })
    }
}

impl Flusher for SqliteFlusher {
    fn flush(&mut self) -> Result<()> {
        self.log.sync_data().map_err(|error| {
            self.doubt.store(true, SeqCst);
            EngineError::Down(format!("the write-ahead log can't be flushed: {error}"))
        })
    }
}

impl SqliteWriter {
    pub(super) fn open_flusher(&self) -> Result<SqliteFlusher> {
        SqliteFlusher::open(&self.place, Arc::clone(&self.doubt))
            .map_err(|error| EngineError::Down(format!("the write-ahead log can't be opened: {error}")))
    }

    /// After a flush that failed the log can't be trusted, since another flush would say nothing of what the first one lost.
    /// What is in it is sound as far as this process reads it: it goes into the database, which is flushed.
    pub(super) fn end_doubt(&self) -> Result<()> {
        if self.doubt.load(SeqCst) {
            let log = checkpoint(&self.connection)?;
            if log.copied < log.pages {
                return Err(EngineError::Down("the write-ahead log is in use".into()));
            }
            self.doubt.store(false, SeqCst);
        }
        Ok(())
    }
}
