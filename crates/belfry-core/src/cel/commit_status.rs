//! The id of a commit status from a Provider's `commitStatusExpr`.

use super::{BadExpression, EvalError, Program, Type, Value, compile, limits};

/// Why there is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCommitStatusId {
    /// The expression failed on this event.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    /// No git host takes an empty one.
    #[error("commit status cannot be empty")]
    Empty,
    /// Nor one that is as long as this, in bytes.
    #[error("the commit status has {0} bytes, which no Git host takes")]
    TooLong(usize),
}

/// Compiles a `commitStatusExpr`.
///
/// # Errors
/// When it doesn't parse or check, or isn't a `string` by its type.
pub fn compile_commit_status(expression: &str) -> Result<Program, BadExpression> {
    let variables = [("event", Type::Object), ("alert", Type::Object), ("provider", Type::Object)];
    compile(expression, &variables, Type::String)
}

/// The id for an event, with its metadata combined already; all three as JSON.
///
/// # Errors
/// When the evaluation fails, or the id is empty or endless.
pub fn commit_status_id(
    program: &Program,
    event: &serde_json::Value,
    alert: &serde_json::Value,
    provider: &serde_json::Value,
) -> Result<String, NoCommitStatusId> {
    let variables = [("event", event), ("alert", alert), ("provider", provider)];
    let id = program.evaluate_string(&variables.map(|(name, json)| (name, Value::typed(json))))?;
    match id.len() {
        0 => Err(NoCommitStatusId::Empty),
        1..=limits::COMMIT_STATUS_ID => Ok(id),
        bytes => Err(NoCommitStatusId::TooLong(bytes)),
    }
}
