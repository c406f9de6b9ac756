//! What a slice costs the server's main thread, as far as possible as the server tells it. Pure.
//!
//! The round trip of a slice is mostly network where the server is at a distance. The server measures every SCAN itself: with
//! its clock inside the transaction where that moves (Redis before 7.2), else in the statistics of its commands, which are
//! read now and then. Both count SCAN alone. What comes on top is nearly the same for every slice, whatever its COUNT: system
//! calls, parsing, the other commands, a core that has to wake up. It is calibrated by the CPU that the server reports.

use std::time::Duration;

use super::clients::Clients;
use crate::{server::ScanStatistics, speed::OVERHEAD};

/// The largest calibrated value, seconds. The smallest is negative: a server that has to wait for its core counts that time as
/// SCAN's, by up to this part of it.
const MAX_OVERHEAD: f64 = 250e-6;
const WAITED: f64 = 0.5;
/// What each reclaimed key costs after SCAN has ended, where its DEL goes to replicas or the append-only file, seconds.
const PER_RECLAIM: f64 = 0.3e-6;
/// The quantile of round trips that is compared, 0–1.
pub const LOW: f64 = 0.25;
/// What one query of the statistics or of the state costs, seconds.
pub const PER_QUERY: f64 = 100e-6;
/// What one PING costs a server that is idle in between, seconds: 66 on Valkey 9.1.2, 73 on Redis 7.0.15, and 20 on a core that is
/// awake.
pub const PER_PING: f64 = 60e-6;
/// Time over which the calibration extends, once slices run.
const CALIBRATION: Duration = Duration::from_secs(1);
/// Slices below which a calibration is meaningless.
const MIN_CALIBRATED: u32 = 20;
/// Slices from one reading of the statistics to the next, at most. The first readings follow after 1, 2, 4… slices.
const SLICES_PER_READING: u32 = 200;
/// Readings, and round trips, that are kept. The median of the readings decides, each counting by its slices, and a low quantile
/// of the round trips. The first slices meet cold caches and cost up to ten times as much as those that follow.
const READINGS: usize = 3;
const ROUND_TRIPS: usize = 16;
/// Readings in a row that tell nothing, after which round trips decide again: other clients scan all the while.
const MAX_USELESS: u32 = 10;
/// A reply that is later than this, and than three times the cost of its slice, is a reason to read the statistics: a large
/// value may have been freed.
const SUSPICIOUS: Duration = Duration::from_millis(5);

/// A slice as it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    pub count: u32,
    pub reclaimed: u64,
    /// How long SCAN took by the clock of the server, where that moves in a transaction.
    pub scan: Option<Duration>,
    /// How long its reply took beyond the round trip of an idle server, where nothing else delayed it.
    pub excess: Option<Duration>,
    /// Commands that it took.
    pub commands: u64,
}

/// What slices have done since some reading.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    slices: u32,
    /// Those whose SCAN was measured by the server's clock.
    by_clock: u32,
    units: u64,
    reclaimed: u64,
    /// Queries of the statistics and the state.
    queries: u32,
    /// Commands of slices, queries and PINGs.
    commands: u64,
    /// What was estimated, seconds.
    estimated: f64,
}

impl Sums {
    fn add(&mut self, slice: &Measured, estimated: f64) {
        self.slices += 1;
        self.by_clock += u32::from(slice.scan.is_some());
        self.units += u64::from(slice.count);
        self.reclaimed += slice.reclaimed;
        self.commands += slice.commands;
        self.estimated += estimated;
    }
}

/// Estimates the cost of each slice of one connection.
#[derive(Debug, Clone)]
pub struct CostMeter {
    /// Load of the clients before the first slice; `None`: unknown, so that nothing can be calibrated.
    clients: Option<Clients>,
    /// Seconds that each reclaimed key costs after SCAN.
    per_reclaim: f64,
    /// Seconds of SCAN for each unit of COUNT, before any reading.
    expected: f64,
    /// The same, by the last readings, with the slices of each; the oldest first.
    readings: Vec<(f64, u32)>,
    /// Seconds for each unit of COUNT, by the last round trips; the oldest first.
    round_trips: Vec<f64>,
    overhead: f64,
    last: Option<ScanStatistics>,
    since_last: Sums,
    next_reading: u32,
    useless: u32,
    is_suspicious: bool,
    /// Where the calibration began: the time, the counters, and the sums since; `None` once it is complete.
    calibration: Option<(Duration, ScanStatistics, Sums)>,
    is_calibrated: bool,
}

