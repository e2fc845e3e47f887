//! Text. Places in it are counted in code points, as in the peer.

use super::{
    Function, Meter, Outcome, Run,
    Sig::{Bool, Dyn, Int, List, String},
    format, function, member, plain,
};
use crate::cel::{fault::Fault, value::Value};

pub(super) const TABLE: &[Function] = &[
    function("contains", &[member(&[String, String], Bool)], |meter, args| {
        texts(meter, args, |text, part| text.contains(part))
    }),
    function("startsWith", &[member(&[String, String], Bool)], |meter, args| {
        texts(meter, args, |text, part| text.starts_with(part))
    }),
    function("endsWith", &[member(&[String, String], Bool)], |meter, args| {
        texts(meter, args, |text, part| text.ends_with(part))
    }),
    Function {
        name: "matches",
        overloads: &[plain(&[String, String], Bool), member(&[String, String], Bool)],
        run: Run::Matches,
    },
    function("charAt", &[member(&[String, Int], String)], |meter, args| match args {
        [Value::String(text), Value::Int(at)] => {
            meter.read(text.len())?;
            let start = offset(text, *at)?;
            let end = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
            meter.text(&text[start..end])
        }
        _ => Err(Fault::no_overload()),
    }),
    function(
        "indexOf",
        &[member(&[String, String], Int), member(&[String, String, Int], Int)],
        |meter, args| match args {
            [Value::String(text), Value::String(part)] => index_of(meter, text, part, 0),
            [Value::String(text), Value::String(part), Value::Int(from)] => index_of(meter, text, part, *from),
            _ => Err(Fault::no_overload()),
        },
    ),
    function("lastIndexOf", &[member(&[String, String], Int), member(&[String, String, Int], Int)], |meter, args| {
        match args {
            [Value::String(text), Value::String(part)] => last_index_of(meter, text, part, None),
            [Value::String(text), Value::String(part), Value::Int(from)] => {
                last_index_of(meter, text, part, Some(*from))
            }
            _ => Err(Fault::no_overload()),
        }
    }),
    function("lowerAscii", &[member(&[String], String)], |meter, args| {
        changed(meter, args, |text| text.to_ascii_lowercase())
    }),
    function("upperAscii", &[member(&[String], String)], |meter, args| {
        changed(meter, args, |text| text.to_ascii_uppercase())
    }),
    function("reverse", &[member(&[String], String)], |meter, args| {
        changed(meter, args, |text| text.chars().rev().collect())
    }),
    function("trim", &[member(&[String], String)], |meter, args| changed(meter, args, |text| text.trim().to_owned())),
    function("strings.quote", &[plain(&[String], String)], |meter, args| {
        // Every character may take two.
        let [Value::String(text)] = args else { return Err(Fault::no_overload()) };
        meter.create(text.len() + 2)?;
        changed(meter, args, quote)
    }),
    function(
        "replace",
        &[member(&[String, String, String], String), member(&[String, String, String, Int], String)],
        |meter, args| match args {
            [Value::String(text), Value::String(old), Value::String(new)] => replace(meter, text, old, new, -1),
            [Value::String(text), Value::String(old), Value::String(new), Value::Int(times)] => {
                replace(meter, text, old, new, *times)
            }
            _ => Err(Fault::no_overload()),
        },
    ),
    function(
        "split",
        &[member(&[String, String], List(&String)), member(&[String, String, Int], List(&String))],
        |meter, args| match args {
            [Value::String(text), Value::String(by)] => split(meter, text, by, -1),
            [Value::String(text), Value::String(by), Value::Int(parts)] => split(meter, text, by, *parts),
            _ => Err(Fault::no_overload()),
        },
    ),
    function("substring", &[member(&[String, Int], String), member(&[String, Int, Int], String)], |meter, args| {
        match args {
            [Value::String(text), Value::Int(start)] => {
                meter.read(text.len())?;
                meter.text(&text[offset(text, *start)?..])
            }
            [Value::String(_), Value::Int(start), Value::Int(end)] if start > end => {
                Err(Fault::new(format!("invalid substring range. start: {start}, end: {end}")))
            }
            [Value::String(text), Value::Int(start), Value::Int(end)] => {
                meter.read(text.len())?;
                meter.text(&text[offset(text, *start)?..offset(text, *end)?])
            }
            _ => Err(Fault::no_overload()),
        }
    }),
    function("join", &[member(&[List(&String)], String), member(&[List(&String), String], String)], |meter, args| {
        match args {
            [Value::List(list)] => join(meter, list, ""),
            [Value::List(list), Value::String(between)] => join(meter, list, between),
            _ => Err(Fault::no_overload()),
        }
    }),
    function("format", &[member(&[String, List(&Dyn)], String)], |meter, args| match args {
        [Value::String(text), Value::List(list)] => format::format(meter, text, list),
        _ => Err(Fault::no_overload()),
    }),
];

