//! Formats of texts: URIs, points in time, package URLs.

use std::{fmt, net::Ipv6Addr};

use base64::Engine as _;

/// A format that the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 3986, with a scheme.
    Uri,
    /// RFC 3986, with or without a scheme.
    UriReference,
    /// RFC 3339.
    DateTime,
    /// A package URL.
    Purl,
    /// Base64 with padding.
    Base64,
}

impl Format {
    /// Whether the text has this format.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Self::Uri => is_uri(text),
            Self::UriReference => is_uri_reference(text),
            Self::DateTime => is_date_time(text),
            Self::Purl => is_purl(text),
            Self::Base64 => is_base64(text),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uri => "an absolute URI",
            Self::UriReference => "a URI reference",
            Self::DateTime => "an RFC 3339 time",
            Self::Purl => "a package URL (pkg:type/name@version)",
            Self::Base64 => "base64",
        })
    }
}

/// RFC 3986: `scheme:…`.
pub fn is_uri(text: &str) -> bool {
    split_scheme(text).is_some_and(|(_, rest)| is_hierarchy(rest, true))
}

/// RFC 3986: with or without a scheme.
pub fn is_uri_reference(text: &str) -> bool {
    is_uri(text) || is_hierarchy(text, false)
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let (first, others) = scheme.as_bytes().split_first()?;
    let valid = first.is_ascii_alphabetic() && others.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
    valid.then_some((scheme, rest))
}

fn is_hierarchy(text: &str, after_scheme: bool) -> bool {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let path = match text.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            if !is_authority(&rest[..end]) {
                return false;
            }
            &rest[end..]
        }
        None => {
            let first = text.split('/').next().unwrap_or_default();
            if !after_scheme && first.contains(':') {
                return false;
            }
            text
        }
    };
    consists_of(path, b":@/") && consists_of(query, b":@/?") && consists_of(fragment, b":@/?")
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    if !consists_of(user, b":") {
        return false;
    }
    if let Some(literal) = host.strip_prefix('[') {
        let Some((address, port)) = literal.split_once(']') else { return false };
        return (address.parse::<Ipv6Addr>().is_ok() || is_future_address(address))
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_digits));
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    consists_of(name, b"") && is_digits(port)
}

fn is_future_address(text: &str) -> bool {
    let Some((version, address)) = text.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let hex = !version.is_empty() && version.bytes().all(|b| b.is_ascii_hexdigit());
    hex && !address.is_empty() && !address.contains('%') && consists_of(address, b":")
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Unreserved characters, sub-delimiters, escapes and these.
fn consists_of(text: &str, also: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(b) || also.contains(b);
    text.as_bytes().iter().all(allowed) && escapes_are_whole(text)
}

fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let bytes = rest.as_bytes();
        bytes.len() >= 2 && bytes[0].is_ascii_hexdigit() && bytes[1].is_ascii_hexdigit()
    })
}

/// What Go's `url.Parse` takes, which is how the peer checks a source: spaces pass, broken escapes and hosts don't.
pub fn is_lax_reference(text: &str) -> bool {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) || text.starts_with(':') {
        return false;
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = split_scheme(text).map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    if !escapes_are_whole(fragment) {
        return false;
    }
    if !rest.starts_with('/') {
        let first = rest.split('/').next().unwrap_or_default();
        return scheme.is_some() || (!first.contains(':') && escapes_are_whole(rest));
    }
    let has_authority = rest.starts_with("//") && (scheme.is_some() || !rest.starts_with("///"));
    let Some(rest) = rest.strip_prefix("//").filter(|_| has_authority) else { return escapes_are_whole(rest) };
    let end = rest.find('/').unwrap_or(rest.len());
    is_lax_authority(&rest[..end]) && escapes_are_whole(&rest[end..])
}

fn is_lax_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').unwrap_or(("", text));
    let user_fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(b);
    if !user.as_bytes().iter().all(user_fits) || !escapes_are_whole(user) {
        return false;
    }
    let port_fits = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(is_digits);
    if host.starts_with('[') {
        return host.rfind(']').is_some_and(|end| port_fits(&host[end + 1..]));
    }
    let (name, port) = host.rfind(':').map_or((host, ""), |at| host.split_at(at));
    let host_fits = |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"%".contains(&b);
    // Only bytes beyond ASCII may stand escaped in a host.
    let escapes_fit = name.split('%').skip(1).all(|rest| rest.as_bytes().first().is_some_and(|b| *b >= b'8'));
    name.bytes().all(host_fits) && escapes_are_whole(name) && escapes_fit && port_fits(port)
}

/// RFC 3339, leap seconds included.
pub fn is_date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u32> {
        let digits = bytes.get(from..to)?;
        digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
    };
    let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|b| allowed.contains(b));
    let parts = [number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16), number(17, 19)];
    let [Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)] = parts else { return false };
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":")) {
        return false;
    }
    let mut at = 19;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return false;
        }
        at += 1 + digits;
    }
    let offset = if is(at, b"Zz") {
        at += 1;
        Some(0)
    } else if is(at, b"+-") && is(at + 3, b":") {
        let sign = if is(at, b"-") { -1 } else { 1 };
        let parts = (number(at + 1, at + 3), number(at + 4, at + 6));
        at += 6;
        match parts {
            (Some(hours @ 0..=23), Some(minutes @ 0..=59)) => Some(sign * (hours * 60 + minutes).cast_signed()),
            _ => None,
        }
    } else {
        None
    };
    let Some(offset) = offset else { return false };
    // A leap second falls on the last second of a day in UTC.
    let in_utc = ((hour * 60 + minute).cast_signed() - offset).rem_euclid(24 * 60);
    at == bytes.len()
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && (second < 60 || (second == 60 && in_utc == 24 * 60 - 1))
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 0,
    }
}

