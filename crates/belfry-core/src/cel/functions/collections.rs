//! Lists, maps, sets and optional values.

use super::{
    Function, Meter, Outcome, Run,
    Sig::{self, A, B, Bool, Bytes, Dyn, Int, List, Map, Optional, String, Type},
    function, member, plain,
};
use crate::cel::{
    fault::Fault,
    value::{Key, Moment, Value, whole},
};

const LIST: Sig = List(&A);
const OPTIONAL: Sig = Optional(&A);

pub(super) const TABLE: &[Function] = &[
    function(
        "size",
        &[
            plain(&[Bytes], Int),
            member(&[Bytes], Int),
            plain(&[LIST], Int),
            member(&[LIST], Int),
            plain(&[Map(&A, &B)], Int),
            member(&[Map(&A, &B)], Int),
            plain(&[String], Int),
            member(&[String], Int),
        ],
        size,
    ),
    function("type", &[plain(&[A], Type(&A))], |_, args| match args {
        [value] => Ok(Value::Type(value.type_name())),
        _ => Err(Fault::no_overload()),
    }),
    function("dyn", &[plain(&[A], Dyn)], |_, args| args.first().cloned().ok_or_else(Fault::no_overload)),
    function("first", &[member(&[LIST], OPTIONAL)], |_, args| match args {
        [Value::List(list)] => Ok(list.first().cloned().map_or(Value::Optional(None), Value::some)),
        _ => Err(Fault::no_overload()),
    }),
    function("last", &[member(&[LIST], OPTIONAL)], |_, args| match args {
        [Value::List(list)] => Ok(list.last().cloned().map_or(Value::Optional(None), Value::some)),
        _ => Err(Fault::no_overload()),
    }),
    function("sets.contains", &[plain(&[LIST, LIST], Bool)], |meter, args| match args {
        [list @ Value::List(_), Value::List(within)] => includes(meter, list, within).map(Value::Bool),
        _ => Err(Fault::no_overload()),
    }),
    function("sets.equivalent", &[plain(&[LIST, LIST], Bool)], |meter, args| match args {
        [left @ Value::List(a), right @ Value::List(b)] => {
            Ok(Value::Bool(includes(meter, left, b)? && includes(meter, right, a)?))
        }
        _ => Err(Fault::no_overload()),
    }),
    function("sets.intersects", &[plain(&[LIST, LIST], Bool)], |meter, args| match args {
        [Value::List(list), other @ Value::List(_)] => {
            for item in list.iter() {
                if contains(meter, other, item)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        _ => Err(Fault::no_overload()),
    }),
    function("optional.of", &[plain(&[A], OPTIONAL)], |_, args| match args {
        [value] => Ok(Value::some(value.clone())),
        _ => Err(Fault::no_overload()),
    }),
    function("optional.ofNonZeroValue", &[plain(&[A], OPTIONAL)], |_, args| match args {
        [value] if is_zero(value) => Ok(Value::Optional(None)),
        [value] => Ok(Value::some(value.clone())),
        _ => Err(Fault::no_overload()),
    }),
    function("optional.none", &[plain(&[], OPTIONAL)], |_, _| Ok(Value::Optional(None))),
    function("optional.unwrap", &[plain(&[List(&OPTIONAL)], LIST)], unwrap),
    function("unwrapOpt", &[member(&[List(&OPTIONAL)], LIST)], unwrap),
    function("value", &[member(&[OPTIONAL], A)], |_, args| match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Fault::new("value() of an optional that has none: optional.none() dereference")),
        _ => Err(Fault::no_overload()),
    }),
    function("hasValue", &[member(&[OPTIONAL], Bool)], |_, args| match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => Err(Fault::no_overload()),
    }),
    Function { name: "or", overloads: &[member(&[OPTIONAL, OPTIONAL], OPTIONAL)], run: Run::Inline },
    Function { name: "orValue", overloads: &[member(&[OPTIONAL, A], A)], run: Run::Inline },
];

fn size(meter: &mut Meter, args: &[Value]) -> Outcome {
    let size = match args {
        [Value::String(text)] => {
            meter.read(text.len())?;
            text.chars().count()
        }
        [Value::Bytes(bytes)] => bytes.len(),
        [Value::List(list)] => list.len(),
        [Value::Map(map)] => map.len(),
        _ => return Err(Fault::no_overload()),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

/// Whether a list has an item, or a map a key.
pub(super) fn contains(meter: &mut Meter, container: &Value, item: &Value) -> Outcome<bool> {
    match container {
        Value::List(list) => {
            for other in list.iter() {
                if item.equals(other, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => match Key::of(item) {
            Some(key) => {
                meter.look_up(&key, map.len())?;
                Ok(map.contains_key(&key))
            }
            None => Ok(false),
        },
        _ => Err(Fault::no_overload()),
    }
}

fn includes(meter: &mut Meter, list: &Value, items: &[Value]) -> Outcome<bool> {
    for item in items {
        if !contains(meter, list, item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn unwrap(meter: &mut Meter, args: &[Value]) -> Outcome {
    let [Value::List(list)] = args else { return Err(Fault::no_overload()) };
    meter.create_entries(list.len())?;
    let mut out = Vec::with_capacity(list.len());
    for item in list.iter() {
        match item {
            Value::Optional(Some(value)) => out.push((**value).clone()),
            Value::Optional(None) => {}
            _ => return Err(Fault::no_overload()),
        }
    }
    Ok(Value::List(out.into()))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Int(value) | Value::Duration(value) => *value == 0,
        Value::Uint(value) => *value == 0,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Timestamp(moment) => moment.at == Moment::YEAR_ONE,
        Value::Optional(_) | Value::Type(_) => false,
    }
}

/// The entry of a map or list, if there is one.
pub(in crate::cel) fn find(meter: &mut Meter, container: &Value, key: &Value) -> Outcome<Option<Value>> {
    match container {
        Value::Map(map) => match Key::of(key) {
            Some(key) => {
                meter.look_up(&key, map.len())?;
                Ok(map.get(&key).cloned())
            }
            None => Ok(None),
        },
        Value::List(list) => {
            let index = match key {
                Value::Int(index) => i128::from(*index),
                Value::Uint(index) => i128::from(*index),
                Value::Double(index) => match whole(*index) {
                    Some(index) => i128::from(index),
                    None => return Err(Fault::new(format!("unsupported index value {index} in list"))),
                },
                other => {
                    return Err(Fault::new(format!("unsupported index type '{}' in list", other.type_name())));
                }
            };
            Ok(usize::try_from(index).ok().and_then(|index| list.get(index).cloned()))
        }
        _ => Ok(None),
    }
}

/// The entry of a map or list; of an optional, what may be there.
pub(in crate::cel) fn get(meter: &mut Meter, container: &Value, key: &Value) -> Outcome {
    match container {
        Value::Optional(inner) => optional(meter, inner.as_deref(), key),
        _ => find(meter, container, key)?.ok_or_else(|| match (container, Key::of(key)) {
            (Value::List(_), Some(key)) => Fault::new(format!("index out of bounds: {key}")),
            (_, Some(key)) => Fault::no_such_key(&key),
            (_, None) => match key {
                Value::Double(key) => Fault::new(format!("no such key: {key}")),
                key => Fault::new(format!("no such key: a {}", key.type_name())),
            },
        }),
    }
}

fn optional(meter: &mut Meter, inner: Option<&Value>, key: &Value) -> Outcome {
    let found = inner.map(|inner| find(meter, inner, key)).transpose()?.flatten();
    Ok(found.map_or(Value::Optional(None), Value::some))
}