fn texts(meter: &mut Meter, args: &[Value], holds: fn(&str, &str) -> bool) -> Outcome {
    let [Value::String(text), Value::String(part)] = args else { return Err(Fault::no_overload()) };
    meter.read(text.len().saturating_add(part.len()))?;
    Ok(Value::Bool(holds(text, part)))
}

fn changed(meter: &mut Meter, args: &[Value], change: fn(&str) -> std::string::String) -> Outcome {
    let [Value::String(text)] = args else { return Err(Fault::no_overload()) };
    meter.create(text.len())?;
    Ok(Value::from(change(text)))
}

/// The byte at which a code point begins; the place after the last one counts.
fn offset(text: &str, at: i64) -> Outcome<usize> {
    let mut starts = text.char_indices().map(|(start, _)| start).chain([text.len()]);
    usize::try_from(at)
        .ok()
        .and_then(|at| starts.nth(at))
        .ok_or_else(|| Fault::new(format!("index out of range: {at}")))
}

fn place(text: &str, byte: usize) -> Outcome {
    Ok(Value::Int(i64::try_from(text[..byte].chars().count()).unwrap_or(i64::MAX)))
}

fn index_of(meter: &mut Meter, text: &str, part: &str, from: i64) -> Outcome {
    meter.read(text.len().saturating_add(part.len()))?;
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return Err(Fault::new(format!("index out of range: {from}")));
    }
    let Ok(start) = offset(text, from) else { return Ok(Value::Int(-1)) };
    match text[start..].find(part) {
        Some(found) => place(text, start + found),
        None => Ok(Value::Int(-1)),
    }
}

/// The last place at or before `from` where the part begins.
fn last_index_of(meter: &mut Meter, text: &str, part: &str, from: Option<i64>) -> Outcome {
    meter.read(text.len().saturating_add(part.len()))?;
    if part.is_empty() {
        return from.map_or_else(|| place(text, text.len()), |from| Ok(Value::Int(from)));
    }
    let end = match from {
        None => text.len(),
        Some(from) if from < 0 => return Err(Fault::new(format!("index out of range: {from}"))),
        Some(from) => match offset(text, from) {
            Ok(start) if start < text.len() => start.saturating_add(part.len()),
            _ => return Ok(Value::Int(-1)),
        },
    };
    // The part begins at `from` at the latest, so that it ends at `end` at the latest.
    let end = (0..=end.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].rfind(part).map_or(Ok(Value::Int(-1)), |found| place(text, found))
}

/// Replaces so many occurrences, all of them when negative. An empty text occurs around every code point.
fn replace(meter: &mut Meter, text: &str, old: &str, new: &str, times: i64) -> Outcome {
    meter.read(text.len().saturating_add(old.len()))?;
    let limit = usize::try_from(times).unwrap_or(usize::MAX);
    let occurrences = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let occurrences = occurrences.min(limit);
    meter.create(text.len().saturating_add(occurrences.saturating_mul(new.len())))?;
    Ok(Value::from(text.replacen(old, new, limit)))
}

/// Splits into so many parts at most, as many as there are when negative.
fn split(meter: &mut Meter, text: &str, by: &str, parts: i64) -> Outcome {
    let limit = usize::try_from(parts).unwrap_or(usize::MAX);
    if limit == 0 {
        return Ok(Value::List([].into()));
    }
    meter.read(text.len().saturating_add(by.len()))?;
    let count = if by.is_empty() { text.chars().count() } else { text.matches(by).count() + 1 };
    meter.create_entries(count.min(limit))?;
    // Each part is an allocation of its own.
    meter.create(text.len().saturating_add(count.min(limit).saturating_mul(16)))?;
    if !by.is_empty() {
        return Ok(Value::List(text.splitn(limit, by).map(Value::from).collect()));
    }
    let mut rest = text;
    let mut list = Vec::with_capacity(count.min(limit));
    while let Some(first) = rest.chars().next() {
        let (part, after) = if list.len() + 1 == limit { (rest, "") } else { rest.split_at(first.len_utf8()) };
        list.push(Value::from(part));
        rest = after;
    }
    Ok(Value::List(list.into()))
}

fn join(meter: &mut Meter, list: &[Value], between: &str) -> Outcome {
    let mut out = std::string::String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(text) = item else { return Err(Fault::no_overload()) };
        meter.spend(1)?;
        meter.create(text.len() + between.len())?;
        if index > 0 {
            out.push_str(between);
        }
        out.push_str(text);
    }
    Ok(Value::from(out))
}

fn quote(text: &str) -> std::string::String {
    let mut out = std::string::String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
