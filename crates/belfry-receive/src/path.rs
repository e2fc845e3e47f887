//! Where a Receiver's webhooks go. The path holds a digest of the token and is all the credential that some types have,
//! so it doesn't print.

use std::{
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
};

use belfry_api::{OIDC_RECEIVER, ReceiverSpec};
use belfry_core::secret::SecretData;

use crate::{Problem, check, credential};

const PREFIX: &str = "/hook/";
const DIGITS: usize = 64;

/// The path of a Receiver's webhook: `/hook/` and 64 hex digits.
#[derive(Clone)]
pub struct Path(String);

impl Path {
    /// The path in a request's target. As with the peer it has to be that and nothing more: no query, no escapes, no
    /// slash at the end, no upper case.
    pub fn parse(target: &str) -> Option<Self> {
        let digits = target.strip_prefix(PREFIX)?;
        let hex = digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(target.to_owned()))
    }

    /// The path itself, for the status and for who sets up the sender. Not for logs, labels and errors.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        credential::same(&self.0, &other.0)
    }
}

impl Eq for Path {}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/hook/*****")
    }
}

/// The path of a Receiver: the SHA-256 of token, name and namespace, one after the other. For `generic-oidc` the token
/// is empty, so that anybody can know the path.
///
/// # Errors
/// When the token can't be read, as [`check_secret`](crate::check_secret) says.
pub fn path(spec: &ReceiverSpec, namespace: &str, name: &str, secret: Option<&SecretData>) -> Result<Path, Problem> {
    let rest = [name, namespace];
    let digest = if spec.type_ == OIDC_RECEIVER {
        credential::path_digest(b"", &rest)
    } else {
        check::token(spec, namespace, secret)?.path_digest(&rest)
    };
    let mut path = PREFIX.to_owned();
    digest.as_ref().iter().for_each(|byte| _ = write!(path, "{byte:02x}"));
    Ok(Path(path))
}
