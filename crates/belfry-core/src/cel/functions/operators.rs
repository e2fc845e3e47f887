//! Operators: arithmetic, comparison, indexing.

use std::cmp::Ordering;

use super::{
    Function, Meter, Outcome, Overload, Run,
    Sig::{self, A, B, Bool, Bytes, Double, Duration, Int, List, Map, Optional, String, Timestamp, Uint},
    collections, function, plain, time,
};
use crate::cel::{fault::Fault, value::Value};

const COMPARISONS: &[Overload] = &[
    plain(&[Bool, Bool], Bool),
    plain(&[Int, Int], Bool),
    plain(&[Int, Double], Bool),
    plain(&[Int, Uint], Bool),
    plain(&[Uint, Uint], Bool),
    plain(&[Uint, Double], Bool),
    plain(&[Uint, Int], Bool),
    plain(&[Double, Double], Bool),
    plain(&[Double, Int], Bool),
    plain(&[Double, Uint], Bool),
    plain(&[String, String], Bool),
    plain(&[Bytes, Bytes], Bool),
    plain(&[Timestamp, Timestamp], Bool),
    plain(&[Duration, Duration], Bool),
];
const NUMBERS: &[Overload] = &[plain(&[Double, Double], Double), plain(&[Int, Int], Int), plain(&[Uint, Uint], Uint)];
const LIST: Sig = List(&A);
const MAP: Sig = Map(&A, &B);

pub(super) const TABLE: &[Function] = &[
    function("_==_", &[plain(&[A, A], Bool)], |meter, args| match args {
        [a, b] => a.equals(b, meter).map(Value::Bool),
        _ => Err(Fault::no_overload()),
    }),
    function("_!=_", &[plain(&[A, A], Bool)], |meter, args| match args {
        [a, b] => a.equals(b, meter).map(|equal| Value::Bool(!equal)),
        _ => Err(Fault::no_overload()),
    }),
    function("_<_", COMPARISONS, |meter, args| compare(meter, args, Ordering::is_lt)),
    function("_<=_", COMPARISONS, |meter, args| compare(meter, args, Ordering::is_le)),
    function("_>_", COMPARISONS, |meter, args| compare(meter, args, Ordering::is_gt)),
    function("_>=_", COMPARISONS, |meter, args| compare(meter, args, Ordering::is_ge)),
    function("!_", &[plain(&[Bool], Bool)], |_, args| match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => Err(Fault::no_overload()),
    }),
    function("-_", &[plain(&[Double], Double), plain(&[Int], Int)], |_, args| match args {
        [Value::Double(value)] => Ok(Value::Double(-value)),
        [Value::Int(value)] => integer(value.checked_neg()),
        _ => Err(Fault::no_overload()),
    }),
    function(
        "_+_",
        &[
            plain(&[Bytes, Bytes], Bytes),
            plain(&[Double, Double], Double),
            plain(&[Duration, Duration], Duration),
            plain(&[Duration, Timestamp], Timestamp),
            plain(&[Timestamp, Duration], Timestamp),
            plain(&[Int, Int], Int),
            plain(&[LIST, LIST], LIST),
            plain(&[String, String], String),
            plain(&[Uint, Uint], Uint),
        ],
        add,
    ),
    function(
        "_-_",
        &[
            plain(&[Double, Double], Double),
            plain(&[Duration, Duration], Duration),
            plain(&[Int, Int], Int),
            plain(&[Timestamp, Duration], Timestamp),
            plain(&[Timestamp, Timestamp], Duration),
            plain(&[Uint, Uint], Uint),
        ],
        subtract,
    ),
    function("_*_", NUMBERS, |_, args| match args {
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        _ => Err(Fault::no_overload()),
    }),
    function("_/_", NUMBERS, |_, args| match args {
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Fault::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_div(*b)),
        _ => Err(Fault::no_overload()),
    }),
    function("_%_", &[plain(&[Int, Int], Int), plain(&[Uint, Uint], Uint)], |_, args| match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Fault::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_rem(*b)),
        _ => Err(Fault::no_overload()),
    }),
    function("@in", &[plain(&[A, LIST], Bool), plain(&[A, MAP], Bool)], |meter, args| match args {
        [item, container] => collections::contains(meter, container, item).map(Value::Bool),
        _ => Err(Fault::no_overload()),
    }),
    Function {
        name: "_[_]",
        overloads: &[
            plain(&[LIST, Int], A),
            plain(&[MAP, A], B),
            plain(&[Optional(&LIST), Int], Optional(&A)),
            plain(&[Optional(&MAP), A], Optional(&B)),
        ],
        run: Run::Inline,
    },
    Function {
        name: "_[?_]",
        overloads: &[
            plain(&[LIST, Int], Optional(&A)),
            plain(&[Optional(&LIST), Int], Optional(&A)),
            plain(&[MAP, A], Optional(&B)),
            plain(&[Optional(&MAP), A], Optional(&B)),
        ],
        run: Run::Inline,
    },
    Function { name: "_?_:_", overloads: &[plain(&[Bool, A, A], A)], run: Run::Inline },
];

fn integer(result: Option<i64>) -> Outcome {
    result.map(Value::Int).ok_or_else(|| Fault::new("integer overflow"))
}

fn unsigned(result: Option<u64>) -> Outcome {
    result.map(Value::Uint).ok_or_else(|| Fault::new("unsigned integer overflow"))
}

fn compare(meter: &mut Meter, args: &[Value], holds: fn(Ordering) -> bool) -> Outcome {
    let [a, b] = args else { return Err(Fault::no_overload()) };
    match a.order(b, meter)? {
        Some(order) => Ok(Value::Bool(holds(order))),
        None => Err(Fault::new("NaN values cannot be ordered")),
    }
}

fn add(meter: &mut Meter, args: &[Value]) -> Outcome {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => {
            meter.create(a.len() + b.len())?;
            Ok(Value::from(format!("{a}{b}")))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            meter.create(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        [Value::List(a), Value::List(b)] => {
            meter.create_entries(a.len() + b.len())?;
            Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()))
        }
        [Value::Duration(a), Value::Duration(b)] => time::length(a.checked_add(*b)),
        [Value::Timestamp(at), Value::Duration(by)] | [Value::Duration(by), Value::Timestamp(at)] => {
            time::shifted(*at, i128::from(*by))
        }
        _ => Err(Fault::no_overload()),
    }
}

fn subtract(_: &mut Meter, args: &[Value]) -> Outcome {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => time::length(a.checked_sub(*b)),
        [Value::Timestamp(at), Value::Duration(by)] => time::shifted(*at, -i128::from(*by)),
        [Value::Timestamp(a), Value::Timestamp(b)] => time::length(i64::try_from(a.nanos() - b.nanos()).ok()),
        _ => Err(Fault::no_overload()),
    }
}
