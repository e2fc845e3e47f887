//! Reading: connections, and the small lists.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use belfry_core::{ConfigKey, ObjectKey, Seq, Time, decide::Outage, plan::ObjectState};

use super::{
    circuits,
    flight::Flight,
    follow::Follower,
    link::Link,
    names::{Names, config_key},
    partition,
    place::Database,
};
use crate::{
    circuits::{Probe, Told},
    engine::{Gone, PendingRow, Prunable, Reader, Remembered, RememberedHook, Result, Scope, Size},
    hooks::HookRow,
    queries::{
        AttemptRow, DeliveryQuery, DeliveryRow, EventQuery, EventRow, ObjectQuery, ObjectRow, Page, RolloutQuery,
        RolloutRow,
    },
    stats::Shared,
    types::{Claims, Clock, DestId, LaneId, Room},
};

/// How often partitions are made, if days came for which there are none.
const PREPARE: Duration = Duration::from_secs(3600);

/// The reading half.
pub(crate) struct PgReader {
    database: Arc<Database>,
    pub(super) flight: Arc<Flight>,
    pub(super) names: Names,
    follower: Follower,
    /// For claims alone, which also makes them one at a time.
    claims: Mutex<Option<Link>>,
    idle: Mutex<Vec<Link>>,
    bytes: AtomicU64,
    clock: Clock,
    /// When partitions were made last.
    prepared: AtomicI64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PgReader {
    pub(super) fn new(database: Arc<Database>, flight: Arc<Flight>, follower: Follower, clock: Clock) -> Self {
        Self {
            database,
            flight,
            names: Names::new(),
            follower,
            claims: Mutex::default(),
            idle: Mutex::default(),
            bytes: AtomicU64::new(0),
            clock,
            prepared: AtomicI64::new(0),
        }
    }

    /// Reads; on another connection if the one that was kept turns out to be lost.
    fn read<T>(&self, read: impl Fn(&mut Link) -> Result<T>) -> Result<T> {
        let idle = lock(&self.idle).pop();
        if let Some(mut link) = idle {
            let answer = read(&mut link);
            if !link.is_broken() {
                self.keep(link);
                return answer;
            }
            // The others were lost with it, most likely.
            lock(&self.idle).clear();
        }
        let mut link = Link::open(&self.database)?;
        let answer = read(&mut link);
        if !link.is_broken() {
            self.keep(link);
        }
        answer
    }

    fn keep(&self, link: Link) {
        let mut idle = lock(&self.idle);
        if idle.len() < self.database.readers() {
            idle.push(link);
        }
    }

    /// Looks how much the database takes up on disk.
    pub(super) fn measure(&self) -> Result<()> {
        let rows = self.read(|link| link.query("SELECT pg_database_size(current_database())", &[]))?;
        self.bytes.store(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()), Relaxed);
        Ok(())
    }

    /// Claims, on the connection for that. What fails isn't tried again: it may have been done.
    pub(super) fn on_claims<T>(&self, claim: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        let mut claims = lock(&self.claims);
        if claims.as_ref().is_none_or(Link::is_broken) {
            let mut link = Link::open(&self.database)?;
            // Whatever takes longer is nothing that a lease could vouch for.
            link.set_patience(self.database.lease / 3)?;
            *claims = Some(link);
        }
        let Some(link) = claims.as_mut() else { return Err(crate::engine::EngineError::Down("not connected".into())) };
        let answer = claim(link);
        if answer.is_err() {
            *claims = None;
        }
        answer
    }
}

impl Reader for PgReader {
    fn claim(&self, rooms: &[(DestId, Room)], now: Time) -> Result<Claims> {
        self.take_lanes(rooms, now)
    }

    fn name(&self) -> Result<String> {
        let rows = self.read(|link| link.query("SELECT value FROM meta WHERE name = 'name'", &[]))?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }

