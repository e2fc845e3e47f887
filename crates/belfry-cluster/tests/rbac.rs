//! The role in `deploy/rbac.yaml` is the least one: that it suffices, all the other tests show.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use k8s_openapi::{
    api::coordination::v1::Lease,
    api::core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;
use support::{CONFIG, NAMESPACE, SOON, cluster, definitions};

fn refused<T: std::fmt::Debug>(what: &str, answer: kube::Result<T>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what} is not forbidden: {other:?}"),
    }
}

fn configuration(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("notification.toolkit.fluxcd.io", "v1beta3", kind);
    Api::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&gvk))
}

#[tokio::test]
async fn what_belfry_does_not_do_it_may_not_do() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("rbac").await.unwrap();
    cluster.apply_yaml_in(&namespace, CONFIG).await.unwrap();
    let client = cluster.service_account(NAMESPACE, "belfry").await.unwrap();
    let list = ListParams::default();
    let providers = configuration(&client, &namespace, "Provider");
    testkit::until("the role counts", SOON, || async { Ok(providers.list(&list).await?) }).await.unwrap();

    let secrets = Api::<Secret>::all(client.clone());
    refused("listing Secrets", secrets.list(&list).await);
    refused("listing a namespace's Secrets", Api::<Secret>::namespaced(client.clone(), NAMESPACE).list(&list).await);
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);
    refused("watching Secrets", secrets.watch(&Default::default(), "0").await.map(drop));
    refused("deleting a Secret", secrets.delete("any", &DeleteParams::default()).await);
    refused(
        "writing a Secret",
        secrets.create(&PostParams::default(), &Secret { metadata: name("any"), ..Default::default() }).await,
    );

    let objects = ApiResource::from_gvk(&GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"));
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &objects);
    refused("deleting a Kustomization", objects.delete("any", &DeleteParams::default()).await);

    for kind in ["Provider", "Alert"] {
        let api = configuration(&client, &namespace, kind);
        let object = if kind == "Provider" { "chat" } else { "on-call" };
        let found = api.get(object).await.unwrap();
        refused("replacing", api.replace(object, &PostParams::default(), &found).await);
        refused("deleting", api.delete(object, &DeleteParams::default()).await);
        refused(
            "creating",
            api.create(&PostParams::default(), &DynamicObject { metadata: name("other"), ..found }).await,
        );
    }
    refused("reading a ConfigMap", Api::<ConfigMap>::namespaced(client.clone(), &namespace).get_opt("any").await);
    refused("listing Pods", Api::<Pod>::all(client.clone()).list(&list).await);
    refused("listing Events", Api::<Event>::all(client.clone()).list(&list).await);
    refused(
        "a token of its own making",
        Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE)
            .create_token_request("belfry", &PostParams::default(), &Default::default())
            .await,
    );
    let leases = Api::<Lease>::namespaced(client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    refused("listing Leases", leases.list(&list).await);
    refused("another's Lease", leases.get_opt("kustomize-controller-leader-election").await);
    refused("taking another's Lease", leases.patch("other", &PatchParams::default(), &patch).await);
    refused("deleting its Lease", leases.delete("belfry", &DeleteParams::default()).await);
    refused("a Lease elsewhere", Api::<Lease>::namespaced(client.clone(), &namespace).get_opt("belfry").await);
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    refused("listing CRDs", crds.list(&list).await);
    refused("a CRD that isn't ours", crds.get_opt("kustomizations.kustomize.toolkit.fluxcd.io").await);
    for (ours, _) in definitions().unwrap().unwrap() {
        crds.get(&ours).await.unwrap();
        refused("changing a CRD", crds.patch(&ours, &PatchParams::default(), &patch).await);
    }
}

fn name(name: &str) -> kube::core::ObjectMeta {
    kube::core::ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}
