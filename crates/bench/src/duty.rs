//! Whether the duty that was set is the duty that the server's own accounting shows.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use keysweep_harness::{DataSet, Flavor};
use serde::Serialize;

use crate::{contestant, gauge::Gauge, rounds, settings::Settings};

/// Its name in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "duty";
/// Percent of the main thread.
const DUTIES: [&str; 3] = ["5", "25", "50"];

/// How long a sweep may take to release the first key.
const PATIENCE: Duration = Duration::from_secs(60);

/// One sweep at one duty, without a foreground.
#[derive(Debug, Clone, Serialize)]
pub struct Duty {
    /// As set, 0–1.
    pub set: f64,
    /// CPU that the server's main thread used, from the first release to the end, by the seconds of that, 0–1.
    pub used: f64,
    /// What keysweep itself says, 0–1.
    pub reported: f64,
    /// Seconds that the sweep took.
    pub wall: f64,
}

/// Runs it where it is wanted.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Vec<Duty>> {
    if !settings.wants(NAME) {
        return Ok(Vec::new());
    }
    let server = rounds::loaded(flavor, settings);
    let mut gauge = Gauge::new(&server);
    let mut done = Vec::new();
    for percent in DUTIES {
        let prefix = format!("duty-{percent}-");
        DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).dead(settings.dead()).load(&server);
        let (run, steady) = thread::scope(|scope| {
            let steady = scope.spawn(|| first_release(&mut Gauge::new(&server), settings));
            (contestant::keysweep(&server, &["--duty", percent, "--pace", "normal"]), steady.join())
        });
        let cpu = gauge.cpu_seconds()?;
        let run = run?;
        let Ok(steady) = steady else { bail!("the thread that waits for a release panicked") };
        let (since, before) = steady?;
        let end = run.began + Duration::from_secs_f64(run.wall);
        let used = (cpu - before) / end.saturating_duration_since(since).as_secs_f64();
        ensure!(gauge.keys()? == settings.live(), "the sweep at {percent} % left dead keys");
        let report = run.report.context("keysweep reports")?;
        let set = percent.parse::<f64>()? / 100.0;
        let duty = Duty { set, used, reported: report.duty, wall: run.wall };
        eprintln!("{} duty {percent} %: {:.1} % used, {:.1} s", flavor.name(), duty.used * 100.0, duty.wall);
        done.push(duty);
    }
    Ok(done)
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
