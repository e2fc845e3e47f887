//! The types that the checker infers, and how they agree: `dyn` with everything, lists and maps part by part, free
//! variables (an empty list's element, a function's parameter) with what they meet first, made more general later.

use std::{fmt, sync::Arc};

use super::limits;

/// A type as the checker sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ty {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Ty>),
    Map(Arc<(Ty, Ty)>),
    Optional(Arc<Ty>),
    Type(Arc<Ty>),
    Free(usize),
}

impl Ty {
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    pub fn of_type(inner: Self) -> Self {
        Self::Type(Arc::new(inner))
    }

    /// The parts of two types of the same shape, pair by pair.
    fn pairs<'t>(&'t self, other: &'t Self) -> Option<Vec<(&'t Self, &'t Self)>> {
        match (self, other) {
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => Some(vec![(a, b)]),
            (Self::Map(a), Self::Map(b)) => Some(vec![(&a.0, &b.0), (&a.1, &b.1)]),
            _ => None,
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::List(inner) | Self::Optional(inner) | Self::Type(inner) => vec![inner],
            Self::Map(pair) => vec![&pair.0, &pair.1],
            _ => Vec::new(),
        }
    }

    fn is_less_specific(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Free(_), _) | (Self::Type(_), Self::Type(_)) => true,
            (_, Self::Dyn | Self::Free(_)) => false,
            _ => match self.pairs(other) {
                Some(pairs) => pairs.into_iter().all(|(a, b)| a.is_less_specific(b)),
                None => self == other,
            },
        }
    }

    /// The more general of two types that agree.
    pub fn most_general(self, other: Self) -> Self {
        if self.is_less_specific(&other) { self } else { other }
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Free(_) => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(pair) => write!(f, "map({}, {})", pair.0, pair.1),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type(inner) => write!(f, "type({inner})"),
        }
    }
}

/// What the free variables stand for so far.
#[derive(Default)]
pub(super) struct Bindings {
    bound: Vec<Option<Ty>>,
    /// What to put back when an attempt fails.
    trail: Vec<(usize, Option<Ty>)>,
    depth: usize,
}

/// Chains of variables that are followed. Longer ones don't agree with anything, which no sensible expression sees.
const CHAIN: usize = 256;

impl Bindings {
    pub fn free(&mut self) -> Ty {
        self.bound.push(None);
        Ty::Free(self.bound.len() - 1)
    }

    fn bind(&mut self, variable: usize, to: Ty) {
        if let Some(slot) = self.bound.get_mut(variable) {
            self.trail.push((variable, slot.replace(to)));
        }
    }

    fn binding(&self, variable: usize) -> Option<&Ty> {
        self.bound.get(variable)?.as_ref()
    }

    /// Whether every pair agrees. If so, the variables are bound accordingly, and if not, nothing changes.
    pub fn agree<'t>(&mut self, pairs: impl IntoIterator<Item = (&'t Ty, &'t Ty)>) -> bool {
        self.trail.clear();
        if pairs.into_iter().all(|(from, to)| self.assignable(from, to)) {
            return true;
        }
        while let Some((variable, before)) = self.trail.pop() {
            self.bound[variable] = before;
        }
        false
    }

    fn assignable(&mut self, from: &Ty, to: &Ty) -> bool {
        self.depth += 1;
        let agree = self.depth < CHAIN && self.assignable_inner(from, to);
        self.depth -= 1;
        agree
    }

    fn assignable_inner(&mut self, from: &Ty, to: &Ty) -> bool {
        if let Ty::Free(variable) = *to {
            match self.substitutes(from, variable) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Ty::Free(variable) = *from {
            return self.substitutes(to, variable).0;
        }
        match (from, to) {
            (Ty::Dyn, _) | (_, Ty::Dyn) | (Ty::Type(_), Ty::Type(_)) => true,
            (Ty::Null, other) | (other, Ty::Null) => {
                matches!(other, Ty::Null | Ty::Optional(_) | Ty::Timestamp | Ty::Duration)
            }
            _ => match from.pairs(to) {
                Some(pairs) => pairs.into_iter().all(|(from, to)| self.assignable(from, to)),
                None => from == to,
            },
        }
    }

    /// Whether the variable can stand for the type, and whether it already stands for something.
    fn substitutes(&mut self, ty: &Ty, variable: usize) -> (bool, bool) {
        if *ty == Ty::Free(variable) {
            return (true, true);
        }
        if let Some(bound) = self.binding(variable).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if !self.assignable(ty, &bound) {
                return (false, true);
            }
            let general = ty.clone().most_general(bound);
            if !self.occurs(variable, &general) {
                self.bind(variable, general);
            }
            return (true, true);
        }
        if self.occurs(variable, ty) {
            return (false, false);
        }
        self.bind(variable, ty.clone());
        (true, false)
    }

    fn occurs(&self, variable: usize, within: &Ty) -> bool {
        let mut work = vec![within];
        let mut seen = 0;
        while let Some(ty) = work.pop() {
            seen += 1;
            match ty {
                Ty::Free(other) if *other == variable => return true,
                Ty::Free(other) => work.extend(self.binding(*other)),
                _ => work.extend(ty.parts()),
            }
            if seen > CHAIN * limits::TYPE_PARTS {
                return true;
            }
        }
        false
    }

    /// Whether the type, written out, has more parts than allowed.
    fn is_too_large(&self, ty: &Ty) -> bool {
        let mut work = vec![ty];
        let (mut parts, mut links) = (0, 0);
        while let Some(ty) = work.pop() {
            match ty {
                Ty::Free(variable) if self.binding(*variable).is_some() => {
                    links += 1;
                    work.extend(self.binding(*variable));
                }
                _ => {
                    parts += 1;
                    work.extend(ty.parts());
                }
            }
            if parts > limits::TYPE_PARTS || links > CHAIN {
                return true;
            }
        }
        false
    }

    /// The type with its bound variables replaced; `None` when it's too large to go on with.
    pub fn resolve(&self, ty: &Ty) -> Option<Ty> {
        (!self.is_too_large(ty)).then(|| self.replace(ty))
    }

    fn replace(&self, ty: &Ty) -> Ty {
        match ty {
            Ty::Free(variable) => match self.binding(*variable) {
                Some(bound) => self.replace(bound),
                None => ty.clone(),
            },
            Ty::List(inner) => Ty::list(self.replace(inner)),
            Ty::Map(pair) => Ty::map(self.replace(&pair.0), self.replace(&pair.1)),
            Ty::Optional(inner) => Ty::optional(self.replace(inner)),
            Ty::Type(inner) => Ty::of_type(self.replace(inner)),
            _ => ty.clone(),
        }
    }

    /// The type with the variables that nothing bound made `dyn`.
    pub fn settle(&self, ty: &Ty) -> Option<Ty> {
        fn settled(ty: Ty) -> Ty {
            match ty {
                Ty::Free(_) => Ty::Dyn,
                Ty::List(inner) => Ty::list(settled((*inner).clone())),
                Ty::Map(pair) => Ty::map(settled(pair.0.clone()), settled(pair.1.clone())),
                Ty::Optional(inner) => Ty::optional(settled((*inner).clone())),
                Ty::Type(inner) => Ty::of_type(settled((*inner).clone())),
                _ => ty,
            }
        }
        self.resolve(ty).map(settled)
    }
}
