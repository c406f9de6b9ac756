//! `keysweep serve` and `keysweep worker`: the service in the foreground, until a signal ends it.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::bail;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{App, Roles},
    config::{DEFAULT_LISTEN, FileConfig, StoreArgs, StoreSettings, address},
    task::{RECORDS, worker::Limits},
    telemetry::{self, traces::Traces},
    tls::Files,
};

/// Arguments of whatever carries out tasks.
#[derive(Debug, Args)]
struct Limited {
    /// Sweeps that this process runs at a time [default: 16]
    #[arg(long, value_name = "N", env = "KEYSWEEP_SWEEPS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    sweeps: Option<u32>,
    /// Sweeps that may burden one host at a time, whichever replica runs them [default: 1]
    #[arg(long, value_name = "N", env = "KEYSWEEP_SWEEPS_PER_HOST", value_parser = clap::value_parser!(u32).range(1..=1024))]
    sweeps_per_host: Option<u32>,
    /// Records that are kept of each instance, manual and scheduled ones apart [default: 1000]
    #[arg(long, value_name = "N", env = "KEYSWEEP_RECORDS", value_parser = clap::value_parser!(u32).range(1..=MOST_RECORDS))]
    records: Option<u32>,
}

/// The most records that may be kept of each kind.
const MOST_RECORDS: i64 = 1_000_000;

impl Limited {
    fn resolve(&self, file: &FileConfig) -> anyhow::Result<Limits> {
        let default = Limits::default();
        let limits = Limits {
            sweeps: self.sweeps.or(file.sweeps).unwrap_or(default.sweeps),
            per_host: self.sweeps_per_host.or(file.sweeps_per_host).unwrap_or(default.per_host),
        };
        for (field, value) in [("sweeps", limits.sweeps), ("sweeps_per_host", limits.per_host)] {
            if !(1..=1024).contains(&value) {
                bail!("--config: {field} = {value} cannot be used: write a number from 1 to 1024");
            }
        }
        Ok(limits)
    }

    fn records(&self, file: &FileConfig) -> anyhow::Result<u32> {
        let records = self.records.or(file.records).unwrap_or(RECORDS);
        if !(1..=MOST_RECORDS).contains(&i64::from(records)) {
            bail!("--config: records = {records} cannot be used: write a number from 1 to {MOST_RECORDS}");
        }
        Ok(records)
    }
}

/// Where the process is watched from.
#[derive(Debug, Args)]
struct Watched {
    /// Serve Prometheus metrics at /metrics on this address, for example 127.0.0.1:7081 [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "KEYSWEEP_METRICS_LISTEN", value_parser = address)]
    metrics_listen: Option<SocketAddr>,
    /// Serve plain HTTP to other machines, for example behind a proxy that speaks TLS
    #[arg(long)]
    insecure_http: bool,
}

impl Watched {
    fn insecure_http(&self, file: &FileConfig) -> bool {
        self.insecure_http || file.insecure_http == Some(true)
    }

    /// Where to serve metrics, which are never encrypted.
    fn resolve(&self, file: &FileConfig) -> anyhow::Result<Option<SocketAddr>> {
        let listen = self.metrics_listen.or(file.metrics_listen);
        match listen {
            Some(listen) if !listen.ip().is_loopback() && !self.insecure_http(file) => bail!(
                "--metrics-listen {listen} is reachable from other machines and this is plain HTTP; choose a loopback address, such as 127.0.0.1:7081, or add --insecure-http"
            ),
            _ => Ok(listen),
        }
    }
}

/// Arguments of `keysweep worker`.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    watched: Watched,
    #[command(flatten)]
    limited: Limited,
}

/// Arguments of `keysweep serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Address of the API [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDR", env = "KEYSWEEP_LISTEN", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Serve HTTPS with this certificate, PEM, with those that lead to its authority; read again on SIGHUP
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Ask nobody for credentials; on a loopback address only
    #[arg(long)]
    no_auth: bool,
    #[command(flatten)]
    watched: Watched,
    #[command(flatten)]
    limited: Limited,
}

/// Serves the API and carries out tasks.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let file = FileConfig::read(args.store.config.as_deref())?;
    let listen = args.listen.or(file.listen).unwrap_or(DEFAULT_LISTEN);
    let loopback = listen.ip().is_loopback();
    if args.no_auth && !loopback {
        bail!(
            "--no-auth with --listen {listen}: without authentication it must be a loopback address, such as 127.0.0.1"
        );
    }
    let certificate = match (args.tls_cert.or(file.tls_cert.clone()), args.tls_key.or(file.tls_key.clone())) {
        (Some(certificate), Some(key)) => Some(Files { certificate, key }),
        (None, None) => None,
        _ => bail!("--tls-cert and --tls-key go together: give both, or neither for plain HTTP"),
    };
    let exposed = !loopback && certificate.is_none();
    if exposed && !args.watched.insecure_http(&file) {
        bail!(
            "--listen {listen} is reachable from other machines and this is plain HTTP; give --tls-cert and --tls-key, or put a TLS proxy in front and add --insecure-http"
        );
    }
    let settings = args.store.resolve(&file)?;
    let (limits, records) = (args.limited.resolve(&file)?, args.limited.records(&file)?);
    let metrics = args.watched.resolve(&file)?;
    run(
        &settings,
        Roles {
            listen: Some(listen),
            metrics,
            authenticate: !args.no_auth,
            limits,
            records,
            certificate,
            traces: Traces::from_environment()?,
        },
    )
}

/// Carries out tasks only.
pub fn work(args: WorkerArgs) -> anyhow::Result<()> {
    let file = FileConfig::read(args.store.config.as_deref())?;
    let settings = args.store.resolve(&file)?;
    let (limits, records) = (args.limited.resolve(&file)?, args.limited.records(&file)?);
    let metrics = args.watched.resolve(&file)?;
    run(
        &settings,
        Roles {
            listen: None,
            metrics,
            authenticate: true,
            limits,
            records,
            certificate: None,
            traces: Traces::from_environment()?,
        },
    )
}

#[tokio::main]
async fn run(settings: &StoreSettings, roles: Roles) -> anyhow::Result<()> {
    telemetry::start();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // Not left to its usual meaning, which is to end us: it is sent to services after their files have changed.
    let mut hang_up = signal(SignalKind::hangup())?;
    let app = App::start(settings, roles).await?;
    if let Some(metrics) = app.metrics {
        tracing::info!(%metrics, "metrics are at /metrics");
    }
    match app.address {
        Some(address) => tracing::info!(%address, database = %settings.database, "serving"),
        None => tracing::info!(database = %settings.database, "working"),
    }
    tell_systemd(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => app.reload(),
        }
    }
    tell_systemd(&[NotifyState::Stopping]);
    tracing::info!("stopping: sweeps finish their slice and give their leases back");
    app.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Tells whoever started this as a service of `Type=notify`; without one, it tells nobody.
fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
