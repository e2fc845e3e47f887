//! What a hostile expression, or a hostile input of a harmless one, can cost: nothing that others would feel.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::cel::{BadExpression, EvalError, Type, Value, compile, limits};

/// Far more than any of this takes, and far less than it would take unbounded.
const PATIENCE: Duration = Duration::from_secs(20);

fn run(expression: &str, req: &serde_json::Value) -> Result<Value, EvalError> {
    let program = compile(expression, &[("req", Type::Object)], Type::Dyn).unwrap();
    let variables = [("req", Value::from(req))];
    let start = Instant::now();
    let result = program.evaluate(&variables);
    assert!(start.elapsed() < PATIENCE, "{expression}: {:?}", start.elapsed());
    result
}

#[track_caller]
fn assert_cut_off(expression: &str, req: &serde_json::Value) {
    // A value may share so much that it can't be printed.
    match run(expression, req) {
        Ok(value) => panic!("{expression} comes to a {}", value.type_name()),
        Err(error) => assert!(error.cut_off && error.position.is_some(), "{expression}: {error}"),
    }
}

#[test]
fn loops_in_loops_are_cut_off() {
    let req = json!({"list": vec![1; 1000]});
    assert_cut_off("req.list.map(a, req.list.map(b, req.list.map(c, a + b + c))).size()", &req);
    assert_cut_off("req.list.all(a, req.list.all(b, a == b))", &req);
    assert_cut_off("req.list.exists_one(a, req.list.filter(b, b > a) == req.list)", &req);
    // Without any input: each level doubles.
    let depth = 24;
    let doubling = format!("{}1{}", "[1, 2].map(x, ".repeat(depth), ")".repeat(depth));
    assert_cut_off(&doubling, &json!({}));
    // A single loop over a whole list is no hostility.
    assert!(run("req.list.all(a, a == 1.0) && req.list.map(a, a + 1.0).size() == 1000", &req).is_ok());
}

#[test]
fn nothing_absorbs_the_end_of_the_budget() {
    let req = json!({"list": vec![1; 1000]});
    let endless = "req.list.all(a, req.list.all(b, req.list.all(c, a == b)))";
    for expression in [
        format!("{endless} || true"),
        format!("false || {endless}"),
        format!("!({endless}) && false"),
        format!("[1, 2].exists(x, {endless} || x == 2)"),
        format!("optional.none().orValue({endless})"),
        format!("[1].filter(x, {endless}).size() == 0"),
    ] {
        assert_cut_off(&expression, &req);
    }
    assert!(run(&format!("true || {endless}"), &req).is_ok(), "what isn't needed isn't evaluated");
}

#[test]
fn texts_and_lists_that_grow_are_cut_off() {
    let req = json!({"text": "x".repeat(100_000), "list": vec!["x".repeat(1000); 1000]});
    for expression in [
        "req.text.replace('', req.text)",
        "req.text.split('').map(x, x + req.text)",
        "req.list.map(x, req.list.join(req.text))",
        "req.list.map(x, '%s%s%s'.format([req.text, req.list, req]))",
        "req.list.map(x, '%x'.format([req.text]))",
        "req.list.map(x, base64.encode(bytes(req.text)))",
        "req.list.map(x, strings.quote(req.text))",
        "req.list.map(x, req.list + req.list)",
        "req.list.map(x, req.text.reverse())",
        "req.list.map(x, [x, x, x, x, x, x, x, x, x, x].map(y, req.list.map(z, [z])))",
    ] {
        assert_cut_off(expression, &req);
    }
}

