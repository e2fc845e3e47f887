//! Documents into a snapshot. Nothing here fails as a whole: an object that cannot be in force is refused by itself, and
//! keeps its last good version.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use belfry_api::{
    AlertSpec, COMMIT_STATUS_TYPES, CommitStatusSpec, CrossNamespaceObjectReference, Metadata, ProviderSpec,
    ReceiverSpec,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    AlertRule, CommitStatusRule, Document, Finding, Options, Problem, ProviderRule, ReceiverRule, Snapshot, labels,
    snapshot::Rules, sources, validate,
};
use crate::{
    ConfigKey, ConfigKind, cel, duration,
    regexes::{self, Regexes},
};

/// Time for one attempt when a Provider names none, as with the peer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Flux's reason for an expression that can't be used.
const INVALID_CEL: &str = "InvalidCELExpression";
/// The annotation in which kubectl keeps a second copy of the manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Compiles documents. Documents of other groups and kinds are passed over without a finding. An object that is refused
/// keeps the version that `last_good` holds, if any, unless it is a Receiver; one that has no document is gone.
pub fn compile(documents: &[Document], last_good: &Snapshot, options: &Options) -> (Snapshot, Vec<Finding>) {
    let mut compiler = Compiler {
        last_good,
        options,
        entries: Vec::new(),
        first: HashMap::new(),
        providers: BTreeMap::new(),
        alerts: BTreeMap::new(),
        commit_statuses: BTreeMap::new(),
        receivers: BTreeMap::new(),
    };
    for document in documents {
        compiler.document(document);
    }
    compiler.finish()
}

struct Compiler<'a> {
    last_good: &'a Snapshot,
    options: &'a Options,
    entries: Vec<Entry<'a>>,
    /// The entry that claims a key.
    first: HashMap<ConfigKey, usize>,
    providers: BTreeMap<Arc<ConfigKey>, Arc<ProviderRule>>,
    alerts: BTreeMap<Arc<ConfigKey>, Arc<AlertRule>>,
    commit_statuses: BTreeMap<Arc<ConfigKey>, Arc<CommitStatusRule>>,
    receivers: BTreeMap<Arc<ConfigKey>, Arc<ReceiverRule>>,
}

