//! The regular expressions of Alerts: Go's RE2 syntax and meaning on Rust's engine. A pattern is translated, not handed
//! on, because the two differ in silence: `\d`, `\w`, `\s` and `\b` are ASCII in Go, `\<` is a plain character there,
//! `[a&&b]` holds an ampersand, `\s` has no vertical tab. What Go refuses is refused.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::limits;

mod class;
mod names;
mod translate;

/// A list of patterns of which any may match.
#[derive(Clone, Default)]
pub struct Regexes {
    patterns: Vec<String>,
    compiled: Vec<Regex>,
    bad: Vec<BadRegex>,
}

/// A pattern that doesn't compile. It matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern}: {reason}")]
pub struct BadRegex {
    /// Its place in the list.
    pub index: usize,
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Compiles a list. Never fails: a bad pattern matches nothing and is listed in [`Regexes::bad`].
pub fn compile(patterns: &[String]) -> Regexes {
    let mut list = Regexes { patterns: patterns.to_vec(), ..Regexes::default() };
    for (index, pattern) in patterns.iter().enumerate() {
        match compile_one(pattern) {
            Ok(regex) => list.compiled.push(regex),
            Err(reason) => list.bad.push(BadRegex { index, pattern: pattern.clone(), reason }),
        }
    }
    list
}

/// Compiles one pattern with Go's meaning.
///
/// # Errors
/// The reason why it doesn't compile.
pub fn compile_one(pattern: &str) -> Result<Regex, String> {
    let translated = translate::translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(limits::REGEX_SIZE).dfa_size_limit(limits::REGEX_SIZE).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(limit) => format!("it compiles to more than {limit} bytes"),
            // Says which limit was exceeded; the translation itself is not what the user wrote.
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        },
    )
}

impl Regexes {
    /// Whether any pattern matches somewhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.iter().any(|regex| regex.is_match(text))
    }

    /// The first pattern that matches somewhere in the text, as written.
    pub fn first_match(&self, text: &str) -> Option<&str> {
        let is_good = |index: usize| self.bad.iter().all(|bad| bad.index != index);
        let good = self.patterns.iter().enumerate().filter(|(index, _)| is_good(*index)).map(|(_, pattern)| pattern);
        good.zip(&self.compiled).find(|(_, regex)| regex.is_match(text)).map(|(pattern, _)| pattern.as_str())
    }

    /// Whether no pattern was given, good or bad.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns as written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The patterns that don't compile.
    pub fn bad(&self) -> &[BadRegex] {
        &self.bad
    }
}

impl fmt::Debug for Regexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.patterns).finish()
    }
}

#[cfg(test)]
mod tests;
