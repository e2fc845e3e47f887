//! Go's regular expression syntax into Rust's, token by token. Every token of the result means one thing only: literals
//! are escaped, classes are spelled out, groups don't capture.

use super::class;

/// Go's bound on counted repetitions, nested ones multiplied.
const MAX_REPEAT: u32 = 1000;

/// Rust's spelling of the pattern.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator { rest: pattern, out: String::new(), outer: Vec::new(), group: Group::default() };
    let mut stacked = false;
    while let Some(c) = translator.rest.chars().next() {
        stacked = translator.token(c, stacked)?;
    }
    if translator.outer.is_empty() { Ok(translator.out) } else { Err("missing closing )".into()) }
}

/// The group that is being read, or the whole pattern.
#[derive(Default)]
struct Group {
    /// Where in the output the last operand ends, which a repetition applies to.
    operand: Option<usize>,
    /// Product of the counted repetitions nested in the last operand.
    last: u32,
    /// The largest such product in the group.
    largest: u32,
}

struct Translator<'p> {
    rest: &'p str,
    out: String,
    outer: Vec<Group>,
    group: Group,
}

impl Translator<'_> {
    /// Takes one token; `stacked` tells that the token before it was a repetition, and so does the answer of this one.
    fn token(&mut self, c: char, stacked: bool) -> Result<bool, String> {
        match c {
            '(' => self.open()?,
            ')' => self.close()?,
            '|' => {
                self.skip(1);
                self.out.push('|');
                self.group.operand = None;
            }
            '*' | '+' | '?' => {
                self.skip(1);
                return self.repeat(&c.to_string(), stacked, None);
            }
            '{' => {
                if let Some(counts) = Counts::read(self.rest) {
                    return self.repeat_counted(&counts, stacked);
                }
                self.skip(1);
                self.operand(&class::literal(c));
            }
            '^' | '$' | '.' => {
                let same = self.skip(1).to_owned();
                self.operand(&same);
            }
            '[' => {
                let class = class::bracketed(&mut self.rest)?;
                self.operand(&class);
            }
            '\\' => self.escape()?,
            _ => {
                self.skip(c.len_utf8());
                self.operand(&class::literal(c));
            }
        }
        Ok(false)
    }

    fn skip(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    fn operand(&mut self, text: &str) {
        self.operand_with(text, 1);
    }

    fn operand_with(&mut self, text: &str, product: u32) {
        self.out.push_str(text);
        self.group.operand = Some(self.out.len());
        self.group.last = product;
        self.group.largest = self.group.largest.max(product);
    }

    fn open(&mut self) -> Result<(), String> {
        let rest = self.rest;
        let lookbehind = rest.starts_with("(?<=") || rest.starts_with("(?<!");
        let named = rest.strip_prefix("(?P<").or_else(|| rest.strip_prefix("(?<").filter(|_| !lookbehind));
        if let Some(named) = named {
            let Some((name, after)) = named.split_once('>') else {
                return Err(format!("invalid named capture: {rest}"));
            };
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(format!("invalid named capture: {name}"));
            }
            self.rest = after;
            self.out.push_str("(?:");
        } else if let Some(after) = rest.strip_prefix("(?") {
            let invalid =
                || format!("invalid or unsupported Perl syntax: {}", after.chars().take(3).collect::<String>());
            let end = after.find([')', ':']).ok_or_else(invalid)?;
            let flags = Flags::read(&after[..end]).ok_or_else(invalid)?;
            self.rest = &after[end + 1..];
            if after[end..].starts_with(')') {
                // Holds until the group closes, and is no operand.
                self.out.push_str(&flags.write(")"));
                return Ok(());
            }
            self.out.push_str(&flags.write(":"));
        } else {
            self.skip(1);
            self.out.push_str("(?:");
        }
        self.outer.push(std::mem::take(&mut self.group));
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(outer) = self.outer.pop() else { return Err("unexpected )".into()) };
        self.skip(1);
        let inner = std::mem::replace(&mut self.group, outer);
        self.operand_with(")", inner.largest.max(1));
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix(r"\Q") {
            let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            for c in text.chars() {
                self.operand(&class::literal(c));
            }
            self.rest = after;
            return Ok(());
        }
        let assertion = match self.rest.as_bytes().get(1) {
            Some(b'A') => Some(r"\A"),
            Some(b'z') => Some(r"\z"),
            Some(b'b') => Some(r"(?-u:\b)"),
            Some(b'B') => Some(r"(?-u:\B)"),
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.skip(2);
            self.operand(assertion);
            return Ok(());
        }
        let text = match class::shorthand(&mut self.rest)? {
            Some(class) => class,
            None => class::escaped(&mut self.rest)?.map_or_else(|| class::NOTHING.into(), class::literal),
        };
        self.operand(&text);
        Ok(())
    }

    fn repeat_counted(&mut self, counts: &Counts, stacked: bool) -> Result<bool, String> {
        let text = self.skip(counts.length).to_owned();
        let invalid = || format!("invalid repeat count: {text}");
        if counts.min > MAX_REPEAT || counts.max.is_some_and(|max| max > MAX_REPEAT || counts.min > max) {
            return Err(invalid());
        }
        let product = match counts.max.unwrap_or(counts.min) {
            0 if counts.max.is_some() => 1,
            times => self.group.last.max(1).saturating_mul(times.max(1)),
        };
        if (counts.min >= 2 || counts.max.is_some_and(|max| max >= 2)) && product > MAX_REPEAT {
            return Err(invalid());
        }
        let operator = match counts.max {
            Some(max) => format!("{{{},{max}}}", counts.min),
            None => format!("{{{},}}", counts.min),
        };
        self.repeat(&operator, stacked, Some(product))
    }

    /// Applies a repetition, which was taken already, to the last operand.
    fn repeat(&mut self, operator: &str, stacked: bool, product: Option<u32>) -> Result<bool, String> {
        let lazy = self.rest.starts_with('?');
        if lazy {
            self.skip(1);
        }
        if stacked {
            return Err(format!("invalid nested repetition operator: {operator}"));
        }
        let end = self.group.operand.ok_or_else(|| format!("missing argument to repetition operator: {operator}"))?;
        // Flags may stand between the operand and its repetition. Greed doesn't change whether there is a match, so
        // that the lazy form needs no mark; and a question mark must not become one.
        let operator = if operator == "?" { "{0,1}" } else { operator };
        self.out.insert_str(end, operator);
        self.group.operand = Some(end + operator.len());
        if let Some(product) = product {
            self.group.last = product;
            self.group.largest = self.group.largest.max(product);
        }
        Ok(true)
    }
}