/// A document and what is to be said of it.
struct Entry<'a> {
    object: Option<ConfigKey>,
    origin: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn document(&mut self, document: &'a Document) {
        let text = |field: &str| document.value.get(field).and_then(Value::as_str).unwrap_or_default();
        let Some((belfry_api::GROUP, version)) = text("apiVersion").split_once('/') else { return };
        let Some(kind) = ConfigKind::parse(text("kind")).filter(|kind| *kind != ConfigKind::Cluster) else { return };
        let mut entry = Entry { object: None, origin: &document.origin, problems: Vec::new() };
        match self.object(kind, version, document, &mut entry) {
            Ok(()) => {}
            Err(problem) => entry.problems.push(problem),
        }
        self.entries.push(entry);
    }

    /// Takes one object in. What it has to say of it goes into the entry; the error is why the object is refused.
    fn object(
        &mut self,
        kind: ConfigKind,
        version: &str,
        document: &Document,
        entry: &mut Entry<'a>,
    ) -> Result<(), Problem> {
        let mut metadata: Metadata = read("metadata", document.value.get("metadata").cloned().unwrap_or_default())?;
        metadata.annotations.remove(LAST_APPLIED);
        if metadata.namespace.is_empty() {
            metadata.namespace = "default".into();
        }
        if !labels::is_subdomain(&metadata.name) {
            let message =
                if metadata.name.is_empty() { "is required" } else { "is not a name that an object can have" };
            return Err(Problem::refusal("metadata.name", validate::INVALID, message));
        }
        if !labels::is_label(&metadata.namespace) {
            let message = "is not a name that a namespace can have";
            return Err(Problem::refusal("metadata.namespace", validate::INVALID, message));
        }
        let key =
            ConfigKey { kind, namespace: metadata.namespace.as_str().into(), name: metadata.name.as_str().into() };
        entry.object = Some(key.clone());
        if let Some(first) = self.first.get(&key).and_then(|first| self.entries.get(*first)) {
            let origin = if first.origin.is_empty() { "another document" } else { first.origin };
            return Err(Problem::refusal("", "Duplicate", format!("{origin} holds it already, and that one counts")));
        }
        self.first.insert(key.clone(), self.entries.len());
        let compiled = known_version(kind, version).and_then(|()| {
            let mut spec = document.value.get("spec").cloned().unwrap_or_default();
            if spec.is_null() {
                return Err(Problem::refusal("spec", validate::INVALID, "is required"));
            }
            match kind {
                ConfigKind::Provider => self.provider(&key, metadata, &mut spec, entry),
                ConfigKind::Receiver => self.receiver(&key, metadata, &mut spec, entry),
                ConfigKind::CommitStatus => self.commit_status(&key, metadata, &mut spec, entry),
                ConfigKind::Alert | ConfigKind::Cluster => self.alert(&key, metadata, &mut spec, entry),
            }
        });
        compiled.map_err(|problem| self.keep_last_good(&key, problem))
    }

    fn provider(
        &mut self,
        key: &ConfigKey,
        metadata: Metadata,
        spec: &mut Value,
        entry: &mut Entry<'a>,
    ) -> Result<(), Problem> {
        let spec: ProviderSpec = checked(ConfigKind::Provider, spec, entry)?;
        let timeout = match spec.timeout.as_deref().map(duration::parse).transpose() {
            Ok(Some(Duration::ZERO)) => {
                let message = "no time at all: 15s is used instead";
                entry.problems.push(Problem::warning("spec.timeout", validate::INVALID, message));
                TIMEOUT
            }
            Ok(timeout) => timeout.unwrap_or(TIMEOUT),
            Err(error) => return Err(Problem::refusal("spec.timeout", validate::INVALID, error.to_string())),
        };
        let before = self.last_good.provider(key).and_then(|rule| rule.commit_status.as_ref());
        let commit_status = match spec.commit_status_expr.as_deref() {
            None | Some("") => None,
            Some(text) => Some(match before.filter(|program| program.expression() == text) {
                Some(program) => program.clone(),
                None => cel::compile_commit_status(text).map_err(|bad| {
                    // The peer's words, and then what is wrong.
                    let message = format!("failed to compile expression: {bad}");
                    Problem::refusal("spec.commitStatusExpr", INVALID_CEL, message)
                })?,
            }),
        };
        let rule = ProviderRule {
            key: Arc::new(key.clone()),
            uid: metadata.uid.as_str().into(),
            metadata: Arc::new(metadata),
            spec: Arc::new(spec),
            timeout,
            commit_status,
        };
        self.providers.insert(rule.key.clone(), Arc::new(rule));
        Ok(())
    }

    fn alert(
        &mut self,
        key: &ConfigKey,
        metadata: Metadata,
        spec: &mut Value,
        entry: &mut Entry<'a>,
    ) -> Result<(), Problem> {
        let spec: AlertSpec = checked(ConfigKind::Alert, spec, entry)?;
        let before = self.last_good.alert(key);
        let max_age = spec.max_age.as_deref().map(duration::parse).transpose();
        let max_age = max_age.map_err(|error| Problem::refusal("spec.maxAge", validate::INVALID, error.to_string()))?;
        let rule = AlertRule {
            key: Arc::new(key.clone()),
            uid: metadata.uid.as_str().into(),
            metadata: Arc::new(metadata),
            provider: Arc::new(ConfigKey::provider(&key.namespace, &spec.provider_ref.name)),
            inclusion: compiled(&spec.inclusion_list, before.map(|rule| &rule.inclusion)),
            max_age,
            exclusion: compiled(&spec.exclusion_list, before.map(|rule| &rule.exclusion)),
            spec: Arc::new(spec),
        };
        self.alerts.insert(rule.key.clone(), Arc::new(rule));
        Ok(())
    }

    fn commit_status(
        &mut self,
        key: &ConfigKey,
        metadata: Metadata,
        spec: &mut Value,
        entry: &mut Entry<'a>,
    ) -> Result<(), Problem> {
        let spec: CommitStatusSpec = checked(ConfigKind::CommitStatus, spec, entry)?;
        let rule = CommitStatusRule::compile(key, metadata, spec)?;
        self.commit_statuses.insert(rule.key.clone(), Arc::new(rule));
        Ok(())
    }

    fn receiver(
        &mut self,
        key: &ConfigKey,
        metadata: Metadata,
        spec: &mut Value,
        entry: &mut Entry<'a>,
    ) -> Result<(), Problem> {
        let spec = checked::<ReceiverSpec>(ConfigKind::Receiver, spec, entry);
        // Compiling is the dear part, and most changes are other objects'.
        let same = |known: &&Arc<ReceiverRule>| {
            known.flaw.is_none() && *known.metadata == metadata && spec.as_ref().is_ok_and(|spec| *spec == *known.spec)
        };
        let rule = match self.last_good.receiver(key).filter(same) {
            Some(known) => known.clone(),
            None => Arc::new(ReceiverRule::compile(key, metadata, spec, self.options)),
        };
        self.receivers.insert(rule.key.clone(), rule.clone());
        match &rule.flaw {
            Some(flaw) => Err(flaw.clone()),
            None => {
                entry.problems.extend(rule.warnings());
                Ok(())
            }
        }
    }

    /// Puts the last good version in force, and says so.
    fn keep_last_good(&mut self, key: &ConfigKey, mut problem: Problem) -> Problem {
        let kept = match key.kind {
            ConfigKind::Provider => self.last_good.provider(key).cloned().map(|rule| {
                self.providers.insert(rule.key.clone(), rule);
            }),
            ConfigKind::CommitStatus => self.last_good.commit_status(key).cloned().map(|rule| {
                self.commit_statuses.insert(rule.key.clone(), rule);
            }),
            ConfigKind::Alert => self.last_good.alert(key).cloned().map(|rule| {
                self.alerts.insert(rule.key.clone(), rule);
            }),
            ConfigKind::Receiver | ConfigKind::Cluster => None,
        };
        if kept.is_some() {
            problem.message.push_str(" (the version before stays in force)");
        }
        problem
    }

    /// Refuses the Alerts whose Providers post commit statuses. What such an Alert was before doesn't stay in force.
    fn refuse_alert_commit_statuses(&mut self) {
        let Self { alerts, providers, first, entries, .. } = self;
        alerts.retain(|key, rule| {
            let Some(spec) = providers.get(&rule.provider).map(|provider| &provider.spec) else { return true };
            if !COMMIT_STATUS_TYPES.contains(&spec.type_.as_str()) {
                return true;
            }
            let message = format!(
                "the Provider '{}' is of the type '{}', and the feature gate AlertCommitStatus is off: use a \
                 CommitStatus instead",
                rule.provider.name, spec.type_
            );
            if let Some(entry) = first.get(key.as_ref()).and_then(|entry| entries.get_mut(*entry)) {
                entry.problems.push(Problem::refusal("spec.providerRef.name", "CommitStatusNeeded", message));
            }
            false
        });
    }

    fn finish(mut self) -> (Snapshot, Vec<Finding>) {
        if self.options.no_alert_commit_status {
            self.refuse_alert_commit_statuses();
        }
        // What a route is warned of takes all Providers.
        let alerts = self.alerts.iter().map(|(key, rule)| (key, self.alert_warnings(rule)));
        let statuses = self.commit_statuses.iter().map(|(key, rule)| (key, self.commit_status_warnings(rule)));
        for (key, problems) in alerts.chain(statuses).collect::<Vec<_>>() {
            if let Some(entry) = self.first.get(key.as_ref()).and_then(|entry| self.entries.get_mut(*entry)) {
                entry.problems.extend(problems);
            }
        }
        for (key, rule) in &self.providers {
            if !belfry_api::PROVIDER_TYPES.contains(&rule.spec.type_.as_str())
                && let Some(entry) = self.first.get(key.as_ref()).and_then(|entry| self.entries.get_mut(*entry))
            {
                let message =
                    format!("there is no provider type '{}': deliveries wait until it is corrected", rule.spec.type_);
                entry.problems.push(Problem::warning("spec.type", "UnknownProviderType", message));
            }
        }
        let findings = self.entries.into_iter().flat_map(Entry::findings).collect();
        let rules = Rules {
            providers: self.providers,
            alerts: self.alerts,
            commit_statuses: self.commit_statuses,
            receivers: self.receivers,
        };
        (Snapshot::new(rules, self.options), findings)
    }

    /// What doesn't work of an Alert as it is in force.
    fn alert_warnings(&self, rule: &AlertRule) -> Vec<Problem> {
        let mut problems = Vec::new();
        let provider = &rule.provider;
        if !self.providers.contains_key(provider) {
            let message = format!(
                "there is no Provider '{}' in the namespace '{}': deliveries wait until there is",
                provider.name, provider.namespace
            );
            problems.push(Problem::warning("spec.providerRef.name", "ProviderNotFound", message));
        }
        for (list, which, regexes) in
            [("inclusionList", "inclusion", &rule.inclusion), ("exclusionList", "exclusion", &rule.exclusion)]
        {
            for bad in regexes.bad() {
                // The peer's text, and then the reason.
                let message = format!("failed to compile {which} regex: {bad}");
                problems.push(Problem::warning(&format!("spec.{list}[{}]", bad.index), "InvalidConfig", message));
            }
        }
        problems.extend(self.source_warnings(&rule.key, &rule.spec.event_sources));
        problems
    }

    /// What doesn't work of a CommitStatus as it is in force.
    fn commit_status_warnings(&self, rule: &CommitStatusRule) -> Vec<Problem> {
        let mut problems = rule.provider_problems(&self.providers);
        let others = self.commit_statuses.values().filter(|other| other.key != rule.key && !other.spec.suspend);
        if let Some(other) = others.filter(|_| !rule.spec.suspend).find(|other| rule.collides(other, &self.providers)) {
            let message = format!(
                "{} writes the same contexts to the same repository, and each overwrites what the other says: give them \
                 different prefixes",
                other.key
            );
            problems.push(Problem::warning("spec.prefix", "ContextConflict", message));
        }
        problems.extend(self.source_warnings(&rule.key, &rule.spec.event_sources));
        problems
    }

    /// Sources that never select anything.
    fn source_warnings(&self, key: &ConfigKey, sources: &[CrossNamespaceObjectReference]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let own = &*key.namespace;
        for (index, source) in sources.iter().enumerate() {
            let namespace = source.namespace.as_deref().unwrap_or(own);
            let field = |name: &str| format!("spec.eventSources[{index}].{name}");
            if namespace == "*" && !sources::may_select_all_namespaces(own, self.options) {
                let message = if self.options.no_cross_namespace_refs {
                    "'*' matches nothing, because references to other namespaces are blocked".to_owned()
                } else {
                    "'*' matches nothing: only objects in the namespace that Belfry runs in can select all namespaces"
                        .to_owned()
                };
                problems.push(Problem::warning(&field("namespace"), "AccessDenied", message));
            } else if self.options.no_cross_namespace_refs && namespace != own {
                let message = format!("'{namespace}' is another namespace, and references to those are blocked");
                problems.push(Problem::warning(&field("namespace"), "AccessDenied", message));
            }
            if let Some((key, why)) = source.match_labels.as_ref().and_then(labels::invalid) {
                let message = format!(
                    "error using matchLabels from event source {}/{namespace}/{}: '{key}' {why}",
                    source.kind, source.name
                );
                problems.push(Problem::warning(&field("matchLabels"), "InvalidConfig", message));
            }
        }
        problems
    }
}

