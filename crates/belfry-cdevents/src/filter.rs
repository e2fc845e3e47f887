//! Which types a receiver lets pass: the entries of its `spec.events`.

/// Whether an event passes: of any type when there are no entries. What is compared is the envelope's type (`Ce-Type`),
/// or the document's own where there is none.
pub fn allows<S: AsRef<str>>(entries: &[S], envelope: Option<&str>, event_type: &str) -> bool {
    let named = envelope.filter(|envelope| !envelope.is_empty()).unwrap_or(event_type);
    entries.is_empty() || entries.iter().any(|entry| matches(entry.as_ref(), named))
}

/// Whether an entry names a type, ignoring case: in full, or its beginning up to a dot, so that
/// `dev.cdevents.change.merged` stands for all its versions.
pub fn matches(entry: &str, event_type: &str) -> bool {
    let (entry, event_type) = (entry.as_bytes(), event_type.as_bytes());
    event_type.get(..entry.len()).is_some_and(|start| start.eq_ignore_ascii_case(entry))
        && !entry.is_empty()
        && event_type.get(entry.len()).is_none_or(|next| *next == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_types_in_full_or_up_to_a_dot() {
        let merged = "dev.cdevents.change.merged.0.2.0";
        for (entry, expected) in [
            (merged, true),
            ("DEV.CDEVENTS.CHANGE.MERGED.0.2.0", true),
            ("dev.cdevents.change.merged", true),
            ("dev.cdevents.change.merged.0", true),
            ("dev.cdevents.change", true),
            ("dev.cdevents.change.", false),
            ("dev.cdevents.change.merge", false),
            ("dev.cdevents.change.merged.0.2.0.1", false),
            ("dev.cdevents.change.merged.0.3.0", false),
            ("change.merged", false),
            ("", false),
        ] {
            assert_eq!(matches(entry, merged), expected, "{entry}");
        }
    }

    #[test]
    fn the_envelope_counts_where_there_is_one() {
        let body = "dev.cdevents.change.merged.0.2.0";
        assert!(allows::<&str>(&[], None, body));
        assert!(allows(&["dev.cdevents.build.queued", "dev.cdevents.change.merged"], None, body));
        assert!(!allows(&["dev.cdevents.build.queued"], None, body));
        assert!(allows(&["cd.change.merged.v1"], Some("cd.change.merged.v1"), body));
        assert!(!allows(&["dev.cdevents.change.merged"], Some("cd.change.merged.v1"), body));
        assert!(allows(&["dev.cdevents.change.merged"], Some(""), body));
    }
}
