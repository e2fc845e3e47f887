//! Objects: those that watches see and those that events told of, as one list.

use std::{cmp::Ordering, collections::BTreeMap};

use axum::{Extension, Json, extract::State};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_core::{
    ObjectKey,
    index::IndexedObject,
    limits,
    plan::ObjectState,
    rollout::{Phase, Rollout, has_rollouts},
};
use belfry_store::{ObjectFilter, ObjectQuery};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    Caller, Problem, Shared,
    parameters::{self, Objects, Parameters},
};

/// Query parameters of the list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListParameters {
    /// Only of this cluster; empty: of the one that has no name.
    cluster: Option<String>,
    /// `Kind/namespace/name`, each of them possibly `*`; instead of kind, namespace and name.
    object: Option<String>,
    /// Only of this kind.
    kind: Option<String>,
    /// Only of this namespace.
    namespace: Option<String>,
    /// Only of this name.
    name: Option<String>,
    /// Only those that are ready, or those that are not.
    ready: Option<bool>,
    /// Goes on where a page ended: its `cursor`.
    #[serde(deserialize_with = "cursor")]
    #[schemars(with = "Option<String>")]
    cursor: Option<Place>,
    /// How many.
    #[serde(deserialize_with = "parameters::limit")]
    #[schemars(range(min = 1, max = 500))]
    limit: Option<u32>,
}

/// A page of objects, in the order of their name, namespace and kind.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ObjectList")]
pub(super) struct List {
    items: Vec<Object>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// An object: what a watch saw of it, or what its events told where none sees it. Times are RFC 3339.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    /// `Kind/namespace/name`.
    object: String,
    /// Absent where the cluster has no name.
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    /// Its API group.
    group: String,
    kind: String,
    namespace: String,
    name: String,
    /// Whether its last reconciliation succeeded; absent while one is under way, and where nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    /// The reason that goes with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    /// The message that goes with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    /// The revision that it runs, or that a source holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    /// The revision that was tried last.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempted: Option<String>,
    /// What it is made from: `Kind/namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    suspended: bool,
    deleting: bool,
    /// It is in the object index: a watch sees it, or a folder holds its manifest.
    indexed: bool,
    /// Its last rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollout: Option<LastRollout>,
}

/// The last rollout of an object.
#[derive(Serialize, JsonSchema)]
struct LastRollout {
    id: i64,
    revision: String,
    #[schemars(extend("enum" = ["pending", "progressing", "succeeded", "failed", "superseded"]))]
    state: &'static str,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
}

impl From<&Rollout> for LastRollout {
    fn from(rollout: &Rollout) -> Self {
        Self {
            id: rollout.id.0,
            revision: rollout.revision.clone(),
            state: rollout.state.as_str(),
            started: rollout.started.to_string(),
            finished: rollout.finished.map(|at| at.to_string()),
        }
    }
}

impl Object {
    /// What a watch saw counts more than what events told.
    pub(super) fn new(key: &ObjectKey, indexed: Option<&IndexedObject>, state: Option<&ObjectState>) -> Self {
        let rollout = state.and_then(|state| state.rollouts.current());
        let condition = indexed.and_then(|object| object.ready.as_ref());
        let (ready, reason, message) = match (condition, rollout, state) {
            (Some(condition), ..) => {
                let ready = (condition.status != "Unknown").then(|| condition.status == "True");
                (ready, condition.reason.clone(), condition.message.clone())
            }
            (None, Some(rollout), _) => (succeeded(rollout.state), rollout.reason.clone(), rollout.message.clone()),
            (None, None, Some(state)) if !state.severity.is_empty() => {
                (Some(!state.failed), String::new(), String::new())
            }
            (None, None, _) => (None, String::new(), String::new()),
        };
        let from = |pick: fn(&IndexedObject) -> &Option<String>| indexed.and_then(|object| pick(object).clone());
        let live = state.and_then(|state| state.rollouts.live()).map(|live| live.revision.clone());
        let told = || state.and_then(|state| state.revision.clone());
        // What has no rollouts is a source, and holds what it fetched last.
        let held = told().filter(|_| !has_rollouts(&key.group, &key.kind));
        Self {
            object: key.to_string(),
            cluster: key.cluster.clone(),
            group: key.group.clone(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            ready,
            reason,
            message,
            live: from(|object| &object.applied_revision)
                .or_else(|| from(|object| &object.artifact_revision))
                .or(live)
                .or(held),
            attempted: from(|object| &object.attempted_revision)
                .or_else(|| rollout.map(|rollout| rollout.revision.clone()))
                .or_else(told),
            source: indexed.and_then(source),
            suspended: indexed.is_some_and(|object| object.suspended),
            deleting: indexed.is_some_and(|object| object.deleting)
                || state.is_some_and(|state| state.rollouts.is_gone()),
            indexed: indexed.is_some(),
            rollout: rollout.map(LastRollout::from),
        }
    }
}

fn succeeded(state: Phase) -> Option<bool> {
    match state {
        Phase::Succeeded => Some(true),
        Phase::Failed => Some(false),
        Phase::Pending | Phase::Progressing | Phase::Superseded => None,
    }
}

fn source(object: &IndexedObject) -> Option<String> {
    let source = object.source.as_ref()?;
    let namespace = source.namespace.as_deref().unwrap_or(&object.namespace);
    Some(format!("{}/{namespace}/{}", source.kind, source.name))
}

/// A place in the list, which has the store's order.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place(ObjectKey);

impl Place {
    fn parts(&self) -> [&str; 5] {
        let ObjectKey { cluster, group, kind, namespace, name } = &self.0;
        [name, namespace, kind, group, cluster]
    }

    fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.parts()).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let [name, namespace, kind, group, cluster] = serde_json::from_slice::<[String; 5]>(&bytes).ok()?;
        Some(Self(ObjectKey { cluster, group, kind, namespace, name }))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

fn cursor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Place>, D::Error> {
    let text = String::deserialize(from)?;
    let place = Place::parse(&text);
    place.map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is none that a page before gave")))
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Parameters(given): Parameters<ListParameters>,
) -> Result<Json<List>, Problem> {
    let ListParameters { cluster, object, kind, namespace, name, ready, cursor, limit } = given;
    let filter = Objects { cluster, object, kind, namespace, name }.filter()?;
    let wanted = limit.unwrap_or(limits::PAGE) as usize;
    let mut items = Vec::new();
    let mut after = cursor;
    loop {
        // Of those that are ready, or are not, there may be few among many.
        let size = if ready.is_some() { limits::PAGE as usize } else { wanted };
        let (found, next) = some(&shared, &filter, after, size).await?;
        let found = found.into_iter().filter(|(_, object)| ready.is_none() || object.ready == ready).collect();
        items.extend(caller.readable(found, |(place, _)| &place.0).await?);
        after = next;
        if items.len() >= wanted || after.is_none() {
            break;
        }
    }
    let is_last = after.is_none() && items.len() <= wanted;
    items.truncate(wanted);
    let cursor = items.last().filter(|_| !is_last).map(|(place, _)| place.text());
    Ok(Json(List { items: items.into_iter().map(|(_, object)| object).collect(), cursor }))
}

type Found = Vec<(Place, Object)>;

/// Objects after a place, in order, at least `wanted` of them if there are as many; and the place after which there may
/// be more.
async fn some(
    shared: &Shared,
    filter: &ObjectFilter,
    after: Option<Place>,
    wanted: usize,
) -> Result<(Found, Option<Place>), Problem> {
    let query = ObjectQuery {
        object: filter.clone(),
        after: after.as_ref().map(|place| place.0.clone()),
        limit: wanted as u32,
    };
    let rows = shared.store.objects(query).await?;
    let mut last = (rows.len() == wanted).then(|| rows.last().map(|row| Place(row.key.clone()))).flatten();
    let mut states: BTreeMap<Place, ObjectState> = rows.into_iter().map(|row| (Place(row.key), row.state)).collect();
    let mut found = shared.configuration.with_index(|index| {
        let of_kind: Box<dyn Iterator<Item = &IndexedObject>> = match &filter.kind {
            Some(kind) => Box::new(index.of_kind(kind)),
            None => Box::new(index.all()),
        };
        let mut places: Vec<(Place, &IndexedObject)> = of_kind
            .filter(|object| selects(filter, &shared.cluster, object))
            .map(|object| (Place(ObjectKey { cluster: shared.cluster.clone(), ..object.key() }), object))
            .filter(|(place, _)| after.as_ref().is_none_or(|after| place > after))
            .collect();
        places.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        // Nothing is left out before this place.
        let end = places.get(wanted.saturating_sub(1)).map(|(place, _)| place.clone());
        last = [last.take(), end].into_iter().flatten().min();
        places
            .into_iter()
            .take(wanted)
            .filter(|(place, _)| last.as_ref().is_none_or(|last| place <= last))
            .map(|(place, object)| {
                let object = Object::new(&place.0, Some(object), states.remove(&place).as_ref());
                (place, object)
            })
            .collect::<Found>()
    });
    states.retain(|place, _| last.as_ref().is_none_or(|last| place <= last));
    found.extend(states.into_iter().map(|(place, state)| {
        let object = Object::new(&place.0, None, Some(&state));
        (place, object)
    }));
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((found, last))
}

/// Whether a filter selects an object of the index.
fn selects(filter: &ObjectFilter, cluster: &str, object: &IndexedObject) -> bool {
    let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
    is(&filter.cluster, cluster)
        && is(&filter.kind, &object.kind)
        && is(&filter.namespace, &object.namespace)
        && is(&filter.name, &object.name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places() -> impl Strategy<Value = Place> {
        ("[a-c\"/.]{0,3}", "[ab]{0,2}", "[AK]?", "[g.]{0,2}", ".{0,3}").prop_map(
            |(name, namespace, kind, group, cluster)| Place(ObjectKey { cluster, group, kind, namespace, name }),
        )
    }

    proptest! {
        #[test]
        fn a_place_survives_being_a_cursor(place in places()) {
            let text = place.text();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')), "fit for a URL: {}", text);
            prop_assert_eq!(Place::parse(&text), Some(place));
        }

        #[test]
        fn what_is_no_cursor_is_told_so(text in ".{0,40}") {
            prop_assert!(Place::parse(&text).is_none_or(|place| place.text() == text));
        }
    }

    #[test]
    fn what_has_other_parts_is_no_cursor() {
        for bad in ["", "x", "W10", "bm8"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_order_is_the_stores() {
        let place = |name: &str, namespace: &str| {
            Place(ObjectKey { name: name.into(), namespace: namespace.into(), ..ObjectKey::default() })
        };
        assert!(place("a", "z") < place("b", "a"));
        assert!(place("A", "") < place("a", "") && place("a", "b") < place("a", "c"));
    }
}
