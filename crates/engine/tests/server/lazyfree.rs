//! The managed `lazyfree-lazy-expire`: on while sweeps run, off again afterwards, and never changed against the operator.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, Once},
    thread,
    time::Duration,
};

use keysweep_engine::{
    Address, Credentials, Holders, LazyFreeRegistry, Monitor, Options, Outcome, Stop, Target,
    link::{Link, Plain},
    release_lazyfree, sweep,
};
use keysweep_harness::{DataSet, Flavor, Kind, Server, eventually};
use rstest::rstest;

/// The holders of all sweeps of a test: what the service stores in its database.
type Table = Arc<Mutex<HashSet<(Address, String, &'static str)>>>;

/// Time of a commit, so long that sweeps which start together see each other's entries.
const COMMIT: Duration = Duration::from_millis(5);

/// The registry of one sweep.
#[derive(Debug)]
struct InMemoryRegistry(Table, &'static str);

impl LazyFreeRegistry for InMemoryRegistry {
    fn acquire(&self, address: &Address, run_id: &str) -> Result<Holders, String> {
        let mut table = self.0.lock().expect("no panic");
        let held_before = !table.insert((address.clone(), run_id.to_owned(), self.1));
        let is_other = |(at, run, task): &&(Address, String, _)| at == address && run == run_id && *task != self.1;
        let others = table.iter().filter(is_other).count() as u64;
        drop(table);
        thread::sleep(COMMIT);
        Ok(Holders { held_before, others })
    }

    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String> {
        let held = self.0.lock().expect("no panic").iter().any(|(at, run, _)| at == address && run == run_id);
        held.then(|| self.acquire(address, run_id)).transpose()
    }

    fn release(&self, address: &Address, run_id: &str) -> Result<u64, String> {
        let mut table = self.0.lock().expect("no panic");
        table.remove(&(address.clone(), run_id.to_owned(), self.1));
        Ok(table.iter().filter(|(at, run, _)| at == address && run == run_id).count() as u64)
    }
}

fn options(table: &Table, task: &'static str) -> Options {
    Options { lazyfree: Some(Arc::new(InMemoryRegistry(Arc::clone(table), task))), ..Options::default() }
}

fn target(server: &Server) -> Target {
    server.url().parse().expect("a target")
}

fn setting(server: &Server) -> String {
    let mut connection = server.connection();
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("lazyfree-lazy-expire").query(&mut connection).expect("CONFIG");
    pair[1].clone()
}

fn set(server: &Server, value: &str) {
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("lazyfree-lazy-expire")
        .arg(value)
        .exec(&mut server.connection())
        .expect("CONFIG");
}

/// Keeps the setting after every slice. Called by the thread that restores it, which has not done so by then.
struct Settings<'a>(&'a Server, Mutex<Vec<String>>);

impl Monitor for Settings<'_> {
    fn slice(&self, _: Duration) {
        self.1.lock().expect("no panic").push(setting(self.0));
    }
}

/// Returns the total time of commands that took longer than 5 ms.
fn slow_commands(server: &Server, during: impl FnOnce()) -> Duration {
    let mut connection = server.connection();
    redis::cmd("CONFIG").arg("SET").arg("slowlog-log-slower-than").arg(5_000).exec(&mut connection).expect("CONFIG");
    redis::cmd("SLOWLOG").arg("RESET").exec(&mut connection).expect("SLOWLOG");
    during();
    let entries: Vec<Vec<redis::Value>> = redis::cmd("SLOWLOG").arg("GET").query(&mut connection).expect("SLOWLOG");
    let micros = |entry: &Vec<redis::Value>| redis::from_redis_value::<u64>(entry[2].clone()).expect("microseconds");
    Duration::from_micros(entries.iter().map(micros).sum())
}

