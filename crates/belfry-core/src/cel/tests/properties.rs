//! What holds for every expression: nothing panics, positions lie in the source, what is accepted has a value of its
//! type or fails for a reason that types can't see.

use proptest::prelude::*;

use super::{declared, variables};
use crate::cel::{Type, Value, check, compile, eval::Evaluation, parse, types::Ty};

/// Decisions, taken from what proptest made up, so that it can make them smaller.
struct Choices<'c> {
    bytes: std::slice::Iter<'c, u8>,
    depth: usize,
}

impl Choices<'_> {
    fn of(&mut self, count: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % count
    }

    fn one<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.of(texts.len())]
    }

    /// An expression of this type by the rules of the language. Without `[]` and `optional.none()`, whose types are
    /// those of what they meet first.
    fn typed(&mut self, ty: &Ty) -> String {
        if self.depth == 0 {
            return self.leaf(ty).to_owned();
        }
        self.depth -= 1;
        let text = match self.of(8) {
            0 => self.leaf(ty).to_owned(),
            1 => format!("({} ? {} : {})", self.typed(&Ty::Bool), self.typed(ty), self.typed(ty)),
            2 => format!("[{}, {}][{}]", self.typed(ty), self.typed(ty), self.typed(&Ty::Int)),
            3 => format!("{{{}: {}}}[{}]", self.typed(&Ty::String), self.typed(ty), self.typed(&Ty::String)),
            4 => format!("optional.of({}).orValue({})", self.typed(ty), self.typed(ty)),
            _ => self.compound(ty),
        };
        self.depth += 1;
        text
    }

    fn leaf(&mut self, ty: &Ty) -> &'static str {
        match ty {
            Ty::Int => self.one(&["0", "1", "-7", "i", "9223372036854775807"]),
            Ty::Uint => self.one(&["0u", "3u", "u", "18446744073709551615u"]),
            Ty::Double => self.one(&["0.0", "1.5", "-2.5e10", "d"]),
            Ty::String => self.one(&["''", "'a'", "'1'", "s", "'äö'", "'2020-01-01T00:00:00Z'", "'1h'"]),
            Ty::Bytes => self.one(&["b''", "b'\\xff'", "y"]),
            Ty::Timestamp => self.one(&["timestamp(0)", "timestamp('9999-12-31T23:59:59Z')", "t"]),
            Ty::Duration => self.one(&["duration('0')", "duration('-1.5h')", "duration(s)"]),
            Ty::Optional(_) => self.one(&["optional.of(1)", "o"]),
            Ty::List(_) => self.one(&["[0]", "[1, 2]", "l"]),
            _ => self.one(&["true", "false", "b"]),
        }
    }

    fn compound(&mut self, ty: &Ty) -> String {
        let list = Ty::list(Ty::Int);
        match ty {
            Ty::Int => match self.of(6) {
                0 => self.of_two(&["+", "-", "*", "/", "%"], &Ty::Int),
                1 => format!("size({})", self.typed(&Ty::String)),
                2 => {
                    let from = [Ty::Uint, Ty::Double, Ty::String, Ty::Timestamp, Ty::Duration][self.of(5)].clone();
                    format!("int({})", self.typed(&from))
                }
                3 => format!(
                    "{}.indexOf({}, {})",
                    self.typed(&Ty::String),
                    self.typed(&Ty::String),
                    self.typed(&Ty::Int)
                ),
                4 => format!("{}.getHours({})", self.typed(&Ty::Timestamp), self.typed(&Ty::String)),
                _ => format!("{}.{}().value()", self.typed(&list), self.one(&["first", "last"])),
            },
            Ty::Uint => self.of_two(&["+", "-", "*", "/", "%"], &Ty::Uint),
            Ty::Double => self.of_two(&["+", "-", "*", "/"], &Ty::Double),
            Ty::Bytes => format!("base64.decode({})", self.typed(&Ty::String)),
            Ty::Timestamp => format!("({} {} {})", self.typed(ty), self.one(&["+", "-"]), self.typed(&Ty::Duration)),
            Ty::Duration => format!("({} - {})", self.typed(&Ty::Timestamp), self.typed(&Ty::Timestamp)),
            Ty::Optional(_) => match self.of(3) {
                0 => format!("{}.optMap(v, {} + v)", self.typed(ty), self.typed(&Ty::Int)),
                1 => format!("{}.or({})", self.typed(ty), self.typed(ty)),
                _ => format!("{}[?{}]", self.typed(&list), self.typed(&Ty::Int)),
            },
            Ty::List(_) => match self.of(3) {
                0 => format!("({} + {})", self.typed(ty), self.typed(ty)),
                1 => format!("{}.map(v, {} + v)", self.typed(ty), self.typed(&Ty::Int)),
                _ => format!("{}.filter(v, v < {})", self.typed(ty), self.typed(&Ty::Int)),
            },
            Ty::String => self.text(),
            _ => self.condition(),
        }
    }

    fn of_two(&mut self, operators: &[&str], ty: &Ty) -> String {
        format!("({} {} {})", self.typed(ty), self.one(operators), self.typed(ty))
    }

    fn text(&mut self) -> String {
        match self.of(6) {
            0 => self.of_two(&["+"], &Ty::String),
            1 => format!("{}.substring({})", self.typed(&Ty::String), self.typed(&Ty::Int)),
            2 => {
                let from = [Ty::Int, Ty::Uint, Ty::Double, Ty::Bytes, Ty::Timestamp, Ty::Duration][self.of(6)].clone();
                format!("string({})", self.typed(&from))
            }
            3 => format!(
                "{}.split({}).join({})",
                self.typed(&Ty::String),
                self.typed(&Ty::String),
                self.typed(&Ty::String)
            ),
            4 => format!(
                "'%s %d %x'.format([{}, {}, {}])",
                self.typed(&Ty::Bool),
                self.typed(&Ty::Int),
                self.typed(&Ty::Bytes)
            ),
            _ => format!(
                "{}.{}",
                self.typed(&Ty::String),
                self.one(&["trim()", "reverse()", "charAt(0)", "replace('a', s)"])
            ),
        }
    }

    fn condition(&mut self) -> String {
        let any = [Ty::Int, Ty::Uint, Ty::Double, Ty::String, Ty::Bytes, Ty::Timestamp, Ty::Bool][self.of(7)].clone();
        let list = Ty::list(Ty::Int);
        match self.of(8) {
            0 => self.of_two(&["&&", "||"], &Ty::Bool),
            1 => self.of_two(&["==", "!=", "<", ">="], &any),
            2 => format!("!{}", self.typed(&Ty::Bool)),
            3 => format!("({} {} {})", self.typed(&Ty::Int), self.one(&["<", ">"]), self.typed(&Ty::Double)),
            4 => format!("({} in {})", self.typed(&Ty::Int), self.typed(&list)),
            5 => format!(
                "{}.{}(v, v == {})",
                self.typed(&list),
                self.one(&["all", "exists", "exists_one"]),
                self.typed(&Ty::Int)
            ),
            6 => format!("{}.matches({})", self.typed(&Ty::String), self.typed(&Ty::String)),
            _ => format!("has(m.a) && m.a == {}", self.typed(&Ty::Int)),
        }
    }
}

