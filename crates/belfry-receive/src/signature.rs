//! Signatures of a body as `<hash>=<hex digits>`, the way GitHub writes them.

use ring::hmac;

use crate::credential::Credential;

/// Checks a signature of that form over the body.
///
/// # Errors
/// Why it isn't one. The text repeats nothing of the signature.
pub(crate) fn check(signature: Option<&[u8]>, token: Credential<'_>, body: &[u8]) -> Result<(), &'static str> {
    let signature = signature.ok_or("missing signature")?;
    let at = signature.iter().position(|byte| *byte == b'=').ok_or("error parsing signature")?;
    let (hash, digits) = (&signature[..at], &signature[at + 1..]);
    let algorithm = match hash {
        b"sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        b"sha256" => hmac::HMAC_SHA256,
        b"sha512" => hmac::HMAC_SHA512,
        _ => return Err("unknown hash type prefix"),
    };
    let tag = hex(digits).ok_or("error decoding signature")?;
    if token.signed(algorithm, body, &tag) { Ok(()) } else { Err("payload signature check failed") }
}

/// The bytes that hex digits of either case stand for.
pub(crate) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use belfry_core::secret::SecretData;

    use super::*;

    const BODY: &[u8] = br#"{"action":"push"}"#;
    const SHA1: &str = "0a23fffb3dd66539440cf881ae6fdfbc8ccae4a9";
    const SHA256: &str = "83eee066cf716dd10bc327e341a581ae657bf26d8815c9334434f470c12d3079";
    const SHA512: &str = "ba49015231e38c2779666c90692d82917c88a814b1c1ae23e94d9544b321011aa9c10824df4d5ac1c5bbb397d1947d4eda37014bbd33d4acb1b11a6f71039f59";

    #[test]
    fn the_vectors_of_the_peer() {
        let secret: SecretData = [("token".to_owned(), b"token".to_vec())].into_iter().collect();
        let token = Credential::of(Some(&secret), "token").unwrap();
        for (signature, expected) in [
            (format!("sha1={SHA1}"), Ok(())),
            (format!("sha256={SHA256}"), Ok(())),
            (format!("sha256={}", SHA256.to_uppercase()), Ok(())),
            (format!("sha512={SHA512}"), Ok(())),
            (format!("SHA256={SHA256}"), Err("unknown hash type prefix")),
            (format!("sha224={SHA1}"), Err("unknown hash type prefix")),
            (format!("sha384={SHA512}"), Err("unknown hash type prefix")),
            (format!("={SHA256}"), Err("unknown hash type prefix")),
            (SHA256.to_owned(), Err("error parsing signature")),
            (format!("sha1={SHA256}"), Err("payload signature check failed")),
            (format!("sha256={SHA1}"), Err("payload signature check failed")),
            ("sha256=".to_owned(), Err("payload signature check failed")),
            (format!("sha256={}", &SHA256[..62]), Err("payload signature check failed")),
            (format!("sha256={SHA256}00"), Err("payload signature check failed")),
            (format!("sha256={}", &SHA256[..63]), Err("error decoding signature")),
            (format!("sha256={SHA256} "), Err("error decoding signature")),
            (format!("sha256=={SHA256}"), Err("error decoding signature")),
        ] {
            assert_eq!(check(Some(signature.as_bytes()), token, BODY), expected, "{signature}");
        }
        assert_eq!(check(None, token, BODY), Err("missing signature"));
        assert_eq!(
            check(Some(format!("sha256={SHA256}").as_bytes()), token, br#"{"action":"pull"}"#),
            Err("payload signature check failed")
        );
    }
}
