//! Clusters: every primary is swept, also while nodes fail over and slots move.

mod addresses;
mod size;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use keysweep_engine::{Checkpoint, FailureKind, Monitor, Options, Outcome, Progress, ShardStatus, Stop, Target, sweep};
use keysweep_harness::{Cluster, Flavor, Server, eventually};
use rstest::rstest;

use crate::common::{Once, StopWhen, slow};

const TIMEOUT: Duration = Duration::from_secs(30);

fn target(url: &str) -> Target {
    url.parse().expect("a target")
}

/// Runs an action once, and records when a shard has another address than before it.
struct Moving<F> {
    once: Once<F>,
    begun: Mutex<Option<(Instant, Vec<String>)>>,
    noticed: Mutex<Option<Instant>>,
}

impl<F: Fn(&Progress) + Sync> Moving<F> {
    fn from(at: f64, what: F) -> Self {
        Self { once: Once::between(at..0.95, what), begun: Mutex::default(), noticed: Mutex::default() }
    }

    /// Returns the time from the action to the new address.
    fn noticed_after(&self) -> Duration {
        let begun = self.begun.lock().expect("no panic").as_ref().expect("it was done").0;
        self.noticed.lock().expect("no panic").expect("it was noticed") - begun
    }
}

impl<F: Fn(&Progress) + Sync> Monitor for Moving<F> {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        let addresses: Vec<String> =
            progress.shards.iter().filter_map(|shard| shard.address.as_ref()).map(ToString::to_string).collect();
        let mut begun = self.begun.lock().expect("no panic");
        if begun.as_ref().is_some_and(|(_, before)| *before != addresses) {
            self.noticed.lock().expect("no panic").get_or_insert_with(Instant::now);
        }
        self.once.progress(progress, checkpoint);
        if self.once.was_done() {
            begun.get_or_insert_with(|| (Instant::now(), addresses));
        }
    }
}

#[rstest]
fn every_primary_is_swept_from_any_node_that_answers(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let mut cluster = Cluster::start(flavor, 3, false);
    let (live, stale) = cluster.load(2_000, 1_000);
    let unused = keysweep_harness::free_port();
    let seeds = target(&format!("redis-cluster://127.0.0.1:{unused},127.0.0.1:{}", cluster.node(1).port()));
    let seen = Mutex::new(0.0_f64);
    struct Rising<'a>(&'a Mutex<f64>);
    impl Monitor for Rising<'_> {
        fn progress(&self, progress: &Progress, _: &Checkpoint) {
            let mut last = self.0.lock().expect("no panic");
            assert!(progress.fraction >= *last, "{} after {last}", progress.fraction);
            *last = progress.fraction;
        }
    }

    let report = sweep(&seeds, &slow(5_000), &Rising(&seen), &Stop::new());

    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, stale, true),
        "{report:?}"
    );
    assert_eq!(cluster.held(), live);
    assert_eq!((report.shards.len(), *seen.lock().expect("no panic")), (3, 1.0));
    assert!(report.shards.iter().all(|shard| shard.totals.keys_reclaimed == stale / 3), "{report:?}");
}

#[test]
fn all_databases_of_a_cluster_are_swept() {
    let mut cluster = Cluster::launch(&Server::with(Flavor::Valkey91).arg("--cluster-databases", "4"), 2, false);
    let (live, stale) = cluster.load(500, 500);
    let (more_live, more_stale) = cluster.load_database(3, 300, 700);
    let report = sweep(&target(&cluster.url()), &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale + more_stale), "{report:?}");
    assert_eq!(cluster.held(), live + more_live);
    assert!(report.shards.iter().all(|shard| shard.databases == [0, 3]));
}

#[test]
fn no_more_primaries_are_swept_at_a_time_than_asked_for() {
    let cluster = Cluster::start(Flavor::Valkey91, 4, false);
    let (_, stale) = cluster.load(1_000, 500);
    struct Most(Mutex<usize>);
    impl Monitor for Most {
        fn progress(&self, progress: &Progress, _: &Checkpoint) {
            let scanning = progress.shards.iter().filter(|shard| shard.state == ShardStatus::Scanning).count();
            let mut most = self.0.lock().expect("no panic");
            *most = scanning.max(*most);
        }
    }
    for parallel in [1, 3] {
        let most = Most(Mutex::new(0));
        let options = Options { parallel, ..slow(1_500) };
        let report = sweep(&target(&cluster.url()), &options, &most, &Stop::new());
        assert_eq!(report.outcome, Outcome::Done);
        assert_eq!(*most.0.lock().expect("no panic"), parallel);
        assert_eq!(report.totals.keys_reclaimed, if parallel == 1 { stale } else { 0 });
    }
}

