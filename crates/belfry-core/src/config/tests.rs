//! Manifests in, findings and routes out.

use belfry_api::{Event, ObjectReference};
use serde_json::{Value, json};

use super::*;
use crate::index::{IndexedObject, ObjectIndex};

fn alert(name: &str, spec: Value) -> Document {
    manifest("Alert", name, spec)
}

fn provider(name: &str, spec: Value) -> Document {
    manifest("Provider", name, spec)
}

fn manifest(kind: &str, name: &str, spec: Value) -> Document {
    let value = json!({
        "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
        "kind": kind,
        "metadata": {"name": name, "namespace": "apps", "uid": format!("uid-{name}")},
        "spec": spec,
    });
    Document { origin: format!("{name}.yaml"), value }
}

/// A document with one field replaced; an absent value takes it away.
fn with(mut document: Document, path: &str, value: Option<Value>) -> Document {
    let (parent, field) = path.rsplit_once('/').unwrap();
    let parent = document.value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => parent.insert(field.to_owned(), value),
        None => parent.remove(field),
    };
    document
}

fn all_of(kind: &str) -> Value {
    json!({"providerRef": {"name": "p"}, "eventSources": [{"kind": kind, "name": "*"}]})
}

fn compiled(documents: &[Document]) -> (Snapshot, Vec<String>) {
    compiled_with(documents, &Snapshot::default(), &Options::default())
}

fn compiled_with(documents: &[Document], last_good: &Snapshot, options: &Options) -> (Snapshot, Vec<String>) {
    let (snapshot, findings) = compile(documents, last_good, options);
    let shown = |finding: &Finding| {
        let how = match &finding.problem {
            None => "fine".into(),
            Some(problem) if problem.refused => format!("refused, {}", problem.reason),
            Some(problem) => format!("warned, {}", problem.reason),
        };
        format!("[{how}] {finding}")
    };
    (snapshot, findings.iter().map(shown).collect())
}

fn event(namespace: &str, name: &str, severity: &str, message: &str) -> Event {
    Event {
        involved_object: ObjectReference {
            kind: "Kustomization".into(),
            namespace: namespace.into(),
            name: name.into(),
            ..ObjectReference::default()
        },
        severity: severity.into(),
        message: message.into(),
        ..Event::default()
    }
}

fn routes(snapshot: &Snapshot, event: &Event) -> Vec<String> {
    let matched = snapshot.routes(event, "", &ObjectIndex::default());
    let routes = matched.routes.iter().map(|r| format!("{} to {}", r.route.name, r.provider.name));
    routes.chain(matched.notes.iter().map(|note| format!("{}: {}", note.reason, note.message))).collect()
}

