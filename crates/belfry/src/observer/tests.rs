//! What statuses say, and what is handed over of them.

use belfry_store::Options;
use serde_json::{Value, json};

use super::*;

fn object(kind: &str, generation: i64, status: Value) -> IndexedObject {
    let group = if kind == "HelmRelease" { "helm.toolkit.fluxcd.io" } else { "kustomize.toolkit.fluxcd.io" };
    IndexedObject::trim(&json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": "app", "namespace": "apps", "uid": "u", "generation": generation},
        "status": status,
    }))
    .unwrap()
}

fn ready(status: &str, reason: &str) -> Value {
    json!([{
        "type": "Ready", "status": status, "reason": reason, "message": "said so", "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:00:07Z",
    }])
}

const ONE: &str = "main@sha1:1111111111111111111111111111111111111111";
const ORIGIN: &str = "main@sha1:2222222222222222222222222222222222222222";

#[test]
fn what_a_status_says() {
    let failed = |reason: &str| Found::Failed { reason: reason.into(), message: "said so".into() };
    let applied = json!({"lastAppliedRevision": ONE, "lastAttemptedRevision": "main@sha1:3", "conditions": []});
    let with = |mut status: Value, conditions: Value| {
        status["conditions"] = conditions;
        status
    };
    let attempted = || json!({"lastAttemptedRevision": ONE});
    let chart = || json!({"lastAttemptedRevision": "1.2.0+a1baa844df03"});
    let table = [
        ("Kustomization", with(applied.clone(), ready("True", "ReconciliationSucceeded")), Some((Found::Ready, ONE))),
        ("Kustomization", with(attempted(), ready("True", "ReconciliationSucceeded")), None),
        (
            "Kustomization",
            with(attempted(), ready("False", "HealthCheckFailed")),
            Some((failed("HealthCheckFailed"), ONE)),
        ),
        // It waits, or is under way.
        ("Kustomization", with(attempted(), ready("False", "DependencyNotReady")), None),
        ("Kustomization", with(attempted(), ready("False", "HealthCheckCanceled")), None),
        ("Kustomization", with(attempted(), ready("Unknown", "Progressing")), None),
        ("Kustomization", with(json!({}), ready("False", "ArtifactFailed")), None),
        ("Kustomization", json!({}), None),
        ("HelmRelease", with(chart(), ready("True", "UpgradeSucceeded")), Some((Found::Ready, "1.2.0+a1baa844df03"))),
        (
            "HelmRelease",
            with(chart(), ready("False", "TestFailed")),
            Some((failed("TestFailed"), "1.2.0+a1baa844df03")),
        ),
        ("HelmRelease", with(chart(), ready("False", "SourceNotReady")), None),
        // Of no kind that goes to revisions.
        ("Bell", with(applied.clone(), ready("True", "ReconciliationSucceeded")), None),
    ];
    for (kind, status, expected) in table {
        let seen = sighting(&object(kind, 2, status.clone()), None, "prod");
        let seen = seen.map(|seen| {
            assert_eq!((&*seen.object.cluster, &*seen.uid, seen.timestamp), ("prod", "u", Some(1_767_225_607)));
            (seen.found, seen.revision.unwrap())
        });
        assert_eq!(seen, expected.map(|(found, revision)| (found, revision.to_owned())), "{kind} {status}");
        // A condition of another generation says nothing of this one.
        assert_eq!(sighting(&object(kind, 3, status), None, "prod"), None);
    }
    let mut undated = with(applied.clone(), ready("True", "x"));
    undated["conditions"][0]["lastTransitionTime"] = json!("yesterday");
    assert_eq!(sighting(&object("Kustomization", 2, undated), None, ""), None);
    let mut going = object("Kustomization", 2, with(applied.clone(), ready("True", "x")));
    going.deleting = true;
    assert_eq!(sighting(&going, None, "").unwrap().found, Found::Gone);

    let mut oci = with(json!({"lastAppliedRevision": "latest@sha256:abc"}), ready("True", "x"));
    oci["lastAppliedOriginRevision"] = json!(ORIGIN);
    let seen = sighting(&object("Kustomization", 2, oci), None, "").unwrap();
    assert_eq!(seen.commit.as_deref(), Some("2222222222222222222222222222222222222222"));
    assert_eq!(seen.origin_revision.as_deref(), Some(ORIGIN));
}

/// What waits, each in a word, and is taken away.
fn waiting(observer: &Observer) -> Vec<String> {
    let taken = std::mem::take(&mut observer.lock().waiting);
    let word = |seen: &Sighting| match &seen.found {
        Found::Ready => "ready",
        Found::Failed { .. } => "failed",
        Found::Gone => "gone",
    };
    let mut words: Vec<String> =
        taken.values().map(|(_, seen)| format!("{} {}", seen.object.name, word(seen))).collect();
    words.sort();
    words
}

