//! A request as it came in.

use std::borrow::Cow;

use http::HeaderMap;

/// Characters kept of a text that the sender chose, in what is logged.
const QUOTED: usize = 120;

/// What of a request is looked at. Has no `Debug`: its headers hold credentials.
#[derive(Clone, Copy)]
pub struct Inbound<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The whole body, already bounded.
    pub body: &'a [u8],
}

impl<'a> Inbound<'a> {
    /// The first header of that name as bytes; none when it is empty, which is how proxies send what isn't there.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.get(name).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.header(name).map(String::from_utf8_lossy)
    }
}

/// A text that the sender chose, cut, quoted and on one line, for the log.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(QUOTED).collect::<String>())
}

/// The same without quotes around it.
pub(crate) fn plain(text: &str) -> String {
    quoted(text).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_short_line() {
        assert_eq!(quoted("push"), r#""push""#);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert_eq!(quoted(&"é".repeat(500)).chars().count(), QUOTED + 2);
        assert_eq!(plain("a\nb"), r"a\nb");
    }
}
