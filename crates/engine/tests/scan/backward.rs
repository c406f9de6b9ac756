//! A scan in chunks, from the last to the first, visits every key: while tables grow, shrink and are rehashed, in clusters with a
//! table for each slot, and when it resumes in the middle of a chunk. Stale keys are the witnesses: one that the scan passed over
//! would still be in memory; while tables are resized also the names of the live keys.

use std::time::Duration;

use keysweep_engine::{Checkpoint, Options, Order, Outcome, Report, Stop, Target, sweep};
use keysweep_harness::{Cluster, DataSet, Flavor, Server, eventually};
use rstest::rstest;

use crate::{
    common::{Once, StopWhen, slow},
    opaque_proxy::{Hiding, OpaqueProxy},
};

const TIMEOUT: Duration = Duration::from_secs(60);

fn target(url: &str) -> Target {
    url.parse().expect("a target")
}

fn scan(url: &str, options: &Options) -> Report {
    sweep(&target(url), options, &(), &Stop::new())
}

/// Returns the live keys that SCAN returned, repeats included.
fn returned(report: &Report) -> u64 {
    report.totals.keys_scanned - report.totals.keys_reclaimed
}

#[rstest]
fn few_keys_are_returned_twice_and_the_report_says_how_many(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    return_few_keys_twice(flavor, 60_000);
}

#[rstest]
#[ignore = "for make soak: a million keys"]
fn soak_few_of_a_million_keys_are_returned_twice(
    #[values(Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    return_few_keys_twice(flavor, 1_000_000);
}

fn return_few_keys_twice(flavor: Flavor, live: u64) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(live).stale(live / 4).load(&server);
    let report = scan(&server.url(), &Options::default());
    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live));
    let (repeated, told) = (returned(&report) - loaded.live, report.totals.keys_repeated);
    println!("{flavor:?}: {repeated} of {live} keys were returned twice, {told} by the report");
    assert!(repeated > 0, "chunks overlap: the scan was in one go");
    assert!(repeated * 100 <= loaded.live * 3, "{repeated} keys were returned twice");
    let chance = 6.0 * (repeated as f64).sqrt();
    assert!((repeated.abs_diff(told) as f64) < chance, "{repeated} keys were returned twice, {told} by the report");
}

/// The cycle of Redis before 7.2 walks in another order.
#[rstest]
fn where_nothing_is_gained_the_scan_runs_forward_and_repeats_nothing(
    #[values(Flavor::Redis62, Flavor::Redis70)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    // A full power of two: the table has no reason to be resized while it is scanned.
    let loaded = DataSet::new().live(32_000).load(&server);
    let report = scan(&server.url(), &Options::default());
    assert_eq!((returned(&report), report.totals.keys_repeated), (loaded.live, 0), "{report:?}");
}

#[rstest]
fn no_key_is_left_out_while_the_table_is_resized(
    #[values(
        (Flavor::Redis62, true, 0.1), (Flavor::Redis70, false, 0.6), (Flavor::Redis82, true, 0.6),
        (Flavor::Redis82, false, 0.1), (Flavor::Valkey81, true, 0.1), (Flavor::Valkey91, false, 0.6),
    )]
    (flavor, grows, at): (Flavor, bool, f64),
) {
    survive_resizing(flavor, grows, at, 1);
}

#[rstest]
#[ignore = "for make soak: a minute"]
fn soak_no_key_is_left_out_while_the_table_is_resized(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(true, false)] grows: bool,
    #[values(0.05, 0.35, 0.65)] at: f64,
) {
    survive_resizing(flavor, grows, at, 5);
}

