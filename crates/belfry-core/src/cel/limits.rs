//! The bounds of expressions. Who writes one, or sends what it looks at, must not be able to hold a thread or the
//! memory of a process that serves others.

/// Bytes of the id of a commit status; hosts take far fewer.
pub const COMMIT_STATUS_ID: usize = 4096;
/// Bytes of an expression.
pub const EXPRESSION: usize = 16 * 1024;
/// Parentheses, brackets and branches inside one another.
pub(super) const NESTING: usize = 48;
/// Depth of the tree, in which a row of `+` counts once per operand.
pub(super) const DEPTH: u16 = 128;
/// Parts of a type: `list(map(string, dyn))` has four.
pub(super) const TYPE_PARTS: usize = 64;
/// Steps of one evaluation: nodes visited, and what functions do in proportion to their input.
pub const STEPS: u64 = 500_000;
/// Bytes that one evaluation creates.
pub const BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of text or values that a function handles in a step.
pub(super) const BYTES_PER_STEP: u64 = 32;
/// Literal patterns of an expression: each is compiled once and kept, and may take as much as an Alert's.
pub(super) const PATTERNS: usize = 32;
/// Steps for compiling a pattern that isn't a literal.
pub(super) const REGEX_STEPS: u64 = 25_000;
/// Bytes of a pattern that isn't a literal.
pub(super) const REGEX_PATTERN: usize = 1024;
/// States of a pattern times bytes of text that are matched in a step.
pub(super) const REGEX_WORK_PER_STEP: u64 = 16;
/// Characters of a text that a message repeats.
pub(super) const QUOTED: usize = 80;
/// Digits after the point that `format` writes.
pub(super) const PRECISION: usize = 100;
