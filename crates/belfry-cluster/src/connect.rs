//! Where the API server is, and who Belfry is there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use kube::{
    Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::{Cluster, Error, outage::Reach, transport::TransportLayer};

/// How to reach the cluster, and what to watch there.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A kubeconfig file. None: the one that `KUBECONFIG` names, else the pod's own ServiceAccount, else
    /// `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context, rather than its current one.
    pub context: Option<String>,
    /// Requests per second to the API server, as `--kube-api-qps`; zero or less: no limit.
    pub qps: f32,
    /// Requests that may exceed it for a moment, as `--kube-api-burst`.
    pub burst: u32,
    /// The only namespace to watch, as `--watch-all-namespaces=false` asks for. Secrets and Kubernetes Events follow
    /// from what is watched.
    pub watch_namespace: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { kubeconfig: None, context: None, qps: 50.0, burst: 300, watch_namespace: None }
    }
}

/// A connection that black-holes is given up after this long. Watches end every 290 s and idle connections are kept
/// for 90 s, so nothing that is alive is ever silent for longer.
const SILENCE: Duration = Duration::from_secs(390);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Prepares the way to the cluster. Needs a tokio runtime, and does not need the API server to be up.
///
/// # Errors
/// When the kubeconfig, its certificates or the pod's ServiceAccount can't be used.
pub async fn connect(settings: &Settings) -> Result<Cluster, Error> {
    let mut config = config(settings).await?;
    config.connect_timeout = Some(CONNECT_WITHIN);
    config.read_timeout = Some(SILENCE);
    // Watches and calls have their own patience; the client's would hide from them what happens.
    config.default_retry = false;
    config
        .headers
        .push((http::header::USER_AGENT, HeaderValue::from_static(concat!("belfry/", env!("CARGO_PKG_VERSION")))));
    let reach = Arc::new(Reach::default());
    let client = |qps| {
        let layer = TransportLayer { reach: reach.clone(), qps, burst: settings.burst };
        let client = ClientBuilder::try_from(config.clone()).map_err(|error| Error::Client(error.into()))?;
        Ok(client.with_layer(&layer).build())
    };
    Ok(Cluster::new(client(settings.qps)?, client(0.0)?, settings.watch_namespace.clone(), reach.clone()))
}

async fn config(settings: &Settings) -> Result<Config, Error> {
    let asked = settings.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    if asked {
        return from_kubeconfig(settings).await;
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        // In a pod, where something else is wrong than not being in one.
        Err(error) if !matches!(error, InClusterError::ReadEnvironmentVariable(_)) => {
            Err(Error::NoCluster(error.into()))
        }
        Err(outside) => match from_kubeconfig(settings).await {
            Err(Error::Kubeconfig { source, .. }) if is_missing(&source) => Err(Error::NoCluster(outside.into())),
            config => config,
        },
    }
}

fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

async fn from_kubeconfig(settings: &Settings) -> Result<Config, Error> {
    let path = settings.kubeconfig.as_deref();
    let refuse = |source| Error::Kubeconfig { path: name_of(path), source: Box::new(source) };
    let kubeconfig = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from).map_err(refuse)?;
    let proxied = names_proxy(&kubeconfig, settings.context.as_deref());
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(refuse)?;
    if !proxied {
        // Else it is HTTPS_PROXY's, whatever NO_PROXY says of the API server; that one is meant for providers.
        config.proxy_url = None;
    }
    Ok(config)
}

fn name_of(path: Option<&Path>) -> String {
    match (path, std::env::var("KUBECONFIG")) {
        (Some(path), _) => path.display().to_string(),
        (None, Ok(paths)) => paths,
        (None, Err(_)) => "~/.kube/config".to_owned(),
    }
}

/// Whether the cluster of that context has a `proxy-url`.
fn names_proxy(kubeconfig: &Kubeconfig, context: Option<&str>) -> bool {
    let current = context.or(kubeconfig.current_context.as_deref());
    let context = kubeconfig.contexts.iter().find(|named| Some(named.name.as_str()) == current);
    let cluster = context.and_then(|named| named.context.as_ref()).map(|context| &context.cluster);
    let cluster = kubeconfig.clusters.iter().find(|named| Some(&named.name) == cluster);
    cluster.and_then(|named| named.cluster.as_ref()).is_some_and(|cluster| cluster.proxy_url.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_name_the_file_and_what_is_wrong() {
        let missing = Settings { kubeconfig: Some("/nowhere/kubeconfig".into()), ..Settings::default() };
        let error = connect(&missing).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "the kubeconfig /nowhere/kubeconfig can't be used");
        assert!(crate::error::chain(&error).contains("No such file"), "{}", crate::error::chain(&error));
    }
}
