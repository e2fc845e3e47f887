//! Revisions: what was deployed, as Flux writes it, and whether two of them are one.

use std::collections::BTreeMap;

/// Hex digits that a hash needs at least to be taken for one.
const SHORTEST: usize = 7;

/// A revision taken apart: `main@sha1:<40>`, `sha256:<64>`, `latest@sha256:<64>`, `main/<40>` as Flux wrote it before
/// 2.0, a bare hash, or a name alone (a tag, a chart version).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision<'a> {
    /// Branch, tag, reference or version; the whole text where there is no hash.
    pub pointer: Option<&'a str>,
    /// `sha1`, `sha256`, …, as written or as the length of the hash tells.
    pub algorithm: Option<&'a str>,
    /// The hash in hex digits; may be the beginning of one.
    pub hash: Option<&'a str>,
}

impl<'a> Revision<'a> {
    /// Takes a text apart. Any text is a revision, if only a name.
    pub fn parse(text: &'a str) -> Self {
        let some = |text: &'a str| (!text.is_empty()).then_some(text);
        if let Some((pointer, digest)) = text.rsplit_once('@')
            && let Some((algorithm, hash)) = digest_of(digest)
        {
            return Self { pointer: some(pointer), algorithm: Some(algorithm), hash: Some(hash) };
        }
        if let Some((algorithm, hash)) = digest_of(text) {
            return Self { pointer: None, algorithm: Some(algorithm), hash: Some(hash) };
        }
        if is_hash(text) {
            return Self { pointer: None, algorithm: algorithm_of(text), hash: Some(text) };
        }
        if let Some((pointer, hash)) = text.rsplit_once('/')
            && is_whole(hash)
        {
            return Self { pointer: some(pointer), algorithm: algorithm_of(hash), hash: Some(hash) };
        }
        Self { pointer: some(text), algorithm: None, hash: None }
    }

    /// Whether this, which was taken out of `text`, is the same as another one: what [`same`] says.
    pub fn is_same(&self, text: &str, other: &str) -> bool {
        text == other || are_same((text, *self), (other, Revision::parse(other)))
    }

    /// The hash, when it isn't just the beginning of one.
    pub fn whole_hash(&self) -> Option<&'a str> {
        self.hash.filter(|hash| is_whole(hash))
    }
}

/// Whether two revisions are the same one: by their hashes when both have one, of which one may be the beginning of the
/// other; else as they are written, but that the `+digest` of a chart version counts only where both name one.
pub fn same(a: &str, b: &str) -> bool {
    a == b || are_same((a, Revision::parse(a)), (b, Revision::parse(b)))
}

fn are_same((a, left): (&str, Revision<'_>), (b, right): (&str, Revision<'_>)) -> bool {
    let (Some(one), Some(other)) = (left.hash, right.hash) else {
        return match (chart_digest(a), chart_digest(b)) {
            (Some((version, _)), None) => version == b,
            (None, Some((version, _))) => a == version,
            _ => false,
        };
    };
    if let (Some(one), Some(other)) = (left.algorithm, right.algorithm)
        && one != other
    {
        return false;
    }
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    // Two short ones of different lengths may as well be two tags that look like dates.
    let complete = is_whole(long) || short.len() == long.len();
    complete && long.get(..short.len()).is_some_and(|start| start.eq_ignore_ascii_case(short))
}

/// The commit that an event is about: the hash in the first of `commit`, `originRevision` and `revision` that holds one.
/// Takes metadata without prefixes.
pub fn commit(metadata: &BTreeMap<String, String>) -> Option<&str> {
    let named = ["commit", "originRevision", "revision"].into_iter().filter_map(|key| metadata.get(key));
    named.map(|text| Revision::parse(text)).find_map(|revision| revision.whole_hash())
}

/// `sha1:<hex>`.
fn digest_of(text: &str) -> Option<(&str, &str)> {
    let (algorithm, hash) = text.split_once(':')?;
    let named = !algorithm.is_empty() && algorithm.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (named && is_hash(hash)).then_some((algorithm, hash))
}