/// Loads `factor` times 24,000 keys, and adds three times as many, or deletes most of them, in the middle of a scan.
fn survive_resizing(flavor: Flavor, grows: bool, at: f64, factor: u64) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(20_000 * factor).stale(4_000 * factor).load(&server);
    let resize = Once::between(at..0.95, |_| {
        let mut connection = server.connection();
        let last = factor * if grows { 72_000 } else { 19_000 };
        for first in (0..last).step_by(1_000) {
            let mut pipeline = redis::pipe();
            for number in first..first + 1_000 {
                match grows {
                    true => pipeline.cmd("SET").arg(format!("more:{number}")).arg("v").ignore(),
                    false => pipeline.cmd("DEL").arg(format!("live:{number}")).ignore(),
                };
            }
            pipeline.exec(&mut connection).expect("the server serves");
        }
    });

    let proxy = OpaqueProxy::before(&server, Hiding::Nothing);
    let report = sweep(&target(&proxy.url()), &slow(24_000 * factor), &resize, &Stop::new());

    assert!(resize.was_done());
    assert_eq!((report.outcome, &report.message), (Outcome::Done, &None));
    assert_eq!((loaded.stale_held_by(&server), report.totals.keys_reclaimed), (0, loaded.stale), "{report:?}");
    let returned = proxy.returned();
    let living = if grows { 0..loaded.live } else { 19_000 * factor..loaded.live };
    let left_out: Vec<u64> = living.filter(|number| !returned.contains(&format!("live:{number}"))).collect();
    assert!(left_out.is_empty(), "keys that lived all the while were not returned: {left_out:?}");
}

/// Each node has 20 slots with a twentieth of its keys: they are divided into chunks of their own.
#[rstest]
fn clusters_with_hot_slots_are_scanned_completely(#[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor) {
    let mut cluster = Cluster::start(flavor, 2, false);
    let (live, stale) = cluster.load(18_000, 6_000);
    assert_complete(&mut cluster, live, stale);
}

#[rstest]
fn clusters_with_keys_in_many_slots_are_scanned_completely(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let mut cluster = Cluster::start(flavor, 1, false);
    let (live, stale) = cluster.load_spread(18_000, 6_000);
    assert_complete(&mut cluster, live, stale);
}

fn assert_complete(cluster: &mut Cluster, live: u64, stale: u64) {
    let report = scan(&cluster.url(), &Options::default());
    assert_eq!((report.outcome, report.totals.keys_reclaimed, report.totals.exact), (Outcome::Done, stale, true));
    assert_eq!(cluster.held(), live);
    let returned = returned(&report);
    assert!(report.totals.keys_repeated > 0, "chunks overlap: the scan was in one go");
    assert!((live..live * 105 / 100).contains(&returned), "{returned} of {live} keys were returned");
}

#[rstest]
#[ignore = "for make soak: half a minute"]
fn soak_a_cluster_that_grows_or_shrinks_during_the_scan_is_scanned_completely(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values(true, false)] grows: bool,
) {
    let mut cluster = Cluster::start(flavor, 1, false);
    let (live, stale) = cluster.load_spread(60_000, 20_000);
    let resize = Once::between(0.2..0.9, |_| {
        let mut connection = cluster.node(0).connection();
        if grows {
            for first in (0..180_000).step_by(1_000) {
                let mut pipeline = redis::pipe();
                for number in first..first + 1_000 {
                    pipeline.cmd("SET").arg(format!("more:{number}")).arg("v").ignore();
                }
                pipeline.exec(&mut connection).expect("the server serves");
            }
        } else {
            // All live keys of every second slot.
            for slot in (0..16_384).step_by(2) {
                let mut query = redis::cmd("CLUSTER");
                let keys: Vec<Vec<u8>> =
                    query.arg("GETKEYSINSLOT").arg(slot).arg(100_000).query(&mut connection).expect("the slot's keys");
                let live: Vec<_> =
                    keys.into_iter().filter(|key| !String::from_utf8_lossy(key).contains("stale")).collect();
                if !live.is_empty() {
                    redis::cmd("DEL").arg(live).exec(&mut connection).expect("the server serves");
                }
            }
        }
    });
    let report = sweep(&target(&cluster.url()), &slow(40_000), &resize, &Stop::new());
    assert!(resize.was_done());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale), "{report:?}");
    let held = cluster.held();
    assert!(if grows { held == live + 180_000 } else { held < live * 3 / 4 }, "{held} of {live} are held");
}