#[rstest]
fn heavy_a_planned_failover_during_a_sweep_leaves_no_stale_key(
    #[values((Flavor::Redis62, 0.5), (Flavor::Redis70, 0.1), (Flavor::Redis82, 0.6), (Flavor::Valkey81, 0.8), (Flavor::Valkey91, 0.3))]
    (flavor, at): (Flavor, f64),
) {
    survive_a_planned_failover(flavor, at);
}

fn survive_a_planned_failover(flavor: Flavor, at: f64) {
    let mut cluster = Cluster::start(flavor, 2, true);
    let (live, stale) = cluster.load(6_000, 6_000);
    let replica = cluster.node(2).port();
    let failover = Moving::from(at, |_| {
        let mut connection = redis_connection(replica);
        redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut connection).expect("the replica takes over");
        // The servers' part of the time ends here and is not measured.
        eventually("the replica has taken over", TIMEOUT, || {
            let role: Vec<redis::Value> = redis::cmd("ROLE").query(&mut connection).expect("a role");
            (role[0] == redis::Value::BulkString(b"master".to_vec())).then_some(())
        });
    });

    let report = sweep(&target(&cluster.url()), &slow(4_000), &failover, &Stop::new());

    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(cluster.held(), live, "{stale} were stale");
    let addresses: Vec<String> =
        report.shards.iter().filter_map(|shard| shard.address.as_ref()).map(ToString::to_string).collect();
    assert!(addresses.contains(&cluster.node(2).address().to_string()), "{addresses:?}");
    let took = failover.noticed_after();
    println!("{flavor:?} at {at}: noticed {took:?} after it was done");
    assert!(took < Duration::from_secs(2), "noticed {took:?} after it was done");
}

#[rstest]
fn heavy_after_a_primary_is_killed_its_replica_is_swept(
    #[values((Flavor::Redis70, 0.3), (Flavor::Valkey91, 0.6))] (flavor, at): (Flavor, f64),
) {
    survive_the_death_of_a_primary(flavor, at);
}

fn survive_the_death_of_a_primary(flavor: Flavor, at: f64) {
    let mut cluster = Cluster::start(flavor, 3, true);
    let (live, _) = cluster.load(4_000, 4_000);
    let url = cluster.url();
    let victim = Mutex::new(cluster);
    let kill = Once::between(at..0.95, |_| victim.lock().expect("no panic").node_mut(0).kill());

    // All at the same time: none of them is done by then.
    let options = Options { parallel: 3, ..slow(4_000) };
    let report = sweep(&target(&url), &options, &kill, &Stop::new());

    assert!(kill.was_done());
    cluster = victim.into_inner().expect("no panic");
    assert_eq!((report.outcome, report.shards.len()), (Outcome::Done, 3), "{report:?}");
    // The sweep does not wait for a primary that was done already.
    eventually("the replica has taken over", TIMEOUT, || (cluster.primaries_now().len() == 3).then_some(()));
    assert_eq!(cluster.held(), live);
}

#[rstest]
fn heavy_a_failover_that_is_aborted_leaves_no_stale_key(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    survive_an_aborted_failover(flavor, 0.2);
}

fn survive_an_aborted_failover(flavor: Flavor, at: f64) {
    let mut cluster = Cluster::start(flavor, 3, true);
    let (live, _) = cluster.load(6_000, 6_000);
    // The primary pauses writes for a replica that then does nothing, and gives up after five seconds.
    let (replica, url) = (cluster.node(3).port(), cluster.url());
    let shared = Mutex::new(cluster);
    let begin = Once::between(at..0.95, |_| {
        let mut cluster = shared.lock().expect("no panic");
        redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut redis_connection(replica)).expect("it begins");
        cluster.node_mut(3).pause();
    });
    let report = sweep(&target(&url), &slow(4_000), &begin, &Stop::new());
    assert!(begin.was_done());
    cluster = shared.into_inner().expect("no panic");
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    // Before the replica resumes: it may still take over.
    let held: u64 = cluster.nodes()[..3].iter().map(Server::held).sum();
    cluster.node_mut(3).resume();
    assert_eq!(held, live, "{flavor:?}: {report:?}");
}