impl CostMeter {
    /// Returns a meter for a server with this load of its clients. `expected`: seconds of SCAN for each unit of COUNT.
    /// `propagates`: whether DELs go to replicas or the append-only file.
    pub fn new(expected: f64, clients: Option<Clients>, propagates: bool) -> Self {
        Self {
            clients,
            per_reclaim: if propagates { PER_RECLAIM } else { 0.0 },
            expected,
            readings: Vec::with_capacity(READINGS),
            round_trips: Vec::with_capacity(ROUND_TRIPS),
            overhead: OVERHEAD,
            last: None,
            since_last: Sums::default(),
            next_reading: 1,
            useless: 0,
            is_suspicious: false,
            calibration: None,
            is_calibrated: false,
        }
    }

    /// Records a slice. Returns what it cost.
    pub fn record(&mut self, slice: &Measured) -> Duration {
        if let Some(excess) = slice.excess {
            keep(&mut self.round_trips, excess.as_secs_f64() / f64::from(slice.count.max(1)), ROUND_TRIPS);
        }
        let besides = self.overhead + slice.reclaimed as f64 * self.per_reclaim;
        let count = f64::from(slice.count);
        let plus_besides = |scan: f64| (scan + besides).max(scan * WAITED);
        let cost = match (slice.scan, self.per_unit()) {
            (Some(scan), _) => plus_besides(scan.as_secs_f64()),
            (None, Some(per_unit)) => plus_besides(per_unit * count),
            // A round trip contains all that a slice costs.
            (None, None) => {
                self.by_round_trips().map_or_else(|| plus_besides(self.expected * count), |per_unit| per_unit * count)
            }
        };
        let late = slice.excess.map_or(0.0, |excess| excess.as_secs_f64()) - SUSPICIOUS.as_secs_f64();
        self.is_suspicious |= slice.scan.is_none() && late > 3.0 * cost;
        self.since_last.add(slice, cost);
        if let Some((_, _, sums)) = &mut self.calibration {
            sums.add(slice, cost);
        }
        Duration::from_secs_f64(cost)
    }

    /// Returns what a slice with this COUNT will probably cost, without reclaimed keys.
    pub fn expect(&self, count: u32) -> Duration {
        let scan = self.per_unit().unwrap_or(self.expected) * f64::from(count);
        Duration::from_secs_f64((scan + self.overhead).max(scan * WAITED))
    }

    /// Returns the part of a cost for which other clients wait: a core that has to wake up first is idle until then.
    pub fn pause(&self, cost: Duration) -> Duration {
        cost.saturating_sub(Duration::from_secs_f64((self.overhead - OVERHEAD).max(0.0)))
    }

    /// Whether the server tells what slices cost.
    pub fn is_told(&self) -> bool {
        self.last.is_some()
    }

    /// Records that the statistics or the state were asked for, which costs as well. Returns how much.
    pub fn record_query(&mut self) -> Duration {
        if let Some((_, _, sums)) = &mut self.calibration {
            sums.queries += 1;
        }
        Duration::from_secs_f64(PER_QUERY)
    }

    /// Records commands that are sent between slices.
    pub fn record_commands(&mut self, commands: u64) {
        if let Some((_, _, sums)) = &mut self.calibration {
            sums.commands += commands;
        }
    }

    /// Whether the statistics should be read soon.
    pub fn wants_reading(&self) -> bool {
        let is_needed = self.since_last.by_clock < self.since_last.slices || !self.is_calibrated;
        self.last.is_some() && is_needed && (self.is_suspicious || self.since_last.slices >= self.next_reading)
    }

    /// Returns the seconds of SCAN for each unit of COUNT, as far as the server tells.
    pub fn per_unit(&self) -> Option<f64> {
        (!self.readings.is_empty() && self.useless < MAX_USELESS).then(|| weighted_median(&self.readings))
    }

