//! Source text into tokens.

use super::BadExpression;

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token<'s> {
    pub at: usize,
    pub kind: TokenKind<'s>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind<'s> {
    Name(&'s str),
    /// Digits, decimal or after `0x`; a sign stands before it as a mark.
    Int(&'s str),
    /// The same without its `u`.
    Uint(&'s str),
    Double(&'s str),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator, a bracket or a word that can't be a name.
    Mark(&'static str),
    End,
}

/// Longer marks before those that they begin with.
const MARKS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

/// The tokens of the source, ending with [`TokenKind::End`].
pub(super) fn lex(source: &str) -> Result<Vec<Token<'_>>, BadExpression> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let kind = lexer.token()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { at, kind });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let text = rest.trim_start_matches([' ', '\t', '\r', '\n', '\x0c']);
            self.at += rest.len() - text.len();
            if !text.starts_with("//") {
                return;
            }
            self.at += text.find('\n').unwrap_or(text.len());
        }
    }

    fn token(&mut self) -> Result<TokenKind<'s>, BadExpression> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(TokenKind::End) };
        if let Some((prefix, raw, bytes)) = string_prefix(rest) {
            return self.string(prefix, raw, bytes);
        }
        if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return Ok(self.number());
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            self.at += length;
            let name = &rest[..length];
            return Ok(WORDS.iter().find(|word| **word == name).map_or(TokenKind::Name(name), |w| TokenKind::Mark(w)));
        }
        match MARKS.iter().find(|mark| rest.starts_with(**mark)) {
            Some(mark) => {
                self.at += mark.len();
                Ok(TokenKind::Mark(mark))
            }
            None => Err(self.bad(self.at, format!("unexpected character {first:?}"))),
        }
    }

    fn number(&mut self) -> TokenKind<'s> {
        let rest = self.rest();
        let digits = |from: usize| from + rest[from..].bytes().take_while(u8::is_ascii_digit).count();
        if let Some(hex) = rest.strip_prefix("0x") {
            let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
            if length > 0 {
                return self.integer(rest, 2 + length);
            }
        }
        let whole = digits(0);
        let mut end = whole;
        if rest[end..].starts_with('.') && digits(end + 1) > end + 1 {
            end = digits(end + 1);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
            let exponent = digits(end + 1 + sign);
            if exponent > end + 1 + sign {
                end = exponent;
            }
        }
        if end == whole {
            return self.integer(rest, end);
        }
        self.at += end;
        TokenKind::Double(&rest[..end])
    }

    fn integer(&mut self, rest: &'s str, end: usize) -> TokenKind<'s> {
        let unsigned = rest[end..].starts_with(['u', 'U']);
        self.at += end + usize::from(unsigned);
        if unsigned { TokenKind::Uint(&rest[..end]) } else { TokenKind::Int(&rest[..end]) }
    }

    fn string(&mut self, prefix: usize, raw: bool, bytes: bool) -> Result<TokenKind<'s>, BadExpression> {
        let start = self.at;
        let body = &self.rest()[prefix..];
        let quote = &body[..1];
        let triple = body.get(..3).filter(|three| three.bytes().all(|byte| byte == quote.as_bytes()[0]));
        let delimiter = triple.unwrap_or(quote);
        self.at += prefix + delimiter.len();
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(delimiter) {
                self.at += delimiter.len();
                break;
            }
            match rest.chars().next() {
                None => return Err(self.bad(start, "this text has no closing quote")),
                Some('\n' | '\r') if triple.is_none() => {
                    return Err(self.bad(start, "this text has no closing quote on its line"));
                }
                Some('\r') => {
                    self.at += if rest.starts_with("\r\n") { 2 } else { 1 };
                    out.push(b'\n');
                }
                Some('\\') if !raw => self.escape(bytes, &mut out)?,
                Some(c) => {
                    self.at += c.len_utf8();
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        if bytes {
            return Ok(TokenKind::Bytes(out));
        }
        String::from_utf8(out).map(TokenKind::Text).map_err(|_| self.bad(start, "this text is not UTF-8"))
    }

    /// Reads an escape and writes what it stands for: a code point in text, a byte in bytes.
    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), BadExpression> {
        let rest = self.rest();
        let invalid = || self.bad(self.at, "unknown escape; a backslash itself is written \\\\");
        let number = |from: usize, length: usize, radix: u32| {
            let digits = rest.get(from..from + length).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u32::from_str_radix(digits, radix).ok()
        };
        let (length, code) = match rest.as_bytes().get(1).copied() {
            Some(b'a') => (2, Some(7)),
            Some(b'b') => (2, Some(8)),
            Some(b't') => (2, Some(9)),
            Some(b'n') => (2, Some(10)),
            Some(b'v') => (2, Some(11)),
            Some(b'f') => (2, Some(12)),
            Some(b'r') => (2, Some(13)),
            Some(plain @ (b'"' | b'\'' | b'\\' | b'?' | b'`')) => (2, Some(u32::from(plain))),
            Some(b'x' | b'X') => (4, number(2, 2, 16)),
            Some(b'0'..=b'3') => (4, number(1, 3, 8)),
            Some(b'u') if !bytes => (6, number(2, 4, 16)),
            Some(b'U') if !bytes => (10, number(2, 8, 16)),
            _ => return Err(invalid()),
        };
        let code = code.ok_or_else(invalid)?;
        if bytes {
            out.push(u8::try_from(code).map_err(|_| invalid())?);
        } else {
            let c = char::from_u32(code).ok_or_else(invalid)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.at += length;
        Ok(())
    }

    fn bad(&self, at: usize, message: impl Into<String>) -> BadExpression {
        BadExpression::at(self.source, at, message)
    }
}

/// The length of what stands before a quote, and whether it makes the string raw, and bytes.
fn string_prefix(rest: &str) -> Option<(usize, bool, bool)> {
    let bytes = rest.starts_with(['b', 'B']);
    let after = &rest[usize::from(bytes)..];
    let raw = after.starts_with(['r', 'R']);
    let prefix = usize::from(bytes) + usize::from(raw);
    rest[prefix..].starts_with(['"', '\'']).then_some((prefix, raw, bytes))
}
