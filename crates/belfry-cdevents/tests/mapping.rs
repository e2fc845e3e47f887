//! What Flux events become: the cases beside the project; then everything that any profile can make of anything is
//! valid by our table, by the official schemas, and for the crate of the CDEvents project.

#![allow(clippy::unwrap_used, reason = "a test may panic, and so may what it calls")]

mod support;

use belfry_api::Event;
use belfry_cdevents::{
    Mode, UnknownSchema,
    http::{ContentMode, parse, request},
    mapping::{
        Commit, Custom, Facts, IncidentChange, Incidents, KustomizationAs, Mapped, Options, Profile, Reported,
        TestCase, Version, custom, identity, map, purl::Source,
    },
    validate,
};
use belfry_core::{
    event,
    plan::{Change, Origin},
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Official, hold_by_sdk, json_files, shared};

const CLUSTER: &str = "prod-eu";

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// What the cases call lookups.
fn source(lookups: &Value) -> Option<Source<'_>> {
    let url = |kind: &str| lookups[format!("{kind}.spec.url")].as_str();
    let kind = ["OCIRepository", "GitRepository", "HelmRepository"].into_iter().find(|kind| url(kind).is_some())?;
    Some(Source {
        kind,
        url: url(kind)?,
        path: lookups["Kustomization.spec.path"].as_str(),
        chart: lookups["HelmRelease.spec.chart.spec"]["chart"].as_str(),
        revision: lookups[format!("{kind}.status.artifact.revision")].as_str(),
        repository: None,
    })
}

#[test]
fn the_cases_beside_the_project_become_what_they_say() {
    let cases = json_files(shared().join("mapping"));
    if cases.is_empty() {
        println!("SKIPPED: the mapping cases beside the project are missing");
        return;
    }
    let mut events = 0;
    for case in &cases {
        let event = event::read(case["fluxEvent"].to_string().as_bytes()).unwrap();
        let object = event::object(&event, "");
        // A rollback belongs to the attempt that it rolls back, which the event doesn't name.
        let rolls_back = event.reason.starts_with("Rollback");
        let chain = text(case, "/expected_0_5_1/0/context/chainId").filter(|_| rolls_back);
        for version in Version::ALL {
            let options = Options {
                profile: Profile::Delivery,
                version,
                cluster: case["config"]["cluster"].as_str().unwrap().into(),
                source: text(case, "/config/source").map(str::to_owned),
                environment: text(case, "/config/environment").map(str::to_owned),
                assume_merged: case["profile"].as_str().unwrap().contains("assumeMerged"),
                ..Options::default()
            };
            let facts = Facts {
                live: text(case, "/state/lastRevision"),
                source: source(&case["lookups"]),
                chain,
                ..Facts::default()
            };
            let reported = Reported {
                event: &event,
                origin: Origin::Recorder,
                object: &object,
                change: None,
                arrived: Timestamp::UNIX_EPOCH,
            };
            let mapped = map(&reported, &facts, &options).unwrap();
            let expected = &case[if version == Version::V0_5_1 { "expected_0_5_1" } else { "expected_0_4_1" }];
            let made: Vec<Value> = mapped.events.iter().map(|emission| emission.document.clone()).collect();
            assert_eq!(&Value::from(made), expected, "{}", case["id"]);
            assert_eq!(mapped.skipped.is_some(), mapped.events.is_empty());
            events += mapped.events.len();
        }
    }
    println!("{} cases, {events} CDEvents", cases.len());
}

fn reported<'a>(event: &'a Event, object: &'a belfry_core::ObjectKey) -> Reported<'a> {
    Reported { event, origin: Origin::Recorder, object, change: None, arrived: Timestamp::UNIX_EPOCH }
}

fn flux(kind: &str, group: &str, severity: &str, reason: &str, revision: Option<&str>) -> Event {
    let mut metadata = json!({});
    if let Some(revision) = revision {
        metadata[format!("{group}/revision")] = revision.into();
    }
    if reason == "ReconciliationSucceeded" {
        metadata[format!("{group}/commit_status")] = "update".into();
    }
    let body = json!({
        "involvedObject": {"kind": kind, "namespace": "apps", "name": "web", "uid": "u-1", "apiVersion": format!("{group}/v1")},
        "severity": severity, "timestamp": "2026-03-01T10:00:00Z", "message": "something happened", "reason": reason,
        "metadata": metadata, "reportingController": "a-controller",
    });
    event::read(body.to_string().as_bytes()).unwrap()
}

