//! Tokens and permissions as a real API server sees them, asked as the ServiceAccount of `deploy/`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail as tests do")]

mod support;

use anyhow::ensure;
use belfry_cluster::{AUDIENCE, Access, User};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};
use serde_json::json;
use support::{SOON, allowed, belfry, cluster};

async fn token(cluster: &testkit::Cluster, namespace: &str, name: &str, audience: &str) -> String {
    let spec = TokenRequestSpec { audiences: vec![audience.to_owned()], ..TokenRequestSpec::default() };
    let accounts = Api::<ServiceAccount>::namespaced(cluster.admin(), namespace);
    let wanted = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(name, &PostParams::default(), &wanted).await.unwrap();
    answer.status.unwrap().token
}

#[tokio::test]
async fn a_token_counts_if_it_was_made_for_belfry_and_its_owner_may_what_roles_allow() {
    let Some(cluster) = cluster().await else { return };
    let namespace = cluster.namespace("reviews").await.unwrap();
    let belfry = belfry(cluster, &namespace).await;
    allowed(&belfry, &namespace).await;
    // One for the API server itself is no token for Belfry.
    let general = cluster.token(&namespace, "ci").await.unwrap();
    assert_eq!(belfry.review_token(&general).await.unwrap(), None);
    assert_eq!(belfry.review_token(&token(cluster, &namespace, "ci", "other").await).await.unwrap(), None);
    assert_eq!(belfry.review_token("x.y.z").await.unwrap(), None);
    let user = belfry.review_token(&token(cluster, &namespace, "ci", AUDIENCE).await).await.unwrap().unwrap();
    let account = User::service_account(&namespace, "ci");
    assert_eq!((&user.name, user.uid.is_empty()), (&account.name, false));
    assert!(account.groups.iter().all(|group| user.groups.contains(group)), "{user:?}");

    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "one" },
        "rules": [{
            "apiGroups": ["kustomize.toolkit.fluxcd.io"], "resources": ["kustomizations"],
            "resourceNames": ["shop"], "verbs": ["get"],
        }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "one" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one" },
        "subjects": [{ "kind": "ServiceAccount", "name": "ci", "namespace": namespace }],
    });
    cluster.apply_yaml_in(&namespace, &role.to_string()).await.unwrap();
    cluster.apply_yaml_in(&namespace, &binding.to_string()).await.unwrap();
    let shop = Access {
        verb: "get",
        group: "kustomize.toolkit.fluxcd.io",
        resource: "kustomizations",
        namespace: &namespace,
        name: "shop",
    };
    testkit::until("the role counts", SOON, || async {
        // Each time somebody else, or the answer would come from memory.
        ensure!(belfry.allows(&User { uid: format!("{:?}", std::time::Instant::now()), ..user.clone() }, shop).await?);
        Ok(())
    })
    .await
    .unwrap();
    // What the token makes of its owner, and what Belfry makes of the name, comes to the same.
    for user in [&user, &account] {
        assert!(belfry.allows(user, shop).await.unwrap());
        for other in [
            Access { name: "cart", ..shop },
            Access { name: "", ..shop },
            Access { namespace: "", ..shop },
            Access { namespace: "flux-system", ..shop },
            Access { verb: "update", ..shop },
            Access { resource: "gitrepositories", ..shop },
            Access { group: "helm.toolkit.fluxcd.io", ..shop },
        ] {
            assert!(!belfry.allows(user, other).await.unwrap(), "{other:?}");
        }
    }
    assert!(!belfry.allows(&User::service_account(&namespace, "other"), shop).await.unwrap());
}
