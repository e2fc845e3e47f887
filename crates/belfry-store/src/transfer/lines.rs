//! An export: a line that says what it is, a line for each record, and a line with the digests of all.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read as _, Write},
};

use belfry_core::Time;
use serde::{Deserialize, Serialize};

use super::{
    Window,
    error::TransferError,
    record::Record,
    tally::{Sums, Tally, compare},
};

/// The form that this version writes and reads.
const FORMAT: u32 = 1;
/// Bytes of a line; well above the largest event, each of whose bytes may be written as six.
const LINE: u64 = 32 << 20;

/// The last numbers that a store gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// The store's name, by which others know the events that it passed on: it stays the same store wherever it is moved.
    pub name: String,
    pub seq: i64,
    pub event: i64,
    pub delivery: i64,
}

/// The first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Header {
    format: u32,
    /// The version of Belfry that wrote it.
    version: String,
    engine: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    pub head: Head,
    pub rows: BTreeMap<String, u64>,
}

impl Header {
    pub fn new(engine: &str, window: &Window, head: Head, rows: BTreeMap<String, u64>) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, version, engine: engine.into(), since: window.since, until: window.until, head, rows }
    }
}

#[derive(Serialize, Deserialize)]
struct First {
    belfry: Header,
}

/// Of a first line, what is understood whatever its form.
#[derive(Deserialize)]
struct AnyFirst {
    belfry: AnyHeader,
}

#[derive(Deserialize)]
struct AnyHeader {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Last {
    end: Sums,
}

/// Writes an export.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    tally: Tally,
}

impl<'a> Writer<'a> {
    pub fn begin(out: &'a mut dyn Write, header: &Header) -> Result<Self, TransferError> {
        let mut writer = Self { out, tally: Tally::default() };
        writer.line(&First { belfry: header.clone() })?;
        Ok(writer)
    }

    pub fn put(&mut self, record: &Record) -> Result<(), TransferError> {
        let line = self.tally.add(record)?;
        self.out.write_all(line).map_err(unwritten())
    }

    pub fn end(mut self) -> Result<Sums, TransferError> {
        let end = self.tally.sums();
        self.line(&Last { end: end.clone() })?;
        self.out.flush().map_err(unwritten())?;
        Ok(end)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), TransferError> {
        let mut line = serde_json::to_vec(line).map_err(|error| TransferError::Invalid(error.to_string()))?;
        line.push(b'\n');
        self.out.write_all(&line).map_err(unwritten())
    }
}

fn unwritten() -> impl FnOnce(std::io::Error) -> TransferError {
    TransferError::io("the export can't be written")
}

/// What is wrong with a line. Where it is in the file is known otherwise.
fn said(error: &serde_json::Error) -> String {
    error.to_string().replace("at line 1 column", "at column")
}

/// Reads an export.
pub(super) struct Reader<'a> {
    input: &'a mut dyn BufRead,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Reader<'a> {
    /// Reads the first line.
    pub fn begin(input: &'a mut dyn BufRead) -> Result<(Self, Header), TransferError> {
        let mut reader = Self { input, line: Vec::new(), number: 0 };
        if !reader.next()? {
            return Err(TransferError::Truncated { line: 0 });
        }
        let any: AnyFirst = serde_json::from_slice(&reader.line)
            .map_err(|error| reader.wrong(format!("this is no export of a store: {}", said(&error))))?;
        if any.belfry.format != FORMAT {
            let found = any.belfry.format;
            return Err(reader.wrong(format!("its format is {found}, and this version of Belfry reads {FORMAT}")));
        }
        let first: First = serde_json::from_slice(&reader.line).map_err(|error| reader.wrong(said(&error)))?;
        Ok((reader, first.belfry))
    }

    /// Hands all records over, and compares them with what the last line says; an error of `take` is one of its line.
    pub fn records(mut self, take: &mut dyn FnMut(Record) -> Result<(), TransferError>) -> Result<(), TransferError> {
        let mut tally = Tally::default();
        while self.next()? {
            if self.line.starts_with(b"{\"end\"") {
                let last: Last = serde_json::from_slice(&self.line).map_err(|error| self.wrong(said(&error)))?;
                compare(&last.end, &tally.sums())
                    .map_err(|error| self.wrong(format!("not what was exported: {error}")))?;
                return if self.next()? { Err(self.wrong("nothing may follow the end".into())) } else { Ok(()) };
            }
            let record: Record = serde_json::from_slice(&self.line).map_err(|error| {
                let broken = if error.is_eof() && !self.line.ends_with(b"\n") { "it breaks off: " } else { "" };
                self.wrong(format!("{broken}{}", said(&error)))
            })?;
            tally.add(&record)?;
            take(record).map_err(|error| match error {
                TransferError::Invalid(detail) => self.wrong(detail),
                other => other,
            })?;
        }
        Err(TransferError::Truncated { line: self.number })
    }

    /// Reads a line; says whether there was one.
    fn next(&mut self) -> Result<bool, TransferError> {
        self.line.clear();
        self.number += 1;
        let read = self.input.take(LINE).read_until(b'\n', &mut self.line);
        let read = read.map_err(TransferError::io(format!("line {} can't be read", self.number)))?;
        if read as u64 == LINE && !self.line.ends_with(b"\n") {
            return Err(self.wrong(format!("it is longer than {LINE} bytes")));
        }
        if read == 0 {
            self.number -= 1;
        }
        Ok(read > 0)
    }

    fn wrong(&self, detail: String) -> TransferError {
        TransferError::Line { line: self.number, detail }
    }
}
