//! What registered instances cost the store, what claims cost while two projects wait, and what polls cost.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan};
use keysweep::store::{ClaimLimits, Store};
use keysweep_harness::{Flavor, Server};

use crate::{
    setup::Setup,
    table::{Table, row},
};

/// Headings of the tables.
pub const TABLE: Table<'_> = Table(&["database", "instances", "list", "schedule", "claim of 16 polls"]);
/// See [`TABLE`].
pub const CLAIMS: Table<'_> = Table(&["database", "projects that wait", "tasks that wait", "claim: p50", "most"]);
/// See [`TABLE`].
pub const POLLS: Table<'_> = Table(&["database", "instances", "all polled after", "our CPU a poll"]);

/// Numbers of registered instances; `KEYSWEEP_SCALE_INSTANCES` replaces them by one.
const REGISTERED: [usize; 3] = [300, 3_000, 30_000];
/// Tasks that wait; the same variable replaces them.
const WAITING: usize = 10_000;
/// Claims that are measured.
const CLAIMED: usize = 50;
/// Instances that are polled.
const POLLED: usize = 300;
/// Instances whose polls are claimed at a time, as the service does.
const POLLS_AT_A_TIME: u32 = 16;
/// Plans that are read at a time, as the service does.
const PLANS: u32 = 500;
/// Scans on one host at a time.
const PER_HOST: u32 = 1_000;
/// Places of the worker that claims.
const PLACES: u32 = 64;

fn replaced() -> Result<Option<usize>> {
    let number = env::var("KEYSWEEP_SCALE_INSTANCES").ok();
    number.map(|number| number.parse().context("KEYSWEEP_SCALE_INSTANCES")).transpose()
}

/// Measures lists, reads of the schedule and claims of polls of instances that are scanned every hour.
pub fn store(new: fn() -> Result<Setup>) -> Result<()> {
    for number in replaced()?.map_or(REGISTERED.to_vec(), |number| vec![number]) {
        let setup = new()?;
        let instances = setup.register(number, "redis://127.0.0.1:1", None)?;
        setup.schedule(&instances, Timestamp::now() + 1.hour(), Duration::from_secs(3_600) / number as u32)?;
        let project = &instances.first().context("an instance")?.project_id;
        let list = median(&setup, async |store| Ok(store.instances(project).await?.len()))?;
        let schedule = median(&setup, async |store| Ok(store.due_plans(PLANS).await?))?;
        let interval = Duration::from_secs(3_600);
        let polls = median(&setup, async |store| Ok(store.claim_polls(interval, POLLS_AT_A_TIME, &[]).await?))?;
        let time = |milliseconds: f64| format!("{milliseconds:.1} ms");
        row(&[&setup.name, &number, &time(list), &time(schedule), &time(polls)]);
    }
    Ok(())
}

/// Returns the median time of an operation in milliseconds.
fn median<T>(setup: &Setup, operation: impl AsyncFn(&Store) -> Result<T>) -> Result<f64> {
    const ROUNDS: usize = 9;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        setup.runtime.block_on(operation(&setup.store))?;
        took.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[ROUNDS / 2])
}

/// Measures claims while the tasks of one project wait, and while those of two do, which take turns.
pub fn claims(new: fn() -> Result<Setup>) -> Result<()> {
    for projects in [1, 2] {
        let setup = new()?;
        let waiting = replaced()?.unwrap_or(WAITING);
        let urls = vec!["redis://127.0.0.1:1".to_owned(); waiting / projects];
        for number in 0..projects {
            let instances = match number {
                0 => setup.register_each(&urls, None)?,
                _ => setup.register_in(&setup.add_project("search")?, &urls, None)?,
            };
            setup.create_tasks(&instances)?;
        }
        let (mut took, mut of_first) = (Vec::new(), 0);
        let limits = ClaimLimits { per_host: PER_HOST, places: PLACES };
        for _ in 0..CLAIMED {
            let begun = Instant::now();
            let claim = setup.runtime.block_on(setup.store.claim("bench", Duration::from_secs(60), limits))?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            of_first += usize::from(claim.context("no task waits to be claimed")?.task.project_id == setup.project.id);
        }
        ensure!(
            of_first == CLAIMED / projects,
            "{of_first} of {CLAIMED} claims are of the first of {projects} projects"
        );
        took.sort_by(f64::total_cmp);
        let time = |milliseconds: f64| format!("{milliseconds:.1} ms");
        row(&[&setup.name, &projects, &waiting, &time(took[CLAIMED / 2]), &time(took[CLAIMED - 1])]);
    }
    Ok(())
}

/// Polls instances of real servers, until each was polled once.
pub fn polls(setup: &Setup) -> Result<()> {
    let servers: Vec<Server> = (0..3).map(|_| Server::start(Flavor::Valkey91)).collect();
    let urls: Vec<String> = (0..POLLED).map(|number| servers[number % servers.len()].url()).collect();
    let instances = setup.register_each(&urls, None)?;
    let project = &instances.first().context("an instance")?.project_id;
    let (service, begun) = (setup.serve(1), Instant::now());
    let idle = service.cpu();
    loop {
        let all = setup.runtime.block_on(setup.store.instances(project))?;
        if all.iter().all(|instance| instance.stats.is_some()) {
            break;
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "not every instance was polled");
        thread::sleep(Duration::from_millis(50));
    }
    let (wall, cpu) = (begun.elapsed(), service.cpu().saturating_sub(idle));
    row(&[
        &setup.name,
        &POLLED,
        &format!("{:.1} s", wall.as_secs_f64()),
        &format!("{:.1} ms", cpu.as_secs_f64() * 1e3 / POLLED as f64),
    ]);
    Ok(())
}
