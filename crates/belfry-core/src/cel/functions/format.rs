//! `format()`: texts with clauses, `%s` for any value, `%d`, `%f`, `%e`, `%b`, `%o`, `%x` and `%X` for some; and numbers
//! as Go writes them.

use std::fmt::{self, Display as _, Write as _};

use super::{Meter, Outcome, time};
use crate::cel::{fault::Fault, limits, types::Ty, value::Value};

/// A piece of a format.
pub(in crate::cel) enum Piece<'f> {
    Plain(&'f str),
    Clause { letter: char, precision: usize },
}

impl Piece<'_> {
    pub fn letter(&self) -> Option<char> {
        match self {
            Self::Clause { letter, .. } => Some(*letter),
            Self::Plain(_) => None,
        }
    }
}

/// The pieces of a format, or what is wrong with it.
pub(in crate::cel) fn pieces(format: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        pieces.push(Piece::Plain(&rest[..percent]));
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            pieces.push(Piece::Plain("%"));
            rest = after;
            continue;
        }
        let mut precision = 6;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.find(|c: char| !c.is_ascii_digit()).ok_or("a precision without a clause ends it")?;
            precision = after[..digits].parse().map_err(|_| format!("{:?} is no precision", &after[..digits]))?;
            if precision > limits::PRECISION {
                return Err(format!("a precision of {precision}; {} is allowed", limits::PRECISION));
            }
            rest = &after[digits..];
        }
        let letter = rest.chars().next().ok_or("a lone % ends it; %% stands for the sign itself")?;
        if !matches!(letter, 's' | 'd' | 'f' | 'e' | 'b' | 'x' | 'X' | 'o') {
            return Err(format!("unknown clause %{letter}"));
        }
        pieces.push(Piece::Clause { letter, precision });
        rest = &rest[letter.len_utf8()..];
    }
    pieces.push(Piece::Plain(rest));
    Ok(pieces)
}

/// Whether a clause takes values of this type, as far as the checker can tell.
pub(in crate::cel) fn takes(letter: char, ty: &Ty) -> bool {
    let number = matches!(ty, Ty::Int | Ty::Uint | Ty::Double);
    matches!(ty, Ty::Dyn | Ty::Free(_))
        || match letter {
            's' => !matches!(ty, Ty::Optional(_)),
            'd' | 'f' | 'e' => number,
            'b' => matches!(ty, Ty::Int | Ty::Uint | Ty::Bool),
            'o' => matches!(ty, Ty::Int | Ty::Uint),
            _ => matches!(ty, Ty::Int | Ty::Uint | Ty::String | Ty::Bytes),
        }
}

/// What is said of a value that a clause doesn't take.
pub(in crate::cel) fn refusal(letter: char, name: &str) -> String {
    let wanted = match letter {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on ints, uints, and doubles",
        'f' => "fixed-point clause can only be used on ints, uints, and doubles",
        'e' => "scientific clause can only be used on ints, uints, and doubles",
        'b' => "only ints, uints, and bools can be formatted as binary",
        'o' => "octal clause can only be used on ints and uints",
        _ => "only ints, uints, bytes, and strings can be formatted as hex",
    };
    format!("error during formatting: {wanted}, was given {name}")
}

/// The format with its clauses filled in from the list.
pub(super) fn format(meter: &mut Meter, format: &str, list: &[Value]) -> Outcome {
    meter.read(format.len())?;
    let pieces = pieces(format).map_err(|reason| Fault::new(format!("bad format: {reason}")))?;
    let mut out = String::new();
    let mut next = 0;
    for piece in pieces {
        let before = out.len();
        match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Clause { letter, precision } => {
                let value = list.get(next).ok_or_else(|| Fault::new(format!("index {next} out of range")))?;
                next += 1;
                let size = written(value, meter)?;
                meter.create(size)?;
                clause(&mut out, letter, precision, value)?;
            }
        }
        meter.create(out.len() - before)?;
    }
    Ok(Value::from(out))
}

