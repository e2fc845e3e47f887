//! Reading a whole database, and filling an empty one: in a file beside it, which takes its place once all of it is there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use belfry_core::{Seq, Time};
use rusqlite::{
    Connection, Row, params_from_iter,
    types::{Value, ValueRef},
};

use super::{
    append::read_state,
    deferred,
    read::config_key,
    schema::{FILE, KNOWN, Place},
};
use crate::{
    engine::EngineError,
    queries::DeliveryState,
    transfer::{Cell, Dump, Each, Head, Kind, Load, Record, Survey, Table, TransferError, Waiting, Window},
};

/// What is added to the name of a database that isn't whole yet.
const PART: &str = ".part";
/// What waits, by destination.
const WAITING: &str = "SELECT c.kind, c.namespace, c.name, p.count, p.oldest FROM (
        SELECT dest, count(*) AS count, min(id) AS oldest FROM delivery WHERE state = 0 GROUP BY dest) p
    JOIN config c ON c.id = p.dest ORDER BY p.count DESC, c.namespace, c.name";
const NAME: &str = "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'name'";
/// What SQLite puts beside a database.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A database that is there.
pub(crate) struct SqliteDump {
    source: Source,
    _place: Option<Place>,
}

/// Opens a folder for reading; `alone`: no server may have it meanwhile.
pub(crate) fn dump(folder: &Path, alone: bool) -> Result<SqliteDump, TransferError> {
    if !folder.join(FILE).is_file() {
        return Err(TransferError::Missing(folder.display().to_string()));
    }
    // First: what was written until then belongs to it.
    let place = alone.then(|| Place::take(folder)).transpose()?;
    let source = Source::open(folder)?;
    source.connection.execute_batch("BEGIN").map_err(|error| source.failed(error))?;
    Ok(SqliteDump { source, _place: place })
}

impl Dump for SqliteDump {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    fn head(&mut self) -> Result<Head, TransferError> {
        self.source.head()
    }

    fn count(&mut self, table: Table, window: &Window) -> Result<u64, TransferError> {
        self.source.count(table, window)
    }

    fn read(&mut self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
        self.source.read(table, window, each)
    }
}

/// A connection, and what it is called.
struct Source {
    connection: Connection,
    site: String,
}

impl Source {
    fn open(folder: &Path) -> Result<Self, TransferError> {
        let file = folder.join(FILE);
        if !file.is_file() {
            return Err(TransferError::Missing(folder.display().to_string()));
        }
        let site = folder.display().to_string();
        let connection = Place::reader_of(&file).map_err(|error| Place::explain(&file, &error))?;
        let source = Self { connection, site };
        let version = source.number("PRAGMA user_version");
        let found = version.map_err(|error| Place::explain(&file, &error))?;
        let site = source.site.clone();
        match found {
            0 => Err(TransferError::Missing(site)),
            found if found < KNOWN => Err(TransferError::Older { site, found, known: KNOWN }),
            found if found > KNOWN => Err(TransferError::Newer { site, found, known: KNOWN }),
            _ => Ok(source),
        }
    }

    fn failed(&self, error: impl Into<EngineError>) -> TransferError {
        TransferError::engine(&self.site, &error.into())
    }

    fn number(&self, sql: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(sql, [], |row| Ok(row.get::<_, Option<i64>>(0)?.unwrap_or(0)))
    }

    fn head(&self) -> Result<Head, TransferError> {
        let number = |sql: &str| self.number(sql).map_err(|error| self.failed(error));
        let event = number("SELECT max(seq) FROM event")?;
        let seq = number("SELECT max(seq) FROM hook")?.max(number("SELECT max(id) FROM rollout")?).max(event);
        let delivery = number("SELECT max(id) FROM delivery")?;
        let name = self.connection.query_row(NAME, [], |row| row.get(0)).map_err(|error| self.failed(error))?;
        Ok(Head { name, seq, event, delivery })
    }

    fn count(&self, table: Table, window: &Window) -> Result<u64, TransferError> {
        let sql = format!("SELECT count(*) FROM {}{}", table.name(), condition(table, window));
        self.number(&sql).map(i64::unsigned_abs).map_err(|error| self.failed(error))
    }

    fn read(&self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
        let columns: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
        let key = columns[..table.key()].join(", ");
        let sql =
            format!("SELECT {} FROM {}{} ORDER BY {key}", columns.join(", "), table.name(), condition(table, window));
        let mut statement = self.connection.prepare(&sql).map_err(|error| self.failed(error))?;
        let mut rows = statement.query([]).map_err(|error| self.failed(error))?;
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            let cells = cells(table, row).map_err(|error| self.failed(error))?;
            let record = Record::from_cells(table, cells).map_err(|column| {
                let key: i64 = row.get(0).unwrap_or_default();
                TransferError::Invalid(format!("{} {key} of {}: {column} makes no sense", table.name(), self.site))
            })?;
            each(record)?;
        }
        Ok(())
    }
}