#[test]
fn nothing_is_observed_too_early_and_nothing_twice() {
    let observer = Observer::new("");
    let live = object("Kustomization", 2, json!({"lastAppliedRevision": ONE, "conditions": ready("True", "x")}));
    let named = |name: &str| IndexedObject { name: name.into(), ..live.clone() };
    let mut index = ObjectIndex::default();
    let mut see = |change: ObjectChange| {
        observer.see(&index, &change);
        match change {
            ObjectChange::Apply(object) => index.apply(object),
            ObjectChange::Replace(kind, objects) => index.replace(kind, objects),
            ObjectChange::Remove { kind, namespace, name } => index.remove(kind, &namespace, &name),
            ObjectChange::Synced => observer.synced(&index),
        }
        index.clone()
    };
    see(ObjectChange::Replace("Kustomization", vec![named("a"), named("b")]));
    assert!(waiting(&observer).is_empty());
    let now = see(ObjectChange::Synced);
    assert!(waiting(&observer).is_empty(), "no configuration yet");
    observer.configured(&now);
    assert_eq!(waiting(&observer), ["a ready", "b ready"], "the first list counts");
    observer.configured(&now);
    see(ObjectChange::Synced);
    let relabelled = IndexedObject { labels: [("a".to_owned(), "b".to_owned())].into(), ..named("a") };
    see(ObjectChange::Apply(relabelled));
    see(ObjectChange::Replace("Kustomization", vec![named("a"), named("b")]));
    assert!(waiting(&observer).is_empty(), "nothing of it decides anything");

    let failed = json!({"lastAttemptedRevision": ONE, "conditions": ready("False", "HealthCheckFailed")});
    see(ObjectChange::Apply(IndexedObject { name: "a".into(), ..object("Kustomization", 2, failed) }));
    assert_eq!(waiting(&observer), ["a failed"]);
    // A watch that begins anew finds one of them no more.
    see(ObjectChange::Replace("Kustomization", vec![named("a")]));
    assert_eq!(waiting(&observer), ["a ready", "b gone"]);
    let remove =
        |name: &str| ObjectChange::Remove { kind: "Kustomization", namespace: "apps".into(), name: name.into() };
    see(remove("a"));
    see(remove("never-heard-of"));
    assert_eq!(waiting(&observer), ["a gone"]);
    see(ObjectChange::Apply(named("a")));
    assert_eq!(waiting(&observer), ["a ready"], "it came back as it was");
}

#[tokio::test]
async fn what_is_known_already_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(folder.path(), Options::default()).unwrap();
    let configuration = Arc::new(Configuration::new(Default::default()));
    let metrics = Arc::new(Metrics::new(store.clone()));
    let observer = Arc::new(Observer { grace: Duration::from_millis(10), ..Observer::new("") });
    let task = tokio::spawn(observer.clone().run(configuration, store.clone(), metrics));
    let live = object("Kustomization", 2, json!({"lastAppliedRevision": ONE, "conditions": ready("True", "x")}));
    let mut index = ObjectIndex::default();
    index.apply(live.clone());
    let mut head = store.head();
    observer.synced(&index);
    observer.configured(&index);
    tokio::time::timeout(Duration::from_secs(20), head.changed()).await.unwrap().unwrap();
    let rollouts = store.rollouts(Default::default()).await.unwrap().items;
    assert_eq!(rollouts.len(), 1);
    assert_eq!(rollouts[0].state, belfry_core::rollout::Phase::Succeeded);
    // As after a restart: all is seen again.
    let again = Arc::new(Observer { grace: Duration::from_millis(10), ..Observer::new("") });
    let known = Arc::new(Metrics::new(store.clone()));
    let other =
        tokio::spawn(again.clone().run(Arc::new(Configuration::new(Default::default())), store.clone(), known.clone()));
    again.synced(&index);
    again.configured(&index);
    let readings =
        || crate::metrics::Readings { waits: 0, stats: store.stats(), refused_objects: 0, backlogs: Vec::new() };
    testkit::until("it to be handed over", Duration::from_secs(20), async || {
        let text = known.render(&readings());
        anyhow::ensure!(
            text.contains("belfry_observations_total{kind=\"Kustomization\",result=\"known\"} 1"),
            "{text}"
        );
        Ok(())
    })
    .await
    .unwrap();
    assert!(!head.has_changed().unwrap(), "something was written");
    task.abort();
    other.abort();
}

#[test]
fn a_sighting_waits_for_its_event_but_not_longer_for_the_next_one() {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let mut seen = Seen::default();
    let named = |name: &str| IndexedObject { name: name.into(), ..object("Kustomization", 2, json!({})) };
    let gone = |name: &str| nothing_yet(&named(name), "", Found::Gone);
    let names = |due: &[Sighting]| due.iter().map(|seen| seen.object.name.clone()).collect::<Vec<_>>();
    seen.wait(gone("a"), at(0));
    seen.wait(Sighting { found: Found::Ready, ..gone("a") }, at(2));
    seen.wait(gone("b"), at(2));
    let (due, next) = seen.take_due(GRACE, at(2));
    assert!(due.is_empty());
    assert_eq!(next, Some(at(3)));
    let (due, next) = seen.take_due(GRACE, at(3));
    assert_eq!((names(&due), &due[0].found), (vec!["a".to_owned()], &Found::Ready));
    assert_eq!(next, Some(at(5)));
    let (due, next) = seen.take_due(GRACE, at(5));
    assert_eq!((names(&due), next), (vec!["b".to_owned()], None));
}