/// One line for what becomes of an event.
fn line(mapped: &Mapped) -> String {
    let of = |document: &Value| {
        let content = &document["subject"]["content"];
        let outcome = content["outcome"].as_str().or_else(|| text(document, "/customData/flux/outcome"));
        let event_type = document["context"]["type"].as_str().unwrap().trim_start_matches("dev.cdevents.");
        format!("{event_type} {} {}", document["subject"]["id"].as_str().unwrap(), outcome.unwrap_or_default())
    };
    let mut all: Vec<String> = mapped.events.iter().map(|emission| of(&emission.document).trim().to_owned()).collect();
    all.extend(mapped.skipped.map(|reason| format!("({reason})")));
    all.extend(mapped.incident.as_ref().map(|incident| match incident {
        IncidentChange::Opened(_) => "[opened]".to_owned(),
        IncidentChange::Closed => "[closed]".to_owned(),
    }));
    all.join(", ")
}

fn table(profile: Profile, version: Version, incident: Option<&str>) -> Vec<String> {
    let helm = ("HelmRelease", "helm.toolkit.fluxcd.io", "6.6.0");
    let kustomize =
        ("Kustomization", "kustomize.toolkit.fluxcd.io", "main@sha1:1eabc9a41ca088515cab83f1cce49eb43e84b67f");
    let mut rows = Vec::new();
    for action in ["Install", "Upgrade", "Test", "Rollback", "Uninstall"] {
        rows.push((helm, "info", format!("{action}Succeeded")));
        rows.push((helm, "error", format!("{action}Failed")));
    }
    rows.push((helm, "info", "DriftCorrected".into()));
    rows.push((helm, "error", "ArtifactFailed".into()));
    rows.push((kustomize, "info", "ReconciliationSucceeded".into()));
    rows.push((kustomize, "info", "Progressing".into()));
    rows.push((kustomize, "info", "HealthCheckCanceled".into()));
    for reason in ["ReconciliationFailed", "HealthCheckFailed", "BuildFailed"] {
        rows.push((kustomize, "error", reason.into()));
    }
    let options = Options { profile, version, cluster: CLUSTER.into(), ..Options::default() };
    let facts = Facts { incident, ..Facts::default() };
    let made = |((kind, group, revision), severity, reason): (_, _, String)| {
        let event = flux(kind, group, severity, &reason, Some(revision));
        let mapped = map(&reported(&event, &event::object(&event, "")), &facts, &options).unwrap();
        format!("{kind} {reason}: {}", line(&mapped))
    };
    rows.into_iter().map(made).collect()
}

#[test]
fn the_profiles_as_tables() {
    insta::assert_json_snapshot!("rfc", table(Profile::Rfc, Version::V0_5_1, None));
    insta::assert_json_snapshot!("rfc_while_an_incident_is_open", table(Profile::Rfc, Version::V0_4_1, Some("i-1")));
    insta::assert_json_snapshot!("pipeline", table(Profile::Pipeline, Version::V0_5_1, None));
    insta::assert_json_snapshot!("build", table(Profile::Build, Version::V0_4_1, None));
    insta::assert_json_snapshot!("delivery", table(Profile::Delivery, Version::V0_5_1, None));
    insta::assert_json_snapshot!(
        "delivery_while_an_incident_is_open",
        table(Profile::Delivery, Version::V0_5_1, Some("i-1"))
    );
}

#[test]
fn a_periodic_success_says_nothing_but_the_end_of_a_failure() {
    let revision = "main@sha1:1eabc9a41ca088515cab83f1cce49eb43e84b67f";
    let event = flux("Kustomization", "kustomize.toolkit.fluxcd.io", "info", "ReconciliationSucceeded", Some(revision));
    let object = event::object(&event, "");
    let made = |profile, facts: Facts<'_>, change| {
        let options = Options { profile, cluster: CLUSTER.into(), ..Options::default() };
        line(&map(&Reported { change, ..reported(&event, &object) }, &facts, &options).unwrap())
    };
    let live = Facts { live: Some(revision), ..Facts::default() };
    let failed = Facts { incident: Some("i-1"), ..live };
    insta::assert_json_snapshot!([
        made(Profile::Rfc, live, None),
        made(Profile::Rfc, live, Some(Change::Recovered)),
        made(Profile::Rfc, failed, Some(Change::Recovered)),
        made(Profile::Delivery, live, None),
        made(Profile::Delivery, failed, Some(Change::Recovered)),
    ], @r#"
    [
      "(the periodic success of a revision that is live already)",
      "environment.modified.0.3.0 /prod-eu",
      "environment.modified.0.3.0 /prod-eu, [closed]",
      "(the periodic success of a revision that is live already)",
      "incident.resolved.0.3.0 i-1, [closed]"
    ]
    "#);
}

