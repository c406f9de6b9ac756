//! A production-like primary: with a replica, an AOF synced every second and a BGSAVE during the scan. Measures the stale bytes
//! that a scan reclaims and the p99.9 that it adds.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use keysweep_harness::{DataSet, Flavor, Server, eventually};
use serde::Serialize;

use crate::{
    contestant,
    foreground::Foreground,
    gauge::Gauge,
    settings::Settings,
    spread::{Latency, Spread},
};

/// Name of this scenario in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "pressure";
/// Time without a scan, measured before it.
const ALONE: Duration = Duration::from_secs(4);
/// Interval at which keys are counted during the scan.
const COUNT_INTERVAL: Duration = Duration::from_millis(10);
/// Longest time until background saves have ended and the replica is in sync.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(120);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Bytes of stale keys before the scan: `used_memory` above that of the same server without stale keys.
    pub stale_before: f64,
    /// Mean bytes of stale keys during the scan.
    pub stale_mean: f64,
    /// Bytes of stale keys after the scan.
    pub stale_after: f64,
    /// Latency of the foreground without a scan.
    pub alone: Latency,
    /// Latency of the foreground during the scan.
    pub during: Latency,
    /// p99.9 during the scan minus p99.9 without it, microseconds.
    pub added_p999: f64,
    /// p90 during the scan minus p90 without it, microseconds.
    pub added_p90: f64,
    /// Seconds that the scan took.
    pub wall: f64,
    /// Seconds that the scan was throttled for the BGSAVE.
    pub throttled_for_fork: f64,
    /// Bytes that the BGSAVE copied on write.
    pub copied_on_write: u64,
    /// Full resyncs of the replica during the scan.
    pub full_resyncs: u64,
}

/// All rounds on one server.
#[derive(Debug, Clone, Serialize)]
pub struct Pressure {
    /// Rounds in the order of their runs.
    pub rounds: Vec<Round>,
}

impl Pressure {
    /// Returns the spread of a quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs the scenario if the settings select it.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Option<Pressure>> {
    if !settings.wants(NAME) {
        return Ok(None);
    }
    // An automatic AOF rewrite would be a second fork; the scenario needs exactly one.
    let launch = Server::with(flavor).arg("--appendonly", "yes").arg("--appendfsync", "everysec");
    let server = launch.arg("--auto-aof-rewrite-percentage", "0").start();
    DataSet::new().value_bytes(settings.value_bytes).live(settings.live()).load(&server);
    let _replica = server.replica();
    let mut gauge = Gauge::new(&server);
    // The first stale keys grow tables and buffers to their final size.
    load_stale(&server, settings, "warm-");
    settle(&mut gauge)?;
    contestant::keysweep(&server, &["--pace", "max"])?;
    settle(&mut gauge)?;
    let clean = gauge.keyspace_memory()?;
    let mut done = Vec::new();
    for number in 0..settings.scenario_rounds {
        load_stale(&server, settings, &format!("pressure-{number}-"));
        settle(&mut gauge)?;
        let round = one(&server, &mut gauge, settings, clean)?;
        eprintln!(
            "{} pressure round {}: {:.1} MB stale before, {:.1} MB after, p99.9 {:+.0} µs, {} full resyncs, {:.1} s",
            flavor.name(),
            number + 1,
            round.stale_before / 1e6,
            round.stale_after / 1e6,
            round.added_p999,
            round.full_resyncs,
            round.wall
        );
        done.push(round);
    }
    Ok(Some(Pressure { rounds: done }))
}

fn one(server: &Server, gauge: &mut Gauge, settings: &Settings, clean: u64) -> Result<Round> {
    let above_clean = |used: u64| used as f64 - clean as f64;
    let stale_before = above_clean(gauge.keyspace_memory()?);
    let resyncs = gauge.number("stats", "sync_full")?;
    let foreground = Foreground::start(server.address(), settings)?;
    let opened = Instant::now();
    thread::sleep(ALONE);
    let middle = Instant::now();
    let done = AtomicBool::new(false);
    let (scan, counted) = thread::scope(|scope| {
        let counter = scope.spawn(|| save_and_count(&mut Gauge::new(server), settings, &done));
        let scan = contestant::keysweep(server, &["--pace", "normal"]);
        done.store(true, Ordering::Relaxed);
        (scan, counter.join())
    });
    let end = Instant::now();
    let latencies = foreground.stop([(opened, middle), (middle, end)])?;
    let scan = scan?;
    let Ok(counted) = counted else { anyhow::bail!("the thread that counts keys panicked") };
    let mean_share = counted?;
    settle(gauge)?;
    ensure!(gauge.keys()? == settings.live(), "the scan under pressure left stale keys");
    let [alone, during] = latencies.map(|latencies| Latency::from(&latencies));
    Ok(Round {
        stale_before,
        stale_mean: stale_before * mean_share,
        stale_after: above_clean(gauge.keyspace_memory()?),
        alone,
        during,
        added_p999: during.p999 - alone.p999,
        added_p90: during.p90 - alone.p90,
        wall: scan.wall,
        throttled_for_fork: scan.report.context("keysweep reports")?.totals.throttled.fork,
        copied_on_write: gauge.number("persistence", "rdb_last_cow_size")?,
        full_resyncs: gauge.number("stats", "sync_full")? - resyncs,
    })
}

/// Starts a BGSAVE after the first reclaimed key, and returns the mean share of the stale keys during the scan.
fn save_and_count(gauge: &mut Gauge, settings: &Settings, done: &AtomicBool) -> Result<f64> {
    let (mut sum, mut counts, mut saved) = (0.0, 0.0, false);
    while !done.load(Ordering::Relaxed) {
        let stale = gauge.keys()?.saturating_sub(settings.live());
        if !saved && stale < settings.stale() {
            gauge.bgsave()?;
            saved = true;
        }
        sum += stale as f64 / settings.stale() as f64;
        counts += 1.0;
        thread::sleep(COUNT_INTERVAL);
    }
    ensure!(saved, "the scan finished before the BGSAVE could start; use more keys");
    Ok(sum / counts)
}

fn load_stale(server: &Server, settings: &Settings, prefix: &str) {
    DataSet::new().prefix(prefix).value_bytes(settings.value_bytes).stale(settings.stale()).load(server);
}

/// Waits until no background save runs and the replica is in sync.
fn settle(gauge: &mut Gauge) -> Result<()> {
    let mut failure = None;
    eventually("the server settles", SETTLE_TIMEOUT, || {
        let quiet = gauge.has_no_background_save().and_then(|none| Ok(none && gauge.replica_is_in_sync()?));
        quiet.map_err(|error| failure = Some(error)).unwrap_or(true).then_some(())
    });
    failure.map_or(Ok(()), Err)
}
