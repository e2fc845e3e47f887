//! Figures: what each run gave, the median of them, and what is asked for.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What is asked of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// No less than this.
    Least(f64),
    /// No more than this.
    Most(f64),
}

/// One figure, with a value for every run.
#[derive(Clone, Debug)]
pub struct Figure {
    part: &'static str,
    name: &'static str,
    unit: &'static str,
    target: Option<Target>,
    values: Vec<f64>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle of the values; of an even number of them, the mean of the two in the middle.
    fn median(&self) -> f64 {
        let values = self.sorted();
        match values.len() {
            0 => f64::NAN,
            n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
        }
    }

    fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::Least(least) => self.median() >= least,
            Target::Most(most) => self.median() <= most,
        })
    }

    fn range(&self) -> (f64, f64) {
        let values = self.sorted();
        (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN))
    }
}

/// All figures, in the order in which they came up.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    /// What else should be known about the run.
    notes: Vec<String>,
}

impl Report {
    /// One more value of a figure.
    pub fn add(
        &mut self,
        part: &'static str,
        name: &'static str,
        unit: &'static str,
        value: f64,
        target: impl Into<Option<Target>>,
    ) {
        match self.figures.iter_mut().find(|figure| figure.part == part && figure.name == name) {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { part, name, unit, target: target.into(), values: vec![value] }),
        }
    }

    /// Something that isn't as it should be.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{:42} {:>10}  {:26} {:8} {}\n", "", "median", "[min .. max]", "", "target");
        let mut part = "";
        for figure in &self.figures {
            if part != figure.part {
                part = figure.part;
                let _ = writeln!(text, "{part}");
            }
            let (min, max) = figure.range();
            let range = format!("[{} .. {}]", number(min), number(max));
            let target = match figure.target {
                None => String::new(),
                Some(Target::Least(least)) => format!("≥ {}", number(least)),
                Some(Target::Most(most)) => format!("≤ {}", number(most)),
            };
            let verdict = match figure.met() {
                None => "",
                Some(true) => "  met",
                Some(false) => "  MISSED",
            };
            let median = number(figure.median());
            let line = format!("  {:40} {median:>10}  {range:26} {:8} {target}{verdict}", figure.name, figure.unit);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for note in &self.notes {
            let _ = writeln!(text, "! {note}");
        }
        text
    }

    /// For other programs.
    pub fn json(&self) -> Value {
        let figures = self.figures.iter().map(|figure| {
            let (min, max) = figure.range();
            let target = figure.target.map(|target| match target {
                Target::Least(least) => json!({"least": least}),
                Target::Most(most) => json!({"most": most}),
            });
            json!({
                "part": figure.part, "name": figure.name, "unit": figure.unit, "median": figure.median(),
                "min": min, "max": max, "values": figure.values, "target": target, "met": figure.met(),
            })
        });
        json!({"figures": figures.collect::<Vec<_>>(), "notes": self.notes})
    }
}

/// As many digits as matter.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => {
            let digits = format!("{size:.0}");
            let mut text = if value < 0.0 { "-".to_owned() } else { String::new() };
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 10.0 || value.fract() == 0.0 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_missed() {
        let mut report = Report::default();
        for value in [3.0, 1.0, 2.5] {
            report.add("Intake", "answer p99", "ms", value, Target::Most(2.0));
        }
        report.add("Intake", "accepted", "events/s", 1_234_567.8, Target::Least(20_000.0));
        report.add("Memory", "idle", "MiB", 0.1234, None);
        report.note("the disk is slow".into());
        let table: Vec<String> =
            report.table().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            table,
            [
                "median [min .. max] target",
                "Intake",
                "answer p99 2.50 [1 .. 3] ms ≤ 2 MISSED",
                "accepted 1,234,568 [1,234,568 .. 1,234,568] events/s ≥ 20,000 met",
                "Memory",
                "idle 0.123 [0.123 .. 0.123] MiB",
                "! the disk is slow",
            ]
        );
        assert_eq!(report.json()["figures"][0]["median"], 2.5);
    }
}
