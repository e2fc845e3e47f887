//! The flags of `belfry serve`: its own, and those of the peer under their names.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, bail};
use belfry_cluster::TektonSettings;
use belfry_store::Database;
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use tracing_subscriber::EnvFilter;

use crate::serve::{Addresses, Server, Settings, Source};

/// Flags of `belfry serve`.
#[derive(Debug, Args)]
pub struct ServeFlags {
    /// Directory of manifests to run from, instead of a cluster; may be given more than once
    #[arg(long, value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Kubeconfig of the cluster to run from (default: $KUBECONFIG, then the pod's own ServiceAccount, then ~/.kube/config); with --config: of the cluster whose objects Receivers reconcile
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Folder of the store
    #[arg(long, value_name = "DIR", default_value = "belfry-data")]
    data: PathBuf,
    #[command(flatten)]
    database: DatabaseFlags,
    /// Name of the cluster that events on the events port come from
    #[arg(long, value_name = "NAME", default_value = "")]
    cluster_name: String,
    /// Address of the events port [default: :9090; with --config: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    events_addr: Option<String>,
    /// Address of the receivers' port, which takes webhooks [default: :9292; with --config: 127.0.0.1:9292]
    #[arg(long = "receiverAddr", alias = "receiver-addr", value_name = "ADDR")]
    receiver_addr: Option<String>,
    /// Address of the API [default: :9393; with --config: 127.0.0.1:9393]
    #[arg(long, value_name = "ADDR")]
    api_addr: Option<String>,
    /// File with a bearer token that may do everything with the API
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// YAML file with who else may use the API: tokens, issuers, and clusters that post events; read anew when it changes
    #[arg(long, value_name = "FILE")]
    api_access: Option<PathBuf>,
    /// Let this machine itself use the API without a credential [default: false; with --config: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    api_trust_loopback: Option<bool>,
    /// URL under which people reach the API; commit statuses link there
    #[arg(long, value_name = "URL", value_parser = public_url)]
    public_url: Option<String>,
    /// Address of Prometheus metrics [default: :8080; with --config: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    metrics_addr: Option<String>,
    /// Address of /healthz and /readyz [default: :9440; with --config: 127.0.0.1:9440]
    #[arg(long, value_name = "ADDR")]
    health_addr: Option<String>,
    /// How long a repeat of an event is held back, as long as its object's state doesn't change
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    rate_limit_interval: Duration,
    /// How long events are kept, if nothing undelivered needs them
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = duration)]
    retention_age: Duration,
    /// Bytes of the store beyond which the oldest events go, if nothing undelivered needs them
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30)]
    retention_bytes: u64,
    /// How long a Tekton run of FluxDeploymentWait waits that has no timeout and belongs to no PipelineRun
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    tekton_timeout: Duration,
    /// How long one waits that has no timeout but belongs to a PipelineRun, which cancels it when its own is over
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    tekton_pipeline_timeout: Duration,
    /// Don't let Alerts and Receivers select objects of other namespaces
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    no_cross_namespace_refs: bool,
    /// Watch all namespaces; false: only the one in $RUNTIME_NAMESPACE
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    watch_all_namespaces: bool,
    /// Requests per second to the Kubernetes API
    #[arg(long, value_name = "QPS", default_value_t = 50.0)]
    kube_api_qps: f32,
    /// Requests to the Kubernetes API that may come at once
    #[arg(long, value_name = "N", default_value_t = 300)]
    kube_api_burst: u32,
    /// Features, such as ObjectLevelWorkloadIdentity=true; a list with commas
    #[arg(long, value_name = "GATES", default_value = "")]
    feature_gates: FeatureGates,
    #[command(flatten)]
    logging: Logging,
    /// Elect the replica that does what one alone does, by a Lease [default: false; with --database-url: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_leader_election: Option<bool>,
    #[command(flatten)]
    unused: Unused,
    /// Namespace that Belfry runs in
    #[arg(long = "runtime-namespace", env = "RUNTIME_NAMESPACE", default_value = "flux-system", hide = true)]
    runtime_namespace: String,
}