#[test]
fn alone_hashes_of_a_million_fields_do_not_block_where_the_setting_is_managed() {
    let server = Server::start(Flavor::Redis70);
    let hashes =
        |prefix: &str| DataSet::new().prefix(prefix).kind(Kind::Hash).elements(1_000_000).stale(2).load(&server);
    hashes("managed:");
    let table = Table::default();
    let managed = slow_commands(&server, || {
        let report = sweep(&target(&server), &options(&table, "task"), &(), &Stop::new());
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, 2));
        assert!(!report.warnings.iter().any(|warning| warning.starts_with("freeing")), "{:?}", report.warnings);
    });
    hashes("as it is:");
    let as_it_is = slow_commands(&server, || {
        sweep(&target(&server), &Options::default(), &(), &Stop::new());
    });
    // A stalled machine adds at most half of the unmanaged time to a command; freeing in the command takes all of it.
    assert!(as_it_is > Duration::from_millis(100), "this test measures nothing: {as_it_is:?}");
    assert!(managed < as_it_is / 2, "{managed:?} managed, {as_it_is:?} as it is");
}

#[test]
fn the_setting_is_on_while_the_sweep_runs_and_off_again_afterwards() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(10_000).load(&server);
    let (table, seen) = (Table::default(), Settings(&server, Mutex::default()));
    let mut options = options(&table, "task");
    options.limits.keys_per_second = Some(10_000);
    sweep(&target(&server), &options, &seen, &Stop::new());
    let seen = seen.1.into_inner().expect("no panic");
    assert!(!seen.is_empty() && seen.iter().all(|value| value == "yes"), "{seen:?}");
    assert_eq!(setting(&server), "no");
    assert!(table.lock().expect("no panic").is_empty(), "no record is left");
}

#[test]
fn a_setting_that_was_on_stays_on() {
    let server = Server::with(Flavor::Redis70).arg("--lazyfree-lazy-expire", "yes").start();
    DataSet::new().live(100).load(&server);
    let table = Table::default();
    sweep(&target(&server), &options(&table, "task"), &(), &Stop::new());
    assert_eq!(setting(&server), "yes");
    assert!(table.lock().expect("no panic").is_empty());
}

#[test]
fn a_setting_that_was_on_stays_on_through_sweeps_that_overlap() {
    const ROUNDS: usize = 8;
    const SWEEPS: [&str; 3] = ["a", "b", "c"];
    let server = Server::with(Flavor::Redis70).arg("--lazyfree-lazy-expire", "yes").start();
    DataSet::new().live(2_000).load(&server);
    let (table, target) = (Table::default(), target(&server));
    for _ in 0..ROUNDS {
        thread::scope(|scope| {
            for task in SWEEPS {
                let options = options(&table, task);
                let target = &target;
                scope.spawn(move || sweep(target, &options, &(), &Stop::new()));
            }
        });
        assert_eq!(setting(&server), "yes", "the operator turned it on");
        assert!(table.lock().expect("no panic").is_empty(), "no record is left");
    }
}

#[test]
fn a_setting_that_was_off_is_off_again_after_sweeps_that_overlap() {
    const ROUNDS: usize = 8;
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(2_000).load(&server);
    let (table, target) = (Table::default(), target(&server));
    for _ in 0..ROUNDS {
        thread::scope(|scope| {
            for task in ["a", "b", "c"] {
                let options = options(&table, task);
                let target = &target;
                scope.spawn(move || sweep(target, &options, &(), &Stop::new()));
            }
        });
        assert_eq!(setting(&server), "no");
        assert!(table.lock().expect("no panic").is_empty(), "no record is left");
    }
}

#[test]
fn a_setting_that_another_worker_has_restored_is_not_restored_again() {
    let server = Server::with(Flavor::Redis70).arg("--lazyfree-lazy-expire", "yes").start();
    let (mut link, address, run_id) = link(&server);
    let registry = InMemoryRegistry(Table::default(), "task");
    release_lazyfree(&mut link, &registry, &address, &run_id).expect("an answer");
    assert_eq!(setting(&server), "yes", "without a record the operator turned it on");
}