#[rstest]
#[ignore = "for make soak: a minute"]
fn soak_a_failover_during_a_scan_in_chunks_leaves_no_stale_key(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values(0.1, 0.4, 0.7)] at: f64,
) {
    let mut cluster = Cluster::start(flavor, 2, true);
    let (live, stale) = cluster.load_spread(16_000, 8_000);
    let replica = cluster.node(2);
    let failover = Once::between(at..0.95, |_| {
        let mut connection = replica.connection();
        redis::cmd("CLUSTER").arg("FAILOVER").exec(&mut connection).expect("the replica takes over");
        eventually("the replica has taken over", TIMEOUT, || {
            let role: Vec<redis::Value> = redis::cmd("ROLE").query(&mut connection).expect("a role");
            (role[0] == redis::Value::BulkString(b"master".to_vec())).then_some(())
        });
    });
    let report = sweep(&target(&cluster.url()), &slow(10_000), &failover, &Stop::new());
    assert!(failover.was_done());
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(cluster.held(), live, "{stale} were stale: {report:?}");
}

/// A third of a primary's slots, in the middle of a block, moves to the other one while both are scanned.
#[rstest]
#[ignore = "for make soak: a minute"]
fn soak_slots_that_move_during_a_scan_in_chunks_leave_no_stale_key(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values(0.1, 0.5, 0.8)] at: f64,
) {
    let mut cluster = Cluster::start(flavor, 2, false);
    let (live, stale) = cluster.load_spread(16_000, 8_000);
    let moving = Once::between(at..0.95, |_| move_slots(&cluster, flavor, 2_700..5_400));
    let report = sweep(&target(&cluster.url()), &slow(10_000), &moving, &Stop::new());
    assert!(moving.was_done());
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    assert_eq!(cluster.held(), live, "{stale} were stale: {report:?}");
}

/// Moves slots from the first to the second primary: in one go on Valkey 9, slot by slot on Redis.
fn move_slots(cluster: &Cluster, flavor: Flavor, slots: std::ops::Range<u16>) {
    let (mut from, mut to) = (cluster.node(0).connection(), cluster.node(1).connection());
    let ids = [cluster.id(0), cluster.id(1)];
    let call = |connection: &mut redis::Connection, words: &[&str]| {
        redis::cmd("CLUSTER").arg(words).exec(connection).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    };
    if flavor == Flavor::Valkey91 {
        let (first, last) = (slots.start.to_string(), (slots.end - 1).to_string());
        call(&mut from, &["MIGRATESLOTS", "SLOTSRANGE", &first, &last, "NODE", &ids[1]]);
        eventually("the slots have moved", TIMEOUT, || {
            let keys: u64 = redis::cmd("CLUSTER").arg("COUNTKEYSINSLOT").arg(slots.start).query(&mut from).ok()?;
            let info: String = redis::cmd("CLUSTER").arg("NODES").query(&mut from).ok()?;
            let own = info.lines().find(|line| line.contains("myself"))?.to_owned();
            (keys == 0 && !own.ends_with(" 0-8191")).then_some(())
        });
        return;
    }
    let port = cluster.node(1).port();
    for slot in slots {
        let number = slot.to_string();
        call(&mut to, &["SETSLOT", &number, "IMPORTING", &ids[0]]);
        call(&mut from, &["SETSLOT", &number, "MIGRATING", &ids[1]]);
        loop {
            let mut query = redis::cmd("CLUSTER");
            let keys: Vec<Vec<u8>> =
                query.arg("GETKEYSINSLOT").arg(slot).arg(1_000).query(&mut from).expect("the slot's keys");
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
            migrate.exec(&mut from).expect("the keys move");
        }
        for connection in [&mut to, &mut from] {
            call(connection, &["SETSLOT", &number, "NODE", &ids[1]]);
        }
    }
}

