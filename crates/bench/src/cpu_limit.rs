//! Compares the CPU limit of a scan with the server's own accounting of its main thread.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use keysweep_harness::{DataSet, Flavor, Server};
use serde::Serialize;

use crate::{contestant, gauge::Gauge, rounds, settings::Settings, spread::Spread};

/// Name of this scenario in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "cpu-limit";
/// Measured limits, percent of the main thread.
const LIMITS: [&str; 3] = ["5", "25", "50"];

/// Longest time from the start of a scan to its first reclaimed key.
const FIRST_RECLAIM_TIMEOUT: Duration = Duration::from_secs(60);

/// One scan at a limit, without a foreground.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// CPU share of the server's main thread from the first reclaimed key to the end, 0–1.
    pub used: f64,
    /// CPU share in keysweep's report, 0–1.
    pub reported: f64,
    /// Seconds from start to end.
    pub wall: f64,
}

/// All rounds at one CPU limit.
#[derive(Debug, Clone, Serialize)]
pub struct CpuLimit {
    /// The limit, 0–1.
    pub set: f64,
    /// Rounds in the order of their runs.
    pub rounds: Vec<Round>,
}

impl CpuLimit {
    /// Returns the spread of a quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs the scenario if the settings select it: every limit once per round.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Vec<CpuLimit>> {
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let server = rounds::loaded(flavor, settings);
    let set = |percent: &str| Ok(CpuLimit { set: percent.parse::<f64>()? / 100.0, rounds: Vec::new() });
    let mut done = LIMITS.into_iter().map(set).collect::<Result<Vec<_>>>()?;
    for number in 0..settings.scenario_rounds {
        for (percent, limit) in LIMITS.into_iter().zip(&mut done) {
            let prefix = format!("limit-{percent}-{number}-");
            DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).stale(settings.stale()).load(&server);
            let round = scan(&server, percent, settings)?;
            eprintln!("{} CPU limit {percent} %: {:.1} % used, {:.1} s", flavor.name(), round.used * 100.0, round.wall);
            limit.rounds.push(round);
        }
    }
    Ok(done)
}

fn scan(server: &Server, percent: &str, settings: &Settings) -> Result<Round> {
    let mut gauge = Gauge::new(server);
    let (run, steady) = thread::scope(|scope| {
        let steady = scope.spawn(|| first_reclaim(&mut Gauge::new(server), settings));
        (contestant::keysweep(server, &["--max-cpu", percent, "--pace", "normal"]), steady.join())
    });
    let cpu = gauge.cpu_seconds()?;
    let run = run?;
    let Ok(steady) = steady else { bail!("the thread that waits for the first reclaimed key panicked") };
    let (since, before) = steady?;
    let end = run.began + Duration::from_secs_f64(run.wall);
    let used = (cpu - before) / end.saturating_duration_since(since).as_secs_f64();
    ensure!(gauge.keys()? == settings.live(), "the scan at {percent} % left stale keys");
    let report = run.report.context("keysweep reports")?;
    Ok(Round { used, reported: report.totals.cpu_share, wall: run.wall })
}

/// Returns the time of the first reclaimed key and the server's CPU time by then. The fifth of a second of PINGs before it
/// measures the latency baseline and does not count.
fn first_reclaim(gauge: &mut Gauge, settings: &Settings) -> Result<(Instant, f64)> {
    let began = Instant::now();
    while gauge.keys()? >= settings.keys {
        ensure!(began.elapsed() < FIRST_RECLAIM_TIMEOUT, "no key was reclaimed within {FIRST_RECLAIM_TIMEOUT:?}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok((Instant::now(), gauge.cpu_seconds()?))
}
