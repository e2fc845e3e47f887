//! How much of each table there is, and a digest of it: by these two stores are compared.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    error::TransferError,
    record::{Record, Table},
};

/// Rows of a table, and the digest of their lines in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sum {
    pub rows: u64,
    pub sha256: String,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows (SHA-256 {})", self.rows, self.sha256.get(..16).unwrap_or(&self.sha256))
    }
}

/// All tables.
pub(super) type Sums = BTreeMap<String, Sum>;

/// Counts records as they pass.
#[derive(Default)]
pub(super) struct Tally {
    tables: BTreeMap<&'static str, (u64, Sha256)>,
    line: Vec<u8>,
}

impl Tally {
    /// Takes a record in; its line.
    pub fn add(&mut self, record: &Record) -> Result<&[u8], TransferError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record).map_err(|error| TransferError::Invalid(error.to_string()))?;
        self.line.push(b'\n');
        let (rows, digest) = self.tables.entry(record.table().name()).or_default();
        *rows += 1;
        digest.update(&self.line);
        Ok(&self.line)
    }

    pub fn sums(&self) -> Sums {
        let sum = |table: Table| {
            let (rows, digest) = self.tables.get(table.name()).cloned().unwrap_or_default();
            let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            (table.name().to_owned(), Sum { rows, sha256 })
        };
        Table::ALL.into_iter().map(sum).collect()
    }
}

/// Fails at the first table in which the two differ.
pub(super) fn compare(wrote: &Sums, found: &Sums) -> Result<(), TransferError> {
    for table in Table::ALL.map(Table::name) {
        let [wrote, found] = [wrote, found].map(|sums| sums.get(table));
        if wrote != found {
            let [wrote, found] = [wrote, found].map(|sum| sum.map_or_else(|| "no rows".to_owned(), Sum::to_string));
            return Err(TransferError::Different { table, wrote, found });
        }
    }
    Ok(())
}
