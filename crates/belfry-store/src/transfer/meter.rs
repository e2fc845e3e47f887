//! How far it is, told now and then.

use std::collections::BTreeMap;

use super::record::Table;

/// Rows after which progress is told.
const TOLD: u64 = 1000;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are written.
    Writing,
    /// What was written is read again.
    Verifying,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// With the rows of this table.
    pub table: &'static str,
    /// Rows of it so far.
    pub rows: u64,
    /// Rows of it in all, as far as known.
    pub total: Option<u64>,
    /// These were the last of it.
    pub done: bool,
}

/// Is told how far it is.
pub type Watch<'a> = dyn FnMut(Progress) + Send + 'a;

/// Counts rows as they pass.
pub(super) struct Meter<'a, 'w> {
    watch: &'a mut Watch<'w>,
    totals: &'a BTreeMap<String, u64>,
    stage: Stage,
    now: Option<(Table, u64)>,
}

impl<'a, 'w> Meter<'a, 'w> {
    pub fn new(watch: &'a mut Watch<'w>, totals: &'a BTreeMap<String, u64>) -> Self {
        Self { watch, totals, stage: Stage::Writing, now: None }
    }

    pub fn count(&mut self, table: Table) {
        let rows = match self.now {
            Some((of, rows)) if of == table => rows + 1,
            _ => {
                self.tell(true);
                1
            }
        };
        self.now = Some((table, rows));
        if rows % TOLD == 0 {
            self.tell(false);
        }
    }

    /// All rows of a stage were counted; another one follows.
    pub fn go_on(&mut self, stage: Stage) {
        self.tell(true);
        self.now = None;
        self.stage = stage;
    }

    /// All rows were counted.
    pub fn end(mut self) {
        self.tell(true);
    }

    fn tell(&mut self, done: bool) {
        if let Some((table, rows)) = self.now {
            let total = self.totals.get(table.name()).copied();
            (self.watch)(Progress { stage: self.stage, table: table.name(), rows, total, done });
        }
    }
}
