//! All contestants side by side on one server: the same live keys, fresh stale keys, the foreground running. The order
//! alternates so that no contestant always runs on a warm machine.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keysweep_harness::{DataSet, Flavor, Server};
use serde::Serialize;

use crate::{
    contestant::Contestant,
    foreground::Foreground,
    gauge::Gauge,
    settings::Settings,
    spread::{Latency, Spread},
};

/// One run of one contestant.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Seconds from start to end.
    pub wall: f64,
    /// CPU time of the server's main thread without the foreground's part, seconds.
    pub server_cpu: f64,
    /// CPU time of the contestant itself, seconds.
    pub own_cpu: f64,
    /// Peak resident memory of the contestant, bytes.
    pub peak_rss: Option<u64>,
    /// Number of reclaimed keys.
    pub reclaimed: u64,
    /// Latency of the foreground during the run.
    pub latency: Latency,
    /// p90 minus that of the same round without a scan, microseconds.
    pub added_p90: f64,
    /// Number of slices; `None` unless the contestant is keysweep.
    pub slices: Option<u64>,
    /// Number of backoffs; `None` unless the contestant is keysweep.
    pub backoffs: Option<u64>,
}

/// All rounds of one contestant.
#[derive(Debug, Clone, Serialize)]
pub struct Contest {
    /// Name of the contestant.
    pub name: &'static str,
    /// The contestant.
    #[serde(skip)]
    pub contestant: Contestant,
    /// Rounds in the order of their runs.
    pub rounds: Vec<Measurement>,
}

impl Contest {
    /// Returns the spread of a quantity over the rounds; `None` if a round lacks it.
    pub fn spread(&self, quantity: impl Fn(&Measurement) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.rounds.iter().map(quantity).collect::<Option<Vec<f64>>>()?)
    }

    /// Returns the median of a quantity that every round has.
    pub fn median(&self, quantity: impl Fn(&Measurement) -> f64) -> Option<f64> {
        Some(self.spread(|round| Some(quantity(round)))?.median)
    }
}

impl Measurement {
    /// Returns the mean of the idle measurements before and after a round, since the speed of a machine drifts.
    fn mean(&self, other: &Self) -> Self {
        let (one, two) = (self.latency, other.latency);
        let latency = Latency {
            p50: f64::midpoint(one.p50, two.p50),
            p90: f64::midpoint(one.p90, two.p90),
            p99: f64::midpoint(one.p99, two.p99),
            p999: f64::midpoint(one.p999, two.p999),
            requests: one.requests + two.requests,
        };
        Self { latency, server_cpu: f64::midpoint(self.server_cpu, other.server_cpu), ..self.clone() }
    }
}

/// Runs every contestant in every round.
pub fn run(flavor: Flavor, settings: &Settings, wanted: Vec<Contestant>) -> Result<Vec<Contest>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let contestants = wanted.into_iter().filter(|contestant| *contestant != Contestant::Idle);
    let server = loaded(flavor, settings);
    let mut gauge = Gauge::new(&server);
    let mut idle = Contest::of(Contestant::Idle);
    let mut results: Vec<Contest> = contestants.map(Contest::of).collect();
    let mut max_count = None;
    for round in 0..settings.rounds {
        let before = measure(Contestant::Idle, &server, &mut gauge, settings, 0.0, None)?;
        let cpu_share = before.server_cpu / before.wall;
        log(flavor, round, Contestant::Idle, &before);
        let mut measured = Vec::new();
        for place in order(results.len(), round) {
            let contestant = results[place].contestant;
            let prefix = format!("{round}-{place}-");
            DataSet::new().prefix(&prefix).value_bytes(settings.value_bytes).stale(settings.stale()).load(&server);
            let measurement = measure(contestant, &server, &mut gauge, settings, cpu_share, max_count)?;
            if contestant == Contestant::Pace("max") {
                max_count = measurement.slices.map(|slices| settings.keys.div_ceil(slices.max(1)));
            }
            log(flavor, round, contestant, &measurement);
            measured.push((place, measurement));
        }
        let after = measure(Contestant::Idle, &server, &mut gauge, settings, 0.0, None)?;
        log(flavor, round, Contestant::Idle, &after);
        let alone = before.mean(&after);
        for (place, mut measurement) in measured {
            measurement.added_p90 = measurement.latency.p90 - alone.latency.p90;
            results[place].rounds.push(measurement);
        }
        idle.rounds.push(alone);
    }
    results.insert(0, idle);
    Ok(results)
}

/// Starts a server with the live keys. Its own expiry cycle is off, so all contestants have the same work.
pub fn loaded(flavor: Flavor, settings: &Settings) -> Server {
    let server = Server::start(flavor);
    DataSet::new().value_bytes(settings.value_bytes).live(settings.live()).load(&server);
    server
}

/// Returns the order of a round: forwards and backwards in turn, each pair of rounds with another first contestant.
fn order(places: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places).collect();
    if places > 0 {
        order.rotate_left((round / 2 * 3) % places);
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Measures one run with the foreground, which alone uses `cpu_share` of the server's main thread (0–1).
fn measure(
    contestant: Contestant,
    server: &Server,
    gauge: &mut Gauge,
    settings: &Settings,
    cpu_share: f64,
    max_count: Option<u64>,
) -> Result<Measurement> {
    let keys = gauge.keys()?;
    let foreground = Foreground::start(server.address(), settings)?;
    let (opened, cpu) = (Instant::now(), gauge.cpu_seconds()?);
    let run = contestant.run(server, max_count);
    let (cpu, window) = (gauge.cpu_seconds()? - cpu, opened.elapsed().as_secs_f64());
    // The foreground must stop even if the contestant failed.
    let (began, wall) = run.as_ref().map_or((opened, window), |run| (run.began, run.wall));
    let [histogram] = foreground.stop([(began, began + Duration::from_secs_f64(wall))])?;
    let run = run?;
    let left = gauge.keys()?;
    ensure!(
        left == settings.live(),
        "{} left {} stale keys of {}",
        contestant.name(),
        left.saturating_sub(settings.live()),
        keys.saturating_sub(settings.live())
    );
    let latency = Latency::from(&histogram);
    Ok(Measurement {
        wall,
        server_cpu: cpu - cpu_share * window,
        own_cpu: run.own_cpu,
        peak_rss: run.peak_rss,
        reclaimed: keys - left,
        latency,
        added_p90: 0.0,
        slices: run.report.as_ref().map(|report| report.totals.slices),
        backoffs: run.report.as_ref().map(|report| report.totals.backoffs),
    })
}

fn log(flavor: Flavor, round: usize, contestant: Contestant, measurement: &Measurement) {
    let (name, title) = (flavor.name(), contestant.label());
    let Measurement { wall, server_cpu, own_cpu, latency, .. } = measurement;
    eprintln!(
        "{name} round {}: {title:<38} {wall:7.2} s  p90 {:6.0} µs  server {server_cpu:.2} s  own {own_cpu:.2} s",
        round + 1,
        latency.p90
    );
}

impl Contest {
    fn of(contestant: Contestant) -> Self {
        Self { name: contestant.name(), contestant, rounds: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_each_contestant_once_and_consecutive_orders_differ() {
        let orders: Vec<_> = (0..5).map(|round| order(10, round)).collect();
        for pair in orders.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, (0..10).collect::<Vec<_>>());
        }
        assert!(order(0, 3).is_empty());
    }
}