/// Where the store is, if not in a folder.
#[derive(Debug, Args)]
pub(super) struct DatabaseUrl {
    /// PostgreSQL database to use instead of a folder, by any number of replicas: postgres://user:password@host/database?sslmode=verify-full&sslrootcert=FILE
    #[arg(
        long,
        value_name = "URL",
        env = "BELFRY_DATABASE_URL",
        hide_env_values = true,
        conflicts_with = "database_url_file"
    )]
    database_url: Option<SecretString>,
    /// File with that URL; read anew for each connection
    #[arg(long, value_name = "FILE")]
    database_url_file: Option<PathBuf>,
}

impl DatabaseUrl {
    pub(super) fn database(&self) -> Option<Database> {
        let named = self.database_url.as_ref().map(|url| Database::at(url.expose_secret()));
        named.or_else(|| self.database_url_file.as_ref().map(Database::in_file))
    }
}

/// How a server uses a database.
#[derive(Debug, Args)]
struct DatabaseFlags {
    #[command(flatten)]
    url: DatabaseUrl,
    /// Connections to the database at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(5..))]
    database_connections: u16,
    /// How long deliveries that a replica has begun stay its own after it was last heard of; attempts must fit into two thirds of it
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = lease)]
    database_lease: Duration,
}

impl DatabaseFlags {
    fn database(&self) -> Option<Database> {
        let database = self.url.database()?;
        Some(database.connections(self.database_connections.into()).lease(self.database_lease))
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < Duration::from_secs(3) { Err("must be at least 3s".into()) } else { Ok(lease) }
}

/// Flags of the peer that say nothing here: accepted, so that its arguments can stay, and named in the log.
#[derive(Debug, Args)]
struct Unused {
    #[arg(long, hide = true)]
    concurrent: Option<u32>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    export_http_path_metrics: Option<bool>,
    #[arg(long, hide = true)]
    watch_configs_label_selector: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    leader_election_release_on_cancel: Option<bool>,
    #[arg(long, hide = true)]
    leader_election_lease_duration: Option<String>,
    #[arg(long, hide = true)]
    leader_election_renew_deadline: Option<String>,
    #[arg(long, hide = true)]
    leader_election_retry_period: Option<String>,
    #[arg(long, hide = true)]
    min_retry_delay: Option<String>,
    #[arg(long, hide = true)]
    max_retry_delay: Option<String>,
    #[arg(long, hide = true)]
    token_cache_max_size: Option<u32>,
    #[arg(long, hide = true)]
    token_cache_max_duration: Option<String>,
    #[arg(long, hide = true)]
    default_service_account: Option<String>,
}

impl Unused {
    /// The flags that were given, each with the reason why it changes nothing.
    fn given(&self) -> Vec<(&'static str, &'static str)> {
        const TERMS: &str = "a leader is followed by another within 17 s, or at once when it stops";
        const RETRIES: &str = "Secrets are read anew every 30 s, and at once when a Receiver changes";
        let table = [
            ("--concurrent", self.concurrent.is_some(), "objects are compiled together, not by workers"),
            (
                "--export-http-path-metrics",
                self.export_http_path_metrics.is_some(),
                "paths are the client's to choose and never become labels",
            ),
            ("--watch-configs-label-selector", self.watch_configs_label_selector.is_some(), RETRIES),
            ("--leader-election-release-on-cancel", self.leader_election_release_on_cancel.is_some(), TERMS),
            ("--leader-election-lease-duration", self.leader_election_lease_duration.is_some(), TERMS),
            ("--leader-election-renew-deadline", self.leader_election_renew_deadline.is_some(), TERMS),
            ("--leader-election-retry-period", self.leader_election_retry_period.is_some(), TERMS),
            ("--min-retry-delay", self.min_retry_delay.is_some(), RETRIES),
            ("--max-retry-delay", self.max_retry_delay.is_some(), RETRIES),
            ("--token-cache-max-size", self.token_cache_max_size.is_some(), "no provider of this version has tokens"),
            (
                "--token-cache-max-duration",
                self.token_cache_max_duration.is_some(),
                "no provider of this version has tokens",
            ),
            (
                "--default-service-account",
                self.default_service_account.is_some(),
                "no provider of this version uses workload identity",
            ),
        ];
        table.into_iter().filter(|(_, given, _)| *given).map(|(flag, _, why)| (flag, why)).collect()
    }
}

/// How the log looks.
#[derive(Clone, Debug, Args)]
pub struct Logging {
    /// Encoding of the log
    #[arg(long, value_name = "ENCODING", default_value = "json")]
    pub log_encoding: LogEncoding,
    /// What is logged: trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
}

/// Encoding of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogEncoding {
    /// One JSON object a line.
    Json,
    /// For people.
    Console,
}

