//! What Go's `regexp` says of patterns and texts, as it was run, against ours.

use proptest::prelude::*;

use super::*;

/// A pattern, texts in which Go finds a match, and texts in which it finds none.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    (r#""#, &["", "x"], &[]),
    (r#"fail"#, &["it failed"], &["fine"]),
    (r#"^Health check (passed|failed)"#, &["Health check failed after 3s"], &["a Health check passed"]),
    (r#"\d+ms"#, &["12ms"], &["٣ms"]),
    (r#"^\D$"#, &["٣", "\u{a}"], &["3"]),
    (r#"^\w+$"#, &["web_1"], &["é", "\u{17f}"]),
    (r#"(?i)^\w$"#, &["\u{17f}", "\u{212a}"], &["é"]),
    (r#"(?i)^[^\w]$"#, &["é"], &["\u{17f}"]),
    (r#"^\s$"#, &[" ", "\u{c}"], &["\u{b}", "\u{a0}"]),
    (r#"^[\s]$"#, &["\u{9}"], &["\u{b}"]),
    (r#"^[[:space:]]$"#, &["\u{b}"], &["\u{a0}"]),
    (r#"^\W$"#, &["é"], &["a"]),
    (r#"\bapp\b"#, &["the app is", "éappé"], &["apps"]),
    (r#"\Bpp"#, &["app"], &["pp"]),
    (r#"a\B"#, &["ab"], &["aé"]),
    (r#"^.$"#, &["é", "🔔"], &["\u{a}", ""]),
    (r#"(?s)^.$"#, &["\u{a}"], &[]),
    (r#"a$"#, &["b\u{a}a"], &["a\u{a}"]),
    (r#"(?m)a$"#, &["a\u{a}b"], &["a\u{d}\u{a}"]),
    (r#"(?m)^b"#, &["a\u{a}b"], &[]),
    (r#"\Qa.b\E"#, &["a.b"], &["axb"]),
    (r#"\Q("#, &["(x"], &[]),
    (r#"^\Qab\E+$"#, &["abb"], &["abab"]),
    (r#"a\Q\E*b"#, &["aab", "b"], &[]),
    (r#"\<b\>"#, &["<b>"], &["b"]),
    (r#"\_\-\.\#\ \&"#, &["_-.# &"], &[]),
    (r#"a{,2}"#, &["a{,2}"], &["aa"]),
    (r#"a{x}"#, &["a{x}"], &[]),
    (r#"a{01}"#, &["a{01}"], &["a"]),
    (r#"^a{2}$"#, &["aa"], &["a"]),
    (r#"^a{2,}$"#, &["aaa"], &["a"]),
    (r#"^a{0}$"#, &[""], &["a"]),
    (r#"^a+?$"#, &["aa"], &[]),
    (r#"a{1000}"#, &[], &["a"]),
    (r#"[a&&b]"#, &["&", "a"], &["c"]),
    (r#"[a-c--]"#, &["-", "b"], &["d"]),
    (r#"[[a]"#, &["[", "a"], &[]),
    (r#"[]a]"#, &["]"], &["b"]),
    (r#"[^]a]"#, &["b"], &["]"]),
    (r#"[a-]"#, &["-"], &[]),
    (r#"^[\d-z]$"#, &["-", "5"], &["y"]),
    (r#"[~~#]"#, &["~", "#"], &[]),
    (r#"^[[:^alpha:]]$"#, &["é"], &["a"]),
    (r#"[[:alpha]"#, &[":"], &["b"]),
    (r#"^[^a]$"#, &["\u{a}", "é"], &[]),
    (r#"^\pL$"#, &["é"], &["5"]),
    (r#"^\pLu$"#, &["éu"], &["É"]),
    (r#"^\p{Greek}$"#, &["λ"], &["l"]),
    (r#"^\p{^Greek}$"#, &["l"], &["λ"]),
    (r#"^\P{^Lu}$"#, &["É"], &["é"]),
    (r#"(?i)^\p{Lu}$"#, &["é"], &["5"]),
    (r#"^[\p{Han}\d]$"#, &["中", "5"], &["a"]),
    (r#"\p{Cs}"#, &[], &["x"]),
    (r#"^\P{Cs}$"#, &["x"], &[]),
    (r#"\x41\x{1F514}"#, &["A🔔"], &[]),
    (r#"\101\012"#, &["A\u{a}"], &[]),
    (r#"^[\x{D7FF}-\x{E000}]$"#, &["\u{e000}"], &["a"]),
    (r#"\x{D800}"#, &[], &["x"]),
    (r#"^[^\x{D800}]$"#, &["x"], &[]),
    (r#"\a\f\n\r\t\v"#, &["\u{7}\u{c}\u{a}\u{d}\u{9}\u{b}"], &[]),
    (r#"(?i)straße"#, &["STRAßE"], &["STRASSE"]),
    (r#"(?i)k"#, &["\u{212a}"], &[]),
    (r#"(?i:A)b"#, &["ab"], &["aB"]),
    (r#"(?i)a(?-i)b"#, &["Ab"], &["AB"]),
    (r#"a(?i)b|c"#, &["C", "aB"], &["AB"]),
    (r#"(?U)^a+$"#, &["aa"], &[]),
    (r#"(?P<n>a)(?<m>b)"#, &["ab"], &[]),
    (r#"(?)a"#, &["a"], &[]),
    (r#"(a|)+$"#, &["b"], &[]),
    (r#"|x"#, &[""], &[]),
    (r#"^*a"#, &["ba"], &[]),
    (r#"x(?i)?(?s)?y"#, &["xy", "Y"], &[]),
    (r#"K{2}(?m)?$"#, &["x"], &[]),
    (r#"a # b"#, &["a # b"], &["a"]),
    (r#"(a{10}){100}"#, &[], &["a"]),
    (r#"(a{1000}){0}b"#, &["b"], &[]),
];

/// Patterns that Go refuses.
const REFUSED: &[&str] = &[
    r"(",
    r")",
    r"(?:a",
    r"[a",
    r"[]",
    r"[^]",
    r"a**",
    r"a+?*",
    r"a{2}{3}",
    r"a???",
    r"*",
    r"a|*",
    r"(*)",
    r"(?i)*",
    r"a{1001}",
    r"a{2,1}",
    r"a{99999999999}",
    r"(a{10}){101}",
    r"\",
    r"\1",
    r"\8",
    r"\C",
    r"\Z",
    r"\E",
    r"\é",
    r"\u0041",
    r"\x",
    r"\x4",
    r"\x{}",
    r"\x{110000}",
    r"[a-\d]",
    r"[z-a]",
    r"[a--b]",
    r"[[:foo:]]",
    r"[\Qa\E]",
    r"\p",
    r"\pX",
    r"\p{L",
    r"\p{Alphabetic}",
    r"\p{sc=Greek}",
    r"\p{Grek}",
    r"(?=a)",
    r"(?!a)",
    r"(?<=a)",
    r"(?<!a)",
    r"(?x)a",
    r"(?u)a",
    r"(?i-)a",
    r"(?--i)a",
    r"(?P=n)",
    r"(?P<>a)",
    r"(?P<é>a)",
    r"(?<n",
    r"(?i",
    r"(?#c)",
    r"\b{start}{2})",
];

#[test]
fn patterns_match_what_they_match_in_go() {
    for (pattern, found, not_found) in CASES {
        let regex = compile_one(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for (texts, expected) in [(found, true), (not_found, false)] {
            for text in *texts {
                assert_eq!(regex.is_match(text), expected, "{pattern} on {text:?}, as {regex}");
            }
        }
    }
}

#[test]
fn what_go_refuses_is_refused_with_a_reason() {
    for pattern in REFUSED {
        let error = compile_one(pattern).err().unwrap_or_else(|| panic!("{pattern} is accepted"));
        assert!(!error.is_empty() && !error.contains('\n'), "{pattern}: {error}");
    }
}

#[test]
fn a_list_goes_on_without_its_bad_patterns() {
    let list = compile(&["(".into(), "ok".into(), r"\p{Lu}{1000}".into()]);
    assert!(list.is_match("all ok") && !list.is_match("("));
    let bad: Vec<String> = list.bad().iter().map(|bad| format!("{} {bad}", bad.index)).collect();
    assert_eq!(bad, ["0 (: missing closing )", r"2 \p{Lu}{1000}: it compiles to more than 1048576 bytes"]);
    assert_eq!((list.is_empty(), list.patterns().len()), (false, 3));
    assert!(compile(&[]).is_empty() && !compile(&[]).is_match(""));
}

#[test]
fn all_names_are_known_to_the_engine() {
    for name in names::all() {
        for pattern in [format!(r"\p{{{name}}}"), format!(r"(?i)[^\P{{{name}}}]")] {
            assert!(compile_one(&pattern).is_ok(), "{pattern}: {:?}", compile_one(&pattern));
        }
    }
}

proptest! {
    #[test]
    fn no_pattern_makes_it_panic(pattern in ".{0,24}", text in ".{0,8}") {
        let _ = compile(&[pattern]).is_match(&text);
    }

    #[test]
    fn what_is_translated_is_understood(parts in proptest::collection::vec(
        proptest::sample::select(&[
            "a", "é", ".", "^", "*", "?", "+", "{2}", "{,2}", "(", ")", "(?i)", "(?m:", "|", "[", "]", "[^a-", r"\d", r"\W",
            r"\b", r"\Q", r"\E", r"\pL", r"\x{D800}", r"\12", "-", "&&",
        ][..]), 0..8)
    ) {
        let pattern = parts.concat();
        if let (Ok(translated), Err(error)) = (translate::translate(&pattern), compile_one(&pattern)) {
            prop_assert!(error.starts_with("it compiles to more than"), "{} as {}: {}", pattern, translated, error);
        }
    }

    #[test]
    fn quoted_text_matches_itself(text in "[^\\\\]{0,12}") {
        let pattern = format!(r"\A\Q{text}\E\z");
        prop_assert!(compile_one(&pattern).is_ok_and(|regex| regex.is_match(&text)));
    }
}
