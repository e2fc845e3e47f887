//! Reading a whole database in one snapshot, and filling an empty one in one transaction.

use std::time::Duration;

use super::{
    APPEND_LOCK,
    append::{ROW, read_state},
    link::{Link, Param, step},
    partition,
    place::Database,
    schema::{self, KNOWN},
};
use crate::{
    engine::EngineError,
    transfer::{Cell, Column, Dump, Each, Head, Kind, Load, Record, Table, TransferError, Window},
};

/// What this is called in messages; its URL may be secret.
pub(super) const SITE: &str = "the PostgreSQL database";
/// How long a statement may take: an index is read, or all that was written is flushed.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Rows of a page, and of what is written at once.
const PAGE: i64 = 1000;
/// Bytes of events after which a page ends, and of anything after which it is written.
const BYTES: i64 = 4 << 20;
/// Only those who hold it may bring a database to its schema: a server that starts waits.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(hashtext('belfry'), hashtext(current_schema()))";
const LIVE: &str = "SELECT name FROM replica WHERE until > clock_timestamp() ORDER BY id";

pub(super) fn failed(error: EngineError) -> TransferError {
    TransferError::engine(SITE, &error)
}

/// A connection for work that takes its time, to a database with the schema of this version.
pub(super) fn connect(database: &Database) -> Result<Link, TransferError> {
    let mut link = patient(database)?;
    let known = link.query_once("SELECT to_regclass('belfry_schema') IS NOT NULL", &[]).map_err(failed)?;
    if !known.first().is_some_and(|row| row.get(0)) {
        return Err(TransferError::Missing(SITE.into()));
    }
    let rows = link.query_once("SELECT version FROM belfry_schema", &[]).map_err(failed)?;
    let (site, known) = (SITE.to_owned(), KNOWN);
    match rows.first().map_or(0, |row| row.get::<_, i64>(0)) {
        0 => Err(TransferError::Missing(site)),
        found if found < known => Err(TransferError::Older { site, found, known }),
        found if found > known => Err(TransferError::Newer { site, found, known }),
        _ => Ok(link),
    }
}

fn patient(database: &Database) -> Result<Link, TransferError> {
    let mut link = Link::open(database).map_err(failed)?;
    link.set_patience(PATIENCE).map_err(failed)?;
    link.batch("SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0").map_err(failed)?;
    Ok(link)
}

fn in_use(by: String) -> TransferError {
    TransferError::InUse { site: SITE.into(), by }
}

/// Keeps servers from starting on it, until the connection is closed.
fn lock(link: &mut Link) -> Result<(), TransferError> {
    let locked = link.query_once(TRY_LOCK, &[]).map_err(failed)?;
    match locked.first().is_some_and(|row| row.get(0)) {
        true => Ok(()),
        false => Err(in_use("another command of this kind, or a server that is starting".into())),
    }
}

fn no_replicas(link: &mut Link) -> Result<(), TransferError> {
    let live = link.query_once(LIVE, &[]).map_err(failed)?;
    let names: Vec<&str> = live.iter().map(|row| row.get(0)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(in_use(format!(
        "{} running replicas ({}); one that has crashed counts until its lease is over, within a minute unless --database-lease \
         says more",
        names.len(),
        names.join(", ")
    )))
}

/// A connection that lets go of everything when it is dropped, not only when the server finds that it is closed.
struct Held(Link);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.batch("ROLLBACK; SELECT pg_advisory_unlock_all()");
    }
}

impl std::ops::Deref for Held {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl std::ops::DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.0
    }
}

/// A database that is there, as it is in one snapshot.
pub(crate) struct PgDump(Held);

/// Opens a database for reading; `alone`: no server may have it meanwhile.
pub(crate) fn dump(database: &Database, alone: bool) -> Result<PgDump, TransferError> {
    let mut link = Held(connect(database)?);
    if alone {
        lock(&mut link)?;
        no_replicas(&mut link)?;
    }
    link.batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").map_err(failed)?;
    Ok(PgDump(link))
}