#[test]
fn looking_at_large_inputs_again_and_again_is_cut_off() {
    let long = "x".repeat(1_000_000);
    let zeros = format!("{}1", "0".repeat(1_000_000));
    let req = json!({
        "list": vec![1; 1000], "text": long, "key": long, "other": format!("{long}y"), "zeros": zeros,
        "map": {&long: 1, format!("{long}y"): 2}, "part": "y".repeat(900_000),
    });
    for work in [
        "req.text == req.key",
        "req.text < req.other",
        "req.map[req.key] == 1.0",
        "req.map[?req.key].hasValue()",
        "req.key in req.map",
        "has(req.map.x) || req.map == req.map",
        "{req.key: 1, req.other: 2}.size() == 2",
        "req.text.contains(req.part)",
        "req.text.startsWith(req.part)",
        "'x'.indexOf(req.part) == 0",
        "'x'.lastIndexOf(req.part) == 0",
        "'x'.replace(req.part, '') == ''",
        "'x'.split(req.part) == []",
        "req.text.size() == 1",
        "req.text.matches('x*y')",
        "int(req.zeros) == 1",
        "uint(req.zeros) == 1u",
        "double(req.zeros) == 1.0",
        "timestamp(req.text) == timestamp(0) || true",
        "duration(req.text) == duration('0') || true",
        "req.text.charAt(999999) == 'x'",
        "req.text in [req.key, req.other]",
        "sets.contains([req.text], [req.other])",
    ] {
        assert_cut_off(&format!("req.list.map(a, req.list.map(b, {work})).size() == 0"), &req);
    }
}

#[test]
fn faults_repeat_only_the_beginning_of_what_failed() {
    let long = "x".repeat(1_000_000);
    let req = json!({"key": long, "map": {}, "list": [long]});
    for expression in [
        "req.map[req.key]",
        "req.map[req.list]",
        "req.list[req.key]",
        "int(req.key)",
        "timestamp(req.key)",
        "duration(req.key)",
        "timestamp(0).getHours(req.key)",
        "req.key.format([1])",
        "('%' + req.key).format([1])",
        "('%.' + req.key).format([1])",
        "'a'.matches('(' + req.key.substring(0, 1000))",
        "base64.decode(req.key + '=')",
    ] {
        let error = run(expression, &req).map_or_else(|error| error.message, |_| String::new());
        assert!(error.len() < 300, "{expression}: {} bytes", error.len());
    }
}

#[test]
fn patterns_cost_what_they_cost() {
    let req = json!({"text": "a".repeat(100_000), "list": vec![1; 100]});
    assert_cut_off("req.list.all(x, req.text.matches('(a|aa|aaa)*(b|c){100}$') || true)", &req);
    assert_cut_off("req.list.all(x, req.text.matches('(?i)[a-z]{100}[0-9]{100}') || true)", &req);
    // Patterns that aren't literals are compiled where they are met, each of them once.
    let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let numbers = numbers.join(", ");
    assert_cut_off(&format!("[{numbers}].all(x, 'a'.matches('a{{500}}' + string(x)) || true)"), &req);
    assert!(run(&format!("[{numbers}].all(x, 'a'.matches('a' + string(x / 10)) || true)"), &req).is_ok());
    let error = run("'a'.matches(req.text)", &req).unwrap_err();
    assert_eq!(error.message, "a pattern of more than 1024 bytes");
    let row = |count: usize| vec!["'a'.matches('a')"; count].join(" && ");
    assert!(run(&row(limits::PATTERNS), &req).is_ok());
    let error = compile(&row(limits::PATTERNS + 1), &[], Type::Bool).unwrap_err();
    assert_eq!(error.message, "more than 32 regular expressions");
}

