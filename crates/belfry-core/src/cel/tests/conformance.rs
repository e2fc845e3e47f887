//! The tables in `conformance/`: an expression, and indented under it its type and value, or why it has none. Types,
//! values, and which expressions are refused or fail, are those of cel-go 0.26 in the peer's environment, to which the
//! tables were compared line by line; `deviations.txt` has what differs, and why. The words are mostly our own.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{declared, variables};
use crate::cel::{
    ast::Node,
    check,
    eval::Evaluation,
    parse, position,
    types::Ty,
    value::{Key, Value},
};

/// How many expressions there are at least: an empty table tests nothing.
const EXPRESSIONS: usize = 1400;

#[test]
fn expressions_come_to_what_the_tables_say() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cel/tests/conformance");
    let mut count = 0;
    let mut wrong = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let table = fs::read_to_string(&path).unwrap();
        let mut ours = String::new();
        for line in table.lines().filter(|line| !line.starts_with("    ")) {
            let _ = writeln!(ours, "{line}");
            if !line.starts_with("# ") {
                count += 1;
                let _ = writeln!(ours, "    {}", outcome(line));
            }
        }
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &ours).unwrap();
        } else if ours != table {
            let pairs = ours.lines().zip(table.lines());
            let differ =
                pairs.filter(|(ours, table)| ours != table).map(|(a, b)| format!("  now    {a}\n  before {b}"));
            let differ: Vec<String> = differ.take(20).collect();
            let _ = writeln!(wrong, "{}:\n{}", path.display(), differ.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}If this is as it should be, run this test with UPDATE=1");
    assert!(count >= EXPRESSIONS, "{count}");
}

/// Type and value of an expression, or why it is refused, or why it fails.
fn outcome(expression: &str) -> String {
    let (ty, root) = match compiled(expression) {
        Ok(compiled) => compiled,
        Err(bad) => return format!("refused: {bad}"),
    };
    let values = variables().map(|(_, value)| value).to_vec();
    match Evaluation::new(values).eval(&root) {
        Ok(value) => format!("{ty}: {}", shown(&value)),
        Err(fault) => {
            let (line, column) = position(expression, fault.at.unwrap() as usize);
            format!("{ty}, fails: {line}:{column}: {}", fault.message)
        }
    }
}

fn compiled(expression: &str) -> Result<(Ty, Node), crate::cel::BadExpression> {
    let mut root = parse::parse(expression)?;
    let ty = check::check(expression, &mut root, &declared())?;
    Ok((ty, root))
}

/// A value so that its type can be seen.
fn shown(value: &Value) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => format!("{value}u"),
        Value::Double(value) => double(*value),
        Value::String(text) => serde_json::to_string(&**text).unwrap(),
        Value::Bytes(bytes) => {
            format!("b'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
        }
        Value::Timestamp(moment) => format!("timestamp({}Z)", moment.at),
        Value::Duration(nanos) => format!("duration({nanos}ns)"),
        Value::List(items) => format!("[{}]", list(items.iter().map(shown).collect())),
        Value::Map(entries) => {
            let mut entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{}: {}", key_shown(key), shown(value))).collect();
            entries.sort();
            format!("{{{}}}", list(entries))
        }
        Value::Optional(None) => "optional.none()".into(),
        Value::Optional(Some(value)) => format!("optional.of({})", shown(value)),
        Value::Type(name) => format!("type({name})"),
    }
}

fn key_shown(key: &Key) -> String {
    shown(&key.value())
}

fn double(value: f64) -> String {
    match value {
        value if value.is_nan() => "nan".into(),
        value if value.is_infinite() => if value > 0.0 { "+inf" } else { "-inf" }.into(),
        value if value == 0.0 || (1e-4..1e15).contains(&value.abs()) => format!("{value:?}"),
        value => format!("{value:e}"),
    }
}