/// `pkg:type/namespace/name@version?qualifiers#subpath`; of these, type and name must be there.
pub fn is_purl(text: &str) -> bool {
    let Some(rest) = text.get(..4).filter(|scheme| scheme.eq_ignore_ascii_case("pkg:")).map(|_| &text[4..]) else {
        return false;
    };
    let fits = |b: u8| !b.is_ascii_control() && b != b' ';
    if !rest.bytes().all(fits) || !escapes_are_whole(rest) {
        return false;
    }
    let (rest, _subpath) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
    let Some((kind, rest)) = rest.trim_start_matches('/').split_once('/') else { return false };
    let name = rest.rsplit_once('@').filter(|(_, version)| !version.contains('/')).map_or(rest, |(name, _)| name);
    let name = name.trim_matches('/').rsplit('/').next().unwrap_or_default();
    is_purl_word(kind, b".-+") && !name.is_empty() && are_qualifiers(qualifiers)
}

fn is_purl_word(text: &str, also: &[u8]) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || also.contains(&b);
    text.bytes().all(fits) && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn are_qualifiers(text: &str) -> bool {
    let mut keys: Vec<&str> = Vec::new();
    text.split('&').filter(|pair| !pair.is_empty()).all(|pair| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        let new = !keys.contains(&key);
        keys.push(key);
        new && is_purl_word(key, b".-_")
    })
}

/// Base64 in its standard alphabet, padded.
pub fn is_base64(text: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_references() {
        for (text, uri, reference, lax) in [
            ("https://example.com/a?b#c", true, true, true),
            ("urn:user:alice", true, true, true),
            ("/event/source/123", false, true, true),
            ("source", false, true, true),
            ("", false, true, true),
            ("//host:80/x", false, true, true),
            ("http://[::1]:8080/x", true, true, true),
            ("http://[v1.x]/", true, true, true),
            ("http://[::1", false, false, false),
            ("http://[nonsense]/", false, false, true),
            ("/a b", false, false, true),
            ("/a%zz", false, false, false),
            ("/a%2", false, false, false),
            ("http://host:80a/", false, false, false),
            ("http://a b/", false, false, false),
            ("http://h%20st/", true, true, false),
            ("1:2", false, false, false),
            (":x", false, false, false),
            ("a\nb", false, false, false),
            ("mailto:a b%zz", false, false, true),
            ("/ü", false, false, true),
            ("a#b#c", false, false, true),
        ] {
            assert_eq!((is_uri(text), is_uri_reference(text), is_lax_reference(text)), (uri, reference, lax), "{text}");
        }
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("2023-03-20T14:27:05.315384Z", true),
            ("2023-03-20t14:27:05z", true),
            ("2026-01-02T03:04:05+02:00", true),
            ("2024-02-29T00:00:00-00:00", true),
            ("2023-02-29T00:00:00Z", false),
            ("2016-12-31T23:59:60Z", true),
            ("2017-01-01T01:59:60+02:00", true),
            ("2016-12-31T22:59:60Z", false),
            ("2023-03-20 14:27:05Z", false),
            ("2023-03-20T14:27:05", false),
            ("2023-03-20T14:27:05.Z", false),
            ("2023-03-20T24:00:00Z", false),
            ("2023-03-20T14:27:05+24:00", false),
            ("2023-03-20T14:27:05Zx", false),
            ("23-03-20T14:27:05Z", false),
            ("yesterday", false),
            ("", false),
        ] {
            assert_eq!(is_date_time(text), expected, "{text}");
        }
    }

    #[test]
    fn package_urls() {
        for (text, expected) in [
            ("pkg:oci/myapp@sha256%3A0b31b1c0", true),
            ("pkg:oci/myapp@sha256:0b31?repository_url=ghcr.io%2Forg&tag=1", true),
            ("pkg:golang/mygit.com/myorg/myapp@234fd47e", true),
            ("pkg:github/org/fleet@1eab#clusters/prod", true),
            ("pkg:npm/%40scope/name@1.0.0", true),
            ("pkg:npm/@scope/name", true),
            ("pkg://oci/name", true),
            ("PKG:oci/name", true),
            ("pkg:oci", false),
            ("pkg:oci/", false),
            ("pkg:/oci", false),
            ("pkg:oci/@1", false),
            ("pkg:9/name", false),
            ("pkg:o_i/name", false),
            ("pkg:oci/na%zze", false),
            ("pkg:oci/na me", false),
            ("pkg:oci/name?9k=v", false),
            ("pkg:oci/name?k=v&k=w", false),
            ("ghcr.io/org/app:1.2.3", false),
            ("", false),
        ] {
            assert_eq!(is_purl(text), expected, "{text}");
        }
    }
}
