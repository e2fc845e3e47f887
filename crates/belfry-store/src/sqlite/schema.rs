//! The schema, and opening a database that has it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit};

use crate::OpenError;

/// Name of the database in its folder.
pub(super) const FILE: &str = "belfry.db";
/// Name of the file whose lock says that the folder is in use.
const LOCK: &str = "belfry.lock";
/// How often, and after how long each time, a folder that is in use is tried again.
const MOMENTS: u32 = 20;
const MOMENT: Duration = Duration::from_millis(10);
/// Bytes of one value; well above the largest body.
const VALUE: i32 = 16 << 20;
/// Bytes of a page of a new database: an event takes fewer calls than with SQLite's usual 4096, and more bytes.
const PAGE: u32 = 8192;
/// Pages of the write-ahead log after which a commit checkpoints by itself.
pub(super) const BACKSTOP: u32 = 16384;

/// One step each; `user_version` says how many were made. A step that was released is never changed.
const MIGRATIONS: [&str; 2] = [FIRST, SECOND];

/// The number of the schema that has all of them.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

const FIRST: &str = "
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB) STRICT, WITHOUT ROWID;
CREATE TABLE config(
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    body TEXT, absent INTEGER,
    UNIQUE(kind, namespace, name)) STRICT;
CREATE TABLE object(
    id INTEGER PRIMARY KEY, cluster TEXT NOT NULL, api_group TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL,
    name TEXT NOT NULL, state TEXT,
    UNIQUE(name, namespace, kind, api_group, cluster)) STRICT;
CREATE TABLE event(
    seq INTEGER PRIMARY KEY, object INTEGER NOT NULL, origin INTEGER NOT NULL, dedupe INTEGER NOT NULL,
    body_hash INTEGER NOT NULL, severity TEXT NOT NULL, reason TEXT NOT NULL, revision TEXT, change INTEGER,
    repeats INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL) STRICT;
CREATE TABLE event_object(object INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(object, seq)) STRICT, WITHOUT ROWID;
CREATE INDEX event_error ON event(seq) WHERE severity = 'error';
CREATE INDEX event_object_error ON event(object, seq) WHERE severity = 'error';
CREATE INDEX event_reason ON event(reason, seq) WHERE reason NOT IN ('Progressing', 'ReconciliationSucceeded');
CREATE TABLE lane(
    id INTEGER PRIMARY KEY, dest INTEGER NOT NULL, due INTEGER, tail INTEGER NOT NULL,
    memo BLOB NOT NULL DEFAULT x'') STRICT;
CREATE INDEX lane_due ON lane(dest, due) WHERE due IS NOT NULL;
CREATE TABLE delivery(
    id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, event INTEGER NOT NULL, object INTEGER NOT NULL,
    route INTEGER NOT NULL, dest INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
    settled INTEGER, answer TEXT) STRICT;
CREATE INDEX delivery_event ON delivery(event);
CREATE INDEX delivery_pending ON delivery(lane, id, dest) WHERE state = 0;
CREATE INDEX delivery_dead ON delivery(dest, id) WHERE state = 3;
CREATE INDEX delivery_dest ON delivery(dest, id);
CREATE TABLE attempt(
    delivery INTEGER NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, took INTEGER NOT NULL, status INTEGER,
    outcome INTEGER NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY(delivery, n)) STRICT, WITHOUT ROWID;
";

/// Rollouts, state lanes, webhooks. `rev` and `digest` are numbers of revisions and commits. Of events that another Belfry passed
/// on: the number of their id, and the stores that they were in. And this store's own name. What `event_object`, `event_rev` and
/// `rollout_rev` hold of the log up to `indexed.upto` is whole: see `deferred`.
const SECOND: &str = "
CREATE TABLE rollout(
    id INTEGER PRIMARY KEY, object INTEGER NOT NULL, rev INTEGER NOT NULL, digest INTEGER, revision TEXT NOT NULL,
    origin_revision TEXT, commit_hash TEXT, token TEXT, oci_digest TEXT, state INTEGER NOT NULL, started INTEGER NOT NULL,
    finished INTEGER, first_success INTEGER, attempts INTEGER NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    superseded_by INTEGER, successor_revision TEXT, successor_commit TEXT, last_event INTEGER NOT NULL) STRICT;
