//! Moving a store: from one engine to the other, out into a file and back. There is one way for all of it: an engine's rows
//! become records, these are checked, written, read back and compared, and only then does the target have them.

mod check;
mod error;
mod field;
mod lines;
mod meter;
mod record;
mod survey;
mod tally;

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, Write},
    path::PathBuf,
    thread,
};

use belfry_core::Time;

use self::{
    check::Check,
    lines::{Header, Reader, Writer},
    meter::Meter,
    tally::{Sums, Tally, compare},
};
pub use self::{
    error::TransferError,
    meter::{Progress, Stage, Watch},
    survey::{Survey, Waiting},
};
pub(crate) use self::{
    field::{Cell, Kind},
    lines::Head,
    record::{Column, Record, Table},
};
use crate::{postgres, postgres::Database, sqlite};

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Site {
    /// In a folder: SQLite.
    Folder(PathBuf),
    /// In a PostgreSQL database.
    Database(Database),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Database(_) => f.write_str("the PostgreSQL database"),
        }
    }
}

/// Which part of the log is exported: what arrived in this time, with its deliveries, and whatever a delivery still waits for.
/// Configuration, objects, rollouts and lanes are exported whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// From then on.
    pub since: Option<Time>,
    /// Before then.
    pub until: Option<Time>,
}

impl Window {
    /// As numbers, if it is not everything.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        let bounded = self.since.is_some() || self.until.is_some();
        bounded.then(|| (self.since.map_or(i64::MIN, |at| at.0), self.until.map_or(i64::MAX, |at| at.0)))
    }
}

/// What was moved of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The table.
    pub table: &'static str,
    /// Its rows.
    pub rows: u64,
    /// Digest of its records, each as a line of an export, in the order of their keys.
    pub sha256: String,
}

/// Takes the records of a table, in their order.
pub(crate) type Each<'a> = dyn FnMut(Record) -> Result<(), TransferError> + 'a;

/// Reads a store, all of it as it was at one time.
pub(crate) trait Dump {
    fn engine(&self) -> &'static str;
    fn head(&mut self) -> Result<Head, TransferError>;
    fn count(&mut self, table: Table, window: &Window) -> Result<u64, TransferError>;
    fn read(&mut self, table: Table, window: &Window, each: &mut Each<'_>) -> Result<(), TransferError>;
    /// Fails if a server got hold of it after all.
    fn still_alone(&mut self) -> Result<(), TransferError> {
        Ok(())
    }
}

/// Fills a store that is empty. What is dropped rather than committed leaves it so.
pub(crate) trait Load: Dump {
    /// Writes a record, at once or with those that follow.
    fn put(&mut self, record: Record) -> Result<(), TransferError>;
    /// All records were given: makes it a store that a server can go on with.
    fn settle(&mut self, head: &Head) -> Result<(), TransferError>;
    fn commit(self: Box<Self>) -> Result<(), TransferError>;
}

/// Moves everything into an empty store. Neither may be in use.
///
/// # Errors
/// When one of them can't be used, or what was written isn't what was read. The target is empty then.
pub fn migrate(from: &Site, to: &Site, watch: &mut Watch<'_>) -> Result<Vec<Moved>, TransferError> {
    apart(|| {
        let mut source = dump(from, true)?;
        let mut target = load(to)?;
        let header = header(&mut *source, &Window::default())?;
        let written = fill(&mut *target, &header, watch, &mut |take| {
            Table::ALL.into_iter().try_for_each(|table| source.read(table, &Window::default(), take))
        })?;
        source.still_alone()?;
        target.commit()?;
        Ok(moved(&written))
    })
}

/// Writes a store out, a line for each record, as it is at one time; servers may go on with it meanwhile.
///
/// # Errors
/// When it can't be read, or `out` refuses.
pub fn export(
    from: &Site,
    window: Window,
    out: &mut (dyn Write + Send),
    watch: &mut Watch<'_>,
) -> Result<Vec<Moved>, TransferError> {
    apart(|| {
        let mut source = dump(from, false)?;
        let header = header(&mut *source, &window)?;
        let mut writer = Writer::begin(out, &header)?;
        let mut meter = Meter::new(watch, &header.rows);
        for table in Table::ALL {
            source.read(table, &window, &mut |record| {
                meter.count(table);
                writer.put(&record)
            })?;
        }
        meter.end();
        writer.end().map(|sums| moved(&sums))
    })
}

/// Brings an export into an empty store that is not in use.
///
/// # Errors
/// With the line that is wrong, or when the store can't be used. It is empty then.
pub fn import(to: &Site, input: &mut (dyn BufRead + Send), watch: &mut Watch<'_>) -> Result<Vec<Moved>, TransferError> {
    apart(|| {
        let (reader, header) = Reader::begin(input)?;
        let mut target = load(to)?;
        let written = {
            let mut reader = Some(reader);
            fill(&mut *target, &header, watch, &mut |take| reader.take().map_or(Ok(()), |reader| reader.records(take)))?
        };
        target.commit()?;
        Ok(moved(&written))
    })
}

/// Looks what is in a store; servers may go on with it meanwhile.
///
/// # Errors
/// When it can't be read.
pub fn survey(site: &Site) -> Result<Survey, TransferError> {
    apart(|| match site {
        Site::Folder(folder) => sqlite::survey(folder),
        Site::Database(database) => postgres::survey(database),
    })
}

/// On a thread of its own: the caller's may belong to a runtime, on which connections can't be driven.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, TransferError> + Send) -> Result<T, TransferError> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(TransferError::Invalid("the thread that did it has died".into())))
}

