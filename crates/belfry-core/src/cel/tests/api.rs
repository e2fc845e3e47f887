//! How programs are compiled and run, and what is said of those that can't be.

use serde_json::json;

use crate::cel::{NoCommitStatusId, Program, Type, Value, commit_status_id, compile, compile_commit_status, limits};

fn bad(expression: &str, result: Type) -> String {
    compile(expression, &[("req", Type::Object)], result).map_or_else(|bad| bad.to_string(), |_| "fine".into())
}

#[test]
fn a_result_must_be_of_its_type_before_anything_is_evaluated() {
    for (expression, result, expected) in [
        ("req.flag", Type::Bool, "CEL expression output type mismatch: expected bool, got dyn"),
        ("req.flag == true", Type::Bool, "fine"),
        ("'a'", Type::Bool, "CEL expression output type mismatch: expected bool, got string"),
        ("req.a + req.b", Type::String, "CEL expression output type mismatch: expected string, got dyn"),
        ("req.a + '/' + req.b", Type::String, "fine"),
        ("string(req.a)", Type::String, "fine"),
        ("req.a", Type::Dyn, "fine"),
        ("[1]", Type::List, "fine"),
        ("req", Type::List, "CEL expression output type mismatch: expected list(dyn), got map(string, dyn)"),
        ("{'a': 1}", Type::Object, "fine"),
        ("1", Type::Object, "CEL expression output type mismatch: expected map(string, dyn), got int"),
    ] {
        assert_eq!(bad(expression, result), expected, "{expression}");
    }
}

#[test]
fn errors_name_line_and_column_in_characters() {
    for (expression, expected) in [
        ("", "1:1: the expression ends where a value is expected"),
        ("   ", "1:4: the expression ends where a value is expected"),
        ("true &&\n  nope", "2:3: undeclared reference to 'nope' (declared: req)"),
        ("'äöü' + nope", "1:9: undeclared reference to 'nope' (declared: req)"),
        ("true\r\n&& // why\n 'a'", "3:2: expected type 'bool' but found 'string'"),
        ("'a\nb'", "1:1: this text has no closing quote on its line"),
        ("'''a\nb''' == nope", "2:9: undeclared reference to 'nope' (declared: req)"),
        (
            "req.action.startsWit('a')",
            "1:21: undeclared reference to 'startsWit': there is no such function; is \
                                       startsWith() what you mean?",
        ),
    ] {
        assert_eq!(bad(expression, Type::Bool), expected, "{expression}");
    }
    let program = compile("req.a ==\n  req.b", &[("req", Type::Object)], Type::Bool).unwrap();
    let error = program.evaluate_bool(&[("req", Value::from(json!({"a": 1})))]).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.cut_off), ("2:6: no such key: b", false));
}

#[test]
fn texts_over_several_lines_have_line_feeds_only() {
    for expression in ["'''a\nb''' == 'a\\nb'", "'''a\r\nb''' == 'a\\nb'", "\"\"\"a\rb\"\"\" == 'a\\nb'", "\t\x0ctrue"]
    {
        let program = compile(expression, &[], Type::Bool).unwrap();
        assert!(program.evaluate_bool(&[]).unwrap(), "{expression:?}");
    }
}

#[test]
fn an_expression_has_a_longest_length() {
    let filled = |length: usize| format!("true{}", " ".repeat(length - 4));
    assert_eq!(bad(&filled(limits::EXPRESSION), Type::Bool), "fine");
    assert_eq!(bad(&filled(limits::EXPRESSION + 1), Type::Bool), "the expression has 16385 bytes; 16384 are allowed");
}