/// Variables of every type, and values for them.
fn scope() -> Vec<(&'static str, Ty, Value)> {
    let moment = compile("timestamp('2024-02-29T23:59:59.5+01:00')", &[], Type::Dyn).unwrap().evaluate(&[]).unwrap();
    vec![
        ("i", Ty::Int, Value::Int(-3)),
        ("u", Ty::Uint, Value::Uint(7)),
        ("d", Ty::Double, Value::Double(f64::NAN)),
        ("s", Ty::String, Value::from("(a%")),
        ("b", Ty::Bool, Value::from(true)),
        ("y", Ty::Bytes, Value::Bytes([0, 255][..].into())),
        ("t", Ty::Timestamp, moment),
        ("o", Ty::optional(Ty::Int), Value::Optional(None)),
        ("l", Ty::list(Ty::Int), Value::List([Value::Int(1), Value::Int(-1)].into())),
        ("m", Ty::map(Ty::String, Ty::Int), Value::object([("a", Value::Int(1))])),
    ]
}

/// Whether a value is one of a type.
fn is(value: &Value, ty: &Ty) -> bool {
    match (value, ty) {
        (_, Ty::Dyn | Ty::Free(_))
        | (Value::Int(_), Ty::Int)
        | (Value::Uint(_), Ty::Uint)
        | (Value::Double(_), Ty::Double)
        | (Value::String(_), Ty::String)
        | (Value::Bytes(_), Ty::Bytes)
        | (Value::Bool(_), Ty::Bool)
        | (Value::Timestamp(_), Ty::Timestamp)
        | (Value::Duration(_), Ty::Duration)
        | (Value::Optional(None), Ty::Optional(_)) => true,
        (Value::Optional(Some(value)), Ty::Optional(ty)) => is(value, ty),
        (Value::List(items), Ty::List(ty)) => items.iter().all(|item| is(item, ty)),
        _ => false,
    }
}

