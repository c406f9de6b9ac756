//! Reasons to throttle: paused expiry, background saves, replicas that lag or are missing.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Checkpoint, Monitor, Options, Outcome, Progress, Stop, Target, sweep};
use keysweep_harness::{DataSet, Flavor, Server, Stalls, eventually};
use redis::Connection;
use rstest::rstest;

use crate::common::{Once, slow};

fn run(connection: &mut Connection, command: &str) {
    let mut words = command.split(' ');
    let mut query = redis::cmd(words.next().expect("a command"));
    words
        .fold(&mut query, |query, word| query.arg(word))
        .exec(connection)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
}

fn size(server: &Server) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size")
}

/// Runs an action on the server in the middle of the sweep.
fn mid_sweep(what: impl Fn() + Sync) -> Once<impl Fn(&Progress) + Sync> {
    Once::between(0.2..0.8, move |_| what())
}

#[test]
fn slices_that_ran_while_expiry_was_paused_are_repeated() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(15_000).stale(15_000).load(&server);
    let target: Target = server.url().parse().expect("a target");
    // The sample a second later shows it at the latest; until then SCAN succeeds and deletes nothing.
    let pause = mid_sweep(|| run(&mut server.connection(), "CLIENT PAUSE 2500 WRITE"));

    let report = sweep(&target, &slow(15_000), &pause, &Stop::new());

    assert!(pause.was_done());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true)
    );
    assert_eq!(size(&server), loaded.live);
    assert!(report.totals.throttled.paused > 0.5, "{:?}", report.totals.throttled);
    assert!(
        report.totals.keys_scanned > loaded.live + loaded.stale,
        "a part was scanned twice: {}",
        report.totals.keys_scanned
    );
}

/// Shorter than the second between two samples: servers since 7.0 count the command, on earlier ones the sums show it.
#[rstest]
fn a_pause_between_two_samples_leaves_no_stale_key(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(700, 120)] milliseconds: u64,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(15_000).stale(15_000).load(&server);
    let slices = Slices::default();
    let pause = mid_sweep(|| {
        let mut connection = server.connection();
        run(&mut connection, "CLIENT PAUSE 60000 WRITE");
        let (begun, before) = (Instant::now(), slices.number());
        // The first one may have been running. Where the server reports the pause, a sample during it ends all slices.
        eventually("two slices have fallen into the pause", Duration::from_secs(10), || {
            let passed = begun.elapsed();
            let is_over = slices.number() >= before + 2 || passed >= Duration::from_millis(500);
            (is_over && passed >= Duration::from_millis(milliseconds)).then_some(())
        });
        run(&mut connection, "CLIENT UNPAUSE");
    });
    let report = sweep(&server.url().parse().expect("a target"), &slow(15_000), &Both(&pause, &slices), &Stop::new());
    assert!(pause.was_done());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, size(&server)),
        (Outcome::Done, loaded.stale, loaded.live)
    );
    assert!(
        report.totals.keys_scanned > loaded.live + loaded.stale,
        "a part was scanned twice: {}",
        report.totals.keys_scanned
    );
}

#[test]
fn a_pause_that_ends_with_the_sweep_leaves_no_stale_key() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(500).stale(500).load(&server);
    run(&mut server.connection(), "CLIENT PAUSE 1500 WRITE");
    let report = sweep(&server.url().parse().expect("a target"), &Options::default(), &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, size(&server)),
        (Outcome::Done, loaded.stale, loaded.live)
    );
    assert!(report.totals.throttled.paused > 0.5, "{:?}", report.totals.throttled);
}