    /// Records a reading at `now`, with no slice under way. Returns by how many seconds the slices since the last reading cost
    /// more than was estimated.
    pub fn read(&mut self, now: Duration, reading: ScanStatistics) -> f64 {
        let sums = std::mem::take(&mut self.since_last);
        self.is_suspicious = false;
        if sums.slices > 0 {
            self.next_reading = (self.next_reading * 2).min(SLICES_PER_READING);
        }
        let last = self.last.replace(reading);
        let calls = last.map(|last| reading.calls.checked_sub(last.calls));
        let scan = last.and_then(|last| reading.scan.checked_sub(last.scan));
        // Other clients' SCANs, CONFIG RESETSTAT or another process: the difference is not that of these slices.
        let is_own = calls == Some(Some(u64::from(sums.slices)));
        let (true, Some(scan)) = (is_own, scan) else {
            self.calibration = (!self.is_calibrated).then_some((now, reading, Sums::default()));
            self.useless += u32::from(sums.slices > 0);
            return 0.0;
        };
        if sums.slices == 0 {
            return 0.0;
        }
        self.useless = 0;
        self.calibrate(now, reading);
        let scan = scan.as_secs_f64();
        keep(&mut self.readings, (scan / sums.units.max(1) as f64, sums.slices), READINGS);
        if sums.by_clock == sums.slices {
            return 0.0;
        }
        let besides = f64::from(sums.slices) * self.overhead + sums.reclaimed as f64 * self.per_reclaim;
        scan + besides - sums.estimated
    }

    /// Sets the overhead by the CPU that the server has used since the calibration began.
    fn calibrate(&mut self, now: Duration, reading: ScanStatistics) {
        let Some(((since, first, sums), clients)) = self.calibration.zip(self.clients) else { return };
        let Some(cpu) = reading.cpu.zip(first.cpu).and_then(|(cpu, before)| cpu.checked_sub(before)) else { return };
        let elapsed = now.saturating_sub(since);
        let scan = reading.scan.saturating_sub(first.scan).as_secs_f64();
        let others = reading.commands.saturating_sub(first.commands).saturating_sub(sums.commands);
        let clients = clients.cpu(elapsed.as_secs_f64(), others);
        // Where clients use more than the slices, what they use varies by more than what is to be measured.
        if sums.slices >= MIN_CALIBRATED && clients <= scan {
            let queries = f64::from(sums.queries) * PER_QUERY;
            let reclaims = sums.reclaimed as f64 * self.per_reclaim;
            let besides = cpu.as_secs_f64() - scan - clients - queries - reclaims;
            self.overhead = (besides.max(-scan * WAITED) / f64::from(sums.slices)).min(MAX_OVERHEAD);
        }
        if elapsed < CALIBRATION {
            return;
        }
        // A wait for a background save may have taken all of the time.
        self.is_calibrated = sums.slices >= MIN_CALIBRATED;
        self.calibration = (!self.is_calibrated).then_some((now, reading, Sums::default()));
    }

    /// Returns the seconds for each unit of COUNT by the round trips: jitter only adds to them, and so a low quantile is not
    /// affected by it as long as the round trip of an idle server is the same quantile.
    ///
    /// `None` where the first reading is yet to come.
    fn by_round_trips(&self) -> Option<f64> {
        let is_needed = self.last.is_none() || self.useless >= MAX_USELESS;
        (is_needed && !self.round_trips.is_empty()).then(|| quantile(&self.round_trips, LOW))
    }
}

/// Returns a quantile of some values.
pub fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

/// Returns the median of some values, each of which counts as often as its weight says.
fn weighted_median(values: &[(f64, u32)]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(|(value, _), (other, _)| value.total_cmp(other));
    let all: u64 = sorted.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut below = 0;
    let reaches_half = |(_, weight): &&(f64, u32)| {
        below += u64::from(*weight);
        2 * below >= all
    };
    sorted.iter().find(reaches_half).map_or(0.0, |(value, _)| *value)
}

fn keep<T>(values: &mut Vec<T>, value: T, most: usize) {
    if values.len() == most {
        values.remove(0);
    }
    values.push(value);
}

#[cfg(test)]
mod tests;
