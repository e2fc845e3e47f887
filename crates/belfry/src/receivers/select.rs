//! Which objects a webhook reconciles.

use std::{collections::HashSet, time::Instant};

use belfry_core::{
    ObjectKey,
    config::{
        ReceiverRule,
        receiver::{Objects, Request, Target},
    },
    index::{IndexedObject, ObjectIndex},
    limits,
};
use serde_json::Value;

use crate::configuration::Configuration;

/// What a webhook selects.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Selected {
    /// The objects, each once, in the order of the entries.
    pub(super) objects: Vec<ObjectKey>,
    /// What is wrong with single entries; the others count all the same.
    pub(super) failed: Vec<String>,
    seen: HashSet<ObjectKey>,
}

/// An object that filters decide about.
struct Asked {
    object: ObjectKey,
    /// What they see of it.
    metadata: Value,
}

/// How objects are looked up.
pub(super) struct Lookup<'a> {
    /// `--cluster-name`.
    pub(super) cluster: &'a str,
    /// What isn't in the index doesn't exist.
    pub(super) complete: bool,
    /// Who has the object index.
    pub(super) configuration: &'a Configuration,
}

/// Whether the object index has a say in what this Receiver reconciles.
pub(super) fn needs_index(rule: &ReceiverRule) -> bool {
    (0..rule.spec.resources.len()).any(|entry| {
        rule.filters(entry) || matches!(rule.target(entry), Some(Ok(Target { objects: Objects::Labelled(_), .. })))
    })
}

impl Selected {
    /// Adds what the entries of a Receiver select for one request. The index is looked at for a moment only: filters,
    /// which may take long, are evaluated on copies.
    pub(super) fn add(&mut self, rule: &ReceiverRule, request: &Request, lookup: &Lookup<'_>, deadline: Instant) {
        for entry in 0..rule.spec.resources.len() {
            let target = match rule.target(entry) {
                Some(Ok(target)) => target,
                Some(Err(why)) => {
                    self.failed.push(format!("resources[{entry}]: {why}"));
                    continue;
                }
                None => continue,
            };
            if let Objects::Named(name) = target.objects
                && !rule.filters(entry)
            {
                self.take(key(lookup, &target, name));
                continue;
            }
            let asked = lookup.configuration.with_index(|index| ask(index, &target, lookup));
            if let (Objects::Named(name), true) = (&target.objects, asked.is_empty()) {
                self.failed.push(format!("resources[{entry}]: {}/{}/{name} not found", target.kind, target.namespace));
            }
            if let Err(why) = self.filter(rule, entry, request, asked, deadline) {
                self.failed.push(format!("resources[{entry}]: {why}"));
            }
        }
    }

    /// The first object that the filters fail on ends the entry, as with the peer.
    fn filter(
        &mut self,
        rule: &ReceiverRule,
        entry: usize,
        request: &Request,
        asked: Vec<Asked>,
        deadline: Instant,
    ) -> Result<(), String> {
        for Asked { object, metadata } in asked {
            if Instant::now() > deadline {
                return Err(format!("its filters take longer than {:?} together", limits::HOOK_FILTERS));
            }
            if rule.passes(entry, request, &metadata).map_err(|why| format!("{object}: {why}"))? {
                self.take(object);
            }
        }
        Ok(())
    }

    fn take(&mut self, object: ObjectKey) {
        if self.seen.contains(&object) {
            return;
        }
        if self.objects.len() == limits::HOOK_OBJECTS {
            let why = format!("more than {} objects; the others are left out", limits::HOOK_OBJECTS);
            if self.failed.last() != Some(&why) {
                self.failed.push(why);
            }
            return;
        }
        self.seen.insert(object.clone());
        self.objects.push(object);
    }
}

fn key(lookup: &Lookup<'_>, target: &Target<'_>, name: &str) -> ObjectKey {
    ObjectKey {
        cluster: lookup.cluster.to_owned(),
        group: target.group.to_owned(),
        kind: target.kind.to_owned(),
        namespace: target.namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// Copies what filters see of the objects of an entry.
fn ask(index: &ObjectIndex, target: &Target<'_>, lookup: &Lookup<'_>) -> Vec<Asked> {
    let asked = |object: &IndexedObject| Asked {
        object: key(lookup, target, &object.name),
        metadata: object.metadata(target.version),
    };
    match &target.objects {
        Objects::Labelled(labels) => {
            index.labelled(target.kind, target.group, target.namespace, labels).into_iter().map(asked).collect()
        }
        Objects::Named(name) => {
            let found = index.get(target.kind, target.namespace, name).filter(|found| found.group == target.group);
            // A directory need not hold manifests of what a cluster holds: then the name is all that is known.
            let bare = || IndexedObject {
                group: target.group.to_owned(),
                kind: target.kind.to_owned(),
                namespace: target.namespace.to_owned(),
                name: (*name).to_owned(),
                ..IndexedObject::default()
            };
            match found {
                Some(found) => vec![asked(found)],
                None if lookup.complete => Vec::new(),
                None => vec![asked(&bare())],
            }
        }
    }
}