#[test]
fn an_incident_keeps_its_id_from_beginning_to_end() {
    let options = Options { profile: Profile::Delivery, cluster: CLUSTER.into(), ..Options::default() };
    let failed = flux("HelmRelease", "helm.toolkit.fluxcd.io", "error", "UpgradeFailed", Some("6.6.0"));
    let object = event::object(&failed, "");
    let first = map(&reported(&failed, &object), &Facts::default(), &options).unwrap();
    let Some(IncidentChange::Opened(id)) = first.incident else { panic!("{first:?}") };
    assert_eq!(id, identity::incident("u-1", "2026-03-01T10:00:00Z"));
    let facts = Facts { incident: Some(&id), ..Facts::default() };
    let again = map(&reported(&failed, &object), &facts, &options).unwrap();
    assert_eq!((again.events.len(), again.incident), (1, None));
    let mended = flux("HelmRelease", "helm.toolkit.fluxcd.io", "info", "UpgradeSucceeded", Some("6.6.1"));
    let last = map(&reported(&mended, &object), &facts, &options).unwrap();
    assert_eq!(last.incident, Some(IncidentChange::Closed));
    assert_eq!(last.events[1].document["subject"]["id"], id.as_str());
}

#[test]
fn rules_of_users_make_what_the_spec_knows_and_nothing_else() {
    let options = Options { cluster: CLUSTER.into(), ..Options::default() };
    let event = flux("HelmRelease", "helm.toolkit.fluxcd.io", "info", "UpgradeSucceeded", Some("6.6.0"));
    let object = event::object(&event, "");
    let made = |event_type: &str, content: Value| {
        let rule = Custom { event_type: event_type.into(), subject: None, content };
        match custom(&reported(&event, &object), &Facts::default(), &options, rule) {
            Ok(emission) => emission.event_type,
            Err(error) => error.to_string(),
        }
    };
    insta::assert_json_snapshot!([
        made("dev.cdevents.environment.modified", json!({"name": "prod"})),
        made("dev.cdevents.environment.modified.0.3.0", json!({})),
        made("dev.cdevents.environment.modified.0.2.0", json!({})),
        made("dev.cdevents.environment.exploded", json!({})),
        made("dev.cdevents.service.deployed", json!({"environment": {"id": "prod"}})),
        made("dev.cdevents.environment.modified", json!({"nickname": "prod"})),
        made("dev.cdeventsx.flux-web.done.0.1.0", json!({"anything": ["goes"]})),
        made("dev.cdeventsx.flux.done.0.1.0", json!({})),
        made("com.example.done", json!({})),
    ], @r#"
    [
      "dev.cdevents.environment.modified.0.3.0",
      "dev.cdevents.environment.modified.0.3.0",
      "CDEvents 0.5.1 has no type \"dev.cdevents.environment.modified.0.2.0\"",
      "CDEvents 0.5.1 has no type \"dev.cdevents.environment.exploded\"",
      "dev.cdevents.service.deployed.0.3.0 would be invalid: subject.content.artifactId: is missing",
      "dev.cdevents.environment.modified.0.3.0 would be invalid: subject.content.nickname: is not a member in this version of the spec",
      "dev.cdeventsx.flux-web.done.0.1.0",
      "CDEvents 0.5.1 has no type \"dev.cdeventsx.flux.done.0.1.0\"",
      "CDEvents 0.5.1 has no type \"com.example.done\""
    ]
    "#);
}

const KINDS: [(&str, &str); 9] = [
    ("HelmRelease", "helm.toolkit.fluxcd.io"),
    ("Kustomization", "kustomize.toolkit.fluxcd.io"),
    ("GitRepository", "source.toolkit.fluxcd.io"),
    ("OCIRepository", "source.toolkit.fluxcd.io"),
    ("HelmChart", "source.toolkit.fluxcd.io"),
    ("HelmRepository", "source.toolkit.fluxcd.io"),
    ("Bucket", "source.toolkit.fluxcd.io"),
    ("ImageUpdateAutomation", "image.toolkit.fluxcd.io"),
    ("FluxInstance", "fluxcd.controlplane.io"),
];

const REASONS: [&str; 32] = [
    "InstallSucceeded",
    "InstallFailed",
    "UpgradeSucceeded",
    "UpgradeFailed",
    "TestSucceeded",
    "TestFailed",
    "RollbackSucceeded",
    "RollbackFailed",
    "UninstallSucceeded",
    "UninstallFailed",
    "DriftDetected",
    "DriftCorrected",
    "DriftCorrectionFailed",
    "PendingRelease",
    "ReconciliationSucceeded",
    "ReconciliationFailed",
    "Progressing",
    "DependencyNotReady",
    "HealthCheckFailed",
    "HealthCheckCanceled",
    "BuildFailed",
    "PruneFailed",
    "ArtifactFailed",
    "DirectoryCreationFailed",
    "AccessDenied",
    "InvalidCELExpression",
    "NewArtifact",
    "ChartPullSucceeded",
    "ChartPackageSucceeded",
    "Succeeded",
    "error",
    "",
];

fn revisions() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![
        "[0-9]\\.[0-9](\\+[0-9a-f]{12})?",
        ("[a-z/]{0,8}", "[0-9a-f]{40}").prop_map(|(pointer, hash)| format!("{pointer}@sha1:{hash}")),
        ("[a-z.]{0,8}", "[0-9a-f]{64}").prop_map(|(pointer, hash)| format!("{pointer}@sha256:{hash}")),
        ".{0,20}",
    ])
}

