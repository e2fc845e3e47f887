//! Looking for rows in the order of their numbers: along the whole log, or by an index that leads to fewer of them, and never
//! without an end. What a page has not come to yet is for the next one.

use std::collections::{BinaryHeap, VecDeque};

use belfry_core::limits;
use rusqlite::{CachedStatement, Connection, Row, types::Value};

use crate::{engine::Result, queries::Page};

/// Who asks for what is rare and has no index gets a page that ends early.
pub(super) const LOOKS: usize = limits::LOOKED_AT;
/// Rows of the log that are looked at before an index is asked under many keys: what is common is soon found there.
pub(super) const TRIAL: usize = 2_000;
/// So few keys that an index is asked at once.
pub(super) const FEW: usize = 16;
/// So many that looking each of them up takes longer than a page may.
pub(super) const MANY: usize = 4_000;

/// Numbers between two others, neither of which is among them, and their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub after: i64,
    pub before: i64,
    pub ascending: bool,
}

impl Span {
    pub fn order(self) -> &'static str {
        if self.ascending { "ASC" } else { "DESC" }
    }

    pub fn has(self, number: i64) -> bool {
        self.after < number && number < self.before
    }

    /// What of it comes behind this number.
    #[must_use]
    pub fn behind(self, number: i64) -> Self {
        if self.ascending { Self { after: number, ..self } } else { Self { before: number, ..self } }
    }
}

/// The numbers that an index has under several keys, merged.
pub(super) struct Merge<'c> {
    statement: CachedStatement<'c>,
    ascending: bool,
    keys: Vec<Key>,
    /// The next number of each key, and which key that is; descending numbers as they are, ascending ones negated.
    next: BinaryHeap<(i64, usize)>,
}

struct Key {
    key: Value,
    read: VecDeque<i64>,
    /// What is still to be read.
    left: Option<Span>,
    /// How many are read at a time: more each time.
    step: usize,
}

impl<'c> Merge<'c> {
    /// Of a statement that takes a key, two bounds and a limit, and whose order is still to be filled in for `{}`.
    pub fn new(connection: &'c Connection, sql: &str, keys: Vec<Value>, span: Span) -> Result<Self> {
        let statement = connection.prepare_cached(&sql.replace("{}", span.order()))?;
        let step = (1_024 / keys.len().max(1)).clamp(8, 512);
        let keys = keys.into_iter().map(|key| Key { key, read: VecDeque::new(), left: Some(span), step });
        let mut merge = Self { statement, ascending: span.ascending, keys: keys.collect(), next: BinaryHeap::new() };
        for at in 0..merge.keys.len() {
            merge.advance(at)?;
        }
        Ok(merge)
    }

    /// The next number.
    pub fn next(&mut self) -> Result<Option<i64>> {
        let Some((number, at)) = self.next.pop() else { return Ok(None) };
        self.advance(at)?;
        Ok(Some(if self.ascending { -number } else { number }))
    }

    fn advance(&mut self, at: usize) -> Result<()> {
        let Some(key) = self.keys.get_mut(at) else { return Ok(()) };
        if key.read.is_empty()
            && let Some(span) = key.left
        {
            let mut rows = self.statement.query((&key.key, span.after, span.before, key.step as i64))?;
            while let Some(row) = rows.next()? {
                key.read.push_back(row.get(0)?);
            }
            key.left = key.read.back().filter(|_| key.read.len() == key.step).map(|last| span.behind(*last));
            key.step = (key.step * 2).min(512);
        }
        if let Some(number) = key.read.pop_front() {
            self.next.push((if self.ascending { -number } else { number }, at));
        }
        Ok(())
    }
}

/// A page while it is filled.
pub(super) struct Pager<T> {
    items: Vec<T>,
    limit: usize,
    bytes: usize,
    most_bytes: usize,
    left: usize,
    /// There is one more than fits.
    full: bool,
    /// The last number that was looked at.
    at: Option<i64>,
}

impl<T> Pager<T> {
    /// One of so many items, or so many bytes and one more.
    pub fn new(limit: usize, most_bytes: usize) -> Self {
        Self { items: Vec::new(), limit, bytes: 0, most_bytes, left: LOOKS, full: false, at: None }
    }

    /// Whether it takes a look at one more row.
    pub fn goes_on(&self) -> bool {
        !self.full && self.left > 0
    }

    /// Looks at the row with this number, which may be one that is wanted: then with its bytes.
    pub fn look(&mut self, number: i64, item: Option<(T, usize)>) {
        if let Some((item, bytes)) = item {
            if self.items.len() == self.limit || self.bytes >= self.most_bytes {
                self.full = true;
                return;
            }
            self.bytes += bytes;
            self.items.push(item);
        }
        self.at = Some(number);
        self.left -= 1;
    }

    /// What was found; the next page goes on where this one ended, unless all was looked at.
    pub fn page(self) -> Page<T> {
        let next = if self.goes_on() { None } else { self.at };
        Page { items: self.items, next }
    }
}