#[test]
fn a_bad_field_is_named() {
    let p = || provider("p", json!({"type": "slack"}));
    let a = || alert("a", all_of("Kustomization"));
    let source = json!({"kind": "Kustomization", "name": "*"});
    for (document, expected) in [
        (with(p(), "/spec", None), "Provider/apps/p: spec: is required"),
        (with(p(), "/spec", Some(json!("x"))), "Provider/apps/p: spec: must be a map, not text"),
        (with(p(), "/spec/type", None), "Provider/apps/p: spec.type: is required"),
        (with(p(), "/spec/type", Some(json!(""))), "Provider/apps/p: spec.type: '' is not supported, use one of …"),
        (
            with(p(), "/spec/type", Some(json!(7))),
            "Provider/apps/p: spec.type: must be text, not a number (put it in quotes to make it text)",
        ),
        (
            with(p(), "/spec/timeout", Some(json!("1h"))),
            r"Provider/apps/p: spec.timeout: must match ^([0-9]+(\.[0-9]+)?(ms|s|m))+$",
        ),
        (
            with(p(), "/spec/timeout", Some(json!("999999999999s"))),
            "Provider/apps/p: spec.timeout: the duration '999999999999s' is too long",
        ),
        (
            with(p(), "/spec/interval", Some(json!("often"))),
            r"Provider/apps/p: spec.interval: must match ^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$",
        ),
        (
            with(p(), "/spec/proxy", Some(json!("socks5://p"))),
            "Provider/apps/p: spec.proxy: must match ^(http|https)://.*$",
        ),
        (
            with(p(), "/spec/address", Some(json!("x".repeat(2049)))),
            "Provider/apps/p: spec.address: must have at most 2048 characters, and has 2049",
        ),
        (with(p(), "/spec/secretRef", Some(json!({}))), "Provider/apps/p: spec.secretRef.name: is required"),
        (
            with(p(), "/spec/commitStatusExpr", Some(json!(""))),
            "Provider/apps/p: spec.commitStatusExpr: spec.commitStatusExpr is only supported for the 'github', \
             'gitlab', 'gitea', 'bitbucketserver', 'bitbucket', 'azuredevops' provider types",
        ),
        (with(a(), "/spec/providerRef", Some(Value::Null)), "Alert/apps/a: spec.providerRef: is required"),
        (
            with(a(), "/spec/eventSources", Some(json!([source, {"kind": "Kustomization"}]))),
            "Alert/apps/a: spec.eventSources[1].name: is required",
        ),
        (
            with(a(), "/spec/eventSources", Some(json!([{"kind": "Pod", "name": "*"}]))),
            "Alert/apps/a: spec.eventSources[0].kind: 'Pod' is not supported, use one of …",
        ),
        (
            with(a(), "/spec/eventSources", Some(json!([{"kind": "Bucket", "name": "*", "namespace": ""}]))),
            "Alert/apps/a: spec.eventSources[0].namespace: must have at least 1 character",
        ),
        (
            with(a(), "/spec/eventSeverity", Some(json!("warning"))),
            "Alert/apps/a: spec.eventSeverity: 'warning' is not supported, use one of …",
        ),
        (
            with(a(), "/spec/eventMetadata", Some(json!({"region": 7}))),
            "Alert/apps/a: spec.eventMetadata[region]: must be text, not a number (put it in quotes to make it text)",
        ),
        (with(a(), "/metadata/name", None), "metadata.name: is required"),
        (with(a(), "/metadata/name", Some(json!("A/b"))), "metadata.name: is not a name that an object can have"),
        (
            with(a(), "/metadata/namespace", Some(json!("a.b"))),
            "metadata.namespace: is not a name that a namespace can have",
        ),
        (
            with(a(), "/metadata/labels", Some(json!({"version": 1.5}))),
            "metadata.labels.version: invalid type: floating point `1.5`, expected a string",
        ),
        (
            with(a(), "/apiVersion", Some(json!("notification.toolkit.fluxcd.io/v2"))),
            "Alert/apps/a: apiVersion: there is no version 'v2', use notification.toolkit.fluxcd.io/v1beta3",
        ),
    ] {
        let (snapshot, findings) = compiled(std::slice::from_ref(&document));
        let origin = &document.origin;
        let found = findings.first().unwrap();
        let shortened = expected.trim_end_matches('…');
        assert!(
            found.starts_with("[refused, ") && found.contains(&format!("] {origin}: {shortened}")),
            "{findings:#?}"
        );
        assert!(snapshot.bodies().is_empty(), "{expected}");
    }
}

