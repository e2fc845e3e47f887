//! Reading: conditions with numbered parameters.

use belfry_core::{Time, limits};
use tokio_postgres::types::ToSql;

use super::link::Param;
use crate::queries::ObjectFilter;

/// Conditions and their parameters, in order. In a condition each `?` stands for the next parameter.
#[derive(Default)]
pub(super) struct Where {
    terms: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync>>,
}

impl Where {
    pub fn push<const N: usize>(&mut self, term: &str, values: [Box<dyn ToSql + Sync>; N]) {
        let mut numbered = String::with_capacity(term.len() + 8);
        let mut next = self.values.len();
        for part in term.split_inclusive('?') {
            match part.strip_suffix('?') {
                Some(text) => {
                    next += 1;
                    numbered.push_str(&format!("{text}${next}"));
                }
                None => numbered.push_str(part),
            }
        }
        self.terms.push(numbered);
        self.values.extend(values);
    }

    pub fn is(&mut self, column: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.push(&format!("{column} = ?"), [Box::new(value)]);
        }
    }

    pub fn since_until(&mut self, column: &str, since: Option<Time>, until: Option<Time>, cursor: Option<i64>) {
        if let Some(since) = since {
            self.push(&format!("{column} >= ?"), [Box::new(since.0)]);
        }
        if let Some(until) = until {
            self.push(&format!("{column} < ?"), [Box::new(until.0)]);
        }
        if let Some(cursor) = cursor {
            self.push(&format!("{column} < ?"), [Box::new(cursor)]);
        }
    }

    pub fn config(&mut self, column: &str, kind: &str, namespace: Option<&String>, name: Option<&String>) {
        self.select(column, "config", &[("namespace", namespace), ("name", name)], &format!(" AND kind = '{kind}'"));
    }

    pub fn objects(&mut self, column: &str, filter: &ObjectFilter) {
        self.select(column, "object", &fields(filter), "");
    }

    /// The same of the rows of the objects themselves.
    pub fn object_fields(&mut self, filter: &ObjectFilter) {
        for (field, value) in fields(filter) {
            if let Some(value) = value {
                self.push(&format!("{field} = ?"), [text(value)]);
            }
        }
    }

    /// `column IN (SELECT id FROM table WHERE …)`, if any of `named` is given. As an array, so that the planner knows that it
    /// need not look at every row to find these.
    fn select(&mut self, column: &str, table: &str, named: &[(&str, Option<&String>)], more: &str) {
        let given: Vec<_> = named.iter().filter_map(|(field, value)| Some((field, (*value)?.clone()))).collect();
        if given.is_empty() {
            return;
        }
        let first = self.values.len() + 1;
        let terms: Vec<String> = given.iter().zip(first..).map(|((field, _), n)| format!("{field} = ${n}")).collect();
        self.terms.push(format!("{column} = ANY(ARRAY(SELECT id FROM {table} WHERE {}{more}))", terms.join(" AND ")));
        for (_, value) in given {
            // What can't be stored can't be found either, and would be an error.
            self.values.push(Box::new(value.replace('\0', "\u{fffd}")));
        }
    }

    pub fn sql(&self) -> String {
        if self.terms.is_empty() { String::new() } else { format!(" WHERE {}", self.terms.join(" AND ")) }
    }

    pub fn params(&self) -> Vec<Param<'_>> {
        self.values.iter().map(|value| &**value as Param<'_>).collect()
    }
}

fn fields(filter: &ObjectFilter) -> [(&'static str, Option<&String>); 5] {
    [
        ("name", filter.name.as_ref()),
        ("namespace", filter.namespace.as_ref()),
        ("kind", filter.kind.as_ref()),
        ("cluster", filter.cluster.as_ref()),
        ("api_group", filter.group.as_ref()),
    ]
}

pub(super) fn text(value: &str) -> Box<dyn ToSql + Sync> {
    Box::new(value.replace('\0', "\u{fffd}"))
}

pub(super) fn page_size(limit: u32) -> usize {
    (if limit == 0 { limits::PAGE } else { limit.min(limits::PAGE) }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_in_their_order() {
        let mut filter = Where::default();
        filter.push("a BETWEEN ? AND ? OR b", [Box::new(1i64), Box::new(2i64)]);
        let named = ObjectFilter { kind: Some("K".into()), name: Some("n".into()), ..ObjectFilter::default() };
        filter.objects("o", &named);
        filter.is("c", Some(5));
        let sql = " WHERE a BETWEEN $1 AND $2 OR b AND o = ANY(ARRAY(SELECT id FROM object WHERE name = $3 AND kind = $4)) AND c = $5";
        assert_eq!((&*filter.sql(), filter.params().len()), (sql, 5));
    }
}