/// About how many bytes a value takes when written, paid for by its parts.
fn written(value: &Value, meter: &mut Meter) -> Outcome<usize> {
    meter.spend(1)?;
    Ok(match value {
        Value::String(text) => text.len() * 2,
        Value::Bytes(bytes) => bytes.len() * 3,
        Value::List(list) => {
            let mut sum = 2usize;
            for item in list.iter() {
                sum = sum.saturating_add(2).saturating_add(written(item, meter)?);
            }
            sum
        }
        Value::Map(map) => {
            let mut sum = 2usize;
            for (key, item) in map.iter() {
                sum = sum.saturating_add(24).saturating_add(written(&key.value(), meter)?);
                sum = sum.saturating_add(written(item, meter)?);
            }
            sum
        }
        _ => 24,
    })
}

fn clause(out: &mut String, letter: char, precision: usize, value: &Value) -> Outcome<()> {
    let refused = || Fault::new(refusal(letter, value.type_name()));
    let number = match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    };
    let text = match (letter, value, number) {
        ('s', Value::Optional(_), _) => return Err(refused()),
        ('s', value, _) => value.to_string(),
        ('d', Value::Int(_) | Value::Uint(_) | Value::Double(_), _) => value.to_string(),
        ('f' | 'e', _, Some(number)) if !number.is_finite() => Value::Double(number).to_string(),
        ('f', _, Some(number)) => format!("{number:.precision$}"),
        ('e', _, Some(number)) => exponent(&format!("{number:.precision$e}")),
        ('b', Value::Bool(value), _) => u8::from(*value).to_string(),
        ('b' | 'o' | 'x' | 'X', Value::Int(value), _) => {
            let sign = if *value < 0 { "-" } else { "" };
            format!("{sign}{}", radix(letter, value.unsigned_abs()))
        }
        ('b' | 'o' | 'x' | 'X', Value::Uint(value), _) => radix(letter, *value),
        ('x' | 'X', Value::String(text), _) => hex(letter, text.as_bytes()),
        ('x' | 'X', Value::Bytes(bytes), _) => hex(letter, bytes),
        _ => return Err(refused()),
    };
    out.push_str(&text);
    Ok(())
}

fn radix(letter: char, value: u64) -> String {
    match letter {
        'b' => format!("{value:b}"),
        'o' => format!("{value:o}"),
        'x' => format!("{value:x}"),
        _ => format!("{value:X}"),
    }
}

fn hex(letter: char, bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String doesn't fail.
        let _ = if letter == 'x' { write!(out, "{byte:02x}") } else { write!(out, "{byte:02X}") };
        out
    })
}

/// Rust's `1.5e-7` in Go's form, where an exponent has a sign and two digits.
fn exponent(text: &str) -> String {
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text.to_owned(),
    }
}

/// The power of ten from which Go's shortest form has an exponent.
const MILLION: i32 = 6;

/// A double as `string()` writes it: shortest, and with an exponent from a million on.
pub(super) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let power = scientific.split_once('e').map_or(0, |(_, power)| power.parse::<i32>().unwrap_or(0));
    if !(-4..MILLION).contains(&power) { exponent(&scientific) } else { format!("{value}") }
}

/// A value as `%s` writes it.
pub(in crate::cel) fn display(value: &Value, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(value) => value.fmt(f),
        Value::Int(value) => value.fmt(f),
        Value::Uint(value) => value.fmt(f),
        Value::Double(value) if value.is_nan() => f.write_str("NaN"),
        Value::Double(value) if value.is_infinite() => f.write_str(if *value > 0.0 { "Infinity" } else { "-Infinity" }),
        Value::Double(value) => value.fmt(f),
        Value::String(text) => f.write_str(text),
        Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(moment) => f.write_str(&time::rfc3339(time::in_utc(*moment))),
        Value::Duration(nanos) => f.write_str(&time::seconds(*nanos)),
        Value::Type(name) => f.write_str(name),
        Value::Optional(None) => f.write_str("optional.none()"),
        Value::Optional(Some(value)) => write!(f, "optional.of({value})"),
        Value::List(list) => {
            f.write_char('[')?;
            for (index, item) in list.iter().enumerate() {
                write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
            }
            f.write_char(']')
        }
        Value::Map(map) => {
            let mut entries: Vec<_> = map.iter().map(|(key, value)| (key.to_string(), value)).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            f.write_char('{')?;
            for (index, (key, value)) in entries.iter().enumerate() {
                write!(f, "{}{key}: {value}", if index > 0 { ", " } else { "" })?;
            }
            f.write_char('}')
        }
    }
}
