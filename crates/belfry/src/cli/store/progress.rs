//! How far it is, on standard error: one line that changes at a terminal, else a line now and then.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use belfry_store::transfer::{self, Moved, Stage};

use super::{rows, say};

/// How often a terminal is told, and a log.
const OFTEN: Duration = Duration::from_millis(200);
const SELDOM: Duration = Duration::from_secs(10);
/// Clears the line.
const CLEAR: &str = "\r\u{1b}[K";

/// Shows progress.
pub(super) struct Progress {
    terminal: bool,
    started: Instant,
    /// When the rows of this table began to come.
    table: Option<(Stage, &'static str, Instant)>,
    shown: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        let now = Instant::now();
        Self { terminal: std::io::stderr().is_terminal(), started: now, table: None, shown: now }
    }
}

impl Progress {
    pub(super) fn show(&mut self, now: transfer::Progress) {
        let begun = match self.table {
            Some((stage, table, begun)) if (stage, table) == (now.stage, now.table) => begun,
            _ => {
                // What it was told after the first rows of this one.
                let begun = self.shown;
                self.table = Some((now.stage, now.table, begun));
                begun
            }
        };
        let pause = if self.terminal { OFTEN } else { SELDOM };
        if !now.done && self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let line = line(&now, begun.elapsed());
        let mut out = std::io::stderr().lock();
        // There is nobody to tell that it can't be shown.
        let _ = match (self.terminal, now.done) {
            (true, false) => write!(out, "{CLEAR}{line}").and_then(|()| out.flush()),
            (true, true) => writeln!(out, "{CLEAR}{line}"),
            (false, _) => writeln!(out, "{line}"),
        };
    }

    /// Says what was done.
    pub(super) fn end(&self, moved: &[Moved]) -> anyhow::Result<()> {
        let verified = if matches!(self.table, Some((Stage::Verifying, ..))) { ", read back and compared" } else { "" };
        say(&format!("{} rows in {:.1} s{verified}", grouped(rows(moved)), self.started.elapsed().as_secs_f64()))
    }
}

fn line(now: &transfer::Progress, took: Duration) -> String {
    let stage = match now.stage {
        Stage::Writing => "writing",
        Stage::Verifying => "verifying",
    };
    let of = match now.total {
        Some(total) if !now.done => format!(" of {}", grouped(total)),
        _ => String::new(),
    };
    // A rate over a few milliseconds says nothing.
    let rate = match took.as_secs_f64() {
        seconds if seconds >= 0.1 => format!(", {}/s", grouped((now.rows as f64 / seconds) as u64)),
        _ => String::new(),
    };
    format!("{stage} {}: {}{of} rows{rate}", now.table, grouped(now.rows))
}

/// With commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_and_how_fast() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        let now =
            |done| transfer::Progress { stage: Stage::Writing, table: "event", rows: 5000, total: Some(20_000), done };
        assert_eq!(line(&now(false), Duration::from_secs(2)), "writing event: 5,000 of 20,000 rows, 2,500/s");
        assert_eq!(line(&now(true), Duration::from_millis(2)), "writing event: 5,000 rows");
    }
}
