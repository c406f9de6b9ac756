//! A simulation: clients, a schedule and workers on one store, in thousands of random orders, with a clock that is moved,
//! crashes, lost answers and an unavailable store.
//!
//! The workers here are models of `task::drive` that keep its rules (a heartbeat renews, without one for ten seconds a scan
//! stops, a lost lease changes nothing more); the store and the schedule are the real ones. A run that breaks an invariant
//! prints its seed: `KEYSWEEP_SEED=… KEYSWEEP_RUNS=1 cargo nextest run -p keysweep simulation` replays it.

mod invariants;
mod operation;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
    time::Duration,
};

use keysweep::{
    model::{AutoScan, Instance, NewTask, Stored, Task},
    store::{Clock, Created, PageRequest, Store},
    task::Tasks,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use self::{
    operation::{Operation, draw},
    worker::Worker,
};
use crate::conformance::fresh::{Fresh, LEASE, at, id, manual, plain_instance, time};

const INSTANCES: usize = 4;
const HOSTS: usize = 3;
const WORKERS: usize = 3;
const STEPS: usize = 80;
/// Limit of concurrent scans per host.
const PER_HOST: u32 = 1;
/// Seconds without a heartbeat after which a worker stops its scan.
const LEASE_AT_RISK: i64 = 10;
const INTERVAL: i64 = 900;

struct World {
    store: Store,
    seed: u64,
    random: StdRng,
    /// Seconds since the start of the tests.
    clock: i64,
    is_away: bool,
    instances: Vec<Instance>,
    workers: Vec<Worker>,
    born: u32,
    accepted: HashSet<String>,
    /// Owner of each epoch of each instance.
    owners: HashMap<(String, i64), String>,
    /// The newest epoch of each instance.
    epochs: HashMap<String, i64>,
    /// Finished tasks as they were at their end.
    ended: HashMap<String, Task>,
    /// Instances that had a schedule with interval 0.
    without_interval: HashSet<String>,
    /// Instances that had a window.
    with_window: HashSet<String>,
    log: String,
}

impl World {
    async fn new(store: Store, seed: u64) -> Self {
        let mut instances = Vec::new();
        // Two new projects for each run: one store serves all runs.
        for number in 0..INSTANCES {
            let name = format!("{seed:x}/{}", number % 2);
            let project = keysweep::model::Project { id: id(&name), name: name.clone(), created_at: time(0) };
            if number < 2 {
                store.add_project(&project).await.expect("added");
            }
            let instance = plain_instance(&project, &format!("{number}"));
            // Of the two kinds: one whose window binds only the schedule, and one whose window binds all.
            let instance =
                Instance { id: keysweep::random::new_id(), window_binds_manual: number % 2 == 0, ..instance };
            store.add_instance(&instance).await.expect("added");
            instances.push(instance);
        }
        let mut world = Self {
            store,
            seed,
            random: StdRng::seed_from_u64(seed),
            clock: 0,
            is_away: false,
            instances,
            workers: Vec::new(),
            born: 0,
            accepted: HashSet::new(),
            owners: HashMap::new(),
            epochs: HashMap::new(),
            ended: HashMap::new(),
            without_interval: HashSet::new(),
            with_window: HashSet::new(),
            log: String::new(),
        };
        for _ in 0..WORKERS {
            let worker = world.worker();
            world.workers.push(worker);
        }
        world
    }

    fn worker(&mut self) -> Worker {
        self.born += 1;
        Worker { name: format!("w{}", self.born), held: None }
    }

    fn now(&self) -> Clock {
        at(self.clock)
    }

    fn fail(&self, why: &str) -> ! {
        panic!("KEYSWEEP_SEED={} breaks an invariant: {why}\n{}", self.seed, self.log)
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            let operation = draw(&mut self.random);
            self.carry_out(operation).await;
        }
        // From here on nothing fails: every created task must finish.
        self.is_away = false;
        for instance in 0..INSTANCES {
            self.carry_out(Operation::Configure(instance, false)).await;
            self.carry_out(Operation::Window(instance, false)).await;
        }
        let mut rounds = 0;
        while self.is_busy().await {
            rounds += 1;
            if rounds > 600 {
                self.fail("a task does not end");
            }
            for worker in 0..WORKERS {
                self.carry_out(Operation::Step(worker)).await;
            }
            // Far enough for leases to expire.
            self.carry_out(Operation::Advance(if rounds % 20 == 0 { 400 } else { 2 })).await;
        }
        self.check_records().await;
    }

    async fn is_busy(&self) -> bool {
        for instance in &self.instances {
            // No task is younger than the active one.
            let newest = PageRequest { status: None, offset: 0, limit: 1 };
            let tasks = self.store.tasks(&instance.id, &newest).await.expect("read").tasks;
            if tasks.iter().any(|task| task.status.is_active()) {
                return true;
            }
        }
        false
    }

    async fn carry_out(&mut self, operation: Operation) {
        let _ = writeln!(self.log, "{:>6} s  {operation:?}{}", self.clock, if self.is_away { " (away)" } else { "" });
        match operation {
            Operation::Advance(seconds) => {
                self.clock = (self.clock + seconds).max(0);
                for held in self.workers.iter_mut().filter_map(|worker| worker.held.as_mut()) {
                    let unheard = self.clock - held.last_heartbeat;
                    held.was_late |= seconds < 0 || unheard >= LEASE.as_secs() as i64;
                }
            }
            Operation::Outage => self.is_away = !self.is_away,
            Operation::Create(instance) if !self.is_away => self.create(instance).await,
            Operation::Cancel(instance) if !self.is_away => self.cancel(instance).await,
            Operation::Schedule if !self.is_away => {
                Tasks::new(self.store.with_clock(self.now())).keep_schedule().await.expect("kept");
            }
            Operation::Configure(instance, enabled) if !self.is_away => self.configure(instance, enabled).await,
            Operation::Window(instance, closed) if !self.is_away => {
                let window = closed.then(|| self.later_window());
                let was_closed = closed || self.instances[instance].window.is_some();
                self.change(instance, |instance| instance.window = window.map(Stored::read)).await;
                if was_closed {
                    self.with_window.insert(self.instances[instance].id.clone());
                }
            }
            Operation::Pause(instance, paused) if !self.is_away => {
                self.change(instance, |instance| instance.paused = paused).await;
            }
            Operation::Create(_)
            | Operation::Cancel(_)
            | Operation::Schedule
            | Operation::Configure(..)
            | Operation::Window(..)
            | Operation::Pause(..) => {}
            Operation::Step(worker) => self.step(worker, true).await,
            Operation::StepUnheard(worker) => self.step(worker, false).await,
            Operation::Crash(worker) => self.workers[worker] = self.worker(),
            Operation::Stop(worker) => {
                if let Some(held) = self.workers[worker].held.take().filter(|_| !self.is_away) {
                    self.release(&held).await;
                }
                self.workers[worker] = self.worker();
            }
        }
        self.check_hosts();
    }

    async fn create(&mut self, instance: usize) {
        let new = NewTask { hosts: vec![host(instance)], ..manual(&self.instances[instance]) };
        match self.store.with_clock(self.now()).create_task(&new).await.expect("answered") {
            Created::Paused if self.instances[instance].paused => {}
            Created::New(task) | Created::Active(task) if !self.instances[instance].paused => {
                self.accepted.insert(task.id);
            }
            other => self.fail(&format!("{other:?}, and paused is {}", self.instances[instance].paused)),
        }
    }

    async fn change(&mut self, index: usize, change: impl FnOnce(&mut Instance)) {
        let before = self.instances[index].clone();
        let mut after = before.clone();
        change(&mut after);
        self.instances[index] =
            self.store.with_clock(self.now()).update_instance(&before, &after).await.expect("changed");
    }

    /// Returns a window that opens in a few minutes, for the rest of the day.
    fn later_window(&mut self) -> String {
        let opens = self.clock / 60 + self.random.random_range(2..20);
        let day_time = |minutes: i64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
        format!("{}-{} UTC", day_time(opens), day_time(opens + 23 * 60))
    }

    async fn cancel(&mut self, instance: usize) {
        let page = PageRequest { status: None, offset: 0, limit: 1 };
        let newest = self.store.tasks(&self.instances[instance].id, &page).await.expect("read").tasks.pop();
        if let Some(task) = newest {
            self.store.with_clock(self.now()).request_cancel(&task.project_id, &task.id).await.expect("asked");
        }
    }

    async fn configure(&mut self, instance: usize, enabled: bool) {
        let interval = if self.random.random_bool(0.2) { 0 } else { INTERVAL as u64 };
        if interval == 0 {
            self.without_interval.insert(self.instances[instance].id.clone());
        }
        let settings = AutoScan {
            instance_id: self.instances[instance].id.clone(),
            enabled,
            first_scan_at: Some(time(self.clock + self.random.random_range(0..600))),
            first_scan_text: None,
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(600),
            scan_keys_count: 10,
            target: None,
            gathering: None,
            updated_at: time(self.clock),
        };
        let before = self.store.auto_scan(&settings.instance_id).await.expect("read");
        let kept = self.store.set_auto_scan(before.as_ref(), &settings).await.expect("set");
        assert!(kept.is_some(), "no other change was made");
    }
}

fn host(instance: usize) -> String {
    format!("h{}", instance % HOSTS)
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// Runs the simulation `runs` times, or `KEYSWEEP_SOAK` times `soak_runs` times.
async fn simulate(store: Fresh, runs: u64, soak_runs: u64) {
    let first = setting("KEYSWEEP_SEED").unwrap_or_else(|| u64::from(rand::rng().next_u32()) << 20);
    let planned = setting("KEYSWEEP_SOAK").map_or(runs, |factor| factor * soak_runs);
    let runs = setting("KEYSWEEP_RUNS").unwrap_or(planned);
    println!("{runs} runs from KEYSWEEP_SEED={first}");
    for seed in first..first + runs {
        World::new(store.clone(), seed).await.run().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_simulation_on_sqlite() {
    simulate(Fresh::sqlite_in_memory().await, 400, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_simulation_on_postgres() {
    simulate(Fresh::postgres().await, 200, 200).await;
}
