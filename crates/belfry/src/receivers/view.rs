//! Receivers as the API shows them.

use std::collections::BTreeMap;

use belfry_core::{ConfigKey, ConfigKind};
use belfry_store::{DeliveryKind, DeliveryQuery, DeliveryRow, DeliveryState, HookRow, StoreError};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Receivers,
    doors::{Door, DoorState},
    ledger::Refusal,
};

/// Webhooks of a Receiver that are shown.
const SHOWN: usize = 10;

/// A Receiver as the API shows it. Times are RFC 3339.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Receiver")]
pub struct View {
    namespace: String,
    name: String,
    r#type: String,
    ready: bool,
    suspended: bool,
    /// One word.
    reason: String,
    message: String,
    /// Where webhooks go. For some types it is the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// What `spec.resources` names.
    resources: Vec<String>,
    /// The last webhooks, newest first.
    deliveries: Vec<Delivery>,
    /// Requests for reconciliation that could not be made, newest first, and those that wait.
    triggers: Vec<Trigger>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Webhook")]
struct Delivery {
    time: String,
    verdict: String,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// How many of the same there were, one after the other.
    count: u64,
    /// Objects that it asked to reconcile.
    resources: u32,
    /// How many of them had a request waiting already.
    merged: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Trigger {
    /// Of its delivery.
    id: i64,
    time: String,
    state: &'static str,
    /// `Kind/namespace/name`.
    object: String,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl View {
    /// Which Receiver it is.
    pub fn key(&self) -> ConfigKey {
        ConfigKey::receiver(&self.namespace, &self.name)
    }
}

impl From<HookRow> for Delivery {
    fn from(row: HookRow) -> Self {
        Self {
            time: row.at.to_string(),
            verdict: row.verdict.as_str().to_owned(),
            reason: row.reason,
            event: row.event,
            id: row.delivery_id,
            count: 1,
            resources: row.resources,
            merged: row.merged,
        }
    }
}

impl From<Refusal> for Delivery {
    fn from(refusal: Refusal) -> Self {
        Self {
            time: refusal.at.to_string(),
            verdict: "refused".to_owned(),
            reason: refusal.why,
            event: String::new(),
            id: None,
            count: refusal.count,
            resources: 0,
            merged: 0,
        }
    }
}

impl From<DeliveryRow> for Trigger {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            time: row.created.to_string(),
            state: row.state.as_str(),
            object: row.object.to_string(),
            attempts: row.attempts,
            detail: row.answer,
        }
    }
}

impl Receivers {
    /// All Receivers, in the order of their names.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn view(&self) -> Result<Vec<View>, StoreError> {
        let doors = self.doors.load_full();
        let mut triggers = self.triggers().await?;
        let mut views = Vec::with_capacity(doors.all.len());
        for (key, door) in &doors.all {
            let hooks = self.store.hooks(Some(key), SHOWN as u32).await?;
            views.push(view(door, hooks, triggers.remove(&**key).unwrap_or_default()));
        }
        Ok(views)
    }

    /// What waits and what was given up, by Receiver.
    async fn triggers(&self) -> Result<BTreeMap<ConfigKey, Vec<Trigger>>, StoreError> {
        let query = DeliveryQuery {
            states: vec![DeliveryState::Pending, DeliveryState::Dead],
            kind: Some(DeliveryKind::Trigger),
            ..DeliveryQuery::default()
        };
        let mut found: BTreeMap<ConfigKey, Vec<Trigger>> = BTreeMap::new();
        for row in self.store.deliveries(query).await?.items {
            if row.route.kind == ConfigKind::Receiver {
                found.entry((*row.route).clone()).or_default().push(row.into());
            }
        }
        Ok(found)
    }
}

fn view(door: &Door, hooks: Vec<HookRow>, triggers: Vec<Trigger>) -> View {
    let spec = &door.rule.spec;
    let mut deliveries: Vec<Delivery> = hooks.into_iter().map(Delivery::from).collect();
    deliveries.extend(door.entry.refusals().into_iter().map(Delivery::from));
    deliveries.sort_by(|a, b| b.time.cmp(&a.time));
    deliveries.truncate(SHOWN);
    let (reason, message) = door.state.words();
    let resources = spec.resources.iter().map(|entry| {
        let namespace = entry.namespace.as_deref().unwrap_or(&door.rule.key.namespace);
        format!("{}/{namespace}/{}", entry.kind, entry.name)
    });
    let path = match &door.state {
        DoorState::Open(path) | DoorState::Suspended(Some(path)) => Some(path.as_str().to_owned()),
        _ => None,
    };
    View {
        namespace: door.rule.key.namespace.to_string(),
        name: door.rule.key.name.to_string(),
        r#type: spec.type_.clone(),
        ready: door.state.is_open(),
        suspended: spec.suspend,
        reason: reason.to_owned(),
        message,
        path,
        resources: resources.collect(),
        deliveries,
        triggers,
    }
}