#[test]
fn variables_are_those_that_were_declared() {
    let program = compile("a && b == 'x'", &[("a", Type::Bool), ("b", Type::String)], Type::Bool).unwrap();
    assert_eq!(program.expression(), "a && b == 'x'");
    assert_eq!(format!("{program:?}"), r#"Program("a && b == 'x'")"#);
    let [a, b, c] = [("a", Value::from(true)), ("b", Value::from("x")), ("c", Value::Null)];
    assert_eq!(program.evaluate_bool(&[c, b.clone(), a.clone()]), Ok(true));
    let error = program.evaluate_bool(&[a]).unwrap_err();
    assert_eq!(error.to_string(), "the variable 'b' has no value");
    assert_eq!(
        program.evaluate_string(&[("a", Value::from(true)), b]).unwrap_err().message,
        "expected a string, got a bool"
    );
    // What was declared wrongly is found out at run time.
    let error = program.evaluate_bool(&[("a", Value::from("x")), ("b", Value::from("x"))]).unwrap_err();
    assert_eq!(error.to_string(), "1:1: no such overload: a condition must be a bool, not a string");
}

#[test]
fn whole_numbers_are_integers_in_objects_and_doubles_in_bodies() {
    let json = json!({"n": 5, "big": 18_446_744_073_709_551_615_u64, "f": 0.5});
    let program = compile("type(o.n)", &[("o", Type::Object)], Type::Dyn).unwrap();
    let name = |program: &Program, value| program.evaluate(&[("o", value)]).unwrap().to_string();
    assert_eq!(name(&program, Value::typed(&json)), "int");
    assert_eq!(name(&program, Value::from(&json)), "double");
    let program = compile("type(o.big)", &[("o", Type::Object)], Type::Dyn).unwrap();
    assert_eq!(name(&program, Value::typed(&json)), "double");
}

fn id(expression: &str, event: serde_json::Value) -> Result<String, NoCommitStatusId> {
    let program = compile_commit_status(expression).unwrap();
    let alert = json!({"metadata": {"name": "al", "namespace": "ns"}, "spec": {"eventMetadata": {"env": "prod"}}});
    let provider = json!({"metadata": {"name": "p", "uid": "0c9c2e41-d2f9"}, "spec": {"type": "github"}});
    commit_status_id(&program, &event, &alert, &provider)
}

#[test]
fn the_id_of_a_commit_status_is_a_text_and_not_empty() {
    let event = || json!({"involvedObject": {"kind": "Kustomization", "name": "App"}, "metadata": {"env": ""}});
    for (expression, expected) in [
        ("(event.involvedObject.kind + '/' + event.involvedObject.name).lowerAscii()", "kustomization/app"),
        ("'%s/%s'.format([provider.metadata.name, alert.spec.eventMetadata.env])", "p/prod"),
        ("provider.metadata.uid.split('-').first().value() + '/' + alert.metadata.name", "0c9c2e41/al"),
        ("string(event.metadata.env)", "commit status cannot be empty"),
        ("event.reason + '/'", "1:6: no such key: reason"),
        (
            "'a'.replace('', '%.99f'.format([1.0])).replace('', '%.99f'.format([1.0]))",
            "the commit status has 20807 bytes, which no Git host takes",
        ),
    ] {
        let found = id(expression, event()).unwrap_or_else(|error| error.to_string());
        assert_eq!(found, expected, "{expression}");
    }
    for (expression, expected) in [
        ("event.reason", "CEL expression output type mismatch: expected string, got dyn"),
        ("req.action + ''", "1:1: undeclared reference to 'req' (declared: event, alert, provider)"),
    ] {
        assert_eq!(compile_commit_status(expression).unwrap_err().to_string(), expected, "{expression}");
    }
}

#[test]
fn values_become_json() {
    let json = |expression: &str| {
        let value = compile(expression, &[], Type::Dyn).unwrap().evaluate(&[]).unwrap();
        value
            .to_json(100)
            .map_or_else(|error| error.to_string(), |json| json.map_or("absent".into(), |json| json.to_string()))
    };
    for (expression, expected) in [
        ("null", "null"),
        ("[1, 2]", "[1,2]"),
        ("[3u, 4u]", "[3,4]"),
        ("[5.0, 0.5, 1e300]", "[5,0.5,1e+300]"),
        ("0.0 / 0.0", "NaN is no number in JSON"),
        ("-1.0 / 0.0", "-inf is no number in JSON"),
        ("{'b': b'\\xff\\xfe', 'a': b''}", r#"{"a":"","b":"//4="}"#),
        ("{1: true}", r#"{"1":true}"#),
        ("timestamp('2020-01-01T00:00:00.5+01:00')", r#""2020-01-01T00:00:00.5+01:00""#),
        ("duration('90s')", r#""90s""#),
        ("optional.none()", "absent"),
        ("optional.of('a')", r#""a""#),
        ("[optional.of(1), optional.none()]", "[1]"),
        ("{'a': optional.none(), 'b': optional.of(1)}", r#"{"b":1}"#),
        ("[int]", "a type is no value in JSON"),
        ("'x'.replace('', 'xxxxxxxxxx').replace('', 'xxxxx')", "the value has more than 100 bytes as JSON"),
        // Ten to the sixth lists, of which few exist.
        (
            "[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]].map(a, [a, a, a, a, a, a, a, a, a, a]).map(a, [a, a, a, a, a, a, a, a, a, a])",
            "the value has more than 100 bytes as JSON",
        ),
    ] {
        assert_eq!(json(expression), expected, "{expression}");
    }
}
