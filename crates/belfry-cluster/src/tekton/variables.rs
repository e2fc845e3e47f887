//! `$(params.NAME)` in an embedded spec, which Tekton hands over as it is written.

use std::collections::BTreeMap;

use serde_json::Value;

const BEGIN: &str = "$(params";
/// Bytes that variables may grow to in all: a variable is short, and may stand anywhere any number of times.
const GROWTH: usize = 256 * 1024;
/// What an item of a list counts beside its text.
const ITEM: usize = 32;

/// Puts the values of params in the place of their variables, in every text. What is put in is not looked at again, and
/// a variable that can't be resolved stays.
pub(super) fn resolve(spec: Value, params: &BTreeMap<&str, &Value>) -> Value {
    Resolver { params, left: GROWTH }.value(spec)
}

struct Resolver<'p> {
    params: &'p BTreeMap<&'p str, &'p Value>,
    left: usize,
}

impl Resolver<'_> {
    fn value(&mut self, spec: Value) -> Value {
        match spec {
            Value::String(text) => match self.list(&text) {
                Some(items) => Value::Array(items),
                None => Value::String(self.text(&text)),
            },
            Value::Array(items) => {
                let mut resolved = Vec::with_capacity(items.len());
                for item in items {
                    match item.as_str().and_then(|text| self.list(text)) {
                        Some(items) => resolved.extend(items),
                        None => resolved.push(self.value(item)),
                    }
                }
                Value::Array(resolved)
            }
            Value::Object(fields) => {
                Value::Object(fields.into_iter().map(|(key, value)| (key, self.value(value))).collect())
            }
            other => other,
        }
    }

    /// The list that a text is the variable of: `$(params.NAME[*])`.
    fn list(&mut self, text: &str) -> Option<Vec<Value>> {
        let inner = text.trim().strip_prefix(BEGIN)?.strip_suffix(")")?;
        let (name, rest) = name(inner)?;
        let items = self.params.get(name).filter(|_| rest == "[*]")?.as_array()?;
        if items.len() > self.left / ITEM {
            return None;
        }
        let bytes = items.iter().map(|item| Some(item.as_str()?.len() + ITEM)).sum::<Option<usize>>()?;
        self.grow(bytes).then(|| items.clone())
    }

    fn text(&mut self, text: &str) -> String {
        let (mut done, mut rest) = (String::new(), text);
        while let Some(start) = rest.find(BEGIN) {
            let after = &rest[start + BEGIN.len()..];
            let Some(end) = after.find(')') else { break };
            done.push_str(&rest[..start]);
            let found = name(&after[..end]).and_then(|(name, rest)| value(self.params.get(name)?, rest));
            match found.filter(|found| self.grow(found.len())) {
                Some(value) => done.push_str(value),
                None => done.push_str(&rest[start..start + BEGIN.len() + end + 1]),
            }
            rest = &after[end + 1..];
        }
        done + rest
    }

    /// Whether there is room for so much.
    fn grow(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The first variable that is left in a text, up to its end.
pub(super) fn unresolved(text: &str) -> Option<&str> {
    let start = text.find("$(")?;
    let end = text[start..].find(')').map_or(text.len(), |end| start + end + 1);
    Some(&text[start..end])
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
    fn a_small_spec_does_not_grow_without_bounds() {
        let long = json!("x".repeat(100_000));
        let list = Value::Array(vec![json!("y"); 3000]);
        let params = BTreeMap::from([("a", &long), ("l", &list)]);
        let text = "$(params.a)".repeat(50_000);
        let lists = vec![json!("$(params.l[*])"); 50_000];
        for spec in [json!(text), json!(lists), Value::Array(vec![json!("$(params.a)"); 50_000])] {
            let before = spec.to_string().len();
            assert!(resolve(spec, &params).to_string().len() < before + 2 * GROWTH);
        }
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
