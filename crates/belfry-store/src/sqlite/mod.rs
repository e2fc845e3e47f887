//! SQLite: one file, one writer, a write-ahead log that is flushed after every commit and copied into the file by a
//! connection of its own, and connections that only read.

mod append;
mod checkpoint;
mod claim;
mod deferred;
mod events;
mod flight;
mod flush;
mod hooks;
mod prune;
mod query;
mod read;
mod rollouts;
mod schema;
mod settle;
mod state;
mod transfer;
mod walk;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use belfry_core::Seq;
use rusqlite::{Connection, ErrorCode};

pub(crate) use self::transfer::{dump, load, survey};
use self::{checkpoint::Checkpoints, deferred::Deferred, flight::Flight, read::SqliteReader, schema::Place};
use crate::{
    OpenError,
    engine::EngineError,
    types::{LaneId, Options},
};

/// Opens the database in a folder that nobody else uses.
pub(crate) fn open(folder: &Path, _options: &Options) -> Result<(SqliteWriter, SqliteReader), OpenError> {
    let place = Arc::new(Place::take(folder)?);
    let connection = place.writer()?;
    let last = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    let newest = "SELECT max(last) FROM (SELECT max(seq) AS last FROM event UNION ALL SELECT max(seq) FROM hook
         UNION ALL SELECT max(id) FROM rollout)";
    let seq = last(newest).map_err(|error| place.failed(&error))?.unwrap_or(0);
    let delivery = last("SELECT max(id) FROM delivery").map_err(|error| place.failed(&error))?.unwrap_or(0);
    let flight = Arc::new(Flight::new(delivery));
    let checkpoints = Arc::new(Checkpoints::new(place.database()?));
    let reader = SqliteReader::new(Arc::clone(&place), Arc::clone(&flight), Arc::clone(&checkpoints))
        .map_err(|error| place.failed(&error))?;
    let writer = SqliteWriter {
        connection,
        flight,
        freed: Vec::new(),
        held: Vec::new(),
        last: Last { seq: Seq(seq), delivery },
        next: Last { seq: Seq(seq), delivery },
        deferred: None,
        checkpoints,
        doubt: Arc::default(),
        place,
    };
    Ok((writer, reader))
}

/// The writing half.
pub(crate) struct SqliteWriter {
    connection: Connection,
    flight: Arc<Flight>,
    /// Lanes that are free once this is committed.
    freed: Vec<LaneId>,
    /// Lanes that nobody may claim until this is committed or not.
    held: Vec<LaneId>,
    last: Last,
    next: Last,
    /// `None` until it is known what the database says.
    deferred: Option<Deferred>,
    checkpoints: Arc<Checkpoints>,
    /// A flush failed.
    doubt: Arc<AtomicBool>,
    place: Arc<Place>,
}

#[derive(Clone, Copy)]
struct Last {
    seq: Seq,
    delivery: i64,
}

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::{ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch};
        let data = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => {
                matches!(failure.code, ConstraintViolation | TooBig | TypeMismatch | ParameterOutOfRange)
            }
            rusqlite::Error::ToSqlConversionFailure(_) => true,
            _ => false,
        };
        if data { Self::Data(error.to_string()) } else { Self::Down(error.to_string()) }
    }
}
