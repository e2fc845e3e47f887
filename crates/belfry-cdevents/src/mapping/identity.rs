//! Ids that come out the same wherever and however often they are made: UUIDs of version 5.

use sha1::{Digest, Sha1};

/// The namespace of all ids: the UUID of version 5 of the URL `https://cdevents.dev/flux`.
pub const NAMESPACE: [u8; 16] =
    [0xed, 0xe3, 0xbd, 0x2c, 0x5a, 0xc8, 0x56, 0x5b, 0x84, 0xf2, 0x22, 0x33, 0x60, 0x66, 0x5c, 0x61];

/// The id of a name.
pub fn id(name: &str) -> String {
    hyphenated(uuid_v5(NAMESPACE, name))
}

/// The chain of everything that belongs together under a key: `<repository>@<commit>`, or an artifact.
pub fn chain(key: &str) -> String {
    id(&format!("chain\n{key}"))
}

/// The incident of an object that began at a time.
pub fn incident(uid: &str, since: &str) -> String {
    id(&format!("incident\n{uid}\n{since}"))
}

fn uuid_v5(namespace: [u8; 16], name: &str) -> [u8; 16] {
    let digest = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x50;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

fn hyphenated(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            out.extend(char::from_digit(digit.into(), 16));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_derived_as_it_says() {
        // The namespace of URLs, RFC 9562.
        let url = [0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];
        assert_eq!(uuid_v5(url, "https://cdevents.dev/flux"), NAMESPACE);
        assert_eq!(hyphenated(NAMESPACE), "ede3bd2c-5ac8-565b-84f2-223360665c61");
    }

    #[test]
    fn one_commit_is_one_chain() {
        let key = "https://github.com/org/fleet@1eabc9a41ca088515cab83f1cce49eb43e84b67f";
        assert_eq!(chain(key), "0c3ed1c5-dfb1-5251-9f7e-aefa9b9862e8");
    }
}
