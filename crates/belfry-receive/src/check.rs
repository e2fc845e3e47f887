//! What must be mended about a Receiver's Secret before it can be ready. The rules of its spec are
//! [`belfry_core::config::receiver`]'s.

use belfry_api::ReceiverSpec;
use belfry_core::{config::Problem, secret::SecretData};

use crate::{credential::Credential, registry};

/// Reason of a Secret that is missing or lacks something.
pub const TOKEN_NOT_FOUND: &str = "TokenNotFound";

/// What is wrong with the Secret of a Receiver in this namespace: it is not there, or lacks what its type needs. Unlike
/// the peer's, an empty token is as bad as none, and what `gcr` needs is asked for before the first request.
pub fn check_secret(spec: &ReceiverSpec, namespace: &str, secret: Option<&SecretData>) -> Option<Problem> {
    let required = registry::webhook(&spec.type_).map_or(&["token"][..], |webhook| webhook.secret);
    required.iter().find_map(|key| value(spec, namespace, secret, key).err())
}

/// The token of a Receiver that has one.
pub(crate) fn token<'s>(
    spec: &ReceiverSpec,
    namespace: &str,
    secret: Option<&'s SecretData>,
) -> Result<Credential<'s>, Problem> {
    value(spec, namespace, secret, "token")
}

fn value<'s>(
    spec: &ReceiverSpec,
    namespace: &str,
    secret: Option<&'s SecretData>,
    key: &str,
) -> Result<Credential<'s>, Problem> {
    let name = spec.secret_ref.as_ref().map_or("", |reference| &reference.name);
    Credential::of(secret, key).map_err(|_| Problem {
        field: "spec.secretRef".to_owned(),
        reason: TOKEN_NOT_FOUND,
        refused: true,
        message: match secret.map(|secret| secret.bytes(key)) {
            None => {
                format!("unable to read token from secret '{namespace}/{name}' error: Secret {name:?} not found")
            }
            Some(None) => format!("invalid '{namespace}/{name}' secret data: required fields '{key}'"),
            Some(Some(_)) => {
                format!("invalid '{namespace}/{name}' secret data: '{key}' is empty, which would let everybody in")
            }
        },
    })
}
