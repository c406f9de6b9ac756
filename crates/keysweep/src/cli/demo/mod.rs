//! `keysweep demo`: the main use case end to end on a disposable server, through the public API.

mod cleanup;
mod hold;
mod loader;
mod server;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::HumanCount;
use keysweep_engine::{Progress, Stop, link::Link};
use serde_json::Value;

use self::{
    cleanup::Cleanup,
    loader::{ExpiryLog, Loader, Sample, Ttl, now},
    server::DemoServer,
};
use super::{signals::stop_on_signals_or, term};
use crate::{
    app::{App, Roles},
    config::{Database, StoreSettings},
    iam::CatalogSettings,
    instances::{NewInstance, REPLY_MEMORY},
    proxies::TrustedProxies,
    task::{HISTORY_RETENTION, worker::WorkerLimits},
    telemetry::traces::Traces,
    units::size,
};

/// One of this many keys expires in the batch of the first act.
const BATCH_STEP: u64 = 4;
/// Milliseconds until the batch expires. Its expiry times are set by then.
const BATCH_DELAY: u64 = 3_000;
/// How long the server's own expiry cycle works on the batch before the scan.
const CYCLE_TIME: Duration = Duration::from_secs(3);
/// One of this many keys is loaded for the second act.
const CHURN_STEP: u64 = 5;
/// Share of stale keys at which the second act begins to hold, 0–1. The server's own expiry cycle lets it build up.
const STALE_SHARE: f64 = 0.15;
/// How long the demo waits for [`STALE_SHARE`]; the share has passed its peak by then.
const STALE_TIMEOUT: Duration = Duration::from_secs(40);
/// Interval of samples and of progress polls.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Timeout of one request to the API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `keysweep demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Exit after printing the result instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Number of keys to load
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    keys: u64,
}

/// Runs the demo. Server and folder are removed on return, also on an error or Ctrl-C, and on a second Ctrl-C that exits
/// without waiting.
///
/// # Errors
/// A step failed. Failures after Ctrl-C are caused by it and are no errors.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let cleanup = Cleanup::default();
    let stop = stop_on_signals_or(cleanup.final_run()).context("cannot install signal handlers")?;
    let outcome = run_steps(&args, &cleanup, &stop);
    if stop.is_raised() { Ok(()) } else { outcome }
}

fn run_steps(args: &DemoArgs, cleanup: &Cleanup, stop: &Stop) -> anyhow::Result<()> {
    let folder = cleanup.make_folder()?;
    let server = DemoServer::start(cleanup, &folder, stop)?;
    let mut link = server.connect(stop)?;
    term::line(&format!("A disposable server is running, {}.", server::name(&mut link)?));

    let log = ExpiryLog::default();
    let mut loader = Loader::new(server.connect(stop)?, log.clone());
    let bar = term::Counter::new("loading sessions", args.keys);
    loader.load(args.keys, Ttl::Long, stop, |keys| bar.set(keys))?;
    bar.finish();
    let loaded = Sample::take(&mut link, &log)?;
    term::line(&format!("{} sessions take {}.", HumanCount(loaded.keys), size(loaded.used_memory)));
    let expires_at = now() + BATCH_DELAY;
    let batch = loader.expire_every(BATCH_STEP, expires_at, stop)?;
    // A real server has clients during a scan, so this one does too.
    let (writing, is_churning) = (Stop::new(), Arc::new(AtomicBool::new(false)));
    let writer = loader.keep_writing(Arc::clone(&is_churning), writing.clone())?;
    let before = after_the_batch(&mut link, &log, batch, expires_at, stop)?;

    let runtime = tokio::runtime::Runtime::new()?;
    let settings = StoreSettings {
        database: Database::Sqlite(folder.join("demo.db")),
        key_file: folder.join("demo.db.key"),
        allowed_targets: None,
        new_database: false,
    };
    let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let roles = Roles {
        listen,
        metrics: None,
        authenticate: false,
        limits: WorkerLimits::default(),
        history_retention: HISTORY_RETENTION,
        reply_memory: REPLY_MEMORY,
        certificate: None,
        catalog: CatalogSettings::default(),
        proxies: TrustedProxies::default(),
        traces: Traces::default(),
    };
    let app = runtime.block_on(App::start(&settings, roles))?;
    let shown = scan(&runtime, &app, &server, stop).and_then(|task| {
        let after = Sample::take(&mut link, &log)?;
        print_result(&before, &after, &task);
        let field = |name: &str| task[name].as_str().unwrap_or_default();
        Ok(format!("{}/api/v1/projects/{}/instances/{}/hold", base(&app)?, field("project_id"), field("instance_id")))
    });
    let shown = shown.and_then(|path| {
        if args.once {
            return Ok(());
        }
        is_churning.store(true, Ordering::Relaxed);
        churn(args.keys / CHURN_STEP, &server, &mut link, &log, stop)?;
        hold::run(&agent(), &path, &mut link, &log, stop, || print_next_steps(&app, &server))
    });
    // A stop of its own: raising `stop` here would look like Ctrl-C.
    writing.raise();
    runtime.block_on(app.stop());
    // Before the join: killing the server ends the writer's wait for a reply, should the server hang.
    cleanup.run();
    // A panic of the writer has printed its message already.
    let _ = writer.join();
    shown
}