/// Atomic migration moves stale keys as well. A primary without slots becomes a replica of the receiver of its last slot.
#[rstest]
fn heavy_slots_that_move_to_a_swept_primary_are_swept_there_again(
    #[values((4_000, 0.7), (8_192, 0.55))] (slots, at): (u16, f64),
) {
    survive_slots_that_move(slots, at);
}

fn survive_slots_that_move(slots: u16, at: f64) {
    let launch = Server::with(Flavor::Valkey91).arg("--cluster-databases", "2");
    let mut cluster = Cluster::launch(&launch, 2, false);
    let (live, stale) = cluster.load(11_000, 11_000);
    let (more_live, more_stale) = cluster.load_database(1, 1_000, 1_000);
    let nodes = [0, 1].map(|index| (cluster.id(index), cluster.node(index).port()));
    // One after the other: when the slots move, one primary is done and the other has hardly started.
    let options = Options { parallel: 1, ..slow(13_000) };
    let moving = Once::between(at..0.95, |progress| {
        let is_done = |port: u16| {
            let shard = progress
                .shards
                .iter()
                .find(|shard| shard.address.as_ref().is_some_and(|address| address.port() == Some(port)));
            shard.is_some_and(|shard| shard.state == ShardStatus::Done)
        };
        let to = usize::from(is_done(nodes[1].1));
        let from = 1 - to;
        assert!(is_done(nodes[to].1) && !is_done(nodes[from].1), "one of two has been swept: {progress:?}");
        let first = 8_192 * from as u16;
        let mut connection = redis_connection(nodes[from].1);
        redis::cmd("CLUSTER")
            .arg("MIGRATESLOTS")
            .arg("SLOTSRANGE")
            .arg(first)
            .arg(first + slots - 1)
            .arg("NODE")
            .arg(&nodes[to].0)
            .exec(&mut connection)
            .expect("the slots begin to move");
        eventually("the slots have moved", TIMEOUT, || {
            let ranges: Vec<Vec<redis::Value>> =
                redis::cmd("CLUSTER").arg("SLOTS").query(&mut connection).expect("slots");
            let owner = ranges.iter().find(|range| {
                let bound = |index: usize| if let redis::Value::Int(slot) = range[index] { slot } else { -1 };
                (bound(0)..=bound(1)).contains(&i64::from(first))
            });
            let port = redis::Value::Int(i64::from(nodes[to].1));
            owner.is_some_and(|range| format!("{:?}", range[2]).contains(&format!("{port:?}"))).then_some(())
        });
    });

    let report = sweep(&target(&cluster.url()), &options, &moving, &Stop::new());

    assert!(moving.was_done());
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(cluster.held(), live + more_live, "{} were stale: {report:?}", stale + more_stale);
    // More than were loaded: while Valkey 9.1.2 copies slots of several databases, a delete in database 0 is applied to
    // another one at the receiver. Keys reclaimed in that moment arrive again, and are reclaimed again.
    assert!(report.totals.exact && report.totals.keys_reclaimed >= stale + more_stale, "{report:?}");
}

#[test]
fn heavy_a_primary_that_stays_unreachable_fails_alone_and_is_named() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, stale) = cluster.load(1_000, 1_000);
    let url = cluster.url();
    let lost = cluster.node(2).address().to_string();
    cluster.node_mut(2).kill();
    let options = Options { reconnect_timeout: Duration::from_secs(2), parallel: 1, ..Options::default() };

    let report = sweep(&target(&url), &options, &(), &Stop::new());

    assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(FailureKind::Unreachable)));
    let message = report.message.clone().expect("a sentence");
    assert!(message.contains("1 of 3 primaries") && message.contains(&lost), "{message}");
    assert_eq!((report.totals.keys_reclaimed, cluster.held()), (stale / 3 * 2, live / 3 * 2), "the others were swept");
}