/// Least level of what is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// Each event.
    Debug,
    /// What changes.
    Info,
    /// What is not as it should be.
    Warn,
    /// What doesn't work.
    Error,
}

impl Logging {
    /// Starts logging to standard error.
    pub fn start(&self) {
        let level = format!("{:?}", self.log_level).to_lowercase();
        // The libraries below speak only when something is wrong with them.
        let ours = ["belfry", "belfry_store", "belfry_cluster", "belfry_http", "belfry_notify", "belfry_receive"];
        let ours = ours.into_iter().map(|target| format!("{target}={level}"));
        let quiet = belfry_cluster::LIBRARY_LOG_TARGETS.into_iter().map(|target| format!("{target}=off"));
        let directives: Vec<String> = std::iter::once("warn".to_owned()).chain(ours).chain(quiet).collect();
        let filter = EnvFilter::new(directives.join(","));
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let result = match self.log_encoding {
            LogEncoding::Json => subscriber.json().flatten_event(true).with_current_span(false).try_init(),
            LogEncoding::Console => subscriber.with_target(false).try_init(),
        };
        // A test that starts two servers has a subscriber already.
        drop(result);
    }
}

/// `--feature-gates`.
#[derive(Clone, Debug, Default)]
pub(super) struct FeatureGates(BTreeMap<String, bool>);

impl FeatureGates {
    /// Whether an Alert may post commit statuses; else that takes a CommitStatus.
    pub(super) const ALERT_COMMIT_STATUS: &str = "AlertCommitStatus";
    const KNOWN: [&str; 4] = [
        Self::ALERT_COMMIT_STATUS,
        "CacheSecretsAndConfigMaps",
        "DisableConfigWatchers",
        "ObjectLevelWorkloadIdentity",
    ];

    /// Off is what isn't said, but for what the peer does without being asked.
    pub(super) fn is_on(&self, gate: &str) -> bool {
        self.0.get(gate).copied().unwrap_or(gate == Self::ALERT_COMMIT_STATUS)
    }
}

impl FromStr for FeatureGates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut gates = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (gate, value) =
                pair.split_once('=').ok_or_else(|| format!("{pair:?} is not GATE=true or GATE=false"))?;
            if !Self::KNOWN.contains(&gate) {
                return Err(format!("there is no feature gate {gate:?}; there are {}", Self::KNOWN.join(", ")));
            }
            let value = value.parse().map_err(|_| format!("{pair:?} is neither {gate}=true nor {gate}=false"))?;
            gates.insert(gate.to_owned(), value);
        }
        Ok(Self(gates))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    belfry_core::duration::parse(text).map_err(|error| error.to_string())
}

impl ServeFlags {
    /// Serves until SIGTERM or SIGINT.
    pub async fn run(self) -> anyhow::Result<()> {
        self.logging.start();
        for (flag, why) in self.unused.given() {
            tracing::warn!("{flag} is accepted and has no effect: {why}");
        }
        let settings = self.settings()?;
        let server = Server::start(settings).await?;
        stop_signal().await?;
        tracing::info!("stopping");
        tokio::select! {
            () = server.stop() => Ok(()),
            again = stop_signal() => { again?; bail!("stopped at once by a second signal; what was in flight is sent again") }
        }
    }

