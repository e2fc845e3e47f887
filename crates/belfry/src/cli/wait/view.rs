//! How a wait looks: lines for a log, frames for a terminal, and the last words of both. Values in, text out.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::{
    answer::{Answer, Standing, State, Verdict},
    text::{cut, cut_front, pad, span, tame, workflow},
};

/// Objects that one answer writes a line about into a log.
const LINES: usize = 50;
/// Lines of an object's last message.
const MESSAGE_LINES: usize = 40;
/// Width of a line of such a message.
const MESSAGE_WIDTH: usize = 500;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub columns: usize,
    pub rows: usize,
    pub colour: bool,
    pub unicode: bool,
}

/// What was asked for, as shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub revision: &'a str,
    pub timeout: Duration,
    pub elapsed: Duration,
    /// By the server's clock.
    pub now: Timestamp,
    pub answer: Option<&'a Answer>,
    /// Why nobody answers just now.
    pub away: Option<&'a str>,
}

/// The lines that a log gets when the answer changes.
pub(super) fn changes(elapsed: Duration, before: Option<&Answer>, after: &Answer) -> Vec<String> {
    let clock = clock(elapsed);
    let known: BTreeMap<_, _> =
        before.into_iter().flat_map(|answer| &answer.objects).map(|one| (one.name(), one)).collect();
    let changed: Vec<&Standing> =
        after.objects.iter().filter(|one| known.get(&one.name()).is_none_or(|known| differs(known, one))).collect();
    let mut lines: Vec<String> = changed
        .iter()
        .take(LINES)
        .map(|one| {
            let text = format!("{clock}{}  {}  {}", one.name(), one.state.as_str(), one.detail());
            cut(&tame_columns(&text), MESSAGE_WIDTH, "...")
        })
        .collect();
    if changed.len() > LINES {
        lines.push(format!("{clock}and {} more: {}", changed.len() - LINES, counts(&changed[LINES..])));
    }
    if after.objects.is_empty() && before.is_none_or(|before| before.message != after.message) {
        lines.push(format!("{clock}{}", tame(&after.message)));
    }
    lines
}

/// Whether an object's change is worth a line. What is under way changes its message all the time.
fn differs(before: &Standing, after: &Standing) -> bool {
    let key = |one: &Standing| (one.state, one.reason.clone(), one.superseded_by.clone());
    key(before) != key(after) || (after.state == State::Failed && before.message != after.message)
}

/// A sign of life, for pipelines that end what is silent.
pub(super) fn still(shown: &Shown<'_>) -> String {
    let open = shown.answer.map(|answer| counts(&answer.objects.iter().collect::<Vec<_>>())).unwrap_or_default();
    let open = if open.is_empty() { "an answer".to_owned() } else { open };
    format!("{}still waiting: {open}", clock(shown.elapsed))
}

/// The line that a log gets when nobody answers.
pub(super) fn away(elapsed: Duration, why: &str) -> String {
    format!("{}{}; trying again", clock(elapsed), tame(why))
}

/// What is shown in a terminal, line by line; no line is as wide as the terminal, and all fit on it.
pub(super) fn frame(shown: &Shown<'_>, style: Style) -> Vec<String> {
    let width = style.columns.saturating_sub(1);
    let revision = tame(shown.answer.map_or(shown.revision, |answer| &answer.revision));
    let times = format!("{} of {}", span(shown.elapsed), span(shown.timeout));
    let mut lines = vec![fit(&format!("{times}  waiting for {revision}"), width, style)];
    let objects = shown.answer.map(|answer| answer.objects.as_slice()).unwrap_or_default();
    let room = style.rows.saturating_sub(4).max(1);
    let (chosen, rest) = choose(objects, room);
    let widest = chosen.iter().map(|one| tame(&one.name()).width()).max().unwrap_or_default();
    // A name may take up half of the line, if the state and the time fit beside it.
    let column = widest.min(width / 2).min(width.saturating_sub(26));
    lines.extend(chosen.iter().map(|one| row(one, shown.now, column, width, style)));
    if !rest.is_empty() {
        lines.push(fit(&format!("  and {} more: {}", rest.len(), counts(&rest)), width, style));
    }
    match (shown.away, shown.answer) {
        (Some(away), _) => lines.push(fit(&format!("  {}; trying again", tame(away)), width, style)),
        (None, Some(answer)) if objects.is_empty() => {
            lines.push(fit(&format!("  {}", tame(&answer.message)), width, style));
        }
        (None, _) => {}
    }
    lines
}

