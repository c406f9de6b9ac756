//! `keysweep demo`: the main job shown end to end, on a throwaway server, through the same doors that everybody uses.

mod leftovers;
mod loader;
mod server;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::HumanCount;
use keysweep_engine::{Progress, Stop};
use serde_json::Value;

use self::{
    leftovers::Leftovers,
    loader::{Ledger, Loader, Reading},
    server::ThrowawayServer,
};
use super::{signals::stop_on_signals_or, term};
use crate::{
    app::{App, Roles},
    config::{Database, StoreSettings},
    fleet::NewInstance,
    task::{RECORDS, worker::Limits},
    telemetry::traces::Traces,
    units::size,
};

/// Share of dead keys that the demo waits for, 0–1; the server's own cycle lets it come about by itself.
const STALE_SHARE: f64 = 0.2;
/// The share has passed its peak by then, whatever it was.
const STALE_PATIENCE: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `keysweep demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Exit after the result instead of serving until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Keys to load
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    keys: u64,
}

/// How long a signal may take from the thread that it interrupts to the one that hears it.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the demo. Whatever it started is gone when it returns, also on an error or Ctrl-C, and when a second Ctrl-C does
/// not wait for that.
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    let leftovers = Leftovers::default();
    let stop = stop_on_signals_or(leftovers.clear_for_good()).context("signals cannot be caught")?;
    let told = tell(&args, &leftovers, &stop);
    if told.as_ref().is_err_and(|error| error.chain().any(|cause| cause.is::<redis::RedisError>())) {
        // A signal also interrupts a reply that is waited for, before the thread that hears it has raised the stop.
        stop.wait_until(Instant::now() + SIGNAL_PATIENCE);
    }
    // What fails after Ctrl-C fails because of it.
    if stop.is_raised() { Ok(()) } else { told }
}

fn tell(args: &DemoArgs, leftovers: &Leftovers, stop: &Stop) -> anyhow::Result<()> {
    let folder = leftovers.make_folder()?;
    let server = ThrowawayServer::start(leftovers, &folder, stop)?;
    let mut watcher = server.connect()?;
    term::line(&format!("A throwaway server runs at {}.", server.url()));

    let ledger = Ledger::default();
    let mut loader = Loader::new(server.connect()?, ledger.clone());
    let bar = term::Counter::new("loading session keys with TTLs of 1 to 60 s", args.keys);
    loader.load(args.keys, stop, |keys| bar.set(keys))?;
    bar.finish();
    // Clients go on while keysweep sweeps; so do ours.
    let writing = Stop::new();
    let writer = loader.keep_writing(writing.clone())?;
    let before = wait_until_stale(&mut watcher, &ledger, stop)?;

    let runtime = tokio::runtime::Runtime::new()?;
    let settings = StoreSettings {
        database: Database::Sqlite(folder.join("demo.db")),
        key_file: folder.join("demo.db.key"),
        allowed_targets: None,
    };
    let listen = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let roles = Roles {
        listen,
        metrics: None,
        authenticate: false,
        limits: Limits::default(),
        records: RECORDS,
        certificate: None,
        traces: Traces::default(),
    };
    let app = runtime.block_on(App::start(&settings, roles))?;
    let shown = show(&runtime, &app, &server, stop).and_then(|task| {
        let after = Reading::take(&mut watcher, &ledger)?;
        result(&before, &after, &ledger, &task);
        if !args.once {
            invite(&app, &task, &server);
        }
        Ok(())
    });
    if shown.is_ok() && !args.once {
        term::line("\nA gentle writer goes on setting 2,000 keys a second. Ctrl-C ends everything.");
        while !stop.is_raised() {
            stop.wait_until(Instant::now() + Duration::from_secs(3600));
        }
    }
    // The writer's own stop, so that an end by itself is not taken for Ctrl-C.
    writing.raise();
    runtime.block_on(app.stop());
    // A writer whose server hangs hears of the end of its connection only: before it gives up it would wait for the
    // answer to each command.
    leftovers.clear();
    // Should the writer have panicked, its message is on the terminal already.
    let _ = writer.join();
    shown
}

/// Waits until a fifth of what the server holds is dead, with nothing done to bring it about.
fn wait_until_stale(watcher: &mut redis::Connection, ledger: &Ledger, stop: &Stop) -> anyhow::Result<Reading> {
    let deadline = Instant::now() + STALE_PATIENCE;
    let bar = term::Counter::new("waiting for keys to die and stay, % of all", (STALE_SHARE * 100.0) as u64);
    loop {
        let reading = Reading::take(watcher, ledger)?;
        bar.set((reading.dead_share() * 100.0) as u64);
        if reading.dead_share() >= STALE_SHARE || Instant::now() >= deadline {
            bar.finish();
            return Ok(reading);
        }
        if stop.is_raised() {
            bail!("stopped while waiting");
        }
        stop.wait_until(Instant::now() + LOOK_EVERY);
    }
}

/// Registers the server, creates the task through the API, and shows it until it ends. Returns the task's detail.
fn show(runtime: &tokio::runtime::Runtime, app: &App, server: &ThrowawayServer, stop: &Stop) -> anyhow::Result<Value> {
    let instance = runtime.block_on(async {
        let project = app.fleet.add_project("demo", None).await?;
        app.fleet
            .add_instance(&project.id, NewInstance { name: "throwaway", url: &server.url(), ..NewInstance::default() })
            .await
    })?;
    let base = base(app)?;
    let create = format!("{base}/v2/{}/instances/{}/scan-expire-keys-task", instance.project_id, instance.id);
    term::line(&format!("The console is at {base}/console; nobody is asked for a password here."));
    term::line(&format!("POST {create}"));
    let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_PATIENCE));
    // No proxy leads to this machine, whatever the environment names.
    let agent: ureq::Agent = config.proxy(None).build().into();
    let created: Value = agent.post(&create).send_empty()?.body_mut().read_json()?;
    let id = created["id"].as_str().context("the answer has no id")?;
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
            _ => stop.wait_until(Instant::now() + LOOK_EVERY),
        }
    }
}

fn result(before: &Reading, after: &Reading, ledger: &Ledger, task: &Value) {
    let count = |value: u64| HumanCount(value).to_string();
    let percent = |reading: &Reading| format!("{}  ({:.1} %)", count(reading.dead()), reading.dead_share() * 100.0);
    let row = |name: &str, before: String, after: String| vec![name.to_owned(), before, after];
    term::line("");
    term::table(
        &["", "before", "after"],
        vec![
            row("keys that the server holds (DBSIZE)", count(before.held), count(after.held)),
            row("keys alive by the loader's own ledger", count(before.alive), count(after.alive)),
            row("dead keys that still take memory", percent(before), percent(after)),
            row("used memory", size(before.used_memory), size(after.used_memory)),
        ],
    );
    let report = &task["report"];
    let number = |field: &str| report[field].as_f64().unwrap_or(0.0);
    term::line(&format!(
        "\nThe sweep released {} dead keys in {:.1} s, in {} slices of {:.0} µs (median), {:.0} % of the server's main thread.",
        count(task["keys_reclaimed"].as_u64().unwrap_or(0)),
        number("elapsed_seconds"),
        count(report["slices"].as_u64().unwrap_or(0)),
        report["slice_seconds"]["p50"].as_f64().unwrap_or(0.0) * 1e6,
        number("cpu_share") * 100.0,
    ));
    let begun = task["started_at"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    if let Some(begun) = begun {
        let died_meanwhile =
            ledger.alive_at(begun.as_millisecond().max(0) as u64).saturating_sub(ledger.alive_at(after.at));
        term::line(&format!(
            "What is dead after it died while it ran: {} keys did, some of them behind the cursor.",
            count(died_meanwhile)
        ));
    }
}

fn invite(app: &App, task: &Value, server: &ThrowawayServer) {
    let Ok(base) = base(app) else { return };
    let field = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
    let instance = format!("{base}/v2/{}/instances/{}", field("project_id"), field("instance_id"));
    term::line(&format!(
        "\nThe API is at {base} (no credentials needed here), the console at {base}/console. Sweep again, and see all sweeps:"
    ));
    term::line(&format!("  curl -X POST {instance}/scan-expire-keys-task"));
    term::line(&format!("  curl {instance}/auto-expire/histories"));
    term::line(&format!("or without the service:\n  keysweep scan {}", server.url()));
}

fn base(app: &App) -> anyhow::Result<String> {
    Ok(format!("http://{}", app.address.context("the API is not served")?))
}