/// Selects what a window leaves.
fn condition(table: Table, window: &Window) -> String {
    let Some((since, until)) = window.bounds() else { return String::new() };
    let of = |cause: &str| {
        format!(
            "(({cause} >= {since} AND {cause} < {until})
                 OR EXISTS(SELECT 1 FROM delivery w WHERE w.event = {cause} AND w.state = 0))"
        )
    };
    match table {
        Table::Event | Table::Hook => format!(" WHERE {}", of(&format!("{}.seq", table.name()))),
        Table::Delivery => format!(" WHERE {}", of("delivery.event")),
        Table::Attempt => format!(" WHERE delivery IN (SELECT d.id FROM delivery d WHERE {})", of("d.event")),
        Table::Config | Table::Object | Table::Lane | Table::Rollout => String::new(),
    }
}

fn cells(table: Table, row: &Row<'_>) -> rusqlite::Result<Vec<Cell>> {
    let cell = |(i, kind): (usize, Kind)| {
        if kind == Kind::State {
            let Some(state) = row.get::<_, Option<_>>(i)? else { return Ok(Cell::Null) };
            return Ok(Cell::State(Box::new(read_state(row.get(0)?, Some(state)))));
        }
        Ok(match row.get_ref(i)? {
            ValueRef::Integer(number) => Cell::Integer(number),
            ValueRef::Text(_) => Cell::Text(row.get(i)?),
            ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
            ValueRef::Null | ValueRef::Real(_) => Cell::Null,
        })
    };
    table.columns().iter().map(|column| column.kind).enumerate().map(cell).collect()
}

/// A database that is being filled.
pub(crate) struct SqliteLoad {
    /// `None` once it is closed.
    source: Option<Source>,
    inserts: Vec<String>,
    file: PathBuf,
    place: Place,
}

/// Begins to fill the store in a folder, which must have none, or one with nothing in it.
pub(crate) fn load(folder: &Path) -> Result<SqliteLoad, TransferError> {
    let mut place = Place::take(folder)?;
    let file = place.file.clone();
    if file.exists() {
        must_be_empty(folder, &file)?;
    }
    place.file = file.with_file_name(format!("{FILE}{PART}"));
    remove(&place.file)?;
    let connection = place.writer()?;
    let site = folder.display().to_string();
    // From here on, what is dropped is removed.
    let load = SqliteLoad {
        source: Some(Source { connection, site }),
        inserts: Table::ALL.into_iter().map(insert).collect(),
        file,
        place,
    };
    let source = load.source()?;
    prepare(&source.connection).map_err(|error| source.failed(error))?;
    Ok(load)
}

fn must_be_empty(folder: &Path, file: &Path) -> Result<(), TransferError> {
    let failed = |error: rusqlite::Error| Place::explain(file, &error);
    let connection = Place::reader_of(file).map_err(failed)?;
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'
         AND name NOT IN ('meta', 'indexed')";
    let tables: Vec<String> = connection
        .prepare(sql)
        .and_then(|mut found| found.query_map([], |row| row.get(0))?.collect())
        .map_err(failed)?;
    let mut full = Vec::new();
    for table in tables {
        let sql = format!("SELECT EXISTS(SELECT 1 FROM \"{}\")", table.replace('"', "\"\""));
        if connection.query_row(&sql, [], |row| row.get(0)).map_err(failed)? {
            full.push(table);
        }
    }
    if full.is_empty() {
        return Ok(());
    }
    full.sort();
    Err(TransferError::NotEmpty { site: folder.display().to_string(), tables: full.join(", ") })
}

/// If this breaks off, the file is thrown away, so nothing of it has to be safe before it is whole. Indexes aren't made at the end, where
/// they would be sorted in memory.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN EXCLUSIVE")
}

fn insert(table: Table) -> String {
    let columns: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    let places = vec!["?"; columns.len()].join(", ");
    format!("INSERT INTO {}({}) VALUES({places})", table.name(), columns.join(", "))
}

fn value(cell: Cell) -> Result<Value, TransferError> {
    Ok(match cell {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::Integer(number),
        Cell::Text(text) => Value::Text(text),
        Cell::Bytes(bytes) => Value::Blob(bytes),
        Cell::State(state) => {
            let text = serde_json::to_string(&*state).map_err(|error| TransferError::Invalid(error.to_string()))?;
            Value::Text(text)
        }
    })
}

/// Removes a database and what belongs to it.
fn remove(file: &Path) -> Result<(), TransferError> {
    for end in BESIDE {
        let mut path = file.as_os_str().to_owned();
        path.push(end);
        let path = PathBuf::from(path);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(TransferError::io(format!("{} can't be removed", path.display()))(error));
            }
            _ => {}
        }
    }
    Ok(())
}

impl SqliteLoad {
    fn source(&self) -> Result<&Source, TransferError> {
        self.source.as_ref().ok_or_else(|| TransferError::Invalid("the database is closed".into()))
    }
}

impl Dump for SqliteLoad {
    fn engine(&self) -> &'static str {
        "sqlite"
    }

    fn head(&mut self) -> Result<Head, TransferError> {
        self.source()?.head()
    }

    fn count(&mut self, table: Table, window: &Window) -> Result<u64, TransferError> {
        self.source()?.count(table, window)
    }

    fn read(&mut self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
        self.source()?.read(table, window, each)
    }
}

