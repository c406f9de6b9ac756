//! Servers that reply, but cannot serve for a while: loading, busy, without their primary, demoted, full. A pairwise selection
//! in `make test`, all of it in `make soak`.

use std::{sync::Mutex, thread, time::Duration};

use keysweep_engine::{
    Checkpoint, FailureKind, Monitor, Options, Outcome, Progress, ShardStatus, Stop, Target, link::Plain, sweep,
};
use keysweep_harness::{Cluster, DataSet, Flavor, Server, eventually, free_port};
use redis::{Connection, InfoDict};
use rstest::rstest;

use crate::common::{Once, slow};

const KEYS: u64 = 8_000;

/// Why a server cannot serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// The server reads its data set from disk.
    Loading,
    /// A script runs for longer than the limit.
    Busy,
    /// The server follows a primary that it cannot reach.
    MasterDown,
    /// The same, but the server keeps replying; only the slices show its role.
    Demoted,
    /// The server accepts no more clients.
    Full,
}

impl Excuse {
    fn server(self, flavor: Flavor) -> Server {
        let server = Server::with(flavor);
        match self {
            // Each loaded command takes this many microseconds, so that loading takes seconds. A file of commands restores
            // expired keys; a dump would not.
            Self::Loading => server.arg("--appendonly", "yes").arg("--key-load-delay", "100").start(),
            Self::Busy => server.arg("--lua-time-limit", "10").start(),
            Self::MasterDown => server.arg("--replica-serve-stale-data", "no").start(),
            Self::Demoted | Self::Full => server.start(),
        }
    }

    /// Puts the server into this state, in a thread where that takes long.
    fn begin(self, server: &Server, admin: &mut Connection) {
        let unused = free_port();
        match self {
            Self::Loading => run_aside(server.connection(), "DEBUG LOADAOF"),
            Self::Busy => {
                // Whole seconds, the first of which may end at once.
                let hold =
                    "local t = redis.call('TIME')[1] + 4 while tonumber(redis.call('TIME')[1]) < t do end return 1";
                let mut connection = server.connection();
                thread::spawn(move || redis::cmd("EVAL").arg(hold).arg(0).exec(&mut connection));
            }
            Self::MasterDown | Self::Demoted => run(admin, &format!("REPLICAOF 127.0.0.1 {unused}")),
            Self::Full => {
                // The one connection is the admin's.
                run(admin, "CONFIG SET maxclients 1");
                run(admin, "CLIENT KILL TYPE normal");
            }
        }
    }

    /// Part of the message.
    const fn words(self) -> &'static str {
        match self {
            Self::Loading => "still loading its data set",
            Self::Busy => "BUSY",
            Self::MasterDown => "has lost its primary",
            Self::Demoted => "is no longer a primary",
            Self::Full => "max number of clients",
        }
    }

    /// Waits until the sweep has noticed the state, then ends the state where it does not end alone.
    fn end(self, admin: &mut Connection, notes: &Mutex<Vec<String>>) {
        let has_noted = |words: &str| {
            let notes = notes.lock().expect("no panic");
            notes.iter().any(|note| note.contains(words))
        };
        let mut is_noticed = || match self {
            Self::Loading | Self::Busy | Self::MasterDown | Self::Demoted => has_noted(self.words()),
            // The note of the sweep is that the connection was closed.
            Self::Full => {
                let info: InfoDict = redis::cmd("INFO").arg("stats").query(admin).expect("INFO answers");
                info.get::<u64>("rejected_connections").is_some_and(|rejected| rejected > 0)
            }
        };
        eventually("the sweep notices it", Duration::from_secs(30), || is_noticed().then_some(()));
        match self {
            Self::Loading | Self::Busy => {}
            Self::MasterDown | Self::Demoted => run(admin, "REPLICAOF NO ONE"),
            Self::Full => run(admin, "CONFIG SET maxclients 100"),
        }
    }
}

