//! Receivers: which webhooks are taken, and what they reconcile. Rules, CEL and targets are checked and compiled here,
//! once; requests are verified elsewhere.
//!
//! A Receiver that is refused takes nothing, and unlike other objects it does not go on as it was: it is a door, and
//! one that may have been narrowed, or shut, by the very change that doesn't compile.

mod check;
mod expressions;
mod target;

use std::{sync::Arc, time::Duration};

use belfry_api::{Metadata, OIDC_RECEIVER, ReceiverSpec};
pub use check::check;
pub use expressions::{Evaluated, Expression, expressions, has_filters};
use serde_json::{Map, Value as Json};
pub use target::{Objects, Target, target};

use super::{Options, Problem, labels};
use crate::{
    ConfigKey,
    cel::{self, Program, Type, Value},
    duration,
};

/// Reason of a CEL expression that doesn't compile.
pub const INVALID_CEL: &str = "InvalidCELExpression";
/// The interval of a Receiver that names none, as with the peer.
const INTERVAL: Duration = Duration::from_secs(600);

/// A Receiver, in force or not.
#[derive(Clone, Debug)]
pub struct ReceiverRule {
    /// Its key.
    pub key: Arc<ConfigKey>,
    /// Its UID; empty outside a cluster.
    pub uid: Arc<str>,
    /// Its metadata, without kubectl's copy of the manifest.
    pub metadata: Arc<Metadata>,
    /// Its spec as written; the default where it can't be read.
    pub spec: Arc<ReceiverSpec>,
    /// `spec.interval`.
    pub interval: Duration,
    /// Why it takes nothing.
    pub flaw: Option<Problem>,
    resource_filter: Option<Program>,
    filters: Vec<Option<Program>>,
    claims: Vec<Claims>,
    cross_namespace: bool,
}

/// What authorizes the tokens of one provider.
#[derive(Clone, Debug, Default)]
struct Claims {
    variables: Vec<(String, Program)>,
    /// Each with what is said when it is false.
    validations: Vec<(Program, String)>,
}

/// What filters look at besides the object.
#[derive(Clone, Debug)]
pub struct Request {
    body: Value,
    claims: Option<Value>,
}

impl Request {
    /// The request's body, and the claims of its token if it has one.
    pub fn new(body: Map<String, Json>, claims: Option<Map<String, Json>>) -> Self {
        Self { body: Json::Object(body).into(), claims: claims.map(|claims| Json::Object(claims).into()) }
    }
}

impl ReceiverRule {
    /// A Receiver whose spec was read, or can't be.
    pub(super) fn compile(
        key: &ConfigKey,
        metadata: Metadata,
        spec: Result<ReceiverSpec, Problem>,
        options: &Options,
    ) -> Self {
        let (spec, flaw) = match spec {
            Ok(spec) => (spec, None),
            Err(problem) => (ReceiverSpec::default(), Some(problem)),
        };
        let mut rule = Self {
            key: Arc::new(key.clone()),
            uid: metadata.uid.as_str().into(),
            metadata: Arc::new(metadata),
            spec: Arc::default(),
            interval: INTERVAL,
            flaw,
            resource_filter: None,
            filters: Vec::new(),
            claims: Vec::new(),
            cross_namespace: !options.no_cross_namespace_refs,
        };
        if rule.flaw.is_none() {
            rule.flaw = rule.programs(&spec).err();
        }
        rule.spec = Arc::new(spec);
        rule
    }

    /// Compiles what the spec holds, in the peer's order: the first problem is the condition's.
    fn programs(&mut self, spec: &ReceiverSpec) -> Result<(), Problem> {
        let (claims, filters): (Vec<_>, Vec<_>) =
            expressions(spec).into_iter().partition(|e| !matches!(e.evaluated, Evaluated::Filter { .. }));
        let mut compiled = filters.iter().map(|expression| compile(expression)).collect::<Result<Vec<_>, _>>()?;
        if expressions::written(spec.resource_filter.as_ref()).is_some() {
            self.resource_filter = Some(compiled.remove(0));
        }
        let mut compiled = compiled.into_iter();
        let own = spec.resources.iter().map(|entry| expressions::written(entry.filter.as_ref()).is_some());
        self.filters = own.map(|written| if written { compiled.next() } else { None }).collect();
        if let Some(problem) = check(spec).into_iter().next() {
            return Err(problem);
        }
        let interval = duration::parse(&spec.interval);
        self.interval =
            interval.map_err(|error| Problem::refusal("spec.interval", super::validate::INVALID, error.to_string()))?;
        let mut compiled =
            claims.iter().map(|expression| compile(expression)).collect::<Result<Vec<_>, _>>()?.into_iter();
        self.claims = spec
            .oidc_providers
            .iter()
            .map(|provider| {
                let variables = provider.variables.iter().map(|variable| variable.name.clone());
                let variables = variables.zip(compiled.by_ref()).collect();
                let validations = provider.validations.iter().map(|validation| validation.message.clone());
                Claims { variables, validations: compiled.by_ref().zip(validations).collect() }
            })
            .collect();
        Ok(())
    }

