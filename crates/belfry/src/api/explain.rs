//! Why something was told of an object, or wasn't: which Alerts and CommitStatuses select it, what they made of its last
//! events, and what became of the deliveries. By the configuration in force now.

use axum::{Extension, Json, extract::State};
use belfry_api::Event;
use belfry_core::{
    ConfigKey, ObjectKey,
    config::{AlertRule, Finding, Snapshot, explain},
    event,
};
use belfry_store::{DeliveryQuery, EventQuery, EventRow, ObjectFilter, ObjectQuery, ObjectRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Caller, Problem, Shared,
    deliveries::Delivery,
    objects::Object,
    parameters::{self, Parameters, object_filter},
};

/// Events, and deliveries, that are shown.
const SHOWN: u32 = 10;
/// Alerts, and CommitStatuses, that are looked at.
const ROUTES: usize = 200;
/// Characters of a message.
const MESSAGE: usize = 512;

/// Query parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainParameters {
    /// `Kind/namespace/name`.
    #[serde(deserialize_with = "parameters::filled")]
    #[schemars(required, with = "String")]
    object: Option<String>,
    /// Its cluster; by default the one that Belfry runs in.
    #[serde(default)]
    cluster: Option<String>,
}

/// What is known of an object and of what is told about it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explanation {
    object: Object,
    /// The Alerts that select it, then those that come close.
    alerts: Vec<Route>,
    /// The CommitStatuses that select it, then those that come close.
    commit_statuses: Vec<Route>,
    /// Its last events, newest first.
    events: Vec<Told>,
    /// The last deliveries about it, newest first.
    deliveries: Vec<Delivery>,
}

/// An Alert or a CommitStatus, and what it has to do with an object.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Route {
    /// `namespace/name`.
    name: String,
    /// Its Provider: `namespace/name`.
    provider: String,
    /// The type of the Provider; absent when there is no such Provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_type: Option<String>,
    /// Whether it selects the object.
    selects: bool,
    /// If not, why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_not: Vec<String>,
    /// What is wrong with it and with its Provider.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

/// An event, and what the Alerts that select its object make of it.
#[derive(Serialize, JsonSchema)]
struct Told {
    id: i64,
    time: String,
    severity: String,
    reason: String,
    /// The beginning of its message.
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    repeats: u64,
    alerts: Vec<Choice>,
}

/// What an Alert makes of an event.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Choice {
    /// `namespace/name`.
    name: String,
    /// Whether it tells of it.
    tells: bool,
    /// If not, why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    why_not: Vec<String>,
}

pub(super) async fn explain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<ExplainParameters>,
) -> Result<Json<Explanation>, Problem> {
    let text = given.object.unwrap_or_default();
    let filter = object_filter(&text)?;
    if filter.kind.is_none() || filter.namespace.is_none() || filter.name.is_none() {
        return Err(Problem::parameter(
            "object",
            format!("{text:?} must be one object: KIND/NAMESPACE/NAME without *"),
        ));
    }
    let filter = ObjectFilter { cluster: Some(given.cluster.unwrap_or_else(|| shared.cluster.clone())), ..filter };
    let (key, object) = find(&shared, &filter).await?;
    if !caller.may_read(&key).await? {
        return Err(Problem::missing("object", key));
    }
    let snapshot = shared.configuration.snapshot();
    let alerts = readable(&shared, &caller, alerts(&shared, &snapshot, &key)).await?;
    let commit_statuses = readable(&shared, &caller, commit_statuses(&shared, &snapshot, &key)).await?;
    let selecting: Vec<&AlertRule> = alerts
        .iter()
        .filter(|(_, route)| route.selects)
        .filter_map(|(alert, _)| snapshot.alert(alert))
        .map(|alert| &**alert)
        .collect();
    let filter = ObjectFilter { group: Some(key.group.clone()), ..filter };
    let events = EventQuery { object: filter.clone(), limit: SHOWN, ..EventQuery::default() };
    let deliveries = DeliveryQuery { object: filter, limit: SHOWN, ..DeliveryQuery::default() };
    let events = shared.store.events(events).await?.items;
    Ok(Json(Explanation {
        object,
        commit_statuses: commit_statuses.into_iter().map(|(_, route)| route).collect(),
        events: events.iter().map(|row| told(row, &selecting, &snapshot)).collect(),
        deliveries: shared.store.deliveries(deliveries).await?.items.into_iter().map(Delivery::from).collect(),
        alerts: alerts.into_iter().map(|(_, route)| route).collect(),
    }))
}