CREATE INDEX rollout_object ON rollout(object, id);
CREATE TABLE rollout_rev(rev INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(rev, id)) STRICT, WITHOUT ROWID;
CREATE INDEX rollout_digest ON rollout(digest, id) WHERE digest IS NOT NULL;
CREATE INDEX rollout_state ON rollout(state, id) WHERE state <> 3;
CREATE TABLE hook(
    seq INTEGER PRIMARY KEY, receiver INTEGER NOT NULL, refused INTEGER NOT NULL, at INTEGER NOT NULL, delivery_id TEXT,
    verdict INTEGER NOT NULL, reason TEXT NOT NULL, event TEXT NOT NULL, bytes INTEGER NOT NULL,
    resources INTEGER NOT NULL, merged INTEGER NOT NULL) STRICT;
CREATE INDEX hook_receiver ON hook(receiver, refused, seq);
ALTER TABLE event ADD COLUMN rev INTEGER;
ALTER TABLE event ADD COLUMN hints INTEGER;
ALTER TABLE event ADD COLUMN ident INTEGER;
ALTER TABLE event ADD COLUMN via TEXT;
CREATE INDEX event_recent ON event(seq, dedupe, body_hash, object, rev);
CREATE TABLE event_rev(rev INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY(rev, seq)) STRICT, WITHOUT ROWID;
CREATE INDEX event_ident ON event(ident) WHERE ident IS NOT NULL;
INSERT INTO meta VALUES('name', CAST(lower(hex(randomblob(8))) AS BLOB));
ALTER TABLE lane ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN rollout INTEGER;
ALTER TABLE delivery ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE delivery ADD COLUMN rollout INTEGER;
CREATE INDEX delivery_rollout ON delivery(rollout) WHERE rollout IS NOT NULL;
CREATE TABLE indexed(one INTEGER PRIMARY KEY CHECK(one = 1), upto INTEGER NOT NULL) STRICT;
INSERT INTO indexed VALUES(1, 0);
CREATE TRIGGER event_gone AFTER DELETE ON event BEGIN
    DELETE FROM event_object WHERE object = old.object AND seq = old.seq;
    DELETE FROM event_rev WHERE rev = old.rev AND seq = old.seq;
END;
CREATE TRIGGER rollout_gone AFTER DELETE ON rollout BEGIN
    DELETE FROM rollout_rev WHERE rev = old.rev AND id = old.id;
END;
CREATE TRIGGER rollout_renamed AFTER UPDATE OF rev ON rollout WHEN old.rev <> new.rev BEGIN
    DELETE FROM rollout_rev WHERE rev = old.rev AND id = old.id;
    INSERT OR IGNORE INTO rollout_rev VALUES(new.rev, new.id);
END;
";

/// A folder that nobody else uses, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub file: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the folder, and makes it if there is none.
    pub fn take(folder: &Path) -> Result<Self, OpenError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(LOCK);
        let options = OpenOptions::new().create(true).truncate(false).write(true).to_owned();
        let lock = options.open(&path).map_err(io(&path))?;
        // Who has just let go of it may have started another process, which has it open until it becomes that.
        let mut left = MOMENTS;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { file: folder.join(FILE), _lock: lock }),
                Err(TryLockError::WouldBlock) if left > 0 => std::thread::sleep(MOMENT),
                Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { folder: folder.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
            }
            left -= 1;
        }
    }

    /// The connection that writes, with the schema in place.
    pub fn writer(&self) -> Result<Connection, OpenError> {
        let mut connection = Connection::open(&self.file).map_err(|error| self.failed(&error))?;
        self.prepare(&mut connection).map_err(|error| match error {
            Failure::Sqlite(error) => self.failed(&error),
            Failure::Foreign => {
                OpenError::Corrupt { path: self.file.clone(), detail: "it has other tables than Belfry's".into() }
            }
            Failure::Newer(found) => {
                OpenError::Newer { path: self.file.clone(), found, known: MIGRATIONS.len() as i64 }
            }
        })?;
        Ok(connection)
    }

    fn prepare(&self, connection: &mut Connection) -> Result<(), Failure> {
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE)?;
        connection.set_prepared_statement_cache_capacity(64);
        plan_once(connection)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let done = usize::try_from(version).unwrap_or(usize::MAX);
        if done > MIGRATIONS.len() {
            return Err(Failure::Newer(version));
        }
        if done == 0 && tables > 0 {
            return Err(Failure::Foreign);
        }
        // Before the first table, or it means nothing.
        connection.execute_batch(&format!("PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL"))?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -8192; PRAGMA temp_store = MEMORY")?;
        connection.query_row(&format!("PRAGMA wal_autocheckpoint = {BACKSTOP}"), [], |_| Ok(()))?;
        connection.query_row("PRAGMA journal_size_limit = 134217728", [], |_| Ok(()))?;
        for (step, migration) in MIGRATIONS.iter().enumerate().skip(done) {
            let transaction = connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.execute_batch(&format!("PRAGMA user_version = {}", step + 1))?;
            transaction.commit()?;
        }
        // From here on the log is flushed by another thread.
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        Ok(())
    }

    /// The file of the database, to flush it.
    pub fn database(&self) -> Result<File, OpenError> {
        let io = |source| OpenError::Io { path: self.file.clone(), source };
        OpenOptions::new().read(true).write(true).open(&self.file).map_err(io)
    }

    /// The folder of the database.
    pub fn folder(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// The write-ahead log.
    pub fn log(&self) -> PathBuf {
        let mut log = self.file.clone().into_os_string();
        log.push("-wal");
        log.into()
    }

    /// A connection that only reads.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        Self::reader_of(&self.file)
    }

    /// A connection that only reads, also beside the process that has the folder.
    pub fn reader_of(file: &Path) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(32);
        plan_once(&connection)?;
        connection.execute_batch("PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY")?;
        Ok(connection)
    }

    /// The connection that copies the write-ahead log into the database.
    pub fn checkpointer(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        Ok(connection)
    }

    /// Why opening failed.
    pub fn failed(&self, error: &rusqlite::Error) -> OpenError {
        Self::explain(&self.file, error)
    }

    /// Why opening this file failed.
    pub fn explain(file: &Path, error: &rusqlite::Error) -> OpenError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                OpenError::Corrupt { path: file.to_owned(), detail: error.to_string() }
            }
            _ => OpenError::Engine(format!("{}: {error}", file.display())),
        }
    }
}

