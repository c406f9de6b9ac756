//! Many real servers, two per host, scanned by one replica with one concurrent scan per host.

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use keysweep::{
    model::{Instance, Status, Task},
    store::PageRequest,
};
use keysweep_harness::{DataSet, Flavor, Server};

use crate::{creates, setup::Setup, table::row};

/// Number of servers; `KEYSWEEP_SCALE_SERVERS` replaces it.
const SERVERS: usize = 200;
/// Number of servers that share a host.
const PER_HOST: usize = 2;
/// Live keys per server.
const LIVE: u64 = 2_000;
/// Stale keys per server.
const STALE: u64 = 500;
/// Longest time until all tasks are finished.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Scans every server once and prints the cost for the service.
pub fn scan(setup: &Setup) -> Result<()> {
    let number = match env::var("KEYSWEEP_SCALE_SERVERS") {
        Ok(number) => number.parse().context("KEYSWEEP_SCALE_SERVERS")?,
        Err(_) => SERVERS,
    };
    ensure!((1..=250).contains(&number), "KEYSWEEP_SCALE_SERVERS={number}: give 1 to 250");
    let host = |number: usize| format!("127.0.0.{}", number / PER_HOST + 2);
    let servers: Vec<Server> =
        (0..number).map(|number| Server::with(Flavor::Valkey91).also_on(&host(number)).start()).collect();
    let stale: u64 = servers.iter().map(|server| DataSet::new().live(LIVE).stale(STALE).load(server).stale).sum();
    let url = |(number, server): (usize, &Server)| format!("redis://{}:{}", host(number), server.port());
    let urls: Vec<String> = servers.iter().enumerate().map(url).collect();
    let instances = setup.register_each(&urls, None)?;
    let service = setup.serve(1);
    let (before, theirs, begun) = (service.cpu(), setup.database_cpu(), Instant::now());
    creates::create(&service, &instances, 4)?;
    let mut tasks = Vec::new();
    for instance in &instances {
        let task = loop {
            let task = last(setup, instance)?;
            if !task.status.is_active() {
                break task;
            }
            ensure!(begun.elapsed() < TIMEOUT, "the tasks do not finish");
            thread::sleep(Duration::from_millis(20));
        };
        ensure!(task.status == Status::Success, "a task finished as {}", task.status);
        tasks.push(task);
    }
    let (wall, ours, theirs) = (begun.elapsed(), service.cpu() - before, setup.database_cpu() - theirs);
    let reclaimed: u64 = tasks.iter().map(|task| task.reclaimed).sum();
    ensure!(reclaimed == stale, "{reclaimed} of {stale} stale keys were reclaimed");
    for neighbours in tasks.chunks_mut(PER_HOST) {
        neighbours.sort_by_key(|task| task.started_at);
        let apart = neighbours.windows(2).all(|pair| pair[0].finished_at <= pair[1].started_at);
        ensure!(apart, "two scans of one host overlap: {neighbours:?}");
    }
    let each = |used: Duration| format!("{:.1} ms", used.as_secs_f64() * 1e3 / number as f64);
    row(&[
        &"servers",
        &setup.name,
        &number,
        &format!("{:.1} s", wall.as_secs_f64()),
        &format!("{:.0} tasks an hour", number as f64 * 3_600.0 / wall.as_secs_f64()),
        &format!("{} of our CPU a task", each(ours)),
        &format!("{} of the database's", each(theirs)),
        &format!("{} MiB at most", peak_memory(service.pid())? / 1_024),
    ]);
    Ok(())
}

fn last(setup: &Setup, instance: &Instance) -> Result<Task> {
    let page = PageRequest { status: None, offset: 0, limit: 1 };
    let page = setup.runtime.block_on(setup.store.tasks(&instance.id, &page))?;
    page.tasks.into_iter().next().context("a task is missing")
}

/// Returns the peak memory of a process, KiB.
fn peak_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
