//! What a Provider says over the life of an object, and by a user's rules.

use belfry_core::plan::Change;
use serde_json::Value;

use super::*;
use crate::tests::{Case, probe, script::spoken};

/// Feeds events of one object through a Provider, each with what the one before left to remember.
fn story(profile: CdEventsProfile, events: &[(&str, &str, &str, Option<Change>)]) -> Vec<String> {
    let mut case = Case::new("cdevents", "http://broker.example/in");
    case.spec.cdevents = Some(CdEventsSpec { profile, ..CdEventsSpec::default() });
    let notifier = case.build().unwrap();
    let mut memo = Vec::new();
    let mut told = Vec::new();
    for (reason, severity, revision, change) in events {
        let mut notification = probe(severity);
        notification.event.reason = (*reason).into();
        notification.event.metadata.insert("revision".into(), (*revision).into());
        if *reason == "ReconciliationSucceeded" {
            notification.event.metadata.insert("commit_status".into(), "update".into());
        }
        notification.change = *change;
        notification.memo.clone_from(&memo);
        told.push(match spoken(&notifier, &notification) {
            Ok(requests) => requests
                .iter()
                .map(|request| {
                    let body: Value = serde_json::from_slice(&request.body).unwrap();
                    assert_eq!(request.headers["ce-type"], body["context"]["type"].as_str().unwrap());
                    let parts: Vec<&str> = body["context"]["type"].as_str().unwrap().split('.').collect();
                    parts[2..4].join(".")
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(unsent) => format!("{unsent:?}"),
        });
        memo = notifier.remember(&notification).unwrap_or(memo);
    }
    told
}

const A: &str = "main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738";
const B: &str = "main@sha1:a1afe267b54f38b46b487f6e938a6fd508278c07";

#[test]
fn an_incident_is_told_once_and_ends_once_and_a_periodic_success_is_silent() {
    let events = [
        ("ReconciliationSucceeded", "info", A, None),
        ("ReconciliationSucceeded", "info", A, None),
        ("HealthCheckFailed", "error", B, Some(Change::Failed)),
        ("HealthCheckFailed", "error", B, None),
        ("ReconciliationSucceeded", "info", B, Some(Change::Recovered)),
        ("ReconciliationSucceeded", "info", B, None),
    ];
    insta::assert_yaml_snapshot!("cdevents_delivery", story(CdEventsProfile::Delivery, &events));
    insta::assert_yaml_snapshot!("cdevents_rfc", story(CdEventsProfile::Rfc, &events));
}

#[test]
fn every_attempt_says_the_same() {
    let notifier = Case::new("cdevents", "http://broker.example/in").build().unwrap();
    let mut notification = probe("error");
    notification.change = Some(Change::Failed);
    let bodies =
        || -> Vec<_> { spoken(&notifier, &notification).unwrap().into_iter().map(|request| request.body).collect() };
    assert_eq!(bodies(), bodies());
}

fn rules(yaml: &str) -> Result<crate::Notifier, Misconfigured> {
    let mut case = Case::new("cdevents", "http://broker.example/in");
    let spec = CdEventsSpec { rules: serde_saphyr::from_str(yaml).unwrap(), ..CdEventsSpec::default() };
    case.spec.cdevents = Some(spec);
    case.build()
}

/// What becomes of the event of an error in the health checks of revision `main@sha1:5394…`.
fn ruled(yaml: &str) -> String {
    match spoken(&rules(yaml).unwrap(), &probe("error")) {
        Err(unsent) => format!("{unsent:?}"),
        Ok(requests) => {
            let [request] = &requests[..] else { panic!("{} requests", requests.len()) };
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            format!("{} {}", body["context"]["type"].as_str().unwrap(), body["subject"])
        }
    }
}

#[test]
fn the_first_rule_that_is_for_an_event_decides() {
    let other = "- {when: event.reason == 'Other', drop: true}";
    let detected = "dev.cdevents.incident.detected.0.3.0";
    assert!(ruled(other).starts_with(detected), "the profile");
    assert_eq!(
        ruled(
            &format!(
                "{other}\n- {{when: event.severity == 'error', drop: true}}\n- {{when: 'true', type: dev.cdevents.x.y}}"
            )
            .replace("dev.cdevents.x.y", "dev.cdevents.environment.modified")
        ),
        r#"Skip("a rule of spec.cdevents.rules drops it")"#
    );
    assert_eq!(
        ruled("- {when: 'true', type: dev.cdevents.environment.modified}\n- {when: 'true', drop: true}"),
        r#"dev.cdevents.environment.modified.0.3.0 {"content":{},"id":"/prod-eu/apps/kustomization/app"}"#
    );
}

#[test]
fn a_rule_fills_type_subject_and_content() {
    let yaml = "
- when: event.involvedObject.kind == 'Kustomization' && cluster == 'prod-eu' && live == ''
  type: dev.cdevents.service.deployed
  subject: event.involvedObject.namespace + '/' + event.involvedObject.name
  content:
    environment.id: \"'/' + cluster\"
    environment.source: event.?metadata.?nowhere
    artifactId: \"'pkg:generic/app@' + event.metadata.revision.split(':')[1]\"
";
    assert_eq!(
        ruled(yaml),
        r#"dev.cdevents.service.deployed.0.3.0 {"content":{"artifactId":"pkg:generic/app@5394cb7f48332b2de7c17dd8b8384bbc84b7e738","environment":{"id":"/prod-eu"}},"id":"apps/app"}"#
    );
    let custom = "
- when: 'true'
  type: dev.cdeventsx.flux-health.failed.0.1.0
  content: {list: '[1, 2]', map: \"{'a': 1.5}\", text: event.message.size(), deep.er.most: 'true'}
";
    assert_eq!(
        ruled(custom),
        r#"dev.cdeventsx.flux-health.failed.0.1.0 {"content":{"deep":{"er":{"most":true}},"list":[1,2],"map":{"a":1.5},"text":21},"id":"/prod-eu/apps/kustomization/app"}"#
    );
}

#[test]
fn nothing_invalid_leaves() {
    for (rule, expected) in [
        ("when: event.metadata.env == 'prod', drop: true", "spec.cdevents.rules[0].when: 1:15: no such key: env"),
        (
            "when: 'true', type: dev.cdevents.service.deployed, content: {environment.id: \"'prod'\"}",
            "no valid CDEvent can be made of this: dev.cdevents.service.deployed.0.3.0 would be invalid: \
             subject.content.artifactId: is missing",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {name: '7'}",
            "no valid CDEvent can be made of this: dev.cdevents.environment.modified.0.3.0 would be invalid: \
             subject.content.name: must be a text, is a number",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {nickname: \"'x'\"}",
            "no valid CDEvent can be made of this: dev.cdevents.environment.modified.0.3.0 would be invalid: \
             subject.content.nickname: is not a member in this version of the spec",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, subject: \"''\"",
            "no valid CDEvent can be made of this: dev.cdevents.environment.modified.0.3.0 would be invalid: \
             subject.id: is empty",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, subject: \"'%.99f%.99f'.format([1.0, 1.0]).replace('0', '123456789012345')\"",
            "spec.cdevents.rules[0].subject: gives 2974 bytes; 2048 are allowed",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {name: '1.0 / 0.0'}",
            "spec.cdevents.rules[0].content[name]: inf is no number in JSON",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {name: event.nope}",
            "spec.cdevents.rules[0].content[name]: 1:6: no such key: nope",
        ),
        (
            "when: '[1, 2].all(a, [1, 2].all(b, \"x\".replace(\"\", \"%.99f\".format([1.0])).split(\"\").all(c, \
             \"x\".replace(\"\", \"%.99f\".format([1.0])).split(\"\").all(d, \
             \"x\".replace(\"\", \"%.99f\".format([1.0])).split(\"\").all(e, true)))))', drop: true",
            "spec.cdevents.rules[0].when: 1:197: the evaluation was cut off after 500000 steps",
        ),
    ] {
        let found = ruled(&format!("- {{{rule}}}"));
        let found = found.strip_prefix("Reject(\"").and_then(|text| text.strip_suffix("\")")).unwrap_or(&found);
        assert_eq!(found, expected, "{rule}");
    }
}

#[test]
fn rules_that_can_not_be_used_are_found_when_the_provider_is_opened() {
    for (rule, expected) in [
        ("when: 'true'", "rules[0]: has neither a type nor drop: true"),
        (
            "when: 'true', drop: true, type: dev.cdevents.environment.modified",
            "rules[0]: has a type and drop: true; only one of them is possible",
        ),
        (
            "when: 'true', drop: true, subject: \"'x'\"",
            "rules[0]: drops events, which leaves nothing to have a subject or a content",
        ),
        ("when: '', drop: true", "rules[0].when: 1:1: the expression ends where a value is expected"),
        ("when: event.ok, drop: true", "rules[0].when: CEL expression output type mismatch: expected bool, got dyn"),
        (
            "when: alert.ok == 1, drop: true",
            "rules[0].when: 1:1: undeclared reference to 'alert' (declared: event, cluster, live)",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified.0.2.0",
            "rules[0].type: CDEvents 0.5.1 has no type \"dev.cdevents.environment.modified.0.2.0\"",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, subject: '1'",
            "rules[0].subject: CEL expression output type mismatch: expected string, got int",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {a..b: '1'}",
            "rules[0].content[a..b]: is not a path of fields, such as environment.id",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {a: '1', a.b.c: '1'}",
            "rules[0].content[a.b.c]: is filled by another expression already, together with all that it holds",
        ),
        (
            "when: 'true', type: dev.cdevents.environment.modified, content: {a: '1 +'}",
            "rules[0].content[a]: 1:4: the expression ends where a value is expected",
        ),
    ] {
        let error = rules(&format!("- {{{rule}}}")).unwrap_err();
        assert_eq!(error.reason, Reason::CdEvents);
        assert_eq!(error.to_string(), format!("Provider apps/p: spec.cdevents.{expected}"), "{rule}");
    }
    let many = "- {when: 'true', drop: true}\n".repeat(33);
    assert!(rules(&many).unwrap_err().to_string().ends_with("spec.cdevents.rules: has 33 rules; 32 are allowed"));
}

#[test]
fn a_rule_knows_what_is_live() {
    let notifier = rules(
        "- {when: event.metadata.revision != live, type: dev.cdevents.environment.modified}\n- {when: 'true', drop: true}",
    );
    let notifier = notifier.unwrap();
    let mut memo = Vec::new();
    let mut tell = |reason: &str, revision: &str| {
        let mut notification = probe("info");
        notification.event.reason = reason.into();
        notification.event.metadata.insert("revision".into(), revision.into());
        notification.event.metadata.insert("commit_status".into(), "update".into());
        notification.memo.clone_from(&memo);
        let told = spoken(&notifier, &notification).is_ok();
        memo = notifier.remember(&notification).unwrap_or(memo.clone());
        told
    };
    let story =
        [("ReconciliationSucceeded", A), ("ReconciliationSucceeded", A), ("Progressing", B), ("Progressing", B)];
    assert_eq!(story.map(|(reason, revision)| tell(reason, revision)), [true, false, true, true]);
    assert!(tell("ReconciliationSucceeded", B) && !tell("ReconciliationSucceeded", B));
}

#[test]
fn the_manifests_in_the_documentation_work() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cdevents.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let values = blocks.flat_map(|block| serde_saphyr::from_multiple::<Value>(block).unwrap());
    let documents: Vec<_> =
        values.map(|value| belfry_core::config::Document { origin: String::new(), value }).collect();
    let receivers = documents.iter().filter(|document| document.value["kind"] == "Receiver");
    let receivers =
        receivers.map(|document| serde_json::from_value::<belfry_api::ReceiverSpec>(document.value["spec"].clone()));
    assert_eq!(receivers.map(Result::unwrap).filter(|spec| spec.cdevents.is_some()).count(), 1);
    let (snapshot, findings) = belfry_core::config::compile(&documents, &Default::default(), &Default::default());
    assert!(findings.iter().all(|finding| finding.problem.is_none()), "{findings:?}");
    assert_eq!((snapshot.providers().len(), snapshot.alerts().len()), (2, 1));
    for rule in snapshot.providers() {
        let mut case = Case { spec: (*rule.spec).clone(), ..Case::default() };
        if case.spec.secret_ref.is_some() {
            case = case.secret(&[("token", "t")]);
        }
        case.build().unwrap();
    }
    let with_rules = snapshot.providers().find(|rule| &*rule.key.name == "cdevents-rules").unwrap();
    let notifier = Case { spec: (*with_rules.spec).clone(), ..Case::default() }.build().unwrap();
    let mut notification = probe("info");
    notification.event.reason = "ReconciliationSucceeded".into();
    notification.event.metadata.insert("image".into(), "pkg:oci/web@sha256:0b31b1c0".into());
    let requests = spoken(&notifier, &notification).unwrap();
    assert_eq!(requests[0].headers["ce-type"], "dev.cdevents.service.deployed.0.3.0");
    notification.event.reason = "DependencyNotReady".into();
    let requests = spoken(&notifier, &notification).unwrap();
    assert_eq!(requests[0].headers["ce-type"], "dev.cdeventsx.flux-dependency.waiting.0.1.0");
}
