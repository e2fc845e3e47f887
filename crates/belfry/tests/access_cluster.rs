//! Who may read what in a cluster, by the rules of a real API server, which is asked as the ServiceAccount of `deploy/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that can't go on should say where")]

mod common;

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::ensure;
use axum::extract::ConnectInfo;
use belfry::{
    access::{Access, Denied, Parts},
    api::Caller,
};
use belfry_core::{ConfigKey, ObjectKey};
use bytes::Bytes;
use common::{PATIENCE, client, event, program};
use http::{Request, header};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{Cluster, port, until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Who is bound to which role where.
const RULES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: flux-reader}
rules:
- apiGroups: [kustomize.toolkit.fluxcd.io, helm.toolkit.fluxcd.io, source.toolkit.fluxcd.io]
  resources: ['*']
  verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: alert-editor}
rules:
- {apiGroups: [notification.toolkit.fluxcd.io], resources: [alerts], verbs: [update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: eu-reader}
rules:
- {apiGroups: [belfry.dev], resources: [clusters], resourceNames: [eu], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: local-reporter}
rules:
- {apiGroups: [belfry.dev], resources: [clusters], resourceNames: [local], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: shop, namespace: apps}
rules:
- {apiGroups: [kustomize.toolkit.fluxcd.io], resources: [kustomizations], resourceNames: [shop], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: shop, namespace: apps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: shop}
subjects: [{kind: ServiceAccount, name: shop, namespace: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: apps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: flux-reader}
subjects: [{kind: ServiceAccount, name: tenant, namespace: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant-alerts, namespace: apps}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: alert-editor}
subjects: [{kind: ServiceAccount, name: tenant, namespace: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: auditor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: flux-reader}
subjects: [{kind: ServiceAccount, name: auditor, namespace: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: europe}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: eu-reader}
subjects: [{kind: ServiceAccount, name: europe, namespace: people}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: build}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: local-reporter}
subjects: [{kind: ServiceAccount, name: build, namespace: people}]
";
const PEOPLE: [&str; 6] = ["shop", "tenant", "auditor", "europe", "build", "nobody"];

async fn installed() -> Option<Cluster> {
    let cluster = Cluster::start_or_skip().await?;
    for namespace in ["flux-system", "apps", "infra", "people"] {
        let manifest = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}");
        cluster.apply_yaml(&manifest).await.unwrap();
    }
    cluster.apply_path(Path::new(ROOT).join("config/crd")).await.unwrap();
    cluster.apply_path(Path::new(ROOT).join("deploy/rbac.yaml")).await.unwrap();
    cluster.apply_yaml(RULES).await.unwrap();
    for name in PEOPLE {
        cluster.service_account("people", name).await.unwrap();
    }
    Some(cluster)
}

/// What `kubectl create token NAME --audience AUDIENCE` prints.
async fn token(cluster: &Cluster, name: &str, audience: &str) -> String {
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin(), "people");
    let wanted = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &wanted).await.unwrap();
    answer.status.unwrap().token
}

async fn access(cluster: &Cluster, local: &str) -> Arc<Access> {
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let settings = belfry_cluster::Settings { kubeconfig: Some(kubeconfig), qps: 0.0, ..Default::default() };
    let parts = Parts {
        token: None,
        file: None,
        cluster: Some(Arc::new(belfry_cluster::connect(&settings).await.unwrap())),
        local: local.to_owned(),
        trust_loopback: false,
        clients: Arc::new(belfry_http::Clients::new()),
    };
    Access::new(parts).await.unwrap()
}

