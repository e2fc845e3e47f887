//! One running server: the store, the configuration's source, the dispatcher and the ports, wired together.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use belfry_cluster::{Candidacy, Cluster, Leadership, TektonSettings};
use belfry_core::{config::Options, limits};
use belfry_http::Clients;
use belfry_store::{Database, OpenError, Pruned, Store};
use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use crate::{
    access::{self, Access},
    api::{self, Api},
    configuration::Configuration,
    dispatcher::{Dispatcher, Notifiers, Parts, Shared},
    environment::{Environment, Standalone},
    intake::{Crowd, Intake},
    metrics::Metrics,
    observer::Observer,
    operations::Operations,
    receivers::{self, Receivers},
    server::{self, Bounds},
    source::{self, Directories, Listeners},
    status_board::StatusBoard,
    tekton,
    waits::Waits,
};

/// How often the store is pruned.
const PRUNE: Duration = Duration::from_secs(30);
/// How long a database may take to come up after this process.
const DATABASE: Duration = Duration::from_secs(30);
/// The Lease of the replica that leads; `deploy/` allows no other.
const LEASE: &str = "belfry";
/// How often the served CRDs are compared with ours.
const COMPARE_CRDS: Duration = Duration::from_secs(3600);
/// Time for requests under way to end once the listeners are closed.
const CLOSE: Duration = Duration::from_secs(5);

/// Where configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Directories of manifests.
    Directories {
        /// The directories, or single files.
        paths: Vec<PathBuf>,
        /// The cluster whose objects Receivers reconcile.
        cluster: Option<belfry_cluster::Settings>,
    },
    /// A cluster.
    Cluster(belfry_cluster::Settings),
}

/// What the ports listen on: `host:port`, or `:port` for every interface.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Events.
    pub events: String,
    /// Webhooks.
    pub receivers: String,
    /// The API.
    pub api: String,
    /// Prometheus metrics.
    pub metrics: String,
    /// Health.
    pub health: String,
}

/// Everything that can be set about a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where configuration comes from.
    pub source: Source,
    /// Folder of the store.
    pub data: PathBuf,
    /// The PostgreSQL database that is used instead of the folder.
    pub database: Option<Database>,
    /// `--cluster-name`.
    pub cluster_name: String,
    /// The namespace that Belfry runs in.
    pub runtime_namespace: String,
    /// What the ports listen on.
    pub addresses: Addresses,
    /// `--public-url`.
    pub public_url: Option<String>,
    /// Bearer token of the API.
    pub api_token: Option<SecretString>,
    /// `--api-access`.
    pub api_access: Option<PathBuf>,
    /// `--api-trust-loopback`; as the source has it, if it isn't given.
    pub api_trust_loopback: Option<bool>,
    /// `--rate-limit-interval`.
    pub repeat_interval: Duration,
    /// How long events are kept.
    pub retention_age: Duration,
    /// Bytes of the store beyond which the oldest events go.
    pub retention_bytes: u64,
    /// `--no-cross-namespace-refs`.
    pub no_cross_namespace_refs: bool,
    /// The feature gate `ObjectLevelWorkloadIdentity`.
    pub workload_identity: bool,
    /// There may be other replicas: what one alone does is done by the one that is elected.
    pub elects: bool,
    /// The feature gate `AlertCommitStatus`.
    pub alert_commit_status: bool,
    /// How long Tekton runs may wait.
    pub tekton: TektonSettings,
}

/// A running server.
pub struct Server {
    /// Where the events port listens.
    pub events: SocketAddr,
    /// Where the receivers' port listens.
    pub receivers: SocketAddr,
    /// Where the API listens.
    pub api: SocketAddr,
    /// Where the metrics port listens.
    pub metrics: SocketAddr,
    /// Where the health port listens.
    pub health: SocketAddr,
    store: Store,
    stop: watch::Sender<bool>,
    ports: JoinSet<()>,
    dispatcher: JoinHandle<()>,
    background: JoinSet<()>,
    leadership: Leadership,
}

/// What the server listens on.
struct Ports {
    events: TcpListener,
    receivers: TcpListener,
    api: TcpListener,
    metrics: TcpListener,
    health: TcpListener,
}

