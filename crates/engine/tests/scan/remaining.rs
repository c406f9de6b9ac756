//! The report says what a scan has left: keys that expired while it ran, behind it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{Options, Outcome, Preset, Report, Stop, Target, sweep};
use keysweep_harness::{DataSet, Flavor, Server, eventually};
use rstest::rstest;

use crate::common::{Once, StopWhen, slow};

/// Keys that a client sets a second, and the longest of their TTLs.
const RATE: u64 = 5_000;
const LONGEST_TTL: Duration = Duration::from_secs(3);

fn scan(server: &Server, options: &Options) -> Report {
    let target: Target = server.url().parse().expect("a target");
    let report = sweep(&target, options, &(), &Stop::new());
    assert_eq!((report.outcome, &report.message), (Outcome::Done, &None));
    report
}

fn as_fast_as_it_goes() -> Options {
    Options { limits: Preset::Max.limits(), ..Options::default() }
}

#[test]
fn a_scan_of_a_quiet_server_leaves_nothing() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(3_000).stale(1_000).database(3).live(200).stale(100).load(&server);
    let left = scan(&server, &Options::default()).totals.remaining.expect("INFO is allowed");
    assert_eq!((left.keys, left.stale_keys, left.expired_per_second), (loaded.live, 0, Some(0.0)));
}

#[test]
fn keys_of_a_database_that_came_during_the_scan_are_not_left_by_it() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(10_000).stale(5_000).load(&server);
    let add = Once::between(0.1..1.0, |_| {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SELECT").arg(7).ignore();
        for number in 0..3_000 {
            pipeline.cmd("SET").arg(number).arg("v").arg("EX").arg(3_600).ignore();
        }
        pipeline.exec(&mut server.connection()).expect("the server serves");
    });
    let target: Target = server.url().parse().expect("a target");
    let report = sweep(&target, &slow(15_000), &add, &Stop::new());
    assert!(add.was_done());
    let left = report.totals.remaining.expect("INFO is allowed");
    assert_eq!((left.keys, left.stale_keys, left.expired_per_second), (loaded.live, 0, Some(0.0)));
}

#[test]
fn a_resumed_scan_reports_no_rate_of_what_it_has_not_seen() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(10_000).stale(10_000).load(&server);
    let early = StopWhen::new(|progress| progress.fraction > 0.2);
    let target: Target = server.url().parse().expect("a target");
    let first = sweep(&target, &slow(20_000), &early, &early.stop);
    assert_eq!((first.outcome, first.totals.remaining), (Outcome::Failed, None));
    let rest = scan(&server, &Options { checkpoint: early.last(), ..Options::default() });
    let left = rest.totals.remaining.expect("INFO is allowed");
    assert_eq!((left.keys, left.stale_keys, left.expired_per_second), (loaded.live, 0, None));
}

/// Sets keys with TTLs of one to three seconds at an even rate, and counts them.
fn churn(server: &Server, set: &AtomicU64, stop: &AtomicBool) {
    let (mut connection, started) = (server.connection(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * RATE as f64) as u64;
        thread::sleep(Duration::from_millis(5));
        if due == set.load(Ordering::Relaxed) {
            continue;
        }
        let mut pipeline = redis::pipe();
        for number in set.load(Ordering::Relaxed)..due {
            let ttl = 1_000 + number % 2_000;
            pipeline.cmd("SET").arg(format!("churn:{number}")).arg("v").arg("PX").arg(ttl).ignore();
        }
        pipeline.exec(&mut connection).expect("the server serves");
        set.store(due, Ordering::Relaxed);
    }
}

#[rstest]
fn heavy_keys_that_expire_behind_a_scan_are_reported_with_their_rate(
    #[values(Flavor::Redis62, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::start(flavor);
    let (set, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| churn(&server, &set, &stop));
        // As many keys expire as are set, once the first ones with the longest TTL have.
        eventually("the churn is steady", Duration::from_secs(30), || {
            (set.load(Ordering::Relaxed) > RATE * (LONGEST_TTL.as_secs() + 2)).then_some(())
        });
        let (before, started) = (set.load(Ordering::Relaxed), Instant::now());
        let report = scan(&server, &slow(RATE));
        let rate = (set.load(Ordering::Relaxed) - before) as f64 / started.elapsed().as_secs_f64();
        let again = scan(&server, &as_fast_as_it_goes());
        stop.store(true, Ordering::Relaxed);

        let left = report.totals.remaining.expect("INFO is allowed");
        let truth = again.totals.keys_reclaimed as f64 / left.keys as f64;
        println!("{flavor:?}: {left:?}, {truth:.3} were stale, {rate:.0} keys were set a second");
        assert!(truth > 0.1, "{truth} of the keys were stale, which shows nothing");
        assert!((left.share - truth).abs() < 0.06, "{left:?}, {truth} were stale");
        let expired_per_second = left.expired_per_second.expect("the scan was not resumed");
        assert!((expired_per_second / rate - 1.0).abs() < 0.25, "{left:?}, {rate} keys were set a second");
    });
}
