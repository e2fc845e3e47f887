//! Tokens of OpenID Connect providers: what they say ([`jwt`]), and the public keys that prove it ([`keys`]).

mod algorithm;
mod jwt;
mod keys;

pub use algorithm::Algorithm;
pub(crate) use jwt::{Signature, Token, bearer};
pub use keys::{BadDocument, Discovery, KeySource, Keys};

/// Where Google's keys for ID tokens are.
pub(crate) const GOOGLE: KeySource = KeySource::Jwks("https://www.googleapis.com/oauth2/v3/certs");
/// Where those of its Identity-Aware Proxy are.
pub(crate) const GOOGLE_IAP: KeySource = KeySource::Jwks("https://www.gstatic.com/iap/verify/public_key-jwk");