    fn settings(self) -> anyhow::Result<Settings> {
        let standalone = !self.config.is_empty();
        // Only a kubeconfig that is given: a directory must not reach into whatever cluster a shell happens to point at.
        let named = self.kubeconfig.is_some() || self.context.is_some();
        let cluster = belfry_cluster::Settings {
            kubeconfig: self.kubeconfig,
            context: self.context,
            qps: self.kube_api_qps,
            burst: self.kube_api_burst,
            watch_namespace: (!self.watch_all_namespaces).then(|| self.runtime_namespace.clone()),
        };
        let source = if standalone {
            Source::Directories { paths: self.config, cluster: named.then_some(cluster) }
        } else {
            Source::Cluster(cluster)
        };
        let address = |given: Option<String>, port: u16| match given {
            Some(address) => address,
            None if standalone => format!("127.0.0.1:{port}"),
            None => format!(":{port}"),
        };
        let api_token = self
            .api_token_file
            .map(|file| -> anyhow::Result<_> {
                let token = std::fs::read_to_string(&file)
                    .with_context(|| format!("--api-token-file: can't read {}", file.display()))?;
                let token = token.trim();
                if token.len() < 16 {
                    bail!("--api-token-file: the token in {} is shorter than 16 characters", file.display());
                }
                Ok(token.to_owned().into())
            })
            .transpose()?;
        let tekton = TektonSettings {
            cluster_name: self.cluster_name.as_str().into(),
            timeout: self.tekton_timeout,
            pipeline_timeout: self.tekton_pipeline_timeout,
        };
        let database = self.database.database();
        Ok(Settings {
            source,
            data: self.data,
            elects: self.enable_leader_election.unwrap_or(database.is_some()),
            database,
            cluster_name: self.cluster_name,
            runtime_namespace: self.runtime_namespace,
            addresses: Addresses {
                events: address(self.events_addr, 9090),
                receivers: address(self.receiver_addr, 9292),
                api: address(self.api_addr, 9393),
                metrics: address(self.metrics_addr, 8080),
                health: address(self.health_addr, 9440),
            },
            api_token,
            api_access: self.api_access,
            api_trust_loopback: self.api_trust_loopback,
            public_url: self.public_url,
            // The peer's limiter takes zero as "not set", and then holds back for a second.
            repeat_interval: self.rate_limit_interval.max(Duration::from_secs(1)),
            retention_age: self.retention_age,
            retention_bytes: self.retention_bytes,
            no_cross_namespace_refs: self.no_cross_namespace_refs,
            workload_identity: self.feature_gates.is_on("ObjectLevelWorkloadIdentity"),
            alert_commit_status: self.feature_gates.is_on(FeatureGates::ALERT_COMMIT_STATUS),
            tekton,
        })
    }
}

/// Where people reach this process: nothing but a scheme, a host and perhaps a path.
fn public_url(text: &str) -> Result<String, String> {
    let url: url::Url = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err("must be an http or https URL without credentials".into());
    }
    Ok(text.to_owned())
}

async fn stop_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_off_but_for_the_one_that_the_peer_has_no_gate_for() {
        let gates = |text: &str| FeatureGates::from_str(text).unwrap();
        let on =
            |text: &str| FeatureGates::KNOWN.into_iter().filter(|gate| gates(text).is_on(gate)).collect::<Vec<_>>();
        assert_eq!(on(""), ["AlertCommitStatus"]);
        assert_eq!(on("AlertCommitStatus=true"), ["AlertCommitStatus"]);
        assert_eq!(on("AlertCommitStatus=false, ObjectLevelWorkloadIdentity=true"), ["ObjectLevelWorkloadIdentity"]);
        assert!(FeatureGates::from_str("AlertCommitStatus=maybe").is_err());
        assert!(FeatureGates::from_str("Telepathy=true").unwrap_err().contains("AlertCommitStatus"));
    }
}
