//! The guard: with clients that fill the server's main thread, a sweep at normal must give way and still end.

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

/// Its name in `KEYSWEEP_BENCH_ONLY`.
pub const NAME: &str = "guard";
/// How long the clients are watched without a sweep, before and again after it: a machine drifts.
const ALONE: Duration = Duration::from_secs(3);

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Latency of a pipeline without a sweep.
    pub alone: Latency,
    /// The same during the sweep.
    pub during: Latency,
    /// During the second half of the sweep: after it has given way.
    pub late: Latency,
    /// p90 during the sweep by that without.
    pub ratio: f64,
    /// p90 during its second half by that without.
    pub late_ratio: f64,
    /// How full the main thread was without a sweep, 0–1.
    pub busy: f64,
    /// Seconds that the sweep took.
    pub wall: f64,
    /// How often it backed off.
    pub backoffs: u64,
    /// p90 of keysweep's own PINGs before the sweep, microseconds.
    pub baseline_p90: Option<f64>,
    /// The same during the sweep.
    pub during_p90: Option<f64>,
}

/// All rounds on one server.
#[derive(Debug, Clone, Serialize)]
pub struct Guard {
    /// Round after round.
    pub rounds: Vec<Round>,
}

impl Guard {
    /// A quantity over the rounds.
    pub fn spread(&self, quantity: impl Fn(&Round) -> f64) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity))
    }
}

/// Runs it where it is wanted.
pub fn run(flavor: Flavor, settings: &Settings) -> Result<Option<Guard>> {
    if !settings.wants(NAME) {
        return Ok(None);
    }
    let server = rounds::loaded(flavor, settings);
    let mut gauge = Gauge::new(&server);
    let mut done = Vec::new();
    for number in 0..settings.rounds {
        let prefix = format!("guard-{number}-");
        DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).dead(settings.dead()).load(&server);
        let load = Saturation::start(server.address(), settings)?;
        let (before, cpu) = (Instant::now(), gauge.cpu_seconds()?);
        thread::sleep(ALONE);
        let busy = (gauge.cpu_seconds()? - cpu) / before.elapsed().as_secs_f64();
        let sweep = contestant::keysweep(&server, &["--pace", "normal"]);
        let after = Instant::now();
        thread::sleep(ALONE);
        let answers = load.stop()?;
        let sweep = sweep?;
        ensure!(gauge.keys()? == settings.live(), "the guarded sweep left dead keys");
        let end = sweep.began + Duration::from_secs_f64(sweep.wall);
        let middle = sweep.began + Duration::from_secs_f64(sweep.wall / 2.0);
        let alone = Latency::from(&answers.between(&[(before, before + ALONE), (after, after + ALONE)])?);
        let during = Latency::from(&answers.between(&[(sweep.began, end)])?);
        let late = Latency::from(&answers.between(&[(middle, end)])?);
        let report = sweep.report.context("keysweep reports")?;
        let micros = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1e6);
        let round = Round {
            alone,
            during,
            late,
            ratio: during.p90 / alone.p90,
            late_ratio: late.p90 / alone.p90,
            busy,
            wall: sweep.wall,
            backoffs: report.totals.backoffs,
            baseline_p90: micros(report.totals.probe_seconds.baseline_p90),
            during_p90: micros(report.totals.probe_seconds.during_p90),
        };
        eprintln!(
            "{} guard round {}: main thread {:.0} % busy, p90 {:.0} µs alone, {:.0} µs during, {:.0} µs late, {} back-offs, {:.1} s",
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
    Ok(Some(Guard { rounds: done }))
}