/// Gives the server's own expiry cycle some seconds after the batch has expired, and says what it has left.
fn after_the_batch(
    link: &mut Link,
    log: &ExpiryLog,
    batch: u64,
    expires_at: u64,
    stop: &Stop,
) -> anyhow::Result<Sample> {
    let until = Duration::from_millis(expires_at.saturating_sub(now())) + CYCLE_TIME;
    stop.wait_until(Instant::now() + until);
    if stop.is_raised() {
        bail!("stopped while the batch expired");
    }
    let sample = Sample::take(link, log)?;
    term::line(&format!(
        "{} sessions have expired at once. After {} s of its own expiry cycle the server still holds {} of them:",
        HumanCount(batch),
        CYCLE_TIME.as_secs(),
        HumanCount(sample.stale())
    ));
    term::line(&format!("{} {:.1} % stale", hold::bar(sample.stale_share()), sample.stale_share() * 100.0));
    Ok(sample)
}

/// Replaces the sessions by keys that come and go, and waits until many of them are stale.
fn churn(keys: u64, server: &DemoServer, link: &mut Link, log: &ExpiryLog, stop: &Stop) -> anyhow::Result<()> {
    term::line("\nNow the sessions give way to keys that live for up to a minute, 2,000 new ones a second.");
    link.call(&[b"FLUSHALL"])?;
    log.clear();
    let mut loader = Loader::new(server.connect(stop)?, log.clone());
    let bar = term::Counter::new("loading keys with TTLs of 1 to 60 s", keys);
    loader.load(keys, Ttl::Short, stop, |keys| bar.set(keys))?;
    bar.finish();
    wait_until_stale(link, log, stop)
}

/// Samples the server until many of its keys are stale.
fn wait_until_stale(link: &mut Link, log: &ExpiryLog, stop: &Stop) -> anyhow::Result<()> {
    let deadline = Instant::now() + STALE_TIMEOUT;
    let bar = term::Counter::new("waiting for stale keys to build up, % of all keys", (STALE_SHARE * 100.0) as u64);
    loop {
        let sample = Sample::take(link, log)?;
        bar.set((sample.stale_share() * 100.0) as u64);
        if sample.stale_share() >= STALE_SHARE || Instant::now() >= deadline {
            bar.finish();
            return Ok(());
        }
        if stop.is_raised() {
            bail!("stopped while waiting for stale keys");
        }
        stop.wait_until(Instant::now() + POLL_INTERVAL);
    }
}

