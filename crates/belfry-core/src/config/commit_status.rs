//! CommitStatuses: which objects' rollouts are shown on a git host, under which context.

use std::{collections::BTreeMap, sync::Arc};

use belfry_api::{Aggregate, COMMIT_STATUS_TYPES, CommitStatusSpec, CrossNamespaceObjectReference, Metadata};

use super::{Problem, ProviderRule};
use crate::{
    ConfigKey,
    cel::{self, Program, Type, Value},
};

/// Reason of a `contextExpr` that doesn't compile.
const INVALID_CEL: &str = "InvalidCELExpression";

/// A CommitStatus in force.
#[derive(Clone, Debug)]
pub struct CommitStatusRule {
    /// Its key.
    pub key: Arc<ConfigKey>,
    /// Its UID; empty outside a cluster.
    pub uid: Arc<str>,
    /// Its metadata, without kubectl's copy of the manifest.
    pub metadata: Arc<Metadata>,
    /// Its spec as written.
    pub spec: Arc<CommitStatusSpec>,
    /// The Provider it names, whether it exists or not.
    pub provider: Arc<ConfigKey>,
    context: Option<Program>,
}

impl CommitStatusRule {
    pub(super) fn compile(key: &ConfigKey, metadata: Metadata, spec: CommitStatusSpec) -> Result<Self, Problem> {
        let variables = [("event", Type::Object), ("commitStatus", Type::Object), ("provider", Type::Object)];
        let context = spec.context_expr.as_deref().map(|source| cel::compile(source, &variables, Type::String));
        let context = context.transpose().map_err(|error| {
            Problem::refusal("spec.contextExpr", INVALID_CEL, format!("invalid expression: {error}"))
        })?;
        if context.is_some() && spec.aggregate == Aggregate::All {
            let message =
                "says which context each object has, and 'aggregate: all' that there is but one: leave one out";
            return Err(Problem::refusal("spec.contextExpr", super::validate::INVALID, message));
        }
        Ok(Self {
            key: Arc::new(key.clone()),
            uid: metadata.uid.as_str().into(),
            metadata: Arc::new(metadata),
            provider: Arc::new(ConfigKey::provider(&key.namespace, &spec.provider_ref.name)),
            spec: Arc::new(spec),
            context,
        })
    }

    /// The context that `contextExpr` gives a status, if there is such an expression: `event` with its metadata stripped
    /// of prefixes, and the two objects, as JSON.
    ///
    /// # Errors
    /// When it fails on this event, or gives nothing; what is said may quote a little of it.
    pub fn context(
        &self,
        event: &serde_json::Value,
        commit_status: &serde_json::Value,
        provider: &serde_json::Value,
    ) -> Option<Result<String, String>> {
        let program = self.context.as_ref()?;
        let variables = [("event", event), ("commitStatus", commit_status), ("provider", provider)];
        let context = program.evaluate_string(&variables.map(|(name, json)| (name, Value::typed(json))));
        Some(match context {
            Ok(context) if context.is_empty() => Err("spec.contextExpr gives an empty context".into()),
            Ok(context) => Ok(context),
            Err(error) => Err(format!("failed to evaluate spec.contextExpr: {error}")),
        })
    }

    /// It as a manifest, for expressions.
    pub fn manifest(&self) -> serde_json::Value {
        super::snapshot::manifest(&self.key, &self.metadata, serde_json::json!(self.spec))
    }

    /// What doesn't work of it as it is in force.
    pub(super) fn provider_problems(&self, providers: &BTreeMap<Arc<ConfigKey>, Arc<ProviderRule>>) -> Vec<Problem> {
        let field = "spec.providerRef.name";
        let Some(provider) = providers.get(&self.provider) else {
            let message = format!(
                "there is no Provider '{}' in the namespace '{}': statuses wait until there is",
                self.provider.name, self.provider.namespace
            );
            return vec![Problem::warning(field, "ProviderNotFound", message)];
        };
        if !COMMIT_STATUS_TYPES.contains(&provider.spec.type_.as_str()) {
            let message = format!(
                "the Provider '{}' is of the type '{}', which has no commit statuses: use one of {}",
                self.provider.name,
                provider.spec.type_,
                COMMIT_STATUS_TYPES.join(", ")
            );
            return vec![Problem::warning(field, "NotAGitProvider", message)];
        }
        Vec::new()
    }

    /// Whether it and another one may write the same context to the same repository.
    pub(super) fn collides(&self, other: &Self, providers: &BTreeMap<Arc<ConfigKey>, Arc<ProviderRule>>) -> bool {
        // What expressions give isn't known beforehand.
        if self.context.is_some() || other.context.is_some() || self.spec.prefix != other.spec.prefix {
            return false;
        }
        let at = |rule: &Self| {
            let spec = &providers.get(&rule.provider)?.spec;
            let address = spec.address.as_deref().unwrap_or_default().trim_end_matches('/').trim_end_matches(".git");
            Some((spec.type_.clone(), address.to_owned()))
        };
        let same_place = at(self).is_some() && at(self) == at(other);
        let alone = (self.spec.aggregate, other.spec.aggregate);
        same_place
            && match alone {
                (Aggregate::All, Aggregate::All) => true,
                (Aggregate::Each, Aggregate::Each) => self.overlaps(other),
                _ => false,
            }
    }

    /// Whether an object may be selected by both.
    fn overlaps(&self, other: &Self) -> bool {
        let namespace = |rule: &Self, source: &CrossNamespaceObjectReference| -> String {
            source.namespace.clone().unwrap_or_else(|| rule.key.namespace.to_string())
        };
        let meets = |a: &str, b: &str| a == b || a == "*" || b == "*";
        self.spec.event_sources.iter().any(|ours| {
            other.spec.event_sources.iter().any(|theirs| {
                let labels = match (&ours.match_labels, &theirs.match_labels) {
                    (Some(a), Some(b)) => a.iter().all(|(key, value)| b.get(key).is_none_or(|other| other == value)),
                    _ => true,
                };
                let clusters = [ours, theirs].map(|source| source.cluster.as_deref().unwrap_or("*"));
                ours.kind == theirs.kind
                    && meets(clusters[0], clusters[1])
                    && meets(&ours.name, &theirs.name)
                    && meets(&namespace(self, ours), &namespace(other, theirs))
                    && labels
            })
        })
    }
}
