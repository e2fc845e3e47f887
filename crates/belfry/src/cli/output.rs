//! What the commands that list something have in common: forms of output, filters, pages.

use std::io::Write;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use super::{
    client::Remote,
    wait::text::{escaped, json, tame},
};

/// Items on a page; the server gives no more.
const PAGE: usize = 500;
/// Characters of a cell.
const CELL: usize = 100;

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs, one object a line.
    Ndjson,
}

/// Which objects.
#[derive(Debug, Args)]
pub(super) struct ObjectFlags {
    /// Only this object, each part possibly *
    #[arg(long, value_name = "KIND/NAMESPACE/NAME", conflicts_with_all = ["kind", "namespace", "name"])]
    object: Option<String>,
    /// Only objects of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only objects of this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only objects of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only objects of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
}

impl ObjectFlags {
    /// As query parameters.
    pub(super) fn filters(&self) -> [(&'static str, &Option<String>); 5] {
        [
            ("object", &self.object),
            ("kind", &self.kind),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("cluster", &self.cluster),
        ]
    }
}

/// Filters as a query, without those that aren't given.
pub(super) fn query(filters: &[(&str, &Option<String>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in filters {
        value.as_ref().map(|value| query.append_pair(name, value));
    }
    query.finish()
}

/// Items of a list, page by page, at most so many.
pub(super) async fn fetch(remote: &Remote, list: &str, query: &str, limit: usize) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    while items.len() < limit {
        let size = (limit - items.len()).min(PAGE);
        let mut page: Value = remote.ask(Method::GET, &format!("{list}?{query}&limit={size}{cursor}")).await?;
        if let Some(Value::Array(page)) = page.get_mut("items").map(Value::take) {
            items.extend(page);
        }
        match page.get("cursor") {
            Some(Value::Number(next)) => cursor = format!("&cursor={next}"),
            Some(Value::String(next)) => cursor = format!("&cursor={next}"),
            _ => break,
        }
    }
    Ok(items)
}

/// Prints a list.
pub(super) fn print<const N: usize>(
    out: &mut impl Write,
    output: Output,
    items: Vec<Value>,
    what: &str,
    header: [&str; N],
    row: impl Fn(&Value) -> [String; N],
) -> std::io::Result<()> {
    match output {
        Output::Json => writeln!(out, "{}", json(&Value::Array(items))),
        Output::Ndjson => items.iter().try_for_each(|item| writeln!(out, "{}", escaped(&item.to_string()))),
        Output::Table if items.is_empty() => writeln!(out, "no {what}"),
        Output::Table => print_table(out, header.map(str::to_owned), items.iter().map(row)),
    }
}

/// A field on one short line.
pub(super) fn text(of: &Value, key: &str) -> String {
    let text = match of.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    tame(&text).chars().take(CELL).collect()
}

/// The object of an item, and its cluster where that has a name.
pub(super) fn object(of: &Value) -> String {
    match text(of, "cluster") {
        cluster if cluster.is_empty() => text(of, "object"),
        cluster => format!("{cluster}: {}", text(of, "object")),
    }
}

/// A revision as people tell it: a branch or tag, and the beginning of a hash.
pub(super) fn short(revision: &str) -> String {
    let parsed = belfry_core::revision::Revision::parse(revision);
    match (parsed.pointer, parsed.whole_hash()) {
        (Some(pointer), Some(hash)) => format!("{pointer}@{}", &hash[..12]),
        (None, Some(hash)) => hash[..12].to_owned(),
        _ => revision.to_owned(),
    }
}

/// Columns as wide as they need to be, the last one as it is.
pub(super) fn print_table<const N: usize>(
    out: &mut impl Write,
    header: [String; N],
    rows: impl Iterator<Item = [String; N]>,
) -> std::io::Result<()> {
    let rows: Vec<[String; N]> = std::iter::once(header).chain(rows).collect();
    let widths: Vec<usize> =
        (0..N).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or_default()).collect();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn revisions_are_shortened_where_they_hold_a_hash() {
        let hash = "7d8b790e325ffa0885be99788a08f4ae67d382a5";
        for (whole, expected) in [
            (format!("main@sha1:{hash}"), "main@7d8b790e325f"),
            (format!("sha1:{hash}"), "7d8b790e325f"),
            ("6.5.0+1a2b3c4d5e6f".into(), "6.5.0+1a2b3c4d5e6f"),
            (String::new(), ""),
        ] {
            assert_eq!(short(&whole), expected);
        }
    }

    #[test]
    fn what_others_wrote_stays_on_its_line() {
        let item = json!({"message": "a\u{1b}[31m\nb", "n": 3, "cluster": "prod", "object": "K/n/a"});
        assert_eq!((text(&item, "message").as_str(), text(&item, "n").as_str()), ("a [31m b", "3"));
        assert_eq!(object(&item), "prod: K/n/a");
        let mut out = Vec::new();
        print(&mut out, Output::Ndjson, vec![item], "things", ["M"], |item| [text(item, "message")]).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.contains(r#""message":"a\u001b[31m\nb""#), "{printed}");
    }
}
