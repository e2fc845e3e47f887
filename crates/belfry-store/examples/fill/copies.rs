//! Earlier days, as copies of the last ones: rows as the store writes them, with other numbers, times and commits. The store's own
//! way of writing would take hours on a small machine that has other things to do.

use std::path::Path;

use belfry_core::Time;

/// What is written like so in both databases.
struct Dialect {
    /// The number of a revision whose hash begins with another digit.
    rev: &'static str,
    /// A body that names that one.
    body: &'static str,
}

const POSTGRES: Dialect = Dialect {
    rev: "(rev & 72057594037927935) | ({k}::INT8 << 56)",
    body: "convert_to(replace(convert_from(body, 'UTF8'), 'main@sha1:0', 'main@sha1:{k}'), 'UTF8')",
};
const SQLITE: Dialect = Dialect {
    rev: "(rev & 72057594037927935) | ({k} << 56)",
    body: "CAST(replace(CAST(body AS TEXT), 'main@sha1:0', 'main@sha1:{k}') AS BLOB)",
};

/// `{k}`: which copy; `{s}`: how much earlier; `{from}`: where the original begins. What was still open has come to its end.
const COPY: [&str; 4] = [
    "INSERT INTO event(seq, object, origin, dedupe, body_hash, severity, reason, revision, rev, change, hints, repeats, body)
     SELECT seq - {s}, object, origin, dedupe, body_hash, severity, reason, replace(revision, 'sha1:0', 'sha1:{k}'),
         CASE WHEN revision LIKE 'main@%' THEN {rev} ELSE rev END, change, hints, repeats, {body}
     FROM event WHERE seq >= {from} ORDER BY seq",
    "INSERT INTO rollout(id, object, rev, digest, revision, origin_revision, commit_hash, token, oci_digest, state, started, finished,
         first_success, attempts, reason, message, superseded_by, successor_revision, successor_commit, last_event)
     SELECT id - {s}, object, CASE WHEN revision LIKE 'main@%' THEN {rev} ELSE rev END, digest,
         replace(revision, 'sha1:0', 'sha1:{k}'), origin_revision, '{k}' || substr(commit_hash, 2), token, oci_digest,
         CASE WHEN state IN (1, 2) THEN 3 ELSE state END, started - {s}, finished - {s}, first_success - {s}, attempts, reason,
         message, superseded_by - {s}, replace(successor_revision, 'sha1:0', 'sha1:{k}'), '{k}' || substr(successor_commit, 2),
         last_event - {s}
     FROM rollout WHERE id >= {from} ORDER BY id",
    "INSERT INTO delivery(id, lane, event, object, route, dest, kind, rollout, state, attempts, settled, answer)
     SELECT id - {s}, lane, event - {s}, object, route, dest, kind, rollout - {s}, CASE WHEN state = 0 THEN 1 ELSE state END,
         attempts, COALESCE(settled, id) - {s}, answer
     FROM delivery WHERE id >= {from} ORDER BY id",
    "INSERT INTO attempt(delivery, n, at, took, status, outcome, error)
     SELECT delivery - {s}, n, at - {s}, took, status, outcome, error FROM attempt WHERE delivery >= {from} ORDER BY delivery, n",
];
/// What little was heard of was heard of long ago.
const RARE: [&str; 2] = [
    "DELETE FROM event WHERE seq >= {end} AND object IN (SELECT id FROM object WHERE cluster = 'retired' OR kind = 'ImageRepository')",
    "DELETE FROM rollout WHERE id >= {end} AND object IN (SELECT id FROM object WHERE cluster = 'retired' OR kind = 'ImageRepository')",
];

/// Where SQLite has to be told.
const INDEX: &str = "INSERT OR IGNORE INTO event_object SELECT object, seq FROM event;
    INSERT OR IGNORE INTO event_rev SELECT rev, seq FROM event WHERE rev IS NOT NULL;
    INSERT OR IGNORE INTO rollout_rev SELECT rev, id FROM rollout";

/// The statements that make so many of one, each of which took `span` microseconds and the last of which begins at `from`.
fn statements(dialect: &Dialect, copies: i64, span: i64, from: Time) -> Vec<String> {
    let mut statements = Vec::new();
    for k in (1..copies).rev() {
        for statement in COPY {
            let statement = statement.replace("{rev}", dialect.rev).replace("{body}", dialect.body);
            let statement = statement.replace("{k}", &k.to_string()).replace("{s}", &(k * span).to_string());
            statements.push(statement.replace("{from}", &from.0.to_string()));
        }
    }
    if copies > 1 {
        let end = from.0 - (copies - 2) * span;
        statements.extend(RARE.map(|statement| statement.replace("{end}", &end.to_string())));
    }
    statements
}

/// In PostgreSQL, whose partitions must be there.
pub fn in_postgres(server: &testkit::Postgres, name: &str, copies: i64, span: i64, from: Time) -> anyhow::Result<()> {
    for statement in statements(&POSTGRES, copies, span, from) {
        server.sql(name, &statement)?;
    }
    server.sql(name, &format!("UPDATE head SET bytes = bytes * {copies}")).map(drop)
}

/// In a folder that no store has open.
pub fn in_folder(folder: &Path, copies: i64, span: i64, from: Time) -> anyhow::Result<()> {
    let connection = rusqlite::Connection::open(folder.join("belfry.db"))?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -524288; PRAGMA temp_store = MEMORY")?;
    for statement in statements(&SQLITE, copies, span, from) {
        connection.execute_batch(&statement)?;
    }
    connection.execute_batch(INDEX)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}