impl Load for SqliteLoad {
    fn put(&mut self, record: Record) -> Result<(), TransferError> {
        let (source, table) = (self.source()?, record.table());
        let values = record.into_cells().into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let mut statement =
            source.connection.prepare_cached(&self.inserts[table as usize]).map_err(|error| source.failed(error))?;
        statement.execute(params_from_iter(values)).map(drop).map_err(|error| match error.into() {
            EngineError::Data(detail) => TransferError::Invalid(detail),
            down => source.failed(down),
        })
    }

    /// Where the numbers go on is what the newest rows say.
    fn settle(&mut self, head: &Head) -> Result<(), TransferError> {
        let source = self.source()?;
        let named = source.connection.execute("UPDATE meta SET value = ?1 WHERE name = 'name'", [head.name.as_bytes()]);
        named.map_err(|error| source.failed(error))?;
        deferred::index_all(&source.connection).map_err(|error| source.failed(error))?;
        source.connection.execute_batch("COMMIT").map_err(|error| source.failed(error))
    }

    fn commit(mut self: Box<Self>) -> Result<(), TransferError> {
        if let Some(source) = self.source.take() {
            let Source { connection, site } = source;
            connection.close().map_err(|(_, error)| TransferError::engine(&site, &error.into()))?;
        }
        let (part, file) = (&self.place.file, &self.file);
        let kept = TransferError::io(format!("{} can't be written to disk", part.display()));
        File::open(part).and_then(|part| part.sync_all()).map_err(kept)?;
        // An empty one, with what belongs to it: a log that is left over would be taken for one of the new file.
        remove(file)?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let moved = fs::rename(part, file).and_then(|()| File::open(folder)?.sync_all());
        moved.map_err(TransferError::io(format!("{} can't be put in its place", file.display())))
    }
}

impl Drop for SqliteLoad {
    fn drop(&mut self) {
        self.source = None;
        // There is none once it was committed.
        let _ = remove(&self.place.file);
    }
}

/// Looks what there is.
pub(crate) fn survey(folder: &Path) -> Result<Survey, TransferError> {
    let source = Source::open(folder)?;
    look(&source).map_err(|error| source.failed(error))
}

fn look(source: &Source) -> rusqlite::Result<Survey> {
    let transaction = source.connection.unchecked_transaction()?;
    let count = |sql: &str| source.number(sql).map(i64::unsigned_abs);
    let page = count("PRAGMA page_size")?;
    let free = count("PRAGMA freelist_count")?;
    let events = count("SELECT count(*) FROM event")?;
    let span = (Seq(source.number("SELECT min(seq) FROM event")?), Seq(source.number("SELECT max(seq) FROM event")?));
    let by_state = "SELECT state, count(*) FROM delivery GROUP BY state ORDER BY state";
    let deliveries = transaction
        .prepare(by_state)?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?
        .collect::<rusqlite::Result<Vec<(i64, i64)>>>()?;
    let waiting = |row: &Row<'_>| {
        let count = row.get::<_, i64>(3)?.unsigned_abs();
        Ok(Waiting { dest: config_key(row, 0)?, count, oldest: Time(row.get(4)?) })
    };
    let by_dest = transaction.prepare(WAITING)?.query_map([], waiting)?.collect::<rusqlite::Result<_>>()?;
    Ok(Survey {
        engine: "sqlite",
        schema: source.number("PRAGMA user_version")?,
        used: count("PRAGMA page_count")?.saturating_sub(free) * page,
        free: Some(free * page),
        events,
        span: (events > 0).then_some(span),
        objects: count("SELECT count(*) FROM object")?,
        rollouts: count("SELECT count(*) FROM rollout")?,
        open_rollouts: count("SELECT count(*) FROM rollout WHERE state IN (1, 2)")?,
        deliveries: deliveries
            .into_iter()
            .filter_map(|(state, count)| Some((DeliveryState::from_code(state)?, count.unsigned_abs())))
            .collect(),
        attempts: count("SELECT count(*) FROM attempt")?,
        waiting: by_dest,
        hooks: count("SELECT count(*) FROM hook")?,
        replicas: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_table_and_no_column_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Place::take(folder.path()).unwrap().writer().unwrap();
        let names = |sql: &str| -> Vec<String> {
            let mut names = connection.prepare(sql).unwrap();
            names.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
        };
        let mut known: Vec<&str> = Table::ALL.map(Table::name).into();
        // Its one row that lasts is the name, and indexes are made anew.
        known.extend(["meta", "event_object", "event_rev", "rollout_rev", "indexed"]);
        known.sort_unstable();
        assert_eq!(names("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"), known);
        for table in Table::ALL {
            let mut columns: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
            columns.sort_unstable();
            let sql = format!("SELECT name FROM pragma_table_info('{}') ORDER BY name", table.name());
            assert_eq!(names(&sql), columns, "{}", table.name());
        }
    }
}
