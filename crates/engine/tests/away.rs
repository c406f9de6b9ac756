//! Servers that answer, but cannot serve for a while: loading, busy, without their primary, demoted, full. A pairwise choice in
//! `make test`, all of it in `make soak`.

mod common;

use std::{sync::Mutex, thread, time::Duration};

use keysweep_engine::{Checkpoint, FailureKind, Monitor, Options, Outcome, Progress, ShardStatus, Stop, Target, sweep};
use keysweep_harness::{Cluster, DataSet, Flavor, Server, eventually, free_port};
use redis::{Connection, InfoDict};
use rstest::rstest;

use common::{Once, slow};

const KEYS: u64 = 8_000;

/// What a server says instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// It reads its data set from disk.
    Loading,
    /// A script runs for longer than it may.
    Busy,
    /// It follows a primary that it cannot reach.
    MasterDown,
    /// The same, and it goes on answering; what it is, the slices tell.
    Demoted,
    /// It takes no more clients.
    Full,
}

impl Excuse {
    fn server(self, flavor: Flavor) -> Server {
        let server = Server::with(flavor);
        match self {
            // Each command that is loaded takes this many microseconds, so that loading takes seconds. A file of commands brings
            // dead keys back, where a dump would not.
            Self::Loading => server.arg("--appendonly", "yes").arg("--key-load-delay", "100").start(),
            Self::Busy => server.arg("--lua-time-limit", "10").start(),
            Self::MasterDown => server.arg("--replica-serve-stale-data", "no").start(),
            Self::Demoted | Self::Full => server.start(),
        }
    }

    /// Makes it so; what lasts for long goes on in a thread.
    fn begin(self, server: &Server, admin: &mut Connection) {
        let unused = free_port();
        match self {
            Self::Loading => run_aside(server.connection(), "DEBUG LOADAOF"),
            Self::Busy => {
                // In whole seconds, the first of which may be over at once.
                let hold =
                    "local t = redis.call('TIME')[1] + 4 while tonumber(redis.call('TIME')[1]) < t do end return 1";
                let mut connection = server.connection();
                thread::spawn(move || redis::cmd("EVAL").arg(hold).arg(0).exec(&mut connection));
            }
            Self::MasterDown | Self::Demoted => run(admin, &format!("REPLICAOF 127.0.0.1 {unused}")),
            Self::Full => {
                // The node that is taken is the admin's.
                run(admin, "CONFIG SET maxclients 1");
                run(admin, "CLIENT KILL TYPE normal");
            }
        }
    }

    /// What people are told of it.
    const fn words(self) -> &'static str {
        match self {
            Self::Loading => "still loading its data set",
            Self::Busy => "BUSY",
            Self::MasterDown => "has lost its primary",
            Self::Demoted => "is no primary any more",
            Self::Full => "max number of clients",
        }
    }

    /// Waits until the sweep has heard it, then ends what does not end by itself.
    fn end(self, admin: &mut Connection, notes: &Mutex<Vec<String>>) {
        let has_noted = |words: &str| {
            let notes = notes.lock().expect("no panic");
            notes.iter().any(|note| note.contains(words))
        };
        let mut is_heard = || match self {
            Self::Loading | Self::Busy | Self::MasterDown | Self::Demoted => has_noted(self.words()),
            // What is noted is that the connection was closed.
            Self::Full => {
                let info: InfoDict = redis::cmd("INFO").arg("stats").query(admin).expect("INFO answers");
                info.get::<u64>("rejected_connections").is_some_and(|rejected| rejected > 0)
            }
        };
        eventually("the sweep hears of it", Duration::from_secs(30), || is_heard().then_some(()));
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

/// Strikes once, and keeps what it is told.
struct Listener<F> {
    strike: Once<F>,
    notes: Mutex<Vec<String>>,
}

impl<F: Fn(&Progress) + Sync> Monitor for Listener<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.strike.progress(progress, checkpoint);
    }

    fn note(&self, sentence: &str) {
        self.notes.lock().expect("no panic").push(sentence.to_owned());
    }
}