    /// What is to be said of entries that never select anything. The others are still good.
    pub(super) fn warnings(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, entry) in self.spec.resources.iter().enumerate() {
            let field = format!("spec.resources[{index}]");
            let warning = |message: String| Problem::warning(&field, "NothingSelected", message);
            match self.target(index) {
                Some(Err(message)) => problems.push(warning(message)),
                Some(Ok(_)) if entry.name == "*" => {
                    let invalid = entry.match_labels.as_ref().and_then(labels::invalid);
                    problems.extend(invalid.map(|(key, why)| warning(format!("matchLabels: '{key}' {why}"))));
                }
                _ => {}
            }
        }
        if self.spec.oidc_providers.iter().any(|provider| provider.issuer_url.starts_with("http://")) {
            let message = "an issuer's keys are only fetched over https: tokens of others are refused";
            problems.push(Problem::warning("spec.oidcProviders", super::validate::INVALID, message));
        }
        problems
    }

    /// What the entry with this index in `spec.resources` selects; the error is why it never selects anything. `None`
    /// when there is no such entry.
    pub fn target(&self, entry: usize) -> Option<Result<Target<'_>, String>> {
        let entry = self.spec.resources.get(entry)?;
        Some(target(entry, &self.key.namespace, self.cross_namespace))
    }

    /// Whether filters look at the objects of an entry.
    pub fn filters(&self, entry: usize) -> bool {
        self.programs_of(entry).next().is_some()
    }

    fn programs_of(&self, entry: usize) -> impl Iterator<Item = &Program> {
        self.resource_filter.iter().chain(self.filters.get(entry).into_iter().flatten())
    }

    /// Whether the filters let an object of an entry pass: `res` is its API version, kind and metadata.
    ///
    /// # Errors
    /// When a filter fails on this request or object; what is said may quote a little of them.
    pub fn passes(&self, entry: usize, request: &Request, object: &Json) -> Result<bool, String> {
        let object = Value::typed(object);
        let mut variables = vec![("req", request.body.clone()), ("res", object)];
        if self.spec.type_ == OIDC_RECEIVER {
            variables.push(("claims", request.claims.clone().unwrap_or_else(|| Value::object::<&str>([]))));
        }
        for program in self.programs_of(entry) {
            if !program.evaluate_bool(&variables).map_err(|error| format!("failed to evaluate filter: {error}"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a verified token's claims fulfil what the provider with this index in `spec.oidcProviders` asks for.
    ///
    /// # Errors
    /// When they don't, in the words of the validations that they fail.
    pub fn check_claims(&self, provider: usize, claims: &Map<String, Json>) -> Result<(), String> {
        let rules = self.claims.get(provider).ok_or("token validation failed: there is no such provider")?;
        let claims: Value = Json::Object(claims.clone()).into();
        let mut vars: Vec<(&str, Value)> = Vec::new();
        for (name, program) in &rules.variables {
            let known = [("claims", claims.clone()), ("vars", Value::object(vars.iter().cloned()))];
            let value = program.evaluate(&known);
            vars.push((name, value.map_err(|error| format!("failed to evaluate variable {name:?}: {error}"))?));
        }
        let known = [("claims", claims), ("vars", Value::object(vars))];
        let mut failed = Vec::new();
        for (program, message) in &rules.validations {
            let holds = program.evaluate_bool(&known);
            if !holds.map_err(|error| format!("failed to evaluate validation: {error}"))? {
                failed.push(message.as_str());
            }
        }
        // A provider without validations is refused when it is compiled; it must not let everybody in by mistake.
        match failed.is_empty() && !rules.validations.is_empty() {
            true => Ok(()),
            false => Err(format!("token validation failed: {}", failed.join("; "))),
        }
    }
}

fn compile(expression: &Expression<'_>) -> Result<Program, Problem> {
    const FILTER: [(&str, Type); 3] = [("req", Type::Object), ("res", Type::Object), ("claims", Type::Object)];
    const CLAIMS: [(&str, Type); 2] = [("claims", Type::Object), ("vars", Type::Object)];
    let (variables, result): (&[_], _) = match expression.evaluated {
        Evaluated::Filter { claims: true } => (&FILTER, Type::Bool),
        Evaluated::Filter { claims: false } => (&FILTER[..2], Type::Bool),
        Evaluated::Variable => (&CLAIMS, Type::Dyn),
        Evaluated::Validation => (&CLAIMS, Type::Bool),
    };
    cel::compile(expression.source, variables, result)
        .map_err(|error| Problem::refusal(&expression.field, INVALID_CEL, format!("{}{error}", expression.invalid)))
}

#[cfg(test)]
mod tests;
