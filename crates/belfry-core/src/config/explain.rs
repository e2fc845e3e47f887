//! Why an Alert or a CommitStatus selects an object or an event, or doesn't, for the person who asks. It asks one rule
//! after the other, where matching looks things up; property tests hold the two together.

use std::fmt;

use belfry_api::{COMMIT_STATUS_TYPES, CrossNamespaceObjectReference, Event, EventSeverity};

use super::{
    AlertRule, CommitStatusRule, Options, ProviderRule, labels,
    sources::{cluster_of, may_select_all_namespaces},
    takes_status_updates,
};
use crate::{
    ConfigKey, ObjectKey,
    event::updates_commit_status,
    index::ObjectIndex,
    plan::{Change, Origin, is_told},
};

/// One reason why something isn't selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot {
    /// The field or flag that says so, such as `spec.eventSources[1].name`.
    pub field: String,
    /// In words.
    pub message: String,
}

impl WhyNot {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Why an Alert tells of no event of an object; nothing when it tells of some.
pub fn alert(
    rule: &AlertRule,
    provider: Option<&ProviderRule>,
    object: &ObjectKey,
    index: &ObjectIndex,
    options: &Options,
) -> Vec<WhyNot> {
    let mut why = common(&rule.key, &rule.spec.event_sources, rule.spec.suspend, object, index, options);
    why.extend(provider.filter(|provider| provider.spec.suspend).map(suspended));
    why
}

/// Why an Alert doesn't tell of an event, provided that it tells of its object at all.
pub fn event(rule: &AlertRule, event: &Event) -> Vec<WhyNot> {
    let mut why = Vec::new();
    if rule.spec.event_severity == EventSeverity::Error && event.severity != "error" {
        why.push(WhyNot::new("spec.eventSeverity", "only errors are told of"));
    }
    if !rule.inclusion.is_empty() && !rule.inclusion.is_match(&event.message) {
        why.push(WhyNot::new("spec.inclusionList", "no expression matches the message"));
    }
    if let Some(pattern) = rule.exclusion.first_match(&event.message) {
        why.push(WhyNot::new("spec.exclusionList", format!("'{pattern}' matches the message")));
    }
    why
}

/// Why an Alert that selects an event doesn't tell its Provider: a success that is told of with each reconciliation is for
/// those who keep a state, and for others only when it ends a failure.
pub fn update(
    provider: Option<&ProviderRule>,
    event: &Event,
    origin: Origin,
    change: Option<Change>,
) -> Option<WhyNot> {
    let provider = provider?;
    let kind = &provider.spec.type_;
    let is_told = is_told(updates_commit_status(event, origin), takes_status_updates(kind), change);
    (!is_told).then(|| {
        let message = format!("a success is told to a Provider of the type '{kind}' when it ends a failure");
        WhyNot::new("metadata.commit_status", message)
    })
}

/// Why a CommitStatus shows nothing of an object; nothing when it shows its rollouts.
pub fn commit_status(
    rule: &CommitStatusRule,
    provider: Option<&ProviderRule>,
    object: &ObjectKey,
    index: &ObjectIndex,
    options: &Options,
) -> Vec<WhyNot> {
    let mut why = common(&rule.key, &rule.spec.event_sources, rule.spec.suspend, object, index, options);
    if let Some(provider) = provider {
        if !COMMIT_STATUS_TYPES.contains(&provider.spec.type_.as_str()) {
            let message =
                format!("{} is of the type '{}', which has no commit statuses", provider.key, provider.spec.type_);
            why.push(WhyNot::new("spec.providerRef", message));
        }
        why.extend(provider.spec.suspend.then(|| suspended(provider)));
    }
    why
}

/// Whether sources come close to an object: one of them names its kind, and its namespace or its name.
pub fn is_near(own: &str, sources: &[CrossNamespaceObjectReference], object: &ObjectKey) -> bool {
    sources.iter().filter(|source| source.kind == object.kind).any(|source| {
        let namespace = source.namespace.as_deref().unwrap_or(own);
        namespace == "*" || namespace == object.namespace || source.name == object.name
    })
}

fn suspended(provider: &ProviderRule) -> WhyNot {
    WhyNot::new("spec.providerRef", format!("{} is suspended", provider.key))
}

fn common(
    key: &ConfigKey,
    sources: &[CrossNamespaceObjectReference],
    suspend: bool,
    object: &ObjectKey,
    index: &ObjectIndex,
    options: &Options,
) -> Vec<WhyNot> {
    let mut why = Vec::new();
    if suspend {
        why.push(WhyNot::new("spec.suspend", "it is suspended"));
    }
    if options.no_cross_namespace_refs && *key.namespace != object.namespace {
        let message = format!("'{}' is another namespace than its own", object.namespace);
        why.push(WhyNot::new("--no-cross-namespace-refs", message));
    }
    let misses: Vec<_> = (0..)
        .zip(sources)
        .filter(|(_, source)| source.kind == object.kind)
        .map(|(number, source)| miss(number, &key.namespace, source, object, index, options))
        .collect();
    if misses.is_empty() {
        why.push(WhyNot::new("spec.eventSources", format!("no entry is of the kind {}", object.kind)));
    } else if misses.iter().all(Option::is_some) {
        why.extend(misses.into_iter().flatten());
    }
    why
}

/// Why one entry of `eventSources`, of the right kind, doesn't select the object.
fn miss(
    number: usize,
    own: &str,
    source: &CrossNamespaceObjectReference,
    object: &ObjectKey,
    index: &ObjectIndex,
    options: &Options,
) -> Option<WhyNot> {
    let why = |field: &str, message: String| Some(WhyNot::new(format!("spec.eventSources[{number}].{field}"), message));
    if cluster_of(source, options).is_some_and(|cluster| cluster != object.cluster) {
        return why("cluster", format!("selects '{}'", source.cluster.as_deref().unwrap_or_default()));
    }
    let namespace = source.namespace.as_deref().unwrap_or(own);
    match namespace {
        "*" if !may_select_all_namespaces(own, options) => {
            return why("namespace", "'*' counts only for what lies in the namespace that Belfry runs in".into());
        }
        "*" => {}
        _ if namespace != object.namespace => return why("namespace", format!("selects '{namespace}'")),
        _ => {}
    }
    if source.name != "*" && source.name != object.name {
        return why("name", format!("selects '{}'", source.name));
    }
    let wanted = source.match_labels.as_ref()?;
    if let Some((label, what)) = labels::invalid(wanted) {
        return why("matchLabels", format!("'{label}' {what}"));
    }
    let Some(found) = index.get(&object.kind, &object.namespace, &object.name) else {
        return why("matchLabels", "the object's labels are not known".into());
    };
    let (label, value) = wanted.iter().find(|(label, value)| found.labels.get(*label) != Some(value))?;
    let has = match found.labels.get(label) {
        Some(other) => format!("the object has {label}={other}"),
        None => format!("the object has no label {label}"),
    };
    why("matchLabels", format!("asks for {label}={value}; {has}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::{Document, Snapshot, compile},
        index::IndexedObject,
    };

    fn document(kind: &str, namespace: &str, spec: Value) -> Document {
        let version = if kind == "CommitStatus" { belfry_api::COMMIT_STATUS_VERSIONS[0] } else { "v1beta3" };
        let value = json!({
            "apiVersion": format!("notification.toolkit.fluxcd.io/{version}"), "kind": kind,
            "metadata": {"name": "it", "namespace": namespace}, "spec": spec,
        });
        Document { origin: String::new(), value }
    }

    fn object() -> ObjectKey {
        ObjectKey { kind: "Kustomization".into(), namespace: "apps".into(), name: "web".into(), ..ObjectKey::default() }
    }

    fn index() -> ObjectIndex {
        let mut index = ObjectIndex::default();
        index.apply(IndexedObject {
            kind: "Kustomization".into(),
            namespace: "apps".into(),
            name: "web".into(),
            labels: [("team".to_owned(), "shop".to_owned())].into(),
            ..IndexedObject::default()
        });
        index
    }

    fn options() -> Options {
        Options { runtime_namespace: "flux-system".into(), ..Options::default() }
    }

    fn words(why: Vec<WhyNot>) -> Vec<String> {
        why.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_alert_says_which_of_its_fields_leaves_the_object_out() {
        let told = |namespace: &str, sources: Value, options: &Options| {
            let spec = json!({"providerRef": {"name": "it"}, "eventSources": sources});
            let (snapshot, _) = compile(&[document("Alert", namespace, spec)], &Snapshot::default(), options);
            let rule = snapshot.alerts().next().unwrap().clone();
            words(alert(&rule, None, &object(), &index(), options))
        };
        for (namespace, sources, expected) in [
            ("apps", json!([{"kind": "Kustomization", "name": "*"}]), vec![]),
            (
                "apps",
                json!([{"kind": "HelmRelease", "name": "web"}]),
                vec!["spec.eventSources: no entry is of the kind Kustomization"],
            ),
            (
                "apps",
                json!([{"kind": "Kustomization", "name": "db"}, {"kind": "Kustomization", "name": "web"}]),
                vec![],
            ),
            (
                "team",
                json!([{"kind": "Kustomization", "name": "web"}, {"kind": "Kustomization", "name": "db", "namespace": "apps"}]),
                vec!["spec.eventSources[0].namespace: selects 'team'", "spec.eventSources[1].name: selects 'db'"],
            ),
            (
                "team",
                json!([{"kind": "Kustomization", "name": "web", "namespace": "*"}]),
                vec![
                    "spec.eventSources[0].namespace: '*' counts only for what lies in the namespace that Belfry runs in",
                ],
            ),
            ("flux-system", json!([{"kind": "Kustomization", "name": "web", "namespace": "*"}]), vec![]),
            (
                "apps",
                json!([{"kind": "Kustomization", "name": "*", "matchLabels": {"team": "db"}}]),
                vec!["spec.eventSources[0].matchLabels: asks for team=db; the object has team=shop"],
            ),
            (
                "apps",
                json!([{"kind": "Kustomization", "name": "*", "matchLabels": {"tier": "1"}}]),
                vec!["spec.eventSources[0].matchLabels: asks for tier=1; the object has no label tier"],
            ),
            (
                "apps",
                json!([{"kind": "Kustomization", "name": "*", "matchLabels": {"-": "1"}}]),
                vec!["spec.eventSources[0].matchLabels: '-' is not a label's key"],
            ),
        ] {
            assert_eq!(told(namespace, sources.clone(), &options()), expected, "{namespace} {sources}");
        }
        let sources = json!([{"kind": "Kustomization", "name": "web", "cluster": "eu"}]);
        assert_eq!(told("apps", sources, &options()), ["spec.eventSources[0].cluster: selects 'eu'"]);
        for cluster in ["local", "*"] {
            let sources = json!([{"kind": "Kustomization", "name": "web", "cluster": cluster}]);
            assert!(told("apps", sources, &options()).is_empty(), "{cluster}");
        }
        let narrow = Options { no_cross_namespace_refs: true, ..options() };
        let sources = json!([{"kind": "Kustomization", "name": "web", "namespace": "apps"}]);
        let expected = ["--no-cross-namespace-refs: 'apps' is another namespace than its own"];
        assert_eq!(told("team", sources, &narrow), expected);
    }

    #[test]
    fn an_alert_says_which_of_its_fields_leaves_the_event_out() {
        let spec = json!({
            "providerRef": {"name": "it"}, "eventSources": [], "eventSeverity": "error",
            "inclusionList": ["failed"], "exclusionList": ["(", "waiting.*"],
        });
        let (snapshot, _) = compile(&[document("Alert", "apps", spec)], &Snapshot::default(), &options());
        let rule = snapshot.alerts().next().unwrap();
        let told = |severity: &str, message: &str| {
            let happened = Event { severity: severity.into(), message: message.into(), ..Event::default() };
            words(event(rule, &happened))
        };
        assert!(told("error", "it failed").is_empty());
        assert_eq!(
            told("info", "it works"),
            ["spec.eventSeverity: only errors are told of", "spec.inclusionList: no expression matches the message",]
        );
        assert_eq!(told("error", "failed: waiting for db"), ["spec.exclusionList: 'waiting.*' matches the message"]);
    }

    #[test]
    fn a_commit_status_needs_a_git_host() {
        let told = |provider: Value, suspend: bool| {
            let sources = json!([{"kind": "Kustomization", "name": "web"}]);
            let spec = json!({
                "providerRef": {"name": "it"}, "eventSources": sources, "prefix": "prod", "suspend": suspend,
            });
            let documents = [document("CommitStatus", "apps", spec), document("Provider", "apps", provider)];
            let (snapshot, findings) = compile(&documents, &Snapshot::default(), &options());
            let rule = snapshot.commit_statuses().next().unwrap_or_else(|| panic!("{findings:?}"));
            let provider = snapshot.provider(&rule.provider).map(|provider| &**provider);
            let why = words(commit_status(rule, provider, &object(), &index(), &options()));
            assert_eq!(why.is_empty(), snapshot.shows(&rule.key, &object(), &index()), "as it is matched");
            why
        };
        let github = json!({"type": "github", "address": "https://github.com/o/r"});
        assert!(told(github.clone(), false).is_empty());
        assert_eq!(told(github, true), ["spec.suspend: it is suspended"]);
        assert_eq!(
            told(json!({"type": "slack", "address": "https://x", "suspend": true}), false),
            [
                "spec.providerRef: Provider/apps/it is of the type 'slack', which has no commit statuses",
                "spec.providerRef: Provider/apps/it is suspended",
            ]
        );
    }

    #[test]
    fn a_success_is_news_for_a_chat_only_after_a_failure() {
        let mut success = Event::default();
        success.metadata.insert("commit_status".into(), "update".into());
        let told = |kind: &str, change: Option<Change>| {
            let provider = document("Provider", "apps", json!({"type": kind, "address": "https://x"}));
            let (snapshot, _) = compile(&[provider], &Snapshot::default(), &options());
            let provider = snapshot.providers().next().map(|provider| &**provider);
            update(provider, &success, Origin::Forwarded, change)
        };
        assert_eq!(told("github", None), None);
        assert_eq!(told("slack", Some(Change::Recovered)), None);
        let why = told("slack", None).unwrap().to_string();
        assert_eq!(
            why,
            "metadata.commit_status: a success is told to a Provider of the type 'slack' when it ends a failure"
        );
        assert_eq!(update(None, &success, Origin::Forwarded, None), None, "of which nothing is known");
    }

    #[test]
    fn near_is_what_somebody_may_have_meant() {
        let near = |namespace: Option<&str>, kind: &str, name: &str| {
            let source = CrossNamespaceObjectReference {
                kind: kind.into(),
                name: name.into(),
                namespace: namespace.map(str::to_owned),
                ..CrossNamespaceObjectReference::default()
            };
            is_near("apps", &[source], &object())
        };
        assert!(near(None, "Kustomization", "db"), "its own namespace");
        assert!(near(Some("*"), "Kustomization", "db"));
        assert!(near(Some("team"), "Kustomization", "web"));
        assert!(!near(Some("team"), "Kustomization", "*"));
        assert!(!near(None, "HelmRelease", "web"));
    }
}
