//! Reading: connections, names, and the small lists.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use belfry_core::{ConfigKey, ConfigKind, ObjectKey, Seq, Time, limits, plan::ObjectState};
use rusqlite::{Connection, Row};

use super::{checkpoint::Checkpoints, flight::Flight, schema::Place};
use crate::{
    cache::Cache,
    engine::{Gone, PendingRow, Prunable, Reader, Remembered, RememberedHook, Result, Scope, Size},
    hooks::HookRow,
    queries::{
        AttemptRow, DeliveryQuery, DeliveryRow, EventQuery, EventRow, ObjectQuery, ObjectRow, Page, RolloutQuery,
        RolloutRow,
    },
    types::{Claims, DestId, LaneId, Room},
};

/// Connections kept open for queries.
const IDLE: usize = 4;

/// The reading half.
pub(crate) struct SqliteReader {
    place: Arc<Place>,
    pub(super) flight: Arc<Flight>,
    /// For claims alone, which also makes them one at a time.
    pub(super) claims: Mutex<Connection>,
    idle: Mutex<Vec<Connection>>,
    checkpointer: Mutex<Connection>,
    checkpoints: Arc<Checkpoints>,
    configs: Mutex<Cache<i64, Arc<ConfigKey>>>,
    objects: Mutex<Cache<i64, Arc<ObjectKey>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqliteReader {
    pub(super) fn new(place: Arc<Place>, flight: Arc<Flight>, checkpoints: Arc<Checkpoints>) -> rusqlite::Result<Self> {
        Ok(Self {
            flight,
            claims: Mutex::new(place.reader()?),
            idle: Mutex::default(),
            checkpointer: Mutex::new(place.checkpointer()?),
            checkpoints,
            configs: Mutex::new(Cache::new(limits::OBJECT_CACHE)),
            objects: Mutex::new(Cache::new(limits::OBJECT_CACHE)),
            place,
        })
    }

    /// Reads in one snapshot.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.place.reader()?,
        };
        let transaction = connection.unchecked_transaction()?;
        let answer = read(&connection);
        drop(transaction);
        let mut idle = lock(&self.idle);
        if answer.is_ok() && idle.len() < IDLE {
            idle.push(connection);
        }
        answer
    }

    /// The name behind the number of a configuration object.
    pub(super) fn config(&self, connection: &Connection, id: i64) -> Result<Arc<ConfigKey>> {
        if let Some(key) = lock(&self.configs).get(&id) {
            return Ok(Arc::clone(key));
        }
        let mut statement = connection.prepare_cached("SELECT kind, namespace, name FROM config WHERE id = ?1")?;
        let key = Arc::new(statement.query_row([id], |row| config_key(row, 0))?);
        lock(&self.configs).insert(id, Arc::clone(&key));
        Ok(key)
    }

    /// The name behind the number of an object.
    pub(super) fn object(&self, connection: &Connection, id: i64) -> Result<Arc<ObjectKey>> {
        if let Some(key) = lock(&self.objects).get(&id) {
            return Ok(Arc::clone(key));
        }
        let mut statement =
            connection.prepare_cached("SELECT cluster, api_group, kind, namespace, name FROM object WHERE id = ?1")?;
        let key = Arc::new(statement.query_row([id], |row| {
            Ok(ObjectKey {
                cluster: row.get(0)?,
                group: row.get(1)?,
                kind: row.get(2)?,
                namespace: row.get(3)?,
                name: row.get(4)?,
            })
        })?);
        lock(&self.objects).insert(id, Arc::clone(&key));
        Ok(key)
    }
}

/// Kind, namespace and name, from this column on.
pub(super) fn config_key(row: &Row<'_>, column: usize) -> rusqlite::Result<ConfigKey> {
    let kind: String = row.get(column)?;
    let kind = ConfigKind::parse(&kind).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, 0))?;
    let (namespace, name): (String, String) = (row.get(column + 1)?, row.get(column + 2)?);
    Ok(ConfigKey { kind, namespace: namespace.into(), name: name.into() })
}

pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params, row)?.collect::<rusqlite::Result<Vec<T>>>()?;
    Ok(rows)
}

