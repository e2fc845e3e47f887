//! What replicas tell each other of destinations that are down: one row each, written when a circuit turns and when a probe
//! was made. Waits are counted by the server's clock, so that those of the replicas may differ.

use std::time::Duration;

use belfry_core::{
    Time,
    decide::{Outage, PROBE_ALONE},
};
use tokio_postgres::Row;

use super::{
    CHANNEL,
    link::{Link, step},
};
use crate::{
    circuits::{Probe, Told},
    engine::{EngineError, Result},
    types::DestId,
};

/// What several replicas found adds up: the later time counts, and the earlier beginning.
const OPEN: &str = "INSERT INTO circuit AS c (dest, turn, until, since, failures, asked, error)
        VALUES($1, 1, clock_timestamp() + make_interval(secs => $2), clock_timestamp() - make_interval(secs => $3), $4, $5, $6)
    ON CONFLICT(dest) DO UPDATE SET turn = c.turn + 1, until = greatest(c.until, excluded.until),
        since = least(c.since, excluded.since), failures = greatest(c.failures, excluded.failures),
        asked = CASE WHEN c.until > excluded.until THEN c.asked ELSE excluded.asked END, error = excluded.error,
        taken = CASE WHEN $7 THEN NULL ELSE c.taken END RETURNING *";
const CLOSE: &str =
    "UPDATE circuit SET turn = turn + 1, until = NULL, since = NULL, failures = 0, asked = FALSE, error = '',
        taken = NULL
    WHERE dest = $1 AND until IS NOT NULL RETURNING *";
const TAKE: &str = "UPDATE circuit SET taken = clock_timestamp() + make_interval(secs => $2)
    WHERE dest = $1 AND until <= clock_timestamp() AND (taken IS NULL OR taken <= clock_timestamp()) RETURNING dest";
const WAIT: &str = "SELECT extract(epoch FROM greatest(until, taken) - clock_timestamp())::FLOAT8 FROM circuit
    WHERE dest = $1 AND until IS NOT NULL";
const COLUMNS: &str = "dest, turn, extract(epoch FROM until - clock_timestamp())::FLOAT8,
    extract(epoch FROM clock_timestamp() - since)::FLOAT8, failures, asked, error";
/// Bytes that a notice may have.
const NOTICE: usize = 7999;
/// The least that is waited before a probe is asked for again: clocks are read at different times.
const AGAIN: Duration = Duration::from_millis(5);

/// Tells the others, unless they know. What all know now; `None` when the circuit was closed already.
pub(super) fn share(
    link: &mut Link,
    voice: &str,
    dest: DestId,
    outage: Option<&Outage>,
    probed: bool,
    now: Time,
) -> Result<Option<Told>> {
    let notice = format!("{voice}:::{}", dest.0);
    let rows = match outage {
        Some(outage) => {
            let (wait, age) = (outage.until.since(now).as_secs_f64(), now.since(outage.since).as_secs_f64());
            let failures = i64::from(outage.failures);
            let sql = format!("WITH told AS ({OPEN}) SELECT {COLUMNS}, pg_notify($8, $9) FROM told");
            let (asked, error) = (&outage.asked, &outage.error);
            link.query(&sql, &[&dest.0, &wait, &age, &failures, asked, error, &probed, &CHANNEL, &notice])?
        }
        None => {
            let sql = format!("WITH told AS ({CLOSE}) SELECT {COLUMNS}, pg_notify($2, $3) FROM told");
            link.query(&sql, &[&dest.0, &CHANNEL, &notice])?
        }
    };
    Ok(rows.first().map(|row| told(row, now).1))
}

/// Says something that nobody keeps.
pub(super) fn tell(link: &mut Link, voice: &str, words: &str) -> Result<()> {
    let notice = format!("{voice}::::{words}");
    if notice.len() > NOTICE || notice.contains('\0') {
        return Err(EngineError::Data("that is nothing to say to other replicas".into()));
    }
    link.query("SELECT pg_notify($1, $2)", &[&CHANNEL, &notice]).map(drop)
}

/// Takes the probe that is due, if no other has.
pub(super) fn take_probe(link: &mut Link, dest: DestId, now: Time) -> Result<Probe> {
    let alone = PROBE_ALONE.as_secs_f64();
    let rows = link.pipeline(&[
        step("BEGIN", []),
        // What a crash of the server forgets is no more than that one was taken.
        step("SET LOCAL synchronous_commit = off", []),
        step(TAKE, [&dest.0, &alone]),
        step(WAIT, [&dest.0]),
        step("COMMIT", []),
    ])?;
    Ok(match rows[3].first() {
        Some(row) if rows[2].is_empty() => Probe::NotBefore(now.after(seconds(row.get(0)).max(AGAIN))),
        // Also where nobody knows that it is down: telling that had failed.
        _ => Probe::Ours,
    })
}

/// The circuits of these destinations, and all that are open if `open`.
pub(super) fn read(link: &mut Link, dests: &[i64], open: bool, now: Time) -> Result<Vec<(DestId, Told)>> {
    let sql = format!("SELECT {COLUMNS} FROM circuit WHERE dest = ANY($1) OR ($2 AND until IS NOT NULL)");
    Ok(link.query(&sql, &[&dests, &open])?.iter().map(|row| told(row, now)).collect())
}

fn told(row: &Row, now: Time) -> (DestId, Told) {
    let outage = row.get::<_, Option<f64>>(2).map(|wait| Outage {
        until: now.after(seconds(wait)),
        since: now.before(seconds(row.get::<_, Option<f64>>(3).unwrap_or_default())),
        failures: row.get::<_, i64>(4).try_into().unwrap_or(u32::MAX),
        asked: row.get(5),
        error: row.get(6),
    });
    (DestId(row.get(0)), Told { turn: row.get(1), outage })
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}
