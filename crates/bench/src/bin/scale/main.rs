//! Cost of tasks, schedules and replicas for the service and its database. See docs/scaling.md.

mod creates;
mod fleet;
mod http;
mod load;
mod registered;
mod setup;
mod table;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan};
use keysweep::{
    model::Status,
    store::{Clock, PageRequest},
};
use keysweep_harness::{DataSet, Flavor, Server};
use setup::Setup;
use table::{Table, row};

/// Number of instances of a large fleet.
const FLEET: usize = 10_000;
/// Time for which the schedule is measured.
const WATCH: Duration = Duration::from_secs(40);
/// Concurrent scans per host, for fleets whose instances share one server.
const SCANS: u32 = 64;
/// Number of tasks that the replicas share.
const SHARED: usize = 600;

/// Creates a database.
type New = fn() -> Result<Setup>;
/// Measures something on new databases, and prints rows of its table.
type Part = fn(New) -> Result<()>;

fn main() -> Result<()> {
    let only = env::var("KEYSWEEP_SCALE_ONLY").unwrap_or_default();
    let wants = |name: &str| only.is_empty() || only.split(',').any(|only| only == name);
    let setups = [Setup::sqlite as New, Setup::postgres];
    for setup in setups {
        if wants("creates") {
            creates_and_claims(&setup()?)?;
        }
        if wants("schedule") {
            schedule(&setup()?)?;
        }
        if wants("servers") {
            fleet::scan(&setup()?)?;
        }
    }
    let parts: [(&str, Table<'_>, Part); 4] = [
        ("load", load::TABLE, |setup| load::mixed(&setup()?)),
        ("registered", registered::TABLE, registered::store),
        ("claims", registered::CLAIMS, registered::claims),
        ("polls", registered::POLLS, |setup| registered::polls(&setup()?)),
    ];
    for (_, table, part) in parts.into_iter().filter(|(name, ..)| wants(name)) {
        table.begin();
        setups.into_iter().try_for_each(part)?;
    }
    if wants("replicas") {
        for replicas in [1, 2, 4] {
            share(&Setup::postgres()?, replicas)?;
        }
    }
    Ok(())
}

/// Measures creates per second over one connection and over sixteen, then claims while all these tasks wait.
fn creates_and_claims(setup: &Setup) -> Result<()> {
    let hour = |hours: i64| (Timestamp::now() + hours.hours()).strftime("%H:%M").to_string();
    // The window is closed while tasks are created, so that no scan runs.
    let window = format!("{}-{} UTC", hour(4), hour(8));
    let instances = setup.register(FLEET, "redis://127.0.0.1:1", Some(&window))?;
    let service = setup.serve(SCANS);
    let (alone, together) = instances.split_at(1_000);
    for (connections, instances) in [(1, alone), (16, together)] {
        let (ours, theirs) = (service.cpu(), setup.database_cpu());
        let creates = creates::create(&service, instances, connections)?;
        let each = |used: Duration| format!("{:.2}", used.as_secs_f64() * 1e3 / creates.number as f64);
        row(&[
            &"creates",
            &setup.name,
            &connections,
            &format!("{:.0}/s", creates.rate()),
            &format!("p50 {:.1} ms", creates.quantile(0.5)),
            &format!("p99 {:.1} ms", creates.quantile(0.99)),
            &format!("{} ms of our CPU each", each(service.cpu() - ours)),
            &format!("{} ms of the database's", each(setup.database_cpu() - theirs)),
        ]);
    }
    service.terminate();
    // A clock inside the window, so that all tasks may be claimed.
    let store = setup.store.with_clock(Clock::at(Timestamp::now() + 5.hours()));
    let mut took = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let claim = setup.runtime.block_on(store.claim("bench", Duration::from_secs(60), 1_000))?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(claim.is_some(), "no task waits to be claimed");
    }
    took.sort_by(f64::total_cmp);
    row(&[&"claims", &setup.name, &FLEET, &format!("p50 {:.1} ms", took[25]), &format!("most {:.1} ms", took[49])]);
    Ok(())
}

