//! The index against a matcher that knows none: it asks every Alert, one rule after the other, as the peer does.

use std::collections::BTreeMap;

use belfry_api::{CrossNamespaceObjectReference, Event, EventSeverity, ObjectReference};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::{
    ConfigKey,
    index::{IndexedObject, ObjectIndex},
};

/// Whether one entry of `eventSources` matches; `None` when that takes an object that isn't there.
fn source_matches(
    alert: &AlertRule,
    source: &CrossNamespaceObjectReference,
    event: &Event,
    cluster: &str,
    index: &ObjectIndex,
    options: &Options,
) -> Option<bool> {
    let object = &event.involved_object;
    let own = &*alert.key.namespace;
    let namespace = source.namespace.as_deref().unwrap_or(own);
    let all = namespace == "*" && own == options.runtime_namespace && !options.no_cross_namespace_refs;
    let severity = alert.spec.event_severity == EventSeverity::Info || event.severity == "error";
    let name = source.name == "*" || source.name == object.name;
    let of_cluster = match source.cluster.as_deref() {
        None | Some("*") => true,
        Some("local") => cluster == options.cluster,
        Some(wanted) => cluster == wanted,
    };
    if !(of_cluster && (all || namespace == object.namespace) && source.kind == object.kind && severity && name) {
        return Some(false);
    }
    let Some(labels) = &source.match_labels else { return Some(true) };
    let found = index.get(&object.kind, &object.namespace, &object.name)?;
    Some(labels.iter().all(|(key, value)| found.labels.get(key) == Some(value)))
}

/// The Alerts that select an event, those that are denied it, and those that lack an object.
fn naive(
    snapshot: &Snapshot,
    event: &Event,
    cluster: &str,
    index: &ObjectIndex,
    options: &Options,
) -> [Vec<ConfigKey>; 3] {
    let [mut selected, mut denied, mut lacking] = [Vec::new(), Vec::new(), Vec::new()];
    for alert in snapshot.alerts().filter(|alert| !alert.spec.suspend) {
        let key = (*alert.key).clone();
        let answers: Vec<_> =
            alert.spec.event_sources.iter().map(|s| source_matches(alert, s, event, cluster, index, options)).collect();
        if !answers.contains(&Some(true)) {
            if answers.contains(&None) {
                lacking.push(key);
            }
            continue;
        }
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| event.message.contains(pattern.as_str()));
        let included = alert.spec.inclusion_list.is_empty() || matches(&alert.spec.inclusion_list);
        if !included || matches(&alert.spec.exclusion_list) {
            continue;
        }
        if options.no_cross_namespace_refs && *key.namespace != event.involved_object.namespace {
            denied.push(key);
        } else if !snapshot.provider(&alert.provider).is_some_and(|provider| provider.spec.suspend) {
            selected.push(key);
        }
    }
    [selected, denied, lacking]
}

const NAMESPACES: &[&str] = &["apps", "flux-system", "team"];
const KINDS: &[&str] = &["Kustomization", "HelmRelease"];
const NAMES: &[&str] = &["a", "b", "c"];
const CLUSTERS: &[&str] = &["", "eu", "us"];
const WORDS: &[&str] = &["apply", "health", "x"];

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    vec((select(&["app", "tier"][..]), select(&["1", "2"][..])), 0..3)
        .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn sources() -> impl Strategy<Value = Value> {
    let namespace = option::of(select(&["apps", "flux-system", "team", "*"][..]));
    let name = select(&["a", "b", "*"][..]);
    let cluster = option::of(select(&["eu", "us", "local", "*"][..]));
    let source = (select(KINDS), name, namespace, cluster, option::weighted(0.3, labels())).prop_map(
        |(kind, name, namespace, cluster, labels)| {
            json!({"kind": kind, "name": name, "namespace": namespace, "cluster": cluster, "matchLabels": labels})
        },
    );
    vec(source, 0..4).prop_map(Value::from)
}

fn alerts() -> impl Strategy<Value = Vec<Document>> {
    let words = || vec(select(WORDS), 0..2);
    let alert = (
        (select(NAMESPACES), select(NAMES), select(&["on", "off", "none"][..])),
        (sources(), select(&["info", "error"][..]), words(), words(), prop::bool::weighted(0.1)),
    );
    let alert = alert.prop_map(|((namespace, name, provider), (sources, severity, inclusion, exclusion, suspend))| {
        document(json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Alert",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "providerRef": {"name": provider},
                "eventSources": sources,
                "eventSeverity": severity,
                "inclusionList": inclusion,
                "exclusionList": exclusion,
                "suspend": suspend,
            },
        }))
    });
    vec(alert, 0..12)
}

fn document(value: Value) -> Document {
    Document { origin: String::new(), value }
}