impl Ports {
    async fn bind(addresses: &Addresses) -> anyhow::Result<Self> {
        Ok(Self {
            events: server::bind("--events-addr", &addresses.events).await?,
            receivers: server::bind("--receiverAddr", &addresses.receivers).await?,
            api: server::bind("--api-addr", &addresses.api).await?,
            metrics: server::bind("--metrics-addr", &addresses.metrics).await?,
            health: server::bind("--health-addr", &addresses.health).await?,
        })
    }
}

/// Who answers on which port.
struct Answering {
    intake: Arc<Intake>,
    receivers: Arc<Receivers>,
    interface: Api,
    operations: Arc<Operations>,
}

impl Server {
    /// Opens the store, loads the configuration, and serves.
    ///
    /// # Errors
    /// When the store can't be opened, an address can't be had, or there is no cluster to run from.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let started = Instant::now();
        // All addresses first: a process that can't listen should not touch the store.
        let ports = Ports::bind(&settings.addresses).await?;
        let standalone = matches!(settings.source, Source::Directories { .. });
        let open = settings.api_token.is_none() && settings.api_access.is_none();
        if standalone && open && !ports.api.local_addr()?.ip().is_loopback() {
            bail!(
                "--api-addr: an API on {} needs --api-access or --api-token-file, or nobody could use it",
                settings.addresses.api
            );
        }

        let (folder, temporary) = match settings.database {
            Some(_) => (settings.data.clone(), false),
            None => usable_folder(&settings.data)?,
        };
        let store = open_store(&settings, folder).await?;
        let metrics = Arc::new(Metrics::new(store.clone()));
        metrics.set_temporary(temporary);
        let (stop, stopping) = watch::channel(false);
        let options = Options {
            no_cross_namespace_refs: settings.no_cross_namespace_refs,
            runtime_namespace: settings.runtime_namespace.clone(),
            cluster: settings.cluster_name.clone(),
            no_alert_commit_status: !settings.alert_commit_status,
        };
        let configuration = Arc::new(Configuration::new(options).of(&settings.cluster_name, !standalone));
        let mut background = JoinSet::new();
        let mut vouching = None;
        let board = Arc::new(StatusBoard::default());
        let observer = Arc::new(Observer::new(&settings.cluster_name));
        let waits = Waits::new(store.clone(), configuration.clone());
        let mut leadership = Leadership::sole();
        let environment: Arc<dyn Environment> = match settings.source {
            Source::Directories { paths, cluster } => {
                let cluster = match &cluster {
                    Some(settings) => Some(belfry_cluster::connect(settings).await.context("--kubeconfig")?),
                    None => None,
                };
                let environment = Arc::new(Standalone::new(cluster));
                let mut directories = Directories::new(paths);
                directories.load(&configuration, &environment, &store).await;
                let (configuration, store) = (configuration.clone(), store.clone());
                background.spawn(directories.watch(configuration, environment.clone(), store, stopping.clone()));
                environment
            }
            Source::Cluster(connection) => {
                let cluster = Arc::new(
                    belfry_cluster::connect(&connection)
                        .await
                        .context("nothing to run from: give --config DIR, or a cluster")?,
                );
                let (configuration, store) = (configuration.clone(), store.clone());
                background.spawn(observer.clone().run(configuration.clone(), store.clone(), metrics.clone()));
                if settings.elects {
                    leadership = lead(&cluster, &settings.runtime_namespace, stopping.clone());
                }
                background.spawn(cluster.keep_statuses(board.reports(), leadership.clone()));
                background.spawn(board.clone().share(store.clone()));
                let listeners = Listeners { observer: observer.clone(), board: board.clone(), waits: waits.clone() };
                background.spawn(source::follow(cluster.clone(), configuration, store, listeners, stopping.clone()));
                background.spawn(compare_crds(cluster.clone(), metrics.clone()));
                background.spawn(tekton::run(cluster.clone(), waits.clone(), settings.tekton, leadership.clone()));
                vouching = Some(cluster.clone());
                cluster
            }
        };

