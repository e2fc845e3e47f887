//! Looking for rows in the order of their numbers: along the whole log, or by an index that leads to fewer of them, and never
//! without an end. What a page has not come to yet is for the next one.

use belfry_core::limits;

use super::{filter::Where, link::Link, partition::DAY};
use crate::engine::Result;

/// Who asks for what is rare and has no index gets a page that ends early.
const LOOKS: i64 = limits::LOOKED_AT as i64;
/// Rows of the log that are looked at before an index is asked under many keys: what is common is soon found there.
pub(super) const TRIAL: i64 = 2_000;
/// So few keys that an index is asked at once.
pub(super) const FEW: usize = 16;
/// So many that looking each of them up takes longer than a page may.
pub(super) const MANY: usize = 4_000;
/// Rows that the first statement looks at, at least; the next one at more.
const STEP: i64 = 64;
/// Looking a row up that an index leads to takes as long as reading so many of the log.
const DEAR: i64 = 5;
/// Days after which the rest is looked at as one.
const DAYS: i64 = 64;

/// Numbers between two others, neither of which is among them, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub after: i64,
    pub before: i64,
    pub ascending: bool,
}

impl Span {
    fn is_empty(self) -> bool {
        self.after >= self.before.saturating_sub(1)
    }

    /// What of it comes behind this number.
    fn behind(self, number: i64) -> Self {
        if self.ascending { Self { after: number, ..self } } else { Self { before: number, ..self } }
    }

    /// Its first part: up to the end of the day, and of so many before or after. Planning takes its time for each partition, and what
    /// an index has by key is sorted: a few partitions and a few rows at a time.
    fn part(self, days: i64) -> Self {
        if days > DAYS {
            return self;
        }
        if self.ascending {
            let first = self.after.saturating_add(1).div_euclid(DAY);
            Self { before: self.before.min((first + days).saturating_mul(DAY)), ..self }
        } else {
            let last = self.before.saturating_sub(1).div_euclid(DAY);
            Self { after: self.after.max((last + 1 - days).saturating_mul(DAY).saturating_sub(1)), ..self }
        }
    }

    /// What is left of it without its first part.
    fn without(self, part: Self) -> Self {
        if self.ascending {
            self.behind(part.before.saturating_sub(1))
        } else {
            self.behind(part.after.saturating_add(1))
        }
    }
}

/// How to come by rows.
#[derive(Clone)]
pub(super) enum Way {
    /// One after the other, until so many were looked at.
    Log(i64),
    /// Those for which an index has this condition, with its parameters numbered.
    Keys(String),
    /// The same where it takes no looking through days: there are few.
    Few(String),
    /// Those of many objects, in an array: each is looked up, for the planner would sooner read all that others have.
    Each(String),
}

/// Which rows, of what.
pub(super) struct Search {
    pub table: &'static str,
    /// The column of their numbers.
    pub number: &'static str,
    /// Those that the filter names.
    pub columns: &'static str,
    /// What is asked of rows, and all parameters.
    pub filter: Where,
    /// Each of them goes on where the one before stopped, and the last leads to the end.
    pub ways: Vec<Way>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub numbers: Vec<i64>,
    /// How far was looked, if not to the end.
    pub at: Option<i64>,
}

impl Search {
    /// The first so many in this span.
    pub fn first(&self, link: &mut Link, mut span: Span, wanted: usize) -> Result<Found> {
        let mut found = Found::default();
        let mut left = LOOKS;
        for way in &self.ways {
            let first = STEP.max(wanted as i64);
            let (mut days, mut step) = (1, first);
            let cost = if matches!(way, Way::Log(_)) { 1 } else { DEAR };
            let mut trial = if let Way::Log(most) = way { *most } else { LOOKS };
            loop {
                let part = if matches!(way, Way::Few(_)) { span } else { span.part(days) };
                let most = step.min(left / cost).min(trial);
                let sql = self.statement(way, part, most, wanted - found.numbers.len());
                let rows = link.query_once(&sql, &self.filter.params())?;
                let Some(row) = rows.first() else { break };
                found.numbers.extend(row.get::<_, Vec<i64>>(0));
                let (looked, last): (i64, Option<i64>) = (row.get(1), row.get(2));
                (left, trial) = (left - looked * cost, trial - looked);
                found.at = last.or(found.at);
                if found.numbers.len() >= wanted || (looked == most && left < cost) {
                    return Ok(found);
                }
                match last {
                    Some(last) if looked == most => {
                        span = span.behind(last);
                        step *= 4;
                    }
                    _ => {
                        span = span.without(part);
                        days *= 4;
                        step = first;
                    }
                }
                if span.is_empty() {
                    return Ok(Found { at: None, ..found });
                }
                if trial == 0 {
                    break;
                }
            }
        }
        Ok(Found { at: None, ..found })
    }

