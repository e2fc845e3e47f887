//! Values of expressions: what they hold, how they equal and order one another, how JSON becomes one.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, civil::DateTime};

use super::{
    fault::{Fault, Meter, Outcome},
    functions::format,
};

/// A value. Clones are cheap: what is large is shared.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A floating-point number; every number in JSON.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Moment),
    /// A length of time in nanoseconds.
    Duration(i64),
    /// A list.
    List(Arc<[Value]>),
    /// A map.
    Map(Arc<BTreeMap<Key, Value>>),
    /// A value that may be absent.
    Optional(Option<Arc<Value>>),
    /// A type, by its name.
    Type(&'static str),
}

/// A point in time, with the offset that it was written with.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The point in time, as a clock in UTC shows it: a `Timestamp` ends a day before the year 9999 does.
    pub at: DateTime,
    /// Seconds east of Greenwich.
    pub offset: i32,
}

impl Moment {
    /// What Go takes for no time at all.
    pub(super) const YEAR_ONE: DateTime = DateTime::constant(1, 1, 1, 0, 0, 0, 0);
    const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

    /// The point so many nanoseconds after 1970 began, if it lies in the years 1 to 9999.
    pub(super) fn new(nanos: i128, offset: i32) -> Option<Self> {
        let seconds = i64::try_from(nanos.div_euclid(SECOND)).ok()?;
        let since = SignedDuration::new(seconds, i32::try_from(nanos.rem_euclid(SECOND)).ok()?);
        let at = Self::EPOCH.checked_add(since).ok().filter(|at| *at >= Self::YEAR_ONE)?;
        Some(Self { at, offset })
    }

    /// Nanoseconds since 1970 began.
    pub(super) fn nanos(&self) -> i128 {
        self.at.duration_since(Self::EPOCH).as_nanos()
    }

    /// What a clock shows so many seconds east of Greenwich.
    pub(super) fn local(&self, offset: i32) -> Option<DateTime> {
        self.at.checked_add(SignedDuration::from_secs(i64::from(offset))).ok()
    }
}

const SECOND: i128 = 1_000_000_000;

/// What a map can be asked for.
#[derive(Clone, Debug)]
pub enum Key {
    /// `true` or `false`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer; the same key as the signed one of the same value.
    Uint(u64),
    /// Text.
    String(Arc<str>),
}

impl Key {
    fn order(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(value) => (0, i128::from(*value), ""),
            Self::Int(value) => (1, i128::from(*value), ""),
            Self::Uint(value) => (1, i128::from(*value), ""),
            Self::String(value) => (2, 0, value),
        }
    }

    /// The key that a value stands for: whole doubles are numbers like any other.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Int(*value)),
            Value::Uint(value) => Some(Self::Uint(*value)),
            Value::Double(value) => whole(*value).map(Self::Int),
            Value::String(value) => Some(Self::String(value.clone())),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> Value {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Uint(value) => Value::Uint(*value),
            Self::String(value) => Value::String(value.clone()),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
        }
    }
}

/// The integer that a double is, if it is one.
pub(super) fn whole(value: f64) -> Option<i64> {
    // 2^63 itself is a double, and no longer an integer.
    let fits = value.trunc() == value && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    fits.then_some(value as i64)
}

impl Value {
    /// A JSON value whose whole numbers stay integers. So the peer shows Kubernetes objects and events to expressions;
    /// what comes as text (bodies, claims) has doubles only, and is converted with [`From`].
    pub fn typed(json: &serde_json::Value) -> Self {
        convert(json, |number| match number.as_i64() {
            Some(whole) => Self::Int(whole),
            None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
        })
    }

    /// A map of named values, such as OIDC's `vars`.
    pub fn object<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (Key::String(name.as_ref().into()), value));
        Self::Map(Arc::new(fields.collect()))
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
        }
    }

    pub(super) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// Whether the values are equal. Numbers are by what they count, whatever their type.
    pub(super) fn equals(&self, other: &Self, meter: &mut Meter) -> Outcome<bool> {
        meter.spend(1)?;
        Ok(match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => {
                meter.read(a.len().min(b.len()))?;
                a == b
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                meter.read(a.len().min(b.len()))?;
                a == b
            }
            (Self::Timestamp(a), Self::Timestamp(b)) => a.at == b.at,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(None), Self::Optional(None)) => true,
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => a.equals(b, meter)?,
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for ((a_key, a), (b_key, b)) in a.iter().zip(b.iter()) {
                    meter.look_up(a_key, 1)?;
                    if a_key != b_key || !a.equals(b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => number_order(self, other) == Some(Some(Ordering::Equal)),
        })
    }

    /// The order of two values, which have to be of one type, or numbers. `Ok(None)`: one is not a number.
    pub(super) fn order(&self, other: &Self, meter: &mut Meter) -> Outcome<Option<Ordering>> {
        Ok(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::String(a), Self::String(b)) => {
                meter.read(a.len().min(b.len()))?;
                Some(a.cmp(b))
            }
            (Self::Bytes(a), Self::Bytes(b)) => {
                meter.read(a.len().min(b.len()))?;
                Some(a.cmp(b))
            }
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.at.cmp(&b.at)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => number_order(self, other).ok_or_else(Fault::no_overload)?,
        })
    }
}

/// The order of two numbers; `None` when they aren't numbers.
fn number_order(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    let integer = |value: &Value| match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    };
    let double = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    };
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(Some(a.cmp(&b))),
        _ => Some(double(a)?.partial_cmp(&double(b)?)),
    }
}

fn convert(json: &serde_json::Value, number: fn(&serde_json::Number) -> Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(value) => number(value),
        serde_json::Value::String(value) => Value::from(value.as_str()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(|item| convert(item, number)).collect()),
        serde_json::Value::Object(fields) => {
            Value::object(fields.iter().map(|(name, value)| (name, convert(value, number))))
        }
    }
}

impl From<&serde_json::Value> for Value {
    /// Every number becomes a double, as in the peer.
    fn from(json: &serde_json::Value) -> Self {
        convert(json, |number| Self::Double(number.as_f64().unwrap_or(f64::NAN)))
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        Self::from(&json)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl fmt::Display for Value {
    /// As `%s` in `format()` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format::display(self, f)
    }
}
