//! One running service: its store, listeners, worker and schedule, and its graceful shutdown.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    auth::Authenticator,
    config::{Database, StoreSettings},
    connections::{self, Bounds, Peers, PlainListener, Routes},
    hold::{Holds, RestoreFile, keeper::keep_holds},
    iam::CatalogSettings,
    identity::Identity,
    instances::{AllowedTargets, Instances},
    metrics::{self, Metrics},
    proxies::TrustedProxies,
    router::{Exposure, probes, reserved, router},
    secrets::Vault,
    store::Store,
    task::{
        Tasks,
        background::keep_schedule,
        worker::{Worker, WorkerLimits},
    },
    telemetry::traces::Traces,
    tls::{Certificate, Files, TlsListener},
};

/// Open files that a process allows itself where the system permits it. Many systems begin with 1,024: connections to the API and
/// those of scans stay below that, and a held cluster keeps a link to each of its primaries.
const OPEN_FILES: u64 = 65_536;
/// Most connections to the API at a time.
const MAX_CONNECTIONS: u32 = 512;
/// Most connections to the API of one client, other than a trusted proxy: a quarter.
const MAX_CONNECTIONS_OF_ONE: u32 = 128;
/// Connections beyond those, on which health probes are answered while all others are taken.
const RESERVED_CONNECTIONS: u32 = 8;
/// How long a shutdown waits for open requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shutdown waits for the store to close. A pending query takes less.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the store.
pub async fn open_store(settings: &StoreSettings) -> anyhow::Result<Store> {
    let context = || format!("the database {} cannot be opened", settings.database);
    Ok(match &settings.database {
        Database::Sqlite(path) => Store::open_sqlite(path).await.with_context(context)?,
        Database::Postgres(url) => Store::open_postgres(url).await.with_context(context)?,
    })
}

/// A store with what is built on it.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Its projects and users.
    pub identity: Identity,
    /// Its instances.
    pub instances: Instances,
}

/// Opens the store and the key file that its secrets are encrypted with. The key file is created when it is absent and no
/// secret has been encrypted yet.
pub async fn open(settings: &StoreSettings) -> anyhow::Result<Opened> {
    refuse_lost_database(settings)?;
    let store = open_store(settings).await?;
    match open_core(&store, settings).await {
        Ok((identity, instances)) => Ok(Opened { store, identity, instances }),
        Err(error) => {
            close(&store).await;
            Err(error)
        }
    }
}

/// Refuses to begin with an empty SQLite file where the key file shows that there was another, unless `--new-database` is
/// given: a service that lost its database, or whose disk is not mounted, would otherwise start as if it had never had one.
fn refuse_lost_database(settings: &StoreSettings) -> anyhow::Result<()> {
    let Database::Sqlite(path) = &settings.database else { return Ok(()) };
    let is_lost = !settings.new_database && settings.key_file.is_file() && !path.exists();
    ensure!(
        !is_lost,
        "the database {} does not exist, and its key file {} does; put the backup of the database back, or begin with an empty \
         one: keysweep admin project list --new-database",
        path.display(),
        settings.key_file.display()
    );
    Ok(())
}

async fn open_core(store: &Store, settings: &StoreSettings) -> anyhow::Result<(Identity, Instances)> {
    let allowed = match &settings.allowed_targets {
        Some(ranges) => AllowedTargets::new(ranges).context("--allowed-targets")?,
        None => AllowedTargets::default(),
    };
    let vault = Arc::new(Vault::of_store(store, &settings.key_file).await?);
    let identity = Identity::new(store.clone(), Arc::clone(&vault));
    Ok((identity, Instances::new(store.clone(), vault, allowed)))
}

/// Closes the store, so that its files are complete without recovery.
pub async fn close(store: &Store) {
    if tokio::time::timeout(CLOSE_TIMEOUT, store.close()).await.is_err() {
        tracing::warn!("the database was not closed in time; the next start recovers it");
    }
}

