//! What Kubernetes takes for a name, a label's key and a label's value.

use std::collections::BTreeMap;

/// The first label that Kubernetes would refuse, with the reason.
pub(super) fn invalid(labels: &BTreeMap<String, String>) -> Option<(&str, &'static str)> {
    labels.iter().find_map(|(key, value)| {
        let (prefix, name) = key.rsplit_once('/').map_or((None, key.as_str()), |(prefix, name)| (Some(prefix), name));
        if name.is_empty() || !is_value(name) || prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
            Some((key.as_str(), "is not a label's key"))
        } else if !is_value(value) {
            Some((key.as_str(), "has a value that no label can have"))
        } else {
            None
        }
    })
}

/// A label's value: at most 63 letters, digits and `-_.`, with a letter or digit at both ends.
fn is_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= 63 && text.bytes().all(inner) && ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
}

/// An object's name: at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends of every
/// part between dots.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_name)
}

/// A namespace's name: the same without dots, and at most 63 characters.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_name(text)
}

fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_what_kubernetes_takes() {
        for name in ["a", "flux-system", "a.b-c.d", "0"] {
            assert!(is_subdomain(name), "{name}");
        }
        for name in ["", "A", "-a", "a-", "a..b", ".a", "a_b", "a/b", &"a".repeat(254)] {
            assert!(!is_subdomain(name), "{name}");
        }
        assert!(!is_label("a.b") && !is_label(&"a".repeat(64)));
        let check = |key: &str, value: &str| invalid(&BTreeMap::from([(key.into(), value.into())])).map(|(_, why)| why);
        for (key, value) in [("app", ""), ("app.kubernetes.io/name", "A_b.c-1"), ("x", &"v".repeat(63))] {
            assert_eq!(check(key, value), None, "{key}={value}");
        }
        for (key, value) in [("", "a"), ("/a", "a"), ("a/", "a"), ("a/b/c", "x"), ("A_/b", "x"), ("-a", "x")] {
            assert_eq!(check(key, value), Some("is not a label's key"), "{key}={value}");
        }
        for value in ["-", "a b", "*", "-a", &"v".repeat(64)] {
            assert_eq!(check("a", value), Some("has a value that no label can have"), "{value}");
        }
    }
}
