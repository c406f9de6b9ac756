//! `keysweep serve` and `keysweep worker`: the service in the foreground, until a signal ends it.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::InvalidInput;
use crate::{
    allocator,
    app::{App, Roles},
    config::{DEFAULT_LISTEN, FileConfig, StoreArgs, StoreSettings, address},
    iam::CatalogSettings,
    instances::REPLY_MEMORY,
    model::check_name,
    proxies::TrustedProxies,
    task::{HISTORY_RETENTION, worker::WorkerLimits},
    telemetry::{self, traces::Traces},
    tls::Files,
};

/// Bounds of the memory for replies, MiB.
const LEAST_REPLY_MEMORY: i64 = 32;
const MOST_REPLY_MEMORY: i64 = 65_536;
/// Upper bound of both concurrency limits.
const MAX_CONCURRENCY: i64 = 1024;
/// Upper bound of the history retention, tasks of each kind per instance.
const MAX_RETENTION: i64 = 1_000_000;

/// Options of a process that runs tasks.
#[derive(Debug, Args)]
struct WorkerArgs {
    /// Maximum concurrent scans of this process [default: 16]
    #[arg(long, value_name = "N", env = "KEYSWEEP_CONCURRENCY", hide_env_values = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CONCURRENCY))]
    concurrency: Option<u32>,
    /// Maximum concurrent scans per host, over all replicas [default: 1]
    #[arg(long, value_name = "N", env = "KEYSWEEP_HOST_CONCURRENCY", hide_env_values = true, value_parser = clap::value_parser!(u32).range(1..=MAX_CONCURRENCY))]
    host_concurrency: Option<u32>,
    /// Task records to keep per instance, manual and scheduled ones counted apart [default: 1000]
    #[arg(long, value_name = "N", env = "KEYSWEEP_HISTORY_RETENTION", hide_env_values = true, value_parser = clap::value_parser!(u32).range(1..=MAX_RETENTION))]
    history_retention: Option<u32>,
    /// Memory for what servers reply to this process, in MiB [default: 80]
    #[arg(long, value_name = "MIB", env = "KEYSWEEP_REPLY_MEMORY", hide_env_values = true, value_parser = clap::value_parser!(u32).range(LEAST_REPLY_MEMORY..=MOST_REPLY_MEMORY))]
    reply_memory: Option<u32>,
    /// Scan although a server's clock differs by more than 2 s from its replicas', or by more than a minute from this
    /// machine's
    #[arg(long)]
    allow_clock_skew: bool,
}

impl WorkerArgs {
    fn limits(&self, file: &FileConfig) -> anyhow::Result<WorkerLimits> {
        let default = WorkerLimits::default();
        let limits = WorkerLimits {
            concurrency: self.concurrency.or(file.concurrency).unwrap_or(default.concurrency),
            per_host: self.host_concurrency.or(file.host_concurrency).unwrap_or(default.per_host),
            allow_clock_skew: self.allow_clock_skew || file.allow_clock_skew == Some(true),
        };
        check("concurrency", limits.concurrency, MAX_CONCURRENCY)?;
        check("host_concurrency", limits.per_host, MAX_CONCURRENCY)?;
        Ok(limits)
    }

    fn retention(&self, file: &FileConfig) -> anyhow::Result<u32> {
        let retention = self.history_retention.or(file.history_retention).unwrap_or(HISTORY_RETENTION);
        check("history_retention", retention, MAX_RETENTION)?;
        Ok(retention)
    }

    /// Returns the memory for replies, bytes.
    fn reply_memory(&self, file: &FileConfig) -> anyhow::Result<usize> {
        match self.reply_memory.or(file.reply_memory) {
            None => Ok(REPLY_MEMORY),
            Some(mib) if (LEAST_REPLY_MEMORY..=MOST_REPLY_MEMORY).contains(&mib.into()) => Ok((mib as usize) << 20),
            Some(mib) => bail!(
                "--config: invalid reply_memory {mib}: expected a number of MiB from {LEAST_REPLY_MEMORY} to {MOST_REPLY_MEMORY}"
            ),
        }
    }
}

/// Checks a value from the config file; clap has checked those of flags and variables.
fn check(field: &str, value: u32, max: i64) -> anyhow::Result<()> {
    match (1..=max).contains(&i64::from(value)) {
        true => Ok(()),
        false => bail!("--config: invalid {field} {value}: expected a number from 1 to {max}"),
    }
}

