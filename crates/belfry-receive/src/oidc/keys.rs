//! Public keys: where they are, and what stands in a discovery document and in a set of keys.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{ED25519, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use url::Url;

use super::algorithm::{Algorithm, Check};
use crate::{Object, inbound::quoted, json};

/// Keys of one set that are looked at.
const KEYS: usize = 64;

/// Where keys are, which is also the name to keep them under.
///
/// For an issuer: fetch [`KeySource::url`], read it with [`Discovery::parse`], fetch its `jwks_uri`, and read that with
/// [`Keys::parse`] and the algorithms of the discovery document. Otherwise [`KeySource::url`] is the set of keys, and
/// its algorithms are [`KeySource::ALGORITHMS`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// An OpenID Connect issuer, exactly as in `oidcProviders[].issuerURL`.
    Issuer(String),
    /// A set of keys at this address.
    Jwks(&'static str),
}

impl KeySource {
    /// The algorithms of a set of keys without a discovery document.
    pub const ALGORITHMS: &'static [Algorithm] = &[Algorithm::Rs256, Algorithm::Es256];

    /// What to fetch first: the discovery document, or the keys.
    pub fn url(&self) -> Cow<'static, str> {
        match self {
            Self::Issuer(issuer) => {
                format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer)).into()
            }
            Self::Jwks(url) => (*url).into(),
        }
    }
}

/// A document that isn't what it should be. The text names the place and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    /// It isn't a JSON object.
    #[error("it is not a JSON object: {0}")]
    NotJson(String),
    /// The issuer in it is another one, so that its keys prove nothing.
    #[error("issuer URL provided to client ({expected:?}) did not match the issuer URL returned by provider ({found})")]
    Issuer {
        /// What it should be.
        expected: String,
        /// What it is, quoted and cut.
        found: String,
    },
    /// It doesn't say where the keys are.
    #[error("its jwks_uri is missing or not an HTTP address; that of an https issuer must be https")]
    JwksUri,
    /// It has no keys.
    #[error("it has no list of keys")]
    NoKeys,
}

/// What of a discovery document is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Where the keys are.
    pub jwks_uri: String,
    /// The algorithms that tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
}

impl Discovery {
    /// Reads the discovery document of an issuer.
    ///
    /// # Errors
    /// When it is another issuer's, or says nothing of keys.
    pub fn parse(issuer: &str, document: &[u8]) -> Result<Self, BadDocument> {
        let document = json::whole_object(document).map_err(BadDocument::NotJson)?;
        let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != issuer {
            return Err(BadDocument::Issuer { expected: issuer.to_owned(), found: quoted(text("issuer")) });
        }
        let uri = Url::parse(text("jwks_uri")).map_err(|_| BadDocument::JwksUri)?;
        let secure = issuer.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if uri.scheme() != "https" && (secure || uri.scheme() != "http") {
            return Err(BadDocument::JwksUri);
        }
        let named = document.get("id_token_signing_alg_values_supported").and_then(Value::as_array);
        let named = named.into_iter().flatten().filter_map(Value::as_str);
        let mut algorithms: Vec<Algorithm> = named.filter_map(Algorithm::parse).collect();
        if algorithms.is_empty() {
            algorithms.push(Algorithm::Rs256);
        }
        Ok(Self { jwks_uri: text("jwks_uri").to_owned(), algorithms })
    }
}

/// The public keys of one source.
#[derive(Clone)]
pub struct Keys {
    pub(crate) source: KeySource,
    pub(crate) algorithms: Vec<Algorithm>,
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Keys {
    /// Reads a set of keys (JWKS). Keys of kinds that nothing here verifies with are passed over.
    ///
    /// # Errors
    /// When it isn't one.
    pub fn parse(source: &KeySource, algorithms: &[Algorithm], document: &[u8]) -> Result<Self, BadDocument> {
        let document = json::whole_object(document).map_err(BadDocument::NotJson)?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or(BadDocument::NoKeys)?;
        let keys = keys.iter().take(KEYS).filter_map(Value::as_object).filter_map(Key::read).collect();
        Ok(Self { source: source.clone(), algorithms: algorithms.to_vec(), keys })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Those with an id; all for a token without one.
    fn named<'k>(&'k self, id: &'k str) -> impl Iterator<Item = &'k Key> {
        self.keys.iter().filter(move |key| id.is_empty() || key.id == id)
    }

    /// Whether there is a key with this id.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.named(id).next().is_some()
    }

    /// Whether a key of this id made the signature.
    pub(crate) fn verify(&self, id: &str, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.named(id).any(|key| key.verify(algorithm, message, signature))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} of {:?})", self.keys.len(), self.source)
    }
}

impl Key {
    fn read(key: &Object) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
        let bytes = |name: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(text(name).trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty())
        };
        if text("use") == "enc" {
            return None;
        }
        let material = match (text("kty"), text("crv")) {
            ("RSA", _) => Material::Rsa { modulus: trimmed(bytes("n")?), exponent: trimmed(bytes("e")?) },
            ("EC", "P-256") => Material::P256(point(&bytes("x")?, &bytes("y")?, 32)?),
            ("EC", "P-384") => Material::P384(point(&bytes("x")?, &bytes("y")?, 48)?),
            ("OKP", "Ed25519") => Material::Ed25519(bytes("x")?),
            _ => return None,
        };
        Some(Self { id: text("kid").to_owned(), material })
    }

    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm.check(), &self.material) {
            (Check::Rsa(parameters), Material::Rsa { modulus, exponent }) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }
            (Check::P256(curve), Material::P256(point)) | (Check::P384(curve), Material::P384(point)) => {
                UnparsedPublicKey::new(curve, point).verify(message, signature).is_ok()
            }
            (Check::Ed25519, Material::Ed25519(point)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

/// A number without zeros before it.
fn trimmed(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].to_vec()
}

/// A point of a curve, its coordinates filled up to their full size.
fn point(x: &[u8], y: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        let missing = size.checked_sub(coordinate.len())?;
        point.extend(std::iter::repeat_n(0, missing));
        point.extend_from_slice(coordinate);
    }
    Some(point)
}
