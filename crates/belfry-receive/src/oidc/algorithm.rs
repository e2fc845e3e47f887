//! The signature algorithms of tokens.

use ring::signature::{self as ring_signature, EcdsaVerificationAlgorithm, RsaParameters};

/// How a token is signed. Algorithms with shared keys, and `none`, have no name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names are all there is to say")]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// What checks a signature.
pub(crate) enum Check {
    Rsa(&'static RsaParameters),
    P256(&'static EcdsaVerificationAlgorithm),
    P384(&'static EcdsaVerificationAlgorithm),
    Ed25519,
}

impl Algorithm {
    const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Its name in `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    pub(crate) fn check(self) -> Check {
        match self {
            Self::Rs256 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Check::Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Check::Rsa(&ring_signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Check::P256(&ring_signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Check::P384(&ring_signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Check::Ed25519,
        }
    }
}
