//! Signatures of posted events: Flux's, over the body alone, and Belfry's own, over id, time and body, and over what a
//! Belfry that passes it on says of it.

use std::time::Duration;

use belfry_core::Time;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use sha2::Sha256;

/// What `generic-hmac` Providers send.
const FLUX: &str = "x-signature";
const SIGNATURE: &str = "belfry-signature";
const TIMESTAMP: &str = "belfry-timestamp";
/// What identifies an event among those of its cluster.
pub(super) const EVENT_ID: &str = "belfry-event-id";
/// What a Belfry says of an event that it passes on.
pub(super) const PASSED: &str = "belfry-passed";
/// How far a clock may be from ours, either way. A body that comes again within it is the same event.
const WINDOW: Duration = Duration::from_secs(300);
/// Characters of an id.
const ID: usize = 128;

/// A signature that was read, and is yet to be compared.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    tag: Vec<u8>,
    /// What is signed before the body.
    head: String,
    vouches: Vouches,
}

/// How much of a request its credential vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vouches {
    /// The body.
    Body,
    /// The body and its id.
    Id,
    /// All of it.
    All,
}

impl Signature {
    /// The signature in these headers, if there is one; Belfry's own, where there are both.
    ///
    /// # Errors
    /// When it can't be one, or is of another time. The text repeats nothing of it.
    pub(super) fn read(headers: &HeaderMap, now: Time) -> Result<Option<Self>, &'static str> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        if let Some(signature) = text(SIGNATURE) {
            let (version, digits) = signature.split_once('=').unwrap_or_default();
            let (tag, vouches) = match (version, tag(digits)) {
                ("v1", Some(tag)) => (tag, Vouches::Id),
                ("v2", Some(tag)) => (tag, Vouches::All),
                _ => return Err("Belfry-Signature is not v1= or v2= and 64 hex digits"),
            };
            let id = text(EVENT_ID).filter(|id| !id.is_empty() && id.len() <= ID);
            let id = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()));
            let id = id.ok_or("Belfry-Event-Id is not 1 to 128 visible characters")?;
            let timestamp = text(TIMESTAMP).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let seconds: Option<i64> = timestamp.and_then(|text| text.parse().ok());
            let seconds = seconds.ok_or("Belfry-Timestamp is not a number of seconds")?;
            let signed = Time(seconds.saturating_mul(1_000_000));
            if signed.0.abs_diff(now.0) > WINDOW.as_micros() as u64 {
                return Err("Belfry-Timestamp is more than five minutes from this clock");
            }
            let passed = match vouches {
                Vouches::All => format!("{}\n", text(PASSED).unwrap_or_default()),
                _ => String::new(),
            };
            return Ok(Some(Self { tag, head: format!("{version}\n{id}\n{seconds}\n{passed}"), vouches }));
        }
        let Some(signature) = text(FLUX) else { return Ok(None) };
        let tag = signature.strip_prefix("sha256=").and_then(tag);
        let tag = tag.ok_or("X-Signature is not sha256= and 64 hex digits")?;
        Ok(Some(Self { tag, head: String::new(), vouches: Vouches::Body }))
    }

    /// What it covers.
    pub(super) fn vouches(&self) -> Vouches {
        self.vouches
    }

    /// Whether this key made it, compared in constant time.
    pub(super) fn is_by(&self, key: &[u8], body: &[u8]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
        mac.update(self.head.as_bytes());
        mac.update(body);
        mac.verify_slice(&self.tag).is_ok()
    }
}

fn tag(digits: &str) -> Option<Vec<u8>> {
    digest(digits).map(|tag| tag.to_vec())
}