#[test]
fn what_works_otherwise_than_written_is_in_force_and_said() {
    let p = provider("p", json!({"type": "pigeon", "timeout": "0s", "adress": "x", "channel": null}));
    let a = alert(
        "a",
        json!({
            "providerRef": {"name": "q"},
            "eventSources": [
                {"kind": "Kustomization", "name": "*", "namespace": "*"},
                {"kind": "Kustomization", "name": "*", "matchLabels": {"app": "no value"}},
            ],
            "inclusionList": ["fine", "(unclosed"],
            "exclusionList": ["a**"],
        }),
    );
    let (snapshot, findings) = compiled(&[p, a]);
    assert_eq!(
        findings,
        [
            "[warned, UnknownField] p.yaml: Provider/apps/p: spec.adress: is not a field of this kind, and is ignored",
            "[warned, ValidationFailed] p.yaml: Provider/apps/p: spec.timeout: no time at all: 15s is used instead",
            "[warned, UnknownProviderType] p.yaml: Provider/apps/p: spec.type: there is no provider type 'pigeon': \
             deliveries wait until it is corrected",
            "[warned, ProviderNotFound] a.yaml: Alert/apps/a: spec.providerRef.name: there is no Provider 'q' in the \
             namespace 'apps': deliveries wait until there is",
            "[warned, InvalidConfig] a.yaml: Alert/apps/a: spec.inclusionList[1]: failed to compile inclusion regex: \
             (unclosed: missing closing )",
            "[warned, InvalidConfig] a.yaml: Alert/apps/a: spec.exclusionList[0]: failed to compile exclusion regex: \
             a**: invalid nested repetition operator: *",
            "[warned, AccessDenied] a.yaml: Alert/apps/a: spec.eventSources[0].namespace: '*' matches nothing: only \
             objects in the namespace that Belfry runs in can select all namespaces",
            "[warned, InvalidConfig] a.yaml: Alert/apps/a: spec.eventSources[1].matchLabels: error using matchLabels \
             from event source Kustomization/apps/*: 'app' has a value that no label can have",
        ]
    );
    assert_eq!((snapshot.providers().len(), snapshot.alerts().len()), (1, 1));
    assert!(routes(&snapshot, &event("apps", "x", "info", "fine")).is_empty());
}

#[test]
fn older_versions_and_other_documents_are_taken_as_they_are() {
    let old = with(
        with(
            provider("p", json!({"type": "slack"})),
            "/apiVersion",
            Some(json!("notification.toolkit.fluxcd.io/v1beta1")),
        ),
        "/status",
        Some(json!({"observedGeneration": 3, "conditions": []})),
    );
    let no_namespace = with(alert("a", all_of("Bucket")), "/metadata/namespace", None);
    let foreign = with(alert("b", all_of("Bucket")), "/apiVersion", Some(json!("monitoring/v1")));
    let receiver = manifest("Bell", "r", json!({}));
    let bare = Document { origin: String::new(), value: json!("text") };
    let (snapshot, findings) = compiled(&[old, no_namespace, foreign, receiver, bare]);
    assert_eq!(
        findings,
        [
            "[fine] p.yaml: Provider/apps/p: accepted",
            "[warned, ProviderNotFound] a.yaml: Alert/default/a: spec.providerRef.name: there is no Provider 'p' in \
             the namespace 'default': deliveries wait until there is"
        ]
    );
    assert!(snapshot.alert(&ConfigKey::alert("default", "a")).is_some());
    assert_eq!(&*snapshot.provider(&ConfigKey::provider("apps", "p")).unwrap().uid, "uid-p");
}

#[test]
fn the_first_of_two_counts_and_the_last_good_version_stays() {
    let good = [provider("p", json!({"type": "slack"})), alert("a", all_of("Kustomization"))];
    let (before, _) = compiled(&good);
    let second = Document { origin: "again.yaml, document 2".into(), ..alert("a", all_of("Bucket")) };
    let broken = with(good[0].clone(), "/spec/type", None);
    let (snapshot, findings) = compiled_with(&[broken.clone(), good[1].clone(), second], &before, &Options::default());
    assert_eq!(
        findings,
        [
            "[refused, ValidationFailed] p.yaml: Provider/apps/p: spec.type: is required (the version before stays in \
             force)",
            "[fine] a.yaml: Alert/apps/a: accepted",
            "[refused, Duplicate] again.yaml, document 2: Alert/apps/a: a.yaml holds it already, and that one counts",
        ]
    );
    assert_eq!(routes(&snapshot, &event("apps", "x", "info", "")), ["a to p"]);
    assert!(snapshot.provider(&ConfigKey::provider("apps", "p")).is_some());
    // What has no document any more is gone, and what never was good has nothing to keep.
    let (snapshot, _) = compiled_with(&[good[1].clone()], &snapshot, &Options::default());
    assert!(snapshot.provider(&ConfigKey::provider("apps", "p")).is_none());
    assert!(compiled(&[broken]).0.bodies().is_empty());
}

