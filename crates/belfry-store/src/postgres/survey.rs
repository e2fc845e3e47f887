//! What is in a database, at one time.

use belfry_core::{ConfigKey, ConfigKind, Seq, Time};
use tokio_postgres::Row;

use super::{
    link::{Link, step},
    place::Database,
    transfer::{connect, failed},
};
use crate::{
    engine::Result,
    queries::DeliveryState,
    transfer::{Survey, TransferError, Waiting},
};

const COUNTS: &str = "SELECT version, pg_database_size(current_database()),
    (SELECT count(*) FROM event), (SELECT COALESCE(min(seq), 0) FROM event), (SELECT COALESCE(max(seq), 0) FROM event),
    (SELECT count(*) FROM object), (SELECT count(*) FROM rollout), (SELECT count(*) FROM rollout WHERE state IN (1, 2)),
    (SELECT count(*) FROM attempt), (SELECT count(*) FROM hook),
    (SELECT count(*) FROM replica WHERE until > clock_timestamp()) FROM belfry_schema";
const STATES: &str = "SELECT state::INT8, count(*) FROM delivery GROUP BY state ORDER BY state";
const WAITING: &str = "SELECT c.kind, c.namespace, c.name, p.count, p.oldest FROM (
        SELECT dest, count(*) AS count, min(id) AS oldest FROM delivery WHERE state = 0 GROUP BY dest) p
    JOIN config c ON c.id = p.dest ORDER BY p.count DESC, c.namespace, c.name";

/// Looks what there is.
pub(crate) fn survey(database: &Database) -> std::result::Result<Survey, TransferError> {
    look(&mut connect(database)?).map_err(failed)
}

fn look(link: &mut Link) -> Result<Survey> {
    link.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let rows = link.pipeline(&[step(COUNTS, []), step(STATES, []), step(WAITING, [])])?;
    let Some(counts) = rows[0].first() else { return Ok(Survey::default()) };
    let number = |i: usize| counts.get::<_, i64>(i).unsigned_abs();
    let state = |row: &Row| Some((DeliveryState::from_code(row.get(0))?, row.get::<_, i64>(1).unsigned_abs()));
    let waiting = |row: &Row| {
        let kind = ConfigKind::parse(row.get(0))?;
        let dest = ConfigKey { kind, namespace: row.get::<_, &str>(1).into(), name: row.get::<_, &str>(2).into() };
        Some(Waiting { dest, count: row.get::<_, i64>(3).unsigned_abs(), oldest: Time(row.get(4)) })
    };
    Ok(Survey {
        engine: "postgres",
        schema: counts.get(0),
        used: number(1),
        free: None,
        events: number(2),
        span: (number(2) > 0).then(|| (Seq(counts.get(3)), Seq(counts.get(4)))),
        objects: number(5),
        rollouts: number(6),
        open_rollouts: number(7),
        attempts: number(8),
        hooks: number(9),
        replicas: Some(number(10)),
        deliveries: rows[1].iter().filter_map(state).collect(),
        waiting: rows[2].iter().filter_map(waiting).collect(),
    })
}