/// Measures the scheduler lag and cost of a fleet that is scanned every hour, its runs spread over the hour.
fn schedule(setup: &Setup) -> Result<()> {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(20).load(&server);
    let instances = setup.register(FLEET, &server.url(), None)?;
    let apart = Duration::from_secs(3_600) / FLEET as u32;
    let setting_up = Duration::from_secs(20);
    let first = Timestamp::now() + setting_up;
    setup.schedule(&instances, first, apart)?;
    ensure!(Timestamp::now() < first, "setting the schedule took longer than {setting_up:?}");
    let service = setup.serve(SCANS);
    wait_until(first);
    let (ours, theirs) = (service.cpu(), setup.database_cpu());
    wait_until(first + WATCH);
    let (ours, theirs) = (service.cpu() - ours, setup.database_cpu() - theirs);
    let due = (WATCH.as_secs_f64() / apart.as_secs_f64()) as usize;
    let mut late = Vec::new();
    for instance in &instances[..due] {
        let page = PageRequest { status: None, offset: 0, limit: 1 };
        let page = setup.runtime.block_on(setup.store.tasks(&instance.id, &page))?;
        let task = page.tasks.first().context("a run is missing")?;
        late.push(task.created_at.duration_since(task.due_at.context("a due time")?).as_secs_f64() * 1e3);
    }
    late.sort_by(f64::total_cmp);
    let an_hour = |used: Duration| used.as_secs_f64() * 3_600.0 / WATCH.as_secs_f64();
    row(&[
        &"schedule",
        &setup.name,
        &FLEET,
        &format!("{due} runs"),
        &format!("late p50 {:.0} ms", late[due / 2]),
        &format!("most {:.0} ms", late[due - 1]),
        &format!("{:.0} s of our CPU an hour", an_hour(ours)),
        &format!("{:.0} s of the database's", an_hour(theirs)),
    ]);
    Ok(())
}

fn wait_until(time: Timestamp) {
    let left = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
    thread::sleep(left);
}

/// Measures the same tasks shared by this number of replicas.
fn share(setup: &Setup, replicas: usize) -> Result<()> {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(20).load(&server);
    let instances = setup.register(SHARED, &server.url(), None)?;
    let services: Vec<_> = (0..replicas).map(|_| setup.serve(SCANS)).collect();
    let database = setup.database.as_ref().context("replicas need a PostgreSQL")?;
    let active = || -> Result<f64> {
        // Statistics lag by up to a second.
        thread::sleep(Duration::from_millis(1_500));
        Ok(database.sql("SELECT active_time FROM pg_stat_database WHERE datname = 'postgres'").parse()?)
    };
    let ours = || services.iter().map(keysweep_harness::Service::cpu).sum::<Duration>();
    let all = || -> Result<()> {
        let begun = Instant::now();
        creates::create(&services[0], &instances, 4)?;
        while database.sql("SELECT COUNT(*) FROM task WHERE status IN ('waiting', 'running')") != "0" {
            ensure!(begun.elapsed() < Duration::from_secs(120), "the tasks do not finish");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    };
    // The first pass warms up: new replicas open connections, prepare statements and poll every server.
    all()?;
    let (active_before, before, theirs, begun) = (active()?, ours(), setup.database_cpu(), Instant::now());
    all()?;
    let (wall, used, theirs) = (begun.elapsed(), ours() - before, setup.database_cpu() - theirs);
    let succeeded = database.sql("SELECT COUNT(*) FROM task WHERE status = 'success'");
    ensure!(succeeded == (2 * SHARED).to_string(), "only {succeeded} tasks ended as {}", Status::Success.as_str());
    let each = |milliseconds: f64| format!("{:.1} ms", milliseconds / SHARED as f64);
    row(&[
        &"replicas",
        &replicas,
        &format!("{:.0} tasks/s", SHARED as f64 / wall.as_secs_f64()),
        &format!("{} of database time a task", each(active()? - active_before)),
        &format!("{} of the database's CPU", each(theirs.as_secs_f64() * 1e3)),
        &format!("{} of our CPU", each(used.as_secs_f64() * 1e3)),
    ]);
    Ok(())
}
