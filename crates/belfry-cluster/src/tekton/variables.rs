//! `$(params.NAME)` in an embedded spec, which Tekton hands over as it is written.

use std::collections::BTreeMap;

use serde_json::Value;

const BEGIN: &str = "$(params";

/// Puts the values of params in the place of their variables, in every text. What is put in is not looked at again, and
/// a variable that can't be resolved stays.
pub(super) fn resolve(spec: Value, params: &BTreeMap<&str, &Value>) -> Value {
    match spec {
        Value::String(text) => whole(&text, params).unwrap_or_else(|| Value::String(within(&text, params))),
        Value::Array(items) => {
            let lists = |item: Value| match &item {
                Value::String(text) => match whole(text, params) {
                    Some(Value::Array(items)) => items,
                    _ => vec![resolve(item, params)],
                },
                _ => vec![resolve(item, params)],
            };
            Value::Array(items.into_iter().flat_map(lists).collect())
        }
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, resolve(value, params))).collect())
        }
        other => other,
    }
}

/// The first variable that is left in a text, up to its end.
pub(super) fn unresolved(text: &str) -> Option<&str> {
    let start = text.find("$(")?;
    let end = text[start..].find(')').map_or(text.len(), |end| start + end + 1);
    Some(&text[start..end])
}

/// The list that a text is the variable of: `$(params.NAME[*])`.
fn whole(text: &str, params: &BTreeMap<&str, &Value>) -> Option<Value> {
    let inner = text.trim().strip_prefix(BEGIN)?.strip_suffix(")")?;
    let (name, rest) = name(inner)?;
    let value = params.get(name).filter(|value| rest == "[*]" && value.is_array())?;
    Some((*value).clone())
}

fn within(text: &str, params: &BTreeMap<&str, &Value>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(BEGIN) {
        let after = &rest[start + BEGIN.len()..];
        let Some(end) = after.find(')') else { break };
        done.push_str(&rest[..start]);
        match name(&after[..end]).and_then(|(name, rest)| value(params.get(name)?, rest)) {
            Some(value) => done.push_str(value),
            None => done.push_str(&rest[start..start + BEGIN.len() + end + 1]),
        }
        rest = &after[end + 1..];
    }
    done + rest
}

/// The name of a param, `.NAME`, `["NAME"]` or `['NAME']`, and what comes after it.
fn name(text: &str) -> Option<(&str, &str)> {
    for (open, close) in [("[\"", "\"]"), ("['", "']")] {
        if let Some(inner) = text.strip_prefix(open) {
            return inner.split_once(close);
        }
    }
    let inner = text.strip_prefix('.')?;
    Some(inner.split_at(inner.find(['[', '.']).unwrap_or(inner.len())))
}

/// The text that a param is, or has at an index or under a key.
fn value<'v>(value: &'v Value, rest: &str) -> Option<&'v str> {
    let value = match rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        _ if rest.is_empty() => value,
        Some(index) => value.get(index.parse::<usize>().ok()?)?,
        None => value.get(rest.strip_prefix('.')?)?,
    };
    value.as_str()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn resolved(spec: Value) -> Value {
        let params = json!({
            "rev": "main", "a.b": "dotted", "list": ["x", "y"], "map": { "key": "v" }, "self": "$(params.rev)", "n": 1,
        });
        let params = params.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value)).collect();
        resolve(spec, &params)
    }

    #[test]
    fn params_take_the_place_of_their_variables() {
        for (text, expected) in [
            ("$(params.rev)", json!("main")),
            ("a-$(params.rev)-$(params.rev)z", json!("a-main-mainz")),
            ("$(params[\"a.b\"]) $(params['a.b'])", json!("dotted dotted")),
            ("$(params.list[1])", json!("y")),
            ("$(params.map.key)", json!("v")),
            ("$(params.list[*])", json!(["x", "y"])),
            ("$(params.self)", json!("$(params.rev)")),
            ("ä$(params.rev)", json!("ämain")),
            // What can't be resolved stays.
            ("$(params.none)", json!("$(params.none)")),
            ("$(params.list)", json!("$(params.list)")),
            ("$(params.list[2])", json!("$(params.list[2])")),
            ("$(params.list[*])!", json!("$(params.list[*])!")),
            ("$(params.n)", json!("$(params.n)")),
            ("$(params.rev", json!("$(params.rev")),
            ("$(params)", json!("$(params)")),
            ("$(tasks.x.results.y)", json!("$(tasks.x.results.y)")),
        ] {
            assert_eq!(resolved(json!(text)), expected, "{text}");
        }
        let spec = json!({ "objects": ["a", "$(params.list[*])", { "name": "$(params.rev)" }], "n": 5 });
        assert_eq!(resolved(spec), json!({ "objects": ["a", "x", "y", { "name": "main" }], "n": 5 }));
    }

    #[test]
    fn what_is_left_is_found() {
        for (text, left) in [
            ("main", None),
            ("a$(params.rev)b", Some("$(params.rev)")),
            ("$(tasks.x", Some("$(tasks.x")),
            ("$x (y)", None),
        ] {
            assert_eq!(unresolved(text), left, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[$(params.relist\\[\\]*1ä\"')]{0,40}") {
            let found = resolved(json!(text));
            if unresolved(&text).is_none() {
                prop_assert_eq!(found, json!(text));
            }
        }
    }
}
