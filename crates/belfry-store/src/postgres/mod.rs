//! PostgreSQL: any number of equal replicas on one database, which is all that they share.
//!
//! Appends take turns by the lock of one row; the turn ends before the flush, which is waited for outside of it. Lanes are
//! claimed with `SKIP LOCKED` and belong to a replica as long as it is heard of. `NOTIFY` wakes the others.

mod ahead;
mod append;
mod circuits;
mod claim;
mod events;
mod filter;
mod flight;
mod follow;
mod hooks;
mod lanes;
mod link;
mod names;
mod partition;
mod place;
mod prune;
mod query;
mod read;
mod rollouts;
mod schema;
mod settle;
mod survey;
mod tls;
mod transaction;
mod transfer;
mod turn;
mod voice;
mod walk;

use std::sync::Arc;

pub use self::place::Database;
use self::{flight::Flight, follow::Follower, link::Link, read::PgReader, transaction::PgWriter, voice::Voice};
pub(crate) use self::{
    survey::survey,
    transfer::{dump, load},
};
use crate::{OpenError, engine::EngineError, types::Options};

/// The channel of notifications.
const CHANNEL: &str = "belfry";

/// The append lock: whoever holds it is alone in changing events, states and deliveries. Not the lock of a row: for that one
/// waits in two steps, and then looks at the row anew.
const APPEND_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('belfry append'), hashtext(current_schema()))";

/// Opens the database, and brings it to the schema of this version.
pub(crate) fn open(database: &Database, options: &Options) -> Result<(PgWriter, PgReader), OpenError> {
    let failed = |error: EngineError| OpenError::Engine(error.to_string());
    schema::migrate(database)?;
    let database = Arc::new(database.clone());
    let flight = Arc::new(Flight::new(database.lease));
    let mut link = Link::open_writing(&database).map_err(failed)?;
    for warning in schema::warnings(&mut link).map_err(failed)? {
        tracing::warn!("{warning}");
    }
    // Before anything is read: what comes later is caught up with.
    let seq = link.query_once("SELECT seq FROM head", &[]).map_err(failed)?.first().map_or(0, |row| row.get(0));
    let voice = Arc::new(Voice::new());
    let follower =
        Follower::open(Arc::clone(&database), Arc::clone(&flight), Arc::clone(&voice), Arc::clone(&options.clock));
    let follower = follower.map_err(failed)?;
    let (place, writing) = (Arc::clone(&database), Arc::clone(&flight));
    partition::prepare(&mut link, (options.clock)()).map_err(failed)?;
    let reader = PgReader::new(database, flight, follower, Arc::clone(&options.clock));
    reader.measure().map_err(failed)?;
    Ok((PgWriter::new(place, link, writing, voice, seq), reader))
}
