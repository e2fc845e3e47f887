//! The cluster is a real one.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Api, DynamicObject, ListParams, ObjectMeta, PostParams};
use testkit::Cluster;

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn an_object_is_created_and_read_in_a_namespace_of_ones_own() {
    let Some(cluster) = Cluster::shared().await else { return };
    let namespace = cluster.namespace("objects").await.unwrap();
    assert!(namespace.starts_with("objects-"));
    assert_ne!(namespace, cluster.namespace("objects").await.unwrap());

    let maps = Api::<ConfigMap>::namespaced(cluster.admin(), &namespace);
    maps.create(&PostParams::default(), &config_map("one")).await.unwrap();
    assert!(maps.get("one").await.unwrap().metadata.uid.is_some());
    let version = cluster.admin().apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"), "{version:?}");
}

#[tokio::test]
async fn a_service_account_may_only_do_what_its_role_allows() {
    let Some(cluster) = Cluster::shared().await else { return };
    let namespace = cluster.namespace("rbac").await.unwrap();
    let client = cluster.service_account(&namespace, "belfry").await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), &namespace);

    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&refused), Some(403), "{refused}");

    let role = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: read-secrets }
rules: [{ apiGroups: [''], resources: [secrets], verbs: [list] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: read-secrets }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: read-secrets }
subjects: [{ kind: ServiceAccount, name: belfry, namespace: NAMESPACE }]
";
    cluster.apply_yaml_in(&namespace, &role.replace("NAMESPACE", &namespace)).await.unwrap();
    let list = ListParams::default();
    // The authorizer reads its roles from a watch.
    let allowed = testkit::until("the role counts", std::time::Duration::from_secs(10), || async {
        Ok(secrets.list(&list).await?)
    });
    assert!(allowed.await.unwrap().items.is_empty());

    let elsewhere = Api::<Secret>::namespaced(client, "default").list(&ListParams::default()).await.unwrap_err();
    assert_eq!(code(&elsewhere), Some(403));
}

#[tokio::test]
async fn a_kubeconfig_is_the_service_account() {
    let Some(cluster) = Cluster::shared().await else { return };
    let namespace = cluster.namespace("kubeconfig").await.unwrap();
    let path = cluster.kubeconfig_for(&namespace, "belfry").await.unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(path).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    assert_eq!(config.default_namespace, namespace);

    let client = kube::Client::try_from(config).unwrap();
    let review = serde_json::json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .unwrap();
    let who: serde_json::Value = client.request(request).await.unwrap();
    assert_eq!(who["status"]["userInfo"]["username"], format!("system:serviceaccount:{namespace}:belfry"));

    let admin = kube::config::Kubeconfig::read_from(cluster.admin_kubeconfig().unwrap()).unwrap();
    assert_eq!(admin.clusters[0].cluster.as_ref().unwrap().server, Some(cluster.url()));
}

#[tokio::test]
async fn definitions_are_served_before_their_objects_are_applied_and_a_status_is_kept() {
    let Some(cluster) = Cluster::shared().await else { return };
    let namespace = cluster.namespace("crds").await.unwrap();
    // The object stands before its definition, and carries what a recorded object carries.
    let yaml = r"
apiVersion: test.example.com/v1
kind: Bell
metadata: { name: tenor, uid: 0c0d3a3e-0000-4000-8000-000000000000, resourceVersion: '7', generation: 3 }
spec: { pounds: 4200 }
status: { rung: true }
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: bells.test.example.com }
spec:
  group: test.example.com
  scope: Namespaced
  names: { plural: bells, singular: bell, kind: Bell }
  versions:
  - name: v1
    served: true
    storage: true
    subresources: { status: {} }
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
";
    cluster.apply_yaml_in(&namespace, yaml).await.unwrap();
    // Again: as `kubectl apply` may be.
    cluster.apply_yaml_in(&namespace, yaml).await.unwrap();

    let gvk = kube::core::GroupVersionKind::gvk("test.example.com", "v1", "Bell");
    let (bells, _) = kube::discovery::pinned_kind(&cluster.admin(), &gvk).await.unwrap();
    let bell = Api::<DynamicObject>::namespaced_with(cluster.admin(), &namespace, &bells).get("tenor").await.unwrap();
    assert_eq!(bell.data["spec"]["pounds"], 4200);
    assert_eq!(bell.data["status"]["rung"], true);

    let unplaced = cluster.apply_yaml(yaml).await.unwrap_err();
    assert_eq!(format!("{unplaced:#}"), "Bell tenor names no namespace");
}

#[tokio::test]
async fn the_published_definitions_of_flux_and_tekton_are_served() {
    let Some(cluster) = Cluster::shared().await else { return };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/crds");
    if !folder.is_dir() {
        return testkit::skip("the recorded CRDs are missing beside the project");
    }
    cluster.apply_path(&folder).await.unwrap();
    for (group, version, kind) in [
        ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"),
        ("notification.toolkit.fluxcd.io", "v1beta3", "Alert"),
        ("tekton.dev", "v1beta1", "CustomRun"),
    ] {
        let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
        kube::discovery::pinned_kind(&cluster.admin(), &gvk).await.unwrap();
    }
}

#[tokio::test]
async fn the_api_server_goes_down_and_comes_back_with_what_it_stored() {
    let Some(cluster) = Cluster::start_or_skip().await else { return };
    let namespace = cluster.namespace("kept").await.unwrap();
    let client = cluster.service_account(&namespace, "belfry").await.unwrap();
    let url = cluster.url();

    cluster.stop_apiserver().unwrap();
    cluster.stop_apiserver().unwrap();
    let down = client.apiserver_version().await.unwrap_err();
    assert_eq!(code(&down), None, "{down}");
    let address = url.trim_start_matches("https://");
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    cluster.start_apiserver().await.unwrap();
    assert_eq!(cluster.url(), url);
    // The same client, the same token: as a program under test finds it.
    client.apiserver_version().await.unwrap();
    Api::<Namespace>::all(cluster.admin()).get(&namespace).await.unwrap();
}
