//! Clusters: every primary is swept, and stays swept while nodes fail over and slots move.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use keysweep_engine::{Checkpoint, FailureKind, Monitor, Options, Outcome, Progress, Stop, Target, sweep};
use keysweep_harness::{Cluster, Flavor, Server, eventually};
use rstest::rstest;

const PATIENCE: Duration = Duration::from_secs(30);

fn target(url: &str) -> Target {
    url.parse().expect("a target")
}

/// Slow enough that what a test does falls into the middle of the sweep.
fn slow(keys_per_second: u64) -> Options {
    let mut options = Options::default();
    options.limits.keys_per_second = Some(keys_per_second);
    options
}

/// Does something once, as soon as the sweep is that far.
struct Once<F: Fn(&Progress) + Sync> {
    at: f64,
    what: F,
    done: Mutex<bool>,
    /// When it was done, and when a shard was seen at another address than before.
    times: Mutex<(Option<Instant>, Option<Instant>)>,
    addresses: Mutex<Vec<String>>,
}

impl<F: Fn(&Progress) + Sync> Once<F> {
    fn at(at: f64, what: F) -> Self {
        Self { at, what, done: Mutex::new(false), times: Mutex::default(), addresses: Mutex::default() }
    }

    fn was_done(&self) -> bool {
        *self.done.lock().expect("no panic")
    }
}

impl<F: Fn(&Progress) + Sync> Monitor for Once<F> {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        let addresses: Vec<String> = progress.shards.iter().map(|shard| shard.address.clone()).collect();
        let mut done = self.done.lock().expect("no panic");
        if !*done && progress.fraction >= self.at && progress.fraction < 0.95 {
            *done = true;
            *self.addresses.lock().expect("no panic") = addresses;
            self.times.lock().expect("no panic").0 = Some(Instant::now());
            (self.what)(progress);
        } else if *done && addresses != *self.addresses.lock().expect("no panic") {
            self.times.lock().expect("no panic").1.get_or_insert_with(Instant::now);
        }
    }
}

#[rstest]
fn every_primary_is_swept_from_any_node_that_answers(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let mut cluster = Cluster::start(flavor, 3, false);
    let (live, dead) = cluster.load(2_000, 1_000);
    let nobody = keysweep_harness::free_port();
    let seeds = target(&format!("redis-cluster://127.0.0.1:{nobody},127.0.0.1:{}", cluster.node(1).port()));
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

    assert_eq!((report.outcome, report.keys_released, report.exact), (Outcome::Done, dead, true), "{report:?}");
    assert_eq!(cluster.held(), live);
    assert_eq!((report.shards.len(), *seen.lock().expect("no panic")), (3, 1.0));
    assert!(report.shards.iter().all(|shard| shard.keys_released == dead / 3), "{report:?}");
}

#[test]
fn all_databases_of_a_cluster_are_swept() {
    let mut cluster = Cluster::launch(&Server::with(Flavor::Valkey91).arg("--cluster-databases", "4"), 2, false);
    let (live, dead) = cluster.load(500, 500);
    let (more_live, more_dead) = cluster.load_database(3, 300, 700);
    let report = sweep(&target(&cluster.url()), &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.keys_released), (Outcome::Done, dead + more_dead), "{report:?}");
    assert_eq!(cluster.held(), live + more_live);
    assert!(report.shards.iter().all(|shard| shard.databases == [0, 3]));
}

#[test]
fn no_more_primaries_are_swept_at_a_time_than_asked_for() {
    let cluster = Cluster::start(Flavor::Valkey91, 4, false);
    let (_, dead) = cluster.load(1_000, 500);
    struct Most(Mutex<usize>);
    impl Monitor for Most {
        fn progress(&self, progress: &Progress, _: &Checkpoint) {
            let sweeping = progress.shards.iter().filter(|shard| shard.state == "sweeping").count();
            let mut most = self.0.lock().expect("no panic");
            *most = sweeping.max(*most);
        }
    }
    for parallel in [1, 3] {
        let most = Most(Mutex::new(0));
        let options = Options { parallel, ..slow(1_500) };
        let report = sweep(&target(&cluster.url()), &options, &most, &Stop::new());
        assert_eq!(report.outcome, Outcome::Done);
        assert_eq!(*most.0.lock().expect("no panic"), parallel);
        assert_eq!(report.keys_released, if parallel == 1 { dead } else { 0 });
    }
}

