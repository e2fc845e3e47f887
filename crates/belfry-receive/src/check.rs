//! What must be mended before a Receiver can be ready: the rules of the CRD once more, for API servers that don't check
//! them and for manifests that meet none, what they leave open, and the Secret.

use std::collections::BTreeSet;

use belfry_api::{
    OIDC_PROVIDERS_MISPLACED, OIDC_RECEIVER, OidcProvider, ReceiverSpec, SECRET_MISPLACED, SECRET_MISSING,
};
use belfry_core::secret::SecretData;

use crate::{credential::Credential, registry};

/// Reason of a spec that can't work.
pub const VALIDATION_FAILED: &str = "ValidationFailed";
/// Reason of a Secret that is missing or lacks something.
pub const TOKEN_NOT_FOUND: &str = "TokenNotFound";

/// What must be mended. The message names what is wrong, where, and holds nothing of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.oidcProviders[0].issuerURL`.
    pub field: String,
    /// Reason for the conditions.
    pub reason: &'static str,
    /// Message for the conditions.
    pub message: String,
}

impl Problem {
    fn of_spec(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason: VALIDATION_FAILED, message: message.into() }
    }
}

/// Everything that is wrong with a spec, apart from its CEL expressions; the peer names only the first.
pub fn check(spec: &ReceiverSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if registry::webhook(&spec.type_).is_none() {
        problems.push(Problem::of_spec("spec.type", format!("receiver type {:?} not supported", spec.type_)));
    }
    match (spec.type_ == OIDC_RECEIVER, &spec.oidc_providers[..], &spec.secret_ref) {
        (true, providers, secret) => {
            if providers.is_empty() {
                let message = "generic-oidc receiver requires at least one oidcProvider";
                problems.push(Problem::of_spec("spec.oidcProviders", message));
            }
            if secret.is_some() {
                problems.push(Problem::of_spec("spec.secretRef", SECRET_MISPLACED));
            }
            let mut seen = BTreeSet::new();
            for (index, provider) in providers.iter().enumerate() {
                oidc_provider(index, provider, &mut seen, &mut problems);
            }
        }
        (false, providers, secret) => {
            if !providers.is_empty() {
                problems.push(Problem::of_spec("spec.oidcProviders", OIDC_PROVIDERS_MISPLACED));
            }
            if secret.is_none() {
                problems.push(Problem::of_spec("spec.secretRef", SECRET_MISSING));
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
        problems.push(Problem::of_spec(format!("spec.{at}.issuerURL"), format!("{at}: {message}")));
    }
    let mut add = |field: String, message: &str| {
        let message = format!("{at} (issuerURL={url:?}): {message}");
        problems.push(Problem::of_spec(format!("spec.{at}.{field}"), message));
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

/// What an expression is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// A filter of resources, over `req` and `res`; it returns a boolean.
    Filter {
        /// Whether it knows `claims` as well.
        claims: bool,
    },
    /// A variable over `claims`, and over `vars` of those before it; it returns anything.
    Variable,
    /// A validation over `claims` and `vars`; it returns a boolean.
    Validation,
}

/// A CEL expression of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression<'s> {
    /// The field, such as `spec.resources[0].filter`.
    pub field: String,
    /// What it is for.
    pub evaluated: Evaluated,
    /// The expression.
    pub source: &'s str,
    /// The condition's message when it is wrong: this, and what is wrong behind it.
    pub invalid: String,
}

/// An expression that isn't empty: as with the peer, an empty one is none.
fn written(expression: Option<&String>) -> Option<&str> {
    expression.map(String::as_str).filter(|expression| !expression.is_empty())
}

/// Whether anything looks at the body of a request.
pub(crate) fn has_filters(spec: &ReceiverSpec) -> bool {
    let mut filters = spec.resources.iter().map(|entry| entry.filter.as_ref());
    written(spec.resource_filter.as_ref()).is_some() || filters.any(|filter| written(filter).is_some())
}

/// Every CEL expression of a spec, in the order in which the peer compiles them. A wrong one is a terminal problem with
/// the reason `InvalidCELExpression`.
pub fn expressions(spec: &ReceiverSpec) -> Vec<Expression<'_>> {
    let filter = Evaluated::Filter { claims: spec.type_ == OIDC_RECEIVER };
    let mut found = Vec::new();
    if let Some(source) = written(spec.resource_filter.as_ref()) {
        let (field, invalid) = ("spec.resourceFilter".to_owned(), "invalid resourceFilter expression: ".to_owned());
        found.push(Expression { field, evaluated: filter, source, invalid });
    }
    for (index, entry) in spec.resources.iter().enumerate() {
        if let Some(source) = written(entry.filter.as_ref()) {
            let field = format!("spec.resources[{index}].filter");
            let (kind, name) = (&entry.kind, &entry.name);
            let invalid = format!("invalid filter expression for resources[{index}] (kind={kind:?}, name={name:?}): ");
            found.push(Expression { field, evaluated: filter, source, invalid });
        }
    }
    for (index, provider) in spec.oidc_providers.iter().enumerate() {
        let at = format!("oidcProviders[{index}]");
        let invalid = |what: &str, name: &str| {
            format!("{at} (issuerURL={:?}): invalid expression for {what} {name:?}: ", provider.issuer_url)
        };
        found.extend(provider.variables.iter().enumerate().map(|(index, variable)| Expression {
            field: format!("spec.{at}.variables[{index}].expression"),
            evaluated: Evaluated::Variable,
            source: &variable.expression,
            invalid: invalid("variable", &variable.name),
        }));
        found.extend(provider.validations.iter().enumerate().map(|(index, validation)| Expression {
            field: format!("spec.{at}.validations[{index}].expression"),
            evaluated: Evaluated::Validation,
            source: &validation.expression,
            invalid: invalid("validation", &validation.message),
        }));
    }
    found
}