/// Without this SQLite prepares a statement anew whenever another value is bound that a plan could depend on: at each claim.
fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

enum Failure {
    Sqlite(rusqlite::Error),
    Newer(i64),
    Foreign,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

#[cfg(test)]
mod tests {
    use belfry_core::ObjectKey;

    use super::*;
    use crate::{
        DeliveryKind, DeliveryQuery, EventQuery, Finish, Options, RolloutQuery, Room, Settlement, Store, What,
    };

    /// A database as the first release left it: one event, which waits for its Provider.
    const OLD: &str = r#"
        INSERT INTO config(id, kind, namespace, name) VALUES(1, 'Alert', 'n', 'a'), (2, 'Provider', 'n', 'p');
        INSERT INTO object VALUES(1, '', 'kustomize.toolkit.fluxcd.io', 'Kustomization', 'n', 'app', '{"s":"error","f":true}');
        INSERT INTO event(seq, object, origin, dedupe, body_hash, severity, reason, revision, change, body)
            VALUES(1000, 1, 0, 7, 8, 'error', 'BuildFailed', 'main@sha1:aa', 1, x'7b7d');
        INSERT INTO lane(id, dest, due, tail) VALUES(77, 2, 1000, 1000);
        INSERT INTO delivery(id, lane, event, object, route, dest) VALUES(1000, 77, 1000, 1, 1, 2);
        PRAGMA user_version = 1;
    "#;

    #[tokio::test]
    async fn a_database_of_the_first_release_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join(FILE)).unwrap();
        old.execute_batch(FIRST).unwrap();
        old.execute_batch(OLD).unwrap();
        drop(old);
        let store = Store::open_sqlite(folder.path(), Options::default()).unwrap();
        let events = store.events(EventQuery::default()).await.unwrap().items;
        assert_eq!((events.len(), &*events[0].reason), (1, "BuildFailed"));
        let object = ObjectKey {
            group: "kustomize.toolkit.fluxcd.io".into(),
            kind: "Kustomization".into(),
            namespace: "n".into(),
            name: "app".into(),
            ..ObjectKey::default()
        };
        let state = store.object_state(&object).await.unwrap().unwrap();
        assert!(state.failed && state.rollouts.is_unheard());
        assert!(store.rollouts(RolloutQuery::default()).await.unwrap().items.is_empty());
        let (dest, ..) = store.dests().await.unwrap()[0];
        let claim = store.claim(vec![(dest, Room { lanes: 1, probe: false })]).await.unwrap().lanes.remove(0);
        assert!(matches!(claim.rows[0].what, What::Event { .. }) && claim.recovered);
        let finish = Some(Finish { memo: Some(b"known".to_vec()), ..Finish::default() });
        store.settle(Settlement { lane: claim.lane, dest, results: Vec::new(), finish });
        store.flush().await;
        let rows = store.deliveries(DeliveryQuery::default()).await.unwrap().items;
        assert_eq!((rows[0].kind, rows[0].rollout), (DeliveryKind::Event, None));
        store.close().await;
    }
}
