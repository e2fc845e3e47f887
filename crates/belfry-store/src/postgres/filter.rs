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

    /// Takes numbers of which one is asked for.
    pub fn bind_among(&mut self, column: &'static str, ids: &[i64]) -> Among {
        match ids {
            [id] => self.values.push(Box::new(*id)),
            ids => self.values.push(Box::new(ids.to_vec())),
        }
        Among { column, param: format!("${}", self.values.len()), one: ids.len() == 1 }
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

    /// One of these numbers, if any are asked for.
    pub fn among(&mut self, column: &'static str, ids: Option<&[i64]>) {
        if let Some(ids) = ids {
            let among = self.bind_among(column, ids);
            self.terms.push(among.rows());
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

/// Numbers of which a column has one; they are found before they are asked for, for then the planner knows how many they are.
pub(super) struct Among {
    column: &'static str,
    param: String,
    one: bool,
}

impl Among {
    /// The condition for an index, which has the rows of a single number in order.
    pub fn keys(&self) -> String {
        let Self { column, param, one } = self;
        if *one { format!("{column} = {param}") } else { format!("{column} = ANY({param})") }
    }

    /// The condition for rows that are found some other way. Not an array, for of that the planner looks up in its statistics how common each
    /// number is, partition by partition: milliseconds for each statement where there are thousands.
    pub fn rows(&self) -> String {
        let Self { column, param, one } = self;
        if *one { self.keys() } else { format!("({column} IN (SELECT unnest({param}::INT8[]))) IS TRUE") }
    }

    /// The numbers as an array.
    pub fn array(&self) -> String {
        let Self { param, one, .. } = self;
        if *one { format!("ARRAY[{param}::INT8]") } else { format!("{param}::INT8[]") }
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
        let sql =
            " WHERE a BETWEEN $1 AND $2 OR b AND (o IN (SELECT unnest($3::INT8[]))) IS TRUE AND q = $4 AND c = $5";
        assert_eq!((&*filter.sql(), filter.params().len()), (sql, 5));
    }
}
