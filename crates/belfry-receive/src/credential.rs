//! The one place where a value of a Secret meets what a request presents. It can be compared and used as a key for
//! HMAC, both in constant time; it can't be read, printed, or compared in any other way.

use belfry_core::secret::SecretData;
use ring::{digest, hmac};
use subtle::ConstantTimeEq as _;

use crate::Refused;

/// A value of a Secret that isn't empty.
#[derive(Clone, Copy)]
pub(crate) struct Credential<'a>(&'a [u8]);

impl<'a> Credential<'a> {
    /// The Secret's value of that key, its bytes as they are.
    ///
    /// # Errors
    /// When there is none, or an empty one: whoever presents nothing must not have the right credential.
    pub(crate) fn of(secret: Option<&'a SecretData>, key: &str) -> Result<Self, Refused> {
        let secret = secret.ok_or_else(|| Refused::not_ready("unable to read secret, error: it is not there"))?;
        match secret.bytes(key) {
            Some([]) => Err(Refused::not_ready(format!("invalid secret data: field '{key}' is empty"))),
            Some(value) => Ok(Self(value)),
            None => Err(Refused::not_ready(format!("invalid secret data: required field '{key}'"))),
        }
    }

    /// Whether what was presented is this value. Their digests are compared, so that not even the length shows.
    pub(crate) fn is(self, presented: &[u8]) -> bool {
        let sum = |value: &[u8]| digest::digest(&digest::SHA256, value);
        sum(self.0).as_ref().ct_eq(sum(presented).as_ref()).into()
    }

    /// Whether the tag is that of the message with this value as the key.
    pub(crate) fn signed(self, algorithm: hmac::Algorithm, message: &[u8], tag: &[u8]) -> bool {
        hmac::sign(&hmac::Key::new(algorithm, self.0), message).as_ref().ct_eq(tag).into()
    }

    /// The digest that is part of the webhook's path.
    pub(crate) fn path_digest(self, rest: &[&str]) -> digest::Digest {
        path_digest(self.0, rest)
    }
}

/// The same for a Receiver without a Secret.
pub(crate) fn path_digest(token: &[u8], rest: &[&str]) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(token);
    rest.iter().for_each(|part| context.update(part.as_bytes()));
    context.finish()
}

/// Whether two texts that are as good as credentials are the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(token: &[u8]) -> SecretData {
        [("token".to_owned(), token.to_vec())].into_iter().collect()
    }

    #[test]
    fn only_the_value_itself_is_it() {
        let secret = secret(b"tok\xff\n");
        let credential = Credential::of(Some(&secret), "token").unwrap();
        assert!(credential.is(b"tok\xff\n"));
        for wrong in [&b""[..], b"t", b"tok\xff", b"tok\xff\n\n", b"TOK\xff\n"] {
            assert!(!credential.is(wrong));
        }
    }

    #[test]
    fn what_is_missing_or_empty_is_no_credential() {
        let why = |secret: Option<&SecretData>, key| Credential::of(secret, key).err().unwrap().why;
        assert_eq!(why(None, "token"), "unable to read secret, error: it is not there");
        assert_eq!(why(Some(&secret(b"")), "token"), "invalid secret data: field 'token' is empty");
        assert_eq!(why(Some(&secret(b"x")), "email"), "invalid secret data: required field 'email'");
    }
}