fn sources() -> impl Strategy<Value = Option<(String, String, Option<String>, Option<String>)>> {
    let kinds = proptest::sample::select(vec!["GitRepository", "OCIRepository", "HelmRepository", "Bucket", ""]);
    let urls = prop_oneof![
        "(https|ssh|oci|http)://([a-z]{1,4}(:[a-z]{1,4})?@)?[a-z.]{1,9}(:[0-9]{1,4})?(/[a-zA-Z.%]{1,6}){1,3}",
        ".{0,20}",
    ];
    let parts = (kinds.prop_map(str::to_owned), urls, proptest::option::of(".{0,9}"), proptest::option::of(".{0,9}"));
    proptest::option::of(parts)
}

fn options() -> impl Strategy<Value = Options> {
    use proptest::sample::select;
    (
        select(vec![Profile::Rfc, Profile::Pipeline, Profile::Build, Profile::Delivery, Profile::Delivery]),
        select(Version::ALL.to_vec()),
        "[a-z-]{0,6}|.{0,6}",
        proptest::option::of(".{0,9}"),
        select(vec![KustomizationAs::Service, KustomizationAs::Environment, KustomizationAs::None]),
        any::<[bool; 7]>(),
    )
        .prop_map(|(profile, version, cluster, environment, kustomization_as, [a, b, c, d, e, f, g])| Options {
            profile,
            version,
            cluster,
            source: g.then(|| "https://flux.example.com/".into()),
            environment,
            incidents: if a { Incidents::All } else { Incidents::Running },
            kustomization_as,
            sources: c,
            assume_merged: d,
            drift: e,
            test_cases: f,
            omit_messages: a && b,
        })
}

