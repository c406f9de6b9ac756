//! One running service: the store it opened, its listener, its worker, and an orderly end.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    auth::Authenticator,
    config::{Database, StoreSettings},
    connections::{self, Bounds},
    fleet::{AllowedTargets, Fleet},
    http,
    metrics::{self, Metrics},
    store::{SharedStore, postgres::PostgresStore, sqlite::SqliteStore},
    task::{
        Tasks,
        upkeep::keep_schedule,
        worker::{Limits, Worker},
    },
    telemetry::traces::Traces,
    tls::{Certificate, Files, TlsListener},
};

/// Connections to the API at a time: with those of sweeps, fewer than the 1,024 files that many systems allow a process.
const CONNECTIONS: u32 = 512;
/// How long open requests may take to end at a shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the store may take to close; a verb that is still under way ends within less.
const CLOSE: Duration = Duration::from_secs(5);

/// Opens the store alone.
pub async fn open_store(settings: &StoreSettings) -> anyhow::Result<SharedStore> {
    let context = || format!("the database {} cannot be opened", settings.database);
    Ok(match &settings.database {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(path).await.with_context(context)?),
        Database::Postgres(url) => Arc::new(PostgresStore::open(url).await.with_context(context)?),
    })
}

/// Opens the store and what rests on it.
pub async fn open(settings: &StoreSettings) -> anyhow::Result<(SharedStore, Fleet)> {
    let store = open_store(settings).await?;
    match open_fleet(&store, settings).await {
        Ok(fleet) => Ok((store, fleet)),
        Err(error) => {
            close(&store).await;
            Err(error)
        }
    }
}

async fn open_fleet(store: &SharedStore, settings: &StoreSettings) -> anyhow::Result<Fleet> {
    let allowed = match &settings.allowed_targets {
        Some(ranges) => AllowedTargets::new(ranges).context("--allowed-targets")?,
        None => AllowedTargets::default(),
    };
    Ok(Fleet::open(Arc::clone(store), &settings.key_file).await?.allowing(allowed))
}

/// Closes the store, so that what it leaves is whole by itself.
pub async fn close(store: &SharedStore) {
    if tokio::time::timeout(CLOSE, store.close()).await.is_err() {
        tracing::warn!("the database is not closed in time; the next start puts it in order");
    }
}

/// Who answers for what in this process.
#[derive(Debug, Clone)]
pub struct Roles {
    /// Where to serve the API; `None`: not at all.
    pub listen: Option<SocketAddr>,
    /// Where to serve metrics; `None`: not at all.
    pub metrics: Option<SocketAddr>,
    /// Whether requests need credentials.
    pub authenticate: bool,
    /// How much its worker takes on.
    pub limits: Limits,
    /// Records of each kind that an instance keeps.
    pub records: u32,
    /// The certificate to serve with; `None`: plain HTTP.
    pub certificate: Option<Files>,
    /// Where the spans of tasks go.
    pub traces: Traces,
}

/// A running service.
pub struct App {
    /// Where the API really listens.
    pub address: Option<SocketAddr>,
    /// Where metrics really are.
    pub metrics: Option<SocketAddr>,
    /// What its doors use; the demo registers its instance here.
    pub fleet: Fleet,
    store: SharedStore,
    certificate: Option<Certificate>,
    traces: Traces,
    shutdown: watch::Sender<bool>,
    schedule: JoinHandle<()>,
    worker: JoinHandle<()>,
    /// The API's listener and that of the metrics.
    servers: Vec<JoinHandle<std::io::Result<()>>>,
}

/// Listens on this address, if any; `flag` says where it comes from.
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
    /// Starts everything that `roles` name.
    pub async fn start(settings: &StoreSettings, roles: Roles) -> anyhow::Result<Self> {
        // First, so that there is nothing to close when it fails.
        let listener = bind(roles.listen, "--listen").await?;
        let metrics_listener = bind(roles.metrics, "--metrics-listen").await?;
        let certificate = roles.certificate.map(Certificate::read).transpose()?;
        let (store, fleet) = open(settings).await?;
        let tasks = Tasks::new(Arc::clone(&store)).traced(roles.traces.clone()).keeping(roles.records);
        let (shutdown, down) = watch::channel(false);
        let mut servers = Vec::new();
        let metrics = match metrics_listener {
            Some(listener) => {
                let address = listener.local_addr()?;
                let metrics = Metrics::new(Arc::clone(&store), tasks.counts().clone());
                servers.push(tokio::spawn(metrics::serve(listener, metrics, down.clone())));
                Some(address)
            }
            None => None,
        };
        let address = match listener {
            Some(listener) => {
                let auth = if roles.authenticate {
                    Authenticator::required(fleet.clone())
                } else {
                    Authenticator::off(fleet.clone())
                };
                let router = http::router(fleet.clone(), tasks.clone(), auth, down.clone(), certificate.is_some());
                let (bounds, down) = (Bounds::of(CONNECTIONS), down.clone());
                let address = listener.local_addr()?;
                servers.push(match &certificate {
                    Some(certificate) => {
                        let listener = TlsListener::new(listener, certificate.clone())?;
                        tokio::spawn(connections::serve(listener, router, bounds, down))
                    }
                    None => tokio::spawn(connections::serve(listener, router, bounds, down)),
                });
                Some(address)
            }
            None => None,
        };
        let schedule = tokio::spawn(keep_schedule(tasks.clone(), down.clone()));
        let worker = tokio::spawn(Worker::new(tasks, fleet.clone(), roles.limits).run(down));
        Ok(Self {
            address,
            metrics,
            fleet,
            store,
            certificate,
            traces: roles.traces,
            shutdown,
            schedule,
            worker,
            servers,
        })
    }

    /// Reads the API's certificate again, if it has one; what cannot be used leaves the one in use.
    pub fn reload(&self) {
        let Some(certificate) = &self.certificate else {
            tracing::info!("a hang-up is ignored: there is no certificate to read again");
            return;
        };
        match certificate.reload() {
            Ok(()) => tracing::info!("the certificate is read again"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }

    /// Stops the sweeps, gives their leases back, lets open requests end and closes the store.
    pub async fn stop(self) {
        self.shutdown.send_replace(true);
        if let Err(error) = self.schedule.await {
            tracing::error!(%error, "the keeper of the schedule died");
        }
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "the worker died");
        }
        for server in self.servers {
            match tokio::time::timeout(DRAIN, server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::error!(%error, "the listener failed"),
                Ok(Err(error)) => tracing::error!(%error, "the listener died"),
                Err(_) => tracing::warn!("requests that did not end in time are dropped"),
            }
        }
        self.traces.close().await;
        close(&self.store).await;
    }
}