/// Registers the server, creates a task through the API and follows it. Returns the finished task.
fn scan(runtime: &tokio::runtime::Runtime, app: &App, server: &DemoServer, stop: &Stop) -> anyhow::Result<Value> {
    let instance = runtime.block_on(async {
        let project = app.identity.add_project("demo", None).await?;
        let new = NewInstance { name: "demo", url: &server.url(), ..NewInstance::default() };
        anyhow::Ok(app.instances.add(&project.id, new).await?)
    })?;
    let base = base(app)?;
    let create = format!("{base}/v2/{}/instances/{}/scan-expire-keys-task", instance.project_id, instance.id);
    term::line("keysweep scans the server, as a task that is created through its API.");
    let agent = agent();
    let created: Value = agent.post(&create).send_empty()?.body_mut().read_json()?;
    let id = created["id"].as_str().context("the response has no task ID")?;
    let detail = format!("{base}/api/v1/projects/{}/tasks/{id}", instance.project_id);
    let live = term::Live::new();
    loop {
        let task: Value = agent.get(&detail).call()?.body_mut().read_json()?;
        if let Ok(progress) = serde_json::from_value::<Progress>(task["progress"].clone()) {
            live.show(&progress);
        }
        match task["status"].as_str() {
            Some("success") => {
                live.finish();
                return Ok(task);
            }
            Some("failed") => {
                bail!("the task failed: {}", task["reason"]["message"].as_str().unwrap_or("no reason given"))
            }
            _ if stop.is_raised() => bail!("stopped while the task ran"),
            _ => stop.wait_until(Instant::now() + POLL_INTERVAL),
        }
    }
}

/// Returns a client of the API.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT));
    // A proxy from the environment cannot reach this machine.
    config.proxy(None).build().into()
}

fn print_result(before: &Sample, after: &Sample, task: &Value) {
    let count = |value: u64| HumanCount(value).to_string();
    let percent = |sample: &Sample| format!("{}  ({:.1} %)", count(sample.stale()), sample.stale_share() * 100.0);
    let row = |name: &str, before: String, after: String| vec![name.to_owned(), before, after];
    let report = &task["report"];
    let latency = |field: &str| {
        let p90 = report["probe_seconds"][field].as_f64();
        p90.map_or_else(|| "not measured".to_owned(), |seconds| format!("{:.2} ms", seconds * 1e3))
    };
    term::line(&format!("{} {:.1} % stale\n", hold::bar(after.stale_share()), after.stale_share() * 100.0));
    term::table(
        &["", "before", "after"],
        vec![
            row("keys in memory (DBSIZE)", count(before.keys), count(after.keys)),
            row("live keys, by the loader's log", count(before.live), count(after.live)),
            row("stale keys", percent(before), percent(after)),
            row("used memory", size(before.used_memory), size(after.used_memory)),
            row("clients' p90, before and during the scan", latency("baseline_p90"), latency("during_p90")),
        ],
    );
    let number = |field: &str| report[field].as_f64().unwrap_or(0.0);
    term::line(&format!(
        "\nThe scan reclaimed {} stale keys in {:.1} s, in {} slices of {:.0} µs (median), using {:.0} % of the server's main thread.",
        count(task["keys_reclaimed"].as_u64().unwrap_or(0)),
        number("elapsed_seconds"),
        count(report["slices"].as_u64().unwrap_or(0)),
        report["slice_seconds"]["p50"].as_f64().unwrap_or(0.0) * 1e6,
        number("cpu_share") * 100.0,
    ));
}

fn print_next_steps(app: &App, server: &DemoServer) {
    let Ok(base) = base(app) else { return };
    term::line(&format!(
        "\nCtrl-C ends the demo. Until then the server can be scanned: keysweep scan {}",
        server.url()
    ));
    term::line(&format!("The web console requires no password here: {base}/console"));
}

fn base(app: &App) -> anyhow::Result<String> {
    Ok(format!("http://{}", app.address.context("the API is not served")?))
}