impl Dump for PgDump {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    fn head(&mut self) -> Result<Head, TransferError> {
        head(&mut self.0)
    }

    fn count(&mut self, table: Table, window: &Window) -> Result<u64, TransferError> {
        count(&mut self.0, table, window)
    }

    fn read(&mut self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
        read(&mut self.0, table, window, each)
    }

    /// One that was about to enter when the lock was taken.
    fn still_alone(&mut self) -> Result<(), TransferError> {
        self.0.batch("COMMIT").map_err(failed)?;
        no_replicas(&mut self.0)
    }
}

fn head(link: &mut Link) -> Result<Head, TransferError> {
    let sql = "SELECT seq, event, delivery, value FROM head, meta WHERE name = 'name'";
    let rows = link.query(sql, &[]).map_err(failed)?;
    let row = rows.first().ok_or_else(|| TransferError::Missing(SITE.into()))?;
    Ok(Head { seq: row.get(0), event: row.get(1), delivery: row.get(2), name: row.get(3) })
}

fn count(link: &mut Link, table: Table, window: &Window) -> Result<u64, TransferError> {
    let sql = format!("SELECT count(*) FROM {} WHERE {}", table.name(), condition(table, window));
    let rows = link.query_once(&sql, &[]).map_err(failed)?;
    Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
}

/// Selects what a window leaves.
fn condition(table: Table, window: &Window) -> String {
    let Some((since, until)) = window.bounds() else { return "TRUE".into() };
    let of = |cause: &str| {
        format!(
            "(({cause} >= {since} AND {cause} < {until})
                 OR EXISTS(SELECT 1 FROM delivery w WHERE w.event = {cause} AND w.state = 0))"
        )
    };
    match table {
        Table::Event | Table::Hook => of(&format!("{}.seq", table.name())),
        Table::Delivery => of("delivery.event"),
        Table::Attempt => {
            format!("EXISTS(SELECT 1 FROM delivery d WHERE d.id = attempt.delivery AND {})", of("d.event"))
        }
        Table::Config | Table::Object | Table::Lane | Table::Rollout => "TRUE".into(),
    }
}

/// Page by page, each after the key of the last row; a page of events also ends where it grows large.
fn read(link: &mut Link, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
    let columns: Vec<String> = table.columns().iter().map(selected).collect();
    let names: Vec<&str> = table.columns()[..table.key()].iter().map(|column| column.name).collect();
    let key = names.join(", ");
    let after = if names.len() == 1 { "$1" } else { "$1, $2" };
    let size = if table == Table::Event { "octet_length(body)" } else { "0" };
    let sql = format!(
        "SELECT * FROM (SELECT {}, sum({size}) OVER (ORDER BY {key}) - {size} AS before FROM {}
             WHERE ({key}) > ({after}) AND {} ORDER BY {key} LIMIT {PAGE}) page WHERE before < {BYTES} ORDER BY {key}",
        columns.join(", "),
        table.name(),
        condition(table, window)
    );
    let mut last = (i64::MIN, i64::MIN);
    loop {
        let params: [Param<'_>; 2] = [&last.0, &last.1];
        let rows = link.query(&sql, &params[..names.len()]).map_err(failed)?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            let record = Record::from_cells(table, cells(table, &row)).map_err(|column| {
                let key = row.get::<_, i64>(0);
                TransferError::Invalid(format!("{} {key} of {SITE}: {column} makes no sense", table.name()))
            })?;
            last = record.key();
            each(record)?;
        }
    }
}

fn selected(column: &Column) -> String {
    match column.kind {
        Kind::Integer => format!("{0}::INT8 AS {0}", column.name),
        Kind::Boolean => format!("{0}::INT4::INT8 AS {0}", column.name),
        Kind::Text | Kind::Bytes | Kind::State => column.name.to_owned(),
    }
}

