//! Whether the duty that was set is the duty that the server's own accounting shows.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use keysweep_harness::{DataSet, Flavor, Server};
use serde::Serialize;

use crate::{contestant, gauge::Gauge, rounds, settings::Settings, spread::Spread};

/// Its name in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "duty";
/// Percent of the main thread.
const DUTIES: [&str; 3] = ["5", "25", "50"];

/// How long a sweep may take to release the first key.
const PATIENCE: Duration = Duration::from_secs(60);

/// One sweep at a duty, without a foreground.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// CPU that the server's main thread used, from the first release to the end, by the seconds of that, 0–1.
    pub used: f64,
    /// What keysweep itself says, 0–1.
    pub reported: f64,
    /// Seconds that the sweep took.
    pub wall: f64,
}

/// All rounds of one duty.
#[derive(Debug, Clone, Serialize)]
pub struct Duty {
    /// As set, 0–1.
    pub set: f64,
    /// Round after round.
    pub rounds: Vec<Round>,
}

impl Duty {
    /// A quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs it where it is wanted: all duties in turn, round after round.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Vec<Duty>> {
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let server = rounds::loaded(flavor, settings);
    let set = |percent: &str| Ok(Duty { set: percent.parse::<f64>()? / 100.0, rounds: Vec::new() });
    let mut done = DUTIES.into_iter().map(set).collect::<Result<Vec<_>>>()?;
    for number in 0..settings.rounds {
        for (percent, duty) in DUTIES.into_iter().zip(&mut done) {
            let prefix = format!("duty-{percent}-{number}-");
            DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).dead(settings.dead()).load(&server);
            let round = sweep(&server, percent, settings)?;
            eprintln!("{} duty {percent} %: {:.1} % used, {:.1} s", flavor.name(), round.used * 100.0, round.wall);
            duty.rounds.push(round);
        }
    }
    Ok(done)
}

fn sweep(server: &Server, percent: &str, settings: &Settings) -> Result<Round> {
    let mut gauge = Gauge::new(server);
    let (run, steady) = thread::scope(|scope| {
        let steady = scope.spawn(|| first_release(&mut Gauge::new(server), settings));
        (contestant::keysweep(server, &["--duty", percent, "--pace", "normal"]), steady.join())
    });
    let cpu = gauge.cpu_seconds()?;
    let run = run?;
    let Ok(steady) = steady else { bail!("the thread that waits for a release panicked") };
    let (since, before) = steady?;
    let end = run.began + Duration::from_secs_f64(run.wall);
    let used = (cpu - before) / end.saturating_duration_since(since).as_secs_f64();
    ensure!(gauge.keys()? == settings.live(), "the sweep at {percent} % left dead keys");
    let report = run.report.context("keysweep reports")?;
    Ok(Round { used, reported: report.totals.cpu_share, wall: run.wall })
}

/// When the sweep has begun to release, and the CPU that the server had used by then: what comes before, a fifth of a
/// second of PINGs for the guard's baseline, is no part of the duty.
fn first_release(gauge: &mut Gauge, settings: &Settings) -> Result<(Instant, f64)> {
    let began = Instant::now();
    while gauge.keys()? >= settings.keys {
        ensure!(began.elapsed() < PATIENCE, "nothing was released within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
    Ok((Instant::now(), gauge.cpu_seconds()?))
}