fn query(command: &str) -> redis::Cmd {
    let mut query = redis::Cmd::new();
    command.split(' ').for_each(|word| _ = query.arg(word));
    query
}

fn run(connection: &mut Connection, command: &str) {
    query(command).exec(connection).unwrap_or_else(|error| panic!("{command}: {error}"));
}

fn run_aside(mut connection: Connection, command: &'static str) {
    thread::spawn(move || run(&mut connection, command));
}

/// Runs a fault once, and keeps the notes.
struct Listener<F> {
    fault: Once<F>,
    notes: Mutex<Vec<String>>,
}

impl<F: Fn(&Progress) + Sync> Monitor for Listener<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.fault.progress(progress, checkpoint);
    }

    fn note(&self, sentence: &str) {
        self.notes.lock().expect("no panic").push(sentence.to_owned());
    }
}

fn survive(flavor: Flavor, excuse: Excuse, at: f64) {
    let server = excuse.server(flavor);
    let loaded = DataSet::new().live(KEYS / 2).stale(KEYS / 2).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let admin = Mutex::new(server.connection());
    let listener = Listener {
        fault: Once::between(at..1.0, |_| excuse.begin(&server, &mut admin.lock().expect("no panic"))),
        notes: Mutex::default(),
    };
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &slow(3_000), &listener, &Stop::new()));
        eventually("the fault runs", Duration::from_secs(30), || listener.fault.was_done().then_some(()));
        excuse.end(&mut admin.lock().expect("no panic"), &listener.notes);
        sweeping.join().expect("no panic")
    });
    let (outcome, held) = (report.outcome, server.held());
    assert_eq!((outcome, held), (Outcome::Done, loaded.live), "{flavor:?} {excuse:?} {at}: {report:?}");
    assert!(
        !report.totals.exact || report.totals.keys_reclaimed == loaded.stale,
        "{flavor:?} {excuse:?} {at}: {report:?}"
    );
    // A server that was a replica meanwhile may hold other keys than before.
    let goes_on = !matches!(excuse, Excuse::MasterDown | Excuse::Demoted);
    assert!(
        !goes_on || report.totals.keys_scanned < 2 * KEYS,
        "it goes on from its cursor, {}",
        report.totals.keys_scanned
    );
}

#[rstest]
fn heavy_a_server_that_cannot_serve_for_a_while_is_waited_for(
    #[values(
        (Flavor::Redis62, Excuse::Loading, 0.5), (Flavor::Redis70, Excuse::Busy, 0.1), (Flavor::Valkey81, Excuse::Full, 0.8),
        (Flavor::Valkey91, Excuse::MasterDown, 0.5), (Flavor::Valkey91, Excuse::Loading, 0.8),
        (Flavor::Redis62, Excuse::Demoted, 0.1)
    )]
    (flavor, excuse, at): (Flavor, Excuse, f64),
) {
    survive(flavor, excuse, at);
}

/// Longer than the reconnect timeout: the sweep fails with the last error of the server.
#[rstest]
fn heavy_a_server_that_cannot_serve_for_too_long_fails_the_sweep_with_its_error(
    #[values(Excuse::Loading, Excuse::Busy, Excuse::MasterDown, Excuse::Full)] excuse: Excuse,
) {
    let server = excuse.server(Flavor::Valkey91);
    DataSet::new().live(KEYS / 2).stale(KEYS / 2).load(&server);
    let admin = Mutex::new(server.connection());
    let fault = Once::between(0.1..1.0, |_| excuse.begin(&server, &mut admin.lock().expect("no panic")));
    let options = Options { reconnect_timeout: Duration::from_millis(500), ..slow(3_000) };
    let report = sweep(&server.url().parse().expect("a target"), &options, &fault, &Stop::new());
    assert_eq!((report.reason, fault.was_done()), (Some(FailureKind::Unreachable), true), "{report:?}");
    let message = report.message.expect("a sentence");
    assert!(message.contains(excuse.words()), "{message}");
}