/// Hex digits, enough of them and not more than the longest hash has.
fn is_hash(text: &str) -> bool {
    // Without a way out in the middle, which makes it several times as fast for what is one: nearly all of them.
    (SHORTEST..=128).contains(&text.len()) && text.bytes().fold(true, |hex, byte| hex & byte.is_ascii_hexdigit())
}

fn is_whole(text: &str) -> bool {
    is_hash(text) && matches!(text.len(), 40 | 64 | 96 | 128)
}

fn algorithm_of(hash: &str) -> Option<&'static str> {
    match hash.len() {
        40 => Some("sha1"),
        64 => Some("sha256"),
        _ => None,
    }
}

/// A chart version and the digest that helm-controller adds to it when the chart comes from an OCI repository.
fn chart_digest(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('+').filter(|(version, digest)| !version.is_empty() && is_hash(digest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA1: &str = "3c1ae5d4b09f6a7788990011223344556677aabb";
    const SHA256: &str = "3c1ae5d4b09f6a7788990011223344556677aabbccddeeff0011223344556677";

    #[test]
    fn every_form_is_taken_apart() {
        for (text, pointer, algorithm, hash) in [
            (format!("main@sha1:{SHA1}"), Some("main"), Some("sha1"), Some(SHA1)),
            (format!("sha1:{SHA1}"), None, Some("sha1"), Some(SHA1)),
            (format!("@sha1:{SHA1}"), None, Some("sha1"), Some(SHA1)),
            (format!("refs/heads/x@sha1:{SHA1}"), Some("refs/heads/x"), Some("sha1"), Some(SHA1)),
            (format!("me@work@sha256:{SHA256}"), Some("me@work"), Some("sha256"), Some(SHA256)),
            (format!("v1.2.3@sha1:{SHA1}"), Some("v1.2.3"), Some("sha1"), Some(SHA1)),
            (format!("latest@sha256:{SHA256}"), Some("latest"), Some("sha256"), Some(SHA256)),
            (format!("sha256:{SHA256}"), None, Some("sha256"), Some(SHA256)),
            (format!("main/{SHA1}"), Some("main"), Some("sha1"), Some(SHA1)),
            (format!("feature/x/{SHA256}"), Some("feature/x"), Some("sha256"), Some(SHA256)),
            (format!("HEAD/{SHA1}"), Some("HEAD"), Some("sha1"), Some(SHA1)),
            (SHA1.to_owned(), None, Some("sha1"), Some(SHA1)),
            ("main@sha1:3c1ae5d".into(), Some("main"), Some("sha1"), Some("3c1ae5d")),
            ("3c1ae5d".into(), None, None, Some("3c1ae5d")),
            ("v1.2.3".into(), Some("v1.2.3"), None, None),
            ("refs/tags/v1".into(), Some("refs/tags/v1"), None, None),
            ("feature/3c1ae5d".into(), Some("feature/3c1ae5d"), None, None),
            ("6.5.0+1a2b3c4d5e6f".into(), Some("6.5.0+1a2b3c4d5e6f"), None, None),
            ("main@sha1:".into(), Some("main@sha1:"), None, None),
            ("main@sha1:xyz".into(), Some("main@sha1:xyz"), None, None),
            (String::new(), None, None, None),
        ] {
            assert_eq!(Revision::parse(&text), Revision { pointer, algorithm, hash }, "{text}");
        }
    }

    #[test]
    fn one_revision_is_known_in_all_its_spellings() {
        let upper = SHA1.to_uppercase();
        for (a, b, expected) in [
            (format!("main@sha1:{SHA1}"), format!("main@sha1:{SHA1}"), true),
            (format!("main@sha1:{SHA1}"), format!("prod@sha1:{SHA1}"), true),
            (format!("main@sha1:{SHA1}"), format!("main/{SHA1}"), true),
            (format!("main@sha1:{SHA1}"), upper, true),
            (format!("main@sha1:{SHA1}"), "3c1ae5d".into(), true),
            (format!("main@sha1:{SHA1}"), "3c1ae5".into(), false),
            (format!("main@sha1:{SHA1}"), "3c1ae5e".into(), false),
            (format!("main@sha1:{SHA1}"), "main".into(), false),
            (format!("sha1:{SHA1}"), format!("sha256:{SHA256}"), false),
            (format!("6.5.0@sha256:{SHA256}"), format!("sha256:{SHA256}"), true),
            ("20260101".into(), "2026010112".into(), false),
            ("20260101".into(), "20260101".into(), true),
            ("6.5.0".into(), "6.5.0".into(), true),
            ("6.5.0".into(), "6.5.1".into(), false),
            ("6.5.0".into(), "6.5.0+1a2b3c4d5e6f".into(), true),
            ("6.5.0+1a2b3c4d5e6f".into(), "6.5.0+1a2b3c4d5e6f".into(), true),
            ("6.5.0+1a2b3c4d5e6f".into(), "6.5.0+000000000000".into(), false),
            ("6.5.0".into(), "6.5.0+build".into(), false),
            ("6.5.0".into(), format!("6.5.0@sha256:{SHA256}"), false),
        ] {
            assert_eq!(same(&a, &b), expected, "{a} and {b}");
        }
    }

    #[test]
    fn the_commit_is_in_the_first_field_that_holds_a_hash() {
        let commit_of = |pairs: &[(&str, &str)]| {
            let metadata = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            commit(&metadata).map(str::to_owned)
        };
        let (main, oci) = (format!("main@sha1:{SHA1}"), format!("latest@sha256:{SHA256}"));
        for (pairs, expected) in [
            (vec![("revision", main.as_str())], Some(SHA1)),
            (vec![("revision", oci.as_str()), ("originRevision", &main)], Some(SHA1)),
            (vec![("commit", SHA256), ("originRevision", &main)], Some(SHA256)),
            (vec![("commit", ""), ("originRevision", "v1.0.0"), ("revision", &main)], Some(SHA1)),
            (vec![("revision", oci.as_str())], Some(SHA256)),
            (vec![("revision", "6.5.0+1a2b3c4d5e6f")], None),
            (vec![("commit", "3c1ae5d")], None),
            (vec![], None),
        ] {
            assert_eq!(commit_of(&pairs).as_deref(), expected, "{pairs:?}");
        }
    }

    fn revisions() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9@/:+.-]{0,50}",
            ("[a-z/]{0,8}", "[0-9a-f]{40}").prop_map(|(pointer, hash)| format!("{pointer}@sha1:{hash}")),
            ("[a-z]{0,8}", "[0-9a-f]{64}").prop_map(|(pointer, hash)| format!("{pointer}@sha256:{hash}")),
            ("[a-z/]{1,8}", "[0-9a-f]{40}").prop_map(|(pointer, hash)| format!("{pointer}/{hash}")),
            "[0-9]\\.[0-9](\\+[0-9a-f]{12})?",
        ]
    }

    proptest! {
        #[test]
        fn parts_are_parts_of_the_text(text in ".{0,60}") {
            let revision = Revision::parse(&text);
            for part in [revision.pointer, revision.hash].into_iter().flatten() {
                prop_assert!(text.contains(part));
            }
            prop_assert_eq!(revision.pointer.is_none() && revision.hash.is_none(), text.is_empty());
        }

        #[test]
        fn same_holds_both_ways_and_with_itself(a in revisions(), b in revisions()) {
            prop_assert!(same(&a, &a));
            prop_assert_eq!(same(&a, &b), same(&b, &a));
        }

        #[test]
        fn a_beginning_suffices(hash in "[0-9a-f]{40}", length in 0usize..=40, pointer in "[a-z]{1,9}") {
            let whole = format!("{pointer}@sha1:{hash}");
            prop_assert_eq!(same(&whole, &hash[..length]), length >= 7);
            prop_assert_eq!(same(&format!("{pointer}/{hash}"), &whole), true);
        }
    }
}