/// Options of the listeners.
#[derive(Debug, Args)]
struct ListenArgs {
    /// Serve Prometheus metrics at /metrics on this address, for example 127.0.0.1:7081 [default: disabled]
    #[arg(long, value_name = "ADDR", env = "KEYSWEEP_METRICS_LISTEN", hide_env_values = true, value_parser = address)]
    metrics_listen: Option<SocketAddr>,
    /// Allow plain HTTP on an address that other machines can reach, for example behind a TLS proxy
    #[arg(long)]
    insecure_http: bool,
}

impl ListenArgs {
    fn insecure_http(&self, file: &FileConfig) -> bool {
        self.insecure_http || file.insecure_http == Some(true)
    }

    /// Returns the address of the metrics listener, which never encrypts.
    fn metrics(&self, file: &FileConfig) -> anyhow::Result<Option<SocketAddr>> {
        let listen = self.metrics_listen.or(file.metrics_listen);
        match listen {
            Some(listen) if !listen.ip().is_loopback() && !self.insecure_http(file) => bail!(
                "--metrics-listen {listen} is reachable from other machines over plain HTTP; use a loopback address such as 127.0.0.1:7081, or add --insecure-http"
            ),
            _ => Ok(listen),
        }
    }
}

/// Options of how clients name and reach the API, and through which proxies.
#[derive(Debug, Args)]
struct ReachArgs {
    /// URL at which clients reach the API, such as https://keysweep.example: what the service catalog shows, and a host that
    /// signatures may cover behind a proxy [default: the host of each request]
    #[arg(long, value_name = "URL", env = "KEYSWEEP_PUBLIC_URL", hide_env_values = true)]
    public_url: Option<String>,
    /// Name of the region in the service catalog [default: default]
    #[arg(long, value_name = "NAME", env = "KEYSWEEP_REGION", hide_env_values = true)]
    region: Option<String>,
    /// Name of the domain that all users belong to; Terraform's provider compares it with its own [default: default]
    #[arg(long, value_name = "NAME", env = "KEYSWEEP_DOMAIN", hide_env_values = true)]
    domain: Option<String>,
    /// Addresses of the proxies in front of the API, as CIDR, comma-separated: their X-Forwarded-For, Forwarded and
    /// X-Forwarded-Host name the client and the host that it called [default: none]
    #[arg(
        long,
        value_name = "RANGES",
        env = "KEYSWEEP_TRUSTED_PROXIES",
        hide_env_values = true,
        value_delimiter = ','
    )]
    trusted_proxies: Option<Vec<String>>,
}

impl ReachArgs {
    fn proxies(&self, file: &FileConfig) -> anyhow::Result<TrustedProxies> {
        let ranges = self.trusted_proxies.clone().or_else(|| file.trusted_proxies.clone()).unwrap_or_default();
        TrustedProxies::new(ranges).context("--trusted-proxies")
    }

    fn resolve(self, file: &FileConfig) -> anyhow::Result<CatalogSettings> {
        let default = CatalogSettings::default();
        let settings = CatalogSettings {
            domain: self.domain.or(file.domain.clone()).unwrap_or(default.domain),
            region: self.region.or(file.region.clone()).unwrap_or(default.region),
            public_url: self.public_url.or(file.public_url.clone()).map(|url| public_url(&url)).transpose()?,
        };
        check_name("domain", &settings.domain).context("--domain")?;
        check_name("region", &settings.region).context("--region")?;
        Ok(settings)
    }
}

/// Parses the URL at which clients reach the API; returns it without a slash at the end.
fn public_url(text: &str) -> anyhow::Result<String> {
    let url = url::Url::parse(text).ok().filter(|url| {
        let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        matches!(url.scheme(), "http" | "https") && !has_more && url.username().is_empty() && url.password().is_none()
    });
    let url = url.with_context(|| {
        format!("invalid --public-url {text:?}: expected http:// or https:// and a host, without user and path")
    })?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Arguments of `keysweep worker`.
#[derive(Debug, Args)]
pub struct WorkArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// Arguments of `keysweep serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Address of the API [default: 127.0.0.1:7080]
    #[arg(long = "listen", value_name = "ADDR", env = "KEYSWEEP_LISTEN", hide_env_values = true, value_parser = address)]
    api_listen: Option<SocketAddr>,
    /// Serve HTTPS with this certificate chain (PEM file), reloaded on SIGHUP
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_TLS_CERT", hide_env_values = true)]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM file)
    #[arg(long, value_name = "FILE", env = "KEYSWEEP_TLS_KEY", hide_env_values = true)]
    tls_key: Option<PathBuf>,
    /// Disable authentication; requires a loopback address
    #[arg(long)]
    no_auth: bool,
    #[command(flatten)]
    catalog: ReachArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    worker: WorkerArgs,
}