/// A server whose background saves fail answers MISCONF to PING, from then on, and serves SCAN.
#[rstest]
fn a_server_that_fails_to_save_is_scanned_and_the_report_says_so(
    #[values((Flavor::Redis62, true), (Flavor::Redis70, false), (Flavor::Valkey91, true))] (flavor, before): (
        Flavor,
        bool,
    ),
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(KEYS / 2).stale(KEYS / 2).load(&server);
    let admin = Mutex::new(server.connection());
    let break_saves = || {
        let admin = &mut admin.lock().expect("no panic");
        // A folder of that name cannot be replaced by the dump.
        let folder: Vec<String> = query("CONFIG GET dir").query(admin).expect("a folder");
        std::fs::create_dir_all(format!("{}/dump.rdb/full", folder[1])).expect("a folder");
        redis::cmd("CONFIG").arg("SET").arg("save").arg("3600 1").exec(admin).expect("saves are on");
        run(admin, "BGSAVE");
        eventually("the save fails", Duration::from_secs(10), || {
            let pong: redis::RedisResult<String> = query("PING").query(admin);
            pong.err().filter(|error| error.to_string().contains("MISCONF")).map(|_| ())
        });
    };
    if before {
        break_saves();
    }
    let fault = Once::between(0.2..0.9, |_| {
        if !before {
            break_saves()
        }
    });
    let target: Target = server.url().parse().expect("a target");
    let report = sweep(&target, &if before { Options::default() } else { slow(8_000) }, &fault, &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true),
        "{report:?}"
    );
    let is_said = report.warnings.iter().any(|warning| warning.contains("fails to save"));
    assert!(is_said && (before || fault.was_done()), "{:?}", report.warnings);
    assert!(keysweep_engine::inspect(&Plain, &target, &Stop::new()).is_ok(), "it is polled as well");
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_every_excuse_at_every_point(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(Excuse::Loading, Excuse::Busy, Excuse::MasterDown, Excuse::Demoted, Excuse::Full)] excuse: Excuse,
) {
    [0.1, 0.5, 0.8].into_iter().for_each(|at| survive(flavor, excuse, at));
}

/// Keeps the primaries that are done, and runs a fault once.
struct Counter<F> {
    fault: Once<F>,
    done: Mutex<Vec<String>>,
}

impl<F: Fn(&Progress) + Sync> Monitor for Counter<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.fault.progress(progress, checkpoint);
        let done = progress.shards.iter().filter(|shard| shard.state == ShardStatus::Done);
        *self.done.lock().expect("no panic") =
            done.map(|shard| shard.address.clone().expect("an address").to_string()).collect();
    }
}

#[test]
fn a_primary_of_a_cluster_that_hangs_delays_no_other() {
    let cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, stale) = cluster.load(2_000, 2_000);
    let (target, hanging): (Target, _) =
        (cluster.url().parse().expect("a target"), cluster.node(0).address().to_string());
    let shared = Mutex::new(cluster);
    let counter = Counter {
        fault: Once::between(0.05..0.5, |_| shared.lock().expect("no panic").node_mut(0).pause()),
        done: Mutex::default(),
    };
    let options = Options { parallel: 3, ..slow(1_500) };
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options, &counter, &Stop::new()));
        eventually("the others have been swept", Duration::from_secs(30), || {
            (counter.done.lock().expect("no panic").len() == 2).then_some(())
        });
        assert!(counter.fault.was_done() && !sweeping.is_finished());
        assert!(!counter.done.lock().expect("no panic").contains(&hanging));
        shared.lock().expect("no panic").node_mut(0).resume();
        sweeping.join().expect("no panic")
    });
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, stale, true),
        "{report:?}"
    );
    assert_eq!(shared.into_inner().expect("no panic").held(), live);
}