#[test]
fn every_kind_reason_profile_and_version_is_valid() {
    let mut types = std::collections::BTreeSet::new();
    let revision = "main@sha1:1eabc9a41ca088515cab83f1cce49eb43e84b67f";
    let tests = [TestCase { name: "a", passed: true }, TestCase { name: "b", passed: false }];
    let open = Facts { incident: Some("i-1"), tests: &tests, ..Facts::default() };
    for version in Version::ALL {
        let official = Official::read(version.spec().as_str());
        for profile in [Profile::Rfc, Profile::Pipeline, Profile::Build, Profile::Delivery] {
            let told = |everything: bool| Options {
                profile,
                version,
                cluster: CLUSTER.into(),
                incidents: if everything { Incidents::All } else { Incidents::Running },
                sources: everything,
                assume_merged: everything,
                drift: everything,
                test_cases: everything,
                ..Options::default()
            };
            for ((kind, group), reason) in KINDS.iter().flat_map(|kind| REASONS.map(|reason| (kind, reason))) {
                for severity in ["info", "error"] {
                    let event = flux(kind, group, severity, reason, Some(revision));
                    let object = event::object(&event, "");
                    for (options, facts) in [(told(false), Facts::default()), (told(true), open)] {
                        let mapped = map(&reported(&event, &object), &facts, &options).unwrap();
                        for emission in mapped.events {
                            if let Some(official) = &official {
                                official.hold(&emission.document);
                            }
                            assert!(validate(&emission.document, Mode::Strict, UnknownSchema::Reject).is_ok());
                            hold_by_sdk(&emission.document);
                            types.insert(format!("{profile:?} {}", emission.event_type));
                        }
                    }
                }
            }
        }
    }
    insta::assert_json_snapshot!("types_by_profile", types);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 1500 } else { 20_000 }))]

    #[test]
    fn everything_that_is_made_is_valid(
        kind in proptest::sample::select(KINDS.to_vec()),
        reason in proptest::sample::select(REASONS.to_vec()),
        severity in proptest::sample::select(vec!["info", "error"]),
        name in "[a-z][a-z0-9.-]{0,20}|.{1,20}",
        message in "[A-Za-z ]{0,9}( with chart [a-z]{0,3}@[0-9.]{0,5})?|.{0,40}|(.{0,20}){600}",
        uid in "[0-9a-f-]{0,9}",
        (revision, live, source) in (revisions(), revisions(), sources()),
        (ids, sha) in (any::<[bool; 5]>(), "[0-9a-f]{40}"),
        options in options(),
    ) {
        thread_local! {
            static OFFICIAL: [(Version, Option<Official>); 2] =
                Version::ALL.map(|version| (version, Official::read(version.spec().as_str())));
        }
        let mut event = flux(kind.0, kind.1, severity, reason, revision.as_deref());
        event.involved_object.name = name;
        event.involved_object.uid = uid;
        event.message = message;
        let object = event::object(&event, "");
        let tests = [TestCase { name: "a", passed: true }, TestCase { name: "b", passed: false }];
        let facts = Facts {
            live: live.as_deref(),
            incident: ids[0].then_some("9a7e4a38-7a5e-5b7e-8a3e-0c3ed1c5dfb1"),
            source: source.as_ref().map(|(kind, url, path, chart)| Source {
                kind, url, path: path.as_deref(), chart: chart.as_deref(), revision: live.as_deref(),
                repository: ids[3].then_some(url),
            }),
            commit: ids[1].then_some(Commit { repository: ids[2].then_some("https://github.com/org/fleet"), sha: &sha }),
            chain: ids[2].then_some("0c3ed1c5-dfb1-5251-9f7e-aefa9b9862e8"),
            cause: ids[3].then_some("cause"),
            previous: ids[4].then_some("previous"),
            tests: &tests,
        };
        let mapped = map(&reported(&event, &object), &facts, &options).unwrap();
        prop_assert_eq!(mapped.skipped.is_some(), mapped.events.is_empty());
        let mut known = Vec::new();
        for emission in &mapped.events {
            let document = &emission.document;
            for mode in [Mode::Strict, Mode::Default] {
                prop_assert!(validate(document, mode, UnknownSchema::Reject).is_ok(), "{}", document);
            }
            OFFICIAL.with(|all| {
                let official = all.iter().find(|(version, _)| *version == options.version);
                if let Some(official) = official.and_then(|(_, official)| official.as_ref()) {
                    official.hold(document);
                }
            });
            hold_by_sdk(document);
            prop_assert!(!known.contains(&&emission.id), "one id twice");
            known.push(&emission.id);
            for mode in [ContentMode::Binary, ContentMode::Structured] {
                let outgoing = request(document, mode);
                let mut headers = http::HeaderMap::new();
                headers.insert("content-type", outgoing.content_type.parse().unwrap());
                for (name, value) in &outgoing.headers {
                    headers.insert(*name, value.parse().unwrap());
                }
                let read = parse(&headers, &outgoing.body, Mode::Strict, UnknownSchema::Reject);
                prop_assert_eq!(&read.unwrap()[0].data, document);
            }
        }
        prop_assert_eq!(map(&reported(&event, &object), &facts, &options).unwrap(), mapped);
    }
}
