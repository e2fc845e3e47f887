//! The CEL expressions of a Receiver's spec, in the order in which the peer compiles them.

use belfry_api::{OIDC_RECEIVER, ReceiverSpec};

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
pub(super) fn written(expression: Option<&String>) -> Option<&str> {
    expression.map(String::as_str).filter(|expression| !expression.is_empty())
}

/// Whether anything looks at the body of a request, or at the objects that it may be about.
pub fn has_filters(spec: &ReceiverSpec) -> bool {
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
