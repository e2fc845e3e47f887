//! Server-sent events, as the HTML standard has them: what a stream of bytes says, however it is cut into pieces.

use std::collections::VecDeque;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Event {
    /// Its type; `message` when it names none.
    pub name: String,
    /// Its lines.
    pub data: String,
}

/// An event that is longer than anything that a server of ours sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Reads events out of pieces of a stream.
#[derive(Debug)]
pub(super) struct Parser {
    limit: usize,
    line: Vec<u8>,
    name: String,
    data: String,
    /// Whether a line ended with a carriage return, whose line feed may be yet to come.
    returned: bool,
    /// Whether a line was read: the first one may begin with a byte order mark.
    begun: bool,
    ready: VecDeque<Event>,
}

impl Parser {
    /// A parser that holds no more than `limit` bytes of an event.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            name: String::new(),
            data: String::new(),
            returned: false,
            begun: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes in the next piece.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), TooLong> {
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.returned) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (part, tail) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + self.data.len() + part.len() > self.limit {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            rest = tail;
            if let Some(&ending) = rest.first() {
                self.returned = ending == b'\r';
                rest = &rest[1..];
                self.end_line();
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = if std::mem::replace(&mut self.begun, true) { &line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            // An event without data is none.
            if data.pop().is_some() {
                let name = if name.is_empty() { "message".to_owned() } else { name };
                self.ready.push_back(Event { name, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // Comments keep the connection alive; ids and retry times aren't used here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::new(1000);
        for piece in pieces {
            parser.feed(piece).unwrap();
        }
        std::iter::from_fn(|| parser.next()).map(|event| (event.name, event.data)).collect()
    }

    #[test]
    fn reads_what_the_standard_says() {
        for (stream, expected) in [
            ("event: answer\ndata: {}\n\n", &[("answer", "{}")][..]),
            ("data: a\r\ndata: b\r\n\r\ndata:c\r\r", &[("message", "a\nb"), ("message", "c")]),
            (": heartbeat\n\n:\n\ndata: x\n\n", &[("message", "x")]),
            ("\u{feff}data: x\n\n", &[("message", "x")]),
            ("event: lost\n\ndata: x\n\n", &[("message", "x")]),
            ("id: 7\nretry: 5\nnonsense\ndata:  x: y\n\n", &[("message", " x: y")]),
            ("data\n\n", &[("message", "")]),
            ("event: answer\ndata: {\"half", &[]),
            ("event: answer\ndata: {}\n", &[]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(n, d)| ((*n).to_owned(), (*d).to_owned())).collect();
            assert_eq!(read(&[stream.as_bytes()]), expected, "{stream:?}");
        }
        assert_eq!(read(&[b"data: \xff\n\n"]), [("message".to_owned(), "\u{fffd}".to_owned())]);
    }

    #[test]
    fn an_event_without_end_is_not_kept() {
        for flood in ["data: x\n", "x"] {
            let mut parser = Parser::new(100);
            let ended = (0..1000).map(|_| parser.feed(flood.as_bytes())).find(Result::is_err);
            assert_eq!(ended, Some(Err(TooLong)));
        }
        // Many that end are none.
        let mut parser = Parser::new(100);
        for _ in 0..1000 {
            parser.feed(b"data: 0123456789\n\n: comment\n\n").unwrap();
            assert!(parser.next().is_some());
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stream in proptest::collection::vec(
                prop_oneof!["data: [a-c]{0,3}", "event: [a-c]{1,2}", ": [a-c]{0,2}", "", "\u{e4}\u{20ac}"], 0..12),
            endings in proptest::collection::vec(prop_oneof!["\n", "\r\n", "\r"], 12),
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let text: String = stream.iter().zip(&endings).flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes]));
        }
    }
}