#[test]
fn an_event_goes_where_it_is_selected() {
    let spec = |extra: Value| {
        let mut spec = json!({
            "providerRef": {"name": "p"},
            "eventSources": [{"kind": "Kustomization", "name": "*"}, {"kind": "Kustomization", "name": "web"}],
        });
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let documents = [
        provider("p", json!({"type": "slack"})),
        provider("held", json!({"type": "slack", "suspend": true})),
        alert("errors", spec(json!({"eventSeverity": "error"}))),
        alert("every", spec(json!({}))),
        alert("held", spec(json!({"providerRef": {"name": "held"}}))),
        alert("included", spec(json!({"inclusionList": ["^Health", "(", r"\d ms"]}))),
        alert("missing", spec(json!({"providerRef": {"name": "nobody"}}))),
        alert("none", spec(json!({"inclusionList": ["("]}))),
        alert("other", spec(json!({"eventSources": [{"kind": "Kustomization", "name": "*", "namespace": "team"}]}))),
        alert("quiet", spec(json!({"exclusionList": ["(", "^Dependencies"]}))),
        alert("suspended", spec(json!({"suspend": true}))),
    ];
    let (snapshot, _) = compiled(&documents);
    let usual = ["every to p", "missing to nobody", "quiet to p"];
    assert_eq!(routes(&snapshot, &event("apps", "web", "info", "Applied")), usual);
    assert_eq!(routes(&snapshot, &event("apps", "web", "trace", "Applied")), usual);
    assert_eq!(
        routes(&snapshot, &event("apps", "web", "error", "Dependencies: 3 ms")),
        ["errors to p", "every to p", "included to p", "missing to nobody"]
    );
    assert_eq!(routes(&snapshot, &event("team", "web", "info", "")), ["other to p"]);
    assert!(routes(&snapshot, &event("", "", "info", "")).is_empty());
}

#[test]
fn all_namespaces_are_for_the_runtime_namespace() {
    let wide = || {
        let source = json!([{"kind": "Kustomization", "name": "*", "namespace": "*"}]);
        alert("wide", json!({"providerRef": {"name": "p"}, "eventSources": source}))
    };
    let options = |runtime: &str, no_cross_namespace_refs| Options {
        runtime_namespace: runtime.into(),
        no_cross_namespace_refs,
        ..Options::default()
    };
    for (options, expected) in [(options("apps", false), 1), (options("flux", false), 0), (options("apps", true), 0)] {
        let (snapshot, _) = compiled_with(&[wide()], &Snapshot::default(), &options);
        assert_eq!(routes(&snapshot, &event("team", "x", "info", "")).len(), expected, "{options:?}");
    }
}

#[test]
fn other_namespaces_can_be_blocked() {
    let source = json!([{"kind": "Kustomization", "name": "*", "namespace": "team"}]);
    let documents = [alert("a", json!({"providerRef": {"name": "p"}, "eventSources": source}))];
    let options = Options { no_cross_namespace_refs: true, ..Options::default() };
    let (snapshot, findings) = compiled_with(&documents, &Snapshot::default(), &options);
    assert!(findings[1].contains("'team' is another namespace, and references to those are blocked"), "{findings:?}");
    assert_eq!(
        routes(&snapshot, &event("team", "x", "info", "")),
        ["NotificationDispatchFailed: failed to dispatch notification for Kustomization/team/x: discarding event, \
          access denied to cross-namespace sources: alert 'apps/a' can't process event from 'Kustomization/team/x', \
          cross-namespace references have been blocked"]
    );
}

#[test]
fn labels_are_looked_up_in_the_object() {
    let source = |labels: Value| json!([{"kind": "Kustomization", "name": "*", "matchLabels": labels}]);
    let spec = |labels| json!({"providerRef": {"name": "p"}, "eventSources": source(labels)});
    let documents = [
        alert("any", spec(json!({}))),
        alert("both", spec(json!({"app": "web", "tier": "1"}))),
        alert("one", spec(json!({"tier": "1"}))),
        alert("wrong", spec(json!({"app": "db"}))),
    ];
    let (snapshot, _) = compiled(&documents);
    let mut index = ObjectIndex::default();
    index.apply(IndexedObject {
        kind: "Kustomization".into(),
        namespace: "apps".into(),
        name: "x".into(),
        labels: [("app", "web"), ("tier", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..IndexedObject::default()
    });
    let matched = snapshot.routes(&event("apps", "x", "info", ""), "", &index);
    let names: Vec<&str> = matched.routes.iter().map(|route| &*route.route.name).collect();
    assert_eq!((names, matched.notes.len()), (vec!["any", "both", "one"], 0));
    let matched = snapshot.routes(&event("apps", "y", "info", ""), "", &index);
    assert_eq!((matched.routes.len(), matched.notes.len()), (0, 4));
    assert_eq!(matched.notes[0].message, "error getting source object Kustomization/apps/y");
    assert_eq!(&*matched.notes[0].uid, "uid-any");
}

#[test]
fn types_that_take_status_updates_are_known() {
    for (type_, expected) in
        [("github", true), ("generic-hmac", true), ("slack", false), ("gitlabmergerequestcomment", false)]
    {
        let documents = [provider("p", json!({"type": type_})), alert("a", all_of("Kustomization"))];
        let matched = compiled(&documents).0.routes(&event("apps", "x", "info", ""), "", &ObjectIndex::default());
        assert_eq!(matched.routes[0].takes_status_updates, expected, "{type_}");
    }
    let (snapshot, _) = compiled(&[alert("a", all_of("Kustomization"))]);
    assert!(
        snapshot.routes(&event("apps", "x", "info", ""), "", &ObjectIndex::default()).routes[0].takes_status_updates
    );
}

#[test]
fn commit_statuses_are_refused_or_warned_of_with_the_reason() {
    let status = |name: &str, provider: &str, more: serde_json::Value| {
        let mut spec = json!({
            "providerRef": { "name": provider },
            "eventSources": [{ "kind": "Kustomization", "name": "*" }],
            "prefix": "dev",
        });
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta1", "kind": "CommitStatus",
            "metadata": { "name": name, "namespace": "apps" }, "spec": spec,
        })
    };
    let provider = |name: &str, type_: &str| {
        json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": "Provider",
            "metadata": { "name": name, "namespace": "apps" },
            "spec": { "type": type_, "address": "https://github.com/org/repo" },
        })
    };
    let documents = [
        provider("hub", "github"),
        provider("chat", "slack"),
        status("a", "hub", json!({})),
        status("b", "hub", json!({ "aggregate": "all" })),
        status("c", "hub", json!({ "eventSources": [{ "kind": "Kustomization", "name": "web" }] })),
        status("d", "hub", json!({ "prefix": "prod" })),
        status("e", "chat", json!({})),
        status("f", "hub", json!({ "contextExpr": "event.reason +" })),
        status("g", "hub", json!({ "prefix": "no spaces" })),
        status("h", "hub", json!({ "aggregate": "all", "contextExpr": "'x'" })),
        status("i", "none", json!({ "prefix": "i" })),
    ];
    let documents: Vec<_> = documents.into_iter().map(|value| Document { origin: String::new(), value }).collect();
    let (snapshot, findings) = compile(&documents, &Snapshot::default(), &Options::default());
    let told: Vec<_> = findings.iter().filter(|finding| finding.problem.is_some()).map(ToString::to_string).collect();
    insta::assert_yaml_snapshot!(told);
    let names: Vec<_> = snapshot.commit_statuses().map(|rule| rule.key.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "i"]);
    let again: Vec<_> =
        snapshot.bodies().into_iter().map(|(_, value)| Document { origin: String::new(), value }).collect();
    assert_eq!(compile(&again, &Snapshot::default(), &Options::default()).0.bodies(), snapshot.bodies());
}

