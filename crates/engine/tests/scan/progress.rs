//! The fraction from the cursor is right within 2 %, on tables of every shape.

use std::{sync::Mutex, thread, time::Duration};

use keysweep_engine::{Checkpoint, Monitor, Options, Outcome, Progress, Stop, Target, sweep};
use keysweep_harness::{DataSet, Flavor, Server};
use rstest::rstest;

/// Keeps every fraction with the true share of keys scanned, without those that were returned a second time.
struct Compare {
    keys: f64,
    seen: Mutex<Vec<(f64, f64)>>,
}

impl Compare {
    fn new(keys: u64) -> Self {
        Self { keys: keys as f64, seen: Mutex::default() }
    }
}

impl Monitor for Compare {
    fn progress(&self, progress: &Progress, checkpoint: &Checkpoint) {
        let repeated: f64 = checkpoint.shards.iter().map(|shard| shard.keys_repeated).sum();
        let truth = (progress.keys_scanned as f64 - repeated) / self.keys;
        self.seen.lock().expect("no panic").push((progress.fraction, truth));
    }
}

fn slow(keys: u64) -> Options {
    let mut options = Options::default();
    options.limits.keys_per_second = Some(keys / 3);
    options
}

fn assert_close(seen: &[(f64, f64)], tolerance: f64) {
    assert!(seen.len() > 8, "only {} samples", seen.len());
    for pair in seen.windows(2) {
        assert!(pair[1].0 >= pair[0].0, "it went back: {seen:?}");
    }
    for (fraction, truth) in seen {
        assert!((fraction - truth).abs() <= tolerance, "{fraction} where {truth} is true: {seen:?}");
    }
}

#[rstest]
fn on_a_table_at_rest(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(24_000).stale(6_000).database(1).live(5_000).load(&server);
    let keys = loaded.live + loaded.stale;
    let compare = Compare::new(keys);
    let report = sweep(&server.url().parse().expect("a target"), &slow(keys), &compare, &Stop::new());
    assert_eq!(report.totals.keys_reclaimed, loaded.stale);
    assert_close(&compare.seen.into_inner().expect("no panic"), 0.02);
}

/// While keys are added and deleted there is no true share of keys; the fraction must never decrease and end at 1.
#[rstest]
fn while_the_table_grows_shrinks_and_rehashes(#[values(Flavor::Redis70, Flavor::Valkey91)] flavor: Flavor) {
    let server = Server::start(flavor);
    let loaded = DataSet::new().live(10_000).stale(10_000).load(&server);
    let compare = Compare::new(20_000);
    let target: Target = server.url().parse().expect("a target");
    let report = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut connection = server.connection();
            for grow in [true, false, true, false] {
                for first in (0..60_000).step_by(1_000) {
                    let mut pipeline = redis::pipe();
                    for number in first..first + 1_000 {
                        let key = format!("churn:{number}");
                        match grow {
                            true => pipeline.cmd("SET").arg(key).arg("v").ignore(),
                            false => pipeline.cmd("DEL").arg(key).ignore(),
                        };
                    }
                    pipeline.exec(&mut connection).expect("the server serves");
                    thread::sleep(Duration::from_millis(8));
                }
            }
        });
        let report = sweep(&target, &slow(20_000), &compare, &Stop::new());
        churn.join().expect("the churn ends");
        report
    });
    assert_eq!((report.outcome, report.totals.keys_reclaimed), (Outcome::Done, loaded.stale));
    let seen = compare.seen.into_inner().expect("no panic");
    for pair in seen.windows(2) {
        assert!(pair[1].0 >= pair[0].0, "it went back: {seen:?}");
    }
    assert_eq!(seen.last().map(|(fraction, _)| *fraction), Some(1.0));
}

#[test]
fn in_cluster_mode_with_three_hash_tags_holding_all_keys() {
    let server = Server::with(Flavor::Valkey91).arg("--cluster-enabled", "yes").start();
    let mut connection = server.connection();
    redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(16_383).exec(&mut connection).expect("a cluster of one");
    keysweep_harness::eventually("the cluster is up", Duration::from_secs(20), || {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut connection).expect("INFO");
        info.contains("cluster_state:ok").then_some(())
    });
    let mut keys = 0;
    for (tag, live, stale) in [("{a}", 3_000, 1_000), ("{b}", 15_000, 5_000), ("{c}", 5_000, 1_000)] {
        let loaded = DataSet::new().prefix(tag).live(live).stale(stale).load(&server);
        keys += loaded.live + loaded.stale;
    }
    let compare = Compare::new(keys);
    let report = sweep(&server.url().parse().expect("a target"), &slow(keys), &compare, &Stop::new());
    assert_eq!((report.outcome, report.totals.keys_reclaimed, report.totals.exact), (Outcome::Done, 7_000, true));
    assert!(report.warnings.iter().any(|warning| warning.contains("one node of a cluster")), "{:?}", report.warnings);
    assert_close(&compare.seen.into_inner().expect("no panic"), 0.02);
}

/// One progress report: its time, the keys, and of the only shard the share done, the rate and the time left, once known.
#[derive(Debug)]
struct Reported {
    at: f64,
    keys: u64,
    shard: Option<(f64, f64, f64)>,
}

/// Keeps every progress report.
#[derive(Default)]
struct Speed(Mutex<Vec<Reported>>);

impl Monitor for Speed {
    fn progress(&self, progress: &Progress, _: &Checkpoint) {
        let shard =
            progress.shards.first().and_then(|shard| Some((shard.fraction, shard.keys_per_second, shard.eta_seconds?)));
        let reported = Reported { at: progress.elapsed_seconds, keys: progress.keys_scanned, shard };
        self.0.lock().expect("no panic").push(reported);
    }
}

/// Compared with the true rate, not the limit: a sweep that wakes up late catches up only a part of it.
#[test]
fn a_shard_reports_its_own_rate_and_time_left() {
    /// The time over which the rate is averaged.
    const TICKS: usize = 14;
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).load(&server);
    let speed = Speed::default();
    let mut options = slow(30_000);
    // Without a guard: a backoff changes the rate, which no time left predicts.
    (options.limits.max_cpu, options.limits.guard) = (1.0, None);
    let report = sweep(&server.url().parse().expect("a target"), &options, &speed, &Stop::new());
    assert_eq!(report.outcome, Outcome::Done);
    let reported = speed.0.into_inner().expect("no panic");
    // The median of many reports: the machine may stall during a single one.
    let samples = reported.iter().enumerate().filter_map(|(index, now)| {
        let (then, (fraction, rate, left)) = (&reported[index.saturating_sub(TICKS)], now.shard?);
        let true_rate = (now.keys - then.keys) as f64 / (now.at - then.at);
        (fraction > 0.4).then_some((rate / true_rate, left - (report.totals.elapsed_seconds - now.at)))
    });
    let (mut rates, mut errors): (Vec<f64>, Vec<f64>) = samples.unzip();
    assert!(rates.len() >= 5, "{reported:?}");
    for values in [&mut rates, &mut errors] {
        values.sort_by(f64::total_cmp);
    }
    let (rate, error) = (rates[rates.len() / 2], errors[errors.len() / 2]);
    assert!((0.95..1.05).contains(&rate), "the rate is {rate} of the true one: {reported:?}");
    assert!(error.abs() < 0.5, "the time left is {error} s wrong, of three: {reported:?}");
}
