//! `generic-oidc`: any request with a token of one of the listed OpenID Connect issuers, as the CI systems of git hosts
//! give to their jobs. Anybody can know the path, and get a token of a public issuer: the audience and the validations
//! over the claims are what authorizes.

use belfry_api::{OidcProvider, ReceiverSpec};

use super::cloud_event;
use crate::{
    Inbound, KeySource, Object, Reason, Refused,
    inbound::quoted,
    oidc::{Signature, Token, bearer},
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook =
    Webhook { name: "generic-oidc", secret: &[], keys, authenticate, read: cloud_event, ..Webhook::BASE };

/// The token, and the provider that it says it comes from, with its index.
fn claimed<'a>(spec: &'a ReceiverSpec, inbound: &Inbound<'a>) -> Result<(Token<'a>, usize, &'a OidcProvider), Refused> {
    if spec.oidc_providers.is_empty() {
        return Err(Refused::not_ready("generic-oidc receiver has no oidcProviders configured"));
    }
    let token = match bearer(inbound) {
        None => return Err(Refused::credential("the Authorization header is missing or malformed")),
        Some("") => return Err(Refused::credential("the Authorization header is missing a bearer token")),
        Some(token) => token,
    };
    let unparsed = |error: String| Refused::credential(format!("failed to parse bearer token: {error}"));
    let token = Token::parse(token).map_err(unparsed)?;
    let issuer = token.text("iss").filter(|issuer| !issuer.is_empty());
    let issuer = issuer.ok_or_else(|| unparsed("it has no issuer".to_owned()))?;
    let mut providers = spec.oidc_providers.iter().enumerate();
    let Some((index, provider)) = providers.find(|(_, provider)| provider.issuer_url == issuer) else {
        return Err(Refused::credential(format!("no oidcProvider configured for issuer {}", quoted(issuer))));
    };
    Ok((token, index, provider))
}

fn keys(spec: &ReceiverSpec, inbound: &Inbound<'_>) -> Result<Option<KeySource>, Refused> {
    let (_, _, provider) = claimed(spec, inbound)?;
    Ok(Some(KeySource::Issuer(provider.issuer_url.clone())))
}

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let (token, index, provider) = claimed(call.spec, &call.inbound)?;
    let unverified = |reason, why: &str| Refused::new(reason, format!("failed to verify OIDC token: {why}"));
    // What is cheap to tell comes first, as nothing is believed before all of it was seen.
    if let Some(why) = token.out_of_place(provider.audience(), call.given.now) {
        return Err(unverified(Reason::Credential, &why));
    }
    let source = KeySource::Issuer(provider.issuer_url.clone());
    let Some(keys) = call.given.keys.filter(|keys| keys.source == source) else {
        let why = format!("failed to initialize OIDC provider for issuer {}: no keys", quoted(&provider.issuer_url));
        return Err(Refused::new(Reason::KeysMissing, why));
    };
    match token.signature(keys) {
        Signature::Good => {}
        Signature::Bad(why) => {
            return Err(unverified(Reason::Credential, &format!("failed to verify signature: {why}")));
        }
        Signature::UnknownKey => {
            let why = "failed to verify signature: failed to verify id token signature: its key is unknown";
            return Err(unverified(Reason::UnknownKey, why));
        }
    }
    (call.given.claims)(index, &token.claims).map_err(Refused::credential)?;
    Ok(Some(token.claims))
}