/// A registry that runs an action `before` or `after` its first release.
struct Interrupted<F, G> {
    registry: InMemoryRegistry,
    before: F,
    after: G,
    once: Once,
}

impl<F, G> fmt::Debug for Interrupted<F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.registry.fmt(f)
    }
}

impl<F: Fn() + Send + Sync, G: Fn() + Send + Sync> LazyFreeRegistry for Interrupted<F, G> {
    fn acquire(&self, address: &Address, run_id: &str) -> Result<Holders, String> {
        self.registry.acquire(address, run_id)
    }

    fn join(&self, address: &Address, run_id: &str) -> Result<Option<Holders>, String> {
        self.registry.join(address, run_id)
    }

    fn release(&self, address: &Address, run_id: &str) -> Result<u64, String> {
        let mut released = None;
        self.once.call_once(|| {
            (self.before)();
            released = Some(self.registry.release(address, run_id));
            (self.after)();
        });
        released.unwrap_or_else(|| self.registry.release(address, run_id))
    }
}

fn link(server: &Server) -> (Link, Address, String) {
    let address = Address::tcp("127.0.0.1", server.port());
    let mut link = Link::open(&Plain, &address, &Credentials::default(), "test", &Stop::new()).expect("a link");
    let run_id = link.info(&["server"]).expect("an answer").expect("INFO").text("run_id").expect("an id").to_owned();
    (link, address, run_id)
}

#[rstest]
#[case::found_on("yes")]
#[case::found_off("no")]
fn a_sweep_that_starts_and_ends_during_the_last_release_leaves_it_off(#[case] found: &str) {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(100).load(&server);
    let (mut link, address, run_id) = link(&server);
    let table = Table::default();
    let short = options(&table, "short");
    let seen = Settings(&server, Mutex::default());
    let registry = Interrupted {
        registry: InMemoryRegistry(Arc::clone(&table), "last"),
        before: || _ = sweep(&target(&server), &short, &seen, &Stop::new()),
        after: || {},
        once: Once::new(),
    };
    registry.acquire(&address, &run_id).expect("recorded");
    set(&server, found);
    release_lazyfree(&mut link, &registry, &address, &run_id).expect("an answer");
    let seen = seen.1.lock().expect("no panic");
    assert!(!seen.is_empty() && seen.iter().all(|value| value == "yes"), "the short sweep turned it on: {seen:?}");
    assert_eq!(setting(&server), "no");
    assert!(table.lock().expect("no panic").is_empty(), "no record is left");
}

#[test]
fn a_sweep_that_joins_after_the_restore_and_ends_at_once_leaves_it_off() {
    let server = Server::start(Flavor::Redis70);
    let ((mut link, address, run_id), (others_link, ..)) = (link(&server), link(&server));
    let others_link = Mutex::new(others_link);
    let table = Table::default();
    let other = InMemoryRegistry(Arc::clone(&table), "other");
    let registry = Interrupted {
        registry: InMemoryRegistry(Arc::clone(&table), "last"),
        // The other sweep has found the setting on, and joins after the restore.
        before: || _ = other.join(&address, &run_id).expect("an answer").expect("a recorded sweep"),
        after: || {
            release_lazyfree(&mut others_link.lock().expect("no panic"), &other, &address, &run_id).expect("an answer");
        },
        once: Once::new(),
    };
    registry.acquire(&address, &run_id).expect("recorded");
    set(&server, "yes");
    release_lazyfree(&mut link, &registry, &address, &run_id).expect("an answer");
    assert_eq!(setting(&server), "no");
    assert!(table.lock().expect("no panic").is_empty(), "no record is left");
}