/// 32 bytes as 64 hex digits of either case.
pub(super) fn digest(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef";
    const BODY: &[u8] = br#"{"reason":"BuildFailed"}"#;
    /// `printf %s "$BODY" | openssl dgst -sha256 -hmac "$KEY"`
    const FLUX_TAG: &str = "32af965cd3b86a9821cd5498b5df0a2cdca414bf3cef1fbfcf11c8944d9816f8";
    /// `printf 'v1\n%s\n%s\n%s' 42 1767323045 "$BODY" | openssl dgst -sha256 -hmac "$KEY"`
    const OWN_TAG: &str = "7ad090652d812603bb939a619cf631bc6cdeb615d76fff29ca111822965aa4c8";
    const SECONDS: i64 = 1_767_323_045;

    /// `printf 'v2\n%s\n%s\n%s\n%s' 42 1767323045 'form=recorder; via=0a' "$BODY" | openssl dgst -sha256 -hmac "$KEY"`
    const PASSED_TAG: &str = "eed1facf7d6c40bd8e9986f875f8e42b09bfd895c3addbc817e5412239e88edb";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn read(pairs: &[(&'static str, &str)], now: i64) -> Result<Option<Signature>, &'static str> {
        Signature::read(&headers(pairs), Time(now * 1_000_000))
    }

    #[test]
    fn the_vectors() {
        let flux = read(&[(FLUX, &format!("sha256={FLUX_TAG}"))], 0).unwrap().unwrap();
        let upper = read(&[(FLUX, &format!("sha256={}", FLUX_TAG.to_uppercase()))], 0).unwrap().unwrap();
        let pairs = |tag: &'static str| [(SIGNATURE, tag), (EVENT_ID, "42"), (TIMESTAMP, "1767323045")];
        let own = format!("v1={OWN_TAG}");
        let own = read(&pairs(own.leak()), SECONDS).unwrap().unwrap();
        for good in [flux, upper, own] {
            assert!(good.is_by(KEY, BODY));
            assert!(!good.is_by(KEY, b"{}") && !good.is_by(b"0123456789abcdeg", BODY) && !good.is_by(b"", BODY));
        }
        // One is not the other.
        let crossed = read(&[(FLUX, &format!("sha256={OWN_TAG}"))], 0).unwrap().unwrap();
        assert!(!crossed.is_by(KEY, BODY));
    }

    #[test]
    fn the_second_version_covers_what_is_said_of_the_event_too() {
        let signature = format!("v2={PASSED_TAG}");
        let with = |passed: Option<&'static str>| {
            let mut pairs = vec![(SIGNATURE, signature.as_str()), (EVENT_ID, "42"), (TIMESTAMP, "1767323045")];
            pairs.extend(passed.map(|passed| (PASSED, passed)));
            read(&pairs, SECONDS).unwrap().unwrap()
        };
        assert!(with(Some("form=recorder; via=0a")).is_by(KEY, BODY));
        for other in [Some("form=recorder; via=0b"), Some(""), None] {
            assert!(!with(other).is_by(KEY, BODY), "{other:?}");
        }
        let covers = |signature: &str| {
            let read = read(&[(SIGNATURE, signature), (EVENT_ID, "42"), (TIMESTAMP, "1767323045")], SECONDS);
            read.unwrap().unwrap().vouches()
        };
        assert_eq!((covers(&signature), covers(&format!("v1={OWN_TAG}"))), (Vouches::All, Vouches::Id));
        let flux = read(&[(FLUX, &format!("sha256={FLUX_TAG}"))], 0).unwrap().unwrap();
        assert_eq!(flux.vouches(), Vouches::Body);
    }

    #[test]
    fn every_part_is_signed_and_must_be_right() {
        let good = format!("v1={OWN_TAG}");
        let with = |signature: &str, id: &str, time: &str, now: i64| {
            read(&[(SIGNATURE, signature), (EVENT_ID, id), (TIMESTAMP, time)], now)
        };
        let is_good = |read: Result<Option<Signature>, _>| read.unwrap().unwrap().is_by(KEY, BODY);
        for (offset, expected) in
            [(0, true), (300, true), (-300, true), (301, false), (-301, false), (i64::MAX >> 22, false)]
        {
            assert_eq!(with(&good, "42", "1767323045", SECONDS + offset).is_ok(), expected, "{offset}");
        }
        assert!(is_good(with(&good, "42", "1767323045", SECONDS)));
        assert!(!is_good(with(&good, "43", "1767323045", SECONDS)));
        assert!(!is_good(with(&good, "42", "1767323046", SECONDS)));
        let long = "x".repeat(129);
        for (signature, id, time) in [
            ("", "42", "1767323045"),
            ("v2=00", "42", "1767323045"),
            (&good.replace("v1", "v3"), "42", "1767323045"),
            (&good[..66], "42", "1767323045"),
            (&good, "", "1767323045"),
            (&good, "4 2", "1767323045"),
            (&good, &long, "1767323045"),
            (&good, "42", ""),
            (&good, "42", "+1767323045"),
            (&good, "42", "1767323045.0"),
            (&good, "42", "99999999999999999999"),
        ] {
            assert!(with(signature, id, time, SECONDS).is_err(), "{signature} {id} {time}");
        }
        // A signature of Belfry's own that is no good isn't made good by one of Flux's.
        let flux = format!("sha256={FLUX_TAG}");
        assert!(read(&[(SIGNATURE, "v1="), (FLUX, &flux)], SECONDS).is_err());
        assert!(read(&[], SECONDS).unwrap().is_none());
        for bad in ["", "sha256=", FLUX_TAG, "sha1=00", &flux[..70], "sha512=00"] {
            assert!(read(&[(FLUX, bad)], SECONDS).is_err(), "{bad}");
        }
    }
}
