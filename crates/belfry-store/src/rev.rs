//! Revisions and commits as numbers, so that indexes are narrow and the beginning of a hash is a range.

use std::ops::RangeInclusive;

use belfry_core::{revision::Revision, rollout::Rollout};

/// Hex digits of a hash that a number holds.
const DIGITS: usize = 15;
const BITS: u32 = 60;

/// The number of a revision: the first digits of its hash; of one without a hash (a chart version, a tag), a hash of its
/// name. Numbers are kept on disk: this function must never change.
pub(crate) fn number(revision: &str) -> i64 {
    *range(revision).start()
}

/// The number that a rollout goes by, that of its commit if it has one, and that of its revision if that is another.
pub(crate) fn of_rollout(rollout: &Rollout) -> (i64, Option<i64>) {
    let own = number(&rollout.revision);
    let commit = rollout.commit.as_deref().map_or(own, number);
    (commit, (commit != own).then_some(own))
}

/// The numbers of all revisions that begin as this one does.
pub(crate) fn range(revision: &str) -> RangeInclusive<i64> {
    let Some(hash) = Revision::parse(revision).hash else {
        let name = (fnv(without_digest(revision)) >> (u64::BITS - BITS)).cast_signed();
        return name..=name;
    };
    let digits = &hash[..hash.len().min(DIGITS)];
    let free = BITS - 4 * digits.len() as u32;
    let first = i64::from_str_radix(digits, 16).unwrap_or_default() << free;
    first..=first | ((1 << free) - 1)
}

/// A chart version without the digest that helm-controller adds.
pub(crate) fn without_digest(version: &str) -> &str {
    match version.rsplit_once('+') {
        Some((version, digest)) if Revision::parse(digest).hash.is_some() => version,
        _ => version,
    }
}

/// FNV-1a.
pub(crate) fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA1: &str = "3c1ae5d4b09f6a7788990011223344556677aabb";

    #[test]
    fn a_beginning_is_a_range() {
        let whole = number(&format!("main@sha1:{SHA1}"));
        assert_eq!(whole, 0x3c1_ae5d_4b09_f6a7);
        assert_eq!(number(&SHA1.to_uppercase()), whole);
        for (query, expected) in [
            ("3c1ae5d", true),
            ("sha1:3c1ae5d4b09", true),
            (SHA1, true),
            ("3C1AE5D4", true),
            ("3c1ae5e", false),
            ("3c1ae5c", false),
            ("3c1ae5", false),
            ("main", false),
        ] {
            assert_eq!(range(query).contains(&whole), expected, "{query}");
        }
        let highest = number(&"f".repeat(40));
        assert!(highest > 0 && range("fffffff").contains(&highest));
    }

    #[test]
    fn a_name_is_one_number_with_and_without_its_digest() {
        assert_eq!(number("6.5.0"), number("6.5.0+1a2b3c4d5e6f"));
        assert_ne!(number("6.5.0"), number("6.5.1"));
        assert_ne!(number("6.5.0"), number("6.5.0+build"));
        assert!(range("20260101").contains(&number("20260101")));
    }

    proptest! {
        #[test]
        fn every_beginning_finds_the_whole(hash in "[0-9a-f]{40}|[0-9A-F]{64}", length in 7usize..=40, other in "[0-9a-f]{40}") {
            let found = range(&hash[..length]);
            let spelled = format!("main@sha1:{hash}");
            prop_assert!(found.contains(&number(&hash)));
            prop_assert!(found.contains(&number(&spelled)));
            let length = length.min(DIGITS);
            let same = other[..length].eq_ignore_ascii_case(&hash[..length]);
            prop_assert_eq!(found.contains(&number(&other)), same);
        }

        #[test]
        fn every_text_has_a_number(text in ".{0,80}") {
            prop_assert!(range(&text).contains(&number(&text)) && number(&text) >= 0);
        }
    }
}