    fn dests(&self) -> Result<Vec<(DestId, ConfigKey, Option<Time>)>> {
        self.read(|link| {
            let sql = "SELECT c.id, l.due, c.kind, c.namespace, c.name FROM config c CROSS JOIN LATERAL (
                 SELECT min(due) AS due FROM lane WHERE dest = c.id AND due IS NOT NULL) l
                 WHERE c.kind IN ('Provider', 'Cluster') AND l.due IS NOT NULL ORDER BY c.id";
            let rows = link.query(sql, &[])?;
            rows.iter()
                .map(|row| Ok((DestId(row.get(0)), config_key(row, 2)?, row.get::<_, Option<i64>>(1).map(Time))))
                .collect()
        })
    }

    fn recent(&self, after: Seq, limit: usize) -> Result<Vec<Remembered>> {
        let sql = "SELECT seq, dedupe, body_hash FROM event WHERE seq > $1 ORDER BY seq DESC LIMIT $2";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.read(|link| link.query(sql, &[&after.0, &limit]))?;
        let remembered = rows.iter().rev().map(|row| Remembered {
            seq: Seq(row.get(0)),
            dedupe: row.get::<_, i64>(1).cast_unsigned(),
            body_hash: row.get::<_, i64>(2).cast_unsigned(),
        });
        Ok(remembered.collect())
    }

    fn last(&self) -> Result<Seq> {
        let rows = self.read(|link| link.query("SELECT event FROM head", &[]))?;
        Ok(rows.first().map_or(Seq(0), |row| Seq(row.get(0))))
    }

    fn recent_hooks(&self, after: Seq, limit: usize) -> Result<Vec<RememberedHook>> {
        self.read(|link| Self::find_recent_hooks(link, after, limit))
    }

    fn pending(&self) -> Result<Vec<PendingRow>> {
        self.read(|link| {
            let sql = "SELECT p.dest, p.count, p.oldest, c.kind, c.namespace, c.name FROM
                 (SELECT dest, count(*) AS count, min(id) AS oldest FROM delivery WHERE state = 0 GROUP BY dest) p
                 JOIN config c ON c.id = p.dest";
            let pending = |row: &tokio_postgres::Row| {
                let (dest, count) = (DestId(row.get(0)), row.get::<_, i64>(1).unsigned_abs());
                Ok(PendingRow { dest, key: config_key(row, 3)?, count, oldest: row.get(2) })
            };
            link.query(sql, &[])?.iter().map(pending).collect()
        })
    }

    fn saved_config(&self) -> Result<Vec<(ConfigKey, String)>> {
        self.read(|link| {
            let sql =
                "SELECT kind, namespace, name, body FROM config WHERE body IS NOT NULL AND absent IS NULL ORDER BY id";
            link.query(sql, &[])?.iter().map(|row| Ok((config_key(row, 0)?, row.get(3)))).collect()
        })
    }

    fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<DeliveryRow>> {
        self.read(|link| self.find_deliveries(link, query))
    }

    fn attempts(&self, delivery: i64) -> Result<Vec<AttemptRow>> {
        self.read(|link| Self::find_attempts(link, delivery))
    }

    fn events(&self, query: &EventQuery) -> Result<Page<EventRow>> {
        self.read(|link| self.find_events(link, query))
    }

    fn event(&self, seq: Seq) -> Result<Option<EventRow>> {
        self.read(|link| self.find_event(link, seq))
    }

    fn rollouts(&self, query: &RolloutQuery) -> Result<Page<RolloutRow>> {
        self.read(|link| self.find_rollouts(link, query))
    }

    fn rollout(&self, id: Seq) -> Result<Option<RolloutRow>> {
        self.read(|link| self.find_rollout(link, id))
    }

    fn object_states(&self, objects: &[ObjectKey]) -> Result<Vec<Option<ObjectState>>> {
        self.read(|link| Self::find_object_states(link, objects))
    }

    fn find_objects(&self, query: &ObjectQuery) -> Result<Vec<ObjectRow>> {
        self.read(|link| Self::list_objects(link, query))
    }

    fn hooks(&self, receiver: Option<&ConfigKey>, limit: u32) -> Result<Vec<HookRow>> {
        self.read(|link| self.find_hooks(link, receiver, limit))
    }

    fn victims(&self, scope: &Scope, limit: u64) -> Result<(Vec<i64>, bool)> {
        let (column, ids) = match scope {
            Scope::Dests(dests) => ("dest", dests.iter().map(|dest| dest.0).collect()),
            Scope::Route(route) => ("route", vec![*route]),
        };
        let from = format!("FROM delivery d JOIN lane l ON l.id = d.lane WHERE d.state = 0 AND d.{column} = ANY($1)");
        let waiting = format!("SELECT d.id {from} AND l.owner IS NULL ORDER BY d.id LIMIT $2");
        let in_flight = format!("SELECT EXISTS(SELECT 1 {from} AND l.owner IS NOT NULL)");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|link| {
            let waiting = link.query(&waiting, &[&ids, &limit])?;
            let in_flight = link.query(&in_flight, &[&ids])?;
            let in_flight = in_flight.first().is_some_and(|row| row.get(0));
            Ok((waiting.iter().map(|row| row.get(0)).collect(), in_flight))
        })
    }

    fn gone(&self, before: Time) -> Result<Vec<Gone>> {
        self.read(|link| {
            let sql = "SELECT id, kind, namespace, name FROM config WHERE body IS NOT NULL AND absent < $1";
            let rows = link.query(sql, &[&before.0])?;
            rows.iter().map(|row| Ok(Gone { id: row.get(0), key: config_key(row, 1)? })).collect()
        })
    }

    fn prunable(&self, after: Seq, before: Seq, which: Prunable, limit: u32) -> Result<Vec<(Seq, u64)>> {
        // By age only what is in no partition, for those go as a whole.
        let table = if before == Seq(i64::MAX) { "event" } else { "event_rest" };
        let sql = format!(
            "SELECT seq, octet_length(body)::INT8 FROM {table} e WHERE seq > $1 AND seq < $2 AND NOT EXISTS(
             SELECT 1 FROM delivery WHERE event = e.seq AND (state = 0 OR (state = 3 AND $3))) ORDER BY seq LIMIT $4"
        );
        let well = which == Prunable::SettledWell;
        let rows = self.read(|link| link.query(&sql, &[&after.0, &before.0, &well, &i64::from(limit)]))?;
        Ok(rows.iter().map(|row| (Seq(row.get(0)), row.get::<_, i64>(1).unsigned_abs())).collect())
    }

    fn idle_lanes(&self, after: LaneId, before: Time, limit: u32) -> Result<Vec<LaneId>> {
        let sql = "SELECT id FROM lane WHERE id > $1 AND due IS NULL AND tail < $2 AND (memo = '' OR EXISTS(
             SELECT 1 FROM config WHERE config.id = dest AND body IS NULL AND absent IS NOT NULL)
             OR (rollout IS NOT NULL AND NOT EXISTS(SELECT 1 FROM rollout WHERE rollout.id = lane.rollout)))
             ORDER BY id LIMIT $3";
        let rows = self.read(|link| link.query(sql, &[&after.0, &before.0, &i64::from(limit)]))?;
        Ok(rows.iter().map(|row| LaneId(row.get(0))).collect())
    }

    fn prunable_rollouts(&self, after: Seq, before: Seq, limit: u32) -> Result<Vec<Seq>> {
        self.read(|link| Self::find_unneeded_rollouts(link, after, before, limit))
    }

    /// What the log takes up is counted as it comes and goes: space on disk is given back long after.
    fn size(&self) -> Result<Size> {
        let rows = self.read(|link| link.query("SELECT bytes FROM head", &[]))?;
        Ok(Size { used: rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()), free: 0 })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn tend(&self) -> Result<()> {
        self.measure()?;
        let now = (self.clock)();
        if now.since(Time(self.prepared.load(Relaxed))) >= PREPARE {
            self.read(|link| partition::prepare(link, now))?;
            self.prepared.store(now.0, Relaxed);
        }
        Ok(())
    }

    fn tend_every(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn parallel(&self) -> usize {
        self.database.readers()
    }

    fn follows(&self) -> bool {
        true
    }

    fn follow(&self, shared: &Shared, doubted: &dyn Fn()) {
        self.follower.run(shared, doubted);
    }

    fn stop(&self) {
        self.follower.stop();
    }

    fn prune_whole(&self, before: Seq) -> Result<u64> {
        self.read(|link| self.drop_days(link, before))
    }

    fn share_circuit(&self, dest: DestId, outage: Option<&Outage>, probed: bool) -> Result<Option<Told>> {
        self.read(|link| circuits::share(link, self.follower.voice(), dest, outage, probed, (self.clock)()))
    }

    fn take_probe(&self, dest: DestId) -> Result<Probe> {
        self.read(|link| circuits::take_probe(link, dest, (self.clock)()))
    }

    fn tell(&self, words: &str) -> Result<()> {
        self.read(|link| circuits::tell(link, self.follower.voice(), words))
    }

    /// The one that has lived longest.
    fn leads(&self) -> Result<bool> {
        let Some(owner) = self.flight.leased() else { return Ok(false) };
        let sql = "SELECT min(id) = $1 FROM replica WHERE until > clock_timestamp()";
        let rows = self.read(|link| link.query(sql, &[&owner]))?;
        Ok(rows.first().is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true)))
    }

    fn leased(&self) -> bool {
        self.flight.leased().is_some()
    }
}
