//! Conversions between types, and base64.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};

use super::{
    Function, Meter, Outcome, Run,
    Sig::{Bool, Bytes, Double, Duration, Int, String, Timestamp, Uint},
    format, function, plain, time,
};
use crate::cel::{fault::Fault, value::Value};

const fn conversion(
    name: &'static str,
    overloads: &'static [super::Overload],
    run: fn(&mut Meter, &[Value]) -> Outcome,
) -> Function {
    Function { name, overloads, run: Run::Conversion(run) }
}

pub(super) const TABLE: &[Function] = &[
    conversion("bool", &[plain(&[Bool], Bool), plain(&[String], Bool)], |_, args| match args {
        [value @ Value::Bool(_)] => Ok(value.clone()),
        [Value::String(text)] => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(unreadable(text, "bool")),
        },
        _ => Err(Fault::no_overload()),
    }),
    conversion("bytes", &[plain(&[Bytes], Bytes), plain(&[String], Bytes)], |meter, args| match args {
        [value @ Value::Bytes(_)] => Ok(value.clone()),
        [Value::String(text)] => {
            meter.create(text.len())?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        _ => Err(Fault::no_overload()),
    }),
    conversion(
        "double",
        &[plain(&[Double], Double), plain(&[Int], Double), plain(&[String], Double), plain(&[Uint], Double)],
        |meter, args| match args {
            [value @ Value::Double(_)] => Ok(value.clone()),
            [Value::Int(value)] => Ok(Value::Double(*value as f64)),
            [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
            [Value::String(text)] => {
                meter.read(text.len())?;
                double(text).map(Value::Double).ok_or_else(|| unreadable(text, "double"))
            }
            _ => Err(Fault::no_overload()),
        },
    ),
    conversion(
        "int",
        &[
            plain(&[Int], Int),
            plain(&[Double], Int),
            plain(&[Duration], Int),
            plain(&[String], Int),
            plain(&[Timestamp], Int),
            plain(&[Uint], Int),
        ],
        |meter, args| match args {
            [value @ Value::Int(_)] => Ok(value.clone()),
            [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| Fault::new("integer overflow")),
            // Both ends are excluded, as 2^63 - 1 is no double.
            [Value::Double(value)] if value.abs() < 9_223_372_036_854_775_808.0 => Ok(Value::Int(*value as i64)),
            [Value::Double(_)] => Err(Fault::new("integer overflow")),
            [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
            [Value::Timestamp(moment)] => Ok(Value::Int(moment.nanos().div_euclid(1_000_000_000) as i64)),
            [Value::String(text)] => {
                meter.read(text.len())?;
                text.parse().map(Value::Int).map_err(|_| unreadable(text, "int"))
            }
            _ => Err(Fault::no_overload()),
        },
    ),
    conversion(
        "uint",
        &[plain(&[Uint], Uint), plain(&[Double], Uint), plain(&[Int], Uint), plain(&[String], Uint)],
        |meter, args| match args {
            [value @ Value::Uint(_)] => Ok(value.clone()),
            [Value::Int(value)] => {
                u64::try_from(*value).map(Value::Uint).map_err(|_| Fault::new("unsigned integer overflow"))
            }
            [Value::Double(value)] if *value >= 0.0 && *value < 18_446_744_073_709_551_616.0 => {
                Ok(Value::Uint(*value as u64))
            }
            [Value::Double(_)] => Err(Fault::new("unsigned integer overflow")),
            [Value::String(text)] if !text.starts_with('+') => {
                meter.read(text.len())?;
                text.parse().map(Value::Uint).map_err(|_| unreadable(text, "uint"))
            }
            [Value::String(text)] => Err(unreadable(text, "uint")),
            _ => Err(Fault::no_overload()),
        },
    ),
    conversion(
        "string",
        &[
            plain(&[String], String),
            plain(&[Bool], String),
            plain(&[Bytes], String),
            plain(&[Double], String),
            plain(&[Duration], String),
            plain(&[Int], String),
            plain(&[Timestamp], String),
            plain(&[Uint], String),
        ],
        |meter, args| match args {
            [value @ Value::String(_)] => Ok(value.clone()),
            [Value::Bool(value)] => Ok(Value::from(value.to_string())),
            [Value::Int(value)] => Ok(Value::from(value.to_string())),
            [Value::Uint(value)] => Ok(Value::from(value.to_string())),
            [Value::Double(value)] => Ok(Value::from(format::shortest(*value))),
            [Value::Duration(nanos)] => Ok(Value::from(time::seconds(*nanos))),
            [Value::Timestamp(moment)] => Ok(Value::from(time::rfc3339(*moment))),
            [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
                Ok(text) => meter.text(text),
                Err(_) => Err(Fault::new("invalid UTF-8 in bytes, cannot convert to string")),
            },
            _ => Err(Fault::no_overload()),
        },
    ),
    conversion(
        "timestamp",
        &[plain(&[Timestamp], Timestamp), plain(&[Int], Timestamp), plain(&[String], Timestamp)],
        |meter, args| match args {
            [value @ Value::Timestamp(_)] => Ok(value.clone()),
            [Value::Int(seconds)] => time::from_seconds(*seconds),
            [Value::String(text)] => {
                meter.read(text.len())?;
                time::read(text)
            }
            _ => Err(Fault::no_overload()),
        },
    ),
    conversion("duration", &[plain(&[Duration], Duration), plain(&[String], Duration)], |meter, args| match args {
        [value @ Value::Duration(_)] => Ok(value.clone()),
        [Value::String(text)] => {
            meter.read(text.len())?;
            time::read_length(text)
        }
        _ => Err(Fault::no_overload()),
    }),
    function("base64.encode", &[plain(&[Bytes], String)], |meter, args| match args {
        [Value::Bytes(bytes)] => {
            meter.create(bytes.len() / 3 * 4 + 4)?;
            Ok(Value::from(STANDARD.encode(bytes)))
        }
        _ => Err(Fault::no_overload()),
    }),
    function("base64.decode", &[plain(&[String], Bytes)], |meter, args| match args {
        [Value::String(text)] => {
            meter.create(text.len())?;
            decode(text).map(|bytes| Value::Bytes(bytes.into())).ok_or_else(|| Fault::new("this is not base64"))
        }
        _ => Err(Fault::no_overload()),
    }),
];

pub(super) fn unreadable(text: &str, to: &str) -> Box<Fault> {
    let start: std::string::String = text.chars().take(40).collect();
    Fault::new(format!("type conversion error from 'string' to '{to}': {start:?}"))
}

/// A number as Go reads it, but for hexadecimal ones and underscores. What is too large isn't one.
fn double(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    let is_finite = number.is_finite() || !text.contains(|c: char| c.is_ascii_digit());
    is_finite.then_some(number)
}

/// Standard base64, padded or not. Line breaks don't count, nor do the bits that are left over, as in Go.
fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    LENIENT.decode(text).ok()
}
