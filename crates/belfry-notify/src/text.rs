//! The peer's words for objects and reasons, and how texts are escaped and cut.

use std::borrow::Cow;

use belfry_api::Event;
use sha2::{Digest, Sha256};

/// `kustomization/app.apps`.
pub(crate) fn object(event: &Event) -> String {
    let object = &event.involved_object;
    format!("{}/{}.{}", object.kind.to_lowercase(), object.name, object.namespace)
}

/// `health check failed: kustomization/app`.
pub(crate) fn headline(event: &Event) -> String {
    let object = &event.involved_object;
    let name = format!("{}/{}", object.kind, object.name).to_lowercase();
    format!("{}: {name}", words(&event.reason))
}

/// A CamelCase reason as words in lower case: `HealthCheckFailed` is `health check failed`. A word is a run of one
/// class of characters (lower, upper, digit, other); a run of capitals gives its last one to the word that follows.
pub(crate) fn words(reason: &str) -> String {
    #[derive(Clone, Copy, PartialEq)]
    enum Class {
        Lower,
        Upper,
        Digit,
        Other,
    }
    let class = |c: char| match c {
        c if c.is_lowercase() => Class::Lower,
        c if c.is_uppercase() => Class::Upper,
        c if c.is_numeric() => Class::Digit,
        _ => Class::Other,
    };
    let chars: Vec<char> = reason.chars().collect();
    let starts = |at: usize| {
        let (before, here) = (class(chars[at - 1]), class(chars[at]));
        let joins_next = here == Class::Upper
            && before == Class::Upper
            && chars.get(at + 1).is_some_and(|next| class(*next) == Class::Lower);
        let joined_before = here == Class::Lower && before == Class::Upper;
        joins_next || (here != before && !joined_before)
    };
    let mut out = String::with_capacity(reason.len() + 8);
    for (at, c) in chars.iter().enumerate() {
        if at > 0 && starts(at) {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The event in Markdown, with this message.
pub(crate) fn markdown(event: &Event, message: &str) -> String {
    let object = &event.involved_object;
    let emoji = if event.severity == "error" { "⚠\u{fe0f}" } else { "ℹ\u{fe0f}" };
    let head = format!("## Flux Status\n\n{emoji} {}/{}/{}", object.kind, object.namespace, object.name);
    let pairs = event.metadata.iter().filter(|(key, _)| key.as_str() != "change_request");
    let list: String = pairs.map(|(key, value)| format!("* `{key}`: {value}\n")).collect();
    format!("{head}\n\n{message}\n\nMetadata:\n{list}")
}

/// Up to the first line break.
pub(crate) fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

/// What stands for what was cut off.
const ELLIPSIS: char = '…';

/// At most `limit` characters; what is longer ends in an ellipsis.
pub(crate) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit || text.chars().count() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(limit.saturating_sub(1)).chain((limit > 0).then_some(ELLIPSIS)).collect())
}

/// At most `limit` characters; what is longer is cut behind a word, if there is one in the second half, and ends in an
/// ellipsis.
pub(crate) fn cut_words(text: &str, limit: usize) -> Cow<'_, str> {
    let Cow::Owned(cut) = cut(text, limit) else { return Cow::Borrowed(text) };
    let whole = cut.trim_end_matches(ELLIPSIS);
    let next = text.get(whole.len()..).and_then(|rest| rest.chars().next());
    let end = match whole.rfind(char::is_whitespace) {
        Some(end) if end > whole.len() / 2 && !next.is_some_and(char::is_whitespace) => end,
        _ => whole.len(),
    };
    Cow::Owned(format!("{}{ELLIPSIS}", whole[..end].trim_end()))
}

/// An id of at most `limit` characters: of what is longer, the beginning and a hash of the whole, so that two never
/// become one.
pub(crate) fn bounded_id(id: &str, limit: usize) -> Cow<'_, str> {
    if id.chars().count() <= limit {
        return Cow::Borrowed(id);
    }
    let hash: String = Sha256::digest(id).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let start: String = id.chars().take(limit.saturating_sub(hash.len() + 1)).collect();
    Cow::Owned(format!("{start}~{hash}"))
}

