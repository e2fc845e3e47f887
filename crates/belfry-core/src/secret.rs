//! Secrets: values that don't print, and the masking of their values in everything that is kept or shown.

use std::{collections::BTreeMap, fmt};

use secrecy::{ExposeSecret, SecretSlice};

/// The decoded `data` of a Kubernetes Secret. Prints only its keys.
#[derive(Clone, Default)]
pub struct SecretData(BTreeMap<String, SecretSlice<u8>>);

impl SecretData {
    /// The value of a key as bytes, exactly as stored.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|value| value.expose_secret())
    }

    /// The value of a key as text.
    ///
    /// # Errors
    /// When the value is not UTF-8; the message names the key and never the value.
    pub fn text(&self, key: &str) -> Result<Option<&str>, NotText> {
        self.bytes(key).map(|value| std::str::from_utf8(value).map_err(|_| NotText(key.to_owned()))).transpose()
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A hash over keys and values: tells whether a Secret changed, without keeping it.
    pub fn fingerprint(&self) -> u64 {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        for (key, value) in &self.0 {
            for part in [key.as_bytes(), value.expose_secret()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        hash.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Every value, for masking.
    pub fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(|value| value.expose_secret())
    }
}

/// A Secret's value that should be text and isn't.
#[derive(Debug, thiserror::Error)]
#[error("the Secret's key '{0}' is not UTF-8 text")]
pub struct NotText(String);

impl FromIterator<(String, Vec<u8>)> for SecretData {
    fn from_iter<T: IntoIterator<Item = (String, Vec<u8>)>>(pairs: T) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key, SecretSlice::from(value))).collect())
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Replaces secret values in text that is kept or shown.
#[derive(Clone, Default)]
pub struct Mask(Vec<String>);

/// What stands where a secret was.
pub const MASKED: &str = "*****";

impl Mask {
    /// A mask over these values. Each is masked as it is, and without surrounding white space; values shorter than
    /// four characters are left alone, for they would tear holes into every text.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut values: Vec<String> =
            values.into_iter().map(str::trim).filter(|v| v.len() >= 4).map(str::to_owned).collect();
        // The longest first, or a value that is part of another leaves the rest of it readable.
        values.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self(values)
    }

    /// The text without the secrets.
    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), MASKED) } else { text }
        })
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} values)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let secret: SecretData = [("token".to_owned(), b"hunter22".to_vec())].into_iter().collect();
        assert_eq!(format!("{secret:?}"), r#"{"token"}"#);
        let mask = Mask::new(["hunter22", "hunter22-and-more\n"]);
        assert_eq!(format!("{mask:?}"), "Mask(2 values)");
        assert_eq!(mask.apply("Bearer hunter22-and-more, hunter22!"), "Bearer *****, *****!");
    }

    #[test]
    fn a_fingerprint_tells_values_and_keys_apart() {
        let secret = |pairs: &[(&str, &str)]| -> SecretData {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect()
        };
        assert_eq!(secret(&[("a", "b")]).fingerprint(), secret(&[("a", "b")]).fingerprint());
        assert_ne!(secret(&[("a", "bc")]).fingerprint(), secret(&[("ab", "c")]).fingerprint());
    }
}
