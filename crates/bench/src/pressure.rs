//! The figure that an operator asked for: how many dead bytes a sweep takes away, and at what added p99.9, on a primary
//! as it runs in production: with a replica, with its log synced every second, and with a BGSAVE in the middle.

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

/// Its name in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "pressure";
/// How long the foreground is watched without a sweep.
const ALONE: Duration = Duration::from_secs(4);
/// How often the keys are counted while the sweep runs.
const COUNT_EVERY: Duration = Duration::from_millis(10);
/// How long child processes and the replica may take to come to rest.
const REST: Duration = Duration::from_secs(120);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Bytes that dead keys held before the sweep: `used_memory` above that of the same server without them.
    pub dead_before: f64,
    /// The mean of it while the sweep ran.
    pub dead_mean: f64,
    /// What was left of it.
    pub dead_after: f64,
    /// Latency of the foreground without a sweep.
    pub alone: Latency,
    /// The same during the sweep.
    pub during: Latency,
    /// p99.9 during the sweep above that without, microseconds.
    pub added_p999: f64,
    /// p90 during the sweep above that without, microseconds.
    pub added_p90: f64,
    /// Seconds that the sweep took.
    pub wall: f64,
    /// Seconds of them that it held for the BGSAVE.
    pub held_for_fork: f64,
    /// Bytes that the BGSAVE copied on write.
    pub copied_on_write: u64,
    /// Full resyncs of the replica meanwhile.
    pub full_resyncs: u64,
}

/// All rounds on one server.
#[derive(Debug, Clone, Serialize)]
pub struct Pressure {
    /// Round after round.
    pub rounds: Vec<Round>,
}

impl Pressure {
    /// A quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs it where it is wanted.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Option<Pressure>> {
    if !settings.wants(NAME) {
        return Ok(None);
    }
    // A rewrite of the log that starts by itself would be a second fork; the run is to have exactly one.
    let launch = Server::with(flavor).arg("--appendonly", "yes").arg("--appendfsync", "everysec");
    let server = launch.arg("--auto-aof-rewrite-percentage", "0").start();
    DataSet::new().value_bytes(settings.value_bytes).live(settings.live()).load(&server);
    let _replica = server.replica();
    let mut gauge = Gauge::new(&server);
    // The first dead keys only make the tables and buffers as large as they stay.
    load_dead(&server, settings, "warm-");
    rest(&mut gauge)?;
    contestant::keysweep(&server, &["--pace", "max"])?;
    rest(&mut gauge)?;
    let clean = gauge.keyspace_memory()?;
    let mut done = Vec::new();
    for number in 0..settings.rounds {
        load_dead(&server, settings, &format!("pressure-{number}-"));
        rest(&mut gauge)?;
        let round = one(&server, &mut gauge, settings, clean)?;
        eprintln!(
            "{} pressure round {}: {:.1} MB dead before, {:.1} MB after, p99.9 {:+.0} µs, {} full resyncs, {:.1} s",
            flavor.name(),
            number + 1,
            round.dead_before / 1e6,
            round.dead_after / 1e6,
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
    let dead_before = above_clean(gauge.keyspace_memory()?);
    let resyncs = gauge.number("stats", "sync_full")?;
    let foreground = Foreground::start(server.address(), settings)?;
    let opened = Instant::now();
    thread::sleep(ALONE);
    let middle = Instant::now();
    let over = AtomicBool::new(false);
    let (sweep, counted) = thread::scope(|scope| {
        let counter = scope.spawn(|| save_and_count(&mut Gauge::new(server), settings, &over));
        let sweep = contestant::keysweep(server, &["--pace", "normal"]);
        over.store(true, Ordering::Relaxed);
        (sweep, counter.join())
    });
    let end = Instant::now();
    let latencies = foreground.stop([(opened, middle), (middle, end)])?;
    let sweep = sweep?;
    let Ok(counted) = counted else { anyhow::bail!("the thread that counts keys panicked") };
    let mean_share = counted?;
    rest(gauge)?;
    ensure!(gauge.keys()? == settings.live(), "the sweep under pressure left dead keys");
    let [alone, during] = latencies.map(|latencies| Latency::from(&latencies));
    Ok(Round {
        dead_before,
        dead_mean: dead_before * mean_share,
        dead_after: above_clean(gauge.keyspace_memory()?),
        alone,
        during,
        added_p999: during.p999 - alone.p999,
        added_p90: during.p90 - alone.p90,
        wall: sweep.wall,
        held_for_fork: sweep.report.context("keysweep reports")?.totals.throttled.fork,
        copied_on_write: gauge.number("persistence", "rdb_last_cow_size")?,
        full_resyncs: gauge.number("stats", "sync_full")? - resyncs,
    })
}

/// Starts a BGSAVE once the sweep has begun to release, and returns the mean share of the dead keys that were there.
fn save_and_count(gauge: &mut Gauge, settings: &Settings, over: &AtomicBool) -> Result<f64> {
    let (mut sum, mut counts, mut saved) = (0.0, 0.0, false);
    while !over.load(Ordering::Relaxed) {
        let dead = gauge.keys()?.saturating_sub(settings.live());
        if !saved && dead < settings.dead() {
            gauge.bgsave()?;
            saved = true;
        }
        sum += dead as f64 / settings.dead() as f64;
        counts += 1.0;
        thread::sleep(COUNT_EVERY);
    }
    ensure!(saved, "the sweep ended before the BGSAVE could begin; use more keys");
    Ok(sum / counts)
}

fn load_dead(server: &Server, settings: &Settings, prefix: &str) {
    DataSet::new().prefix(prefix).value_bytes(settings.value_bytes).dead(settings.dead()).load(server);
}

/// Waits until no child process is left and the replica has everything.
fn rest(gauge: &mut Gauge) -> Result<()> {
    let mut failure = None;
    eventually("the server comes to rest", REST, || {
        let quiet = gauge.is_childless().and_then(|childless| Ok(childless && gauge.replica_is_level()?));
        quiet.map_err(|error| failure = Some(error)).unwrap_or(true).then_some(())
    });
    failure.map_or(Ok(()), Err)
}
