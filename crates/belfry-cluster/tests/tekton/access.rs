//! Whose run sees what, by the cluster's own rules.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use anyhow::ensure;
use belfry_cluster::{Access, Cluster, May, User};
use belfry_core::rollout::Phase;
use futures::FutureExt as _;
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    harness::{Belfry, Readable, Runs, cluster, listeners, resource, result},
    support::{NAMESPACE, SOON, belfry},
    world::World,
};

const APP: &str = "Kustomization/flux-system/app";
const WEB: &str = "Kustomization/flux-system/web";

/// By SubjectAccessReviews of single objects.
fn reviewed(cluster: Cluster) -> May {
    Arc::new(move |account, object| {
        let cluster = cluster.clone();
        async move {
            let user = User::service_account(&account.namespace, &account.name);
            let (group, namespace, name) = (&*object.group, &*object.namespace, &*object.name);
            let access = Access { verb: "get", group, resource: "kustomizations", namespace, name };
            cluster.allows(&user, access).await
        }
        .boxed()
    })
}

/// Lets a ServiceAccount get one Kustomization.
async fn allow(runs: &Runs<'_>, account: &str, name: &str) {
    let api = "rbac.authorization.k8s.io";
    let metadata = json!({ "name": format!("{account}-{}", runs.namespace), "namespace": "flux-system" });
    let role = json!({
        "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [{
            "apiGroups": ["kustomize.toolkit.fluxcd.io"], "resources": ["kustomizations"], "resourceNames": [name],
            "verbs": ["get"],
        }],
    });
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": api, "kind": "Role", "name": metadata["name"] },
        "subjects": [{ "kind": "ServiceAccount", "name": account, "namespace": runs.namespace }],
    });
    for object in [role, binding] {
        runs.cluster.apply_yaml(&object.to_string()).await.unwrap();
    }
}

fn message(run: &Value) -> &str {
    run["status"]["conditions"][0]["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_run_may_read_what_its_service_account_may_get() {
    let Some(cluster) = cluster().await else { return };
    let runs = Runs { cluster, namespace: cluster.namespace("access").await.unwrap() };
    allow(&runs, "builder", "app").await;
    allow(&runs, "default", "web").await;
    let world = World::new();
    let may = reviewed(belfry(cluster, &runs.namespace).await);
    let _belfry = Belfry::start(cluster, &runs.namespace, &world, may).await;
    let builder = || json!({ "serviceAccountName": "builder" });
    world.happens("a", WEB, Phase::Failed, "BuildFailed");
    world.happens("a", APP, Phase::Succeeded, "ReconciliationSucceeded");

    for (name, objects, more, status, reason, says) in [
        ("own", json!([APP]), builder(), "True", "ReconciliationSucceeded", APP),
        // Without a name it is `default`.
        ("default", json!([WEB]), json!({}), "False", "ReconciliationFailed", WEB),
        ("other", json!([WEB]), builder(), "False", "NotPermitted", WEB),
        ("one-of-both", json!([APP, WEB]), builder(), "False", "NotPermitted", WEB),
        ("any", json!([]), builder(), "True", "ReconciliationSucceeded", APP),
        ("pattern", json!("Kustomization/flux-system/*"), builder(), "True", "ReconciliationSucceeded", APP),
    ] {
        runs.create(name, json!({ "revision": "a", "objects": objects }), more).await;
        let done = runs.custom(name, status, reason).await;
        assert!(message(&done).contains(says), "{name}: {}", message(&done));
        let status = done["status"].to_string();
        let named = objects.to_string();
        for object in [APP, WEB].into_iter().filter(|object| *object != says && !named.contains(object)) {
            assert!(!status.contains(object), "{name} is told of {object}: {status}");
        }
    }

    // One that may see nothing is told so, and sees what comes that it may.
    world.happens("b", WEB, Phase::Progressing, "Progressing");
    runs.create("blind", json!({ "revision": "b" }), builder()).await;
    let told = runs.told("blind", "NotPermitted").await;
    assert!(!told.iter().any(|event| event.to_string().contains("web")), "{told:?}");
    world.happens("b", APP, Phase::Succeeded, "ReconciliationSucceeded");
    let done = runs.custom("blind", "True", "ReconciliationSucceeded").await;
    assert_eq!(result(&done, "object"), APP);
}

#[tokio::test]
async fn what_was_allowed_may_be_forbidden_meanwhile() {
    let Some(cluster) = cluster().await else { return };
    let runs = Runs { cluster, namespace: cluster.namespace("revoked").await.unwrap() };
    let world = World::new();
    let these = Arc::new(Mutex::new(BTreeSet::from([APP.to_owned()])));
    let readable = Readable::These(these.clone());
    let _belfry = Belfry::start(cluster, &runs.namespace, &world, readable.may()).await;
    runs.create("wait", json!({ "revision": "a" }), json!({})).await;
    listeners(&world, 1).await;
    these.lock().unwrap().clear();
    world.happens("a", APP, Phase::Failed, "BuildFailed");
    let says = &format!("ServiceAccount {}/default may get none of the objects yet", runs.namespace);
    testkit::until("it hears nothing of it", SOON, || async {
        let run = runs.get("wait").await;
        ensure!(message(&run) == says, "{run}");
        ensure!(!run["status"].to_string().contains("app"), "{run}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn belfry_may_write_the_status_of_runs_and_nothing_else_of_them() {
    let Some(cluster) = cluster().await else { return };
    let runs = Runs { cluster, namespace: cluster.namespace("least").await.unwrap() };
    let client = cluster.service_account(NAMESPACE, "belfry").await.unwrap();
    for kind in ["CustomRun", "Run"] {
        let reference = json!({ "apiVersion": "example.dev/v1", "kind": "Other" });
        let name = kind.to_lowercase();
        let run = runs.create_as(kind, &name, reference, json!({}), json!({})).await;
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &runs.namespace, &resource(kind));
        let how = PatchParams::default();
        let status = Patch::Merge(json!({ "status": { "extraFields": { "seen": true } } }));
        testkit::until("the role counts", SOON, || async { Ok(api.patch_status(&name, &how, &status).await?) })
            .await
            .unwrap();
        let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
        for (what, answer) in [
            ("changing", api.patch(&name, &how, &label).await.map(drop)),
            ("replacing", api.replace(&name, &PostParams::default(), &run).await.map(drop)),
            ("creating", api.create(&PostParams::default(), &run).await.map(drop)),
            ("deleting", api.delete(&name, &DeleteParams::default()).await.map(drop)),
        ] {
            let refused = matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403);
            assert!(refused, "{what} a {kind} is not forbidden: {answer:?}");
        }
    }
}