fn survive(flavor: Flavor, excuse: Excuse, at: f64) {
    let server = excuse.server(flavor);
    let loaded = DataSet::new().live(KEYS / 2).dead(KEYS / 2).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let admin = Mutex::new(server.connection());
    let listener = Listener {
        strike: Once::between(at..1.0, |_| excuse.begin(&server, &mut admin.lock().expect("no panic"))),
        notes: Mutex::default(),
    };
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &slow(3_000), &listener, &Stop::new()));
        eventually("it strikes", Duration::from_secs(30), || listener.strike.was_done().then_some(()));
        excuse.end(&mut admin.lock().expect("no panic"), &listener.notes);
        sweeping.join().expect("no panic")
    });
    let (outcome, held) = (report.outcome, server.held());
    assert_eq!((outcome, held), (Outcome::Done, loaded.live), "{flavor:?} {excuse:?} {at}: {report:?}");
    assert!(
        !report.totals.exact || report.totals.keys_reclaimed == loaded.dead,
        "{flavor:?} {excuse:?} {at}: {report:?}"
    );
    // Who was a replica meanwhile may hold other keys than before.
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

/// Longer than it is waited for: the sweep fails with what the server said last.
#[rstest]
fn heavy_a_server_that_cannot_serve_for_too_long_is_given_up_with_what_it_said(
    #[values(Excuse::Loading, Excuse::Busy, Excuse::MasterDown, Excuse::Full)] excuse: Excuse,
) {
    let server = excuse.server(Flavor::Valkey91);
    DataSet::new().live(KEYS / 2).dead(KEYS / 2).load(&server);
    let admin = Mutex::new(server.connection());
    let strike = Once::between(0.1..1.0, |_| excuse.begin(&server, &mut admin.lock().expect("no panic")));
    let options = Options { reconnect_timeout: Duration::from_millis(500), ..slow(3_000) };
    let report = sweep(&server.url().parse().expect("a target"), &options, &strike, &Stop::new());
    assert_eq!((report.reason, strike.was_done()), (Some(FailureKind::Unreachable), true), "{report:?}");
    let message = report.message.expect("a sentence");
    assert!(message.contains(excuse.words()), "{message}");
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_every_excuse_at_every_point(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(Excuse::Loading, Excuse::Busy, Excuse::MasterDown, Excuse::Demoted, Excuse::Full)] excuse: Excuse,
) {
    [0.1, 0.5, 0.8].into_iter().for_each(|at| survive(flavor, excuse, at));
}

/// Tells how many primaries have been swept, and strikes once.
struct Counter<F> {
    strike: Once<F>,
    done: Mutex<Vec<String>>,
}

impl<F: Fn(&Progress) + Sync> Monitor for Counter<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        self.strike.progress(progress, checkpoint);
        let done = progress.shards.iter().filter(|shard| shard.state == ShardStatus::Done);
        *self.done.lock().expect("no panic") =
            done.map(|shard| shard.address.clone().expect("an address").to_string()).collect();
    }
}

#[test]
fn a_primary_of_a_cluster_that_hangs_keeps_no_other_waiting() {
    let cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, dead) = cluster.load(2_000, 2_000);
    let (target, hanging): (Target, _) =
        (cluster.url().parse().expect("a target"), cluster.node(0).address().to_string());
    let shared = Mutex::new(cluster);
    let counter = Counter {
        strike: Once::between(0.05..0.5, |_| shared.lock().expect("no panic").node_mut(0).pause()),
        done: Mutex::default(),
    };
    let options = Options { parallel: 3, ..slow(1_500) };
    let report = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&target, &options, &counter, &Stop::new()));
        eventually("the others have been swept", Duration::from_secs(30), || {
            (counter.done.lock().expect("no panic").len() == 2).then_some(())
        });
        assert!(counter.strike.was_done() && !sweeping.is_finished());
        assert!(!counter.done.lock().expect("no panic").contains(&hanging));
        shared.lock().expect("no panic").node_mut(0).resume();
        sweeping.join().expect("no panic")
    });
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, dead, true),
        "{report:?}"
    );
    assert_eq!(shared.into_inner().expect("no panic").held(), live);
}
