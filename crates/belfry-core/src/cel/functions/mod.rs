//! The functions and operators that an expression may use, with the types that they take: CEL's standard library, its
//! optional values, and its extensions for strings, sets and base64. What isn't listed doesn't exist.

use super::{
    fault::{Meter, Outcome},
    types::{Bindings, Ty},
    value::Value,
};

mod collections;
mod convert;
pub(super) mod format;
mod operators;
mod strings;
mod time;

pub(super) use collections::{find, get};
pub(super) use time::{rfc3339, seconds};

/// A function: its variants by type, and one body that finds out at run time which it is.
#[derive(Debug)]
pub(super) struct Function {
    pub name: &'static str,
    pub overloads: &'static [Overload],
    pub run: Run,
}

#[derive(Debug)]
pub(super) enum Run {
    /// Takes values.
    Values(fn(&mut Meter, &[Value]) -> Outcome),
    /// The same; of a literal it is computed when the expression is compiled, and its faults are found there.
    Conversion(fn(&mut Meter, &[Value]) -> Outcome),
    /// `matches`, whose pattern may be compiled already.
    Matches,
    /// The evaluator does it itself, because it doesn't need every argument every time.
    Inline,
}

/// One way to call a function.
#[derive(Debug)]
pub(super) struct Overload {
    /// Whether the first argument stands before the name.
    pub member: bool,
    pub args: &'static [Sig],
    pub result: Sig,
}

/// A type in a signature; the letters stand for any type, the same one wherever they recur.
#[derive(Debug)]
pub(super) enum Sig {
    Dyn,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    A,
    B,
    List(&'static Sig),
    Map(&'static Sig, &'static Sig),
    Optional(&'static Sig),
    Type(&'static Sig),
}

impl Sig {
    /// The type, with this call's variables for the letters.
    pub fn instantiate(&self, letters: &mut [Option<Ty>; 2], bindings: &mut Bindings) -> Ty {
        match self {
            Self::Dyn => Ty::Dyn,
            Self::Bool => Ty::Bool,
            Self::Int => Ty::Int,
            Self::Uint => Ty::Uint,
            Self::Double => Ty::Double,
            Self::String => Ty::String,
            Self::Bytes => Ty::Bytes,
            Self::Timestamp => Ty::Timestamp,
            Self::Duration => Ty::Duration,
            Self::A => letters[0].get_or_insert_with(|| bindings.free()).clone(),
            Self::B => letters[1].get_or_insert_with(|| bindings.free()).clone(),
            Self::List(inner) => Ty::list(inner.instantiate(letters, bindings)),
            Self::Map(key, value) => {
                let key = key.instantiate(letters, bindings);
                Ty::map(key, value.instantiate(letters, bindings))
            }
            Self::Optional(inner) => Ty::optional(inner.instantiate(letters, bindings)),
            Self::Type(inner) => Ty::of_type(inner.instantiate(letters, bindings)),
        }
    }
}

/// The function of this name.
pub(super) fn named(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}

/// Every function and operator.
pub(super) fn all() -> impl Iterator<Item = &'static Function> {
    [operators::TABLE, collections::TABLE, convert::TABLE, strings::TABLE, time::TABLE].into_iter().flatten()
}

/// An operator, or a function whose arguments stand in parentheses.
const fn plain(args: &'static [Sig], result: Sig) -> Overload {
    Overload { member: false, args, result }
}

/// A function whose first argument stands before its name.
const fn member(args: &'static [Sig], result: Sig) -> Overload {
    Overload { member: true, args, result }
}

const fn function(
    name: &'static str,
    overloads: &'static [Overload],
    run: fn(&mut Meter, &[Value]) -> Outcome,
) -> Function {
    Function { name, overloads, run: Run::Values(run) }
}