fn dump(site: &Site, alone: bool) -> Result<Box<dyn Dump>, TransferError> {
    Ok(match site {
        Site::Folder(folder) => Box::new(sqlite::dump(folder, alone)?),
        Site::Database(database) => Box::new(postgres::dump(database, alone)?),
    })
}

fn load(site: &Site) -> Result<Box<dyn Load>, TransferError> {
    Ok(match site {
        Site::Folder(folder) => Box::new(sqlite::load(folder)?),
        Site::Database(database) => Box::new(postgres::load(database)?),
    })
}

fn header(source: &mut dyn Dump, window: &Window) -> Result<Header, TransferError> {
    let head = source.head()?;
    let count = |table: Table| Ok((table.name().to_owned(), source.count(table, window)?));
    let rows = Table::ALL.into_iter().map(count).collect::<Result<BTreeMap<_, _>, TransferError>>()?;
    Ok(Header::new(source.engine(), window, head, rows))
}

/// Hands all records of a source over.
type Feed<'a> = dyn FnMut(&mut Each<'_>) -> Result<(), TransferError> + 'a;

/// Fills the target with what comes, and reads it back.
fn fill(
    target: &mut dyn Load,
    header: &Header,
    watch: &mut Watch<'_>,
    feed: &mut Feed<'_>,
) -> Result<Sums, TransferError> {
    let (mut check, mut tally) = (Check::default(), Tally::default());
    let mut meter = Meter::new(watch, &header.rows);
    feed(&mut |record| {
        check.take(&record)?;
        tally.add(&record)?;
        meter.count(record.table());
        target.put(record)
    })?;
    check.end()?;
    target.settle(&header.head)?;
    let (written, mut found) = (tally.sums(), Tally::default());
    meter.go_on(Stage::Verifying);
    for table in Table::ALL {
        target.read(table, &Window::default(), &mut |record| {
            meter.count(table);
            found.add(&record).map(drop)
        })?;
    }
    meter.end();
    compare(&written, &found.sums())?;
    Ok(written)
}

fn moved(sums: &Sums) -> Vec<Moved> {
    let of = |table: Table| {
        let sum = sums.get(table.name());
        let (rows, sha256) = sum.map(|sum| (sum.rows, sum.sha256.clone())).unwrap_or_default();
        Moved { table: table.name(), rows, sha256 }
    };
    Table::ALL.map(of).into()
}