        let clients = Arc::new(Clients::new());
        let access = Access::new(access::Parts {
            token: settings.api_token,
            file: settings.api_access,
            cluster: vouching.clone(),
            local: settings.cluster_name.clone(),
            trust_loopback: settings.api_trust_loopback.unwrap_or(standalone),
            clients: clients.clone(),
        })
        .await?;
        background.spawn(access.clone().watch(stopping.clone()));
        let receivers = Receivers::new(receivers::Parts {
            store: store.clone(),
            configuration: configuration.clone(),
            environment: environment.clone(),
            metrics: metrics.clone(),
            clients: clients.clone(),
            cluster: settings.cluster_name.clone(),
            index_is_complete: !standalone,
        });
        if let Some(cluster) = &vouching {
            background.spawn(cluster.keep_statuses(receivers.reports(), leadership.clone()));
        } else {
            receivers.open().await;
        }
        background.spawn(receivers.clone().keep(stopping.clone()));
        let notifiers =
            Notifiers::new(clients, environment.clone(), settings.workload_identity, settings.cluster_name.clone());
        let crowd = Arc::new(Crowd::default());
        let parts = Parts {
            store: store.clone(),
            configuration: configuration.clone(),
            environment: environment.clone(),
            metrics: metrics.clone(),
            notifiers,
            public_url: settings.public_url,
            board,
            crowd: crowd.clone(),
        };
        let dispatch = Shared::new(parts, stopping.clone());
        let dispatcher = tokio::spawn(Dispatcher::new(dispatch.clone()).run());
        background.spawn(prune(store.clone()));

