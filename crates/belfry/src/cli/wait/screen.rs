//! Where a wait is shown: a terminal, which is drawn over, or a log, which is written to.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::tcgetwinsize;

use super::view::Style;

/// Where a wait is shown.
pub(super) struct Screen {
    /// Standard error rather than standard output.
    errors: bool,
    /// Whether it is a terminal that can be drawn over.
    terminal: bool,
    colour: bool,
    unicode: bool,
    /// Lines of the frame that stands there.
    drawn: usize,
}

impl Screen {
    /// Standard output, or standard error when the former is for the answer.
    pub fn open(errors: bool) -> Self {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let terminal = if errors { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(variable).into_iter().find(|value| !value.is_empty());
        Self {
            errors,
            // A dumb terminal can't move its cursor.
            terminal: terminal && !matches!(variable("TERM").as_str(), "" | "dumb"),
            colour: variable("NO_COLOR").is_empty(),
            unicode: is_unicode(&locale.unwrap_or_default()),
            drawn: 0,
        }
    }

    /// What can be shown; nothing when lines can only be added.
    pub fn style(&self) -> Option<Style> {
        if !self.terminal {
            return None;
        }
        let size = if self.errors { tcgetwinsize(io::stderr()) } else { tcgetwinsize(io::stdout()) };
        let known = size.ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = known.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        Some(Style { columns, rows, colour: self.colour, unicode: self.unicode })
    }

    /// Adds lines.
    pub fn write(&mut self, lines: &[String]) -> io::Result<()> {
        self.drawn = 0;
        let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        self.put(&text)
    }

    /// Shows a frame in the place of the last one. Whatever ends the command leaves the cursor below it, and nothing else
    /// of the terminal is changed.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = over(self.drawn, lines);
        self.drawn = lines.len();
        // In one piece, so that no half of it is seen.
        text.push_str("\x1b[J");
        self.put(&text)
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        if self.errors {
            return io::stderr().write_all(text.as_bytes());
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

fn over(drawn: usize, lines: &[String]) -> String {
    let mut text = if drawn == 0 { "\r".to_owned() } else { format!("\r\x1b[{drawn}A") };
    for line in lines {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text
}

/// Whether a locale's characters are UTF-8.
fn is_unicode(locale: &str) -> bool {
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_stands_where_the_last_one_stood() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(over(0, &lines), "\ra\x1b[K\nb\x1b[K\n");
        assert_eq!(over(3, &lines), "\r\x1b[3Aa\x1b[K\nb\x1b[K\n");
    }

    #[test]
    fn locales_say_whether_they_are_utf_8() {
        for (locale, expected) in [
            ("en_US.UTF-8", true),
            ("C.utf8", true),
            ("C", false),
            ("POSIX", false),
            ("de_DE.ISO-8859-1", false),
            ("", false),
        ] {
            assert_eq!(is_unicode(locale), expected, "{locale}");
        }
    }
}