/// The roles of this process.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Address of the API; `None`: no API.
    pub listen: Option<SocketAddr>,
    /// Address of the metrics; `None`: no metrics.
    pub metrics: Option<SocketAddr>,
    /// Whether requests need credentials.
    pub authenticate: bool,
    /// Limits of the worker.
    pub limits: WorkerLimits,
    /// History retention: task records of each kind that an instance keeps.
    pub history_retention: u32,
    /// Memory for what servers reply, bytes.
    pub reply_memory: usize,
    /// Certificate of the API; `None`: plain HTTP.
    pub certificate: Option<Files>,
    /// How clients name and reach the API.
    pub catalog: CatalogSettings,
    /// The proxies in front of the API that are trusted.
    pub proxies: TrustedProxies,
    /// Exporter of the tasks' spans.
    pub traces: Traces,
}

/// A running service.
pub struct App {
    /// Address that the API is bound to.
    pub address: Option<SocketAddr>,
    /// Address that the metrics are bound to.
    pub metrics: Option<SocketAddr>,
    /// Its projects and users; the demo adds a project here.
    pub identity: Identity,
    /// Its instances; the demo registers one here.
    pub instances: Instances,
    store: Store,
    certificate: Option<Certificate>,
    traces: Traces,
    shutdown: watch::Sender<bool>,
    schedule: JoinHandle<()>,
    worker: JoinHandle<()>,
    holder: JoinHandle<()>,
    /// The servers of the API and of the metrics.
    servers: Vec<JoinHandle<std::io::Result<()>>>,
}

/// Raises the limit of open files as far as the system permits, up to [`OPEN_FILES`].
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
    {
        tracing::warn!(%error, wanted, "the limit of open files cannot be raised");
    }
}

/// Listens on an address, if there is one; errors name the flag that sets it.
async fn bind(address: Option<SocketAddr>, flag: &str) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there, perhaps another keysweep".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("cannot listen on {address}: {why}; choose another address with {flag}")
    })?;
    Ok(Some(listener))
}

impl App {
    /// Starts the service in its roles.
    pub async fn start(settings: &StoreSettings, roles: Roles) -> anyhow::Result<Self> {
        allow_open_files();
        // Listeners come first: if they fail, there is no store to close.
        let listener = bind(roles.listen, "--listen").await?;
        let metrics_listener = bind(roles.metrics, "--metrics-listen").await?;
        let certificate = roles.certificate.map(Certificate::read).transpose()?;
        let Opened { store, identity, instances } = open(settings).await?;
        let instances = instances.with_reply_memory(roles.reply_memory);
        if roles.listen.is_some() && roles.authenticate && identity.users().await?.is_empty() {
            let key_file = settings.key_file.display();
            tracing::warn!(%key_file, "no users yet: run `keysweep init`, which needs no restart; key_file holds the master key");
        }
        let tasks =
            Tasks::new(store.clone()).traced(roles.traces.clone()).with_history_retention(roles.history_retention);
        let holds =
            Holds::new(store.clone(), instances.clone(), tasks.clone(), RestoreFile::in_data(&settings.data_folder()));
        let (shutdown, down) = watch::channel(false);
        let mut servers = Vec::new();
        let metrics = match metrics_listener {
            Some(listener) => {
                let address = listener.local_addr()?;
                let metrics = Metrics::new(store.clone(), tasks.counts().clone(), instances.reply_memory());
                servers.push(tokio::spawn(metrics::serve(listener, metrics, probes(tasks.clone()), down.clone())));
                Some(address)
            }
            None => None,
        };
        let address = match listener {
            Some(listener) => {
                let auth = if roles.authenticate {
                    Authenticator::required(identity.clone(), instances.clone())
                } else {
                    Authenticator::off(identity.clone(), instances.clone())
                };
                let auth = auth.reached_at(roles.catalog.public_host());
                let exposure =
                    Exposure { secure: certificate.is_some(), catalog: roles.catalog, proxies: roles.proxies.clone() };
                let router = router(
                    identity.clone(),
                    instances.clone(),
                    tasks.clone(),
                    holds.clone(),
                    auth,
                    down.clone(),
                    exposure,
                );
                let routes = Routes {
                    all: router,
                    reserved: reserved(tasks.clone(), !roles.authenticate, certificate.is_some()),
                };
                let proxies = roles.proxies;
                let peers = Peers::new(MAX_CONNECTIONS_OF_ONE, proxies.clone());
                let (bounds, down) = (Bounds::new(MAX_CONNECTIONS, RESERVED_CONNECTIONS, peers), down.clone());
                let address = listener.local_addr()?;
                let scheme = if certificate.is_some() { "https" } else { "http" };
                tracing::info!("the web console is at {scheme}://{address}/console");
                servers.push(match &certificate {
                    Some(certificate) => {
                        let listener = TlsListener::new(listener, certificate.clone(), proxies)?;
                        tokio::spawn(connections::serve(listener, routes, bounds, down))
                    }
                    None => tokio::spawn(connections::serve(PlainListener::new(listener), routes, bounds, down)),
                });
                Some(address)
            }
            None => None,
        };
        let schedule = tokio::spawn(keep_schedule(tasks.clone(), down.clone()));
        let holder = tokio::spawn(keep_holds(holds, down.clone()));
        let worker = tokio::spawn(Worker::new(tasks, instances.clone(), roles.limits).run(down));
        Ok(Self {
            address,
            metrics,
            identity,
            instances,
            store,
            certificate,
            traces: roles.traces,
            shutdown,
            schedule,
            worker,
            holder,
            servers,
        })
    }