/// How to come by rows.
pub(super) enum Way {
    /// One after the other, until so many were looked at.
    Log(usize),
    /// By an index: a statement for a [`Merge`], and the keys.
    Keys(&'static str, Vec<Value>),
    /// Those of these that are not behind yet; they are in order.
    Numbers(Vec<i64>),
}

impl Way {
    /// By an index, under these numbers.
    pub fn keys(sql: &'static str, numbers: &[i64]) -> Self {
        Self::Keys(sql, numbers.iter().map(|number| Value::from(*number)).collect())
    }
}

/// Fills a page along one way after the other, each of which goes on where the one before stopped, and the last of which leads to
/// the end. `select` is a statement up to its conditions, `number` its column of numbers, which is the first; `look` says what
/// of a row is wanted, and how many bytes that has.
pub(super) fn fill<T>(
    connection: &Connection,
    (select, number): (&str, &str),
    ways: Vec<Way>,
    mut span: Span,
    mut page: Pager<T>,
    mut look: impl FnMut(&Row<'_>) -> Result<Option<(T, usize)>>,
) -> Result<Page<T>> {
    let mut one = connection.prepare_cached(&format!("{select} WHERE {number} = ?1"))?;
    for way in ways {
        span = page.at.map_or(span, |at| span.behind(at));
        let mut candidates: Box<dyn FnMut() -> Result<Option<i64>>> = match way {
            Way::Log(most) => {
                let order = span.order();
                let sql = format!("{select} WHERE {number} > ?1 AND {number} < ?2 ORDER BY {number} {order}");
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = statement.query([span.after, span.before])?;
                while page.goes_on() && LOOKS - page.left < most {
                    let Some(row) = rows.next()? else { return Ok(page.page()) };
                    page.look(row.get(0)?, look(row)?);
                }
                continue;
            }
            Way::Keys(sql, keys) => {
                let mut merge = Merge::new(connection, sql, keys, span)?;
                Box::new(move || merge.next())
            }
            Way::Numbers(numbers) => {
                let mut numbers = numbers.into_iter().filter(move |number| span.has(*number));
                Box::new(move || Ok(numbers.next()))
            }
        };
        while page.goes_on()
            && let Some(number) = candidates()?
        {
            let mut rows = one.query([number])?;
            if let Some(row) = rows.next()? {
                page.look(number, look(row)?);
            }
        }
    }
    Ok(page.page())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SQL: &str = "SELECT n FROM t WHERE k = ?1 AND n > ?2 AND n < ?3 ORDER BY n {} LIMIT ?4";

    fn table(rows: &[(i64, i64)]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(k INTEGER, n INTEGER); CREATE INDEX t_k ON t(k, n)").unwrap();
        for row in rows {
            connection.execute("INSERT INTO t VALUES(?1, ?2)", *row).unwrap();
        }
        connection
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_merge_is_what_sorting_gives(
            numbers in proptest::collection::btree_map(0i64..3_000, 0i64..6, 0..400),
            keys in proptest::collection::btree_set(0i64..8, 0..6),
            (after, before) in (-1i64..3_000, -1i64..3_001),
            ascending: bool,
        ) {
            let connection = table(&numbers.iter().map(|(number, key)| (*key, *number)).collect::<Vec<_>>());
            let span = Span { after, before, ascending };
            let mut merge = Merge::new(&connection, SQL, keys.iter().map(|key| Value::from(*key)).collect(), span).unwrap();
            let mut found = Vec::new();
            while let Some(number) = merge.next().unwrap() {
                found.push(number);
            }
            let mut expected: Vec<i64> = numbers
                .iter()
                .filter(|(number, key)| keys.contains(key) && (after + 1..before).contains(number))
                .map(|(number, _)| *number)
                .collect();
            if !ascending {
                expected.reverse();
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_key_is_read_on_however_much_it_has() {
        let connection = table(&(0..5_000).map(|n| (n % 2, n)).collect::<Vec<_>>());
        let span = Span { after: -1, before: 5_000, ascending: false };
        let mut merge = Merge::new(&connection, SQL, vec![1.into(), 0.into()], span).unwrap();
        for expected in (0..5_000).rev() {
            assert_eq!(merge.next().unwrap(), Some(expected));
        }
        assert_eq!(merge.next().unwrap(), None);
    }

    #[test]
    fn a_page_ends_when_it_is_full_or_enough_was_looked_at() {
        let mut full = Pager::new(2, usize::MAX);
        (0..4).rev().for_each(|n| full.look(n, (n != 2).then_some((n, 1))));
        assert_eq!(full.page(), Page { items: vec![3, 1], next: Some(1) });
        let mut last = Pager::new(2, usize::MAX);
        (0..3).rev().for_each(|n| last.look(n, (n != 0).then_some((n, 1))));
        assert_eq!(last.page(), Page { items: vec![2, 1], next: None }, "all was looked at");
        let mut large = Pager::new(9, 10);
        (0..3).rev().for_each(|n| large.look(n, Some((n, 10))));
        assert_eq!(large.page(), Page { items: vec![2], next: Some(2) });
        let mut blank = Pager::<i64>::new(2, usize::MAX);
        let mut number = 0;
        while blank.goes_on() {
            number -= 1;
            blank.look(number, None);
        }
        assert_eq!(blank.page(), Page { items: vec![], next: Some(-(LOOKS as i64)) });
    }
}