#[test]
fn a_sweep_that_joins_during_the_last_release_has_it_on_again() {
    let server = Server::start(Flavor::Redis70);
    let (mut link, address, run_id) = link(&server);
    let table = Table::default();
    let other = InMemoryRegistry(Arc::clone(&table), "other");
    let registry = Interrupted {
        registry: InMemoryRegistry(Arc::clone(&table), "last"),
        before: || _ = other.join(&address, &run_id).expect("an answer").expect("a recorded sweep"),
        after: || {},
        once: Once::new(),
    };
    registry.acquire(&address, &run_id).expect("recorded");
    set(&server, "yes");
    release_lazyfree(&mut link, &registry, &address, &run_id).expect("an answer");
    assert_eq!(setting(&server), "yes", "the other sweep uses it");
    release_lazyfree(&mut link, &other, &address, &run_id).expect("an answer");
    assert_eq!(setting(&server), "no");
    assert!(table.lock().expect("no panic").is_empty(), "no record is left");
}

#[test]
fn of_two_overlapping_sweeps_the_last_one_restores_it() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(10_000).load(&server);
    let (table, target) = (Table::default(), target(&server));
    let (mut long, short) = (options(&table, "long"), options(&table, "short"));
    long.limits.keys_per_second = Some(5_000);
    thread::scope(|scope| {
        let running = scope.spawn(|| sweep(&target, &long, &(), &Stop::new()));
        eventually("the long sweep has turned it on", Duration::from_secs(10), || {
            (setting(&server) == "yes").then_some(())
        });
        sweep(&target, &short, &(), &Stop::new());
        assert!(!running.is_finished(), "the sweeps overlapped");
        assert_eq!(setting(&server), "yes", "the long sweep still uses it");
        running.join().expect("no panic");
    });
    assert_eq!(setting(&server), "no");
}

#[test]
fn a_stopped_sweep_restores_it_too() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(10_000).load(&server);
    let (table, stop) = (Table::default(), Stop::new());
    let mut options = options(&table, "task");
    options.limits.keys_per_second = Some(2_000);
    thread::scope(|scope| {
        scope.spawn(|| sweep(&target(&server), &options, &(), &stop));
        eventually("the sweep has turned it on", Duration::from_secs(10), || (setting(&server) == "yes").then_some(()));
        stop.raise();
    });
    assert_eq!(setting(&server), "no");
}

#[test]
fn a_process_that_took_over_the_address_keeps_its_own_setting() {
    const PREVIOUS: &str = "0123456789012345678901234567890123456789";
    let server = Server::with(Flavor::Redis70).arg("--lazyfree-lazy-expire", "yes").start();
    let (mut link, address, _) = link(&server);
    let registry = InMemoryRegistry(Table::default(), "task");
    registry.acquire(&address, PREVIOUS).expect("recorded");
    release_lazyfree(&mut link, &registry, &address, PREVIOUS).expect("an answer");
    assert_eq!(setting(&server), "yes");
    assert!(registry.0.lock().expect("no panic").is_empty(), "its record ended with the process");
}

#[test]
fn a_setting_that_the_operator_turned_off_meanwhile_stays_off_and_a_refusal_is_reported() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(5_000).load(&server);
    let table = Table::default();
    let mut slow = options(&table, "task");
    slow.limits.keys_per_second = Some(5_000);
    thread::scope(|scope| {
        scope.spawn(|| sweep(&target(&server), &slow, &(), &Stop::new()));
        eventually("the sweep has turned it on", Duration::from_secs(10), || (setting(&server) == "yes").then_some(()));
        set(&server, "no");
    });
    assert_eq!(setting(&server), "no");

    let rules = ["on", ">p", "~*", "+@all", "-config|set"];
    redis::cmd("ACL").arg("SETUSER").arg("sweeper").arg(&rules).exec(&mut server.connection()).expect("a user");
    let target: Target = format!("redis://sweeper:p@127.0.0.1:{}", server.port()).parse().expect("a target");
    let report = sweep(&target, &options(&table, "task"), &(), &Stop::new());
    assert_eq!(report.outcome, Outcome::Done, "sweeping never needs CONFIG");
    assert!(report.warnings.iter().any(|warning| warning.contains("grant +config|set")), "{:?}", report.warnings);
}
