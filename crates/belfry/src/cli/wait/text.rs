//! Text that others wrote, made fit for a terminal and for the log of a pipeline.

use std::{fmt::Write as _, time::Duration};

use serde_json::Value;
use unicode_width::UnicodeWidthStr as _;

/// A text on one line, without anything that a terminal or a pipeline would obey: control characters, those that turn the
/// direction of writing, and `##[command]` or `##vso[command]`, which runners find anywhere in a line.
pub(in crate::cli) fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !tamed.is_empty() {
            tamed.push(' ');
        }
        for c in word.chars().filter(|c| !is_invisible(*c)) {
            if c == '#' && tamed.ends_with('#') {
                tamed.push(' ');
            }
            tamed.push(c);
        }
    }
    tamed
}

/// What changes how other characters are shown, and isn't shown itself.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A JSON document in lines. What [`tame`] removes is written as escapes, which mean the same.
pub(in crate::cli) fn json(value: &Value) -> String {
    escaped(&format!("{value:#}"))
}

/// JSON that is written already, likewise.
pub(in crate::cli) fn escaped(json: &str) -> String {
    let mut tamed = String::new();
    for c in json.chars() {
        let risky = (c.is_control() && c != '\n') || is_invisible(c) || (c == '#' && tamed.ends_with('#'));
        let mut units = [0; 2];
        match risky {
            true => c.encode_utf16(&mut units).iter().for_each(|unit| {
                // Writing to a String doesn't fail.
                let _ = write!(tamed, "\\u{unit:04x}");
            }),
            false => tamed.push(c),
        }
    }
    tamed
}

/// A text cut to so many columns.
pub(super) fn cut(text: &str, columns: usize, ellipsis: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    match columns.checked_sub(ellipsis.width()) {
        Some(room) => {
            let ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).take(most_chars(room));
            let end = ends.take_while(|end| text[..*end].width() <= room).last().unwrap_or_default();
            format!("{}{ellipsis}", &text[..end])
        }
        None => String::new(),
    }
}

/// Likewise, but keeps its end: there names differ.
pub(super) fn cut_front(text: &str, columns: usize, ellipsis: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    match columns.checked_sub(ellipsis.width()) {
        Some(room) => {
            let starts = text.char_indices().rev().map(|(at, _)| at).take(most_chars(room));
            let start = starts.take_while(|start| text[*start..].width() <= room).last().unwrap_or(text.len());
            format!("{ellipsis}{}", &text[start..])
        }
        None => String::new(),
    }
}

/// Characters that are looked at for so many columns: the width of a text isn't the sum of theirs, so that each of them
/// means measuring what there is so far, and some have no width at all.
fn most_chars(columns: usize) -> usize {
    4 * columns + 16
}

/// A text and blanks, so many columns wide.
pub(super) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// A time span for people: `42s`, `1m05s`, `2h07m`.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ ..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A value of a workflow command of GitHub Actions.
pub(super) fn workflow(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for (text, expected) in [
            ("plain", "plain"),
            ("two\nlines\tand\r\nmore ", "two lines and more"),
            ("\x1b[2J\x1b]0;owned\x07x", "[2J ]0;owned x"),
            ("c1 \u{9b}31m \u{85}", "c1 31m"),
            ("\u{202e}drawkcab\u{2066}", "drawkcab"),
            ("##[set-output name=x]y ##vso[task]z ###", "# #[set-output name=x]y # #vso[task]z # # #"),
            ("#\u{200b}#[x]", "# #[x]"),
            ("größer 中文", "größer 中文"),
        ] {
            assert_eq!(tame(text), expected, "{text:?}");
        }
    }

    #[test]
    fn cuts_by_columns() {
        for (text, columns, expected) in [
            ("short", 5, "short"),
            ("too long", 5, "too …"),
            ("中文字", 5, "中文…"),
            ("中文字", 4, "中…"),
            ("x", 0, ""),
            ("xy", 1, "…"),
        ] {
            assert_eq!(cut(text, columns, "…"), expected);
        }
        for (text, columns, expected) in
            [("short", 5, "short"), ("too long", 5, "…long"), ("中文字", 4, "…字"), ("x", 0, "")]
        {
            assert_eq!(cut_front(text, columns, "…"), expected);
        }
        assert_eq!(pad("中", 4), "中  ");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (65, "1m05s"), (3599, "59m59s"), (7620, "2h07m")] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn workflow_commands_end_where_they_should() {
        assert_eq!(workflow("50%: a,b\nc", false), "50%25: a,b%0Ac");
        assert_eq!(workflow("50%: a,b\nc", true), "50%25%3A a%2Cb%0Ac");
    }

    proptest! {
        #[test]
        fn tame_text_is_tame(text in any::<String>()) {
            let tamed = tame(&text);
            prop_assert!(!tamed.chars().any(|c| c.is_control() || is_invisible(c)) && !tamed.contains("##"));
            prop_assert_eq!(tame(&tamed), tamed);
        }

        #[test]
        fn json_is_tame_and_means_the_same(text in any::<String>()) {
            let value = serde_json::json!({ &text: [&text, "##[x]\u{9b}\u{e0001}"] });
            let tamed = json(&value);
            prop_assert!(!tamed.chars().any(|c| (c.is_control() && c != '\n') || is_invisible(c)));
            prop_assert!(!tamed.contains("##"));
            prop_assert_eq!(serde_json::from_str::<Value>(&tamed).unwrap(), value);
        }

        #[test]
        fn cut_text_fits(text in "\\PC{0,40}", columns in 0usize..50) {
            prop_assert!(cut(&text, columns, "…").width() <= columns);
            prop_assert!(cut_front(&text, columns, "…").width() <= columns);
        }
    }
}
