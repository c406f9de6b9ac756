//! A scan in chunks, from the last to the first, visits every key: while tables grow, shrink and are rehashed, and in clusters
//! with a table for each slot.

mod common;

use std::time::Duration;

use keysweep_engine::{Options, Outcome, Report, Stop, Target, sweep};
use keysweep_harness::{Cluster, DataSet, Flavor, Loaded, Server, eventually};
use rstest::rstest;

use common::{Once, slow};

fn target(url: &str) -> Target {
    url.parse().expect("a target")
}

fn returned(report: &Report) -> u64 {
    report.totals.keys_scanned - report.totals.keys_reclaimed
}

/// Returns how many of the stale keys the server holds. MEMORY USAGE looks a key up without deleting it.
fn held(server: &Server, loaded: &Loaded) -> usize {
    let mut pipeline = redis::pipe();
    for number in loaded.live..loaded.live + loaded.stale {
        pipeline.cmd("MEMORY").arg("USAGE").arg(format!("stale:{number}"));
    }
    let sizes: Vec<Option<u64>> = pipeline.query(&mut server.connection()).expect("sizes or nothing");
    sizes.iter().flatten().count()
}

#[rstest]
fn few_keys_are_returned_twice_and_the_report_says_how_many(
    #[values(Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(200_000).stale(50_000).load(&server);
    let report = sweep(&target(&server.url()), &Options::default(), &(), &Stop::new());
    assert_eq!(
        (report.outcome, report.totals.keys_reclaimed, server.held()),
        (Outcome::Done, loaded.stale, loaded.live)
    );
    let repeated = returned(&report) - loaded.live;
    assert!(repeated > 0, "chunks overlap: the scan was in one go");
    assert!(repeated * 100 <= loaded.live * 3, "{repeated} keys were returned twice");
    let wrong = repeated.abs_diff(report.totals.keys_repeated);
    assert!(
        wrong * 200 <= loaded.live,
        "{repeated} keys were returned twice, {} reported",
        report.totals.keys_repeated
    );
}

#[rstest]
fn no_key_is_left_out_while_the_table_grows_or_shrinks(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(true, false)] grows: bool,
    #[values(0.1, 0.6)] at: f64,
) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(40_000).stale(10_000).load(&server);
    let resize = Once::between(at..0.95, |_| {
        let mut connection = server.connection();
        for first in (0..if grows { 150_000 } else { 39_000 }).step_by(1_000) {
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

    let report = sweep(&target(&server.url()), &slow(30_000), &resize, &Stop::new());

    assert!(resize.was_done());
    assert_eq!((report.outcome, &report.message), (Outcome::Done, &None));
    assert_eq!((held(&server, &loaded), report.totals.keys_reclaimed), (0, loaded.stale), "{report:?}");
    let living = if grows { loaded.live } else { 1_000 };
    assert!(returned(&report) >= living, "{} of {living} living keys were returned", returned(&report));
}

/// Each node has 20 slots with a twentieth of its keys: they are divided into chunks of their own.
#[rstest]
fn clusters_with_hot_slots_are_scanned_completely(#[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor) {
    let mut cluster = Cluster::start(flavor, 2, false);
    let (live, stale) = cluster.load(24_000, 12_000);
    let report = sweep(&target(&cluster.url()), &Options::default(), &(), &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed, report.totals.exact), (Outcome::Done, stale, true));
    assert_eq!(cluster.held(), live);
    assert!(
        (live..live * 106 / 100).contains(&returned(&report)),
        "{} of {live} keys were returned",
        returned(&report)
    );
}

#[test]
fn a_cluster_that_grows_during_the_scan_is_scanned_completely() {
    let mut cluster = Cluster::start(Flavor::Redis82, 2, false);
    let (live, stale) = cluster.load(20_000, 10_000);
    let more = 60_000;
    let grow = Once::between(0.2..0.9, |_| {
        for index in 0..2 {
            // Keys of the first and of the last slots of each node.
            let mut connection = cluster.node(index).connection();
            let mut set = 0;
            for number in 0.. {
                let answer: redis::RedisResult<()> =
                    redis::cmd("SET").arg(format!("{{{number}}}more")).arg("v").query(&mut connection);
                set += u64::from(answer.is_ok());
                if set == more / 20 {
                    break;
                }
            }
        }
    });
    let report = sweep(&target(&cluster.url()), &slow(20_000), &grow, &Stop::new());
    assert!(grow.was_done());
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, stale), "{report:?}");
    assert_eq!(cluster.held(), live + more / 10);
}

#[test]
fn a_database_that_is_emptied_during_the_scan_ends_it() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).stale(10_000).load(&server);
    let empty = Once::between(0.1..0.9, |_| {
        redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("the server serves");
        eventually("the database is empty", Duration::from_secs(5), || (server.held() == 0).then_some(()));
    });
    let report = sweep(&target(&server.url()), &slow(20_000), &empty, &Stop::new());
    assert!(empty.was_done());
    assert_eq!((report.outcome, report.message), (Outcome::Done, None));
}
