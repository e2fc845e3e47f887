//! CEL as Flux uses it: filters of Receivers, claims of OIDC tokens, ids of commit statuses. An expression is parsed,
//! checked and compiled once, when its object is read, and evaluated for every webhook or event.
//!
//! The checker decides as cel-go's does. The evaluator counts its steps and the bytes that it makes, and ends when
//! either runs out ([`limits`]): an expression comes from a tenant and its input from outside, while threads and memory
//! are everybody's. It knows nothing of receivers, providers or clocks.

use std::{fmt, sync::Arc};

mod ast;
mod check;
mod commit_status;
mod eval;
mod fault;
mod functions;
mod json;
mod lex;
pub mod limits;
mod parse;
mod regex;
mod suggest;
mod types;
mod value;

pub use commit_status::{NoCommitStatusId, commit_status_id, compile_commit_status};
pub use json::NotJson;
use types::Ty;
pub use value::{Key, Moment, Value};

/// A type that a variable is declared with, or that a result must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `list(dyn)`; as a result, any list.
    List,
    /// `map(string, dyn)`, a JSON object; as a result, any map.
    Object,
    /// Anything.
    Dyn,
}

impl Type {
    fn declared(self) -> Ty {
        match self {
            Self::Bool => Ty::Bool,
            Self::String => Ty::String,
            Self::List => Ty::list(Ty::Dyn),
            Self::Object => Ty::map(Ty::String, Ty::Dyn),
            Self::Dyn => Ty::Dyn,
        }
    }

    fn admits(self, result: &Ty) -> bool {
        match self {
            Self::Bool => *result == Ty::Bool,
            Self::String => *result == Ty::String,
            Self::List => matches!(result, Ty::List(_)),
            Self::Object => matches!(result, Ty::Map(_)),
            Self::Dyn => true,
        }
    }
}

/// An expression that can't be used, in words for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadExpression {
    /// Line and column, from one, in characters; `None` when it is about the whole.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

impl BadExpression {
    fn at(source: &str, byte: usize, message: impl Into<String>) -> Self {
        Self { position: Some(position(source, byte)), message: message.into() }
    }

    fn whole(message: impl Into<String>) -> Self {
        Self { position: None, message: message.into() }
    }
}

impl std::error::Error for BadExpression {}

impl fmt::Display for BadExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_placed(f, self.position, &self.message)
    }
}

/// An evaluation that came to no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// Line and column in the expression, from one, in characters; `None` when it is about the whole.
    pub position: Option<(usize, usize)>,
    /// What went wrong. It may quote from the input: keys, and the beginning of a text.
    pub message: String,
    /// Whether the budget ran out ([`limits`]), rather than the expression failing on its input.
    pub cut_off: bool,
}

impl EvalError {
    fn whole(message: impl Into<String>) -> Self {
        Self { position: None, message: message.into(), cut_off: false }
    }
}

impl std::error::Error for EvalError {}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_placed(f, self.position, &self.message)
    }
}

fn write_placed(f: &mut fmt::Formatter<'_>, position: Option<(usize, usize)>, message: &str) -> fmt::Result {
    match position {
        Some((line, column)) => write!(f, "{line}:{column}: {message}"),
        None => f.write_str(message),
    }
}

fn position(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte.min(source.len())).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A compiled expression. Clones share it.
#[derive(Clone)]
pub struct Program(Arc<Compiled>);

struct Compiled {
    source: String,
    variables: Vec<String>,
    root: ast::Node,
}

/// Compiles an expression over variables of these types. A result that must be `bool` or `string` has to be so by its
/// type: `dyn`, such as a field of an object, is refused, as in the peer.
///
/// # Errors
/// When it is too long, doesn't parse, doesn't check, or is of another type.
pub fn compile(expression: &str, variables: &[(&str, Type)], result: Type) -> Result<Program, BadExpression> {
    let mut root = parse::parse(expression)?;
    let declared: Vec<_> = variables.iter().map(|(name, ty)| (*name, ty.declared())).collect();
    let found = check::check(expression, &mut root, &declared)?;
    if !result.admits(&found) {
        let wanted = result.declared();
        return Err(BadExpression::whole(format!(
            "CEL expression output type mismatch: expected {wanted}, got {found}"
        )));
    }
    let variables = variables.iter().map(|(name, _)| (*name).to_owned()).collect();
    Ok(Program(Arc::new(Compiled { source: expression.to_owned(), variables, root })))
}

impl Program {
    /// The expression as written.
    pub fn expression(&self) -> &str {
        &self.0.source
    }

    /// Evaluates the expression. Variables that it wasn't compiled with are passed over.
    ///
    /// # Errors
    /// When a declared variable isn't given, the expression fails on this input, or its budget runs out.
    pub fn evaluate(&self, variables: &[(&str, Value)]) -> Result<Value, EvalError> {
        let mut stack = Vec::with_capacity(self.0.variables.len() + 4);
        for name in &self.0.variables {
            let given = variables.iter().find(|(given, _)| given == name);
            let (_, value) = given.ok_or_else(|| EvalError::whole(format!("the variable '{name}' has no value")))?;
            stack.push(value.clone());
        }
        eval::Evaluation::new(stack).eval(&self.0.root).map_err(|fault| EvalError {
            position: fault.at.map(|at| position(&self.0.source, at as usize)),
            message: fault.message,
            cut_off: fault.cut_off,
        })
    }

    /// Evaluates a condition.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when the result isn't a `bool`.
    pub fn evaluate_bool(&self, variables: &[(&str, Value)]) -> Result<bool, EvalError> {
        match self.evaluate(variables)? {
            Value::Bool(value) => Ok(value),
            other => Err(EvalError::whole(format!("expected a bool, got a {}", other.type_name()))),
        }
    }

    /// Evaluates an expression of text.
    ///
    /// # Errors
    /// As [`Self::evaluate`], and when the result isn't a `string`.
    pub fn evaluate_string(&self, variables: &[(&str, Value)]) -> Result<String, EvalError> {
        match self.evaluate(variables)? {
            Value::String(text) => Ok(text.to_string()),
            other => Err(EvalError::whole(format!("expected a string, got a {}", other.type_name()))),
        }
    }
}

impl PartialEq for Program {
    /// Whether they were written alike.
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source && self.0.variables == other.0.variables
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.0.source).finish()
    }
}

#[cfg(test)]
mod tests;
