//! Indexes that are brought up in bulk.
//!
//! An entry belongs wherever its key says, so each event would have a page of every such index written that hardly another
//! event of its batch needs: that was half of what an append wrote. Entries are gathered instead, sorted, and put in a few with every commit,
//! many to a page. What came since is at the end of the log, where questions look for it: `indexed.upto` says where that begins.
//! Memory only knows what the database says: after a crash, or a transaction that came to nothing, it is read from there.

use std::collections::HashSet;

use belfry_core::Seq;
use rusqlite::Connection;

use super::read::all;
use crate::engine::{NewEvent, Result};

/// Entries that are gathered before they are sorted: of some 5,000 events, through whose numbers a question looks in a millisecond.
const RUN: usize = if cfg!(test) { 24 } else { 16_384 };
/// Entries that are put in for each one that is gathered: a run is in long before the next is full.
const PACE: usize = 2;
/// Entries that are put in with a commit at least.
const LEAST: usize = if cfg!(test) { 3 } else { 32 };

/// The tables that are indexes, in the order in which a run fills them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Index {
    EventObject,
    EventRev,
    RolloutRev,
}

impl Index {
    fn insert(self) -> &'static str {
        match self {
            Self::EventObject => "INSERT OR IGNORE INTO event_object(object, seq) VALUES(?1, ?2)",
            Self::EventRev => "INSERT OR IGNORE INTO event_rev(rev, seq) VALUES(?1, ?2)",
            // Rollouts learn of commits, and may be gone by now: what counts is what they are.
            Self::RolloutRev => {
                "INSERT OR IGNORE INTO rollout_rev(rev, id) SELECT rev, id FROM rollout WHERE id = ?2 AND ?1 IS NOT NULL"
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    index: Index,
    key: i64,
    number: i64,
}

/// What isn't indexed yet.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    gathered: Vec<Entry>,
    /// Sorted.
    run: Vec<Entry>,
    /// How much of the run is in.
    done: usize,
    /// All that is in the log up to here is indexed.
    indexed: Seq,
    /// The same, once the run is in.
    upto: Seq,
    /// Entries that this transaction gathered.
    new: usize,
}

impl Deferred {
    /// What the end of the log has.
    pub fn load(connection: &Connection) -> Result<Self> {
        let mut gathered = Vec::new();
        let sql = "SELECT object, rev, seq FROM event INDEXED BY event_recent WHERE seq > (SELECT upto FROM indexed)";
        for (object, rev, seq) in all(connection, sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
            of_event(object, rev, seq, &mut gathered);
        }
        let sql = "SELECT rev, id FROM rollout WHERE id > (SELECT upto FROM indexed)";
        let of_rollout = |(key, number)| Entry { index: Index::RolloutRev, key, number };
        gathered.extend(all(connection, sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().map(of_rollout));
        let indexed = connection.query_row("SELECT upto FROM indexed", [], |row| row.get(0).map(Seq))?;
        Ok(Self { gathered, indexed, ..Self::default() })
    }

    /// Gathers events that a batch adds.
    pub fn gather_events(&mut self, events: &[NewEvent<'_>]) {
        let before = self.gathered.len();
        for event in events {
            of_event(event.object, event.rev, event.seq.0, &mut self.gathered);
        }
        self.new += self.gathered.len() - before;
    }

    /// Gathers a rollout that began in this batch.
    pub fn gather_rollout(&mut self, id: Seq, rev: i64) {
        self.gathered.push(Entry { index: Index::RolloutRev, key: rev, number: id.0 });
        self.new += 1;
    }

    /// Puts some of it in, in the transaction that goes on.
    pub fn advance(&mut self, connection: &Connection) -> Result<()> {
        let some = (std::mem::take(&mut self.new) * PACE).max(LEAST);
        let next = &self.run[self.done..self.run.len().min(self.done + some)];
        for entries in next.chunk_by(|one, other| one.index == other.index) {
            let mut insert = connection.prepare_cached(entries[0].index.insert())?;
            for entry in entries {
                insert.execute([entry.key, entry.number])?;
            }
        }
        self.done += next.len();
        if !self.run.is_empty() && self.done == self.run.len() {
            connection.prepare_cached("UPDATE indexed SET upto = ?1")?.execute([self.upto.0])?;
            self.indexed = self.upto;
        }
        Ok(())
    }

    /// It is committed, and the log ends here.
    pub fn committed(&mut self, last: Seq) {
        if self.done == self.run.len() {
            self.run.clear();
            self.done = 0;
            if self.gathered.len() >= RUN {
                self.run = std::mem::take(&mut self.gathered);
                self.run.sort_unstable();
                self.upto = last;
            }
        }
    }

    /// Forgets events that are removed.
    pub fn forget(&mut self, events: &[Seq]) {
        let removed: HashSet<i64> = events.iter().filter(|seq| **seq > self.indexed).map(|seq| seq.0).collect();
        if removed.is_empty() {
            return;
        }
        let stays = |entry: &Entry| entry.index == Index::RolloutRev || !removed.contains(&entry.number);
        self.gathered.retain(stays);
        let left = self.run.split_off(self.done);
        self.run.extend(left.into_iter().filter(stays));
    }
}

/// Indexes a rollout that comes after the others of its time.
pub(super) fn index_rollout(connection: &Connection, id: Seq, rev: i64) -> Result<()> {
    connection.prepare_cached("INSERT OR IGNORE INTO rollout_rev(rev, id) VALUES(?1, ?2)")?.execute([rev, id.0])?;
    Ok(())
}

/// Indexes all that is in a database, in which nothing is indexed.
pub(super) fn index_all(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "INSERT INTO event_object SELECT object, seq FROM event INDEXED BY event_recent;
         INSERT INTO event_rev SELECT rev, seq FROM event INDEXED BY event_recent WHERE rev IS NOT NULL;
         INSERT INTO rollout_rev SELECT rev, id FROM rollout;
         UPDATE indexed SET upto = (SELECT max(last) FROM (
             SELECT max(seq) AS last FROM event UNION ALL SELECT max(id) FROM rollout UNION ALL SELECT 0))",
    )
}

fn of_event(object: i64, rev: Option<i64>, number: i64, gathered: &mut Vec<Entry>) {
    gathered.push(Entry { index: Index::EventObject, key: object, number });
    gathered.extend(rev.map(|key| Entry { index: Index::EventRev, key, number }));
}

#[cfg(test)]
mod tests;
