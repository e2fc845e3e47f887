//! Events by day: a partition is made ahead of each, and goes as a whole when all of it is old.

use std::{thread, time::Instant};

use belfry_core::{Seq, Time};

use super::{
    APPEND_LOCK,
    append::ROW,
    link::{Link, step},
    read::PgReader,
};
use crate::engine::{EngineError, Result};

/// Microseconds of a day.
pub(super) const DAY: i64 = 86_400_000_000;
/// Deliveries removed in one step.
const STEP: i64 = 2_000;

/// A day that has a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Day(i64);

impl Day {
    fn of(time: Time) -> Self {
        Self(time.0.div_euclid(DAY))
    }

    fn table(self) -> String {
        format!("event_{}", self.0)
    }

    fn parse(table: &str) -> Option<Self> {
        table.strip_prefix("event_")?.parse().ok().map(Self)
    }

    /// Attached rather than made in place, which would stop all who read.
    fn attach(self) -> String {
        let (table, (from, to)) = (self.table(), self.range());
        format!(
            "CREATE TABLE IF NOT EXISTS {table}(LIKE event INCLUDING DEFAULTS, CHECK(seq >= {from} AND seq < {to}));
             ALTER TABLE event ATTACH PARTITION {table} FOR VALUES FROM ({from}) TO ({to})"
        )
    }

    fn range(self) -> (i64, i64) {
        (self.0 * DAY, (self.0 + 1) * DAY)
    }
}

/// Makes partitions of today and tomorrow. What comes without one is kept beside them.
pub(super) fn prepare(link: &mut Link, now: Time) -> Result<()> {
    let known = days(link)?;
    let today = Day::of(now);
    for day in [today, Day(today.0 + 1)].into_iter().filter(|day| !known.contains(day)) {
        let lock = "SELECT pg_advisory_xact_lock(hashtext('belfry event'), hashtext(current_schema()))";
        if let Err(error) = link.batch(&format!("BEGIN; {lock}; {}; COMMIT", day.attach())) {
            link.batch("ROLLBACK")?;
            // Another replica made it, or events of that day came before.
            tracing::debug!(table = day.table(), %error, "no partition");
        }
    }
    Ok(())
}

/// Days that loading makes partitions for at most: more than a year, and not more than one transaction can lock.
const DAYS: usize = 400;

/// The days that have a partition, while a database is filled.
#[derive(Debug)]
pub(super) struct Days(Vec<Day>);

impl Days {
    pub fn known(link: &mut Link) -> Result<Self> {
        days(link).map(Self)
    }

    /// Makes the partition of what comes next, within the transaction that is open.
    pub fn prepare(&mut self, link: &mut Link, seq: i64) -> Result<()> {
        let day = Day::of(Time(seq));
        if self.0.contains(&day) || self.0.len() >= DAYS {
            return Ok(());
        }
        link.batch(&day.attach())?;
        self.0.push(day);
        Ok(())
    }
}

fn days(link: &mut Link) -> Result<Vec<Day>> {
    let sql = "SELECT c.relname::TEXT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'event'::REGCLASS";
    let mut days: Vec<Day> = link.query(sql, &[])?.iter().filter_map(|row| Day::parse(row.get::<_, &str>(0))).collect();
    days.sort_unstable();
    Ok(days)
}

impl PgReader {
    /// Removes the days that are wholly older, with their deliveries; what still waits is kept beside the partitions. Says how
    /// many events went.
    pub(super) fn drop_days(&self, link: &mut Link, before: Seq) -> Result<u64> {
        let mut count = 0;
        for day in days(link)?.into_iter().filter(|day| day.range().1 <= before.0) {
            while self.remove_deliveries(link, day)? {}
            count += drop_day(link, day).inspect_err(|_| drop(link.batch("ROLLBACK")))?;
        }
        Ok(count)
    }

    /// A step; says whether there may be more. Half of the time is left to others.
    fn remove_deliveries(&self, link: &mut Link, day: Day) -> Result<bool> {
        let ((from, to), started) = (day.range(), Instant::now());
        let sql = "WITH gone AS (DELETE FROM delivery WHERE id IN (
                 SELECT d.id FROM delivery d WHERE d.event >= $1 AND d.event < $2 AND d.kind <> 2 AND d.state <> 0
                 AND NOT EXISTS(SELECT 1 FROM delivery w WHERE w.event = d.event AND w.state = 0) LIMIT $3) RETURNING id),
             tried AS (DELETE FROM attempt WHERE delivery IN (SELECT id FROM gone))
             SELECT count(*) FROM gone";
        let rows = link.query(sql, &[&from, &to, &STEP])?;
        let more = rows.first().is_some_and(|row| row.get::<_, i64>(0) == STEP);
        if more {
            thread::sleep(started.elapsed());
        }
        Ok(more)
    }
}

fn drop_day(link: &mut Link, day: Day) -> Result<u64> {
    let (table, (from, to)) = (day.table(), day.range());
    // Under the append lock: nothing is put in line again meanwhile. And in this order, as all who write to it.
    link.batch(&format!("BEGIN; {APPEND_LOCK}"))?;
    let count = format!("SELECT count(*), COALESCE(sum(octet_length(body)), 0)::INT8 FROM {table}");
    let before = count_of(&link.query_once(&count, &[])?)?;
    link.batch(&format!("ALTER TABLE event DETACH PARTITION {table}"))?;
    let keep = format!(
        "WITH kept AS (INSERT INTO event SELECT * FROM {table} e
             WHERE EXISTS(SELECT 1 FROM delivery d WHERE d.event = e.seq) RETURNING body)
         SELECT count(*), COALESCE(sum(octet_length(body)), 0)::INT8 FROM kept"
    );
    let kept = count_of(&link.query_once(&keep, &[])?)?;
    let gone = (before.0 - kept.0, before.1 - kept.1);
    let bytes = gone.1 + gone.0 * ROW;
    link.pipeline(&[step("UPDATE head SET bytes = greatest(0, bytes - $1)", [&bytes])])?;
    link.batch(&format!("DROP TABLE {table}; COMMIT"))?;
    tracing::info!(table, from, to, events = gone.0, kept = kept.0, "dropped a day of events");
    Ok(gone.0.unsigned_abs())
}

fn count_of(rows: &[tokio_postgres::Row]) -> Result<(i64, i64)> {
    let row = rows.first().ok_or_else(|| EngineError::Down("a count has no answer".into()))?;
    Ok((row.get(0), row.get(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_tables() {
        let day = Day::of(Time(1_800_000_000_000_000));
        assert_eq!((day, day.table()), (Day(20833), "event_20833".to_owned()));
        assert_eq!((Day::parse(&day.table()), Day::parse("event_rest")), (Some(day), None));
        let (from, to) = day.range();
        assert!((from..to).contains(&1_800_000_000_000_000) && Day::of(Time(to)) == Day(20834));
    }
}