    /// Reloads the API's certificate, if it has one. If the files are invalid, the certificate in use stays.
    pub fn reload(&self) {
        let Some(certificate) = &self.certificate else {
            tracing::info!("SIGHUP ignored: there is no certificate to reload");
            return;
        };
        match certificate.reload() {
            Ok(()) => tracing::info!("certificate reloaded"),
            Err(error) => tracing::error!(%error, "certificate not reloaded; the one in use stays"),
        }
    }

    /// Shuts down gracefully: interrupts the scans and releases their leases, waits for open requests and closes the store.
    pub async fn stop(self) {
        self.shutdown.send_replace(true);
        if let Err(error) = self.schedule.await {
            tracing::error!(%error, "scheduler crashed");
        }
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "worker crashed");
        }
        if let Err(error) = self.holder.await {
            tracing::error!(%error, "holder crashed");
        }
        for server in self.servers {
            match tokio::time::timeout(DRAIN_TIMEOUT, server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, "listener failed"),
                Ok(Err(error)) => tracing::error!(%error, "listener crashed"),
                Err(_) => tracing::warn!("requests that did not finish in time are dropped"),
            }
        }
        self.traces.close().await;
        close(&self.store).await;
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{MAX_SHARD_THREADS, link::FREE_REPLY};

    use super::*;
    use crate::{
        connections::BUFFER,
        instances::REPLY_MEMORY,
        request::{ALL_LARGE_BODIES, SMALL_BODY},
        task::worker::WorkerLimits,
    };

    /// Memory of a process without work: the program, its database, its runtime. Measured: 20 MiB.
    const IDLE: usize = 28 << 20;
    /// What a thread uses of its stack. Measured: 12 KiB.
    const STACK: usize = 16 << 10;
    /// Threads beside those of scans: polls, estimates, surveys and holds.
    const OTHER_THREADS: usize = 16 + 8 + 8 + 4 + 8 + 256;
    /// One password that is checked, with the parameters of Argon2.
    const PASSWORD: usize = 19 << 20;
    /// JSON of the checkpoints of all databases that there is memory for, while it is stored.
    const CHECKPOINTS: usize = 24 << 20;

    /// Not in the sum: buffers of TLS, answers in progress, and links of held instances.
    #[test]
    fn the_bounds_on_replies_bodies_connections_and_threads_are_together_below_256_mib() {
        let connections = (MAX_CONNECTIONS + RESERVED_CONNECTIONS) as usize;
        // Each reads and writes through a buffer.
        let clients = connections * (2 * BUFFER + SMALL_BODY) + ALL_LARGE_BODIES;
        let threads = WorkerLimits::default().concurrency as usize * (MAX_SHARD_THREADS + 1) + OTHER_THREADS;
        let servers = REPLY_MEMORY + threads * (FREE_REPLY + STACK) + CHECKPOINTS;
        let sum = IDLE + clients + servers + PASSWORD;
        assert!(sum < 256 << 20, "{} MiB", sum >> 20);
    }
}