fn github(expression: &str) -> Document {
    provider("p", json!({"type": "github", "commitStatusExpr": expression}))
}

#[test]
fn an_expression_that_does_not_compile_is_found_and_the_one_before_stays() {
    for (expression, expected) in [
        ("'a' + event.reason", "[fine] p.yaml: Provider/apps/p: accepted"),
        ("", "[fine] p.yaml: Provider/apps/p: accepted"),
        (
            "event.reason",
            "[refused, InvalidCELExpression] p.yaml: Provider/apps/p: spec.commitStatusExpr: failed to compile \
             expression: CEL expression output type mismatch: expected string, got dyn",
        ),
        (
            "'a' +",
            "[refused, InvalidCELExpression] p.yaml: Provider/apps/p: spec.commitStatusExpr: failed to compile \
             expression: 1:6: the expression ends where a value is expected",
        ),
    ] {
        assert_eq!(compiled(&[github(expression)]).1, [expected], "{expression}");
    }
    let (first, _) = compiled(&[github("'a'")]);
    let (second, findings) = compiled_with(&[github("nope")], &first, &Options::default());
    assert!(findings[0].ends_with("(the version before stays in force)"), "{findings:?}");
    assert_eq!(second.providers().next(), first.providers().next());
}

#[test]
fn the_id_of_a_commit_status_is_made_of_event_alert_and_provider() {
    let expression = "[event.involvedObject.kind, event.metadata.env, alert.metadata.name, provider.spec.type, \
                      provider.metadata.uid].join('/')";
    let (snapshot, findings) = compiled(&[github(expression), alert("a", all_of("Kustomization"))]);
    assert!(findings.iter().all(|finding| finding.starts_with("[fine]")), "{findings:?}");
    let (provider, alert) = (snapshot.providers().next().unwrap(), snapshot.alerts().next().unwrap());
    let id = |severity: &str, metadata: &[(&str, &str)]| {
        let mut event = event("apps", "x", severity, "");
        event.metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        provider.commit_status_id(&event, alert).map_err(|error| error.to_string())
    };
    let made = Ok(Some("Kustomization/prod/a/github/uid-p".to_owned()));
    assert_eq!(id("error", &[("env", "prod")]), made);
    assert_eq!(id("info", &[("env", "prod"), ("commit", "abc")]), made);
    assert_eq!(id("info", &[("env", "prod"), ("commit_status", "update")]), made);
    // No commit hears of this one, so it needs no id, and can't fail for want of one.
    assert_eq!(id("info", &[]), Ok(None));
    assert_eq!(id("error", &[]), Err("1:34: no such key: metadata".into()));
    let (snapshot, _) = compiled(&[github("")]);
    assert_eq!(
        snapshot.providers().next().unwrap().commit_status_id(&event("apps", "x", "error", ""), alert),
        Ok(None)
    );
}

