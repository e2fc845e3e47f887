//! The compiled, immutable configuration that is in force.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use belfry_api::{Aggregate, AlertSpec, COMMIT_STATUS_TYPES, Event, EventSeverity, Metadata, ProviderSpec};
use serde_json::{Value, json};

use super::{
    CommitStatusRule, ReceiverRule,
    sources::{Named, Sources},
};
use crate::{
    ConfigKey, ConfigKind, ObjectKey, announcement::Announcement, cel, go_json::Wire, index::ObjectIndex,
    plan::RouteRef, regexes::Regexes,
};

/// How long a commit status that may still change is held back, so that a burst of changes costs one request.
const SETTLE: Duration = Duration::from_secs(2);

/// Every Provider and Alert that is in force, indexed for matching. The default is empty.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    providers: HashMap<Arc<ConfigKey>, Arc<ProviderRule>>,
    alerts: HashMap<Arc<ConfigKey>, u32>,
    /// In the order of their keys, which is the order of an event's routes.
    routes: Vec<Route>,
    sources: Sources,
    commit_statuses: BTreeMap<Arc<ConfigKey>, Arc<CommitStatusRule>>,
    status_routes: Vec<RouteRef>,
    status_sources: Sources,
    receivers: BTreeMap<Arc<ConfigKey>, Arc<ReceiverRule>>,
    no_cross_namespace_refs: bool,
}

/// A Provider in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderRule {
    /// Its key.
    pub key: Arc<ConfigKey>,
    /// Its UID; empty outside a cluster.
    pub uid: Arc<str>,
    /// Its metadata, without kubectl's copy of the manifest.
    pub metadata: Arc<Metadata>,
    /// Its spec as written.
    pub spec: Arc<ProviderSpec>,
    /// Time for one attempt.
    pub timeout: Duration,
    /// `spec.commitStatusExpr`, unless it is empty.
    pub commit_status: Option<cel::Program>,
}

impl ProviderRule {
    /// It as a manifest, for expressions.
    pub fn manifest(&self) -> Value {
        manifest(&self.key, &self.metadata, json!(self.spec))
    }

    /// What `spec.commitStatusExpr` gives for an event whose metadata are combined already; `None` without one, and for
    /// an event that tells no commit anything: the peer drops those before it evaluates.
    ///
    /// # Errors
    /// When the expression fails on the event, or gives nothing that can be an id.
    pub fn commit_status_id(&self, event: &Event, alert: &AlertRule) -> Result<Option<String>, cel::NoCommitStatusId> {
        let said = |key: &str| event.metadata.get(key).map(String::as_str).unwrap_or_default();
        let is_told = !said("commit").is_empty() || said("commit_status") == "update" || event.severity == "error";
        let Some(program) = self.commit_status.as_ref().filter(|_| is_told) else { return Ok(None) };
        let alert = manifest(&alert.key, &alert.metadata, json!(alert.spec));
        cel::commit_status_id(program, &json!(Wire(event)), &alert, &self.manifest()).map(Some)
    }
}

/// An Alert in force.
#[derive(Clone, Debug)]
pub struct AlertRule {
    /// Its key.
    pub key: Arc<ConfigKey>,
    /// Its UID; empty outside a cluster.
    pub uid: Arc<str>,
    /// Its metadata, without kubectl's copy of the manifest.
    pub metadata: Arc<Metadata>,
    /// Its spec as written.
    pub spec: Arc<AlertSpec>,
    /// The Provider it names, whether it exists or not.
    pub provider: Arc<ConfigKey>,
    /// `spec.maxAge`.
    pub max_age: Option<Duration>,
    /// `spec.inclusionList`.
    pub inclusion: Arc<Regexes>,
    /// `spec.exclusionList`.
    pub exclusion: Arc<Regexes>,
}

impl AlertRule {
    /// Whether the lists of regular expressions let a message pass.
    pub fn takes(&self, message: &str) -> bool {
        (self.inclusion.is_empty() || self.inclusion.is_match(message)) && !self.exclusion.is_match(message)
    }
}

/// What an event meets in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// The Alerts that select it, in the order of their keys. Their Providers need not exist.
    pub routes: Vec<RouteRef>,
    /// What is to be said of Alerts that would have selected it.
    pub notes: Vec<Announcement>,
}

/// An Alert, ready to be handed out.
#[derive(Clone, Debug)]
struct Route {
    rule: Arc<AlertRule>,
    reference: RouteRef,
    /// Its Provider is suspended.
    suspended: bool,
}

