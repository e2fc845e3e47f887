//! Secrets out of manifests. Nothing that is said here of a Secret holds a value.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use belfry_core::secret::SecretData;
use serde_json::{Map, Value};

/// Reads a Secret: its namespace and name, and what it holds unless some of it is unusable. `report` is told what is
/// wrong, as a field and a reason.
pub(super) fn read(
    manifest: &Value,
    report: &mut dyn FnMut(String, &str),
) -> Option<((String, String), Option<SecretData>)> {
    let metadata = |field: &str| {
        let text = manifest.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
        text.filter(|text| !text.is_empty())
    };
    let Some(name) = metadata("name") else {
        report("metadata.name".into(), "is required");
        return None;
    };
    let key = (metadata("namespace").unwrap_or("default").to_owned(), name.to_owned());
    let mut good = true;
    let mut refuse = |field: String, reason: &str| {
        good = false;
        report(field, reason);
    };
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    // Of a key in both, the API server takes the one in stringData.
    for field in ["data", "stringData"] {
        for (name, value) in map(manifest, field, &mut refuse).into_iter().flatten() {
            let place = format!("{field}.{name}");
            match value {
                Value::Null => pairs.push((name.clone(), Vec::new())),
                Value::String(text) if field == "stringData" => pairs.push((name.clone(), text.clone().into_bytes())),
                Value::String(text) => match decode(text) {
                    Some(bytes) => pairs.push((name.clone(), bytes)),
                    None => refuse(place, "is not base64 (plain text goes under stringData)"),
                },
                _ => refuse(place, "must be text (put it in quotes)"),
            }
        }
    }
    Some((key, good.then(|| pairs.into_iter().collect())))
}

fn map<'m>(manifest: &'m Value, field: &str, refuse: &mut dyn FnMut(String, &str)) -> Option<&'m Map<String, Value>> {
    match manifest.get(field) {
        None | Some(Value::Null) => None,
        Some(Value::Object(map)) => Some(map),
        Some(_) => {
            refuse(field.to_owned(), "must be a map");
            None
        }
    }
}

/// Base64 as the API server takes it: the standard alphabet with padding; line breaks don't count.
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\n', '\r'], "")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, expected) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9v\nYmFy\r\n", Some("foobar")),
            ("8J+UlA==", Some("🔔")),
            ("Zg", None),
            ("Zg=", None),
            ("Z===", None),
            ("====", None),
            ("Zm=v", None),
            ("Zm9v Zm9v", None),
            ("Zm9-", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected.map(str::as_bytes), "{text:?}");
        }
    }
}