        let intake = Arc::new(Intake {
            store: store.clone(),
            configuration: configuration.clone(),
            environment,
            observer,
            cluster: settings.cluster_name.clone(),
            repeat_interval: settings.repeat_interval,
            metrics: metrics.clone(),
            crowd,
        });
        let interface = Api::new(api::Parts {
            store: store.clone(),
            configuration: configuration.clone(),
            receivers: receivers.clone(),
            waits: waits.clone(),
            cluster: settings.cluster_name,
            access,
            intake: intake.clone(),
            stopping: stopping.clone(),
        });
        let operations =
            Arc::new(Operations { metrics, store: store.clone(), configuration, dispatch, waits: waits.clone() });
        background.spawn(waits.follow(stopping.clone()));
        let mut server = Self {
            events: ports.events.local_addr()?,
            receivers: ports.receivers.local_addr()?,
            api: ports.api.local_addr()?,
            metrics: ports.metrics.local_addr()?,
            health: ports.health.local_addr()?,
            store,
            stop,
            ports: JoinSet::new(),
            dispatcher,
            background,
            leadership,
        };
        server.listen(ports, Answering { intake, receivers, interface, operations }, &stopping);
        tracing::info!(
            events = %server.events, receivers = %server.receivers, api = %server.api, metrics = %server.metrics, health = %server.health,
            version = env!("CARGO_PKG_VERSION"), took_ms = started.elapsed().as_millis() as u64,
            "serving"
        );
        Ok(server)
    }

    fn listen(&mut self, ports: Ports, answering: Answering, stopping: &watch::Receiver<bool>) {
        let Answering { intake, receivers, interface, operations } = answering;
        self.serve(ports.events, Bounds::default(), stopping, move |request| {
            let intake = intake.clone();
            async move { intake.handle(request).await }
        });
        let bounds = Bounds { connections: limits::HOOK_CONNECTIONS, bodies: limits::HOOK_BODIES, ..Bounds::default() };
        self.serve(ports.receivers, bounds, stopping, receivers::Port(receivers));
        let bounds = Bounds { bodies: limits::API_BODIES, ..Bounds::default() };
        self.serve(ports.api, bounds, stopping, move |request| {
            let interface = interface.clone();
            async move { interface.handle(request).await }
        });
        let metrics = operations.clone();
        self.serve(ports.metrics, Bounds::default(), stopping, move |request| {
            let operations = metrics.clone();
            async move { operations.metrics(request).await }
        });
        self.serve(ports.health, Bounds::default(), stopping, move |request| {
            let operations = operations.clone();
            async move { operations.health(request).await }
        });
    }

    fn serve(
        &mut self,
        port: TcpListener,
        bounds: Bounds,
        stopping: &watch::Receiver<bool>,
        handler: impl server::Handler,
    ) {
        self.ports.spawn(server::serve(port, bounds, stopping.clone(), handler));
    }

    /// The store that it writes to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Stops: no new requests, what is in flight ends, everything is written. Takes less than ten seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let close = async { while self.ports.join_next().await.is_some() {} };
        let _ = tokio::join!(tokio::time::timeout(CLOSE, close), &mut self.dispatcher);
        self.background.shutdown().await;
        // Another may lead at once.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.leadership.ended()).await;
        if tokio::time::timeout(Duration::from_secs(1), self.store.flush()).await.is_err() {
            tracing::warn!("the store did not write everything in time; some deliveries are sent again");
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

async fn open_store(settings: &Settings, folder: PathBuf) -> anyhow::Result<Store> {
    let options = belfry_store::Options {
        repeat_interval: settings.repeat_interval,
        retention_age: settings.retention_age,
        retention_bytes: settings.retention_bytes,
        provider_backlog: limits::PROVIDER_BACKLOG,
        namespace_backlog: limits::NAMESPACE_BACKLOG,
        ..belfry_store::Options::default()
    };
    let database = settings.database.clone();
    let open = move || match database {
        Some(database) => open_database(&database, &options),
        None => Store::open_sqlite(&folder, options),
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened.context("opening the store was interrupted")?.context("can't open the store")
}

/// Opens a database; one that isn't there yet is waited for, for a while: it may be starting too.
fn open_database(database: &Database, options: &belfry_store::Options) -> Result<Store, OpenError> {
    let deadline = Instant::now() + DATABASE;
    loop {
        match Store::open_postgres(database, options.clone()) {
            Err(OpenError::Engine(error)) if Instant::now() < deadline => {
                tracing::warn!(error, "can't open the database yet");
                std::thread::sleep(Duration::from_secs(1));
            }
            opened => return opened,
        }
    }
}

/// Stands for election, for the work that one replica does, until `stop`.
fn lead(cluster: &Cluster, namespace: &str, mut stop: watch::Receiver<bool>) -> Leadership {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let candidacy = Candidacy::new(namespace, LEASE, format!("{host}_{:016x}", fastrand::u64(..)));
    cluster.lead(candidacy, async move { server::stopped(&mut stop).await })
}

/// The data folder; or, where it can't be written to, a temporary one, loudly. Whether it is temporary comes with it.
fn usable_folder(folder: &Path) -> anyhow::Result<(PathBuf, bool)> {
    let probe = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join(".writable");
        std::fs::write(&file, b"")?;
        std::fs::remove_file(file)
    };
    let Err(error) = probe() else { return Ok((folder.to_owned(), false)) };
    // A full disk is no reason to leave behind what is stored there: the server comes up and waits for space.
    if error.kind() == std::io::ErrorKind::StorageFull {
        return Ok((folder.to_owned(), false));
    }
    let temporary = std::env::temp_dir().join("belfry");
    std::fs::create_dir_all(&temporary).with_context(|| {
        format!("--data: can't write to {} ({error}), nor to {}", folder.display(), temporary.display())
    })?;
    tracing::error!(
        %error,
        "--data: can't write to {}: events are kept in {} and ARE LOST WHEN THAT FOLDER IS",
        folder.display(),
        temporary.display()
    );
    Ok((temporary, true))
}

async fn prune(store: Store) {
    loop {
        tokio::time::sleep(PRUNE).await;
        match store.prune().await {
            Ok(pruned) if pruned == Pruned::default() => {}
            Ok(pruned) => tracing::info!(?pruned, "pruned the store"),
            Err(error) => tracing::warn!(%error, "can't prune the store"),
        }
    }
}

async fn compare_crds(cluster: Arc<Cluster>, metrics: Arc<Metrics>) {
    loop {
        match cluster.crd_differences(&belfry_api::crds()).await {
            Ok(differences) => {
                metrics.set_crd_differences(differences.len());
                for difference in differences {
                    tracing::warn!("the served CRDs are not Belfry's (did Flux apply its own again?): {difference}");
                }
            }
            Err(error) => tracing::debug!(%error, "can't compare the served CRDs with Belfry's"),
        }
        tokio::time::sleep(COMPARE_CRDS).await;
    }
}
