//! The tree of an expression. Macros stay what was written, rather than becoming the loops that they stand for: errors
//! speak of them, and the evaluator knows what each may cut short.

use std::sync::Arc;

use regex::Regex;

use super::{
    functions::Function,
    value::{Key, Value},
};

/// A node with its place in the source, in bytes.
#[derive(Debug)]
pub(super) struct Node {
    pub at: u32,
    pub depth: u16,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Literal(Value),
    /// A name, until the checker knows what it stands for.
    Name(String),
    /// A declared variable or a macro's, by its place on the stack.
    Variable(usize),
    Select {
        operand: Box<Node>,
        field: Key,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Node>,
        field: Key,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// Condition, then, else.
    If(Box<[Node; 3]>),
    Call(Call),
    Macro(Box<Macro>),
}

#[derive(Debug)]
pub(super) struct Element {
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) struct Call {
    pub name: String,
    /// Set by the checker.
    pub function: Option<&'static Function>,
    /// Whether the first argument stands before the name.
    pub member: bool,
    pub args: Vec<Node>,
    /// The compiled second argument of `matches`, when it is a literal.
    pub pattern: Option<Arc<Pattern>>,
}

/// A compiled pattern and what it costs.
#[derive(Debug)]
pub(super) struct Pattern {
    pub regex: Regex,
    /// About how many states it has.
    pub weight: u64,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub kind: MacroKind,
    pub range: Node,
    pub variable: String,
    /// The condition of `map` with three arguments.
    pub condition: Option<Node>,
    pub body: Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    OptMap,
    OptFlatMap,
}

impl MacroKind {
    /// The macro of a member call with this name and so many arguments.
    pub fn of(name: &str, args: usize) -> Option<Self> {
        Some(match (name, args) {
            ("all", 2) => Self::All,
            ("exists", 2) => Self::Exists,
            ("exists_one", 2) => Self::ExistsOne,
            ("map", 2 | 3) => Self::Map,
            ("filter", 2) => Self::Filter,
            ("optMap", 2) => Self::OptMap,
            ("optFlatMap", 2) => Self::OptFlatMap,
            _ => return None,
        })
    }
}

impl Node {
    /// A node one deeper than its deepest child.
    pub fn new(at: u32, kind: Kind) -> Self {
        let mut deepest = 0;
        let mut see = |node: &Self| deepest = deepest.max(node.depth);
        match &kind {
            Kind::Literal(_) | Kind::Name(_) | Kind::Variable(_) => {}
            Kind::Select { operand, .. } | Kind::Has { operand, .. } => see(operand),
            Kind::Index { operand, index, .. } => [operand, index].into_iter().for_each(|node| see(node)),
            Kind::List(elements) => elements.iter().for_each(|element| see(&element.value)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                see(&entry.key);
                see(&entry.value);
            }),
            Kind::And(nodes) | Kind::Or(nodes) => nodes.iter().for_each(see),
            Kind::If(nodes) => nodes.iter().for_each(see),
            Kind::Call(call) => call.args.iter().for_each(see),
            Kind::Macro(folded) => {
                [Some(&folded.range), folded.condition.as_ref(), Some(&folded.body)]
                    .into_iter()
                    .flatten()
                    .for_each(see);
            }
        }
        Self { at, depth: deepest.saturating_add(1), kind }
    }

    /// A call of a function or an operator.
    pub fn call(at: u32, name: impl Into<String>, member: bool, args: Vec<Self>) -> Self {
        Self::new(at, Kind::Call(Call { name: name.into(), function: None, member, args, pattern: None }))
    }

    /// `a.b.c` when the node is nothing but such a name.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Name(name) => Some(name.clone()),
            Kind::Select { operand, field, optional: false } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }
}