#[test]
fn a_database_that_is_emptied_during_the_scan_ends_it() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(24_000).stale(4_000).load(&server);
    let empty = Once::between(0.1..0.9, |_| {
        redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("the server serves");
        eventually("the database is empty", TIMEOUT, || (server.held() == 0).then_some(()));
    });
    let report = sweep(&target(&server.url()), &slow(28_000), &empty, &Stop::new());
    assert!(empty.was_done());
    assert_eq!((report.outcome, report.message), (Outcome::Done, None));
}

/// Stops a scan in the middle, and returns its checkpoint as it is stored: through JSON.
fn interrupt(server: &Server) -> Checkpoint {
    let early = StopWhen::new(|progress| progress.fraction > 0.4);
    let first = sweep(&target(&server.url()), &slow(24_000), &early, &early.stop);
    assert_eq!(first.outcome, Outcome::Failed);
    let stored = serde_json::to_string(&early.last()).expect("JSON");
    serde_json::from_str(&stored).expect("a checkpoint")
}

#[rstest]
fn a_scan_resumes_in_the_middle_of_a_chunk(#[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor) {
    let server = Server::start(flavor);
    // Some scans stop between two chunks.
    let (loaded, checkpoint) = (0..20)
        .find_map(|_| {
            redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("the server serves");
            let loaded = DataSet::new().live(18_000).stale(6_000).load(&server);
            let checkpoint = interrupt(&server);
            let is_within = !checkpoint.shards[0].databases[0].positions.is_empty();
            is_within.then_some((loaded, checkpoint))
        })
        .expect("a scan stops in the middle of a chunk");
    let database = &checkpoint.shards[0].databases[0];
    assert_eq!(database.order, Some(Order::Backward { bits: 6 }), "{checkpoint:?}");
    assert!(database.begun > 20 && database.positions.len() == 1, "in the middle of a chunk: {checkpoint:?}");

    let report = scan(&server.url(), &Options { checkpoint: Some(checkpoint), ..Options::default() });

    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true)
    );
    assert_eq!(server.held(), loaded.live);
    let twice = returned(&report) - loaded.live;
    assert!(twice * 20 < loaded.live, "{twice} keys were returned twice: what was done is not done again");
}

#[test]
fn a_checkpoint_without_chunks_starts_its_shard_again_and_keeps_the_counts() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(18_000).stale(6_000).load(&server);
    let current = interrupt(&server);
    let mut stored = serde_json::to_value(&current).expect("JSON");
    // As 0.1.0 wrote it.
    stored["version"] = 1.into();
    let database = &mut stored["shards"][0]["databases"][0];
    for field in ["order", "begun", "positions", "share"] {
        database.as_object_mut().expect("an object").remove(field);
    }
    database["cursor"] = 4_096.into();
    let checkpoint: Checkpoint = serde_json::from_value(stored).expect("a checkpoint of 0.1.0");

    let report = scan(&server.url(), &Options { checkpoint: Some(checkpoint), ..Options::default() });

    assert_eq!((report.outcome, report.totals.exact), (Outcome::Done, true), "{report:?}");
    assert_eq!((report.totals.keys_reclaimed, server.held()), (loaded.stale, loaded.live), "all of both runs");
    let scanned = report.totals.keys_scanned - current.keys_scanned;
    assert!(scanned >= loaded.live + loaded.stale - current.keys_reclaimed, "{scanned} scanned again");
}

#[rstest]
fn a_proxy_with_cursors_of_its_own_is_scanned_forward_and_completely(
    #[values(Hiding::Numbered, Hiding::Scrambled)] hiding: Hiding,
) {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(18_000).stale(6_000).load(&server);
    let proxy = OpaqueProxy::before(&server, hiding);
    let report = scan(&proxy.url(), &Options::default());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, report.totals.exact),
        (Outcome::Done, loaded.stale, true)
    );
    assert_eq!(server.held(), loaded.live);
    let warning = report.warnings.iter().find(|warning| warning.contains("order"));
    assert!(warning.is_some_and(|warning| warning.contains("forward")), "{:?}", report.warnings);
}
