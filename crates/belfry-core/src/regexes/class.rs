//! Characters and classes: `[…]`, `\d`, `\pL`, `\x{1F514}`. They are written out in Rust's Unicode classes with Go's
//! ASCII content, which under `(?i)` fold alike.

use super::names;

/// A class without members.
pub(super) const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";
/// The class of every character.
const EVERYTHING: &str = r"[\x{0}-\x{10FFFF}]";

/// A character as itself, in a class or outside of one.
pub(super) fn literal(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() { c.to_string() } else { format!(r"\x{{{:X}}}", u32::from(c)) }
}

/// Takes `\d` and the like, or `\pL`, if there is one.
pub(super) fn shorthand(rest: &mut &str) -> Result<Option<String>, String> {
    let class = match rest.as_bytes() {
        [b'\\', b'd', ..] => "[0-9]",
        [b'\\', b'D', ..] => "[^0-9]",
        [b'\\', b's', ..] => r"[\t\n\f\r\x{20}]",
        [b'\\', b'S', ..] => r"[^\t\n\f\r\x{20}]",
        [b'\\', b'w', ..] => "[0-9A-Za-z_]",
        [b'\\', b'W', ..] => "[^0-9A-Za-z_]",
        [b'\\', b'p' | b'P', ..] => return property(rest).map(Some),
        _ => return Ok(None),
    };
    *rest = &rest[2..];
    Ok(Some(class.to_owned()))
}

/// Takes `\pL`, `\p{Greek}`, `\P{…}`, `\p{^…}`.
fn property(rest: &mut &str) -> Result<String, String> {
    let text = *rest;
    let invalid = |shown: &str| format!("invalid character class range: {shown}");
    let mut negated = text.starts_with(r"\P");
    let after = &text[2..];
    let (name, length) = match after.strip_prefix('{') {
        Some(inside) => {
            let end = inside.find('}').ok_or_else(|| invalid(text))?;
            (&inside[..end], end + 2)
        }
        None => {
            let length = after.chars().next().map(char::len_utf8).ok_or_else(|| invalid(text))?;
            (&after[..length], length)
        }
    };
    let shown = &text[..2 + length];
    *rest = &text[2 + length..];
    let name = match name.strip_prefix('^') {
        Some(name) => {
            negated = !negated;
            name
        }
        None => name,
    };
    Ok(match names::property(name).ok_or_else(|| invalid(shown))? {
        // No text holds surrogates, and Rust has no name for them.
        names::Property::Surrogates if negated => EVERYTHING.into(),
        names::Property::Surrogates => NOTHING.into(),
        names::Property::Named(name) => format!(r"\{}{{{name}}}", if negated { 'P' } else { 'p' }),
    })
}

/// Takes `\n`, `\.`, `\123`, `\x{1F514}`. `None` is a surrogate: a code point that no text holds.
pub(super) fn escaped(rest: &mut &str) -> Result<Option<char>, String> {
    let (code, length) = code_point(rest)?;
    *rest = &rest[length..];
    Ok(char::from_u32(code))
}

/// The code point of an escape and the length of its text.
fn code_point(text: &str) -> Result<(u32, usize), String> {
    let mut chars = text.chars().skip(1);
    let Some(c) = chars.next() else { return Err("trailing backslash at end of expression".into()) };
    let invalid = || format!(r"invalid escape sequence: \{c}");
    let octal = text[1..].bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
    Ok(match c {
        '0' => (u32::from_str_radix(&text[1..=octal], 8).map_err(|_| invalid())?, 1 + octal),
        // One digit would be a backreference.
        '1'..='7' if octal > 1 => (u32::from_str_radix(&text[1..=octal], 8).map_err(|_| invalid())?, 1 + octal),
        'x' => {
            let (digits, length) = match text[2..].strip_prefix('{') {
                Some(inside) => inside.split_once('}').map(|(digits, _)| (digits, digits.len() + 4)),
                None => text.get(2..4).map(|digits| (digits, 4)),
            }
            .ok_or_else(invalid)?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            let code = u32::from_str_radix(digits.trim_start_matches('0'), 16);
            let code = if digits.bytes().all(|b| b == b'0') { Ok(0) } else { code };
            (code.ok().filter(|code| *code <= 0x10_FFFF).ok_or_else(invalid)?, length)
        }
        'a' => (7, 2),
        'f' => (0xC, 2),
        'n' => (0xA, 2),
        'r' => (0xD, 2),
        't' => (9, 2),
        'v' => (0xB, 2),
        _ if c.is_ascii() && !c.is_ascii_alphanumeric() => (u32::from(c), 2),
        _ => return Err(invalid()),
    })
}

/// Takes a class in brackets.
pub(super) fn bracketed(rest: &mut &str) -> Result<String, String> {
    let whole = *rest;
    let missing = || format!("missing closing ]: {whole}");
    let mut text = &whole[1..];
    let mut out = String::from("[");
    if let Some(after) = text.strip_prefix('^') {
        text = after;
        out.push('^');
    }
    let members = out.len();
    let mut first = true;
    while first || !text.starts_with(']') {
        if text.is_empty() {
            return Err(missing());
        }
        first = false;
        if let Some((name, after)) = text.strip_prefix("[:").and_then(|t| t.split_once(":]")) {
            if !names::POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
                return Err(format!("invalid character class range: [:{name}:]"));
            }
            out.push_str(&format!("[:{name}:]"));
            text = after;
        } else if let Some(class) = shorthand(&mut text)? {
            out.push_str(&class);
        } else {
            out.push_str(&range(&mut text).map_err(|error| error.unwrap_or_else(missing))?);
        }
    }
    *rest = &text[1..];
    Ok(match (out.len() == members, members) {
        (false, _) => out + "]",
        (true, 1) => NOTHING.into(),
        (true, _) => EVERYTHING.into(),
    })
}

/// Takes one character or a range of them. `Err(None)` is the end of the text.
fn range(text: &mut &str) -> Result<String, Option<String>> {
    let from = *text;
    let low = member(text)?;
    let high = match text.strip_prefix('-') {
        Some(after) if !after.is_empty() && !after.starts_with(']') => {
            *text = after;
            member(text)?
        }
        _ => low,
    };
    if high < low {
        return Err(Some(format!("invalid character class range: {}", &from[..from.len() - text.len()])));
    }
    // Surrogates are in no text: a range ends before them or begins after them.
    let clear = |code: u32, instead: char| char::from_u32(code).unwrap_or(instead);
    let (low, high) = (clear(low, '\u{E000}'), clear(high, '\u{D7FF}'));
    Ok(match low.cmp(&high) {
        std::cmp::Ordering::Less => format!("{}-{}", literal(low), literal(high)),
        std::cmp::Ordering::Equal => literal(low),
        std::cmp::Ordering::Greater => String::new(),
    })
}

fn member(text: &mut &str) -> Result<u32, Option<String>> {
    let (code, length) = match text.chars().next() {
        None => return Err(None),
        Some('\\') => code_point(text).map_err(Some)?,
        Some(c) => (u32::from(c), c.len_utf8()),
    };
    *text = &text[length..];
    Ok(code)
}