/// Expressions of the greatest length that are hard to take in, whatever becomes of them.
fn monsters() -> Vec<String> {
    let filled = |piece: &str| piece.repeat(limits::EXPRESSION / piece.len());
    let nested = |open: &str, middle: &str, close: &str, depth: usize| {
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    let mut all = vec![
        filled("("),
        filled("["),
        filled("{"),
        filled("!"),
        filled("-"),
        filled("- "),
        filled("1?"),
        filled("a."),
        filled("a["),
        filled("a("),
        filled("[1]."),
        filled("'"),
        filled("\\"),
        filled("0x"),
        filled("\u{10ffff}"),
        filled("has("),
        filled("1+").to_owned() + "1",
        filled("''+").to_owned() + "''",
        filled("true||") + "true",
        filled("true&&") + "true",
        filled("1<") + "1",
        filled(".?a"),
        format!("req{}", filled(".?a")),
        format!("req{}", filled(".a")),
        format!("req{}", filled("[0]")),
        format!("[{}]", filled("[],")),
        format!("[{}]", filled("{},")),
        format!("[{}]", filled("[[]],")),
        format!("[{}]", filled("optional.none(),")),
        filled("[]+") + "[]",
        filled("{}==") + "{}",
        filled("[].first(),"),
        format!("{{{}}}", filled("[]:{},")),
        format!("''.format([{}])", filled("1,")),
        format!("'{}'.format([])", filled("%s")),
        format!("''{}", filled(".trim()")),
        format!("[]{}", filled(".map(x,x)")),
        format!("[]{}", filled(".filter(x,true)")),
        format!("optional.none(){}", filled(".optMap(x,x)")),
    ];
    for depth in [20, limits::NESTING - 1, 200, 1000] {
        for (open, middle, close) in [
            ("(", "1", ")"),
            ("[", "", "]"),
            ("{'a': ", "1", "}"),
            ("!(", "true", ")"),
            ("-(", "1", ")"),
            ("string(", "1", ")"),
            ("dyn(", "1", ")"),
            ("[1].map(x, ", "x", ")"),
            ("[[]].map(x, x + ", "[]", ")"),
            ("[1].exists(x, x == 1 && ", "true", ")"),
            ("true ? 1 : ", "1", ""),
            ("true ? ", "1", " : 1"),
            ("{}[", "1", "]"),
            ("optional.of(", "1", ")"),
            ("optional.of(1).optMap(x, ", "x", ")"),
            ("optional.none().optFlatMap(x, ", "optional.none()", ")"),
            ("'%s'.format([", "1", "])"),
            ("size([", "", "])"),
            ("{[]: ", "[]", "}"),
            ("[?optional.of(", "1", ")]"),
            ("(1 + ", "1", ")"),
            ("has(req.a) && (", "true", ")"),
            ("type(", "1", ")"),
        ] {
            all.push(nested(open, middle, close, depth));
        }
    }
    all
}

#[test]
fn monsters_are_refused_or_understood_at_once_on_a_small_stack() {
    // Half of what a thread of the runtime has, in a build without optimisation.
    let small = thread::Builder::new().stack_size(1024 * 1024);
    let run_all = || {
        let mut understood = 0;
        for monster in monsters() {
            let start = Instant::now();
            if let Ok(program) = compile(&monster, &[("req", Type::Object)], Type::Dyn) {
                understood += 1;
                let _ = program.evaluate(&[("req", Value::from(json!({"a": {"a": [[[1]]]}})))]);
            }
            let start_of = monster.get(..40).unwrap_or(&monster);
            assert!(start.elapsed() < PATIENCE, "{start_of}: {:?}", start.elapsed());
        }
        understood
    };
    let understood = small.spawn(run_all).unwrap().join().unwrap();
    assert!(understood > 40, "{understood}");
}

#[test]
fn values_are_as_deep_as_json_gets_and_no_deeper() {
    let deep = (0..120).fold(json!(1), |inner, _| json!([inner]));
    let wide = "[[[[[[[[[[req.deep]]]]]]]]]]";
    let expression = format!("{wide} == {wide} && '%s'.format([{wide}]).size() > 260 && [{wide}].map(x, [x]) != []");
    let check = move || run(&expression, &json!({"deep": deep})).unwrap().to_string();
    let small = thread::Builder::new().stack_size(1024 * 1024);
    assert_eq!(small.spawn(check).unwrap().join().unwrap(), "true");
}

#[test]
fn expressions_may_be_nested_as_far_as_people_nest_them() {
    let depth = |open: &str, middle: &str, close: &str, depth: usize| -> Result<(), BadExpression> {
        let expression = format!("{}{middle}{}", open.repeat(depth), close.repeat(depth));
        compile(&expression, &[], Type::Dyn).map(drop)
    };
    assert_eq!(depth("(", "1", ")", limits::NESTING - 1), Ok(()));
    assert_eq!(
        depth("(", "1", ")", limits::NESTING).unwrap_err().to_string(),
        "1:49: the expression is nested deeper than 48"
    );
    assert_eq!(depth("1 + ", "1", "", usize::from(limits::DEPTH) - 1), Ok(()));
    assert_eq!(
        depth("1 + ", "1", "", usize::from(limits::DEPTH)).unwrap_err().to_string(),
        "1:511: the expression is nested deeper than 128"
    );
    assert_eq!(depth("true || ", "true", "", 2000), Ok(()), "rows of logical operators are one node");
}