/// `{n}`, `{n,}` or `{n,m}`. Anything else in braces is plain text.
struct Counts {
    min: u32,
    max: Option<u32>,
    length: usize,
}

impl Counts {
    fn read(text: &str) -> Option<Self> {
        let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
        // A number too large to hold is an invalid count, not plain text.
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let leading_zero = digits.len() > 1 && digits.starts_with('0');
            (plain && !leading_zero).then(|| digits.parse().unwrap_or(u32::MAX))
        };
        let (min, max) = match inside.split_once(',') {
            None => number(inside).map(|n| (n, Some(n)))?,
            Some((min, "")) => (number(min)?, None),
            Some((min, max)) => (number(min)?, Some(number(max)?)),
        };
        Some(Self { min, max, length: inside.len() + 2 })
    }
}

/// The flags of a group: on, off, or left alone.
#[derive(Default)]
struct Flags([Option<bool>; 3]);

impl Flags {
    fn read(text: &str) -> Option<Self> {
        let mut flags = Self::default();
        let (on, off) = match text.split_once('-') {
            Some((_, "")) => return None,
            Some((on, off)) => (on, off),
            None => (text, ""),
        };
        for (letters, value) in [(on, true), (off, false)] {
            for letter in letters.bytes() {
                match letter {
                    b'i' => flags.0[0] = Some(value),
                    b'm' => flags.0[1] = Some(value),
                    b's' => flags.0[2] = Some(value),
                    // Greed: without effect on whether there is a match.
                    b'U' => {}
                    _ => return None,
                }
            }
        }
        Some(flags)
    }

    fn write(&self, end: &str) -> String {
        let letters = |value| ['i', 'm', 's'].into_iter().zip(self.0).filter(move |(_, v)| *v == Some(value));
        let on: String = letters(true).map(|(letter, _)| letter).collect();
        let off: String = letters(false).map(|(letter, _)| letter).collect();
        match (on.is_empty() && off.is_empty(), off.is_empty()) {
            (true, _) if end == ")" => String::new(),
            (_, true) => format!("(?{on}{end}"),
            (_, false) => format!("(?{on}-{off}{end}"),
        }
    }
}