fn request(token: &str) -> Request<Bytes> {
    let peer: SocketAddr = "10.1.2.3:4567".parse().unwrap();
    let mut request = Request::get("/api/v1/rollouts").body(Bytes::new()).unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    if !token.is_empty() {
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// `Kind/namespace/name` of a cluster; the unnamed object is `//`.
fn object(cluster: &str, text: &str) -> ObjectKey {
    let parts: Vec<&str> = text.split('/').collect();
    let group = match parts[0] {
        "Kustomization" => "kustomize.toolkit.fluxcd.io",
        "GitRepository" => "source.toolkit.fluxcd.io",
        "Terraform" => "infra.contrib.fluxcd.io",
        _ => "",
    };
    let [kind, namespace, name] = [parts[0], parts[1], parts[2]].map(str::to_owned);
    ObjectKey { cluster: cluster.to_owned(), group: group.to_owned(), kind, namespace, name }
}

const OBJECTS: [(&str, &str); 8] = [
    ("", "Kustomization/apps/shop"),
    ("", "Kustomization/apps/cart"),
    ("", "GitRepository/apps/shop"),
    ("", "Kustomization/infra/shop"),
    ("", "Terraform/apps/shop"),
    ("", "//"),
    ("eu", "Kustomization/apps/shop"),
    ("us", "Kustomization/apps/shop"),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_what() {
    let Some(cluster) = installed().await else { return };
    let access = access(&cluster, "").await;
    for (name, expected, redelivers, posts) in [
        ("shop", &[0][..], false, false),
        ("tenant", &[0, 1, 2], true, false),
        ("auditor", &[0, 1, 2, 3], false, false),
        ("europe", &[6], false, false),
        ("build", &[5], false, true),
        ("nobody", &[], false, false),
    ] {
        let token = token(&cluster, name, "belfry").await;
        // The API server's authorizer learns of new rules in a moment; answers are remembered for a while.
        let readable = until(&format!("the rules for {name} to count"), PATIENCE, async || {
            let caller = access.caller(&request(&token)).await.map_err(|denied| anyhow::anyhow!("{denied:?}"))?;
            let mut readable = Vec::new();
            for (at, (of, text)) in OBJECTS.iter().enumerate() {
                if caller.may_read(&object(of, text)).await.unwrap() {
                    readable.push(at);
                }
            }
            ensure!(readable == expected, "{readable:?}");
            Ok(caller)
        })
        .await
        .unwrap();
        let all: Vec<ObjectKey> = OBJECTS.iter().rev().map(|(of, text)| object(of, text)).collect();
        let list = readable.readable([all.clone(), all].concat(), |object| object).await.unwrap();
        assert_eq!(list.len(), 2 * expected.len(), "{name}");
        assert!(list.windows(2).take(expected.len().saturating_sub(1)).all(|two| two[0] != two[1]), "in their order");

        let alert = |namespace| ConfigKey::alert(namespace, "on-call");
        assert_eq!(readable.may_redeliver(&alert("apps")).await.unwrap(), redelivers, "{name}");
        assert!(!readable.may_redeliver(&alert("infra")).await.unwrap());
        assert!(!readable.may_redeliver(&ConfigKey::receiver("apps", "on-call")).await.unwrap());
        assert!(!readable.may_redeliver(&ConfigKey::cluster()).await.unwrap());
        match access.sender(&request(&token)).await {
            Ok(sender) => assert!(posts && sender.cluster.is_empty(), "{name}"),
            Err(Denied::Forbidden(_)) => assert!(!posts, "{name}"),
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_cluster_is_asked_about_by_its_name() {
    let Some(cluster) = installed().await else { return };
    let access = access(&cluster, "eu").await;
    let token = token(&cluster, "europe", "belfry").await;
    until("the rules to count", PATIENCE, async || {
        let caller = access.caller(&request(&token)).await.map_err(|denied| anyhow::anyhow!("{denied:?}"))?;
        ensure!(caller.may_read(&object("eu", "//")).await.unwrap());
        assert!(!caller.may_read(&object("", "//")).await.unwrap());
        // An object of its own is asked about as such.
        assert!(!caller.may_read(&object("eu", "Kustomization/apps/shop")).await.unwrap());
        Ok(())
    })
    .await
    .unwrap();
}

async fn denied(access: &Access, token: &str) -> u16 {
    match access.caller(&request(token)).await {
        Ok(caller) => panic!("{caller:?} is let in"),
        Err(denied) => axum::response::IntoResponse::into_response(denied).status().as_u16(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_shuts_everybody_out_and_a_deleted_account_stays_out() {
    let Some(cluster) = installed().await else { return };
    let access = access(&cluster, "").await;
    let (auditor, nobody) = (token(&cluster, "auditor", "belfry").await, token(&cluster, "nobody", "belfry").await);
    let general = cluster.token("people", "auditor").await.unwrap();
    let shop = object("", "Kustomization/apps/shop");
    for wrong in ["", "x.y.z", &general, &token(&cluster, "auditor", "vault").await] {
        assert_eq!(denied(&access, wrong).await, 401);
    }
    let caller = until("the rules to count", PATIENCE, async || {
        let caller = access.caller(&request(&auditor)).await.map_err(|denied| anyhow::anyhow!("{denied:?}"))?;
        ensure!(caller.may_read(&shop).await.unwrap());
        Ok(caller)
    })
    .await
    .unwrap();
    cluster.stop_apiserver().unwrap();
    assert_eq!(denied(&access, &nobody).await, 503);
    until("what is remembered to be forgotten", PATIENCE, async || {
        ensure!(status(&caller, &shop).await == Some(503));
        Ok(())
    })
    .await
    .unwrap();
    cluster.start_apiserver().await.unwrap();
    until("the API server to be asked again", PATIENCE, async || {
        ensure!(status(&caller, &shop).await.is_none());
        Ok(())
    })
    .await
    .unwrap();
    // A stream that is open asks again, and ends.
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin(), "people");
    accounts.delete("auditor", &DeleteParams::default()).await.unwrap();
    until("the token to be no good", PATIENCE, async || {
        ensure!(status(&caller, &shop).await == Some(401));
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(denied(&access, &auditor).await, 401);
}

/// The status that asking ends with.
async fn status(caller: &Caller, object: &ObjectKey) -> Option<u16> {
    let problem = caller.may_read(object).await.err()?;
    Some(axum::response::IntoResponse::into_response(problem).status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_this_machine_is_a_stranger() {
    let Some(cluster) = installed().await else { return };
    let kubeconfig = cluster.kubeconfig_for("flux-system", "belfry").await.unwrap();
    let address = || format!("127.0.0.1:{}", port::free().unwrap());
    let [events, receivers, api, metrics, health] = std::array::from_fn(|_| address());
    let data = tempfile::tempdir().unwrap();
    let mut process = program()
        .args(["serve", "--log-encoding", "console", "--kubeconfig", kubeconfig.to_str().unwrap()])
        .args(["--events-addr", &events, "--api-addr", &api, "--metrics-addr", &metrics, "--health-addr", &health])
        .args(["--receiverAddr", &receivers, "--data", data.path().to_str().unwrap()])
        .env("RUNTIME_NAMESPACE", "flux-system")
        .spawn()
        .unwrap();
    process.wait_for_http(&format!("http://{health}/readyz"), PATIENCE).await.unwrap();
    let list = || client().get(format!("http://{api}/api/v1/rollouts"));
    let post = || client().post(format!("http://{api}/events")).json(&event("shop", "info", "posted"));
    for (what, request) in [("a list", list()), ("an event", post())] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{what}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{what}");
    }
    let build = token(&cluster, "build", "belfry").await;
    until("the rules to count", PATIENCE, async || {
        let status = post().bearer_auth(&build).send().await?.status();
        ensure!(status == 202, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    // What nobody vouches for says nothing of the unnamed object, in whatever form it comes.
    let unnamed = |revision: &str| json!({"reason": "ReconciliationSucceeded", "metadata": {"revision": revision}});
    let forged = client().post(format!("http://{events}/")).header("Gotk-Component", "kustomize-controller");
    for revision in ["forged", "built"] {
        let forged = forged.try_clone().unwrap().json(&unnamed(revision));
        assert_eq!(forged.send().await.unwrap().status().as_u16(), 202);
    }
    let built = client().post(format!("http://{api}/events")).bearer_auth(&build).json(&unnamed("built"));
    assert_eq!(built.send().await.unwrap().status().as_u16(), 202);
    let answer = list().bearer_auth(&build).send().await.unwrap();
    let rollouts: Value = answer.json().await.unwrap();
    // Of what it posted it sees what it may get, and that isn't the Kustomization.
    let rollouts = rollouts["items"].as_array().unwrap().iter();
    let told: Vec<_> = rollouts.map(|rollout| (&rollout["revision"], &rollout["state"])).collect();
    assert_eq!(told, [(&json!("built"), &json!("succeeded"))]);
    let nobody = token(&cluster, "nobody", "belfry").await;
    let seen: Value = list().bearer_auth(&nobody).send().await.unwrap().json().await.unwrap();
    assert_eq!(seen, json!({"items": []}), "no totals of others either");
    assert_eq!(post().bearer_auth(&nobody).send().await.unwrap().status().as_u16(), 403);
    let log = process.lines().join("\n");
    assert!(!log.contains(&build) && !log.contains(&nobody), "a token is in the log");
}
