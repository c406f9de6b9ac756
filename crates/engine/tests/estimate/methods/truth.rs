//! The estimator and the law against the truth: many runs on every server, in soak, and one case of the law.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use keysweep_engine::{EstimateRequest, Method, Options, Stop, Target, sweep};
use keysweep_harness::{Cluster, DataSet, Flavor, Server};
use rstest::rstest;

use super::{ask, request};

/// Keys of each data set.
const KEYS: u64 = 100_000;

/// Runs samples of data sets that are loaded anew for each, and returns how many intervals cover the truth.
fn covered(runs: u32, percent: u64, load: impl Fn(u64, u64) -> (String, Box<dyn Fn() -> u64>)) -> u32 {
    let mut covered = 0;
    for _ in 0..runs {
        let (url, held) = load(KEYS * (100 - percent) / 100, KEYS * percent / 100);
        let before = held();
        let live = KEYS * (100 - percent) / 100;
        let truth = (before - live) as f64 / before as f64;
        let found = ask(&url, &request(Some(Method::Sample))).total;
        let (low, high) = (found.share_low.expect("an end"), found.share_high.expect("an end"));
        covered += u32::from((low..=high).contains(&truth));
    }
    covered
}

fn flush(server: &Server) {
    redis::cmd("FLUSHALL").exec(&mut server.connection()).expect("it can be emptied");
}

#[rstest]
#[ignore = "minutes: dozens of samples, each of a data set that was loaded for it"]
fn soak_the_interval_covers_the_truth(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(1, 5, 20)] percent: u64,
    #[values(false, true)] half_scanned: bool,
) {
    let runs = if flavor == Flavor::Valkey91 { 100 } else { 20 };
    let server = Server::start(flavor);
    let target: Target = server.url().parse().expect("a target");
    let covered = covered(runs, percent, |live, stale| {
        flush(&server);
        DataSet::new().value_bytes(100).live(live).stale(stale).load(&server);
        if half_scanned {
            scan_half(&target);
        }
        let port = server.url();
        let connection = redis::Client::open(port.as_str()).expect("a client");
        let held =
            move || redis::cmd("DBSIZE").query(&mut connection.get_connection().expect("it listens")).expect("a size");
        (port, Box::new(held))
    });
    assert!(covered * 10 >= runs * 9, "{covered} of {runs} intervals cover the truth");
}

/// Scans the first half of the keyspace.
fn scan_half(target: &Target) {
    let stop = Stop::new();
    let mut options = Options::default();
    options.limits.keys_per_second = Some(200_000);
    struct Half<'a>(&'a Stop);
    impl keysweep_engine::Monitor for Half<'_> {
        fn progress(&self, progress: &keysweep_engine::Progress, _: &keysweep_engine::Checkpoint) {
            if progress.fraction >= 0.5 {
                self.0.raise();
            }
        }
    }
    sweep(target, &options, &Half(&stop), &stop);
}

#[rstest]
#[ignore = "minutes: dozens of samples, each of a data set that was loaded for it"]
fn soak_the_interval_covers_the_truth_in_a_cluster_with_a_hot_slot(
    #[values(Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values(1, 5, 20)] percent: u64,
) {
    let cluster = Cluster::start(flavor, 1, false);
    let covered = covered(100, percent, |live, stale| {
        flush(cluster.node(0));
        let hot = DataSet::new().prefix("{hot}:").live(live / 2).stale(stale);
        let tags = 200;
        (0..tags).fold(hot, |set, tag| set.prefix(&format!("{{{tag}}}:")).live(live / 2 / tags)).load(cluster.node(0));
        let connection = redis::Client::open(cluster.node(0).url()).expect("a client");
        let held =
            move || redis::cmd("DBSIZE").query(&mut connection.get_connection().expect("it listens")).expect("a size");
        (cluster.url(), Box::new(held))
    });
    assert!(covered >= 90, "{covered} of 100 intervals cover the truth");
}