#[rstest]
fn heavy_a_planned_failover_in_mid_sweep_leaves_no_dead_key(
    #[values((Flavor::Redis62, 0.5), (Flavor::Redis70, 0.1), (Flavor::Valkey81, 0.8), (Flavor::Valkey91, 0.3))]
    (flavor, at): (Flavor, f64),
) {
    let mut cluster = Cluster::start(flavor, 2, true);
    let (live, dead) = cluster.load(6_000, 6_000);
    let replica = cluster.node(2).port();
    let failover = Once::at(at, |_| {
        let mut connection = redis_connection(replica);
        redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut connection).expect("the replica takes over");
    });

    let report = sweep(&target(&cluster.url()), &slow(4_000), &failover, &Stop::new());

    assert!(failover.was_done());
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(cluster.held(), live, "{dead} were dead");
    let addresses: Vec<&str> = report.shards.iter().map(|shard| shard.address.as_str()).collect();
    assert!(addresses.contains(&cluster.node(2).address().to_string().as_str()), "{addresses:?}");
    let (done, noticed) = *failover.times.lock().expect("no panic");
    let took = noticed.expect("it was noticed") - done.expect("it was done");
    assert!(took < Duration::from_secs(3), "noticed {took:?} after it was asked for");
}

#[rstest]
fn heavy_a_primary_that_is_killed_in_mid_sweep_is_followed_to_its_replica(
    #[values((Flavor::Redis70, 0.3), (Flavor::Valkey91, 0.6))] (flavor, at): (Flavor, f64),
) {
    let mut cluster = Cluster::start(flavor, 3, true);
    let (live, _) = cluster.load(4_000, 4_000);
    let url = cluster.url();
    let victim = Mutex::new(cluster);
    let kill = Once::at(at, |_| victim.lock().expect("no panic").node_mut(0).kill());

    let report = sweep(&target(&url), &slow(4_000), &kill, &Stop::new());

    cluster = victim.into_inner().expect("no panic");
    assert_eq!((report.outcome, report.shards.len()), (Outcome::Done, 3), "{report:?}");
    assert_eq!(cluster.held(), live);
}

#[test]
fn heavy_a_failover_that_is_tried_and_aborted_leaves_nothing() {
    for flavor in [Flavor::Redis70, Flavor::Valkey91] {
        let mut cluster = Cluster::start(flavor, 3, true);
        let (live, _) = cluster.load(6_000, 6_000);
        // The primary pauses writes for a replica that then does nothing: given up after five seconds.
        let (replica, url) = (cluster.node(3).port(), cluster.url());
        let shared = Mutex::new(cluster);
        let begin = Once::at(0.2, |_| {
            let mut cluster = shared.lock().expect("no panic");
            redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut redis_connection(replica)).expect("it begins");
            cluster.node_mut(3).pause();
        });
        let report = sweep(&target(&url), &slow(4_000), &begin, &Stop::new());
        assert!(begin.was_done());
        cluster = shared.into_inner().expect("no panic");
        cluster.node_mut(3).resume();
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        assert_eq!(cluster.held(), live, "{flavor:?}: {report:?}");
    }
}

