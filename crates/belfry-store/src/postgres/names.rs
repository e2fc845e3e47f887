//! Reading: the names behind numbers, which never change.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use belfry_core::{ConfigKey, ConfigKind, ObjectKey, limits};
use tokio_postgres::Row;

use super::link::Link;
use crate::{
    cache::Cache,
    engine::{EngineError, Result},
};

#[derive(Debug)]
pub(super) struct Names {
    configs: Mutex<Cache<i64, Arc<ConfigKey>>>,
    objects: Mutex<Cache<i64, Arc<ObjectKey>>>,
}

/// The names that one answer takes.
pub(super) struct Known {
    configs: HashMap<i64, Arc<ConfigKey>>,
    objects: HashMap<i64, Arc<ObjectKey>>,
}

impl Known {
    pub fn config(&self, id: i64) -> Result<Arc<ConfigKey>> {
        self.configs.get(&id).map(Arc::clone).ok_or_else(|| lost("configuration object", id))
    }

    pub fn object(&self, id: i64) -> Result<Arc<ObjectKey>> {
        self.objects.get(&id).map(Arc::clone).ok_or_else(|| lost("object", id))
    }
}

fn lost(what: &str, id: i64) -> EngineError {
    EngineError::Down(format!("{what} {id} has no name"))
}

impl Names {
    pub fn new() -> Self {
        Self {
            configs: Mutex::new(Cache::new(limits::OBJECT_CACHE)),
            objects: Mutex::new(Cache::new(limits::OBJECT_CACHE)),
        }
    }

    /// Looks up what isn't known yet, all at once.
    pub fn look_up(
        &self,
        link: &mut Link,
        configs: impl IntoIterator<Item = i64>,
        objects: impl IntoIterator<Item = i64>,
    ) -> Result<Known> {
        let configs = resolve(&self.configs, configs, |ids| {
            let rows = link.query("SELECT id, kind, namespace, name FROM config WHERE id = ANY($1)", &[&ids])?;
            rows.iter().map(|row| Ok((row.get(0), Arc::new(config_key(row, 1)?)))).collect()
        })?;
        let objects = resolve(&self.objects, objects, |ids| {
            let sql = "SELECT id, cluster, api_group, kind, namespace, name FROM object WHERE id = ANY($1)";
            Ok(link.query(sql, &[&ids])?.iter().map(|row| (row.get(0), Arc::new(object_key(row, 1)))).collect())
        })?;
        Ok(Known { configs, objects })
    }
}

fn resolve<V>(
    cache: &Mutex<Cache<i64, Arc<V>>>,
    ids: impl IntoIterator<Item = i64>,
    find: impl FnOnce(&[i64]) -> Result<Vec<(i64, Arc<V>)>>,
) -> Result<HashMap<i64, Arc<V>>>
where
    i64: Hash,
{
    let lock = || cache.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut known, mut unknown) = (HashMap::new(), HashSet::new());
    {
        let mut cache = lock();
        for id in ids {
            match cache.get(&id) {
                Some(value) => drop(known.insert(id, Arc::clone(value))),
                None => drop(unknown.insert(id)),
            }
        }
    }
    if !unknown.is_empty() {
        let found = find(&unknown.into_iter().collect::<Vec<_>>())?;
        let mut cache = lock();
        for (id, value) in found {
            cache.put(&id, Arc::clone(&value));
            known.insert(id, value);
        }
    }
    Ok(known)
}

/// Kind, namespace and name, from this column on.
pub(super) fn config_key(row: &Row, column: usize) -> Result<ConfigKey> {
    let kind: &str = row.get(column);
    let kind = ConfigKind::parse(kind).ok_or_else(|| EngineError::Down(format!("there is no kind {kind:?}")))?;
    let (namespace, name): (String, String) = (row.get(column + 1), row.get(column + 2));
    Ok(ConfigKey { kind, namespace: namespace.into(), name: name.into() })
}

fn object_key(row: &Row, column: usize) -> ObjectKey {
    ObjectKey {
        cluster: row.get(column),
        group: row.get(column + 1),
        kind: row.get(column + 2),
        namespace: row.get(column + 3),
        name: row.get(column + 4),
    }
}