impl Entry<'_> {
    fn findings(self) -> Vec<Finding> {
        let finding = |problem| Finding { object: self.object.clone(), origin: self.origin.to_owned(), problem };
        match self.problems.is_empty() {
            true => vec![finding(None)],
            false => self.problems.iter().cloned().map(Some).map(finding).collect(),
        }
    }
}

fn known_version(kind: ConfigKind, version: &str) -> Result<(), Problem> {
    let (known, wanted): (&[&str], _) = match kind {
        ConfigKind::Receiver => (&belfry_api::RECEIVER_VERSIONS, belfry_api::RECEIVER_VERSIONS[0]),
        ConfigKind::CommitStatus => (&belfry_api::COMMIT_STATUS_VERSIONS, belfry_api::COMMIT_STATUS_VERSIONS[0]),
        _ => (&belfry_api::VERSIONS, belfry_api::STORAGE_VERSION),
    };
    if known.contains(&version) {
        return Ok(());
    }
    let message = format!("there is no version '{version}', use {}/{wanted}", belfry_api::GROUP);
    Err(Problem::refusal("apiVersion", "UnknownVersion", message))
}

/// Checks a spec and parses it. All that is wrong goes into the entry, but for the last refusal, which is the error.
fn checked<S: DeserializeOwned>(kind: ConfigKind, spec: &mut Value, entry: &mut Entry<'_>) -> Result<S, Problem> {
    let mut problems = validate::spec(kind, spec);
    // Configuration written for a newer version waits here instead of being refused.
    if kind == ConfigKind::Provider {
        problems.retain(|problem| problem.field != "spec.type" || !spec.get("type").is_some_and(is_given));
    }
    let refusal = problems.iter().rposition(|problem| problem.refused).map(|last| problems.remove(last));
    entry.problems.extend(problems);
    match refusal {
        Some(problem) => Err(problem),
        None => read("spec", std::mem::take(spec)),
    }
}

fn is_given(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.is_empty())
}

/// Parses a part of a manifest; an error names the field.
fn read<T: DeserializeOwned>(part: &str, mut value: Value) -> Result<T, Problem> {
    drop_nulls(&mut value);
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = match error.path().to_string() {
            path if path == "." => part.to_owned(),
            path if path.starts_with('[') => format!("{part}{path}"),
            path => format!("{part}.{path}"),
        };
        Problem::refusal(&field, validate::INVALID, error.into_inner().to_string())
    })
}

/// A null stands for an absent field.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Compiles a list of patterns, unless it is the one of before.
fn compiled(patterns: &[String], before: Option<&Arc<Regexes>>) -> Arc<Regexes> {
    match before.filter(|before| before.patterns() == patterns) {
        Some(before) => before.clone(),
        None => Arc::new(regexes::compile(patterns)),
    }
}
