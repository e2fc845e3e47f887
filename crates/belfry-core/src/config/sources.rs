//! The index of what Alerts select: cluster, then kind, then namespace, then name, then labels. An event looks up its own place, and
//! never meets an Alert that selects something else.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap},
};

use belfry_api::{CrossNamespaceObjectReference, EventSeverity};

use super::{LOCAL, Options, labels};
use crate::index::{IndexedObject, ObjectIndex};

/// Alerts, by number, under what they select.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// Those for every cluster.
    everywhere: HashMap<String, Kind>,
    clusters: HashMap<String, HashMap<String, Kind>>,
}

#[derive(Clone, Debug, Default)]
struct Kind {
    namespaces: HashMap<String, Places>,
    everywhere: Places,
}

/// The Alerts for every event and, apart from them, those for errors only.
#[derive(Clone, Debug, Default)]
struct Places {
    every: Names,
    errors: Names,
}

#[derive(Clone, Debug, Default)]
struct Names {
    named: HashMap<String, Alerts>,
    all: Alerts,
}

#[derive(Clone, Debug, Default)]
struct Alerts {
    /// Those that ask for nothing else.
    plain: Vec<u32>,
    /// Those with `matchLabels`: whether they match takes the object.
    conditional: Vec<u32>,
    /// Those of them with an empty `matchLabels`, which any object matches that exists.
    unlabelled: Vec<u32>,
    /// The others under key and value of their first label.
    labelled: HashMap<String, HashMap<String, Vec<Labels>>>,
}

#[derive(Clone, Debug)]
struct Labels {
    alert: u32,
    /// All of the labels but the first.
    more: BTreeMap<String, String>,
}

/// An object by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) cluster: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// The Alerts that an event meets, each once, in order.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// Those whose sources select it.
    pub(super) selected: Vec<u32>,
    /// Those that don't, for want of the object whose labels they ask for.
    pub(super) unknown: Vec<u32>,
}

/// Whether a source's `namespace: '*'` is honoured.
pub(super) fn may_select_all_namespaces(alert_namespace: &str, options: &Options) -> bool {
    !options.no_cross_namespace_refs && alert_namespace == options.runtime_namespace
}

/// The one cluster that a source selects, if it isn't every one.
pub(super) fn cluster_of<'a>(source: &'a CrossNamespaceObjectReference, options: &'a Options) -> Option<&'a str> {
    match source.cluster.as_deref() {
        None | Some("*") => None,
        Some(LOCAL) => Some(&options.cluster),
        Some(name) => Some(name),
    }
}

impl Sources {
    /// Adds what an object in the namespace `own` selects.
    pub(super) fn add(
        &mut self,
        number: u32,
        own: &str,
        sources: &[CrossNamespaceObjectReference],
        severity: EventSeverity,
        options: &Options,
    ) {
        for source in sources {
            let kinds = match cluster_of(source, options) {
                None => &mut self.everywhere,
                Some(cluster) => self.clusters.entry(cluster.to_owned()).or_default(),
            };
            let kind = kinds.entry(source.kind.clone()).or_default();
            let namespace = source.namespace.as_deref().unwrap_or(own);
            let places = match namespace {
                "*" if !may_select_all_namespaces(own, options) => continue,
                "*" => &mut kind.everywhere,
                namespace => kind.namespaces.entry(namespace.to_owned()).or_default(),
            };
            let names = match severity {
                EventSeverity::Info => &mut places.every,
                EventSeverity::Error => &mut places.errors,
            };
            let alerts = match source.name.as_str() {
                "*" => &mut names.all,
                name => names.named.entry(name.to_owned()).or_default(),
            };
            alerts.add(number, source);
        }
    }

    /// Looks an object up, of which there is an error to be told or anything else.
    pub(super) fn pick(&self, object: Named<'_>, error: bool, index: &ObjectIndex) -> Picked {
        let mut picked = Picked::default();
        let found = LazyCell::new(|| index.get(object.kind, object.namespace, object.name));
        let kinds = [Some(&self.everywhere), self.clusters.get(object.cluster)].into_iter().flatten();
        for kind in kinds.filter_map(|kinds| kinds.get(object.kind)) {
            for places in [kind.namespaces.get(object.namespace), Some(&kind.everywhere)].into_iter().flatten() {
                let errors = error.then_some(&places.errors);
                for names in [Some(&places.every), errors].into_iter().flatten() {
                    for alerts in [names.named.get(object.name), Some(&names.all)].into_iter().flatten() {
                        alerts.pick(&found, &mut picked);
                    }
                }
            }
        }
        picked.selected.sort_unstable();
        picked.selected.dedup();
        picked.unknown.sort_unstable();
        picked.unknown.dedup();
        picked.unknown.retain(|number| picked.selected.binary_search(number).is_err());
        picked
    }
}

impl Alerts {
    fn add(&mut self, alert: u32, source: &CrossNamespaceObjectReference) {
        let Some(wanted) = &source.match_labels else {
            self.plain.push(alert);
            return;
        };
        if labels::invalid(wanted).is_some() {
            return;
        }
        self.conditional.push(alert);
        let mut more = wanted.clone();
        match more.pop_first() {
            None => self.unlabelled.push(alert),
            Some((key, value)) => {
                let values = self.labelled.entry(key).or_default();
                values.entry(value).or_default().push(Labels { alert, more });
            }
        }
    }

    fn pick<'i>(&self, found: &impl std::ops::Deref<Target = Option<&'i IndexedObject>>, picked: &mut Picked) {
        picked.selected.extend_from_slice(&self.plain);
        if self.conditional.is_empty() {
            return;
        }
        let Some(object) = **found else {
            picked.unknown.extend_from_slice(&self.conditional);
            return;
        };
        picked.selected.extend_from_slice(&self.unlabelled);
        if self.labelled.is_empty() {
            return;
        }
        for (key, value) in &object.labels {
            let candidates = self.labelled.get(key).and_then(|values| values.get(value));
            for labels in candidates.into_iter().flatten() {
                if labels.more.iter().all(|(key, value)| object.labels.get(key) == Some(value)) {
                    picked.selected.push(labels.alert);
                }
            }
        }
    }
}