#[test]
fn a_sweep_of_a_cluster_resumes_from_its_checkpoint() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, stale) = cluster.load(3_000, 3_000);
    let early = StopWhen::new(|progress| progress.fraction > 0.5);
    let first = sweep(&target(&cluster.url()), &slow(4_000), &early, &early.stop);
    assert_eq!(first.reason, Some(FailureKind::Interrupted));
    // As it is stored: through JSON.
    let text = serde_json::to_string(&early.last()).expect("JSON");
    let checkpoint: Option<Checkpoint> = serde_json::from_str(&text).expect("a checkpoint");

    let options = Options { checkpoint, ..Options::default() };
    let report = sweep(&target(&cluster.url()), &options, &(), &Stop::new());

    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, stale, true),
        "{report:?}"
    );
    assert_eq!((cluster.held(), report.totals.keys_scanned), (live, live + stale), "no key was scanned twice");
}

/// Between two runs, most slots of a primary that was waiting move to the one that had been started.
#[test]
fn heavy_slots_that_move_between_two_runs_are_swept_where_they_are() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 2, false);
    let (live, stale) = cluster.load(4_000, 4_000);
    let early = StopWhen::new(|progress| progress.fraction > 0.3);
    let options = Options { parallel: 1, ..slow(6_000) };
    sweep(&target(&cluster.url()), &options, &early, &early.stop);
    let checkpoint = early.last().expect("a checkpoint");
    assert_eq!(checkpoint.shards.len(), 1, "one was begun, the other waited: {checkpoint:?}");
    let begun = (0..2).find(|index| {
        checkpoint.shards[0].address.as_ref().map(ToString::to_string)
            == Some(cluster.node(*index).address().to_string())
    });
    let to = begun.expect("it is one of the two");
    let (from, id) = (cluster.node(1 - to), cluster.id(to));
    let first = 8_192 * (1 - to);
    redis::cmd("CLUSTER")
        .arg(&["MIGRATESLOTS", "SLOTSRANGE"])
        .arg(first)
        .arg(first + 6_000)
        .arg("NODE")
        .arg(&id)
        .exec(&mut from.connection())
        .expect("the slots begin to move");
    let held = from.held();
    eventually("most keys have moved", TIMEOUT, || (from.held() < held / 2).then_some(()));
    cluster.await_whole();

    let options = Options { checkpoint: Some(checkpoint), ..Options::default() };
    let report = sweep(&target(&cluster.url()), &options, &(), &Stop::new());

    assert_eq!((report.outcome, cluster.held()), (Outcome::Done, live), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, report.totals.exact), (stale, true));
}

#[rstest]
#[case("198.51.100.7", "198.51.100.7=127.0.0.1")]
#[case("fd00::77", "[fd00::77]=127.0.0.1")]
fn nodes_that_announce_other_addresses_are_reached_by_an_address_map(#[case] announced: &str, #[case] map: &str) {
    let launch = Server::with(Flavor::Valkey91).arg("--cluster-announce-ip", announced);
    let cluster = Cluster::launch(&launch, 1, false);
    let (live, stale) = cluster.load(300, 200);
    let mut target = target(&cluster.url());
    target.address_map = map.parse().expect("a map");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale), "{report:?}");
    assert_eq!(cluster.node(0).held(), live);
}

#[test]
fn a_server_without_cluster_mode_is_refused() {
    let server = Server::start(Flavor::Valkey91);
    let report =
        sweep(&target(&format!("redis-cluster://{}", server.address())), &Options::default(), &(), &Stop::new());
    assert_eq!(report.reason, Some(FailureKind::Unsupported));
    assert!(report.message.as_ref().is_some_and(|message| message.contains("use redis://")), "{report:?}");
}

fn redis_connection(port: u16) -> redis::Connection {
    let client = redis::Client::open(("127.0.0.1", port)).expect("an address");
    client.get_connection().expect("a connection")
}

const POINTS: [f64; 3] = [0.1, 0.5, 0.8];

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_every_failover_at_every_point(
    #[values(survive_a_planned_failover, survive_the_death_of_a_primary, survive_an_aborted_failover)] survive: fn(
        Flavor,
        f64,
    ),
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    POINTS.into_iter().for_each(|at| survive(flavor, at));
}

#[rstest]
#[ignore = "for make soak: minutes"]
fn soak_slots_that_move_at_every_point(#[values(4_000, 8_192)] slots: u16) {
    // Before the middle no primary is done.
    [0.52, 0.65, 0.8].into_iter().for_each(|at| survive_slots_that_move(slots, at));
}