/// Serves the API and runs tasks until a signal.
///
/// # Errors
/// A setting is invalid, an address cannot be bound, or the database cannot be opened.
pub fn serve(args: ServeArgs) -> anyhow::Result<()> {
    allocator::share_arenas();
    let (settings, roles) = serving(args).map_err(InvalidInput::mark)?;
    run(&settings, roles)
}

/// Returns the settings of a process that serves the API.
fn serving(args: ServeArgs) -> anyhow::Result<(StoreSettings, Roles)> {
    let file = FileConfig::read(args.store.config.as_deref())?;
    let listen = args.api_listen.or(file.listen).unwrap_or(DEFAULT_LISTEN);
    let loopback = listen.ip().is_loopback();
    if args.no_auth && !loopback {
        bail!("--no-auth requires a loopback address, such as 127.0.0.1, and --listen is {listen}");
    }
    let certificate = match (args.tls_cert.or(file.tls_cert.clone()), args.tls_key.or(file.tls_key.clone())) {
        (Some(certificate), Some(key)) => Some(Files { certificate, key }),
        (None, None) => None,
        _ => bail!("--tls-cert and --tls-key must be given together"),
    };
    let exposed = !loopback && certificate.is_none();
    if exposed && !args.listen.insecure_http(&file) {
        bail!(
            "--listen {listen} is reachable from other machines over plain HTTP; add --tls-cert and --tls-key, or --insecure-http behind a TLS proxy"
        );
    }
    let settings = args.store.resolve(&file)?;
    let (limits, history_retention) = (args.worker.limits(&file)?, args.worker.retention(&file)?);
    let metrics = args.listen.metrics(&file)?;
    let proxies = args.catalog.proxies(&file)?;
    let catalog = args.catalog.resolve(&file)?;
    let roles = Roles {
        listen: Some(listen),
        metrics,
        authenticate: !args.no_auth,
        limits,
        history_retention,
        reply_memory: args.worker.reply_memory(&file)?,
        certificate,
        catalog,
        proxies,
        traces: Traces::from_environment()?,
    };
    Ok((settings, roles))
}

/// Runs tasks, without the API, until a signal.
///
/// # Errors
/// A setting is invalid, an address cannot be bound, or the database cannot be opened.
pub fn work(args: WorkArgs) -> anyhow::Result<()> {
    allocator::share_arenas();
    let (settings, roles) = working(&args).map_err(InvalidInput::mark)?;
    run(&settings, roles)
}

/// Returns the settings of a process that runs tasks only.
fn working(args: &WorkArgs) -> anyhow::Result<(StoreSettings, Roles)> {
    let file = FileConfig::read(args.store.config.as_deref())?;
    let settings = args.store.resolve(&file)?;
    let (limits, history_retention) = (args.worker.limits(&file)?, args.worker.retention(&file)?);
    let metrics = args.listen.metrics(&file)?;
    let roles = Roles {
        listen: None,
        metrics,
        authenticate: true,
        limits,
        history_retention,
        reply_memory: args.worker.reply_memory(&file)?,
        certificate: None,
        catalog: CatalogSettings::default(),
        proxies: TrustedProxies::default(),
        traces: Traces::from_environment()?,
    };
    Ok((settings, roles))
}

#[tokio::main]
async fn run(settings: &StoreSettings, roles: Roles) -> anyhow::Result<()> {
    telemetry::start();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // The default action of SIGHUP would end the process; certificate renewal sends it to reload files.
    let mut hang_up = signal(SignalKind::hangup())?;
    let app = App::start(settings, roles).await?;
    if let Some(metrics) = app.metrics {
        tracing::info!(%metrics, "serving metrics at /metrics");
    }
    match app.address {
        Some(address) => tracing::info!(%address, database = %settings.database, "serving"),
        None => tracing::info!(database = %settings.database, "working"),
    }
    notify_systemd(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => app.reload(),
        }
    }
    notify_systemd(&[NotifyState::Stopping]);
    tracing::info!("shutting down: scans finish their slice and release their leases");
    app.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Reports the state to systemd; does nothing unless the service was started with `Type=notify`.
fn notify_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "sd_notify failed");
    }
}
