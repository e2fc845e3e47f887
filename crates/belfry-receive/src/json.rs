//! Bodies as JSON, with the rules of the peer's decoders: which content types count, what may follow a value, what may
//! be missing.

use http::header::CONTENT_TYPE;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::{Inbound, Object};

/// The media type in a Content-Type header, in lower case; `None` when it, or a parameter of it, can't be read.
pub(crate) fn media_type(text: &str) -> Option<String> {
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let (kind, subtype) = essence.split_once('/')?;
    (is_token(kind) && is_token(subtype) && are_parameters(parameters)).then_some(essence)
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte))
}

/// `name=value` or `name="value"`, with semicolons between them, and perhaps one at the end.
fn are_parameters(mut text: &str) -> bool {
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return true;
        }
        let Some((name, rest)) = text.split_once('=') else { return false };
        let Some(rest) = value_end(rest.trim_start()) else { return false };
        if !is_token(name.trim_end()) {
            return false;
        }
        text = match rest.trim_start().strip_prefix(';') {
            Some(next) => next,
            None => return rest.trim().is_empty(),
        };
    }
}

/// What follows a parameter's value.
fn value_end(text: &str) -> Option<&str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        return Some(&quoted[end + 1..]);
    }
    let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
    is_token(&text[..end]).then(|| &text[end..])
}

/// Whether filters see the body: `application/json` is among the content types, up to the first that can't be read.
pub(crate) fn is_json(inbound: &Inbound<'_>) -> bool {
    let types = inbound.text(CONTENT_TYPE.as_str()).unwrap_or_default();
    types.split(',').map_while(media_type).any(|media_type| media_type == "application/json")
}

/// The body as filters see it.
///
/// # Errors
/// When it should be JSON and doesn't begin with an object.
pub(crate) fn request(inbound: &Inbound<'_>) -> Result<Object, String> {
    if !is_json(inbound) {
        return Ok(Map::new());
    }
    first_object(inbound.body).map_err(|error| format!("failed to parse request body as JSON: {error}"))
}

/// The object that a body begins with, whatever follows it. `null` stands for an empty one, as in Go.
pub(crate) fn first_object(body: &[u8]) -> Result<Object, String> {
    let text = String::from_utf8_lossy(body);
    let mut reader = serde_json::Deserializer::from_str(&text);
    object(Value::deserialize(&mut reader).map_err(|error| error.to_string())?)
}

/// The object that a body is.
pub(crate) fn whole_object(body: &[u8]) -> Result<Object, String> {
    object(serde_json::from_str(&String::from_utf8_lossy(body)).map_err(|error| error.to_string())?)
}

fn object(value: Value) -> Result<Object, String> {
    match value {
        Value::Object(object) => Ok(object),
        Value::Null => Ok(Map::new()),
        _ => Err("it is not an object".to_owned()),
    }
}

/// A member that is a text; empty when it isn't there.
pub(crate) fn text(object: &Object, name: &str) -> Result<String, String> {
    match object.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Ok(String::new()),
        Some(_) => Err(format!("'{name}' is not a string")),
    }
}

/// A member that is an object; empty when it isn't there.
pub(crate) fn member(object: &Object, name: &str) -> Result<Object, String> {
    match object.get(name) {
        Some(Value::Object(member)) => Ok(member.clone()),
        None | Some(Value::Null) => Ok(Map::new()),
        Some(_) => Err(format!("'{name}' is not an object")),
    }
}

/// A member that is a list of texts.
pub(crate) fn texts(object: &Object, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("'{name}' is not a list of strings");
    let item = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        _ => Err(wrong()),
    };
    match object.get(name) {
        Some(Value::Array(items)) => items.iter().map(item).collect(),
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(_) => Err(wrong()),
    }
}

/// A text that isn't empty.
pub(crate) fn named(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn media_types() {
        for (text, expected) in [
            ("application/json", Some("application/json")),
            (" Application/JSON ; charset=utf-8", Some("application/json")),
            ("application/json;charset=\"utf; \\\"8\"; x=y;", Some("application/json")),
            ("application/json;", Some("application/json")),
            ("application/vnd.github+json", Some("application/vnd.github+json")),
            ("application/json; charset", None),
            ("application/json; charset=\"open", None),
            ("application/json; =x", None),
            ("application/json; a=b c", None),
            ("application/", None),
            ("json", None),
            ("", None),
            ("a b/json", None),
        ] {
            assert_eq!(media_type(text).as_deref(), expected, "{text}");
        }
    }

    fn seen(content_type: &str, body: &str) -> Result<Object, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        request(&Inbound { headers: &headers, body: body.as_bytes() })
    }

    #[test]
    fn filters_see_json_objects_of_the_right_content_type() {
        for content_type in ["application/json", "application/json; charset=utf-8", "text/plain, application/json"] {
            assert_eq!(seen(content_type, r#"{"a":1} rest"#).unwrap()["a"], 1, "{content_type}");
            assert!(seen(content_type, "null").unwrap().is_empty());
            for body in ["", "[]", "1", "\"x\"", "{", "{\"a\":}"] {
                assert!(seen(content_type, body).is_err(), "{content_type} {body}");
            }
        }
        for content_type in
            ["application/cloudevents+json", "application/vnd.github+json", "nonsense, application/json", ""]
        {
            assert!(seen(content_type, r#"{"a":1}"#).unwrap().is_empty(), "{content_type}");
            assert!(seen(content_type, "").unwrap().is_empty(), "{content_type}");
        }
        assert!(seen("application/json", &"[".repeat(100_000)).is_err());
        let broken = first_object(b"{\"a\":\"\xff\"}").unwrap();
        assert_eq!(broken["a"], "\u{fffd}");
    }
}
