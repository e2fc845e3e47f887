//! What must hold of all records together, whatever the engine: a server must be able to start on them, and nothing that waits
//! may be stuck.

use std::collections::{HashMap, HashSet};

use belfry_core::{ConfigKey, ConfigKind, ObjectKey};

use super::{
    error::TransferError,
    field::Word,
    record::{Delivery, Lane, Record, Table},
};
use crate::queries::{DeliveryKind, DeliveryState};

/// The year 2100 in microseconds. Numbers of the log go on behind the last one: one from far ahead would stay for ever.
const LAST: i64 = 4_102_444_800_000_000;

/// Goes through records in their order.
#[derive(Default)]
pub(super) struct Check {
    last: Option<(Table, (i64, i64))>,
    configs: HashMap<i64, ConfigKind>,
    objects: HashSet<i64>,
    config_keys: HashSet<ConfigKey>,
    object_keys: HashSet<ObjectKey>,
    /// Lanes that come up.
    due: HashSet<i64>,
    /// What deliveries that wait tell of, with one of them each: rollouts, events, webhooks.
    rollouts: HashMap<i64, i64>,
    events: HashMap<i64, i64>,
    hooks: HashMap<i64, i64>,
}

impl Check {
    /// Takes the next record in; an error says what is wrong with it.
    pub fn take(&mut self, record: &Record) -> Result<(), String> {
        self.order(record)?;
        if let Some(why) = record.refuse() {
            return Err(why);
        }
        match record {
            Record::Config(row) => {
                number("id", row.id)?;
                let key = ConfigKey {
                    kind: row.kind,
                    namespace: row.namespace.as_str().into(),
                    name: row.name.as_str().into(),
                };
                if let Some(body) = &row.body
                    && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(body)
                {
                    return Err(format!("the body is not JSON: {error}"));
                }
                self.configs.insert(row.id, row.kind);
                new(self.config_keys.insert(key), "configuration object")
            }
            Record::Object(row) => {
                number("id", row.id)?;
                let [cluster, group, kind, namespace, name] =
                    [&row.cluster, &row.group, &row.kind, &row.namespace, &row.name].map(String::clone);
                self.objects.insert(row.id);
                new(self.object_keys.insert(ObjectKey { cluster, group, kind, namespace, name }), "object")
            }
            Record::Lane(row) => self.lane(row),
            Record::Delivery(row) => self.delivery(row),
            Record::Attempt(row) => number("delivery", row.delivery),
            Record::Rollout(row) => {
                number("id", row.id)?;
                number("lastEvent", row.last_event)?;
                self.rollouts.remove(&row.id);
                self.object(row.object)
            }
            Record::Event(row) => {
                number("seq", row.seq)?;
                self.events.remove(&row.seq);
                self.object(row.object)
            }
            Record::Hook(row) => {
                number("seq", row.seq)?;
                self.hooks.remove(&row.seq);
                self.config("receiver", row.receiver, &[ConfigKind::Receiver])
            }
        }
    }

    /// What is missing when all records were taken in.
    pub fn end(&self) -> Result<(), String> {
        for (what, missing) in [("rollout", &self.rollouts), ("event", &self.events), ("webhook", &self.hooks)] {
            if let Some((id, delivery)) = missing.iter().min() {
                return Err(format!("delivery {delivery} waits, and the {what} {id} that it tells of is missing"));
            }
        }
        Ok(())
    }

    /// Rows come table by table in the order of their keys: so none comes twice.
    fn order(&mut self, record: &Record) -> Result<(), String> {
        let place = (record.table(), record.key());
        if let Some(last) = self.last.replace(place)
            && place <= last
        {
            let show = |(table, (key, n)): (Table, (i64, i64))| match table.key() {
                1 => format!("{} {key}", table.name()),
                _ => format!("{} {key} {n}", table.name()),
            };
            return Err(format!("{} comes after {}", show(place), show(last)));
        }
        Ok(())
    }

    fn lane(&mut self, row: &Lane) -> Result<(), String> {
        if row.due.is_some() {
            self.due.insert(row.id);
        }
        number("tail", row.tail)?;
        self.dest(row.dest)
    }

    fn delivery(&mut self, row: &Delivery) -> Result<(), String> {
        number("id", row.id)?;
        number("event", row.event)?;
        self.object(row.object)?;
        self.dest(row.dest)?;
        self.config("route", row.route, &[ConfigKind::Alert, ConfigKind::CommitStatus, ConfigKind::Receiver])?;
        if row.state != Word(DeliveryState::Pending) {
            return Ok(());
        }
        if !self.due.contains(&row.lane) {
            return Err(format!("delivery {} waits in lane {}, which never comes up", row.id, row.lane));
        }
        let causes = if row.kind.0 == DeliveryKind::Trigger { &mut self.hooks } else { &mut self.events };
        causes.entry(row.event).or_insert(row.id);
        match (row.kind.0, row.rollout) {
            (DeliveryKind::Rollout, None) => Err(format!("delivery {} tells of no rollout", row.id)),
            (DeliveryKind::Rollout, Some(rollout)) => {
                self.rollouts.entry(rollout).or_insert(row.id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn dest(&self, id: i64) -> Result<(), String> {
        self.config("dest", id, &[ConfigKind::Provider, ConfigKind::Cluster])
    }

    fn config(&self, what: &str, id: i64, kinds: &[ConfigKind]) -> Result<(), String> {
        match self.configs.get(&id) {
            Some(kind) if kinds.contains(kind) => Ok(()),
            Some(kind) => Err(format!("{what} {id} is a {}", kind.as_str())),
            None => Err(format!("{what}: there is no configuration object {id}")),
        }
    }

    fn object(&self, id: i64) -> Result<(), String> {
        if self.objects.contains(&id) { Ok(()) } else { Err(format!("there is no object {id}")) }
    }
}

fn number(what: &str, number: i64) -> Result<(), String> {
    if (1..LAST).contains(&number) { Ok(()) } else { Err(format!("{what}: {number} is no number that a store gives")) }
}

fn new(new: bool, what: &str) -> Result<(), String> {
    if new { Ok(()) } else { Err(format!("this {what} came before, under another number")) }
}

impl From<String> for TransferError {
    fn from(detail: String) -> Self {
        Self::Invalid(detail)
    }
}
