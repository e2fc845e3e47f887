//! The rules of a Receiver's spec: those of the CRD once more, for API servers that don't check them and for manifests
//! that meet none, and what they leave open.

use std::collections::BTreeSet;

use belfry_api::{
    OIDC_PROVIDERS_MISPLACED, OIDC_RECEIVER, OidcProvider, RECEIVER_TYPES, ReceiverSpec, SECRET_MISPLACED,
    SECRET_MISSING,
};

use crate::config::{Problem, validate};

/// Everything that is wrong with a spec, apart from its CEL expressions; the peer names only the first.
pub fn check(spec: &ReceiverSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !RECEIVER_TYPES.contains(&spec.type_.as_str()) {
        problems.push(flaw("spec.type", format!("receiver type {:?} not supported", spec.type_)));
    }
    match (spec.type_ == OIDC_RECEIVER, &spec.oidc_providers[..], &spec.secret_ref) {
        (true, providers, secret) => {
            if providers.is_empty() {
                let message = "generic-oidc receiver requires at least one oidcProvider";
                problems.push(flaw("spec.oidcProviders", message));
            }
            if secret.is_some() {
                problems.push(flaw("spec.secretRef", SECRET_MISPLACED));
            }
            let mut seen = BTreeSet::new();
            for (index, provider) in providers.iter().enumerate() {
                oidc_provider(index, provider, &mut seen, &mut problems);
            }
        }
        (false, providers, secret) => {
            if !providers.is_empty() {
                problems.push(flaw("spec.oidcProviders", OIDC_PROVIDERS_MISPLACED));
            }
            if secret.is_none() {
                problems.push(flaw("spec.secretRef", SECRET_MISSING));
            }
        }
    }
    problems
}

fn oidc_provider<'s>(
    index: usize,
    provider: &'s OidcProvider,
    seen: &mut BTreeSet<&'s str>,
    problems: &mut Vec<Problem>,
) {
    let at = format!("oidcProviders[{index}]");
    let url = provider.issuer_url.as_str();
    let issuer = match url {
        "" => Some("issuerURL is required".to_owned()),
        _ if !url.starts_with("http://") && !url.starts_with("https://") => {
            Some(format!("issuerURL {url:?} must start with http:// or https://"))
        }
        _ if !seen.insert(url) => Some(format!("duplicate issuerURL {url:?}")),
        _ => None,
    };
    if let Some(message) = issuer {
        problems.push(flaw(format!("spec.{at}.issuerURL"), format!("{at}: {message}")));
    }
    let mut add = |field: String, message: &str| {
        let message = format!("{at} (issuerURL={url:?}): {message}");
        problems.push(flaw(format!("spec.{at}.{field}"), message));
    };
    if provider.validations.is_empty() {
        let message = "at least one validation is required; a valid signature alone authorizes everybody to whom the \
                       issuer gives tokens";
        add("validations".to_owned(), message);
    }
    for (index, variable) in provider.variables.iter().enumerate() {
        let at = format!("variables[{index}]");
        if variable.name.is_empty() {
            add(format!("{at}.name"), &format!("{at}: name is required"));
        } else if variable.expression.is_empty() {
            add(format!("{at}.expression"), &format!("{at} (name={:?}): expression is required", variable.name));
        }
    }
    for (index, validation) in provider.validations.iter().enumerate() {
        let at = format!("validations[{index}]");
        if validation.expression.is_empty() {
            add(format!("{at}.expression"), &format!("{at}: expression is required"));
        } else if validation.message.is_empty() {
            add(format!("{at}.message"), &format!("{at}: message is required"));
        }
    }
}

/// A spec that can't work.
fn flaw(field: impl AsRef<str>, message: impl Into<String>) -> Problem {
    Problem::refusal(field.as_ref(), validate::INVALID, message)
}
