//! Ways into the cluster: as its administrator, to prepare a test, and as a ServiceAccount with a real token, which is
//! how a program under test runs, so that what its roles lack shows.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Client, Config,
    api::{Api, ObjectMeta, PostParams},
    config::AuthInfo,
};
use serde_json::{Value, json};

use super::Cluster;

impl Cluster {
    /// A client that may do everything.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn admin(&self) -> Client {
        let auth = AuthInfo {
            client_certificate: Some(self.certificates.admin.display().to_string()),
            client_key: Some(self.certificates.admin_key.display().to_string()),
            ..AuthInfo::default()
        };
        self.client(auth).unwrap_or_else(|error| panic!("the cluster's own certificates make no client: {error:#}"))
    }

    /// A client that is the ServiceAccount `name` of `namespace`, which is made if it isn't there. It may do only what
    /// roles allow it.
    ///
    /// # Errors
    /// When the API server gives no token.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<Client> {
        let token = self.token(namespace, name).await?;
        self.client(AuthInfo { token: Some(token.into()), ..AuthInfo::default() })
    }

    /// A kubeconfig file by which a program runs as the ServiceAccount `name` of `namespace`, which is made if it isn't
    /// there.
    ///
    /// # Errors
    /// When the API server gives no token.
    pub async fn kubeconfig_for(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let user = json!({ "token": self.token(namespace, name).await? });
        self.write_kubeconfig(&format!("{namespace}.{name}"), namespace, &user)
    }

    /// A kubeconfig file that may do everything, for a person with kubectl or a program that plays the administrator.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        let Self { certificates, .. } = self;
        let user = json!({ "client-certificate": certificates.admin, "client-key": certificates.admin_key });
        self.write_kubeconfig("admin", "default", &user)
    }

    /// A token of the ServiceAccount `name` of `namespace`, which is made if it isn't there.
    ///
    /// # Errors
    /// When the API server gives none.
    pub async fn token(&self, namespace: &str, name: &str) -> Result<String> {
        let accounts = Api::<ServiceAccount>::namespaced(self.admin(), namespace);
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("ServiceAccount {namespace}/{name}")),
        }
        let wanted = TokenRequest {
            // No audience of one's own: the API server's.
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(name, &PostParams::default(), &wanted).await;
        let answer = answer.with_context(|| format!("token of {namespace}/{name}"))?;
        answer.status.map(|status| status.token).context("an answer without a token")
    }

    fn client(&self, auth_info: AuthInfo) -> Result<Client> {
        let mut config = Config::new(self.url().parse()?);
        config.root_cert = Some(vec![self.certificates.ca_der.clone()]);
        config.auth_info = auth_info;
        // A test wants to see a refused connection, not to have it mended.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    fn write_kubeconfig(&self, name: &str, namespace: &str, user: &Value) -> Result<PathBuf> {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": namespace } }],
            "clusters": [{ "name": "test", "cluster": { "server": self.url(), "certificate-authority": self.certificates.ca } }],
            "users": [{ "name": "test", "user": user }],
        });
        let path = self.folder.path().join(format!("{name}.kubeconfig"));
        // JSON is YAML.
        fs::write(&path, format!("{kubeconfig:#}"))?;
        Ok(path)
    }
}