/// Atomic migration takes dead keys along. A primary that gives its last slot away becomes a replica of the one that got it.
#[rstest]
fn heavy_slots_that_move_to_a_swept_primary_are_swept_there_again(#[values(4_000, 8_192)] slots: u16) {
    let launch = Server::with(Flavor::Valkey91).arg("--cluster-databases", "2");
    let mut cluster = Cluster::launch(&launch, 2, false);
    let (live, dead) = cluster.load(5_000, 5_000);
    let (more_live, more_dead) = cluster.load_database(1, 1_000, 1_000);
    let nodes = [0, 1].map(|index| (cluster.id(index), cluster.node(index).port()));
    // One after the other: when the slots move, one primary has been swept and the other hardly.
    let options = Options { parallel: 1, ..slow(6_000) };
    let moving = Once::at(0.55, |progress| {
        let is_done = |port: u16| {
            let shard = progress.shards.iter().find(|shard| shard.address.ends_with(&format!(":{port}")));
            shard.is_some_and(|shard| shard.state == "done")
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
        eventually("the slots have moved", PATIENCE, || {
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
    assert_eq!(cluster.held(), live + more_live, "{} were dead: {report:?}", dead + more_dead);
    assert_eq!((report.keys_released, report.exact), (dead + more_dead, true));
}

#[test]
fn heavy_a_primary_that_stays_away_fails_alone_and_is_named() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, dead) = cluster.load(1_000, 1_000);
    let url = cluster.url();
    let lost = cluster.node(2).address().to_string();
    cluster.node_mut(2).kill();
    let options = Options { unreachable_grace: Duration::from_secs(2), parallel: 1, ..Options::default() };

    let report = sweep(&target(&url), &options, &(), &Stop::new());

    assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(FailureKind::Unreachable)));
    let message = report.message.clone().expect("a sentence");
    assert!(message.contains("1 of 3 primaries") && message.contains(&lost), "{message}");
    assert_eq!((report.keys_released, cluster.held()), (dead / 3 * 2, live / 3 * 2), "the others were swept");
}

#[test]
fn a_sweep_of_a_cluster_goes_on_from_its_checkpoint() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (live, dead) = cluster.load(3_000, 3_000);
    struct Keep(Mutex<Option<Checkpoint>>, Stop);
    impl Monitor for Keep {
        fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
            *self.0.lock().expect("no panic") = Some(checkpoint.clone());
            if progress.fraction > 0.5 {
                self.1.raise();
            }
        }
    }
    let stop = Stop::new();
    let keep = Keep(Mutex::default(), stop.clone());
    let first = sweep(&target(&cluster.url()), &slow(4_000), &keep, &stop);
    assert_eq!(first.reason, Some(FailureKind::Interrupted));
    // As it is kept: through JSON.
    let text = serde_json::to_string(&keep.0.into_inner().expect("no panic")).expect("JSON");
    let checkpoint: Option<Checkpoint> = serde_json::from_str(&text).expect("a checkpoint");

    let options = Options { checkpoint, ..Options::default() };
    let report = sweep(&target(&cluster.url()), &options, &(), &Stop::new());

    assert_eq!((report.outcome, report.keys_released, report.exact), (Outcome::Done, dead, true), "{report:?}");
    assert_eq!((cluster.held(), report.keys_scanned), (live, live + dead), "nothing was gone over twice");
}

/// While nobody sweeps, most slots of a primary that was still waiting move to the one that had been begun.
#[test]
fn heavy_slots_that_move_before_a_sweep_goes_on_are_swept_where_they_are() {
    let mut cluster = Cluster::start(Flavor::Valkey91, 2, false);
    let (live, dead) = cluster.load(4_000, 4_000);
    struct Keep(Mutex<Option<Checkpoint>>, Stop);
    impl Monitor for Keep {
        fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
            *self.0.lock().expect("no panic") = Some(checkpoint.clone());
            if progress.fraction > 0.3 {
                self.1.raise();
            }
        }
    }
    let stop = Stop::new();
    let keep = Keep(Mutex::default(), stop.clone());
    let options = Options { parallel: 1, ..slow(6_000) };
    sweep(&target(&cluster.url()), &options, &keep, &stop);
    let checkpoint = keep.0.into_inner().expect("no panic").expect("a checkpoint");
    assert_eq!(checkpoint.shards.len(), 1, "one was begun, the other waited: {checkpoint:?}");
    let begun = (0..2).find(|index| checkpoint.shards[0].address == cluster.node(*index).address().to_string());
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
    eventually("most keys have moved", PATIENCE, || (from.held() < held / 2).then_some(()));
    cluster.await_whole();

    let options = Options { checkpoint: Some(checkpoint), ..Options::default() };
    let report = sweep(&target(&cluster.url()), &options, &(), &Stop::new());

    assert_eq!((report.outcome, cluster.held()), (Outcome::Done, live), "{report:?}");
    assert_eq!((report.keys_released, report.exact), (dead, true));
}

#[test]
fn nodes_that_are_announced_under_other_addresses_are_reached_by_an_address_map() {
    let launch = Server::with(Flavor::Valkey91).arg("--cluster-announce-ip", "198.51.100.7");
    let cluster = Cluster::launch(&launch, 1, false);
    let (live, dead) = cluster.load(300, 200);
    let mut target = target(&cluster.url());
    target.address_map = "198.51.100.7=127.0.0.1".parse().expect("a map");
    let report = sweep(&target, &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.keys_released), (Outcome::Done, dead), "{report:?}");
    assert_eq!(cluster.node(0).held(), live);
}

#[test]
fn what_is_no_cluster_is_told_so() {
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
