//! Backoff under load: while clients saturate the server's main thread, a scan at normal must back off and still finish.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use keysweep_harness::{DataSet, Flavor};
use serde::Serialize;

use crate::{
    contestant,
    gauge::Gauge,
    rounds,
    saturation::Saturation,
    settings::Settings,
    spread::{Latency, Spread},
};

/// Name of this scenario in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "backoff";
/// Time without a scan, measured before and after it because the speed of a machine drifts.
const ALONE: Duration = Duration::from_secs(3);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Latency of a pipeline without a scan.
    pub alone: Latency,
    /// Latency of a pipeline during the scan.
    pub during: Latency,
    /// Latency during the second half of the scan, after it has backed off.
    pub late: Latency,
    /// p90 during the scan divided by p90 without it.
    pub ratio: f64,
    /// p90 during the second half divided by p90 without a scan.
    pub late_ratio: f64,
    /// CPU share of the main thread without a scan, 0–1.
    pub busy: f64,
    /// Seconds that the scan took.
    pub wall: f64,
    /// Number of backoffs.
    pub backoffs: u64,
    /// p90 of keysweep's latency probe before the scan, microseconds.
    pub baseline_p90: Option<f64>,
    /// p90 of keysweep's latency probe during the scan, microseconds.
    pub during_p90: Option<f64>,
}

/// All rounds on one server.
#[derive(Debug, Clone, Serialize)]
pub struct Backoff {
    /// Rounds in the order of their runs.
    pub rounds: Vec<Round>,
}

impl Backoff {
    /// Returns the spread of a quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs the scenario if the settings select it.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Option<Backoff>> {
    if !settings.wants(NAME) {
        return Ok(None);
    }
    let server = rounds::loaded(flavor, settings);
    let mut gauge = Gauge::new(&server);
    let mut done = Vec::new();
    for number in 0..settings.scenario_rounds {
        let prefix = format!("backoff-{number}-");
        DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).stale(settings.stale()).load(&server);
        let load = Saturation::start(server.address(), settings)?;
        let (before, cpu) = (Instant::now(), gauge.cpu_seconds()?);
        thread::sleep(ALONE);
        let busy = (gauge.cpu_seconds()? - cpu) / before.elapsed().as_secs_f64();
        let scan = contestant::keysweep(&server, &["--pace", "normal"]);
        let after = Instant::now();
        thread::sleep(ALONE);
        let answers = load.stop()?;
        let scan = scan?;
        ensure!(gauge.keys()? == settings.live(), "the scan left stale keys");
        let end = scan.began + Duration::from_secs_f64(scan.wall);
        let middle = scan.began + Duration::from_secs_f64(scan.wall / 2.0);
        let alone = Latency::from(&answers.between(&[(before, before + ALONE), (after, after + ALONE)])?);
        let during = Latency::from(&answers.between(&[(scan.began, end)])?);
        let late = Latency::from(&answers.between(&[(middle, end)])?);
        let report = scan.report.context("keysweep reports")?;
        let micros = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e6);
        let round = Round {
            alone,
            during,
            late,
            ratio: during.p90 / alone.p90,
            late_ratio: late.p90 / alone.p90,
            busy,
            wall: scan.wall,
            backoffs: report.totals.backoffs,
            baseline_p90: micros(report.totals.probe_seconds.baseline_p90),
            during_p90: micros(report.totals.probe_seconds.during_p90),
        };
        eprintln!(
            "{} backoff round {}: main thread {:.0} % busy, p90 {:.0} µs alone, {:.0} µs during, {:.0} µs late, {} backoffs, {:.1} s",
            flavor.name(),
            number + 1,
            busy * 100.0,
            alone.p90,
            during.p90,
            late.p90,
            round.backoffs,
            round.wall
        );
        done.push(round);
    }
    Ok(Some(Backoff { rounds: done }))
}