fn number(connection: &Connection, pragma: &str) -> Result<u64> {
    let number: i64 = connection.query_row(pragma, [], |row| row.get(0))?;
    Ok(number.unsigned_abs())
}

impl Reader for SqliteReader {
    fn claim(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims> {
        self.take_lanes(rooms, now)
    }

    fn name(&self) -> Result<String> {
        self.read(|connection| {
            let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'name'";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }

    fn dests(&self) -> Result<Vec<(DestId, ConfigKey, Option<Time>)>> {
        self.read(|connection| {
            let sql = "SELECT l.dest, l.due, c.kind, c.namespace, c.name FROM
                 (SELECT dest, min(due) AS due FROM lane WHERE due IS NOT NULL GROUP BY dest) l
                 JOIN config c ON c.id = l.dest";
            all(connection, sql, [], |row| {
                Ok((DestId(row.get(0)?), config_key(row, 2)?, row.get::<_, Option<i64>>(1)?.map(Time)))
            })
        })
    }

    fn recent(&self, after: Seq, limit: usize) -> Result<Vec<Remembered>> {
        let mut events = self.read(|connection| {
            let sql = "SELECT seq, dedupe, body_hash FROM event INDEXED BY event_recent
                 WHERE seq > ?1 ORDER BY seq DESC LIMIT ?2";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            all(connection, sql, [after.0, limit], |row| {
                Ok(Remembered {
                    seq: Seq(row.get(0)?),
                    dedupe: row.get::<_, i64>(1)?.cast_unsigned(),
                    body_hash: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })
        })?;
        events.reverse();
        Ok(events)
    }

    fn last(&self) -> Result<Seq> {
        self.read(|connection| {
            let last: Option<i64> = connection.query_row("SELECT max(seq) FROM event", [], |row| row.get(0))?;
            Ok(Seq(last.unwrap_or(0)))
        })
    }

    fn pending(&self) -> Result<Vec<PendingRow>> {
        self.read(|connection| {
            let sql = "SELECT p.dest, p.count, p.oldest, c.kind, c.namespace, c.name FROM
                 (SELECT dest, count(*) AS count, min(id) AS oldest FROM delivery INDEXED BY delivery_pending
                  WHERE state = 0 GROUP BY dest) p JOIN config c ON c.id = p.dest";
            all(connection, sql, [], |row| {
                Ok(PendingRow {
                    dest: DestId(row.get(0)?),
                    key: config_key(row, 3)?,
                    count: row.get::<_, i64>(1)?.unsigned_abs(),
                    oldest: row.get(2)?,
                })
            })
        })
    }

    fn saved_config(&self) -> Result<Vec<(ConfigKey, String)>> {
        self.read(|connection| {
            let sql = "SELECT kind, namespace, name, body FROM config WHERE body IS NOT NULL AND absent IS NULL";
            all(connection, sql, [], |row| Ok((config_key(row, 0)?, row.get(3)?)))
        })
    }

    fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        self.read(|connection| self.find_deliveries(connection, query))
    }

    fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>> {
        self.read(|connection| Self::find_attempts(connection, delivery))
    }

    fn events(&self, query: &EventQuery) -> Result<Page<EventRow>> {
        self.read(|connection| self.find_events(connection, query))
    }

    fn event(&self, seq: Seq) -> Result<Option<EventRow>> {
        self.read(|connection| self.find_event(connection, seq))
    }

    fn recent_hooks(&self, after: Seq, limit: usize) -> Result<Vec<RememberedHook>> {
        self.read(|connection| Self::find_recent_hooks(connection, after, limit))
    }

    fn rollouts(&self, query: &RolloutQuery) -> Result<Page<RolloutRow>> {
        self.read(|connection| self.find_rollouts(connection, query))
    }

    fn rollout(&self, id: Seq) -> Result<Option<RolloutRow>> {
        self.read(|connection| self.find_rollout(connection, id))
    }

    fn object_states(&self, objects: &[ObjectKey]) -> Result<Vec<Option<ObjectState>>> {
        self.read(|connection| Self::find_object_states(connection, objects))
    }

    fn find_objects(&self, query: &ObjectQuery) -> Result<Vec<ObjectRow>> {
        self.read(|connection| Self::list_objects(connection, query))
    }

    fn hooks(&self, receiver: Option<&ConfigKey>, limit: u32) -> Result<Vec<HookRow>> {
        self.read(|connection| self.find_hooks(connection, receiver, limit))
    }

    fn prunable_rollouts(&self, after: Seq, before: Seq, limit: u32) -> Result<Vec<Seq>> {
        self.read(|connection| Self::find_unneeded_rollouts(connection, after, before, limit))
    }

    fn victims(&self, scope: &Scope, limit: u64) -> Result<(Vec<i64>, bool)> {
        let flight = self.flight.snapshot();
        let (filter, ids) = match scope {
            Scope::Dests(dests) => ("dest", serde_json::json!(dests.iter().map(|dest| dest.0).collect::<Vec<_>>())),
            Scope::Route(route) => ("route", serde_json::json!([route])),
        };
        let rows = self.read(|connection| {
            let sql = format!(
                "SELECT id, lane FROM delivery INDEXED BY delivery_pending
                 WHERE state = 0 AND {filter} IN (SELECT value FROM json_each(?1)) ORDER BY id"
            );
            all(connection, &sql, [ids.to_string()], |row| Ok((row.get(0)?, LaneId(row.get(1)?))))
        })?;
        let waiting: Vec<i64> =
            rows.iter().filter(|(_, lane)| !flight.lanes.contains_key(lane)).map(|(id, _)| *id).collect();
        let in_flight = waiting.len() < rows.len();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok((waiting.into_iter().take(limit).collect(), in_flight))
    }

    fn gone(&self, before: Time) -> Result<Vec<Gone>> {
        self.read(|connection| {
            let sql = "SELECT id, kind, namespace, name FROM config WHERE body IS NOT NULL AND absent < ?1";
            all(connection, sql, [before.0], |row| Ok(Gone { id: row.get(0)?, key: config_key(row, 1)? }))
        })
    }

    fn prunable(&self, after: Seq, before: Seq, which: Prunable, limit: u32) -> Result<Vec<(Seq, u64)>> {
        self.read(|connection| {
            let sql = "SELECT seq, length(body) FROM event e WHERE seq > ?1 AND seq < ?2 AND NOT EXISTS(
                 SELECT 1 FROM delivery WHERE event = e.seq AND (state = 0 OR (state = 3 AND ?3)))
                 ORDER BY seq LIMIT ?4";
            let well = i64::from(which == Prunable::SettledWell);
            all(connection, sql, [after.0, before.0, well, i64::from(limit)], |row| {
                Ok((Seq(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs()))
            })
        })
    }

    fn idle_lanes(&self, after: LaneId, before: Time, limit: u32) -> Result<Vec<LaneId>> {
        self.read(|connection| {
            let sql = "SELECT id FROM lane WHERE id > ?1 AND due IS NULL AND tail < ?2 AND (memo = x'' OR EXISTS(
                 SELECT 1 FROM config WHERE config.id = dest AND body IS NULL AND absent IS NOT NULL)
                 OR (rollout IS NOT NULL AND NOT EXISTS(SELECT 1 FROM rollout WHERE rollout.id = lane.rollout)))
                 ORDER BY id LIMIT ?3";
            all(connection, sql, [after.0, before.0, i64::from(limit)], |row| row.get(0).map(LaneId))
        })
    }

    fn size(&self) -> Result<Size> {
        self.read(|connection| {
            let page = number(connection, "PRAGMA page_size")?;
            let free = number(connection, "PRAGMA freelist_count")?;
            let pages = number(connection, "PRAGMA page_count")?;
            Ok(Size { used: pages.saturating_sub(free) * page, free: free * page })
        })
    }

    fn bytes(&self) -> u64 {
        [self.place.file.clone(), self.place.log()]
            .iter()
            .filter_map(|file| file.metadata().ok())
            .map(|file| file.len())
            .sum()
    }

    fn tend(&self) -> Result<()> {
        self.checkpoints.copy(&lock(&self.checkpointer))
    }

    fn tend_every(&self) -> Duration {
        Duration::from_millis(100)
    }
}