/// What is in force, before it is indexed.
pub(super) struct Rules {
    pub(super) providers: BTreeMap<Arc<ConfigKey>, Arc<ProviderRule>>,
    pub(super) alerts: BTreeMap<Arc<ConfigKey>, Arc<AlertRule>>,
    pub(super) commit_statuses: BTreeMap<Arc<ConfigKey>, Arc<CommitStatusRule>>,
    pub(super) receivers: BTreeMap<Arc<ConfigKey>, Arc<ReceiverRule>>,
}

/// Types that take `commit_status: update` events: those that post commit statuses, and those that pass events on.
pub fn takes_status_updates(provider_type: &str) -> bool {
    belfry_api::COMMIT_STATUS_TYPES.contains(&provider_type)
        || matches!(provider_type, "generic" | "generic-hmac" | "cdevents" | "belfry")
}

impl Snapshot {
    pub(super) fn new(rules: Rules, options: &super::Options) -> Self {
        let Rules { providers, alerts, commit_statuses, receivers } = rules;
        let no_cross_namespace_refs = options.no_cross_namespace_refs;
        let mut snapshot = Self { no_cross_namespace_refs, commit_statuses, receivers, ..Self::default() };
        for (number, (key, rule)) in (0..).zip(alerts) {
            let provider = providers.get(&rule.provider);
            let takes_updates = provider.is_none_or(|p| takes_status_updates(&p.spec.type_));
            let reference = RouteRef::alert(key.clone(), rule.provider.clone(), takes_updates);
            if !rule.spec.suspend {
                let spec = &rule.spec;
                snapshot.sources.add(number, &key.namespace, &spec.event_sources, spec.event_severity, options);
            }
            let suspended = provider.is_some_and(|provider| provider.spec.suspend);
            snapshot.alerts.insert(key, number);
            snapshot.routes.push(Route { rule, reference, suspended });
        }
        for rule in snapshot.commit_statuses.values().filter(|rule| !rule.spec.suspend) {
            let provider = providers.get(&rule.provider);
            // One that isn't of a git host is a finding, and nothing that could wait for better days.
            let posts = |p: &Arc<ProviderRule>| COMMIT_STATUS_TYPES.contains(&p.spec.type_.as_str()) && !p.spec.suspend;
            if provider.is_none_or(posts) {
                let number = snapshot.status_routes.len() as u32;
                let spec = &rule.spec;
                let all = spec.aggregate == Aggregate::All;
                // Of whatever severity: what is told are rollouts.
                let severity = EventSeverity::Info;
                snapshot.status_sources.add(number, &rule.key.namespace, &spec.event_sources, severity, options);
                let route = RouteRef::commit_status(rule.key.clone(), rule.provider.clone(), all, SETTLE);
                snapshot.status_routes.push(route);
            }
        }
        snapshot.providers = providers.into_iter().collect();
        snapshot
    }

    /// The Provider with this key.
    pub fn provider(&self, key: &ConfigKey) -> Option<&Arc<ProviderRule>> {
        self.providers.get(key)
    }

    /// The Alert with this key.
    pub fn alert(&self, key: &ConfigKey) -> Option<&Arc<AlertRule>> {
        self.alerts.get(key).and_then(|number| self.routes.get(*number as usize)).map(|route| &route.rule)
    }

    /// Every Provider, in no order.
    pub fn providers(&self) -> impl ExactSizeIterator<Item = &Arc<ProviderRule>> {
        self.providers.values()
    }

    /// Every Alert, in the order of their keys.
    pub fn alerts(&self) -> impl ExactSizeIterator<Item = &Arc<AlertRule>> {
        self.routes.iter().map(|route| &route.rule)
    }

    /// The CommitStatus with this key.
    pub fn commit_status(&self, key: &ConfigKey) -> Option<&Arc<CommitStatusRule>> {
        self.commit_statuses.get(key)
    }

    /// Every CommitStatus, in the order of their keys.
    pub fn commit_statuses(&self) -> impl ExactSizeIterator<Item = &Arc<CommitStatusRule>> {
        self.commit_statuses.values()
    }

    /// The Receiver with this key, in force or not.
    pub fn receiver(&self, key: &ConfigKey) -> Option<&Arc<ReceiverRule>> {
        self.receivers.get(key)
    }

    /// Every Receiver, in force or not, in the order of their keys.
    pub fn receivers(&self) -> impl ExactSizeIterator<Item = &Arc<ReceiverRule>> {
        self.receivers.values()
    }