    /// Finds some, and says how many rows were looked at, and which was the last.
    fn statement(&self, way: &Way, span: Span, most: i64, wanted: usize) -> String {
        let Self { table, number, columns, filter, .. } = self;
        let (order, last) = if span.ascending { ("ASC", "max") } else { ("DESC", "min") };
        // From the first one on, so that no partition before it is looked at.
        let bounds = format!("{number} >= {} AND {number} < {}", span.after.max(-i64::MAX) + 1, span.before);
        // Looked up one by one, whatever the planner thinks of that.
        let looked_up = || {
            format!(
                "SELECT n FROM s CROSS JOIN LATERAL (SELECT FROM {table}{} LIMIT 1) t ORDER BY n {order} LIMIT {wanted}",
                filter.sql_and(&format!("{number} = n AND {bounds}"))
            )
        };
        let (candidates, wanted) = match way {
            Way::Log(_) => (
                format!(
                    "SELECT {number} AS n, {columns} FROM {table} WHERE {bounds} ORDER BY {number} {order} LIMIT {most}"
                ),
                format!("SELECT n FROM s{} ORDER BY n {order} LIMIT {wanted}", filter.sql()),
            ),
            Way::Keys(keys) | Way::Few(keys) => (
                format!(
                    "SELECT {number} AS n FROM {table} WHERE {keys} AND {bounds} ORDER BY {number} {order} LIMIT {most}"
                ),
                looked_up(),
            ),
            Way::Each(objects) => (
                format!(
                    "SELECT n FROM unnest({objects}) o(id) CROSS JOIN LATERAL (
                         SELECT {number} AS n FROM {table} WHERE object = o.id AND {bounds} ORDER BY {number} {order} LIMIT {most}) t
                     ORDER BY n {order} LIMIT {most}"
                ),
                looked_up(),
            ),
        };
        format!(
            "WITH s AS MATERIALIZED ({candidates}) SELECT ARRAY({wanted}), (SELECT count(*) FROM s), (SELECT {last}(n) FROM s)"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_the_whole(after in -2 * DAY..400 * DAY, length in 0..400 * DAY, ascending: bool) {
            let whole = Span { after, before: after.saturating_add(length), ascending };
            let (mut rest, mut days, mut covered) = (whole, 1, 0);
            while !rest.is_empty() {
                let part = rest.part(days);
                prop_assert!(part.after >= rest.after && part.before <= rest.before && !part.is_empty());
                let (edge, end) = if ascending { (part.after, rest.after) } else { (part.before, rest.before) };
                prop_assert_eq!(edge, end, "it begins where the last one ended");
                covered += part.before - part.after - 1;
                rest = rest.without(part);
                days *= 2;
            }
            prop_assert_eq!(covered, (length - 1).max(0));
            prop_assert!(days < 1 << 10, "few parts, however long it is");
        }
    }

    #[test]
    fn all_ways_lead_to_the_same() {
        let Some(server) = testkit::Postgres::shared() else { return testkit::skip("PostgreSQL is missing") };
        let name = server.database().unwrap();
        let database = crate::Database::at(&server.url(&name));
        drop(crate::postgres::open(&database, &crate::Options::default()).unwrap());
        let mut link = Link::open(&database).unwrap();
        let rollouts = format!(
            "INSERT INTO rollout(id, object, rev, revision, state, started, attempts, reason, message, last_event)
             SELECT n * {}, n * n % 29, 1, 'r', 1 + n % 4, n, 1, 'r', '', n FROM generate_series(1, 900) n",
            DAY / 7
        );
        link.query_once(&rollouts, &[]).unwrap();
        let objects = "ARRAY[1, 4, 5, 6, 7, 9, 13, 28]::INT8[]";
        let ways = [
            vec![Way::Log(i64::MAX)],
            vec![Way::Keys(format!("object = ANY({objects})"))],
            vec![Way::Few(format!("object = ANY({objects})"))],
            vec![Way::Each(objects.to_owned())],
            vec![Way::Log(50), Way::Each(objects.to_owned())],
        ];
        for (after, before, ascending, wanted) in [
            (i64::MIN, i64::MAX, false, 1000),
            (i64::MIN, i64::MAX, true, 7),
            (9 * DAY, 70 * DAY, false, 100),
            (0, DAY, true, 3),
        ] {
            let found = ways.iter().map(|ways| {
                let mut filter = Where::default();
                filter.push(&format!("object = ANY({objects})"), []);
                filter.push("state = 3", []);
                let search =
                    Search { table: "rollout", number: "id", columns: "object, state", filter, ways: ways.clone() };
                search.first(&mut link, Span { after, before, ascending }, wanted).unwrap().numbers
            });
            let found: Vec<Vec<i64>> = found.collect();
            assert!(!found[0].is_empty() && found.iter().all(|numbers| *numbers == found[0]), "{found:?}");
        }
        drop(link);
        server.remove_database(&name).unwrap();
    }

    #[test]
    fn what_is_open_at_its_ends_has_parts_too() {
        let all = Span { after: i64::MIN, before: i64::MAX, ascending: false };
        let part = all.part(1);
        assert!(!part.is_empty() && part.before == i64::MAX && !all.without(part).is_empty());
        assert_eq!(all.part(DAYS * 2), all);
    }
}