fn cells(table: Table, row: &tokio_postgres::Row) -> Vec<Cell> {
    let cell = |(i, column): (usize, &Column)| match column.kind {
        Kind::Integer | Kind::Boolean => row.get::<_, Option<i64>>(i).map_or(Cell::Null, Cell::Integer),
        Kind::Text => row.get::<_, Option<String>>(i).map_or(Cell::Null, Cell::Text),
        Kind::Bytes => row.get::<_, Option<Vec<u8>>>(i).map_or(Cell::Null, Cell::Bytes),
        Kind::State => match row.get::<_, Option<_>>(i) {
            None => Cell::Null,
            state => Cell::State(Box::new(read_state(row.get(0), state))),
        },
    };
    table.columns().iter().enumerate().map(cell).collect()
}

/// A database that is being filled, in a transaction that is not committed yet.
pub(crate) struct PgLoad {
    link: Held,
    batch: Option<(Table, Batch)>,
    days: partition::Days,
}

/// Begins to fill a database, which gets the schema if it has none, and must have nothing else in it.
pub(crate) fn load(database: &Database) -> Result<PgLoad, TransferError> {
    let mut first = Held(patient(database)?);
    // Else bringing it to the schema would wait for whoever has it.
    lock(&mut first)?;
    drop(first);
    schema::migrate(database)?;
    let mut link = Held(connect(database)?);
    lock(&mut link)?;
    no_replicas(&mut link)?;
    link.batch("BEGIN").map_err(failed)?;
    // Whoever appends in spite of all that has to wait, and then sees what there is.
    link.query_once(APPEND_LOCK, &[]).map_err(failed)?;
    must_be_empty(&mut link)?;
    let days = partition::Days::known(&mut link).map_err(failed)?;
    Ok(PgLoad { link, batch: None, days })
}

fn must_be_empty(link: &mut Link) -> Result<(), TransferError> {
    let mut full = Vec::new();
    for table in Table::ALL.map(Table::name) {
        let rows = link.query_once(&format!("SELECT EXISTS(SELECT 1 FROM {table})"), &[]).map_err(failed)?;
        if rows.first().is_some_and(|row| row.get(0)) {
            full.push(table);
        }
    }
    full.sort_unstable();
    let tables = full.join(", ");
    if full.is_empty() { Ok(()) } else { Err(TransferError::NotEmpty { site: SITE.into(), tables }) }
}

/// Rows of one table, by column.
struct Batch {
    columns: Vec<Values>,
    rows: i64,
    bytes: i64,
}

enum Values {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

impl Batch {
    fn new(table: Table) -> Self {
        let values = |column: &Column| match column.kind {
            Kind::Integer | Kind::Boolean => Values::Integers(Vec::new()),
            Kind::Text | Kind::State => Values::Texts(Vec::new()),
            Kind::Bytes => Values::Bytes(Vec::new()),
        };
        Self { columns: table.columns().iter().map(values).collect(), rows: 0, bytes: 0 }
    }