    /// Every object as a manifest that compiles to the same again, in the order of their keys: what is kept for a start
    /// without an API server. Secrets are not part of a configuration; they are only named in it.
    pub fn bodies(&self) -> Vec<(ConfigKey, Value)> {
        let body = |key: &ConfigKey, metadata, spec| (key.clone(), manifest(key, metadata, spec));
        let providers = self.providers().map(|rule| body(&rule.key, &rule.metadata, json!(rule.spec)));
        let alerts = self.alerts().map(|rule| body(&rule.key, &rule.metadata, json!(rule.spec)));
        let receivers = self.receivers().map(|rule| body(&rule.key, &rule.metadata, json!(rule.spec)));
        let statuses = self.commit_statuses().map(|rule| body(&rule.key, &rule.metadata, json!(rule.spec)));
        let mut bodies: Vec<_> = providers.chain(alerts).chain(statuses).chain(receivers).collect();
        bodies.sort_by(|a, b| a.0.cmp(&b.0));
        bodies
    }

    /// The Alerts that select an event of a cluster. The cost grows with the Alerts that select it, not with those that don't.
    pub fn routes(&self, event: &Event, cluster: &str, index: &ObjectIndex) -> Matched {
        let object = &event.involved_object;
        let shown = || format!("{}/{}/{}", object.kind, object.namespace, object.name);
        let named = Named { cluster, kind: &object.kind, namespace: &object.namespace, name: &object.name };
        let picked = self.sources.pick(named, event.severity == "error", index);
        let mut matched = Matched::default();
        for route in picked.selected.iter().filter_map(|number| self.routes.get(*number as usize)) {
            if !route.rule.takes(&event.message) {
                continue;
            }
            let alert = &*route.rule.key;
            if self.no_cross_namespace_refs && *alert.namespace != object.namespace {
                let message = format!(
                    "failed to dispatch notification for {0}: discarding event, access denied to cross-namespace \
                     sources: alert '{1}/{2}' can't process event from '{0}', cross-namespace references have been \
                     blocked",
                    shown(),
                    alert.namespace,
                    alert.name,
                );
                matched.notes.push(note(&route.rule, "NotificationDispatchFailed", message));
            } else if !route.suspended {
                matched.routes.push(route.reference.clone());
            }
        }
        for route in picked.unknown.iter().filter_map(|number| self.routes.get(*number as usize)) {
            let message = format!("error getting source object {}", shown());
            matched.notes.push(note(&route.rule, "SourceFetchFailed", message));
        }
        matched.routes.extend(self.select(named, index));
        matched
    }

    /// The CommitStatuses that select an object.
    pub fn status_routes(&self, object: &ObjectKey, index: &ObjectIndex) -> Vec<RouteRef> {
        let ObjectKey { cluster, kind, namespace, name, .. } = object;
        let named = Named { cluster, kind, namespace, name };
        self.select(named, index).collect()
    }

    /// Whether a CommitStatus selects an object.
    pub fn shows(&self, status: &ConfigKey, object: &ObjectKey, index: &ObjectIndex) -> bool {
        self.status_routes(object, index).iter().any(|route| *route.route == *status)
    }

    fn select(&self, object: Named<'_>, index: &ObjectIndex) -> impl Iterator<Item = RouteRef> {
        let picked = self.status_sources.pick(object, false, index).selected;
        let routes = picked.into_iter().filter_map(|number| self.status_routes.get(number as usize));
        let allowed = |route: &&RouteRef| !self.no_cross_namespace_refs || *route.route.namespace == *object.namespace;
        routes.filter(allowed).cloned()
    }
}

fn note(rule: &AlertRule, reason: &'static str, message: String) -> Announcement {
    Announcement {
        object: (*rule.key).clone(),
        uid: rule.uid.clone(),
        warning: true,
        reason,
        message,
        annotations: BTreeMap::new(),
    }
}

/// An object as a manifest.
pub(super) fn manifest(key: &ConfigKey, metadata: &Metadata, spec: Value) -> Value {
    let version = match key.kind {
        ConfigKind::Receiver => belfry_api::RECEIVER_VERSIONS[0],
        ConfigKind::CommitStatus => belfry_api::COMMIT_STATUS_VERSIONS[0],
        _ => belfry_api::STORAGE_VERSION,
    };
    json!({
        "apiVersion": format!("{}/{version}", belfry_api::GROUP),
        "kind": key.kind.as_str(),
        "metadata": metadata,
        "spec": spec,
    })
}