#[test]
fn a_gate_leaves_commit_statuses_to_those_who_are_called_so() {
    let gate_is_off = Options { no_alert_commit_status: true, ..Options::default() };
    let posts = |type_: &str| belfry_api::COMMIT_STATUS_TYPES.contains(&type_);
    for type_ in belfry_api::PROVIDER_TYPES {
        let mut spec = json!({"type": type_, "address": "https://example.com/org/repo"});
        spec["secretRef"] = json!({"name": "token"});
        let documents = [provider("p", spec), alert("a", all_of("Kustomization"))];
        let event = event("apps", "x", "info", "");
        let (open, findings) = compiled(&documents);
        assert_eq!(routes(&open, &event), ["a to p"], "{type_}: {findings:?}");
        // Nor does the version before stay in force.
        let (shut, findings) = compiled_with(&documents, &open, &gate_is_off);
        let said =
            findings.iter().any(|line| line.contains("CommitStatusNeeded") && line.contains("use a CommitStatus"));
        assert_eq!(said, posts(type_), "{type_}: {findings:?}");
        assert_eq!(routes(&shut, &event).is_empty(), posts(type_), "{type_}");
        assert_eq!(shut.alerts().len(), usize::from(!posts(type_)), "{type_}");
        // With the gate, or another Provider, it is what it was.
        let (again, _) = compiled_with(&documents, &shut, &Options::default());
        assert_eq!(routes(&again, &event), ["a to p"], "{type_}");
    }
}
