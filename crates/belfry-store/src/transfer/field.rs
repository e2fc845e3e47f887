//! Values of records: as a line of JSON spells them, and as a database keeps them.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use belfry_core::{
    ConfigKind,
    plan::{Change, ObjectState, Origin},
    rollout::Phase,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    hooks::HookVerdict,
    queries::{DeliveryKind, DeliveryState},
    types::AttemptOutcome,
};

/// How a database keeps a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Boolean,
    Text,
    Bytes,
    /// However the engine spells an [`ObjectState`].
    State,
}

/// A value of a column, the same for every engine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
    State(Box<ObjectState>),
}

/// What a record is made of.
pub(super) trait Field: Sized {
    const KIND: Kind;
    fn into_cell(self) -> Cell;
    /// `None`: the column can't hold that.
    fn from_cell(cell: Cell) -> Option<Self>;
    /// Why no database takes it, if so.
    fn refuse(&self) -> Option<String> {
        None
    }
    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self;
}

impl<T: Field> Field for Option<T> {
    const KIND: Kind = T::KIND;

    fn into_cell(self) -> Cell {
        self.map_or(Cell::Null, T::into_cell)
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if cell == Cell::Null { Some(None) } else { T::from_cell(cell).map(Some) }
    }

    fn refuse(&self) -> Option<String> {
        self.as_ref().and_then(T::refuse)
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        rng.bool().then(|| T::sample(rng))
    }
}

impl Field for i64 {
    const KIND: Kind = Kind::Integer;

    fn into_cell(self) -> Cell {
        Cell::Integer(self)
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Integer(number) = cell { Some(number) } else { None }
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        [0, 1, -1, Self::MAX, Self::MIN, rng.i64(..)][rng.usize(..6)]
    }
}

impl Field for bool {
    const KIND: Kind = Kind::Boolean;

    fn into_cell(self) -> Cell {
        Cell::Integer(self.into())
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        match cell {
            Cell::Integer(0) => Some(false),
            Cell::Integer(1) => Some(true),
            _ => None,
        }
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        rng.bool()
    }
}

impl Field for String {
    const KIND: Kind = Kind::Text;

    fn into_cell(self) -> Cell {
        Cell::Text(self)
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Text(text) = cell { Some(text) } else { None }
    }

    /// The store writes none such, and PostgreSQL takes none.
    fn refuse(&self) -> Option<String> {
        self.contains('\0').then(|| "has a NUL in it".into())
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        (0..rng.usize(..12)).map(|_| rng.char('\u{1}'..)).collect()
    }
}

impl Field for Box<ObjectState> {
    const KIND: Kind = Kind::State;

    fn into_cell(self) -> Cell {
        Cell::State(self)
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::State(state) = cell { Some(state) } else { None }
    }

    fn refuse(&self) -> Option<String> {
        let text = serde_json::to_string(self).unwrap_or_default();
        text.contains("\\u0000").then(|| "has a NUL in it".into())
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        let (severity, revision) = (String::sample(rng), Option::<String>::sample(rng));
        Self::new(ObjectState { severity, revision, failed: rng.bool(), ..ObjectState::default() })
    }
}

/// Bytes, which are text more often than not: a line shows them as text if they are, else in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Octets(Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Spelled::deserialize(deserializer)? {
            Spelled::Text(text) => Ok(Self(text.into_bytes())),
            Spelled::Encoded(Encoded { base64 }) => STANDARD.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text, or {\"base64\": text}")]
enum Spelled {
    Text(String),
    Encoded(Encoded),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

impl Field for Octets {
    const KIND: Kind = Kind::Bytes;

    fn into_cell(self) -> Cell {
        Cell::Bytes(self.0)
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Bytes(bytes) = cell { Some(Self(bytes)) } else { None }
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        if rng.bool() { Self(String::sample(rng).into_bytes()) } else { Self((0..9).map(|_| rng.u8(..)).collect()) }
    }
}

/// Something that a database keeps as a number and that a line spells as a word.
pub(crate) trait Coded: Copy {
    fn word(self) -> &'static str;
    fn number(self) -> i64;
    fn of(number: i64) -> Option<Self>;

    fn all() -> impl Iterator<Item = Self> {
        // None has more.
        (0..16).filter_map(Self::of)
    }
}

macro_rules! coded {
    ($($type:ty),*) => {
        $(impl Coded for $type {
            fn word(self) -> &'static str {
                self.as_str()
            }

            fn number(self) -> i64 {
                self.code()
            }

            fn of(number: i64) -> Option<Self> {
                Self::from_code(number)
            }
        })*
    };
}

coded!(AttemptOutcome, DeliveryKind, DeliveryState, HookVerdict, Phase);

impl Coded for Change {
    fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Recovered => "recovered",
        }
    }

    fn number(self) -> i64 {
        self.code()
    }

    fn of(number: i64) -> Option<Self> {
        Self::from_code(number)
    }
}

impl Coded for Origin {
    fn word(self) -> &'static str {
        match self {
            Self::Recorder => "recorder",
            Self::Forwarded => "forwarded",
            Self::Observed => "observed",
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::Recorder => 0,
            Self::Forwarded => 1,
            Self::Observed => 2,
        }
    }

    fn of(number: i64) -> Option<Self> {
        [Self::Recorder, Self::Forwarded, Self::Observed].into_iter().find(|origin| origin.number() == number)
    }
}

/// A word in a line, a number in a database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word<T>(pub T);

impl<T: Coded> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.word())
    }
}

impl<T: Coded> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.word())
    }
}

impl<'de, T: Coded> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        T::all().find(|value| value.word() == word).map(Self).ok_or_else(|| {
            let known: Vec<&str> = T::all().map(T::word).collect();
            D::Error::custom(format!("expected one of {}, not {word:?}", known.join(", ")))
        })
    }
}

impl<T: Coded> Field for Word<T> {
    const KIND: Kind = Kind::Integer;

    fn into_cell(self) -> Cell {
        Cell::Integer(self.0.number())
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Integer(number) = cell { T::of(number).map(Self) } else { None }
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        let all: Vec<T> = T::all().collect();
        Self(all[rng.usize(..all.len())])
    }
}

impl Field for ConfigKind {
    const KIND: Kind = Kind::Text;

    fn into_cell(self) -> Cell {
        Cell::Text(self.as_str().to_owned())
    }

    fn from_cell(cell: Cell) -> Option<Self> {
        if let Cell::Text(text) = cell { Self::parse(&text) } else { None }
    }

    #[cfg(test)]
    fn sample(rng: &mut fastrand::Rng) -> Self {
        [Self::Provider, Self::Alert, Self::CommitStatus, Self::Receiver, Self::Cluster][rng.usize(..5)]
    }
}