/// Those that fit, in their order: what needs attention comes before what is done.
fn choose(objects: &[Standing], room: usize) -> (Vec<&Standing>, Vec<&Standing>) {
    let mut ranked: Vec<usize> = (0..objects.len()).collect();
    ranked.sort_by_key(|&index| (objects[index].state, index));
    let mut chosen = ranked[..ranked.len().min(room)].to_vec();
    chosen.sort_unstable();
    let rest = ranked.iter().skip(room).map(|&index| &objects[index]).collect();
    (chosen.iter().map(|&index| &objects[index]).collect(), rest)
}

fn row(one: &Standing, now: Timestamp, column: usize, width: usize, style: Style) -> String {
    let ellipsis = if style.unicode { "…" } else { "~" };
    let (mark, plain, colour) = match one.state {
        State::Succeeded => ("✓", "+", "32"),
        State::Failed => ("✗", "x", "31"),
        State::Superseded => ("↷", ">", "35"),
        State::Progressing => ("●", "*", "33"),
        State::Pending | State::Unknown => ("○", "-", "2"),
    };
    let mark = if style.unicode { mark } else { plain };
    let name = pad(&cut_front(&tame(&one.name()), column, ellipsis), column);
    let took = one.took(now).map(span).unwrap_or_default();
    let text = format!("{mark} {name}  {:<11}  {took:>6}  {}", one.state.as_str(), tame(&one.detail()));
    let text = fit(&text, width, style);
    if style.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text }
}

/// A tame line, as wide as there is room, in characters that the terminal has.
fn fit(line: &str, width: usize, style: Style) -> String {
    let line = cut(line, width, if style.unicode { "…" } else { "~" });
    let line = if style.unicode { line } else { line.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect() };
    line.trim_end().to_owned()
}

/// `2 succeeded, 1 failed`.
fn counts(objects: &[&Standing]) -> String {
    let mut counts = BTreeMap::<State, usize>::new();
    for one in objects {
        *counts.entry(one.state).or_default() += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
    counts.join(", ")
}

/// The last words: what it came to, and what there is to know about those objects that aren't there.
pub(super) fn conclusion(answer: &Answer, timed_out: bool, elapsed: Duration) -> Vec<String> {
    let word = match answer.verdict {
        _ if timed_out && matches!(answer.verdict, Verdict::Pending) => "timed out",
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::Superseded => "superseded",
        Verdict::Unknown => "not tracked",
        Verdict::Pending | Verdict::Other => "pending",
    };
    let mut lines = vec![format!("{word} after {}: {}", span(elapsed), tame(&answer.message))];
    if answer.verdict == Verdict::Succeeded {
        return lines;
    }
    let left: Vec<&Standing> = answer.objects.iter().filter(|one| one.state != State::Succeeded).collect();
    for one in left.iter().take(LINES) {
        let live = one.live.as_ref().map(|live| format!(", live is {live}")).unwrap_or_default();
        let by = one.superseded_by.as_ref().map(|next| format!(" by {next}")).unwrap_or_default();
        let reason = if one.reason.is_empty() { String::new() } else { format!(": {}", one.reason) };
        lines.push(tame_columns(&format!("  {} {}{by}{reason}{live}", one.name(), one.state.as_str())));
        // The bar keeps a runner from taking a line for a command.
        let message = one.message.lines().map(tame).filter(|line| !line.is_empty());
        lines.extend(message.take(MESSAGE_LINES).map(|line| cut(&format!("    | {line}"), MESSAGE_WIDTH, "...")));
    }
    if left.len() > LINES {
        lines.push(format!("  and {} more: {}", left.len() - LINES, counts(&left[LINES..])));
    }
    lines
}

/// Annotations of GitHub Actions, for what failed. It shows ten of a step at most.
pub(super) fn annotations(answer: &Answer) -> Vec<String> {
    let failed = answer.objects.iter().filter(|one| answer.verdict == Verdict::Failed && one.state == State::Failed);
    let lines = failed.take(10).map(|one| {
        let title = workflow(&format!("{} failed", tame(&one.name())), true);
        let reason = if one.reason.is_empty() { String::new() } else { format!("{}: ", one.reason) };
        let message = cut(&tame(&format!("{reason}{}", one.message)), 4 * MESSAGE_WIDTH, "...");
        format!("::error title={title}::{}", workflow(&message, false))
    });
    lines.collect()
}

fn clock(elapsed: Duration) -> String {
    format!("[{:>6}] ", span(elapsed))
}

/// Like [`tame`], but keeps the indentation and the blanks between columns, which are ours.
fn tame_columns(line: &str) -> String {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let columns: Vec<String> = line[indent..].split("  ").map(tame).collect();
    format!("{}{}", &line[..indent], columns.join("  ").trim_end())
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