#[rstest]
#[ignore = "minutes: dozens of samples, each of a data set that was loaded for it"]
fn soak_bytes_are_within_a_quarter_of_the_truth(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
    #[values(&[100], &[1_000], &[100, 1_000])] sizes: &[usize],
) {
    let server = Server::start(flavor);
    let (mut sum, runs) = (0.0, 10);
    for _ in 0..runs {
        flush(&server);
        let part = KEYS / sizes.len() as u64;
        sizes
            .iter()
            .enumerate()
            .fold(DataSet::new(), |set, (number, size)| {
                set.prefix(&format!("{number}:")).value_bytes(*size).live(part * 8 / 10).stale(part * 2 / 10)
            })
            .load(&server);
        let found = ask(&server.url(), &EstimateRequest { slices: 200, ..request(Some(Method::Sample)) }).total;
        let used = || -> u64 {
            let info: String = redis::cmd("INFO").arg("memory").query(&mut server.connection()).expect("INFO");
            info.lines().find_map(|line| line.strip_prefix("used_memory:")?.parse().ok()).expect("a number")
        };
        let before = used();
        let target: Target = server.url().parse().expect("a target");
        let report = sweep(&target, &Options::default(), &(), &Stop::new());
        let each = before.saturating_sub(used()) as f64 / report.totals.keys_reclaimed as f64;
        sum += found.bytes.expect("bytes") as f64 / found.stale_keys.expect("stale keys") as f64 / each;
    }
    let ratio = sum / f64::from(runs);
    assert!((0.75..=1.25).contains(&ratio), "{ratio} times the bytes that a scan frees");
}

/// Sets keys with TTLs at an even rate until it is told to stop, and returns the mean share of stale keys meanwhile, after
/// the time that the share takes to settle.
fn churn(server: &Server, rate: u64, ttl: Duration, settle: Duration, measure: Duration) -> f64 {
    let (begun, done) = (Instant::now(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut connection, mut number) = (server.connection(), 0u64);
            while !done.load(Ordering::Relaxed) {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
                let mut pipeline = redis::pipe();
                for number in number..due.min(number + 500) {
                    pipeline.cmd("SET").arg(number).arg("value").arg("PX").arg(ttl.as_millis() as u64).ignore();
                }
                if due > number {
                    pipeline.exec(&mut connection).expect("keys can be set");
                }
                number = due.min(number + 500);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut connection = server.connection();
        thread::sleep(settle);
        let (mut sum, mut count) = (0.0, 0);
        while begun.elapsed() < settle + measure {
            let held: u64 = redis::cmd("DBSIZE").query(&mut connection).expect("a size");
            // Every key of the last TTL is live.
            let live = rate as f64 * ttl.as_secs_f64();
            sum += (held as f64 - live) / held as f64;
            count += 1;
            thread::sleep(Duration::from_millis(20));
        }
        done.store(true, Ordering::Relaxed);
        sum / f64::from(count)
    })
}

/// Compares the share under churn with what an estimate predicts.
fn law_holds(flavor: Flavor, effort: u8, hz: u32, tolerance: f64) {
    let server = Server::start(flavor);
    for (name, value) in [("active-expire-effort", u32::from(effort)), ("hz", hz)] {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut server.connection()).expect("a setting");
    }
    let predicted = thread::scope(|scope| {
        let asked = scope.spawn(|| {
            thread::sleep(Duration::from_secs(16));
            ask(&server.url(), &EstimateRequest { observe: Duration::from_secs(6), ..request(Some(Method::Info)) })
                .total
        });
        let share = churn(&server, 1_000, Duration::from_secs(12), Duration::from_secs(16), Duration::from_secs(6));
        let found = asked.join().expect("no panic");
        assert_eq!((found.effort, found.hz), (Some(effort), Some(hz)));
        let rate = found.expiry_rate.expect("a rate");
        assert!((700.0..1_300.0).contains(&rate), "{rate} keys expire a second");
        (found.predicted_share.expect("a prediction"), share)
    });
    let (predicted, share) = predicted;
    assert!(
        (predicted - share).abs() < tolerance,
        "{flavor:?}, effort {effort}, hz {hz}: {predicted} is predicted, {share} measured"
    );
}

#[test]
fn alone_the_law_predicts_the_share_under_churn() {
    law_holds(Flavor::Valkey91, 4, 10, 0.02);
}

#[rstest]
#[ignore = "half a minute each, alone on the machine"]
fn alone_soak_the_law_predicts_the_share_under_churn(
    #[values(Flavor::Redis70, Flavor::Redis82, Flavor::Valkey91)] flavor: Flavor,
    #[values((1, 10), (4, 10), (10, 10), (1, 100))] setting: (u8, u32),
) {
    law_holds(flavor, setting.0, setting.1, 0.01);
}