    fn push(&mut self, record: Record) -> Result<(), TransferError> {
        for (column, cell) in self.columns.iter_mut().zip(record.into_cells()) {
            let text = match cell {
                Cell::State(state) => Cell::Text(
                    serde_json::to_string(&*state).map_err(|error| TransferError::Invalid(error.to_string()))?,
                ),
                other => other,
            };
            self.bytes += match &text {
                Cell::Text(text) => text.len() as i64,
                Cell::Bytes(bytes) => bytes.len() as i64,
                _ => 8,
            };
            match (column, text) {
                (Values::Integers(column), Cell::Integer(number)) => column.push(Some(number)),
                (Values::Integers(column), _) => column.push(None),
                (Values::Texts(column), Cell::Text(text)) => column.push(Some(text)),
                (Values::Texts(column), _) => column.push(None),
                (Values::Bytes(column), Cell::Bytes(bytes)) => column.push(Some(bytes)),
                (Values::Bytes(column), _) => column.push(None),
            }
        }
        self.rows += 1;
        Ok(())
    }
}

/// Adds a batch. What waits may have been under way when the source was stopped: whoever goes on with it is told so.
fn insert(table: Table) -> String {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
    let (mut into, mut values, mut given) = (names.join(", "), Vec::new(), Vec::new());
    for (i, column) in table.columns().iter().enumerate() {
        let kind = match column.kind {
            Kind::Integer | Kind::Boolean => "INT8",
            Kind::Text | Kind::State => "TEXT",
            Kind::Bytes => "BYTEA",
        };
        given.push(format!("${}::{kind}[]", i + 1));
        values.push(if column.kind == Kind::Boolean {
            format!("{}::INT4::BOOLEAN", column.name)
        } else {
            column.name.into()
        });
    }
    if table == Table::Lane {
        into.push_str(", doubt");
        values.push("due IS NOT NULL".into());
    }
    format!(
        "INSERT INTO {}({into}) SELECT {} FROM unnest({}) new({})",
        table.name(),
        values.join(", "),
        given.join(", "),
        names.join(", ")
    )
}

impl PgLoad {
    fn write(&mut self) -> Result<(), TransferError> {
        let Some((table, batch)) = self.batch.take() else { return Ok(()) };
        let params = batch.columns.iter().map(|column| -> Param<'_> {
            match column {
                Values::Integers(values) => values,
                Values::Texts(values) => values,
                Values::Bytes(values) => values,
            }
        });
        let written = self.link.query(&insert(table), &params.collect::<Vec<_>>());
        written.map(drop).map_err(|error| match error {
            EngineError::Data(detail) => TransferError::Invalid(format!("this or one of the {PAGE} before: {detail}")),
            EngineError::Down(_) | EngineError::Overtaken => failed(error),
        })
    }
}

impl Dump for PgLoad {
    fn engine(&self) -> &'static str {
        "postgres"
    }

    fn head(&mut self) -> Result<Head, TransferError> {
        head(&mut self.link)
    }

    fn count(&mut self, table: Table, window: &Window) -> Result<u64, TransferError> {
        count(&mut self.link, table, window)
    }

    fn read(&mut self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError> {
        read(&mut self.link, table, window, each)
    }
}

/// Where the numbers go on: behind the last row, and behind what the source had come to.
const HEAD: &str = "UPDATE head SET
    seq = greatest($1, e.last, (SELECT COALESCE(max(seq), 0) FROM hook), (SELECT COALESCE(max(id), 0) FROM rollout)),
    event = greatest($2, e.last), delivery = greatest($3, (SELECT COALESCE(max(id), 0) FROM delivery)), bytes = e.bytes
    FROM (SELECT COALESCE(max(seq), 0) AS last, COALESCE(sum(octet_length(body) + $4::INT8), 0)::INT8 AS bytes FROM event) e";

impl Load for PgLoad {
    fn put(&mut self, record: Record) -> Result<(), TransferError> {
        let table = record.table();
        let full = |batch: &Batch| batch.rows >= PAGE || batch.bytes >= BYTES;
        if self.batch.as_ref().is_some_and(|(of, batch)| *of != table || full(batch)) {
            self.write()?;
        }
        if table == Table::Event {
            // A partition must be there before the first row that belongs into it.
            self.days.prepare(&mut self.link, record.key().0).map_err(failed)?;
        }
        let (_, batch) = self.batch.get_or_insert_with(|| (table, Batch::new(table)));
        batch.push(record)
    }

    fn settle(&mut self, given: &Head) -> Result<(), TransferError> {
        self.write()?;
        let numbers = |table: &str| {
            format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table} HAVING max(id) IS NOT NULL"
            )
        };
        let (configs, objects) = (numbers("config"), numbers("object"));
        let steps =
            [step(&configs, []), step(&objects, []), step(HEAD, [&given.seq, &given.event, &given.delivery, &ROW])];
        self.link.pipeline(&steps).map_err(failed)?;
        let rename = "UPDATE meta SET value = $1 WHERE name = 'name'";
        self.link.query(rename, &[&given.name]).map_err(failed)?;
        self.link.batch("ANALYZE config, object, event, rollout, hook, lane, delivery, attempt").map_err(failed)
    }

    fn commit(mut self: Box<Self>) -> Result<(), TransferError> {
        self.link.batch("COMMIT").map_err(failed)
    }
}
