//! What stops an evaluation: a fault of the expression or its input, or its budget.

use super::{
    limits,
    value::{Key, Value},
};

/// Why a node has no value. Boxed, as nearly every result is a value.
pub(super) type Outcome<T = Value> = Result<T, Box<Fault>>;

/// A fault, and where it came up.
#[derive(Debug)]
pub(super) struct Fault {
    pub message: String,
    pub at: Option<u32>,
    /// Out of budget: `||` and `&&` don't absorb it.
    pub cut_off: bool,
    /// The message is yet to be written by who knows the function's name.
    pub no_overload: bool,
}

impl Fault {
    /// A fault that the logical operators absorb.
    pub fn new(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { message: message.into(), at: None, cut_off: false, no_overload: false })
    }

    /// No variant of the function takes arguments of these types.
    pub fn no_overload() -> Box<Self> {
        Box::new(Self { no_overload: true, ..*Self::new("no such overload") })
    }

    /// The end of the evaluation, whatever is around it.
    pub fn cut_off(message: impl Into<String>) -> Box<Self> {
        Box::new(Self { cut_off: true, ..*Self::new(message) })
    }

    /// Quotes no more than the beginning: loops may absorb such faults by the thousand.
    pub fn no_such_key(key: &Key) -> Box<Self> {
        match key {
            Key::String(name) => Self::new(format!("no such key: {}", quoted(name))),
            key => Self::new(format!("no such key: {key}")),
        }
    }

    /// The same with its place, unless it has one.
    pub fn placed(mut self: Box<Self>, at: u32) -> Box<Self> {
        self.at.get_or_insert(at);
        self
    }
}

/// The beginning of a text, as far as a message repeats it.
pub(super) fn quoted(text: &str) -> &str {
    text.char_indices().nth(limits::QUOTED).map_or(text, |(end, _)| &text[..end])
}

/// What is left of an evaluation's budget. Every node takes a step, every function what it does in proportion to its
/// input, before it does it.
#[derive(Debug)]
pub(super) struct Meter {
    steps: u64,
    bytes: u64,
}

impl Meter {
    pub fn new() -> Self {
        Self { steps: limits::STEPS, bytes: limits::BYTES }
    }

    pub fn spend(&mut self, steps: u64) -> Outcome<()> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(Fault::cut_off(format!("the evaluation was cut off after {} steps", limits::STEPS))),
        }
    }

    /// Pays for looking at so many bytes.
    pub fn read(&mut self, bytes: usize) -> Outcome<()> {
        self.spend(bytes as u64 / limits::BYTES_PER_STEP)
    }

    /// Pays for looking a key up in a map, which compares it with as many as its tree is deep.
    pub fn look_up(&mut self, key: &Key, entries: usize) -> Outcome<()> {
        match key {
            Key::String(name) => {
                self.read(name.len().saturating_mul(1 + entries.checked_ilog2().unwrap_or(0) as usize))
            }
            _ => Ok(()),
        }
    }

    /// Pays for creating so many bytes.
    pub fn create(&mut self, bytes: usize) -> Outcome<()> {
        self.read(bytes)?;
        match self.bytes.checked_sub(bytes as u64) {
            Some(left) => {
                self.bytes = left;
                Ok(())
            }
            None => {
                Err(Fault::cut_off(format!("the evaluation was cut off: it makes more than {} bytes", limits::BYTES)))
            }
        }
    }

    /// Pays for a list or map of so many entries.
    pub fn create_entries(&mut self, entries: usize) -> Outcome<()> {
        self.create(entries.saturating_mul(size_of::<Value>()))
    }

    /// Pays for a text, and makes it a value.
    pub fn text(&mut self, text: &str) -> Outcome {
        self.create(text.len())?;
        Ok(Value::from(text))
    }
}
