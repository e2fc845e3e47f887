//! Reading: conditions with numbered parameters.

use belfry_core::limits;
use tokio_postgres::types::ToSql;

use super::link::{Link, Param};
use crate::{engine::Result, queries::ObjectFilter};

/// Conditions and their parameters, in order. In a condition each `?` stands for the next parameter.
#[derive(Default)]
pub(super) struct Where {
    terms: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync>>,
}

impl Where {
    pub fn push<const N: usize>(&mut self, term: &str, values: [Box<dyn ToSql + Sync>; N]) {
        let numbered = self.bind(term, values);
        self.terms.push(numbered);
    }

    /// Takes the parameters of a condition that is used elsewhere, and numbers them.
    pub fn bind<const N: usize>(&mut self, term: &str, values: [Box<dyn ToSql + Sync>; N]) -> String {
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
        self.values.extend(values);
        numbered
    }

    /// The parameter that was taken last.
    pub fn last(&self) -> String {
        format!("${}", self.values.len())
    }

    /// A condition for one of these numbers. An index has the rows of a single one in order.
    pub fn bind_among(&mut self, column: &str, ids: &[i64]) -> String {
        match ids {
            [id] => self.bind(&format!("{column} = ?"), [Box::new(*id)]),
            ids => self.bind(&format!("{column} = ANY(?)"), [Box::new(ids.to_vec())]),
        }
    }

    pub fn is(&mut self, column: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.push(&format!("{column} = ?"), [Box::new(value)]);
        }
    }

    /// Of the rows of the objects themselves.
    pub fn object_fields(&mut self, filter: &ObjectFilter) {
        for (field, value) in fields(filter) {
            if let Some(value) = value {
                self.push(&format!("{field} = ?"), [text(value)]);
            }
        }
    }

    /// One of these numbers, if any are asked for. They are found first, for then the planner knows how few rows have them.
    pub fn among(&mut self, column: &str, ids: Option<&[i64]>) {
        if let Some(ids) = ids {
            let among = self.bind_among(column, ids);
            self.terms.push(among);
        }
    }

    pub fn sql(&self) -> String {
        if self.terms.is_empty() { String::new() } else { format!(" WHERE {}", self.terms.join(" AND ")) }
    }

    /// The same with one more condition.
    pub fn sql_and(&self, term: &str) -> String {
        let terms = self.terms.iter().map(String::as_str).chain([term]);
        format!(" WHERE {}", terms.collect::<Vec<_>>().join(" AND "))
    }

    pub fn params(&self) -> Vec<Param<'_>> {
        self.values.iter().map(|value| &**value as Param<'_>).collect()
    }
}

/// The numbers of configuration objects of a kind, if something is asked of them.
pub(super) fn configs(
    link: &mut Link,
    kind: &str,
    namespace: Option<&String>,
    name: Option<&String>,
) -> Result<Option<Vec<i64>>> {
    ids(link, "config", &[("namespace", namespace), ("name", name)], &format!("kind = '{kind}'"))
}

/// The numbers of objects, if something is asked of them.
pub(super) fn objects(link: &mut Link, filter: &ObjectFilter) -> Result<Option<Vec<i64>>> {
    ids(link, "object", &fields(filter), "TRUE")
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

fn ids(link: &mut Link, table: &str, named: &[(&str, Option<&String>)], fixed: &str) -> Result<Option<Vec<i64>>> {
    let mut filter = Where::default();
    for (field, value) in named {
        if let Some(value) = value {
            filter.push(&format!("{field} = ?"), [text(value)]);
        }
    }
    if filter.terms.is_empty() {
        return Ok(None);
    }
    let sql = format!("SELECT id FROM {table}{} AND {fixed}", filter.sql());
    Ok(Some(link.query(&sql, &filter.params())?.iter().map(|row| row.get(0)).collect()))
}

/// What can't be stored can't be found either, and would be an error.
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
        filter.among("o", Some(&[3, 4]));
        filter.among("p", None);
        filter.among("q", Some(&[6]));
        filter.is("c", Some(5));
        let sql = " WHERE a BETWEEN $1 AND $2 OR b AND o = ANY($3) AND q = $4 AND c = $5";
        assert_eq!((&*filter.sql(), filter.params().len()), (sql, 5));
    }
}