/// The object, whose group nobody names; known or not, for what was never heard of has its reasons too.
async fn find(shared: &Shared, filter: &ObjectFilter) -> Result<(ObjectKey, Object), Problem> {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (kind, namespace, name) = (part(&filter.kind), part(&filter.namespace), part(&filter.name));
    let is_local = filter.cluster.as_ref() == Some(&shared.cluster);
    let query = ObjectQuery { object: filter.clone(), limit: 1, ..ObjectQuery::default() };
    let row: Option<ObjectRow> = shared.store.objects(query).await?.pop();
    Ok(shared.configuration.with_index(|index| {
        let indexed = index.get(&kind, &namespace, &name).filter(|_| is_local);
        let group = indexed.map(|object| &object.group).or(row.as_ref().map(|row| &row.key.group));
        let group = group.cloned().unwrap_or_default();
        let key = ObjectKey { cluster: part(&filter.cluster), group, kind, namespace, name };
        let object = Object::new(&key, indexed, row.as_ref().map(|row| &row.state));
        (key, object)
    }))
}

/// What the caller may know of routes, those first that select the object.
async fn readable(
    shared: &Shared,
    caller: &Caller,
    routes: Vec<(ConfigKey, Route)>,
) -> Result<Vec<(ConfigKey, Route)>, Problem> {
    let keyed = routes.into_iter().map(|(key, route)| (shared.config_object(&key), (key, route))).collect();
    let mut routes: Vec<_> =
        caller.readable(keyed, |(key, _)| key).await?.into_iter().map(|(_, route)| route).collect();
    routes.sort_by(|(a, one), (b, other)| (!one.selects, a).cmp(&(!other.selects, b)));
    routes.truncate(ROUTES);
    Ok(routes)
}

fn alerts(shared: &Shared, snapshot: &Snapshot, object: &ObjectKey) -> Vec<(ConfigKey, Route)> {
    let findings = shared.configuration.findings();
    let near =
        snapshot.alerts().filter(|alert| explain::is_near(&alert.key.namespace, &alert.spec.event_sources, object));
    shared.configuration.with_index(|index| {
        near.map(|alert| {
            let provider = snapshot.provider(&alert.provider).map(|provider| &**provider);
            let why_not = explain::alert(alert, provider, object, index, shared.configuration.options());
            let route = Route::new(&alert.key, &alert.provider, snapshot, &why_not, &findings);
            ((*alert.key).clone(), route)
        })
        .collect()
    })
}

fn commit_statuses(shared: &Shared, snapshot: &Snapshot, object: &ObjectKey) -> Vec<(ConfigKey, Route)> {
    let findings = shared.configuration.findings();
    let near = snapshot
        .commit_statuses()
        .filter(|status| explain::is_near(&status.key.namespace, &status.spec.event_sources, object));
    shared.configuration.with_index(|index| {
        near.map(|status| {
            let provider = snapshot.provider(&status.provider).map(|provider| &**provider);
            let why_not = explain::commit_status(status, provider, object, index, shared.configuration.options());
            let route = Route::new(&status.key, &status.provider, snapshot, &why_not, &findings);
            ((*status.key).clone(), route)
        })
        .collect()
    })
}

fn short(key: &ConfigKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

fn words(why_not: &[explain::WhyNot]) -> Vec<String> {
    why_not.iter().map(ToString::to_string).collect()
}

impl Route {
    fn new(
        key: &ConfigKey,
        provider: &ConfigKey,
        snapshot: &Snapshot,
        why_not: &[explain::WhyNot],
        findings: &[Finding],
    ) -> Self {
        let wrong = findings.iter().filter_map(|finding| {
            let object = finding.object.as_ref().filter(|object| *object == key || *object == provider)?;
            Some(format!("{object}: {}", finding.problem.as_ref()?))
        });
        Self {
            name: short(key),
            provider: short(provider),
            provider_type: snapshot.provider(provider).map(|rule| rule.spec.type_.clone()),
            selects: why_not.is_empty(),
            why_not: words(why_not),
            findings: wrong.collect(),
        }
    }
}

fn told(row: &EventRow, alerts: &[&AlertRule], snapshot: &Snapshot) -> Told {
    let event = event::read(&row.body).unwrap_or_default();
    Told {
        id: row.seq.0,
        time: row.seq.time().to_string(),
        severity: row.severity.clone(),
        reason: row.reason.clone(),
        message: event.message.chars().take(MESSAGE).collect(),
        revision: row.revision.clone(),
        repeats: row.repeats,
        alerts: alerts.iter().map(|alert| choice(alert, row, &event, snapshot)).collect(),
    }
}

fn choice(alert: &AlertRule, row: &EventRow, event: &Event, snapshot: &Snapshot) -> Choice {
    let provider = snapshot.provider(&alert.provider).map(|provider| &**provider);
    let mut why_not = explain::event(alert, event);
    why_not.extend(explain::update(provider, event, row.origin, row.change));
    Choice { name: short(&alert.key), tells: why_not.is_empty(), why_not: words(&why_not) }
}