fn types() -> impl Strategy<Value = Ty> {
    proptest::sample::select(vec![
        Ty::Bool,
        Ty::Int,
        Ty::Uint,
        Ty::Double,
        Ty::String,
        Ty::Bytes,
        Ty::Timestamp,
        Ty::Duration,
        Ty::optional(Ty::Int),
        Ty::list(Ty::Int),
    ])
}

/// Pieces of expressions in any order.
fn soup() -> impl Strategy<Value = String> {
    let pieces = [
        "req",
        "obj",
        ".",
        ".?",
        "[",
        "[?",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        "'a'",
        "b'\\xff'",
        "r'\\'",
        "1",
        "-",
        "2u",
        "1.5",
        "null",
        "true",
        "==",
        "<",
        "in",
        "+",
        "*",
        "%",
        "/",
        "!",
        "&&",
        "||",
        "x",
        "all(x,",
        ".map(x,",
        "has(",
        "size(",
        "optional.of(",
        ".optMap(x,",
        "string(",
        "int(",
        "timestamp(",
        ".format([",
        "'%s%d'",
        ".matches(",
        "'('",
        "type(",
        "dyn(",
        "sets.contains(",
        "action",
        "tags",
        "n",
        " ",
        "\n",
        "//",
        "\"",
        "'''",
        "\\",
        "é",
        "\u{0}",
    ];
    let pieces = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..40);
    pieces.prop_map(|pieces| pieces.concat())
}

/// Takes an expression in and evaluates it. Answers whether it was understood.
fn try_it(expression: &str) -> Result<bool, TestCaseError> {
    let holds = |position: Option<(usize, usize)>| match position {
        None => true,
        Some((line, column)) => {
            let text = expression.split('\n').nth(line - 1);
            text.is_some_and(|text| (1..=text.chars().count() + 1).contains(&column))
        }
    };
    match compile(expression, &[("req", Type::Object), ("obj", Type::Object)], Type::Dyn) {
        Err(bad) => {
            prop_assert!(holds(bad.position) && !bad.message.is_empty(), "{:?}: {:?}", expression, bad);
            Ok(false)
        }
        Ok(program) => {
            if let Err(error) = program.evaluate(&variables()) {
                prop_assert!(holds(error.position) && !error.message.is_empty(), "{:?}: {:?}", expression, error);
            }
            Ok(true)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 2_000 } else { 50_000 }))]

    #[test]
    fn any_text_is_an_expression_or_refused(text in "\\PC{0,60}|(?s).{0,60}") {
        try_it(&text)?;
    }

    #[test]
    fn any_row_of_pieces_is_an_expression_or_refused(text in soup()) {
        try_it(&text)?;
    }

    #[test]
    fn what_is_well_typed_is_accepted_and_never_meets_a_wrong_type(
        ty in types(),
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let expression = Choices { bytes: bytes.iter(), depth: 4 }.typed(&ty);
        let scope = scope();
        let names: Vec<_> = scope.iter().map(|(name, ty, _)| (*name, ty.clone())).collect();
        let mut root = parse::parse(&expression).unwrap();
        let found = match check::check(&expression, &mut root, &names) {
            Ok(found) => found,
            Err(bad) => {
                // A conversion or pattern of a literal was tried in advance.
                prop_assert!(
                    ["conversion error", "overflow", "regular expression", "UTF-8"].iter().any(|word| bad.message.contains(word)),
                    "{}: {}", expression, bad
                );
                return Ok(());
            }
        };
        prop_assert!(found == ty, "{}: {} instead of {}", expression, found, ty);
        match Evaluation::new(scope.into_iter().map(|(_, _, value)| value).collect()).eval(&root) {
            Ok(value) => prop_assert!(is(&value, &ty), "{} is a {}, not a {}", expression, value.type_name(), ty),
            Err(fault) => prop_assert!(!fault.message.contains("overload") && !fault.cut_off, "{}: {:?}", expression, fault),
        }
    }

    #[test]
    fn equal_values_are_equal_whatever_stands_around_them(text in soup()) {
        // Whatever has a value equals itself, inside of lists and maps too, unless it is no number.
        let around = format!("dyn({text}) == dyn({text}) && [dyn({text})] == [dyn({text})] && {{'a': dyn({text})}} == {{'a': dyn({text})}}");
        let program = compile(&around, &[("req", Type::Object), ("obj", Type::Object)], Type::Bool);
        if let Some(Ok(equal)) = program.ok().map(|program| program.evaluate_bool(&variables())) {
            prop_assert!(equal, "{}", text);
        }
    }
}

#[test]
fn the_variables_of_the_tables_are_those_that_are_declared() {
    let names = declared().map(|(name, _)| name);
    assert_eq!(names, variables().map(|(name, _)| name));
}