/// At most `limit` bytes, to whole characters; what is longer ends in an ellipsis.
pub(crate) fn cut_bytes(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let Some(room) = limit.checked_sub(ELLIPSIS.len_utf8()) else { return Cow::Borrowed("") };
    let end = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Cow::Owned(format!("{}{ELLIPSIS}", &text[..end]))
}

/// A body of at most `limit` bytes: if it is longer, it is made again with as much of the text as fits.
pub(crate) fn fit(limit: usize, text: &str, body: impl Fn(&str) -> Vec<u8>) -> Vec<u8> {
    let whole = body(text);
    if whole.len() <= limit {
        return whole;
    }
    // How much an escape adds differs from text to text, so the place to cut is searched for.
    let (mut fits, mut best, mut too_long) = (0, body(""), text.len());
    while too_long - fits > 1 {
        let middle = fits.midpoint(too_long);
        let candidate = body(&cut_bytes(text, middle));
        if candidate.len() <= limit {
            (fits, best) = (middle, candidate);
        } else {
            too_long = middle;
        }
    }
    best
}

/// Percent-encodes as Go does in queries and forms: a space becomes `+`, all but letters, digits and `-_.~` is escaped.
pub(crate) fn query_escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// One segment of a path, percent-encoded: a slash in it too.
pub(crate) fn path_escape(text: &str) -> String {
    query_escape(text).replace('+', "%20")
}

/// The reverse for user names and passwords in a URL; what isn't UTF-8 is replaced.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_become_words_as_with_the_peer() {
        for (reason, expected) in [
            ("ApplySucceeded", "apply succeeded"),
            ("PDFLoader", "pdf loader"),
            ("", ""),
            ("info", "info"),
            ("HealthCheckFailed", "health check failed"),
            ("error2Fix", "error 2 fix"),
            ("InstallFailed_x", "install failed _ x"),
            ("URLError", "url error"),
            ("GitOperationFailed", "git operation failed"),
            ("event-happened", "event - happened"),
            ("ÜberFail", "über fail"),
            ("aA1-", "a a 1 -"),
            ("ABC", "abc"),
        ] {
            assert_eq!(words(reason), expected, "{reason}");
        }
    }

    #[test]
    fn texts_are_cut_only_beyond_the_limit() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut_bytes("abcdef", 6), "abcdef");
        assert_eq!(cut_bytes("abcdefg", 6), "abc…");
        assert_eq!(cut_bytes("ääää", 6), "ä…");
        assert_eq!(cut_bytes("abc", 2), "");
        let body = |text: &str| format!("[{}]", text.replace('<', "\\u003c")).into_bytes();
        assert_eq!(fit(8, "abcdef", body), b"[abcdef]");
        assert_eq!(fit(8, "abcdefg", body), "[abc…]".as_bytes());
        assert_eq!(fit(40, &"<".repeat(30), body).len(), 2 + 5 * 6 + '…'.len_utf8());
        assert_eq!(fit(3, "abc", |text| format!("[[{text}]]").into_bytes()), b"[[]]");
    }

    #[test]
    fn words_stay_whole_and_ids_stay_different() {
        assert_eq!(cut_words("health check failed", 19), "health check failed");
        assert_eq!(cut_words("health check failed", 18), "health check…");
        assert_eq!(cut_words("health check failed", 13), "health check…");
        assert_eq!(cut_words("abcdefghij", 5), "abcd…");
        assert_eq!(bounded_id("kustomization/app/0c9c2e41", 26), "kustomization/app/0c9c2e41");
        let (one, other) = (format!("{}1", "x".repeat(300)), format!("{}2", "x".repeat(300)));
        assert_ne!(bounded_id(&one, 255), bounded_id(&other, 255));
        assert_eq!(bounded_id(&one, 255).len(), 255);
    }

    #[test]
    fn escapes_are_gos() {
        assert_eq!(query_escape("a b*~/é"), "a+b%2A~%2F%C3%A9");
        assert_eq!(path_escape("a/b c+d"), "a%2Fb%20c%2Bd");
        assert_eq!(percent_decode("p%40ss%zz%4"), "p@ss%zz%4");
    }
}
