//! Signed tokens: the three parts, what the middle one claims, and whether the last one proves it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_core::Time;
use http::header::AUTHORIZATION;
use serde_json::Value;

use super::{Algorithm, Keys};
use crate::{Inbound, Object, inbound::quoted, json};

/// Microseconds in a second.
const SECOND: i64 = 1_000_000;

/// The token behind `Bearer `; `None` when there is no such header, an empty text when nothing follows.
pub(crate) fn bearer<'a>(inbound: &Inbound<'a>) -> Option<&'a str> {
    let header = inbound.header(AUTHORIZATION.as_str())?;
    // A header's value comes without the white space at its end.
    let token = if header == b"Bearer" { &[] } else { header.strip_prefix(b"Bearer ")? };
    Some(std::str::from_utf8(token).ok()?.trim())
}

/// A token, taken apart. That it says something doesn't make it true.
pub(crate) struct Token<'a> {
    algorithm: String,
    key_id: String,
    critical: bool,
    /// What it claims.
    pub(crate) claims: Object,
    signed: &'a [u8],
    signature: Vec<u8>,
}

/// What a token's signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    /// One of the keys made it.
    Good,
    /// None did; why.
    Bad(String),
    /// It names a key that isn't there.
    UnknownKey,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it isn't one. The text repeats nothing of it.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(format!("malformed jwt, expected 3 parts got {}", parts.len()));
        };
        let decode = |part: &str, name: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| format!("malformed jwt {name}: it is not base64url"))
        };
        let object = |part: &str, name: &str| {
            json::whole_object(&decode(part, name)?).map_err(|error| format!("malformed jwt {name}: {error}"))
        };
        let header_fields = object(header, "header")?;
        let member = |name: &str| header_fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self {
            algorithm: member("alg"),
            key_id: member("kid"),
            // What it names has to be understood, and nothing is.
            critical: header_fields.contains_key("crit"),
            claims: object(payload, "payload")?,
            signed: &text.as_bytes()[..header.len() + 1 + payload.len()],
            signature: decode(signature, "signature")?,
        })
    }

    /// The algorithm that it says it is signed with.
    pub(crate) fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// A claim that is a text.
    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// A point in time, in seconds; fractions are cut off.
    pub(crate) fn seconds(&self, claim: &str) -> Option<i64> {
        let number = self.claims.get(claim)?;
        number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64))
    }

    /// The audiences, which may be one text or a list.
    pub(crate) fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// What is wrong with audience and times, as OpenID Connect has it: no leeway for the end, five minutes for the
    /// beginning.
    pub(crate) fn out_of_place(&self, audience: &str, now: Time) -> Option<String> {
        let audiences = self.audiences();
        if !audiences.contains(&audience) {
            let got: Vec<String> = audiences.iter().take(4).map(|audience| quoted(audience)).collect();
            return Some(format!("oidc: expected audience {audience:?} got [{}]", got.join(" ")));
        }
        let Some(expiry) = self.seconds("exp") else {
            return Some("oidc: token is expired (it has no expiry)".to_owned());
        };
        if expiry.saturating_mul(SECOND) < now.0 {
            return Some(format!("oidc: token is expired (Token Expiry: {})", moment(expiry)));
        }
        let begin = self.seconds("nbf")?;
        let early = begin.saturating_mul(SECOND) > now.0.saturating_add(300 * SECOND);
        early.then(|| format!("oidc: current time {now} before the nbf (not before) time: {}", moment(begin)))
    }

    /// Whether one of the keys made the signature, with an algorithm that is allowed.
    pub(crate) fn signature(&self, keys: &Keys) -> Signature {
        if self.critical {
            return Signature::Bad("its header has critical extensions".to_owned());
        }
        let algorithm = Algorithm::parse(&self.algorithm).filter(|algorithm| keys.algorithms.contains(algorithm));
        let Some(algorithm) = algorithm else {
            return Signature::Bad(format!("unexpected signature algorithm {}", quoted(&self.algorithm)));
        };
        if keys.verify(&self.key_id, algorithm, self.signed, &self.signature) {
            Signature::Good
        } else if keys.knows(&self.key_id) {
            Signature::Bad("no key made it".to_owned())
        } else {
            Signature::UnknownKey
        }
    }
}

/// A point in time for people.
fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}