#[test]
fn the_sweep_waits_during_a_background_save() {
    // A setting for tests makes saving slow: 1 ms a key.
    let server = Server::with(Flavor::Valkey91).arg("--rdb-key-save-delay", "1000").start();
    let loaded = DataSet::new().live(2_000).stale(1_000).load(&server);
    run(&mut server.connection(), "BGSAVE");
    let mut options = slow(15_000);
    options.limits.keys_per_second = Some(1_500);
    let report = sweep(&server.url().parse().expect("a target"), &options, &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
    assert!(report.totals.throttled.fork > 0.5, "{:?}", report.totals.throttled);
}

#[test]
fn the_wait_for_background_saves_is_bounded() {
    let server = Server::with(Flavor::Valkey91).arg("--rdb-key-save-delay", "1000000").start();
    let loaded = DataSet::new().live(1_000).stale(1_000).load(&server);
    run(&mut server.connection(), "BGSAVE");
    let mut options = Options { throttle_limit: Duration::from_millis(500), ..Options::default() };
    // Long enough for several samples: the limit is for the whole sweep, not for each sample.
    options.limits.keys_per_second = Some(800);
    let stalls = Stalls::watch();
    let report = sweep(&server.url().parse().expect("a target"), &options, &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
    let stalled = stalls.end().as_secs_f64();
    assert!(
        (0.4..0.9 + stalled).contains(&report.totals.throttled.fork),
        "{:?}, {stalled} s stalled",
        report.totals.throttled
    );
}

#[test]
fn the_sweep_waits_for_a_replica_that_is_missing() {
    let primary = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(15_000).stale(15_000).load(&primary);
    let replica = primary.replica();
    let target: Target = primary.url().parse().expect("a target");
    let detach = mid_sweep(|| {
        run(&mut replica.connection(), "REPLICAOF NO ONE");
        eventually("the primary has no replica", Duration::from_secs(10), || (replicas(&primary) == 0).then_some(()));
    });
    let notes = Notes::default();
    thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &slow(15_000), &Both(&detach, &notes), &Stop::new()));
        eventually("the sweep says that it waits", Duration::from_secs(20), || {
            notes.contain("a replica is missing").then_some(())
        });
        // Meanwhile no key is reclaimed.
        let held = size(&primary);
        thread::sleep(Duration::from_millis(300));
        let still = size(&primary);
        assert!(held == still && held > loaded.live, "{held} keys, then {still}, while the replica was away");
        assert!(!sweeping.is_finished());
        run(&mut replica.connection(), &format!("REPLICAOF 127.0.0.1 {}", primary.port()));
        let report = sweeping.join().expect("no panic");
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
        assert!(report.totals.throttled.replica_missing > 0.2, "{:?}", report.totals.throttled);
    });
}

#[test]
fn the_sweep_waits_for_a_replica_that_lags() {
    let primary = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(5_000).stale(10_000).load(&primary);
    let mut replica = primary.replica();
    replica.pause();
    // A replica that does not read lags by the bytes written: 2 MB against a limit of 1 MiB.
    run(&mut primary.connection(), &format!("SET large {}", "x".repeat(2_000_000)));
    let options = Options { max_replica_lag: 1024 * 1024, ..Options::default() };
    let target: Target = primary.url().parse().expect("a target");
    let (notes, stop) = (Notes::default(), Stop::new());
    thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options, &notes, &stop));
        eventually("the sweep says that it waits", Duration::from_secs(10), || {
            notes.contain("lags behind").then_some(())
        });
        let held = size(&primary);
        thread::sleep(Duration::from_millis(300));
        let still = size(&primary);
        replica.resume();
        let report = sweeping.join().expect("no panic");
        assert!(held == still && held > loaded.live + 1, "{held} keys, then {still}, while the replica lagged");
        assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
        assert!(report.totals.throttled.replica_lag > 0.2, "{:?}", report.totals.throttled);
    });
}

/// Two monitors of the same sweep.
struct Both<'a>(&'a dyn Monitor, &'a dyn Monitor);

impl Monitor for Both<'_> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.0.progress(progress, checkpoint);
        self.1.progress(progress, checkpoint);
    }

    fn slice(&self, cost: Duration) {
        self.0.slice(cost);
        self.1.slice(cost);
    }

    fn note(&self, sentence: &str) {
        self.0.note(sentence);
        self.1.note(sentence);
    }
}

/// Counts the slices.
#[derive(Default)]
struct Slices(AtomicU64);

impl Slices {
    fn number(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Monitor for Slices {
    fn slice(&self, _: Duration) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Keeps the notes.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn contain(&self, words: &str) -> bool {
        self.0.lock().expect("no panic").iter().any(|note| note.contains(words))
    }
}

impl Monitor for Notes {
    fn note(&self, sentence: &str) {
        self.0.lock().expect("no panic").push(sentence.to_owned());
    }
}

fn replicas(primary: &Server) -> u64 {
    let info: String = redis::cmd("INFO").arg("replication").query(&mut primary.connection()).expect("INFO");
    info.lines().find_map(|line| line.strip_prefix("connected_slaves:")?.parse().ok()).expect("a number")
}
