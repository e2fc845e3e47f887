//! `matches`: the patterns of [`crate::regexes`], and what running one costs.

use std::sync::Arc;

use super::{
    ast::Pattern,
    fault::{Meter, Outcome},
    limits,
};
use crate::regexes;

/// Compiles a pattern with Go's meaning.
///
/// # Errors
/// The reason why it doesn't compile.
pub(super) fn compile(pattern: &str) -> Result<Arc<Pattern>, String> {
    let regex = regexes::compile_one(pattern)?;
    Ok(Arc::new(Pattern { regex, weight: weight(pattern) }))
}

/// About how many states a pattern has: its letters, and those of classes, as often as they are repeated. Go's bound on
/// repetitions, nested ones multiplied, is a bound here too.
fn weight(pattern: &str) -> u64 {
    let classes = pattern.matches("\\p").count() + pattern.matches("\\P").count() + pattern.matches("(?i").count();
    let repeated = pattern.split('{').skip(1).filter_map(|rest| {
        let counts = rest.split('}').next()?;
        counts.split(',').filter_map(|count| count.parse::<u64>().ok()).max()
    });
    let repeated = repeated.fold(1u64, |product, count| product.saturating_mul(count.max(1)).min(1000));
    (pattern.len() as u64 + 200 * classes as u64).saturating_mul(repeated)
}

/// Whether the pattern matches somewhere in the text.
pub(super) fn is_match(pattern: &Pattern, text: &str, meter: &mut Meter) -> Outcome<bool> {
    meter.read(text.len())?;
    meter.spend((text.len() as u64).saturating_mul(pattern.weight) / limits::REGEX_WORK_PER_STEP)?;
    Ok(pattern.regex.is_match(text))
}