fn providers() -> Vec<Document> {
    let provider = |namespace: &str, name: &str| {
        document(json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": "Provider",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"type": "generic", "suspend": name == "off"},
        }))
    };
    NAMESPACES.iter().flat_map(|namespace| ["on", "off"].map(|name| provider(namespace, name))).collect()
}

fn events() -> impl Strategy<Value = Event> {
    let message = vec(select(WORDS), 0..3).prop_map(|words| words.join(" "));
    (select(KINDS), select(NAMESPACES), select(NAMES), select(&["info", "error", "trace", ""][..]), message).prop_map(
        |(kind, namespace, name, severity, message)| Event {
            involved_object: ObjectReference {
                kind: kind.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..ObjectReference::default()
            },
            severity: severity.into(),
            message,
            ..Event::default()
        },
    )
}

fn objects() -> impl Strategy<Value = ObjectIndex> {
    let object =
        (select(KINDS), select(NAMESPACES), select(NAMES), labels()).prop_map(|(kind, namespace, name, labels)| {
            IndexedObject {
                kind: kind.into(),
                namespace: namespace.into(),
                name: name.into(),
                labels,
                ..IndexedObject::default()
            }
        });
    vec(object, 0..12).prop_map(|objects| {
        let mut index = ObjectIndex::default();
        objects.into_iter().for_each(|object| index.apply(object));
        index
    })
}

proptest! {
    #[test]
    fn the_index_selects_what_asking_every_alert_selects(
        alerts in alerts(),
        events in vec((events(), select(CLUSTERS)), 1..8),
        own in select(&CLUSTERS[..2]),
        index in objects(),
        no_cross_namespace_refs in any::<bool>(),
    ) {
        let options = Options { no_cross_namespace_refs, runtime_namespace: "flux-system".into(), cluster: own.into(), ..Options::default() };
        let documents: Vec<_> = providers().into_iter().chain(alerts).collect();
        let (snapshot, _) = compile(&documents, &Snapshot::default(), &options);
        for (event, cluster) in events {
            let matched = snapshot.routes(&event, cluster, &index);
            let routes: Vec<ConfigKey> = matched.routes.iter().map(|route| (*route.route).clone()).collect();
            let noted = |reason: &str| -> Vec<ConfigKey> {
                matched.notes.iter().filter(|note| note.reason == reason).map(|note| note.object.clone()).collect()
            };
            let [selected, denied, lacking] = naive(&snapshot, &event, cluster, &index, &options);
            prop_assert_eq!(routes, selected);
            prop_assert_eq!(noted("NotificationDispatchFailed"), denied);
            prop_assert_eq!(noted("SourceFetchFailed"), lacking);
            let object = crate::event::object(&event, cluster);
            for alert in snapshot.alerts() {
                let provider = snapshot.provider(&alert.provider).map(|provider| &**provider);
                let mut why_not = explain::alert(alert, provider, &object, &index, &options);
                why_not.extend(explain::event(alert, &event));
                let is_selected = matched.routes.iter().any(|route| route.route == alert.key);
                prop_assert_eq!(why_not.is_empty(), is_selected, "{}: {:?}", alert.key, why_not);
            }
        }
    }

    #[test]
    fn a_snapshot_survives_being_kept_as_manifests(alerts in alerts()) {
        let options = Options { runtime_namespace: "flux-system".into(), ..Options::default() };
        let documents: Vec<_> = providers().into_iter().chain(alerts).collect();
        let (snapshot, _) = compile(&documents, &Snapshot::default(), &options);
        let kept: Vec<_> = snapshot.bodies().into_iter().map(|(_, value)| document(value)).collect();
        let (again, _) = compile(&kept, &Snapshot::default(), &options);
        prop_assert_eq!(again.bodies(), snapshot.bodies());
    }

    #[test]
    fn whatever_a_manifest_holds_is_survived(
        value in arbitrary_json(),
        path in select(&["/metadata", "/spec", "/spec/type", "/spec/providerRef", "/spec/eventSources", "/metadata/labels"][..]),
        kind in select(&["Alert", "Provider"][..]),
    ) {
        let mut manifest = json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
            "kind": kind,
            "metadata": {"name": "a", "labels": {}},
            "spec": {"type": "slack", "providerRef": {"name": "p"}, "eventSources": []},
        });
        if let Some(place) = manifest.pointer_mut(path) {
            *place = value;
        }
        let (snapshot, findings) = compile(&[document(manifest)], &Snapshot::default(), &Options::default());
        let refused = findings.iter().any(|f| f.problem.as_ref().is_some_and(|problem| problem.refused));
        prop_assert_eq!(snapshot.bodies().is_empty(), refused);
    }
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z*]{0,5}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = select(&["name", "kind", "namespace", "matchLabels", "type", "x"][..]).prop_map(str::to_owned);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}
