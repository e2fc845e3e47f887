//! Served CRDs against expected ones, with all that an API server fills in.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use support::{allowed, belfry, cluster, definitions};

#[tokio::test]
async fn ours_are_ours_until_somebody_changes_them() {
    let Some(cluster) = cluster().await else { return };
    let belfry = belfry(cluster, "default").await;
    allowed(&belfry, "default").await;
    let expected: Vec<Value> =
        definitions().unwrap().unwrap().iter().map(|(_, yaml)| serde_saphyr::from_str(yaml).unwrap()).collect();
    assert_eq!(expected.len(), 4);
    assert_eq!(belfry.crd_differences(&expected).await.unwrap(), [""; 0]);

    let name = "alerts.notification.toolkit.fluxcd.io";
    let crds = Api::<CustomResourceDefinition>::all(cluster.admin());
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/eventSeverity";
    let mut served = serde_json::to_value(crds.get(name).await.unwrap()).unwrap();
    served.pointer_mut(path).unwrap()["enum"] = json!(["info", "error", "trace"]);
    served.pointer_mut(path).unwrap()["description"] = json!("words");
    let patch = Patch::Merge(json!({ "spec": { "versions": served["spec"]["versions"] } }));
    crds.patch(name, &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(
        belfry.crd_differences(&expected).await.unwrap(),
        [format!("{name}: v1beta3 spec eventSeverity enum differs")]
    );

    crds.delete(name, &Default::default()).await.unwrap();
    testkit::until("it is gone", support::SOON, || async {
        anyhow::ensure!(belfry.crd_differences(&expected).await? == [format!("{name} is not installed")]);
        Ok(())
    })
    .await
    .unwrap();

    let foreign = json!({ "metadata": { "name": "bells.example.com" } });
    let error = belfry.crd_differences(&[foreign]).await.unwrap_err();
    assert!(error.to_string().starts_with("reading the CRD bells.example.com: the API server forbids it: "), "{error}");
}
